"""Tickets of a customer over HTTP: in any order of arrival, over identities and help desks, now and in the past."""

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


def told(at: int, event: str, ticket: str | None = "7", **more: Any) -> dict[str, Any]:
    """What an adapter makes of a webhook; ``at`` is in seconds."""
    who = more.pop("who", {"userId": "user-1"})
    properties = {"ticket_id": ticket, **more}
    return {
        "type": "track",
        "event": event,
        "messageId": f"m-{at}-{event}",
        "timestamp": rfc3339(BEGIN + at * SECOND),
        "properties": properties,
        **who,
    }


STORY = [
    told(0, "ticket.created"),
    told(60, "ticket.replied_by_agent"),
    told(100, "ticket.solved", status="solved"),
    told(200, "ticket.reopened", status="open"),
    told(400, "ticket.solved", status="solved"),
    told(500, "csat.submitted", rating=2, scale=5),
    told(600, "ticket.created", "8", who={"anonymousId": "anon-1"}),
    told(700, "ticket.replied_by_agent", "8", who={"anonymousId": "anon-1"}),
    told(800, "csat.submitted", None, rating=4.5, scale=5),
    told(900, "ticket.created", "9"),
]
LOGIN = {"type": "identify", "messageId": "login", "userId": "user-1", "anonymousId": "anon-1"}


async def ask(service: RunningApp, **params: Any) -> Any:
    return await service.ask("/v1/customers/user_id:user-1/tickets", params=params)


@pytest.mark.parametrize("seed", range(3))
async def test_figures_of_tickets_in_any_order_of_arrival(service: RunningApp, seed: int) -> None:
    messages = [*STORY, LOGIN]
    random.Random(seed).shuffle(messages)
    for message in messages:
        await service.send(message)
    found = await ask(service)
    assert found["totals"] == {
        "tickets": 3,
        "open": 2,
        "reopened": 1,
        "last_csat": 4.5,
        "last_csat_at": rfc3339(BEGIN + 800 * SECOND),
        "median_first_response_seconds": 80.0,
    }
    assert [ticket["ticket_id"] for ticket in found["items"]] == ["9", "8", "7"]
    assert found["items"][2] == {
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
    assert found["items"][1]["first_response_seconds"] == 100.0
    assert found["since"] is None


async def test_as_it_stood_in_the_past(service: RunningApp) -> None:
    await service.send(*STORY)
    found = await ask(service, as_of=rfc3339(BEGIN + 399 * SECOND))
    [ticket] = found["items"]
    assert (ticket["is_open"], ticket["reopened"], ticket["resolution_seconds"], ticket["rating"]) == (
        True,
        1,
        None,
        None,
    )
    assert found["totals"]["last_csat"] is None


async def test_page_by_page(service: RunningApp) -> None:
    await service.send(*STORY, LOGIN)
    found = await service.all_of("/v1/customers/user_id:user-1/tickets", limit=1)
    assert [ticket["ticket_id"] for ticket in found] == ["9", "8", "7"]


async def test_unexpected_shapes_are_nothing(service: RunningApp) -> None:
    await service.send(
        told(0, "ticket.created", {"a": 1}),  # type: ignore[arg-type]  # what a client may send
        told(1, "csat.submitted", "7", rating="good"),
        told(2, "csat.submitted", "7", rating=[5]),
        told(3, "ticket.created", "7", opened_at="yesterday", status=["open"]),
        told(4, "csat.submitted", "7", rating="NaN"),
        told(5, "csat.submitted", "7", rating=1e300),
    )
    found = await ask(service)
    assert found["totals"]["last_csat"] is None
    assert {ticket["ticket_id"]: ticket["rating"] for ticket in found["items"]} == {"7": None, '{"a": 1}': None}


async def test_only_the_latest_are_looked_at(service: RunningApp) -> None:
    await service.send(*STORY[:6])
    served = service.app.state.services
    ids = [identity.id for identity in parse_customer_reference("user_id:user-1", served.settings)]
    found = await TicketQueries(served.pool, 2).list_tickets(ids, NOON)
    assert found.since == BEGIN + 400 * SECOND
    assert [(ticket.id, ticket.opened_at) for ticket in found.tickets] == [("7", None)]


async def test_who_may_ask(service: RunningApp) -> None:
    await service.ask("/v1/customers/user_id:nobody/tickets", expected=404)
    response = await service.client.get("/v1/customers/user_id:user-1/tickets")
    assert response.status_code == 401
    response = await service.client.post("/v1/customers/user_id:user-1/redact-text")
    assert response.status_code == 401
