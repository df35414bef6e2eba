"""Tickets of one customer in help desks, from opening to rating. Pure.

Touchpoints are processed in the order of the log. Tickets are not stored: they are a function of the set of
touchpoints, so a late touchpoint has the same effect as one that arrives in time. Missing data is not guessed: a ticket
without a reported opening has no opening time, and no time to the first response.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from statistics import median
from typing import assert_never

import msgspec

from app.touchpoint import SECOND, Order
from app.vocabulary.ticket_events import (
    CHAT_STARTED,
    CREATED,
    RATED,
    REOPENED,
    REPLIED_BY_AGENT,
    REPLIED_BY_CUSTOMER,
    SOLVED,
    TicketStatus,
    status_of,
)


class TicketEvent(msgspec.Struct, gc=False, frozen=True):
    """One touchpoint of a ticket. ``opened_at`` is the opening time that the tool reports."""

    order: Order
    name: str
    ticket_id: str | None = None
    status: str | None = None
    rating: Decimal | None = None
    opened_at: int | None = None


class Ticket(msgspec.Struct):
    """One ticket of one source, with the data that its touchpoints contain."""

    id: str
    source: str
    first: Order
    last_at: int = 0
    tool_status: str | None = None
    status: TicketStatus = "open"
    created_at: int | None = None
    reported_opened_at: int | None = None
    agent_replied_at: list[int] = []
    solved_at: int | None = None
    reopened: int = 0
    is_reopened: bool = False
    """True if the ticket was reopened after it was last solved."""
    rating: Decimal | None = None
    replies_by_customer: int = 0

    @property
    def opened_at(self) -> int | None:
        """Instant of the event that opened the ticket, or the opening time that the tool reports."""
        return self.reported_opened_at if self.created_at is None else self.created_at

    @property
    def is_open(self) -> bool:
        return self.status == "open"

    @property
    def replies_by_agent(self) -> int:
        return len(self.agent_replied_at)

    @property
    def first_response_seconds(self) -> float | None:
        """Seconds from the opening to the first reply by an agent.

        Replies that are dated before the opening are ignored, because the clock of a tool can be wrong.
        """
        opened_at = self.opened_at
        if opened_at is None:
            return None
        replied_at = next((at for at in self.agent_replied_at if at >= opened_at), None)
        return None if replied_at is None else (replied_at - opened_at) / SECOND

    @property
    def resolution_seconds(self) -> float | None:
        """Seconds from the opening to the last solution; None if the ticket is open, even if it was solved before."""
        if self.status != "solved" or self.opened_at is None or self.solved_at is None:
            return None
        return max(0, self.solved_at - self.opened_at) / SECOND


class TicketTotals(msgspec.Struct):
    """Totals over all tickets of a customer. ``last_csat`` includes ratings without a ticket."""

    tickets: int = 0
    open: int = 0
    reopened: int = 0
    last_csat: Decimal | None = None
    last_csat_at: int | None = None
    median_first_response_seconds: float | None = None


class TicketTimeline:
    """Builds the tickets of one customer from their events, applied in order."""

    def __init__(self) -> None:
        self.tickets: dict[tuple[str, str], Ticket] = {}
        self._last_csat: tuple[Decimal, int] | None = None

    def apply(self, event: TicketEvent) -> None:
        if event.name == RATED and event.rating is not None:
            self._last_csat = event.rating, event.order[0]
        if event.ticket_id is None:
            return
        source = event.order[2]
        ticket = self.tickets.get((source, event.ticket_id))
        if ticket is None:
            ticket = self.tickets[source, event.ticket_id] = Ticket(event.ticket_id, source, event.order)
        _apply_event(ticket, event)

    def totals(self) -> TicketTotals:
        tickets = self.tickets.values()
        waits = [ticket.first_response_seconds for ticket in tickets]
        response_seconds = [seconds for seconds in waits if seconds is not None]
        rating, rated_at = self._last_csat or (None, None)
        return TicketTotals(
            tickets=len(tickets),
            open=sum(ticket.is_open for ticket in tickets),
            reopened=sum(ticket.reopened for ticket in tickets),
            last_csat=rating,
            last_csat_at=rated_at,
            median_first_response_seconds=median(response_seconds) if response_seconds else None,
        )

    def newest(self) -> list[Ticket]:
        return sorted(self.tickets.values(), key=lambda ticket: ticket.first, reverse=True)


def build_timeline(events: Iterable[TicketEvent]) -> TicketTimeline:
    """Return the timeline after all ``events``, which may come in any order."""
    timeline = TicketTimeline()
    for event in sorted(events, key=lambda event: event.order):
        timeline.apply(event)
    return timeline


def _apply_event(ticket: Ticket, event: TicketEvent) -> None:
    at = event.order[0]
    ticket.last_at = at
    if event.opened_at is not None and ticket.reported_opened_at is None:
        ticket.reported_opened_at = event.opened_at
    if event.name in (CREATED, CHAT_STARTED) and ticket.created_at is None:
        ticket.created_at = at
    if event.name == REPLIED_BY_CUSTOMER:
        ticket.replies_by_customer += 1
    if event.name == REPLIED_BY_AGENT:
        ticket.agent_replied_at.append(at)
    if event.name == RATED and event.rating is not None:
        ticket.rating = event.rating
    ticket.tool_status = event.status or ticket.tool_status
    _apply_status(ticket, _status_after(event), at, is_reopened_event=event.name == REOPENED)


def _status_after(event: TicketEvent) -> TicketStatus | None:
    """Return the status that an event sets, or None.

    The event's name takes precedence over the status word, which may be specific to the tool. A rating sets no status.
    """
    if event.name == RATED:
        return None
    if event.name == SOLVED:
        return "solved"
    return "open" if event.name == REOPENED else status_of(event.status)


def _apply_status(ticket: Ticket, status: TicketStatus | None, at: int, *, is_reopened_event: bool) -> None:
    """Apply a status. Several messages may report one change, such as a reply that reopens a ticket; it counts once."""
    match status:
        case "solved":
            if ticket.status != "solved":
                ticket.solved_at = at
                ticket.is_reopened = False
        case "open":
            if not ticket.is_reopened and (ticket.status == "solved" or is_reopened_event):
                ticket.reopened += 1
                ticket.is_reopened = True
        case "gone" | None:
            pass
        case _:
            assert_never(status)
    ticket.status = status or ticket.status
