"""CDNOW demo: imports 18 months of real purchases with a Segment SDK and compares segment sizes with published ones.

It starts Segue on an empty directory, defines eight segments, sends every order and compares the segment sizes. Then it
sends all orders twice more in random order, and shows the journey and segments of one customer.
``tests/end_to_end/test_cdnow.py`` runs the same steps.
"""

from __future__ import annotations

import random
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from segment.analytics.client import Client  # type: ignore[import-untyped]  # the SDK ships no types

from bench.processes import Server, free_port, serving
from examples.cdnow.orders import PUBLISHED, Order, read_orders, segments

SEND_SECONDS_MAX: Final = 300.0
SHUFFLE_SEED: Final = 1997
CUSTOMER: Final = "00021"
"""Id of a customer with repeat orders, whose journey the demo prints."""


@dataclass(frozen=True)
class Outcome:
    """Member counts after the import (``counted``), and after sending all orders twice more (``recounted``)."""

    sent: int
    counted: tuple[int, ...]
    recounted: tuple[int, ...]
    outcomes: dict[str, int]
    """Number of messages by outcome over the whole demo: accepted, duplicate, rejected."""
    quarantined: int
    journey: list[dict[str, Any]]

    @property
    def matches_published(self) -> bool:
        return (
            self.counted == self.recounted == PUBLISHED
            and self.outcomes == {"accepted": self.sent, "duplicate": 2 * self.sent}
            and self.quarantined == 0
        )


class Service:
    """A running Segue, with a write key for the SDK and a client that has the secret key."""

    def __init__(self, server: Server) -> None:
        self.url = server.url
        self.write_key = server.printed_key("write")
        secret = {"Authorization": f"Bearer {server.printed_key('secret')}"}
        self.http = httpx.Client(base_url=server.url, headers=secret, timeout=30)

    def get(self, path: str) -> Any:
        return self.http.get(path).raise_for_status().json()

    def define(self, segment: dict[str, Any]) -> None:
        self.http.post("/v1/segments", json=segment).raise_for_status()

    def count(self, segment: str) -> int:
        return int(self.get(f"/v1/segments/{segment}/count")["count"])

    def outcomes(self) -> dict[str, int]:
        text = self.http.get("/metrics").raise_for_status().text
        samples = re.findall(r'^segue_messages_total\{outcome="(\w+)"\} ([\d.e+]+)$', text, re.MULTILINE)
        return {outcome: int(float(count)) for outcome, count in samples}


@contextmanager
def fresh_service() -> Iterator[Service]:
    with tempfile.TemporaryDirectory(prefix="segue-demo-") as directory:
        port = free_port()
        command = ["app", "serve", "--data", f"{directory}/data", "--port", str(port)]
        with serving(command, port, Path(directory) / "server.log", ready="/readyz") as server:
            service = Service(server)
            with service.http:
                yield service


def run_demo(console: Console) -> Outcome:
    """Run the demo and print its results. Raise RuntimeError if a message could not be delivered."""
    orders = read_orders()
    console.print("Starting Segue on an empty directory ...")
    with fresh_service() as service:
        definitions = segments()
        for definition in definitions:
            service.define(definition)
        console.print(f"Defined {len(definitions)} segments; sending {len(orders)} orders with the Python SDK.")
        _send(service, orders, "Import", console)
        counted = tuple(service.count(definition["key"]) for definition in definitions)
        _show_counts(counted, console)

        repeated = 2 * orders
        random.Random(SHUFFLE_SEED).shuffle(repeated)
        _send(service, repeated, "All orders twice, shuffled", console)
        outcome = Outcome(
            sent=len(orders),
            counted=counted,
            recounted=tuple(service.count(definition["key"]) for definition in definitions),
            outcomes=service.outcomes(),
            quarantined=len(service.get("/v1/quarantine")["items"]),
            journey=service.get(f"/v1/customers/{CUSTOMER}/journey?journey=six-stage")["items"],
        )
        _show_replay(outcome, console)
        _show_customer(service, outcome.journey, console)
    return outcome


def _send(service: Service, orders: Sequence[Order], title: str, console: Console) -> None:
    """Pass all orders to the SDK and wait until Segue has counted every message."""
    failures: list[Exception] = []
    client = Client(
        service.write_key,
        host=service.url,
        gzip=True,
        max_queue_size=len(orders),
        on_error=lambda error, _batch: failures.append(error),
    )
    before = sum(service.outcomes().values())
    deadline = time.monotonic() + SEND_SECONDS_MAX
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=len(orders))
        for order in orders:
            _track(client, order)
        answered = 0
        while answered < len(orders) and not failures and time.monotonic() < deadline:
            time.sleep(0.1)
            answered = sum(service.outcomes().values()) - before
            progress.update(task, completed=answered)
    client.join()
    if failures or answered < len(orders):
        raise RuntimeError(f"{answered} of {len(orders)} messages were processed; SDK errors: {failures[:3]}")


def _track(client: Any, order: Order) -> None:
    queued, _ = client.track(
        user_id=order.customer,
        event="Order Completed",
        properties={"order_id": order.message_id, "cds": order.cds, "total": float(order.total), "currency": "USD"},
        timestamp=order.ordered_at,
        message_id=order.message_id,
    )
    if not queued:
        raise RuntimeError("The SDK's queue is full.")


# ------------------------------------------------------------------------------------------------------ output


def _show_counts(counted: Sequence[int], console: Console) -> None:
    """Print the counts beside those in Fader, Hardie and Lee (2005) for the calibration period."""
    table = Table("repeat orders", title="Customers by repeat orders, 1997-01-01 to 1997-09-30")
    for repeats in range(len(PUBLISHED)):
        table.add_column(f"{repeats}{'+' if repeats + 1 == len(PUBLISHED) else ''}", justify="right")
    table.add_row("published", *map(str, PUBLISHED))
    table.add_row("counted", *(f"[{'green' if a == b else 'red'}]{a}" for a, b in zip(counted, PUBLISHED, strict=True)))
    console.print(table)


def _show_replay(outcome: Outcome, console: Console) -> None:
    comparison = "unchanged" if outcome.counted == outcome.recounted else f"[red]different: {outcome.recounted}[/red]"
    totals = ", ".join(f"{count} {name}" for name, count in sorted(outcome.outcomes.items()))
    console.print(f"After all orders were sent twice more, the counts are {comparison}. Messages: {totals}.")


def _show_customer(service: Service, journey: Sequence[dict[str, Any]], console: Console) -> None:
    journey_table = Table("stage", "from", "until", "cause", title=f"Customer {CUSTOMER}: journey six-stage")
    for interval in journey:
        journey_table.add_row(
            interval["stage"] or "(none)",
            _day(interval["entered_at"]),
            _day(interval["left_at"]),
            _cause(interval["cause"]),
        )
    console.print(journey_table)

    customer = service.get(f"/v1/customers/{CUSTOMER}")
    segments_table = Table(
        "segment", "since", "until", "reason", title=f"Customer {CUSTOMER}: segments on {_day(customer['as_of'])}"
    )
    for segment in customer["segments"]:
        explanation = service.get(f"/v1/customers/{CUSTOMER}/segments/{segment['key']}/explain")["explanation"]
        segments_table.add_row(
            segment["key"], _day(segment["since"]), _day(segment["valid_until"]), "\n".join(_conditions(explanation))
        )
    console.print(segments_table)


def _day(instant: str | None) -> str:
    return "-" if instant is None else instant[:10]


def _cause(cause: dict[str, Any]) -> str:
    return str(cause.get("message_id", cause["kind"]))


def _conditions(node: dict[str, Any]) -> Iterator[str]:
    """Yield the conditions at the leaves of an explanation, with their counts, as text."""
    for child in node["nodes"]:
        yield from _conditions(child)
    if not node["nodes"]:
        rule = ", ".join(f"{word} {value}" for word, value in node["rule"].items())
        yield f"{rule}: {'yes' if node['truth'] else 'no'}, {node.get('counted', 0)} counted"
