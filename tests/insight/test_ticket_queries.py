"""Tickets of a customer over HTTP: independent of arrival order, over several identities, now and in the past."""

from __future__ import annotations

import random
from typing import Any

import pytest

from app.formats.identifiers import parse_customer_reference
from app.formats.timestamps import rfc3339
from app.insight.ticket_queries import TicketQueries
from app.touchpoint import DAY, SECOND
from tests.support.running_app import NOON, RunningApp

BEGIN = NOON - DAY


def ticket_event(at: int, event: str, ticket: str | None = "7", **fields: Any) -> dict[str, Any]:
    """Return a message like those that a connector creates from webhooks. ``at`` is in seconds."""
    identity = fields.pop("who", {"userId": "user-1"})
    properties = {"ticket_id": ticket, **fields}
    return {
        "type": "track",
        "event": event,
        "messageId": f"m-{at}-{event}",
        "timestamp": rfc3339(BEGIN + at * SECOND),
        "properties": properties,
        **identity,
    }


EVENTS = [
    ticket_event(0, "ticket.created"),
    ticket_event(60, "ticket.replied_by_agent"),
    ticket_event(100, "ticket.solved", status="solved"),
    ticket_event(200, "ticket.reopened", status="open"),
    ticket_event(400, "ticket.solved", status="solved"),
    ticket_event(500, "csat.submitted", rating=2, scale=5),
    ticket_event(600, "ticket.created", "8", who={"anonymousId": "anon-1"}),
    ticket_event(700, "ticket.replied_by_agent", "8", who={"anonymousId": "anon-1"}),
    ticket_event(800, "csat.submitted", None, rating=4.5, scale=5),
    ticket_event(900, "ticket.created", "9"),
]
LOGIN = {"type": "identify", "messageId": "login", "userId": "user-1", "anonymousId": "anon-1"}


async def ask(service: RunningApp, **params: Any) -> Any:
    return await service.ask("/v1/customers/user_id:user-1/tickets", params=params)


@pytest.mark.parametrize("seed", range(3))
async def test_ticket_figures_are_independent_of_arrival_order(service: RunningApp, seed: int) -> None:
    messages = [*EVENTS, LOGIN]
    random.Random(seed).shuffle(messages)
    for message in messages:
        await service.send(message)
    result = await ask(service)
    assert result["totals"] == {
        "tickets": 3,
        "open": 2,
        "reopened": 1,
        "last_csat": 4.5,
        "last_csat_at": rfc3339(BEGIN + 800 * SECOND),
        "median_first_response_seconds": 80.0,
    }
    assert [ticket["ticket_id"] for ticket in result["items"]] == ["9", "8", "7"]
    assert result["items"][2] == {
        "ticket_id": "7",
        "source": "default",
        "is_open": False,
        "status": "solved",
        "opened_at": rfc3339(BEGIN),
        "first_seen_at": rfc3339(BEGIN),
        "last_seen_at": rfc3339(BEGIN + 500 * SECOND),
        "solved_at": rfc3339(BEGIN + 400 * SECOND),
        "first_response_seconds": 60.0,
        "resolution_seconds": 400.0,
        "reopened": 1,
        "rating": 2,
        "replies_by_customer": 0,
        "replies_by_agent": 1,
    }
    assert result["items"][1]["first_response_seconds"] == 100.0
    assert result["since"] is None


async def test_tickets_as_of_the_past(service: RunningApp) -> None:
    await service.send(*EVENTS)
    result = await ask(service, as_of=rfc3339(BEGIN + 399 * SECOND))
    [ticket] = result["items"]
    assert (ticket["is_open"], ticket["reopened"], ticket["resolution_seconds"], ticket["rating"]) == (
        True,
        1,
        None,
        None,
    )
    assert result["totals"]["last_csat"] is None


async def test_pagination_is_complete_and_newest_first(service: RunningApp) -> None:
    await service.send(*EVENTS, LOGIN)
    tickets = await service.all_of("/v1/customers/user_id:user-1/tickets", limit=1)
    assert [ticket["ticket_id"] for ticket in tickets] == ["9", "8", "7"]


async def test_values_of_unexpected_types_are_ignored(service: RunningApp) -> None:
    await service.send(
        ticket_event(0, "ticket.created", {"a": 1}),  # type: ignore[arg-type]  # what a client may send
        ticket_event(1, "csat.submitted", "7", rating="good"),
        ticket_event(2, "csat.submitted", "7", rating=[5]),
        ticket_event(3, "ticket.created", "7", opened_at="yesterday", status=["open"]),
        ticket_event(4, "csat.submitted", "7", rating="NaN"),
        ticket_event(5, "csat.submitted", "7", rating=1e300),
    )
    result = await ask(service)
    assert result["totals"]["last_csat"] is None
    assert {ticket["ticket_id"]: ticket["rating"] for ticket in result["items"]} == {"7": None, '{"a": 1}': None}


async def test_only_the_latest_touchpoints_are_read(service: RunningApp) -> None:
    await service.send(*EVENTS[:6])
    services = service.app.state.services
    ids = [identity.id for identity in parse_customer_reference("user_id:user-1", services.settings)]
    result = await TicketQueries(services.pool, 2).list_tickets(ids, NOON)
    assert result.since == BEGIN + 400 * SECOND
    assert [(ticket.id, ticket.opened_at) for ticket in result.tickets] == [("7", None)]


async def test_unknown_customer_and_missing_key_are_refused(service: RunningApp) -> None:
    await service.ask("/v1/customers/user_id:nobody/tickets", expected=404)
    response = await service.client.get("/v1/customers/user_id:user-1/tickets")
    assert response.status_code == 401
    response = await service.client.post("/v1/customers/user_id:user-1/redact-text")
    assert response.status_code == 401
