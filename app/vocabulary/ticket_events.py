"""Names of ticket events, and the mapping of tools' status words to open, solved or gone. Pure."""

from __future__ import annotations

from typing import Final, Literal

CREATED: Final = "ticket.created"
CHAT_STARTED: Final = "chat.started"
REPLIED_BY_CUSTOMER: Final = "ticket.replied_by_customer"
REPLIED_BY_AGENT: Final = "ticket.replied_by_agent"
STATUS_CHANGED: Final = "ticket.status_changed"
SOLVED: Final = "ticket.solved"
REOPENED: Final = "ticket.reopened"
ASSIGNED: Final = "ticket.assigned"
RATED: Final = "csat.submitted"

NAMES: Final = (
    CREATED,
    CHAT_STARTED,
    REPLIED_BY_CUSTOMER,
    REPLIED_BY_AGENT,
    STATUS_CHANGED,
    SOLVED,
    REOPENED,
    ASSIGNED,
    RATED,
)

TicketStatus = Literal["open", "solved", "gone"]

_SOLVED_WORDS: Final = frozenset({"solved", "closed", "resolved", "done", "completed", "archived"})
_GONE_WORDS: Final = frozenset({"deleted", "spam", "trashed", "scrubbed"})


def status_of(status: str | None) -> TicketStatus | None:
    """Return the status for a tool's status word; None if the word is missing or empty. Unknown words mean open."""
    if not status:
        return None
    word = status.strip().lower()
    if word in _SOLVED_WORDS:
        return "solved"
    return "gone" if word in _GONE_WORDS else "open"
