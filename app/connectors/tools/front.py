"""Front connector: application webhooks and rule webhooks about conversations.

Application webhooks carry an HMAC-SHA256 of the timestamp and the body; rule webhooks carry an HMAC-SHA1 of the body
without a timestamp. Front checks the URL of an application webhook with a signed challenge.

Source: https://dev.frontapp.com/docs/application-webhooks and https://dev.frontapp.com/docs/rule-webhooks
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from app.connectors.adapter import Call, Connector, Erasure, Event, HandshakeReply, derive_event_id
from app.connectors.shared.helpdesk import CHANNEL, as_object, as_status_word, as_text_id, strip_markup
from app.connectors.signatures import Scheme, hmac_scheme
from app.connectors.webhook_request import Unreadable, WebhookRequest, decode_json
from app.formats import timestamps
from app.formats.event_names import vendor_event_name
from app.touchpoint import SECOND
from app.vocabulary.ticket_events import (
    ASSIGNED,
    CREATED,
    REOPENED,
    REPLIED_BY_AGENT,
    REPLIED_BY_CUSTOMER,
    SOLVED,
    STATUS_CHANGED,
)

_TIME: Final = "x-front-request-timestamp"
_CHALLENGE: Final = "x-front-challenge"
_SECONDS_MAX: Final = 900
"""Maximum age of a signature in seconds. Front retries three times without delay, and recommends five minutes."""
_FIRST_MESSAGE_SECONDS: Final = 2
"""Maximum time in seconds from the start of a conversation to a message that counts as its first message."""

_NAMES: Final = {
    "outbound": REPLIED_BY_AGENT,
    "outbound_sent": REPLIED_BY_AGENT,
    "out_reply": REPLIED_BY_AGENT,
    "archive": SOLVED,
    "conversation_archived": SOLVED,
    "reopen": REOPENED,
    "conversation_reopened": REOPENED,
    "assign": ASSIGNED,
    "unassign": ASSIGNED,
    "trash": STATUS_CHANGED,
    "conversation_deleted": STATUS_CHANGED,
    "restore": STATUS_CHANGED,
    "conversation_restored": STATUS_CHANGED,
    "assignee_changed": ASSIGNED,
}
_INBOUND_KINDS: Final = frozenset({"inbound", "inbound_received"})
_STATUS_AFTER: Final = {
    "archive": "archived",
    "conversation_archived": "archived",
    "reopen": "open",
    "conversation_reopened": "open",
    "trash": "deleted",
    "conversation_deleted": "deleted",
    "restore": "open",
    "conversation_restored": "open",
}

_BY_APP: Final = hmac_scheme(
    "Signing key of the application, or API secret of the rule's webhook",
    signature_header="x-front-signature",
    encoding="base64",
    signed_bytes=lambda delivery, time: time.encode() + b":" + delivery.body,
    time_header=_TIME,
    seconds_max=_SECONDS_MAX,
    format_time=lambda now: str(now // 1_000),
)
_BY_RULE: Final = hmac_scheme("", signature_header="x-front-signature", digest="sha1", encoding="base64")


def verify(delivery: WebhookRequest, secret: str) -> None:
    """Verify as an application webhook if the timestamp header is present, otherwise as a rule webhook."""
    (_BY_APP if _TIME in delivery.headers else _BY_RULE).verify(delivery, secret)


def handshake_signed(delivery: WebhookRequest) -> HandshakeReply | None:
    """Return the challenge that Front sends when the URL is saved, in a signed request.

    The signature does not cover the challenge header, so the body must have the type ``sync``. Otherwise an
    intermediary could add the header to an event, which would then be answered and not stored.
    """
    challenge = delivery.headers.get(_CHALLENGE, "")
    if not challenge or not _is_sync(delivery.body):
        return None
    return HandshakeReply(body=msgspec.json.encode({"challenge": challenge}), content_type="application/json")


def _is_sync(body: bytes) -> bool:
    try:
        return as_object(decode_json(body)).get("type") == "sync"
    except Unreadable:
        return False


def split_delivery(delivery: WebhookRequest) -> list[Event]:
    """Return the event, without the envelope of an application webhook."""
    body = decode_json(delivery.body)
    if not isinstance(body, dict):
        raise Unreadable("the body must be a JSON object")
    payload = body.get("payload")
    if not isinstance(payload, dict):
        return [body]
    return [{"type": body.get("type"), **payload}]


def map_event(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    kind = event.get("type")
    if not isinstance(kind, str) or not kind:
        raise Unreadable("an event needs the field `type`")
    conversation = as_object(event.get("conversation"))
    person = _find_identities(as_object(conversation.get("recipient")))
    if kind == "sync" or not any(person.values()):
        return
    message = as_object(as_object(event.get("target")).get("data")) or as_object(conversation.get("last_message"))
    name = _choose_event_name(kind, event, conversation)
    yield Call(
        id=as_text_id(event.get("id")) or derive_event_id(event),
        occurred_at=event.get("emitted_at"),
        event=name,
        channel=CHANNEL,
        email=person["email"],
        phone=person["phone"],
        ids={"front_contact": person["contact"]},
        properties={
            "ticket_id": as_text_id(conversation.get("id")),
            "status": _STATUS_AFTER.get(kind) or as_status_word(conversation.get("status")),
            "via": as_status_word(message.get("type")),
            "tags": [tag.get("name") for tag in _list_objects(conversation.get("tags"))],
            "assignee_id": as_text_id(as_object(conversation.get("assignee")).get("id")),
            "message_id": as_text_id(message.get("id")),
            "opened_at": conversation.get("created_at"),
        },
        text={
            "subject": conversation.get("subject"),
            "body": strip_markup(message.get("text") or message.get("body") or message.get("blurb")),
        },
        is_by_customer=name in (CREATED, REPLIED_BY_CUSTOMER),
    )


def _choose_event_name(kind: str, event: Event, conversation: Event) -> str:
    if kind in _INBOUND_KINDS:
        return CREATED if _is_first_message(event, conversation) else REPLIED_BY_CUSTOMER
    return _NAMES.get(kind) or vendor_event_name("front", kind)


def _is_first_message(event: Event, conversation: Event) -> bool:
    emitted_at, created_at = (
        timestamps.parse(str(event.get("emitted_at"))),
        timestamps.parse(str(conversation.get("created_at"))),
    )
    return (
        emitted_at is not None
        and created_at is not None
        and abs(emitted_at - created_at) <= _FIRST_MESSAGE_SECONDS * SECOND
    )


def _find_identities(recipient: Event) -> dict[str, Any]:
    """Return the recipient's identities: the handle, if it is an address or a phone number, and the contact id."""
    handle = recipient.get("handle")
    handle = handle.strip() if isinstance(handle, str) else ""
    is_phone = handle.startswith("+") and handle[1:].replace(" ", "").isdecimal()
    contact = as_object(as_object(recipient.get("_links")).get("related")).get("contact")
    return {
        "email": handle if "@" in handle else None,
        "phone": handle if is_phone else None,
        "contact": contact.rstrip("/").rpartition("/")[2] if isinstance(contact, str) else None,
    }


def _list_objects(tags: Any) -> list[Event]:
    return [tag for tag in tags if isinstance(tag, dict)] if isinstance(tags, list) else []


CONNECTOR: Final = Connector(
    key="front",
    name="Front",
    family="support",
    scheme=Scheme(secret_label=_BY_APP.secret_label, verify=verify, sign=_BY_APP.sign),
    split_delivery=split_delivery,
    map_event=map_event,
    handshake_signed=handshake_signed,
    steps=(
        "In Front open Settings, Developers, your app, and copy its signing key. Enter it as the secret of this source "
        "before the next step: Front tests the URL when you save it.",
        "Open Features of the app, and add Webhooks with the URL {url}.",
        "Select the events inbound, outbound, archive, reopen and assign.",
        "To use a rule instead of an app, let the rule call {url}, and enter the API secret of the Webhooks app as "
        "the secret of this source.",
    ),
    sample=b'{"type":"inbound_received","authorization":{"id":"cmp_1"},"payload":{"id":"evt_28duo2q","type":"inbound",'
    b'"emitted_at":1777888800,"conversation":{"id":"cnv_1","subject":"Help","status":"unassigned","recipient":'
    b'{"handle":"user@example.com","role":"from","_links":{"related":{"contact":'
    b'"https://api2.frontapp.com/contacts/crd_7"}}},"created_at":1777880000.872},"source":{"_meta":{"type":"inboxes"}},'
    b'"target":{"_meta":{"type":"message"},"data":{"id":"msg_1","type":"email","is_inbound":true,'
    b'"body":"<p>Hello?</p>"}}}}',
    timeout_seconds=5.0,
)
