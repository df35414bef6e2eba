"""Tracking pixels of RudderStack and Segment: a message in the query of an image request. Pure.

Every request for the image is stored as a message, because every opening of an email counts. Requests with the same
``messageId`` are stored once.
Quarantine stores a rejected message with the type of the route and the time of the request.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from app.config import Limits
from app.errors import InvalidBody
from app.formats import json_text
from app.formats.encodings import parse_document_in_steps, unwrap_data_in_steps
from app.formats.segment import TYPE_OF_ROUTE, Envelope
from app.formats.steps import Steps, at_once
from app.formats.vendor_events import (
    ABSENT,
    NATIVE_FORM,
    EnvelopeBuilder,
    EventTimes,
    decode_members_or_empty,
    decode_text_or_none,
    encode_text,
)

GIF: Final = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b")
"""GIF image of one transparent pixel, which is the response."""

_FIELDS: Final = ("userId", "anonymousId", "event", "name", "category", "messageId", "groupId", "timestamp")


def read_query(query: Iterable[tuple[str, str]], route: str, received_at: int, limits: Limits) -> Envelope:
    """Convert the query of RudderStack's pixel, which has one parameter per field.

    A parameter that is not a field becomes a property; the prefix ``properties.`` is optional.
    """
    fields = dict(query)
    key = fields.pop("writeKey", None)
    message = {name: encode_text(fields.pop(name)) for name in _FIELDS if name in fields}
    properties = {name.removeprefix("properties."): value for name, value in fields.items()}
    builder = EnvelopeBuilder(limits, NATIVE_FORM, EventTimes(received_at), 1)
    if "messageId" not in message:
        message.setdefault("timestamp", builder.default_time(0))
    raw = msgspec.json.encode({name: msgspec.Raw(raw) for name, raw in message.items()} | {"properties": properties})
    original = raw[:-1] + b',"type":' + encode_text(route) + b"}"
    builder.add_message(0, {"type": encode_text(route), **decode_members_or_empty(raw)}, original)
    return builder.build_envelope(key)


def read_data_in_steps(data: str, route: str, received_at: int, limits: Limits) -> Steps[Envelope]:
    """Convert the query parameter ``data`` of Segment's pixel: a message as base64-encoded JSON. Raise InvalidBody."""
    body = yield from unwrap_data_in_steps(data.encode(), limits)
    parsed = yield from parse_document_in_steps(body, limits)
    members = decode_members_or_empty(parsed.readable)
    if not members:
        raise InvalidBody("The query parameter `data` must contain a JSON object.")
    builder = EnvelopeBuilder(limits, NATIVE_FORM, EventTimes(received_at), 1)
    if members.get("messageId", b"") in ABSENT:
        members.setdefault("timestamp", builder.default_time(0))
    members["type"] = encode_text(TYPE_OF_ROUTE[route] or route)
    builder.add_message(0, members, json_text.encode_members(members))
    return builder.build_envelope(decode_text_or_none(members.get("writeKey")))


read_data = at_once(read_data_in_steps)
