"""Figures of tickets: the same whatever order messages arrive in, and the same as counted by hand."""

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


def told(name: str, at: int, ticket: str | None = "7", source: str = "desk", **more: Any) -> TicketEvent:
    return TicketEvent((at * SECOND, f"m-{at}-{name}", source), name, ticket, **more)


def only(*all_told: TicketEvent) -> Any:
    [ticket] = build_timeline(all_told).tickets.values()
    return ticket


def test_the_life_of_a_ticket() -> None:
    ticket = only(
        told("ticket.created", 10),
        told("ticket.replied_by_customer", 20),
        told("ticket.replied_by_agent", 70),
        told("ticket.solved", 100, status="solved"),
        told("ticket.reopened", 200, status="open"),
        told("ticket.replied_by_agent", 250),
        told("ticket.solved", 310),
        told("ticket.status_changed", 900, status="closed"),
        told("csat.submitted", 1_000, rating=Decimal(2)),
    )
    assert ticket.opened_at == 10 * SECOND
    assert ticket.first_response_seconds == 60
    assert ticket.resolution_seconds == 300, "closing what is solved does not solve it again"
    assert ticket.reopened == 1
    assert ticket.rating == 2
    assert not ticket.is_open
    assert (ticket.replies_by_customer, ticket.replies_by_agent) == (1, 2)


def test_one_change_that_is_told_twice_counts_once() -> None:
    ticket = only(
        told("ticket.created", 10),
        told("ticket.solved", 20),
        told("ticket.replied_by_customer", 30, status="open"),
        told("ticket.reopened", 30, status="open"),
        told("ticket.status_changed", 31, status="pending"),
    )
    assert (ticket.reopened, ticket.is_open, ticket.resolution_seconds) == (1, True, None)


def test_what_was_not_told_is_not_made_up() -> None:
    ticket = only(told("ticket.replied_by_agent", 70), told("ticket.solved", 80))
    assert (ticket.opened_at, ticket.first_response_seconds, ticket.resolution_seconds) == (None, None, None)
    ticket = only(told("ticket.replied_by_agent", 70, opened_at=10 * SECOND), told("ticket.solved", 80))
    assert (ticket.first_response_seconds, ticket.resolution_seconds) == (60, 70), "the tool says when it was opened"


def test_what_was_deleted_is_neither_open_nor_solved() -> None:
    ticket = only(told("ticket.created", 10), told("ticket.status_changed", 20, status="Deleted"))
    assert (ticket.is_open, ticket.resolution_seconds, ticket.reopened) == (False, None, 0)


def test_tickets_of_two_sources_are_two() -> None:
    timeline = build_timeline([told("ticket.created", 10), told("ticket.created", 20, source="other")])
    assert [ticket.source for ticket in timeline.newest()] == ["other", "desk"]
    assert timeline.totals().open == 2


def test_a_rating_without_a_ticket_is_the_customers_last() -> None:
    totals = build_timeline(
        [told("csat.submitted", 9, None, rating=Decimal(5)), told("csat.submitted", 8, rating=Decimal(1))]
    )
    assert (totals.totals().last_csat, totals.totals().last_csat_at) == (5, 9 * SECOND)
    assert TicketTimeline().totals().last_csat is None


@pytest.mark.parametrize(
    ("word", "standing"),
    [("OPEN", "open"), ("Waiting on customer", "open"), (" Solved ", "solved"), ("closed", "solved"), ("spam", "gone")],
)
def test_words_of_tools(word: str, standing: str) -> None:
    assert status_of(word) == standing


_STATUSES = (None, "open", "Pending", "SOLVED", "closed", "deleted", "of our own")
_TOLD = st.builds(
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
_ALL_TOLD = st.lists(_TOLD, max_size=25, unique_by=lambda each: each.order[1:])


@given(st.data())
def test_any_order_gives_the_same_as_counting_by_hand(data: st.DataObject) -> None:
    all_told = data.draw(_ALL_TOLD)
    shuffled = data.draw(st.permutations(all_told))
    timeline = build_timeline(shuffled)
    keys = {(each.order[2], each.ticket_id) for each in all_told if each.ticket_id is not None}
    assert set(timeline.tickets) == keys
    waited = []
    for key, ticket in timeline.tickets.items():
        expected = reference_tickets.figures(all_told, key)  # type: ignore[arg-type]  # keys have no None
        assert {name: getattr(ticket, name) for name in expected} == expected
        waited.append(expected["first_response_seconds"])
    totals = timeline.totals()
    seconds = [each for each in waited if each is not None]
    assert totals.median_first_response_seconds == (median(seconds) if seconds else None)
    assert totals.open == sum(reference_tickets.figures(all_told, key)["is_open"] for key in keys)  # type: ignore[arg-type]  # as above
    rated = [each for each in all_told if each.name == "csat.submitted" and each.rating is not None]
    latest = max(rated, key=lambda each: each.order, default=None)
    assert totals.last_csat == (None if latest is None else latest.rating)
