"""Mailgun's webhooks: one event a body, with a signature beside it that covers a time and a token, not the event. Pure.

A token may therefore sign one body and no other. A repeated event may come under another token: what tells it from
all others is its own id with its time and recipient, for Mailgun's ids are unique within a day only. Old accounts send
the same as flat form fields, which are read as what they would be today.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from app.connectors.adapter import Call, Connector, Erasure, Event, derive_event_id, encode_event
from app.connectors.shared.email import CHANNEL, build_click_properties, find_custom_ids, parse_list, parse_object
from app.connectors.signatures import MISSING, WRONG, Scheme, SignatureRefused, check_age, is_same_secret
from app.connectors.webhook_request import Unreadable, WebhookRequest, decode_form, decode_json
from app.formats.event_names import vendor_event_name
from app.touchpoint import SECOND

_SECONDS_MAX: Final = 12 * 3_600
"""A delivery that failed is repeated six times within eight hours."""

_PROOF_NAMES: Final = ("timestamp", "token", "signature")
_SECONDS: Final = re.compile(r"[0-9]{10}")
"""Nothing parts the time from the token in what is signed: only its length tells where it ends."""
_NAMES: Final = {
    "accepted": "email.sent",
    "rejected": "email.dropped",
    "dropped": "email.dropped",
    "delivered": "email.delivered",
    "failed": "email.bounced",
    "bounced": "email.bounced",
    "opened": "email.opened",
    "clicked": "email.clicked",
    "unsubscribed": "email.unsubscribed",
    "complained": "email.complained",
}


def _verify(delivery: WebhookRequest, secret: str) -> None:
    proof = _read_proof(delivery.body)
    if not all(proof.values()):
        raise SignatureRefused(MISSING, "the body has no signature with timestamp and token")
    if not _SECONDS.fullmatch(proof["timestamp"]):
        raise SignatureRefused(WRONG, "the timestamp of the signature must be seconds since 1970, ten digits")
    expected = hmac.digest(secret.encode(), _join_signed_text(proof).encode(), "sha256").hex()
    if not is_same_secret(proof["signature"].lower(), expected):
        raise SignatureRefused(WRONG, "the signature is not that of this timestamp, token and signing key")
    check_age(proof["timestamp"], delivery.received_at, _SECONDS_MAX)


def _sign(delivery: WebhookRequest, secret: str) -> WebhookRequest:
    time = str(delivery.received_at // SECOND)
    token = blake2b(delivery.body + time.encode(), digest_size=25).hexdigest()
    proof = {
        "timestamp": time,
        "token": token,
        "signature": hmac.digest(secret.encode(), (time + token).encode(), "sha256").hex(),
    }
    return msgspec.structs.replace(
        delivery, body=encode_event({**parse_object(decode_json(delivery.body)), "signature": proof})
    )


def _find_single_use_token(delivery: WebhookRequest) -> str | None:
    return _join_signed_text(_read_proof(delivery.body)) or None


def _join_signed_text(proof: dict[str, str]) -> str:
    return proof["timestamp"] + proof["token"]


def _read_proof(body: bytes) -> dict[str, str]:
    """timestamp, token and signature, empty where they are missing."""
    try:
        if _is_json(body):
            fields = parse_object(parse_object(decode_json(body)).get("signature"))
        else:
            decode_form(body)
            # A variable of the sender that has the name of one of these stands before Mailgun's own: the last counts.
            fields = dict(parse_qsl(body.decode(), keep_blank_values=True))
    except Unreadable:
        fields = {}
    return {name: str(fields.get(name) or "") for name in _PROOF_NAMES}


def _is_json(body: bytes) -> bool:
    return body.lstrip()[:1] in (b"{", b"[")


def split_delivery(delivery: WebhookRequest) -> list[Event]:
    if not _is_json(delivery.body):
        return [_modernise_event({**decode_form(delivery.body), "timestamp": _read_proof(delivery.body)["timestamp"]})]
    event = parse_object(decode_json(delivery.body)).get("event-data")
    if not isinstance(event, dict):
        raise Unreadable("the body needs the member event-data, an object")
    return [event]


def _modernise_event(fields: dict[str, str]) -> Event:
    """The flat fields of an old account in the shape of an ``event-data``."""
    headers = {
        name.lower(): value for name, value in parse_list(fields.get("message-headers")) if isinstance(name, str)
    }
    return {
        "event": fields.get("event"),
        "timestamp": fields["timestamp"],
        "recipient": fields.get("recipient"),
        "url": fields.get("url"),
        "reason": fields.get("reason"),
        "tags": parse_list(fields.get("tag") or fields.get("X-Mailgun-Tag")),
        "campaigns": [{"id": fields.get("campaign-id"), "name": fields.get("campaign-name")}],
        "delivery-status": {"code": fields.get("code"), "message": fields.get("error") or fields.get("description")},
        "client-info": {"user-agent": fields.get("user-agent")},
        "message": {
            "headers": {
                "message-id": (fields.get("Message-Id") or fields.get("message-id") or "").strip("<>"),
                "subject": headers.get("subject"),
            }
        },
        "user-variables": find_custom_ids(fields),
    }


def map_event(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    kind = event.get("event")
    if not isinstance(kind, str) or not kind:
        raise Unreadable("an event needs the member event")
    name = _NAMES.get(kind) or vendor_event_name("mailgun", kind)
    if kind == "failed" and event.get("severity") == "temporary":
        name = "email.deferred"
    client = parse_object(event.get("client-info"))
    yield Call(
        id=derive_event_id(kind, event.get("id"), event.get("timestamp"), event.get("recipient"), event.get("url")),
        occurred_at=event.get("timestamp"),
        event=name,
        channel=CHANNEL,
        email=event.get("recipient"),
        **find_custom_ids(event.get("user-variables")),
        properties=_build_properties(event)
        | build_click_properties(name, client.get("user-agent"), client.get("bot") not in (None, "")),
    )


def _build_properties(event: Event) -> dict[str, Any]:
    headers = parse_object(parse_object(event.get("message")).get("headers"))
    status = parse_object(event.get("delivery-status"))
    campaign = parse_object(next(iter(parse_list(event.get("campaigns"))), None))
    return {
        "link": event.get("url"),
        "campaign": campaign.get("name"),
        "campaign_id": campaign.get("id"),
        "tags": parse_list(event.get("tags")),
        "email_id": headers.get("message-id"),
        "subject": headers.get("subject"),
        "severity": event.get("severity"),
        "reason": event.get("reason"),
        "code": status.get("code"),
        "details": status.get("message") or status.get("description"),
        "metadata": parse_object(event.get("user-variables")),
    }


CONNECTOR: Final = Connector(
    key="mailgun",
    name="Mailgun",
    family="email",
    scheme=Scheme(secret_label="HTTP webhook signing key", verify=_verify, sign=_sign),
    map_event=map_event,
    split_delivery=split_delivery,
    single_use_token=_find_single_use_token,
    refused_status=406,
    steps=(
        "In Mailgun open Sending, Webhooks, choose the domain, and add the address {url} for each type of event.",
        "Copy the HTTP webhook signing key (Settings, API security), and enter it as the secret of this source.",
        "Send v:user_id with your mails where you know it: then a click is the user's at once.",
    ),
    sample=b'{"signature":{"timestamp":"1777888800","token":"651869375b9df3c98fc15c4889b102119add1235c38fc92824",'
    b'"signature":""},"event-data":{"event":"failed","severity":"temporary","id":"hTWCTD81RtiDN",'
    b'"timestamp":1777888800.153,"recipient":"user@example.com","reason":"generic","tags":["news"],'
    b'"user-variables":{"user_id":"user-1"},"message":{"headers":{"message-id":"m1@example.com"}},'
    b'"delivery-status":{"code":452,"message":"try later"}}}',
)
