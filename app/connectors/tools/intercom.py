"""Intercom connector: webhook notifications about conversations, tickets and contacts, one per request.

It reads the webhook models of the current API versions and the field ``user`` of older payloads. Requests carry an
HMAC-SHA1 of the body, keyed by the app's client secret.

Source: https://developers.intercom.com/docs/webhooks and
https://developers.intercom.com/docs/references/webhooks/webhook-models
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from app.connectors.adapter import Call, Connector, Erasure, Event, HandshakeReply, derive_event_id
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
from app.formats.event_names import vendor_event_name
from app.vocabulary.ticket_events import (
    ASSIGNED,
    CHAT_STARTED,
    CREATED,
    RATED,
    REOPENED,
    REPLIED_BY_AGENT,
    REPLIED_BY_CUSTOMER,
    SOLVED,
    STATUS_CHANGED,
)

_NAMES: Final = {
    "conversation.user.created": CHAT_STARTED,
    "conversation.user.replied": REPLIED_BY_CUSTOMER,
    "conversation.admin.replied": REPLIED_BY_AGENT,
    "conversation.admin.single.created": vendor_event_name("intercom", "conversation_begun_by_admin"),
    "conversation.admin.closed": SOLVED,
    "conversation.admin.opened": REOPENED,
    "conversation.admin.assigned": ASSIGNED,
    "conversation.admin.open.assigned": ASSIGNED,
    "conversation.admin.snoozed": STATUS_CHANGED,
    "conversation.admin.unsnoozed": STATUS_CHANGED,
    "conversation.deleted": STATUS_CHANGED,
    "conversation.rating.added": RATED,
    "ticket.created": CREATED,
    "ticket.contact.replied": REPLIED_BY_CUSTOMER,
    "ticket.admin.replied": REPLIED_BY_AGENT,
    "ticket.admin.assigned": ASSIGNED,
    "ticket.team.assigned": ASSIGNED,
    "ticket.closed": SOLVED,
    "ticket.rating.provided": RATED,
    "contact.unsubscribed": "email.unsubscribed",
    "user.unsubscribed": "email.unsubscribed",
}
_STATUS_AFTER: Final = {
    "conversation.admin.closed": "closed",
    "conversation.admin.opened": "open",
    "conversation.admin.snoozed": "snoozed",
    "conversation.admin.unsnoozed": "open",
    "conversation.deleted": "deleted",
    "ticket.closed": "closed",
}
_CONTACT_CHANGES: Final = frozenset({"created", "updated", "signed_up"})
_PERSON_TYPES: Final = frozenset({"user", "lead", "contact"})
_TRANSPORT_NAMES: Final = frozenset({"delivery_attempts", "delivery_status", "delivered_at", "first_sent_at"})


def handshake(delivery: WebhookRequest, secrets: Sequence[str]) -> HandshakeReply | None:
    """Answer the HEAD request with which Intercom checks the URL."""
    del secrets
    return HandshakeReply() if delivery.method == "HEAD" else None


def map_event(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    topic = event.get("topic")
    if not isinstance(topic, str) or not topic:
        raise Unreadable("a notification needs the field `topic`")
    item = as_object(as_object(event.get("data")).get("item"))
    if topic == "ping" or item.get("type") == "ping":
        return
    person = _find_identities(item)
    if not any(person.values()):
        return
    call = Call(
        id=as_text_id(event.get("id"))
        or derive_event_id({name: value for name, value in event.items() if name not in _TRANSPORT_NAMES}),
        occurred_at=event.get("created_at"),
        user_id=person["external_id"],
        email=person["email"],
        phone=person["phone"],
        ids={"intercom_contact": person["id"]},
    )
    if _is_identify(topic):
        call.traits = {"name": person["name"]}
    else:
        _fill_touchpoint(call, topic, item)
    yield call


def _is_identify(topic: str) -> bool:
    """Return whether the topic only describes a person, such as ``contact.user.created`` or ``user.created``."""
    kind, _, rest = topic.partition(".")
    is_tag = ".tag." in f".{rest}."
    return kind in ("contact", "user", "visitor") and rest.rpartition(".")[2] in _CONTACT_CHANGES and not is_tag


def _fill_touchpoint(call: Call, topic: str, item: Event) -> None:
    status = _STATUS_AFTER.get(topic) or _find_state(item)
    name = _NAMES.get(topic) or vendor_event_name("intercom", topic)
    if topic == "ticket.state.updated":
        name = classify_status_change(status, as_status_word(item.get("previous_ticket_state")))
    call.event = name
    call.channel = "email" if name == "email.unsubscribed" else CHANNEL
    rating = _find_rating(item) if name == RATED else {}
    call.properties = {
        "ticket_id": _find_conversation_id(item),
        "status": status,
        "priority": as_status_word(item.get("priority")),
        "tags": _list_tag_names(item.get("tags")),
        "tag": as_object(item.get("tag")).get("name"),
        "assignee_id": as_text_id(item.get("admin_assignee_id")),
        "opened_at": item.get("created_at") if item.get("type") in ("conversation", "ticket") else None,
        **build_csat_properties(rating.get("rating"), 5),
    }
    call.is_by_customer = name in (CHAT_STARTED, CREATED, REPLIED_BY_CUSTOMER, RATED)
    call.text = {"subject": _find_subject(item), "body": _find_text(name, item), "comment": rating.get("remark")}


def _find_identities(item: Event) -> dict[str, Any]:
    """Return the customer's identities: from the item, its ``user`` (old payloads), first contact or first author."""
    author = as_object(as_object(item.get("source")).get("author"))
    contacts = as_object(item.get("contacts"))
    candidates = [
        item if item.get("type") in _PERSON_TYPES else {},
        as_object(item.get("user")),
        as_object(item.get("contact")),
        get_first_object(contacts.get("contacts") or contacts.get("data")),
        author if author.get("type") in _PERSON_TYPES else {},
    ]
    person = next((candidate for candidate in candidates if candidate.get("id")), {})
    records = [record for record in candidates if not record.get("id") or record.get("id") == person.get("id")]
    spellings = {
        "id": ("id",),
        "external_id": ("external_id", "user_id"),
        "email": ("email",),
        "phone": ("phone",),
        "name": ("name",),
    }
    return {
        key: next((record[name] for record in records for name in names if record.get(name) not in (None, "")), None)
        for key, names in spellings.items()
    }


def _find_state(item: Event) -> str | None:
    """Return the state: ``open``, ``closed`` or ``snoozed`` for a conversation, or a state of the ticket's type."""
    state = item.get("state") or item.get("ticket_state")
    if isinstance(state, dict):
        state = state.get("category") or state.get("internal_label")
    return as_status_word(state)


def _find_conversation_id(item: Event) -> str | None:
    if item.get("type") == "conversation_rating" or item.get("conversation_id"):
        return as_text_id(item.get("conversation_id"))
    return as_text_id(item.get("id")) if item.get("type") not in _PERSON_TYPES else None


def _find_rating(item: Event) -> dict[str, Any]:
    if item.get("type") == "conversation_rating":
        return item
    return as_object(item.get("conversation_rating") or item.get("ticket_rating"))


def _find_subject(item: Event) -> str | None:
    attributes = as_object(item.get("ticket_attributes"))
    return strip_markup(as_object(item.get("source")).get("subject") or attributes.get("_default_title_"))


def _find_text(name: str, item: Event) -> str | None:
    """Return the last message, or the first one if the conversation or ticket has just been created."""
    parts = as_object(item.get("conversation_parts") or item.get("ticket_parts"))
    last = get_first_object(parts.get("conversation_parts") or parts.get("ticket_parts"))
    source = as_object(item.get("source") or item.get("conversation_message"))
    description = as_object(item.get("ticket_attributes")).get("_default_description_")
    if name in (CHAT_STARTED, CREATED):
        return strip_markup(source.get("body") or description)
    return strip_markup(last.get("body"))


def _list_tag_names(tags: Any) -> list[Any]:
    items = as_object(tags).get("tags")
    return [tag.get("name") for tag in items if isinstance(tag, dict)] if isinstance(items, list) else []


CONNECTOR: Final = Connector(
    key="intercom",
    name="Intercom",
    family="support",
    scheme=hmac_scheme("Client secret of the app", signature_header="x-hub-signature", digest="sha1", prefix="sha1="),
    map_event=map_event,
    handshake=handshake,
    steps=(
        "In Intercom's Developer Hub open your app, Webhooks, and enter {url} as the endpoint URL.",
        "Subscribe to the topics of conversations, tickets and contacts.",
        "Open Basic information, copy the client secret, and enter it as the secret of this source.",
    ),
    sample=b'{"type":"notification_event","id":"notif_2c71","topic":"conversation.user.replied","app_id":"abc",'
    b'"created_at":1777888800,"first_sent_at":1777888800,"delivery_attempts":1,"delivery_status":"pending",'
    b'"delivered_at":0,"self":null,"links":{},"data":{"type":"notification_event_data","item":{"type":"conversation",'
    b'"id":"213","created_at":1777888700,"updated_at":1777888800,"state":"open","source":{"type":"conversation",'
    b'"author":{"type":"user","id":"c-1","email":"user@example.com","name":"User"},"body":"<p>Hello</p>"},'
    b'"contacts":{"type":"contact.list","contacts":[{"type":"contact","id":"c-1","external_id":"user-1"}]},'
    b'"conversation_parts":{"type":"conversation_part.list","conversation_parts":[{"type":"conversation_part",'
    b'"id":"p-2","part_type":"comment","body":"<p>Are you there?</p>","author":{"type":"user","id":"c-1"}}]}}}}',
    timeout_seconds=5.0,
)
