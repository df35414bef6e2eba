"""CloudEvents connector: version 1.0 over HTTP, in structured, batched and binary mode.

Each mode is converted to the object of the JSON event format, which is also the quarantined form. CloudEvents are not
signed: the sender authenticates with a token. The connector answers the OPTIONS handshake of the specification.

Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md and
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/http-webhook.md
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error
from collections.abc import Iterable, Sequence
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from app.connectors.adapter import Call, Connector, Erasure, Event, HandshakeReply, derive_event_id
from app.connectors.generic_event import CHANNEL, drop_identities, find_identities
from app.connectors.signatures import TOKEN
from app.connectors.webhook_request import Unreadable, WebhookRequest, decode_json

_BATCH: Final = "application/cloudevents-batch"
_STRUCTURED: Final = "application/cloudevents"
_REQUIRED: Final = ("specversion", "id", "source", "type")
_VERSION: Final = "1.0"
_RESERVED_NAMES: Final = frozenset({*_REQUIRED, "time", "datacontenttype", "data", "data_base64"})
_SUBJECT_KIND: Final = "subjectkind"
_NO_SUBJECT: Final = "none"

_JSON_TYPE = re.compile(r"[^/]+/(?:[^+]+\+)?json", re.IGNORECASE)
_ESCAPED = re.compile(r"\\(.)")
_NAME = re.compile(r"[a-z0-9]+")
_RATE = re.compile(r"[1-9][0-9]{0,8}")


def split_delivery(delivery: WebhookRequest) -> list[Event]:
    """Split by mode: the content type decides, else the ``ce-`` headers (binary), else the body itself."""
    media = _find_media_type(delivery)
    if media.startswith(_BATCH):
        events = decode_json(delivery.body)
        if not isinstance(events, list):
            raise Unreadable("a CloudEvents batch must be a JSON array")
    elif media.startswith(_STRUCTURED):
        events = [decode_json(delivery.body)]
    elif any(f"ce-{name}" in delivery.headers for name in _REQUIRED):
        events = [_read_event_headers(delivery)]
    else:
        body = decode_json(delivery.body)
        events = body if isinstance(body, list) else [body]
        if not all(isinstance(event, dict) and "specversion" in event for event in events):
            raise Unreadable("the request has no CloudEvents content type, no ce- headers and no `specversion`")
    kind = delivery.options.get("subject")
    return [{**event, _SUBJECT_KIND: kind} if kind and isinstance(event, dict) else event for event in events]


def map_event(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    for name in _REQUIRED:
        if not isinstance(event.get(name), str) or not event[name]:
            raise Unreadable(f"a CloudEvent needs the attribute `{name}`, a non-empty string")
    if event["specversion"] != _VERSION:
        raise Unreadable(f"`specversion` must be {_VERSION}")
    source, own_id = event["source"], event["id"]
    data = _decode_data(event)
    attributes = {name: value for name, value in event.items() if name not in _RESERVED_NAMES and name != _SUBJECT_KIND}
    channel = data.get("channel") if isinstance(data, dict) else None
    yield Call(
        # A URI does not contain spaces, so a space separates source and id unambiguously.
        id=derive_event_id(source, own_id) if " " in source else f"{source} {own_id}",
        occurred_at=event.get("time"),
        event=event["type"],
        channel=channel if isinstance(channel, str) and channel else CHANNEL,
        **(find_identities(data) or _find_subject_identity(event)),
        properties=drop_identities(data),
        context={"cloudevent": {"source": source, **attributes}},
    )


def handshake(delivery: WebhookRequest, secrets: Sequence[str]) -> HandshakeReply | None:
    """Answer the OPTIONS handshake. Every origin is allowed, because every request must carry the token."""
    del secrets
    origin = delivery.headers.get("webhook-request-origin", "").strip()
    if delivery.method != "OPTIONS" or not origin:
        return None
    rate = delivery.headers.get("webhook-request-rate", "").strip()
    allowed = {"allow": "POST", "webhook-allowed-origin": origin}
    allowed["webhook-allowed-rate"] = rate if _RATE.fullmatch(rate) else "*"
    return HandshakeReply(headers=allowed)


def handshake_signed(delivery: WebhookRequest) -> HandshakeReply | None:
    """Return status 415 for a format that is not supported, such as application/cloudevents+avro."""
    media = _find_media_type(delivery)
    if not media.startswith(_STRUCTURED):
        return None
    form = media.removeprefix(_BATCH if media.startswith(_BATCH) else _STRUCTURED)
    if form in ("", "+json"):
        return None
    return HandshakeReply(status=415, body=b"Only the JSON format of CloudEvents is supported.")


def _read_event_headers(delivery: WebhookRequest) -> Event:
    event: Event = {}
    for header, value in delivery.headers.items():
        name = header.removeprefix("ce-")
        if name != header and _NAME.fullmatch(name):
            event[name] = _decode_header_value(name, value)
    media = delivery.headers.get("content-type", "").strip()
    if media:
        event["datacontenttype"] = media
    if not delivery.body:
        return event
    if not media or _JSON_TYPE.fullmatch(_find_media_type(delivery)):
        event["data"] = decode_json(delivery.body)
    elif media.lower().startswith("text/"):
        event["data"] = delivery.body.decode("utf-8", "replace")
    else:
        event["data_base64"] = b64encode(delivery.body).decode()
    return event


def _decode_header_value(name: str, value: str) -> str:
    """Unquote and then percent-decode a header value once; raise Unreadable if the result is not UTF-8."""
    value = value.strip()
    if len(value) >= 2 and value.startswith('"') and value.endswith('"'):
        value = _ESCAPED.sub(r"\1", value[1:-1])
    try:
        # ASGI header bytes are decoded as ISO 8859-1, which keeps every byte.
        return unquote_to_bytes(value.encode("latin-1")).decode()
    except UnicodeError:
        raise Unreadable(f"the header ce-{name} is not UTF-8 after percent-decoding") from None


def _decode_data(event: Event) -> Any:
    encoded = event.get("data_base64")
    if encoded is None:
        return event.get("data")
    try:
        body = b64decode(encoded, validate=True)
    except (Error, TypeError, ValueError):
        raise Unreadable("`data_base64` is not valid base64") from None
    media = str(event.get("datacontenttype") or "application/json").partition(";")[0].strip()
    if _JSON_TYPE.fullmatch(media):
        return decode_json(body)
    return {"data_base64": encoded}


def _find_subject_identity(event: Event) -> dict[str, Any]:
    """Return the subject as an identity, for an event whose data does not contain an identity.

    The option ``subject`` of the source is the kind of the identity.
    """
    kind = event.get(_SUBJECT_KIND) or "user_id"
    subject = event.get("subject")
    if not isinstance(subject, str) or kind == _NO_SUBJECT:
        return {}
    return {kind: subject} if kind in ("user_id", "anonymous_id", "email", "phone") else {"ids": {kind: subject}}


def _find_media_type(delivery: WebhookRequest) -> str:
    return delivery.headers.get("content-type", "").partition(";")[0].strip().lower()


CONNECTOR: Final = Connector(
    key="cloudevents",
    name="CloudEvents 1.0",
    family="any",
    scheme=TOKEN,
    split_delivery=split_delivery,
    map_event=map_event,
    handshake=handshake,
    handshake_signed=handshake_signed,
    options={
        "subject": "Identity kind of an event's subject if its data contains no identity: user_id (the default), "
        "email, phone, anonymous_id, a vendor's identity kind, or none to ignore the subject.",
    },
    steps=(
        "Configure the sender to deliver CloudEvents 1.0 over HTTP to {url}, in JSON and in structured, batched or "
        "binary mode.",
        "Generate a token for this source. The sender must send it as Authorization: Bearer TOKEN or in the URL as "
        "?access_token=TOKEN.",
        "Put the identity into the data: user_id, email, phone or anonymous_id. Otherwise the subject is the user id.",
    ),
    sample=b'{"specversion":"1.0","id":"e-1","source":"/shop/checkout","type":"com.example.order.completed",'
    b'"subject":"user-1","time":"2026-05-04T10:00:00Z","datacontenttype":"application/json",'
    b'"data":{"channel":"web","email":"user@example.com","total":42.5}}',
    sample_headers={"content-type": "application/cloudevents+json"},
)
