"""One customer with a long history under rules of every kind, and figures about the service beside it."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.server_process import Client

VALUES = ("sum", "avg", "min", "max", "first_value", "last_value", "distinct", "most_frequent")
USER = "hot"


def rules_of_every_kind(count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ``count`` rules of each kind, with windows of 1 to ``count`` days."""
    for number in range(count):
        window = f"{number + 1}d"
        yield f"did-{number}", {"did": "A", "at_least": number + 1, "within": window}
        yield f"between-{number}", {"did": "A", "at_least": number + 1, "within": f"{number + 3}d", "before": "1d"}
        yield f"first-{number}", {"first": "A", "within": window}
        yield (
            f"regularly-{number}",
            {"regularly": "A", "at_least": 2, "of_last": min(number + 2, 30), "period": "day"},
        )
        steps = [{"did": "A"}, {"did": "B", "within": window}, {"did": "C"}]
        yield f"sequence-{number}", {"sequence": steps, "within": "300d"}
        for head in VALUES:
            comparison = {"eq": number % 7} if head.endswith(("value", "frequent")) else {"gte": 10 * number}
            yield f"{head.replace('_', '-')}-{number}", {head: "v", "of": "A", "within": window, **comparison}


async def define_rules(client: Client, count: int) -> int:
    """Create segments of every kind, and return their number."""
    created = 0
    for key, rule in rules_of_every_kind(count):
        body = {"key": key, "name": key, "rule": rule}
        response = await client.http.post("/v1/segments", json=body, headers=client.secret, timeout=60)
        assert response.status_code == 201, response.text
        created += 1
    return created


def touchpoint(user: str, number: int, instant: datetime) -> dict[str, Any]:
    return {
        "type": "track",
        "event": "ABC"[number % 3],
        "userId": user,
        "messageId": f"{user}-{number}",
        "timestamp": instant.isoformat(),
        "receivedAt": instant.isoformat(),
        "properties": {"v": number * 7 % 13},
    }


async def send_history(
    client: Client, user: str, touchpoints: int, days: int, *, first: int = 0, pause: float = 0, size: int = 500
) -> int:
    """Send a history that ends now, in batches and in order of time; return how many batches were not projected.

    ``first`` is the number of the first touchpoint to send. ``pause`` are the seconds between two batches.
    """
    end, step = datetime.now(UTC), timedelta(days=days) / touchpoints
    unprojected = 0
    for start in range(first, touchpoints, size):
        await asyncio.sleep(pause)
        numbers = range(start, min(start + size, touchpoints))
        batch = [touchpoint(user, number, end - step * (touchpoints - number)) for number in numbers]
        unprojected += not (await client.send(*batch))["projected"]
    return unprojected


async def send_one(client: Client, user: str, number: int, seconds_late: float = 0) -> tuple[float, bool]:
    """Send a touchpoint of now; return how long it took, in seconds, and whether it was projected."""
    instant = datetime.now(UTC) - timedelta(seconds=seconds_late)
    started_at = time.perf_counter()
    receipt = await client.send(touchpoint(user, number, instant))
    return time.perf_counter() - started_at, receipt["projected"]


async def wait_until_projected(client: Client, seconds: float) -> float:
    """Send touchpoints of the hot customer until the worker has caught up; return the seconds that this took."""
    started_at = time.monotonic()
    for number in range(10**8, 10**9):
        if (await send_one(client, USER, number))[1]:
            break
        assert time.monotonic() - started_at < seconds, "the worker has not caught up in time"
        await asyncio.sleep(0.5)
    return time.monotonic() - started_at


async def median_seconds(client: Client, user: str, first_number: int, messages: int = 60) -> float:
    return statistics.median([(await send_one(client, user, first_number + n))[0] for n in range(messages)])


async def median_read_seconds(client: Client, reads: int = 20) -> float:
    seconds = []
    for _ in range(reads):
        started_at = time.perf_counter()
        response = await client.http.get(f"/v1/customers/{USER}", headers=client.secret, timeout=60)
        assert response.status_code == 200
        seconds.append(time.perf_counter() - started_at)
    return statistics.median(seconds)
