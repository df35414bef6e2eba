"""Google Analytics 4's Measurement Protocol as messages: ``/mp/collect`` and its debug twin. Pure.

``user_id`` is the user, ``client_id`` (or ``app_instance_id``) the anonymous id. ``page_view`` is a page; every other
event keeps its name. ``user_properties`` are traits, in a message of their own after the events. Events have no ids:
the same event with the same ``timestamp_micros`` is a duplicate; without one, each that arrives counts.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from app.config import Limits
from app.errors import InvalidBody, Rejection, RejectionCode
from app.formats import json_text, timestamps
from app.formats.encodings import document
from app.formats.segment import Envelope
from app.formats.vendor_events import (
    ABSENT,
    EnvelopeBuilder,
    EventTimes,
    Members,
    hash_id,
    members_of,
    objects,
    page_of,
    quoted,
    text_of,
)

_OF_THE_BODY: Final = ("client_id", "app_instance_id", "user_id", "timestamp_micros")
_SHORT_BYTES_MAX: Final = 300
"""Members of the body are kept with each event that is refused: what is longer would fill the quarantine."""
_CAMPAIGN: Final = {"campaign": "name", "source": "source", "medium": "medium", "term": "term", "content": "content"}
_OF_CAMPAIGNS: Final = ("campaign_details", "page_view", "session_start", "first_visit")
"""On other events these names are anybody's."""
_CODES: Final = {
    RejectionCode.MISSING_IDENTITY: "VALUE_REQUIRED",
    RejectionCode.MISSING_EVENT: "VALUE_REQUIRED",
    RejectionCode.EVENT_TOO_LONG: "NAME_INVALID",
    RejectionCode.TOO_MANY_MESSAGES: "EXCEEDED_MAX_ENTITIES",
}


def read(
    body: bytes, write_key: str | None, received_at: int, limits: Limits, *, again: EventTimes | None = None
) -> Envelope:
    """One body with its events. ``again``: the times of an event that is replayed. Raises InvalidBody."""
    parsed = document(body, limits)
    around = members_of(parsed.readable)
    if not around:
        raise InvalidBody("The body must be a JSON object.")
    events = parsed.elements(around.get("events", b"[]"))
    shared = {name: around.get(name, b"") for name in _OF_THE_BODY}
    shared = {name: raw for name, raw in shared.items() if raw not in ABSENT and len(raw) <= _SHORT_BYTES_MAX}
    # A library's name tells a browser; the hint only the kind of sender.
    ids = {
        "userId": around.get("user_id", b""),
        "anonymousId": next(
            (raw for name in ("client_id", "app_instance_id") if (raw := around.get(name, b"")) not in ABSENT), b""
        ),
        "channel": b'"mobile"' if "app_instance_id" in around else b'"web"',
    }
    who = b"\0".join(around.get(name, b"") for name in _OF_THE_BODY[:3])
    writer = EnvelopeBuilder(limits, "ga4", again or EventTimes(received_at), len(events))
    met: Counter[tuple[bytes, bytes]] = Counter()
    for index, (raw, original) in enumerate(writer.refuse_beyond(events)):
        members = members_of(raw)
        alone = json_text.from_members({**shared, "events": b"[" + original + b"]"})
        if members:
            time = _time(members, around, writer.moment_of(index))
            twin = (raw, time["timestamp"])
            message_id = _id(who, raw, time, b"%d" % met[twin])
            writer.put(index, {**ids, **_event(members), **time, "messageId": message_id}, alone)
            met[twin] += 1
        else:
            writer.put_as_it_is(index, raw, alone)
    traits = _traits(around.get("user_properties", b""))
    if traits:
        time = _time({}, around, writer.moment_of(max(len(events) - 1, 0)))
        profile = {"type": b'"identify"', "traits": traits, **time, "messageId": _id(who, traits, time, b"profile")}
        alone = json_text.from_members(shared | {"user_properties": around["user_properties"]})
        writer.put(len(events), {**ids, **profile}, alone)
    return writer.envelope(write_key)


def count_events(envelope: Envelope) -> int:
    """How many of its items are events; those beyond the limit stand among its rejections."""
    profile = bool(envelope.items) and text_of(members_of(envelope.items[-1]).get("type")) == "identify"
    return len(envelope.items) + len(envelope.rejections) - profile


def validation_message(rejection: Rejection, events: int) -> dict[str, Any]:
    """As Google's debug route says what is wrong; ``events`` is how many the body had."""
    place = f"events[{rejection.index}]" if rejection.index < events else "user_properties"
    if rejection.code is RejectionCode.MISSING_IDENTITY:
        place = "client_id"
    return {
        "fieldPath": place,
        "description": rejection.message,
        "validationCode": _CODES.get(rejection.code, "VALUE_INVALID"),
    }


def _id(who: bytes, raw: bytes, time: Members, which: bytes) -> bytes:
    """``which`` of several equal ones in the body; where it stands says nothing, for senders batch anew."""
    return quoted(hash_id(who, raw, time["timestamp"], which))


def _time(members: Members, around: Members, moment: bytes) -> Members:
    for raw in (members.get("timestamp_micros", b""), around.get("timestamp_micros", b"")):
        # What is no time would make one of all that says it.
        if raw not in ABSENT and (timestamps.parse_claimed(raw)[1] or 0) > 0:
            return {"timestamp": raw}
    return {"timestamp": moment}


def _event(members: Members) -> Members:
    name = members.get("name", b"")
    properties = members.get("params", b"")
    params = members_of(properties)
    event = json_text.text(name)
    context = objects(
        page=page_of(
            url=params.get("page_location"), referrer=params.get("page_referrer"), title=params.get("page_title")
        ),
        campaign=objects(**{ours: params.get(theirs) for theirs, ours in _CAMPAIGN.items()})
        if event in _OF_CAMPAIGNS
        else None,
    )
    if event == "page_view" and params:
        page = members_of(members_of(context).get("page", b""))
        return {"type": b'"page"', "properties": json_text.with_missing(properties, page), "context": context}
    if event == "page_view":
        return {"type": b'"page"', "properties": properties}
    return {"type": b'"track"', "event": name, "properties": properties, "context": context}


def _traits(raw: bytes) -> bytes:
    """``{"plan": {"value": "gold"}}`` as ``{"plan": "gold"}``; no value removes the trait."""
    traits = {name: members_of(each).get("value", b"null") for name, each in members_of(raw).items()}
    return json_text.from_members(traits) if traits else b""
