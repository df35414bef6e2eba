"""Generic help desk connector: tickets, chats and ratings of help desks without a connector of their own.

It reads Segue's own format: objects with ``event``, ``id``, ``occurred_at``, ``ticket_id`` and ``customer``. Requests
are signed by Standard Webhooks. The format is documented in docs/support.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from app.connectors.adapter import Call, Connector, Erasure, Event, derive_event_id, split_json_events
from app.connectors.shared.helpdesk import (
    CHANNEL,
    as_object,
    as_status_word,
    as_text_id,
    build_csat_properties,
    classify_status_change,
    strip_markup,
)
from app.connectors.signatures import STANDARD, read_standard_id
from app.connectors.webhook_request import Unreadable, WebhookRequest
from app.formats.event_names import vendor_event_name
from app.vocabulary.ticket_events import NAMES, RATED, REPLIED_BY_AGENT, REPLIED_BY_CUSTOMER, STATUS_CHANGED

_ID: Final = "webhook-id"
_AGENT_WORDS: Final = frozenset({"agent", "admin", "staff", "bot"})


def split_delivery(delivery: WebhookRequest) -> list[Event]:
    """Split the body and add the ``webhook-id`` to each event. Of several events, each appends its index to it."""
    message_id = read_standard_id(delivery)
    events: list[Any] = split_json_events(delivery)
    if not message_id:
        return events
    return [
        {**event, _ID: message_id if len(events) == 1 else f"{message_id}.{place}"}
        if isinstance(event, dict)
        else event
        for place, event in enumerate(events)
    ]


def map_event(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    kind = event.get("event")
    if not isinstance(kind, str) or not kind.strip():
        raise Unreadable("an event needs the field `event`, such as ticket.created")
    customer = as_object(event.get("customer"))
    status, previous = as_status_word(event.get("status")), as_status_word(event.get("previous_status"))
    name = _choose_event_name(kind.strip(), event, status, previous)
    yield Call(
        id=as_text_id(event.get("id")) or as_text_id(event.get(_ID)) or derive_event_id(event),
        occurred_at=event.get("occurred_at"),
        event=name,
        channel=CHANNEL,
        user_id=customer.get("user_id"),
        anonymous_id=customer.get("anonymous_id"),
        email=customer.get("email"),
        phone=customer.get("phone"),
        ids={"support_customer": as_text_id(customer.get("id"))},
        properties={
            **as_object(event.get("properties")),
            "ticket_id": as_text_id(event.get("ticket_id")),
            "status": status,
            "previous_status": previous,
            "priority": as_status_word(event.get("priority")),
            "tags": event.get("tags"),
            "link": event.get("url"),
            "opened_at": event.get("opened_at"),
            **(build_csat_properties(event.get("rating"), event.get("scale")) if name == RATED else {}),
        },
        text={
            "subject": event.get("subject"),
            "body": strip_markup(event.get("message")),
            "comment": strip_markup(event.get("comment")),
        },
        is_by_customer=name != REPLIED_BY_AGENT and event.get("by") not in _AGENT_WORDS,
    )


def _choose_event_name(kind: str, event: Event, status: str | None, previous: str | None) -> str:
    if kind == "ticket.replied":
        return REPLIED_BY_AGENT if event.get("by") in _AGENT_WORDS else REPLIED_BY_CUSTOMER
    if kind == STATUS_CHANGED:
        return classify_status_change(status, previous)
    return kind if kind in NAMES else vendor_event_name("support", kind)


CONNECTOR: Final = Connector(
    key="support",
    name="Other help desks",
    family="support",
    scheme=STANDARD,
    split_delivery=split_delivery,
    map_event=map_event,
    steps=(
        "Configure the help desk, or a script next to it, to deliver to {url} and to sign by Standard Webhooks. Enter "
        "the signing secret as the secret of this source.",
        "Send event (ticket.created, ticket.replied with by, ticket.status_changed, ticket.solved, ticket.reopened, "
        "ticket.assigned, chat.started, csat.submitted with rating and scale), id, occurred_at, ticket_id and customer "
        "(user_id, email, phone or the help desk's own id).",
        "Put free text into subject, message and comment, and your own values into properties.",
    ),
    sample=b'{"id":"evt-1","event":"ticket.replied","by":"customer","occurred_at":"2026-05-04T10:00:00Z",'
    b'"ticket_id":"77","status":"open","priority":"high","customer":{"id":"c-9","user_id":"user-1",'
    b'"email":"user@example.com"},"subject":"Late","message":"Where is my parcel?",'
    b'"properties":{"order_id":"o-1"}}',
)
