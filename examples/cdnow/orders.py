"""CDNOW sample: real purchases, and the published counts that Segue should reproduce. Source: tests/data/README.md."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from bench.processes import ROOT

SAMPLE: Final = ROOT / "tests" / "data" / "cdnow_sample.txt"

PUBLISHED: Final = (1411, 439, 214, 100, 62, 38, 29, 64)
"""Number of customers by number of repeat orders, from 0 to 6 and "7 or more", in the 39 weeks until 1997-09-30."""


@dataclass(frozen=True)
class Order:
    """All purchases of one customer on one day."""

    customer: str
    ordered_at: datetime
    cds: int
    total: Decimal

    @property
    def message_id(self) -> str:
        return f"cdnow-{self.customer}-{self.ordered_at:%Y%m%d}"


def read_orders(path: Path = SAMPLE) -> list[Order]:
    """Return one order for each customer and day, oldest first. Lines of the same day are added up.

    The sample contains no times of day, so each order is at noon UTC.
    """
    bought: defaultdict[tuple[str, str], list[tuple[int, Decimal]]] = defaultdict(list)
    for line in path.read_text(encoding="ascii").splitlines():
        customer, _, day, cds, dollars = line.split()
        bought[day, customer].append((int(cds), Decimal(dollars)))
    return [
        Order(
            customer,
            datetime.combine(datetime.strptime(day, "%Y%m%d"), time(12), UTC),
            sum(cds for cds, _ in lines),
            sum((dollars for _, dollars in lines), Decimal(0)),
        )
        for (day, customer), lines in sorted(bought.items())
    ]


def segments() -> list[dict[str, Any]]:
    """Return a segment for each published count: 1 to 7 orders, and 8 or more, from January to September 1997."""
    last = len(PUBLISHED)
    return [
        {
            "key": f"orders-{orders}",
            "name": f"{orders}{' or more' if orders == last else ''} orders, January to September 1997",
            "rule": {
                "did": "Order Completed",
                "at_least" if orders == last else "exactly": orders,
                "from": "1997-01-01",
                "to": "1997-10-01",
            },
        }
        for orders in range(1, last + 1)
    ]
