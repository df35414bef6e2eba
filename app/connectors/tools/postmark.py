"""Postmark connector: delivery, bounce, complaint, open, click, subscription and inbound webhooks.

A body is one JSON object; its ``RecordType`` is the kind of event. Requests are not signed: they are authenticated with
a token in the URL or as the password of Basic auth.

Source: https://postmarkapp.com/developer/webhooks/webhooks-overview
"""

from __future__ import annotations

from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from typing import Any, Final

from app.connectors.adapter import Call, Connector, Erasure, Event, derive_event_id
from app.connectors.shared.email import (
    CHANNEL,
    build_click_properties,
    extract_address,
    find_custom_ids,
    parse_list,
    parse_object,
)
from app.connectors.signatures import TOKEN
from app.connectors.webhook_request import Unreadable
from app.formats.event_names import vendor_event_name

_NAMES: Final = {
    "Delivery": "email.delivered",
    "Bounce": "email.bounced",
    "SpamComplaint": "email.complained",
    "Open": "email.opened",
    "Click": "email.clicked",
    "SubscriptionChange": "email.unsubscribed",
}
_TIMES: Final = ("DeliveredAt", "BouncedAt", "ReceivedAt", "ChangedAt", "SubmittedAt")
_TEMPORARY_BOUNCES: Final = frozenset({"Transient", "DnsError", "SoftBounce"})
"""Bounce types of temporary failures, after which the address may still be valid."""
_SUPPRESSED_BY: Final = {"HardBounce": "email.bounced", "SpamComplaint": "email.complained"}


def map_event(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    kind = event.get("RecordType")
    if kind == "Inbound" or (kind is None and "FromFull" in event):
        yield _map_received_mail(event)
        return
    if not isinstance(kind, str) or not kind:
        raise Unreadable("an event needs the field `RecordType`")
    name = _choose_event_name(kind, event)
    occurred_at = next((event[member] for member in _TIMES if event.get(member)), None)
    recipient = event.get("Recipient") or event.get("Email")
    own_id = event.get("ID")
    metadata = parse_object(event.get("Metadata"))
    derived_id = derive_event_id(kind, event.get("MessageID"), recipient, occurred_at, event.get("OriginalLink"), name)
    yield Call(
        id=f"{kind}-{own_id}" if own_id else derived_id,
        occurred_at=occurred_at,
        event=name,
        channel=CHANNEL,
        email=recipient,
        **find_custom_ids(metadata),
        properties=_build_properties(event)
        | {"metadata": metadata}
        | build_click_properties(name, event.get("UserAgent")),
    )


def _choose_event_name(kind: str, event: Event) -> str:
    if kind == "Bounce" and event.get("Type") in _TEMPORARY_BOUNCES:
        return "email.deferred"
    if kind == "SubscriptionChange":
        if event.get("SuppressSending") is False:
            return "email.resubscribed"
        return _SUPPRESSED_BY.get(str(event.get("SuppressionReason")), "email.unsubscribed")
    return _NAMES.get(kind) or vendor_event_name("postmark", kind)


def _build_properties(event: Event) -> dict[str, Any]:
    return {
        "link": event.get("OriginalLink"),
        "tags": parse_list(event.get("Tag")),
        "email_id": event.get("MessageID"),
        "subject": event.get("Subject"),
        "message_stream": event.get("MessageStream"),
        "first_open": event.get("FirstOpen"),
        "platform": event.get("Platform"),
        "bounce_type": event.get("Type"),
        "reason": event.get("Description") or event.get("SuppressionReason"),
        "details": event.get("Details"),
        "origin": event.get("Origin"),
    }


def _map_received_mail(event: Event) -> Call:
    """Map an inbound email, which a customer wrote."""
    sender = parse_object(event.get("FromFull")).get("Email") or extract_address(event.get("From"))
    message = event.get("MessageID")
    return Call(
        id=derive_event_id("Inbound", message, sender),
        occurred_at=_parse_date(event.get("Date")),
        event="email.received",
        channel=CHANNEL,
        email=sender,
        properties={
            "email_id": message,
            "mailbox_hash": event.get("MailboxHash"),
            "tags": parse_list(event.get("Tag")),
            "attachments": len(parse_list(event.get("Attachments"))) or None,
        },
        text={"subject": event.get("Subject"), "body": event.get("StrippedTextReply") or event.get("TextBody")},
    )


def _parse_date(value: Any) -> Any:
    """Convert an email date (``Thu, 5 Apr 2012 16:59:01 +0200``) to RFC 3339; return any other value unchanged."""
    try:
        return parsedate_to_datetime(value).isoformat()
    except (TypeError, ValueError):
        return value


CONNECTOR: Final = Connector(
    key="postmark",
    name="Postmark",
    family="email",
    scheme=TOKEN,
    map_event=map_event,
    refused_status=403,
    steps=(
        "Generate a token for this source. Postmark does not sign its webhooks, so each request must carry the token.",
        "In Postmark open the server, the message stream, Webhooks, and add {url}?token=TOKEN, or {url} with the token"
        " as the password of Basic auth.",
        "Select Delivery, Bounce, Spam complaint, Open, Link click and Subscription change. To receive emails that"
        " customers write, enter the same URL as the inbound webhook.",
        "Add user_id to the metadata of your emails, so that clicks are linked to the user.",
    ),
    sample=b'{"RecordType":"Click","MessageStream":"outbound","MessageID":"f4830d10-9c35-4f0c-bca3-3d9b459821f8",'
    b'"ReceivedAt":"2026-05-04T10:00:00.9065619Z","Recipient":"user@example.com",'
    b'"OriginalLink":"https://example.com/p","ClickLocation":"HTML","Tag":"welcome","Metadata":{"user_id":"user-1"},'
    b'"UserAgent":"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Firefox/128.0","Platform":"Desktop"}',
)
