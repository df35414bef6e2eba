"""Memory of a server after a thousand changes of definitions, compared with a restart over the same database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import httpx
import psutil
import pytest

from tests.support.server_process import Client, Server

pytestmark = [pytest.mark.server, pytest.mark.hostile]

CHANGES: Final = 1_000
MORE_THAN_A_RESTART_MB_MAX: Final = 30
IN_USE: Final = 300
"""Number of definitions that are not archived. Each change compiles them all."""

RULES: Final[list[dict[str, Any]]] = [
    {"did": "A", "within": "7d"},
    {"did": "A", "within": "2mo"},
    {"did": "A", "where": {"a": {"matches": "^x.*y"}}},
    {"first": "A", "within": "30d"},
    {"last": "A", "within": "30d"},
    {"sequence": [{"did": "A"}, {"did": "B", "within": "7d"}, {"did": "C"}], "within": "300d"},
    {"sequence": [{"did": "A"}, {"did": "B"}]},
    {"regularly": "A", "at_least": 1, "of_last": 4, "period": "week"},
    {"trait": "plan", "eq": "pro"},
    {"trait": "plan", "eq": "pro", "held_for": "3d"},
    {"trait": "plan", "changed_within": "3d"},
    {"sum": "v", "of": "A", "gt": 5},
    {"distinct": "v", "of": "A", "within": "7d", "gt": 5},
    {"all": [{"did": "A"}, {"not": {"did": "B"}}]},
    {"bucket": [0, 50], "salt": "x"},
    {"everyone": True},
]


async def test_definition_changes_hold_no_more_memory_than_a_restart(make_server: Callable[..., Server]) -> None:
    server = make_server().start()
    async with server.client() as client:
        await _read(client, "m-1")
        for number in range(CHANGES):
            await _change(client, number)
        await _read(client, "m-2")
    after_changes = _resident_mb(server)
    server.stop()
    server.start()
    async with server.client() as client:
        await _read(client, "m-3")
    after_restart = _resident_mb(server)
    print(f"{CHANGES:,} changes of definitions: {after_changes:.1f} MB; after a restart: {after_restart:.1f} MB")
    assert after_changes - after_restart <= MORE_THAN_A_RESTART_MB_MAX


async def _change(client: Client, number: int) -> None:
    """Create a segment or a journey, ask about it, and archive the oldest one if there are enough."""
    path, body = _definition(number)
    await _request(client, "POST", f"/v1/{path.partition('/')[0]}", body)
    await client.ask(f"/v1/{path}")
    await client.ask(f"/v1/customers/user-1/{path}/explain")
    await client.ask("/v1/customers/user-1")
    if number >= IN_USE:
        await _request(client, "DELETE", f"/v1/{_definition(number - IN_USE)[0]}")


def _definition(number: int) -> tuple[str, dict[str, Any]]:
    """Return the path and the body of one definition; every fifth is a journey."""
    rule, key = RULES[number % len(RULES)], f"definition-{number}"
    if number % 5:
        return f"segments/{key}", {"key": key, "name": "Segment", "rule": rule}
    stages = [
        {"key": "first", "name": "First", "rule": rule},
        {"key": "second", "name": "Second", "rule": {"did": "B"}},
    ]
    return f"journeys/{key}", {"key": key, "name": "Journey", "stages": stages}


async def _request(client: Client, method: str, path: str, body: dict[str, Any] | None = None) -> None:
    response = await client.http.request(method, path, headers=client.secret, json=body)
    assert response.status_code in (httpx.codes.OK, httpx.codes.CREATED), response.text


async def _read(client: Client, message_id: str) -> None:
    """Use every part of the server that a restart would not load yet."""
    await client.send({"type": "track", "userId": "user-1", "event": "A", "messageId": message_id})
    await client.ask("/v1/customers/user-1")
    await client.ask("/v1/segments")


def _resident_mb(server: Server) -> float:
    assert server._process is not None
    resident_mb: float = psutil.Process(server._process.pid).memory_info().rss / 1e6
    return resident_mb
