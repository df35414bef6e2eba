"""CDNOW purchases, sent through a vendor SDK to a running server, reproduce the published figures."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from datetime import date

import pytest
from rich.console import Console

from examples.cdnow.demo import run_demo
from examples.cdnow.orders import PUBLISHED, SAMPLE, read_orders


def test_sample_has_the_published_counts() -> None:
    """Count without the service, so that the counts and the service cannot share an error."""
    orders = read_orders()
    assert (len(orders), len({order.customer for order in orders})) == (6_696, 2_357)
    within = Counter(order.customer for order in orders if order.ordered_at.date() <= date(1997, 9, 30))
    sizes = Counter(min(count, len(PUBLISHED)) for count in within.values())
    assert tuple(sizes[orders + 1] for orders in range(len(PUBLISHED))) == PUBLISHED


def test_sample_file_is_unchanged() -> None:
    readme = (SAMPLE.parent / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256(SAMPLE.read_bytes()).hexdigest() in readme


@pytest.mark.server
@pytest.mark.slow
def test_demo_returns_the_published_counts() -> None:
    screen = Console(file=io.StringIO(), width=140)
    outcome = run_demo(screen)
    assert outcome.counted == PUBLISHED
    assert outcome.recounted == PUBLISHED
    assert outcome.outcomes == {"accepted": 6_696, "duplicate": 2 * 6_696}
    assert outcome.quarantined == 0
    assert outcome.matches_published
    stages = [(stay["stage"], stay["entered_at"][:10], stay["cause"]["message_id"]) for stay in outcome.journey]
    assert stages == [
        ("purchase", "1997-01-01", "cdnow-00021-19970101"),
        ("loyalty", "1997-01-13", "cdnow-00021-19970113"),
    ]
