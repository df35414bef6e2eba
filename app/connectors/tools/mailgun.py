"""Mailgun connector: email events in the current JSON format and in the form fields of old accounts.

The body contains one event and an HMAC-SHA256 of a timestamp and a random token; it does not cover the event. Each
token is therefore accepted for one body only. A retry may have another token, so the message id is derived from the
event's id, time and recipient: Mailgun's ids are unique within one day only.

Source: https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/securing-webhooks
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
"""Maximum age of a signature in seconds. Mailgun retries six times within eight hours."""

_PROOF_NAMES: Final = ("timestamp", "token", "signature")
_SECONDS: Final = re.compile(r"[0-9]{10}")
"""Pattern of the timestamp. Its length is fixed, because the signed text has no separator before the token."""
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
        raise SignatureRefused(MISSING, "the body has no `signature` with `timestamp` and `token`")
    if not _SECONDS.fullmatch(proof["timestamp"]):
        raise SignatureRefused(WRONG, "the timestamp of the signature must be ten digits, in seconds since 1970")
    expected = hmac.digest(secret.encode(), _join_signed_text(proof).encode(), "sha256").hex()
    if not is_same_secret(proof["signature"].lower(), expected):
        raise SignatureRefused(WRONG, "the signature does not match this timestamp, token and signing key")
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
    """Return timestamp, token and signature; a missing value is empty."""
    try:
        if _is_json(body):
            fields = parse_object(parse_object(decode_json(body)).get("signature"))
        else:
            decode_form(body)
            # The sender's variables precede Mailgun's fields and may have the same names: the last value counts.
            fields = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
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
        raise Unreadable("the body needs the field `event-data`, an object")
    return [event]


def _modernise_event(fields: dict[str, str]) -> Event:
    """Convert the form fields of an old account to the current ``event-data`` object."""
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
        raise Unreadable("an event needs the field `event`")
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
        "In Mailgun open Sending, Webhooks, select the domain, and add the URL {url} for each event type.",
        "Copy the HTTP webhook signing key (Settings, API security), and enter it as the secret of this source.",
        "Send the variable v:user_id with your emails, so that clicks are linked to the user.",
    ),
    sample=b'{"signature":{"timestamp":"1777888800","token":"651869375b9df3c98fc15c4889b102119add1235c38fc92824",'
    b'"signature":""},"event-data":{"event":"failed","severity":"temporary","id":"hTWCTD81RtiDN",'
    b'"timestamp":1777888800.153,"recipient":"user@example.com","reason":"generic","tags":["news"],'
    b'"user-variables":{"user_id":"user-1"},"message":{"headers":{"message-id":"m1@example.com"}},'
    b'"delivery-status":{"code":452,"message":"try later"}}}',
)
