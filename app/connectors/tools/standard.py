"""Whoever signs by Standard Webhooks: our own flat shape, Segment's, or ``{"type", "timestamp", "data"}``. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from app.connectors.adapter import Call, Connector, Erasure, Event, split_json_events
from app.connectors.generic_event import map_flat_event
from app.connectors.signatures import STANDARD, read_standard_id
from app.connectors.webhook_request import WebhookRequest

_ID: Final = "webhook-id"


def split_delivery(delivery: WebhookRequest) -> list[Event]:
    """The message's id is the event's where it has none of its own; of several in one body, all but the first add
    their place."""
    message_id = read_standard_id(delivery)
    events: list[Any] = split_json_events(delivery)
    if not message_id:
        return events
    return [
        {**event, _ID: f"{message_id}.{place}" if place else message_id} if isinstance(event, dict) else event
        for place, event in enumerate(events)
    ]


def map_event(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    message_id = event.get(_ID)
    fields = {name: value for name, value in event.items() if name != _ID}
    yield map_flat_event(fields, "standard", message_id if isinstance(message_id, str) else "")


CONNECTOR: Final = Connector(
    key="standard",
    name="Standard Webhooks",
    family="any",
    scheme=STANDARD,
    split_delivery=split_delivery,
    map_event=map_event,
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
