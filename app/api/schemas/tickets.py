"""Schemas of a customer's support tickets."""

from __future__ import annotations

from pydantic import BaseModel, Field

from app.http.schema_types import EXAMPLE_ID, EXAMPLE_INSTANT, CustomerId, Instant, OptionalInstant, describe_schema

_TICKET = {
    "ticket_id": "456",
    "source": "zendesk",
    "is_open": False,
    "status": "solved",
    "opened_at": EXAMPLE_INSTANT,
    "first_seen_at": EXAMPLE_INSTANT,
    "last_seen_at": EXAMPLE_INSTANT,
    "solved_at": EXAMPLE_INSTANT,
    "first_response_seconds": 540.0,
    "resolution_seconds": 7200.0,
    "reopened": 1,
    "rating": 2,
    "replies_by_customer": 2,
    "replies_by_agent": 2,
}
_TOTALS = {
    "tickets": 1,
    "open": 0,
    "reopened": 1,
    "last_csat": 2,
    "last_csat_at": EXAMPLE_INSTANT,
    "median_first_response_seconds": 540.0,
}


class TicketOut(BaseModel):
    model_config = describe_schema("A ticket, as the source's help desk has reported it so far.", _TICKET)

    ticket_id: str
    source: str
    is_open: bool = Field(description="false means that the ticket is solved, deleted or spam.")
    status: str | None = Field(description="Latest status in the tool's own words.")
    opened_at: OptionalInstant = Field(
        description="When the ticket was opened, according to its touchpoints or else to the tool; null means unknown."
    )
    first_seen_at: Instant
    last_seen_at: Instant
    solved_at: OptionalInstant = Field(description="When the ticket was last solved; it may have been reopened since.")
    first_response_seconds: float | None = Field(description="Time from opening to the first reply of an agent.")
    resolution_seconds: float | None = Field(
        description="Time from opening to the last solution; null means that the ticket is not solved."
    )
    reopened: int = Field(description="How often the ticket was reopened.")
    rating: float | None = Field(description="Latest rating, from 1 to 5.")
    replies_by_customer: int
    replies_by_agent: int


class TicketTotalsOut(BaseModel):
    model_config = describe_schema("Totals over all tickets of a customer.", _TOTALS)

    tickets: int
    open: int
    reopened: int
    last_csat: float | None = Field(description="Latest rating, whether it belongs to a ticket or not.")
    last_csat_at: OptionalInstant
    median_first_response_seconds: float | None


class TicketsOut(BaseModel):
    model_config = describe_schema(
        "Tickets of a customer, newest first.",
        {
            "id": EXAMPLE_ID,
            "totals": _TOTALS,
            "items": [_TICKET],
            "since": None,
            "next_cursor": None,
            "as_of": EXAMPLE_INSTANT,
        },
    )

    id: CustomerId
    totals: TicketTotalsOut
    items: list[TicketOut]
    since: OptionalInstant = Field(
        description="Start of the evaluated history if it was cut at the latest 50,000 ticket touchpoints; null "
        "means that it is complete."
    )
    next_cursor: str | None
    as_of: Instant


class RedactionOut(BaseModel):
    model_config = describe_schema(
        "Numbers of messages whose `context.private` was deleted, and of their quarantined duplicates "
        "that were deleted.",
        {"success": True, "messages": 12, "quarantined": 0},
    )

    success: bool
    messages: int
    quarantined: int
