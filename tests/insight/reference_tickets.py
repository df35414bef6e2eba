"""Reference for tickets: computes each figure from the whole history of a ticket."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.insight.tickets import TicketEvent

_SOLVED_STATUSES = ("solved", "closed", "resolved", "done", "completed", "archived")
_DELETED_STATUSES = ("deleted", "spam", "trashed", "scrubbed")


def _status_history(events: Sequence[TicketEvent]) -> list[tuple[int, str]]:
    """Return (instant, status) for each event that sets the status of the ticket."""
    changes = []
    for event in events:
        if event.name == "ticket.solved":
            changes.append((event.order[0], "solved"))
        elif event.name == "ticket.reopened":
            changes.append((event.order[0], "reopened"))
        elif event.name != "csat.submitted" and event.status:
            word = event.status.strip().lower()
            changes.append(
                (
                    event.order[0],
                    "solved" if word in _SOLVED_STATUSES else "gone" if word in _DELETED_STATUSES else "open",
                )
            )
    return changes


def figures(all_events: Sequence[TicketEvent], key: tuple[str, str]) -> dict[str, Any]:
    """Return the figures of a ticket. ``key`` is (source, ticket id)."""
    events = sorted(
        (event for event in all_events if (event.order[2], event.ticket_id) == key), key=lambda event: event.order
    )
    created = [event.order[0] for event in events if event.name in ("ticket.created", "chat.started")]
    reported = [event.opened_at for event in events if event.opened_at is not None]
    opened_at = created[0] if created else reported[0] if reported else None
    responses = [event.order[0] for event in events if event.name == "ticket.replied_by_agent"]
    after = [at for at in responses if opened_at is not None and at >= opened_at]
    history = _status_history(events)
    current = history[-1][1] if history else "open"
    solved = [
        at
        for place, (at, status) in enumerate(history)
        if status == "solved" and (place == 0 or history[place - 1][1] != "solved")
    ]
    ratings = [event.rating for event in events if event.name == "csat.submitted" and event.rating is not None]
    return {
        "opened_at": opened_at,
        "first_response_seconds": (after[0] - opened_at) / 1_000_000 if after and opened_at is not None else None,
        "resolution_seconds": max(0, solved[-1] - opened_at) / 1_000_000
        if current == "solved" and opened_at is not None
        else None,
        "reopened": _count_reopenings(history),
        "is_open": current in ("open", "reopened"),
        "rating": ratings[-1] if ratings else None,
    }


def _count_reopenings(history: list[tuple[int, str]]) -> int:
    """Return the number of periods between solutions that count as reopened.

    Such a period contains a reopening, or the status is open right after a solution.
    """
    periods: list[tuple[bool, list[str]]] = [(False, [])]
    for place, (_, status) in enumerate(history):
        if status == "solved":
            if place == 0 or history[place - 1][1] != "solved":
                periods.append((True, []))
        else:
            periods[-1][1].append(status)
    return sum(
        "reopened" in statuses or (follows_solution and statuses[:1] == ["open"])
        for follows_solution, statuses in periods
    )
