"""Standard Webhooks connector, for any sender that signs by this specification, with its header names or Svix's names.

It reads Segue's flat event format, Segment messages and the specification's ``{"type", "timestamp", "data"}``. Requests
carry an HMAC-SHA256 (``v1``, secret ``whsec_``) or an Ed25519 signature (``v1a``, key ``whpk_``).

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from app.connectors.adapter import Call, Connector, Erasure, Event, split_json_events
from app.connectors.generic_event import map_flat_event
from app.connectors.signatures import STANDARD, read_standard_id
from app.connectors.webhook_request import WebhookRequest

_ID: Final = "webhook-id"


def split_delivery(delivery: WebhookRequest) -> list[Event]:
    """Split the body. Add the ``webhook-id`` to each event, as the message id of events without an id of their own.

    All events of a body except the first append their index, so that ids stay unique.
    """
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
        "Configure the sender to deliver to {url} and to sign by Standard Webhooks (headers webhook-id, "
        "webhook-timestamp and webhook-signature, or the same names with svix-).",
        "Enter the sender's signing secret (whsec_..) or public key (whpk_..) as the secret of this source.",
        "Send type (or event), timestamp, an identity (user_id, email, phone or anonymous_id), channel and properties "
        "(or data). Segment messages are accepted too.",
        "If the identity is in a different field of data, list that field in the source's identity_properties.",
    ),
    sample=b'{"type":"invoice.paid","timestamp":"2026-05-04T10:00:00Z","user_id":"user-1","email":"user@example.com",'
    b'"channel":"server","data":{"invoice_id":"in-7","total":42.5,"currency":"EUR"}}',
)
