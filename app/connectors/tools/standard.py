"""Whoever signs by Standard Webhooks: our own flat shape, Segment's, or ``{"type", "timestamp", "data"}``. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from app.connectors.adapter import Call, Connector, Erasure, Event, json_events
from app.connectors.delivery import Delivery
from app.connectors.generic_event import call_of
from app.connectors.signatures import STANDARD, standard_id

_ID: Final = "webhook-id"


def split(delivery: Delivery) -> list[Event]:
    """The message's id is the event's where it has none of its own; of several in one body, all but the first add
    their place."""
    sent = standard_id(delivery)
    events: list[Any] = json_events(delivery)
    if not sent:
        return events
    return [
        {**event, _ID: f"{sent}.{place}" if place else sent} if isinstance(event, dict) else event
        for place, event in enumerate(events)
    ]


def read(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    sent = event.get(_ID)
    said = {name: value for name, value in event.items() if name != _ID}
    yield call_of(said, "standard", sent if isinstance(sent, str) else "")


CONNECTOR: Final = Connector(
    key="standard",
    name="Standard Webhooks",
    family="any",
    scheme=STANDARD,
    split=split,
    read=read,
    steps=(
        "Let the sender deliver to {url}, signed by Standard Webhooks (webhook-id, webhook-timestamp and "
        "webhook-signature; Svix's names of them do too).",
        "Enter its signing secret, whsec_.., or its public key, whpk_.., as the secret of this source.",
        "Send type (or event), timestamp, who it was (user_id, email, phone, anonymous_id), channel and properties (or "
        "data); messages in Segment's shape are read as such.",
        "Where the person stands elsewhere in data, name the place in the source's identity_properties.",
    ),
    sample=b'{"type":"invoice.paid","timestamp":"2026-05-04T10:00:00Z","user_id":"user-1","email":"user@example.com",'
    b'"channel":"server","data":{"invoice_id":"in-7","total":42.5,"currency":"EUR"}}',
)
