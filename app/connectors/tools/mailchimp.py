"""Mailchimp connectors: ``mailchimp`` for audiences, ``mandrill`` for Mailchimp Transactional (formerly Mandrill).

Audience webhooks are forms with fields such as ``data[merges][FNAME]``; they are not signed, so a token in the URL
authenticates them. Transactional webhooks (payload ``v1``) are forms whose field ``mandrill_events`` contains many
events in JSON; they carry an HMAC-SHA1 of the URL, as entered in Mailchimp, and the fields.

Source: https://mailchimp.com/developer/marketing/guides/sync-audience-data-webhooks/ and
https://mailchimp.com/developer/transactional/guides/track-respond-activity-webhooks/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from app.connectors.adapter import Call, Connector, Erasure, Event, HandshakeReply, derive_event_id
from app.connectors.shared.email import (
    CHANNEL,
    build_click_properties,
    extract_address,
    find_custom_ids,
    parse_list,
    parse_object,
)
from app.connectors.signatures import TOKEN, WRONG, SignatureRefused, hmac_scheme
from app.connectors.webhook_request import Unreadable, WebhookRequest, decode_form, decode_json
from app.enrichment.channel import lower_snake
from app.formats.event_names import vendor_event_name

_PROBES: Final = ("GET", "HEAD")
_FORM: Final = {"content-type": "application/x-www-form-urlencoded"}

_NAME_PART: Final = re.compile(r"\[([^\[\]]*)\]")
_LEVELS_MAX: Final = 6

_AUDIENCE_NAMES: Final = {
    "subscribe": "email.subscribed",
    "unsubscribe": "email.unsubscribed",
    "cleaned": "email.bounced",
}
_MERGE_NAMES: Final = {"fname": "first_name", "lname": "last_name"}

_MAIL_NAMES: Final = {
    "send": "email.sent",
    "delivered": "email.delivered",
    "deferral": "email.deferred",
    "hard_bounce": "email.bounced",
    "soft_bounce": "email.bounced",
    "reject": "email.dropped",
    "open": "email.opened",
    "click": "email.clicked",
    "spam": "email.complained",
    "unsub": "email.unsubscribed",
    "inbound": "email.received",
}


def _answer_audience_probe(delivery: WebhookRequest, secrets: Sequence[str]) -> HandshakeReply | None:
    """Answer the GET or HEAD with which Mailchimp checks a new URL, even before the token exists."""
    del secrets
    return HandshakeReply() if delivery.method in _PROBES else None


def split_audience_delivery(delivery: WebhookRequest) -> list[Event]:
    return [nest_fields(decode_form(delivery.body))]


def nest_fields(fields: dict[str, str]) -> Event:
    """Convert fields such as ``data[merges][FNAME]`` to nested objects; raise Unreadable if field names conflict."""
    event: Event = {}
    for name, value in fields.items():
        first, bracket, rest = name.partition("[")
        path = [first, *_NAME_PART.findall(bracket + rest)]
        if len(path) > _LEVELS_MAX:
            raise Unreadable(f"the field {name[:80]} is nested deeper than {_LEVELS_MAX} levels")
        parent: Any = event
        for name_part in path[:-1]:
            parent = parent.setdefault(name_part, {}) if isinstance(parent, dict) else parent
        if not isinstance(parent, dict) or path[-1] in parent:
            raise Unreadable(f"the field {name[:80]} is both a value and an object")
        parent[path[-1]] = value
    return event


def map_audience_event(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    kind, data, occurred_at = event.get("type"), event.get("data"), event.get("fired_at")
    if not isinstance(kind, str) or not kind or not isinstance(data, dict):
        raise Unreadable("an event needs the fields `type` and `data[...]`")
    if kind == "campaign":
        return
    own_id = derive_event_id(kind, occurred_at, data)
    identities: dict[str, Any] = {"email": data.get("email"), "ids": {"mailchimp_member": data.get("id")}}
    if kind == "upemail":
        # Both addresses belong to one person, so one call with both merges them into one customer.
        ids = {"mailchimp_member": data.get("new_id"), "email": data.get("old_email")}
        yield Call(id=own_id, occurred_at=occurred_at, email=data.get("new_email"), ids=ids)
        return
    if kind in ("subscribe", "profile"):
        yield Call(
            id=f"{own_id}-traits",
            occurred_at=occurred_at,
            traits=_parse_traits(parse_object(data.get("merges"))),
            **identities,
        )
    if kind != "profile":
        name = _AUDIENCE_NAMES.get(kind) or vendor_event_name("mailchimp", kind)
        name = "email.complained" if data.get("reason") == "abuse" else name
        yield Call(
            id=own_id,
            occurred_at=occurred_at,
            event=name,
            channel=CHANNEL,
            properties=_build_audience_properties(data),
            **identities,
        )


def _parse_traits(merges: dict[str, Any]) -> dict[str, Any]:
    """Return the merge fields as traits, without the address, interest groups and empty values."""
    renamed = {_MERGE_NAMES.get(lower_snake(name), lower_snake(name)): value for name, value in merges.items()}
    return {
        name: value for name, value in renamed.items() if name not in ("", "email") and isinstance(value, str) and value
    }


def _build_audience_properties(data: Event) -> dict[str, Any]:
    return {
        "list_id": data.get("list_id"),
        "campaign_id": data.get("campaign_id"),
        "action": data.get("action"),
        "reason": data.get("reason"),
        "email_type": data.get("email_type"),
    }


def _answer_mail_probe(delivery: WebhookRequest, secrets: Sequence[str]) -> HandshakeReply | None:
    """Answer the HEAD and the empty POST with which Mailchimp checks a new URL, before the webhook key exists."""
    del secrets
    is_empty = delivery.method == "POST" and delivery.body in (b"mandrill_events=%5B%5D", b"mandrill_events=[]")
    return HandshakeReply() if is_empty or delivery.method in _PROBES else None


def _join_signed_bytes(delivery: WebhookRequest, _: str) -> bytes:
    try:
        fields = decode_form(delivery.body)
    except Unreadable as error:
        raise SignatureRefused(WRONG, f"the signature cannot be verified: {error}") from None
    return (delivery.url + "".join(name + fields[name] for name in sorted(fields))).encode()


def split_mail_delivery(delivery: WebhookRequest) -> list[Event]:
    events = decode_json(decode_form(delivery.body).get("mandrill_events", "").encode())
    if not isinstance(events, list):
        raise Unreadable("the field `mandrill_events` must be a JSON array")
    return events


def map_mail_event(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    kind, occurred_at = event.get("event"), event.get("ts")
    if kind is None and "action" in event:
        yield _map_list_change(event)
        return
    if not isinstance(kind, str) or not kind:
        raise Unreadable("an event needs the field `event`")
    message = parse_object(event.get("msg"))
    name = _MAIL_NAMES.get(kind) or vendor_event_name("mandrill", kind)
    is_to_us = name == "email.received"
    metadata = parse_object(message.get("metadata"))
    yield Call(
        id=derive_event_id(
            kind, event.get("_id") or message.get("_id"), occurred_at, event.get("url"), message.get("email")
        ),
        occurred_at=occurred_at,
        event=name,
        channel=CHANNEL,
        email=extract_address(message.get("from_email") if is_to_us else message.get("email")),
        **find_custom_ids(metadata),
        properties=_build_mail_properties(kind, event, message)
        | {"metadata": metadata}
        | build_click_properties(name, event.get("user_agent")),
        text={"subject": message.get("subject"), "body": message.get("text")} if is_to_us else {},
    )


def _build_mail_properties(kind: str, event: Event, message: Event) -> dict[str, Any]:
    return {
        "link": event.get("url"),
        "tags": parse_list(message.get("tags")),
        "email_id": event.get("_id") or message.get("_id"),
        "subject": None if kind == "inbound" else message.get("subject"),
        "template": message.get("template"),
        "bounce_type": kind.removesuffix("_bounce") if kind.endswith("_bounce") else None,
        "reason": message.get("bounce_description"),
        "details": message.get("diag"),
    }


def _map_list_change(event: Event) -> Call:
    """Map a change of Mailchimp's deny list or allow list."""
    entry = parse_object(event.get("reject")) or parse_object(event.get("entry"))
    kind, occurred_at = f"{event.get('type')}_{event.get('action')}", event.get("ts")
    return Call(
        id=derive_event_id(kind, occurred_at, entry.get("email"), entry.get("created_at")),
        occurred_at=occurred_at,
        event=vendor_event_name("mandrill", kind),
        channel=CHANNEL,
        email=entry.get("email"),
        properties={"reason": entry.get("reason") or entry.get("detail")},
    )


CONNECTORS: Final = (
    Connector(
        key="mailchimp",
        name="Mailchimp",
        family="email",
        scheme=TOKEN,
        map_event=map_audience_event,
        split_delivery=split_audience_delivery,
        handshake=_answer_audience_probe,
        steps=(
            "Generate a token for this source. Mailchimp does not sign audience webhooks, so the URL must contain the"
            " token.",
            "In Mailchimp open the audience, Settings, Webhooks, and add {url}?token=TOKEN.",
            "Select all types of updates, and changes by subscribers, by admins and by the API. These webhooks do not"
            " report opens and clicks of campaigns.",
        ),
        sample_headers=_FORM,
        sample=b"type=unsubscribe&fired_at=2026-05-04+10%3A00%3A00&data%5Baction%5D=unsub&data%5Breason%5D=manual"
        b"&data%5Bid%5D=8a25ff1d98&data%5Blist_id%5D=a6b5da1054&data%5Bemail%5D=user%40example.com"
        b"&data%5Bemail_type%5D=html&data%5Bmerges%5D%5BEMAIL%5D=user%40example.com"
        b"&data%5Bmerges%5D%5BFNAME%5D=User&data%5Bcampaign_id%5D=cb398d21d2",
    ),
    Connector(
        key="mandrill",
        name="Mailchimp Transactional",
        family="email",
        scheme=hmac_scheme(
            "Webhook key",
            signature_header="x-mandrill-signature",
            digest="sha1",
            encoding="base64",
            signed_bytes=_join_signed_bytes,
        ),
        map_event=map_mail_event,
        split_delivery=split_mail_delivery,
        handshake=_answer_mail_probe,
        options={
            "url": "The URL as entered in Mailchimp. Needed only if a proxy rewrites it, because Mailchimp signs it."
        },
        steps=(
            "In Mailchimp Transactional open Settings, Webhooks, and add a webhook with the URL {url}.",
            "Select the events to send. Copy the webhook key, and enter it as the secret of this source.",
            "If a proxy rewrites the URL, set the option url to the URL as entered in Mailchimp, which signs it.",
            "Add user_id to the metadata of your emails, so that clicks are linked to the user.",
        ),
        sample_headers=_FORM,
        sample=b"mandrill_events=%5B%7B%22event%22%3A%22click%22%2C%22_id%22%3A%22m-1%22%2C%22ts%22%3A1777888800%2C"
        b"%22url%22%3A%22https%3A%2F%2Fexample.com%2Fp%22%2C%22user_agent%22%3A%22Mozilla%2F5.0+%28X11%3B+Linux%29%22"
        b"%2C%22msg%22%3A%7B%22_id%22%3A%22m-1%22%2C%22email%22%3A%22user%40example.com%22%2C%22subject%22%3A"
        b"%22News%22%2C%22tags%22%3A%5B%22news%22%5D%2C%22metadata%22%3A%7B%22user_id%22%3A%22user-1%22%7D%7D%7D%5D",
    ),
)
