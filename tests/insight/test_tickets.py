"""Figures of tickets: independent of arrival order, and compared with the reference."""

from __future__ import annotations

from decimal import Decimal
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.insight.tickets import TicketEvent, TicketTimeline, build_timeline
from app.vocabulary.ticket_events import NAMES, status_of
from tests.insight import reference_tickets

SECOND = 1_000_000


def ticket_event(name: str, at: int, ticket: str | None = "7", source: str = "desk", **fields: Any) -> TicketEvent:
    return TicketEvent((at * SECOND, f"m-{at}-{name}", source), name, ticket, **fields)


def build_ticket(*events: TicketEvent) -> Any:
    [ticket] = build_timeline(events).tickets.values()
    return ticket


def test_figures_of_one_ticket() -> None:
    ticket = build_ticket(
        ticket_event("ticket.created", 10),
        ticket_event("ticket.replied_by_customer", 20),
        ticket_event("ticket.replied_by_agent", 70),
        ticket_event("ticket.solved", 100, status="solved"),
        ticket_event("ticket.reopened", 200, status="open"),
        ticket_event("ticket.replied_by_agent", 250),
        ticket_event("ticket.solved", 310),
        ticket_event("ticket.status_changed", 900, status="closed"),
        ticket_event("csat.submitted", 1_000, rating=Decimal(2)),
    )
    assert ticket.opened_at == 10 * SECOND
    assert ticket.first_response_seconds == 60
    assert ticket.resolution_seconds == 300, "closing a solved ticket does not solve it again"
    assert ticket.reopened == 1
    assert ticket.rating == 2
    assert not ticket.is_open
    assert (ticket.replies_by_customer, ticket.replies_by_agent) == (1, 2)


def test_change_reported_twice_counts_once() -> None:
    ticket = build_ticket(
        ticket_event("ticket.created", 10),
        ticket_event("ticket.solved", 20),
        ticket_event("ticket.replied_by_customer", 30, status="open"),
        ticket_event("ticket.reopened", 30, status="open"),
        ticket_event("ticket.status_changed", 31, status="pending"),
    )
    assert (ticket.reopened, ticket.is_open, ticket.resolution_seconds) == (1, True, None)


def test_missing_opening_is_not_guessed() -> None:
    ticket = build_ticket(ticket_event("ticket.replied_by_agent", 70), ticket_event("ticket.solved", 80))
    assert (ticket.opened_at, ticket.first_response_seconds, ticket.resolution_seconds) == (None, None, None)
    ticket = build_ticket(
        ticket_event("ticket.replied_by_agent", 70, opened_at=10 * SECOND), ticket_event("ticket.solved", 80)
    )
    assert (ticket.first_response_seconds, ticket.resolution_seconds) == (60, 70), (
        "the tool reports when the ticket was opened"
    )


def test_deleted_ticket_is_neither_open_nor_solved() -> None:
    ticket = build_ticket(
        ticket_event("ticket.created", 10), ticket_event("ticket.status_changed", 20, status="Deleted")
    )
    assert (ticket.is_open, ticket.resolution_seconds, ticket.reopened) == (False, None, 0)


def test_tickets_of_two_sources_are_distinct() -> None:
    timeline = build_timeline([ticket_event("ticket.created", 10), ticket_event("ticket.created", 20, source="other")])
    assert [ticket.source for ticket in timeline.newest()] == ["other", "desk"]
    assert timeline.totals().open == 2


def test_rating_without_a_ticket_is_the_last_csat() -> None:
    timeline = build_timeline(
        [
            ticket_event("csat.submitted", 9, None, rating=Decimal(5)),
            ticket_event("csat.submitted", 8, rating=Decimal(1)),
        ]
    )
    assert (timeline.totals().last_csat, timeline.totals().last_csat_at) == (5, 9 * SECOND)
    assert TicketTimeline().totals().last_csat is None


@pytest.mark.parametrize(
    ("word", "status"),
    [("OPEN", "open"), ("Waiting on customer", "open"), (" Solved ", "solved"), ("closed", "solved"), ("spam", "gone")],
)
def test_status_words_of_tools(word: str, status: str) -> None:
    assert status_of(word) == status


_STATUSES = (None, "open", "Pending", "SOLVED", "closed", "deleted", "custom")
_EVENTS = st.builds(
    lambda at, place, source, name, ticket, status, rating, opened_at: TicketEvent(
        (at * SECOND, f"m-{place}", source), name, ticket, status, rating, opened_at
    ),
    at=st.integers(0, 40),
    place=st.integers(0, 1_000),
    source=st.sampled_from(["a", "b"]),
    name=st.sampled_from(NAMES),
    ticket=st.sampled_from([None, "1", "2"]),
    status=st.sampled_from(_STATUSES),
    rating=st.none() | st.integers(1, 5).map(Decimal),
    opened_at=st.none() | st.integers(0, 40).map(lambda at: at * SECOND),
)
_EVENT_LISTS = st.lists(_EVENTS, max_size=25, unique_by=lambda event: event.order[1:])


@given(st.data())
def test_figures_match_the_reference_in_any_order(data: st.DataObject) -> None:
    events = data.draw(_EVENT_LISTS)
    shuffled = data.draw(st.permutations(events))
    timeline = build_timeline(shuffled)
    keys = {(event.order[2], event.ticket_id) for event in events if event.ticket_id is not None}
    assert set(timeline.tickets) == keys
    all_waits = []
    for key, ticket in timeline.tickets.items():
        expected = reference_tickets.figures(events, key)  # type: ignore[arg-type]  # keys have no None
        assert {name: getattr(ticket, name) for name in expected} == expected
        all_waits.append(expected["first_response_seconds"])
    totals = timeline.totals()
    waits = [wait for wait in all_waits if wait is not None]
    assert totals.median_first_response_seconds == (median(waits) if waits else None)
    assert totals.open == sum(reference_tickets.figures(events, key)["is_open"] for key in keys)  # type: ignore[arg-type]  # as above
    rated = [event for event in events if event.name == "csat.submitted" and event.rating is not None]
    latest = max(rated, key=lambda event: event.order, default=None)
    assert totals.last_csat == (None if latest is None else latest.rating)
