"""Tickets as one would count them by hand: each question asked of the whole history, ticket by ticket."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.insight.tickets import TicketEvent

_OVER = ("solved", "closed", "resolved", "done", "completed", "archived")
_GONE = ("deleted", "spam", "trashed", "scrubbed")


def _history(told: Sequence[TicketEvent]) -> list[tuple[int, str]]:
    """(instant, what it stands at) for each touchpoint that says so."""
    said = []
    for each in told:
        if each.name == "ticket.solved":
            said.append((each.order[0], "solved"))
        elif each.name == "ticket.reopened":
            said.append((each.order[0], "reopened"))
        elif each.name != "csat.submitted" and each.status:
            word = each.status.strip().lower()
            said.append((each.order[0], "solved" if word in _OVER else "gone" if word in _GONE else "open"))
    return said


def figures(all_told: Sequence[TicketEvent], key: tuple[str, str]) -> dict[str, Any]:
    """``key`` is (source, ticket id)."""
    told = sorted((each for each in all_told if (each.order[2], each.ticket_id) == key), key=lambda each: each.order)
    created = [each.order[0] for each in told if each.name in ("ticket.created", "chat.started")]
    said_opened = [each.opened_at for each in told if each.opened_at is not None]
    opened_at = created[0] if created else said_opened[0] if said_opened else None
    responses = [each.order[0] for each in told if each.name == "ticket.replied_by_agent"]
    after = [at for at in responses if opened_at is not None and at >= opened_at]
    history = _history(told)
    now = history[-1][1] if history else "open"
    solved = [
        at
        for place, (at, stands) in enumerate(history)
        if stands == "solved" and (place == 0 or history[place - 1][1] != "solved")
    ]
    ratings = [each.rating for each in told if each.name == "csat.submitted" and each.rating is not None]
    return {
        "opened_at": opened_at,
        "first_response_seconds": (after[0] - opened_at) / 1_000_000 if after and opened_at is not None else None,
        "resolution_seconds": max(0, solved[-1] - opened_at) / 1_000_000
        if now == "solved" and opened_at is not None
        else None,
        "reopened": _reopenings(history),
        "is_open": now in ("open", "reopened"),
        "rating": ratings[-1] if ratings else None,
    }


def _reopenings(history: list[tuple[int, str]]) -> int:
    """Cut at each solving: a stretch counts once, if it says that it was reopened, or is open right after solving."""
    stretches: list[tuple[bool, list[str]]] = [(False, [])]
    for place, (_, stands) in enumerate(history):
        if stands == "solved":
            if place == 0 or history[place - 1][1] != "solved":
                stretches.append((True, []))
        else:
            stretches[-1][1].append(stands)
    return sum("reopened" in said or (solved and said[:1] == ["open"]) for solved, said in stretches)
