"""Google Analytics 4 Measurement Protocol: converts ``/mp/collect`` and its debug route to messages. Pure.

``user_id`` becomes the user id, and ``client_id`` or ``app_instance_id`` the anonymous id. ``page_view`` becomes a
page message; every other event keeps its name. ``user_properties`` become traits, in an identify message after the
events. Events have no ids: the same event with the same ``timestamp_micros`` is a duplicate. An event without
``timestamp_micros`` counts each time it arrives.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from app.config import Limits
from app.errors import InvalidBody, Rejection, RejectionCode
from app.formats import json_text, timestamps
from app.formats.encodings import parse_document_in_steps
from app.formats.segment import Envelope
from app.formats.steps import Steps, at_once
from app.formats.vendor_events import (
    ABSENT,
    EnvelopeBuilder,
    EventTimes,
    Members,
    build_object,
    build_page,
    decode_members_or_empty,
    decode_text_or_none,
    encode_text,
    hash_id,
)

_BODY_MEMBERS: Final = ("client_id", "app_instance_id", "user_id", "timestamp_micros")
_SHORT_BYTES_MAX: Final = 300
"""Maximum size in bytes of a field of the body that is stored with each rejected event.

Longer fields would fill quarantine.
"""
_CAMPAIGN_NAMES: Final = {
    "campaign": "name",
    "source": "source",
    "medium": "medium",
    "term": "term",
    "content": "content",
}
_CAMPAIGN_EVENTS: Final = ("campaign_details", "page_view", "session_start", "first_visit")
"""Events with reserved campaign parameters. In other events, parameters of these names are ordinary properties."""
_VALIDATION_CODES: Final = {
    RejectionCode.MISSING_IDENTITY: "VALUE_REQUIRED",
    RejectionCode.MISSING_EVENT: "VALUE_REQUIRED",
    RejectionCode.EVENT_TOO_LONG: "NAME_INVALID",
    RejectionCode.TOO_MANY_MESSAGES: "EXCEEDED_MAX_ENTITIES",
}


def read_in_steps(
    body: bytes, write_key: str | None, received_at: int, limits: Limits, *, replay_times: EventTimes | None = None
) -> Steps[Envelope]:
    """Convert a body to an envelope. Raise InvalidBody.

    ``replay_times`` are the times of an event that is replayed from quarantine.
    """
    parsed = yield from parse_document_in_steps(body, limits)
    yield
    body_members = decode_members_or_empty(parsed.readable)
    if not body_members:
        raise InvalidBody("The body must be a JSON object.")
    events = parsed.elements(body_members.get("events", b"[]"))
    shared = {name: body_members.get(name, b"") for name in _BODY_MEMBERS}
    shared = {name: raw for name, raw in shared.items() if raw not in ABSENT and len(raw) <= _SHORT_BYTES_MAX}
    # The channel hint describes only the kind of sender. A browser is identified by its library name, which GA4 omits.
    ids = {
        "userId": body_members.get("user_id", b""),
        "anonymousId": next(
            (raw for name in ("client_id", "app_instance_id") if (raw := body_members.get(name, b"")) not in ABSENT),
            b"",
        ),
        "channel": b'"mobile"' if "app_instance_id" in body_members else b'"web"',
    }
    sender = b"\0".join(body_members.get(name, b"") for name in _BODY_MEMBERS[:3])
    builder = EnvelopeBuilder(limits, "ga4", replay_times or EventTimes(received_at), len(events))
    occurrences: Counter[tuple[bytes, bytes]] = Counter()
    for index, (raw, original) in enumerate(builder.reject_over_limit(events)):
        yield
        members = decode_members_or_empty(raw)
        standalone = json_text.encode_members({**shared, "events": b"[" + original + b"]"})
        if members:
            time = _choose_time(members, body_members, builder.default_time(index))
            twin = (raw, time["timestamp"])
            message_id = _derive_id(sender, raw, time, b"%d" % occurrences[twin])
            builder.add_message(index, {**ids, **_map_event(members), **time, "messageId": message_id}, standalone)
            occurrences[twin] += 1
        else:
            builder.add_raw_item(index, raw, standalone)
    traits = _decode_traits(body_members.get("user_properties", b""))
    if traits:
        time = _choose_time({}, body_members, builder.default_time(max(len(events) - 1, 0)))
        profile = {
            "type": b'"identify"',
            "traits": traits,
            **time,
            "messageId": _derive_id(sender, traits, time, b"profile"),
        }
        standalone = json_text.encode_members(shared | {"user_properties": body_members["user_properties"]})
        builder.add_message(len(events), {**ids, **profile}, standalone)
    return builder.build_envelope(write_key)


read = at_once(read_in_steps)


def count_events(envelope: Envelope) -> int:
    """Return the number of events in the body. Events beyond the batch limit are among the rejections."""
    profile = (
        bool(envelope.items)
        and decode_text_or_none(decode_members_or_empty(envelope.items[-1]).get("type")) == "identify"
    )
    return len(envelope.items) + len(envelope.rejections) - profile


def build_validation_message(rejection: Rejection, events: int) -> dict[str, Any]:
    """Return a rejection in the format of Google's debug route. ``events`` is the number of events in the body."""
    place = f"events[{rejection.index}]" if rejection.index < events else "user_properties"
    if rejection.code is RejectionCode.MISSING_IDENTITY:
        place = "client_id"
    return {
        "fieldPath": place,
        "description": rejection.message,
        "validationCode": _VALIDATION_CODES.get(rejection.code, "VALUE_INVALID"),
    }


def _derive_id(sender: bytes, raw: bytes, time: Members, occurrence: bytes) -> bytes:
    """Derive a message id from the content of an event.

    ``occurrence`` distinguishes equal events of one body. The index is not used, because a retry can batch differently.
    """
    return encode_text(hash_id(sender, raw, time["timestamp"], occurrence))


def _choose_time(members: Members, body_members: Members, default_time: bytes) -> Members:
    for raw in (members.get("timestamp_micros", b""), body_members.get("timestamp_micros", b"")):
        # Ignore an invalid time, because all events with the same invalid value would become duplicates of one another.
        if raw not in ABSENT and (timestamps.parse_claimed(raw)[1] or 0) > 0:
            return {"timestamp": raw}
    return {"timestamp": default_time}


def _map_event(members: Members) -> Members:
    name = members.get("name", b"")
    properties = members.get("params", b"")
    params = decode_members_or_empty(properties)
    event = json_text.decode_text(name)
    context = build_object(
        page=build_page(
            url=params.get("page_location"), referrer=params.get("page_referrer"), title=params.get("page_title")
        ),
        campaign=build_object(**{name: params.get(parameter) for parameter, name in _CAMPAIGN_NAMES.items()})
        if event in _CAMPAIGN_EVENTS
        else None,
    )
    if event == "page_view" and params:
        page = decode_members_or_empty(decode_members_or_empty(context).get("page", b""))
        return {"type": b'"page"', "properties": json_text.add_missing(properties, page), "context": context}
    if event == "page_view":
        return {"type": b'"page"', "properties": properties}
    return {"type": b'"track"', "event": name, "properties": properties, "context": context}


def _decode_traits(raw: bytes) -> bytes:
    """Convert ``{"plan": {"value": "gold"}}`` to ``{"plan": "gold"}``; a missing value removes the trait."""
    traits = {
        name: decode_members_or_empty(trait).get("value", b"null")
        for name, trait in decode_members_or_empty(raw).items()
    }
    return json_text.encode_members(traits) if traits else b""
