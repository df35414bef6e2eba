"""Help Scout connector: conversation, customer and rating webhooks, payload versions 1 and 2.

The body is the current conversation, customer or rating; the header ``X-HelpScout-Event`` contains the event name.
Requests carry an HMAC-SHA1 of the body without a timestamp; the message id detects repeated bodies.

Source: https://developer.helpscout.com/webhooks/
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from app.connectors.adapter import Call, Connector, Erasure, Event, derive_event_id, split_json_events
from app.connectors.shared.helpdesk import (
    CHANNEL,
    as_object,
    as_status_word,
    as_text_id,
    build_csat_properties,
    classify_status_change,
    get_first_object,
    strip_markup,
)
from app.connectors.signatures import hmac_scheme
from app.connectors.webhook_request import Unreadable, WebhookRequest
from app.formats import timestamps
from app.formats.event_names import vendor_event_name
from app.vocabulary.ticket_events import ASSIGNED, CREATED, RATED, REPLIED_BY_AGENT, REPLIED_BY_CUSTOMER

_EVENT_HEADER: Final = "x-helpscout-event"
_SECRET_CHARS_MAX: Final = 40
_NAMES: Final = {
    "convo.created": CREATED,
    "convo.customer.reply.created": REPLIED_BY_CUSTOMER,
    "convo.agent.reply.created": REPLIED_BY_AGENT,
    "convo.assigned": ASSIGNED,
}
_EVENTS_WITH_TEXT: Final = frozenset(
    {"convo.created", "convo.customer.reply.created", "convo.agent.reply.created", "convo.note.created"}
)


def normalise_secret(secret: str) -> str:
    normalised = secret.strip()
    if len(normalised) > _SECRET_CHARS_MAX:
        raise ValueError("A Help Scout secret has at most 40 characters.")
    return normalised


def split_delivery(delivery: WebhookRequest) -> list[Event]:
    """Split the body and add the event name from the header; ``type`` in the body is the kind of conversation."""
    name = delivery.headers.get(_EVENT_HEADER, "").strip()
    if not name:
        raise Unreadable("the header X-HelpScout-Event is missing")
    events: list[Any] = split_json_events(delivery)
    return [{**event, _EVENT_HEADER: name} if isinstance(event, dict) else event for event in events]


def map_event(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    name = event.get(_EVENT_HEADER)
    if not isinstance(name, str) or not name:
        raise Unreadable("an event needs its name, which the header X-HelpScout-Event contains")
    if as_text_id(event.get("id")) is None:
        raise Unreadable("the body needs the field `id`")
    if name == "satisfaction.ratings":
        return [_map_rating(event, name)]
    if name.startswith("customer."):
        return [_map_customer(event, name)]
    return [_map_conversation(event, name)]


def _map_conversation(event: Event, name: str) -> Call:
    thread = _find_newest_thread(event)
    status = "deleted" if name == "convo.deleted" else as_status_word(event.get("status"))
    is_change = name in ("convo.status", "convo.deleted")
    event_name = (
        classify_status_change(status, None) if is_change else _NAMES.get(name) or vendor_event_name("helpscout", name)
    )
    customer = as_object(event.get("primaryCustomer") or event.get("customer"))
    changed_at = event.get("userUpdatedAt") or event.get("closedAt")
    has_text = name in _EVENTS_WITH_TEXT
    thread_id = as_text_id(thread.get("id")) if has_text else None
    return Call(
        id=derive_event_id(name, event["id"], thread_id or changed_at or event),
        occurred_at=(thread.get("createdAt") if has_text else None) or changed_at or event.get("createdAt"),
        event=event_name,
        channel=CHANNEL,
        email=_find_email(customer),
        ids={"helpscout_customer": as_text_id(customer.get("id"))},
        properties={
            "ticket_id": as_text_id(event["id"]),
            "ticket_number": event.get("number"),
            "status": status,
            "via": as_status_word(event.get("type")),
            "tags": _list_tag_names(event.get("tags")),
            "mailbox_id": as_text_id(event.get("mailboxId")),
            "opened_at": event.get("createdAt"),
        },
        text={"subject": event.get("subject"), "body": strip_markup(thread.get("body")) if has_text else None},
        is_by_customer=event_name in (CREATED, REPLIED_BY_CUSTOMER),
    )


def _map_rating(event: Event, name: str) -> Call:
    customer = as_object(event.get("customer"))
    occurred_at = event.get("modifiedAt") or event.get("createdAt")
    return Call(
        id=derive_event_id(name, event["id"], occurred_at or event),
        occurred_at=occurred_at,
        event=RATED,
        channel=CHANNEL,
        email=_find_email(customer),
        ids={"helpscout_customer": as_text_id(customer.get("id"))},
        properties={
            "ticket_id": as_text_id(event.get("ticketId") or event.get("conversationId")),
            **build_csat_properties(event.get("rating")),
        },
        text={"comment": event.get("comments")},
    )


def _map_customer(event: Event, name: str) -> Call:
    occurred_at = event.get("updatedAt") or event.get("createdAt")
    call = Call(
        id=derive_event_id(name, event["id"], occurred_at or event),
        occurred_at=occurred_at,
        email=_find_email(event),
        ids={"helpscout_customer": as_text_id(event["id"])},
        traits={
            trait: value
            for trait, value in (
                ("first_name", event.get("firstName") or event.get("first")),
                ("last_name", event.get("lastName") or event.get("last")),
            )
            if value
        },
    )
    if name not in ("customer.created", "customer.updated"):
        call.event, call.channel = vendor_event_name("helpscout", name), CHANNEL
    return call


def _find_email(customer: Event) -> Any:
    """Return the address of a customer: ``email``, or the first of ``emails``, which may be in ``_embedded``."""
    emails = customer.get("emails") or as_object(customer.get("_embedded")).get("emails")
    return customer.get("email") or get_first_object(emails).get("value")


def _find_newest_thread(event: Event) -> Event:
    threads = as_object(event.get("_embedded")).get("threads") or event.get("threads")
    objects = [thread for thread in threads if isinstance(thread, dict)] if isinstance(threads, list) else []
    return max(objects, key=_parse_created_at, default={})


def _parse_created_at(thread: Event) -> int:
    return timestamps.parse(str(thread.get("createdAt"))) or 0


def _list_tag_names(tags: Any) -> list[Any]:
    items = tags if isinstance(tags, list) else []
    return [tag.get("tag") or tag.get("name") if isinstance(tag, dict) else tag for tag in items]


_HMAC: Final = hmac_scheme(
    "Secret key (up to 40 characters)", signature_header="x-helpscout-signature", digest="sha1", encoding="base64"
)

CONNECTOR: Final = Connector(
    key="helpscout",
    name="Help Scout",
    family="support",
    scheme=replace(_HMAC, normalise_secret=normalise_secret),
    split_delivery=split_delivery,
    map_event=map_event,
    steps=(
        "In Help Scout open Manage, Apps, Webhooks, and install the app.",
        "Enter {url} as the callback URL. Choose a secret key of up to 40 characters, and enter it there and as the "
        "secret of this source.",
        "Select the conversation, customer and rating events to send.",
    ),
    sample=b'{"id":555,"number":12,"type":"email","status":"active","subject":"Help","createdAt":"2026-05-04T10:00:00Z",'
    b'"userUpdatedAt":"2026-05-04T10:05:00Z","primaryCustomer":{"id":77,"email":"user@example.com","first":"A",'
    b'"last":"User"},"_embedded":{"threads":[{"id":901,"type":"customer","createdAt":"2026-05-04T10:05:00Z",'
    b'"body":"<p>hi</p>"}]}}',
    sample_headers={"content-type": "application/json", _EVENT_HEADER: "convo.customer.reply.created"},
)
