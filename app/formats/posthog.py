"""PostHog format: converts events of ``/e/``, ``/capture/``, ``/batch/`` and related routes to messages. Pure.

**Identities.** A distinct_id is an anonymous id if it equals ``$device_id`` or if ``$is_identified`` is false;
otherwise it is a user id.

**Special events.** ``$pageview`` and ``$screen`` become page and screen messages. ``$identify`` links an anonymous id
to a user, ``$create_alias`` joins two users, ``$set`` sets traits, and ``$groupidentify`` becomes a group message.
``$set`` and ``$unset`` in any other event become an additional identify message. ``$set_once`` is stored in
``context.profile`` and changes no trait, because a trait is the latest value that was sent.
"""

from __future__ import annotations

from typing import Final

import msgspec

from app.config import Limits
from app.errors import Rejection
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
    build_traits,
    decode_members_or_empty,
    decode_text_or_none,
    encode_object_without,
    encode_text,
    hash_id,
    parse_browser_clock,
)

_MOVED_NAMES: Final = (
    *("token", "distinct_id", "$device_id", "$user_id", "$anon_distinct_id", "$insert_id", "$time"),
    *("$set", "$set_once", "$unset", "$raw_user_agent", "$lib", "$lib_version", "$ip"),
)
_IGNORE_SENT_AT: Final = "$ignore_sent_at"
"""Property of events whose time was not set by the clock of the sender.

No clock skew is subtracted from their time.
"""
_COOKIELESS_ID: Final = b'"$posthog_cookieless"'
_TRAIT_NAMES: Final = {"$email": "email", "$phone": "phone", "$name": "name"}
_OFFSET_MS_MAX: Final = 31_536_000_000
_FORM: Final = "posthog"
_FORM_V1: Final = "posthog/v1"
_TOP_LEVEL_NAMES: Final = {"session_id": "$session_id", "window_id": "$window_id"}
_OPTION_NAMES: Final = {
    "cookieless_mode": "$cookieless_mode",
    "disable_skew_correction": _IGNORE_SENT_AT,
    "product_tour_id": "$product_tour_id",
    "process_person_profile": "$process_person_profile",
}
_LIBRARY_NAMES: Final = {"posthog-js": "web"}
"""Library name in version 1 of the protocol -> its name in the older protocol."""


def is_posthog_in_steps(body: bytes, limits: Limits) -> Steps[bool]:
    """Return whether a body of ``/track`` or ``/engage`` has PostHog's format; Mixpanel has the same routes.

    Raise InvalidBody.
    """
    parsed = yield from parse_document_in_steps(body, limits)
    yield
    raw = parsed.readable
    if raw.startswith(b"["):
        raw = next((item for item, _ in parsed.elements(raw)), b"")
    members = decode_members_or_empty(raw)
    if any(name in members for name in ("api_key", "batch", "uuid", "distinct_id", "offset", "timestamp")):
        return True
    props = decode_members_or_empty(members.get("properties", b""))
    return "$lib" in props and "mp_lib" not in props


is_posthog = at_once(is_posthog_in_steps)


def read_in_steps(
    body: bytes,
    received_at: int,
    limits: Limits,
    browser_clock: str | None = None,
    *,
    sdk: str | None = None,
    sent_at_header: str | None = None,
    replay_times: EventTimes | None = None,
) -> Steps[Envelope]:
    """Convert a batch, an array of events or one event to an envelope. Raise InvalidBody.

    ``browser_clock`` is the query parameter ``_``. ``sdk`` (``name/version``) and ``sent_at_header`` come from the
    headers of version 1 of the protocol. ``replay_times`` are the times of an event that is replayed from quarantine.
    """
    parsed = yield from parse_document_in_steps(body, limits)
    yield
    raw = parsed.readable
    body_members = decode_members_or_empty(raw)
    batch = body_members.get("batch") or (
        body_members.get("data") if body_members.get("data", b"").startswith(b"[") else None
    )
    if raw.startswith(b"["):
        events = parsed.elements(raw)
    else:
        events = [(raw, parsed.sent)] if batch is None else parsed.elements(batch)
    times = replay_times or EventTimes(received_at, _find_sent_at(body_members, sent_at_header, browser_clock))
    key = decode_text_or_none(body_members.get("api_key")) or decode_text_or_none(body_members.get("token"))
    form, request_facts = (_FORM, {}) if sdk is None else (_FORM_V1, {"sdk": sdk})
    builder = EnvelopeBuilder(limits, form, times, len(events), **request_facts)
    for index, (raw, original) in enumerate(builder.reject_over_limit(events)):
        yield
        members = decode_members_or_empty(raw)
        key = key or _find_key(members)
        if not members:
            builder.add_raw_item(index, raw, original)
            continue
        if sdk is not None:
            members = _convert_to_v0(members, sdk)
        for message in _map_event(raw, members, builder.default_time(index), received_at):
            builder.add_message(index, message, original)
    return builder.build_envelope(key)


read = at_once(read_in_steps)


def describe_results(envelope: Envelope, rejections: list[Rejection]) -> dict[str, dict[str, str]]:
    """Return the results by uuid, for the response of version 1. An event fails if any of its messages is rejected."""
    answers: dict[str, dict[str, str]] = {}
    for original in envelope.originals:
        if (uuid := _find_uuid(original)) is not None:
            answers[uuid] = {"result": "ok"}
    for rejection in rejections:
        if (uuid := _find_uuid(rejection.original)) is not None:
            answers[uuid] = {"result": "retry" if rejection.code.is_retryable else "drop", "details": rejection.message}
    return answers


def _find_uuid(original: bytes) -> str | None:
    """Return ``uuid`` of an event as sent; the event may be invalid JSON."""
    try:
        return decode_text_or_none(decode_members_or_empty(original).get("uuid"))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def _find_sent_at(body_members: Members, sent_at_header: str | None, browser_clock: str | None) -> int | None:
    """Return when the request was sent, by the sender's clock: from the body, else the header, else the query."""
    for raw in (body_members.get("sent_at", b""), encode_text(sent_at_header or "")):
        if (sent := timestamps.parse_claimed(raw)[1]) is not None:
            return sent
    return parse_browser_clock(browser_clock)


def _convert_to_v0(members: Members, sdk: str) -> Members:
    """Convert an event of version 1 to the older protocol: move its options and library into the properties.

    Properties that are not an object are left unchanged, and rejected later.
    """
    properties = members.get("properties", b"{}")
    if not properties.startswith(b"{"):
        return members
    name, _, version = sdk.partition("/")
    defaults = {"$lib": encode_text(_LIBRARY_NAMES.get(name, name)), "$lib_version": encode_text(version)}
    options = decode_members_or_empty(members.get("options", b""))
    for source, names in ((options, _OPTION_NAMES), (members, _TOP_LEVEL_NAMES)):
        defaults |= {
            name: source[sent_name] for sent_name, name in names.items() if source.get(sent_name, b"null") != b"null"
        }
    return members | {"properties": json_text.add_missing(properties, defaults)}


def _find_key(members: Members) -> str | None:
    within = decode_members_or_empty(members.get("properties", b"")).get("token")
    return (
        decode_text_or_none(members.get("api_key"))
        or decode_text_or_none(members.get("token"))
        or decode_text_or_none(within)
    )


def _map_event(raw: bytes, members: Members, default_time: bytes, received_at: int) -> list[Members]:
    event = members.get("event", b"")
    name = json_text.decode_text(event)
    properties = members.get("properties", b"")
    if properties not in ABSENT and not properties.startswith(b"{"):
        return [{"type": b'"track"', "event": event, "properties": properties}]
    props = decode_members_or_empty(properties)
    # These fields can be in the event or in its properties.
    for name_beside in ("distinct_id", "$set", "$set_once", "$unset"):
        if members.get(name_beside, b"null") != b"null":
            props[name_beside] = members[name_beside]
    time = _find_time(members, props, received_at) or {"timestamp": default_time}
    message_id = _derive_message_id(raw, members, props, time["timestamp"])
    context = _build_context(props)
    shared = {"messageId": encode_text(message_id), **time, "context": context}
    event_properties = encode_object_without(props, *_MOVED_NAMES)
    ids = _find_ids(props)
    traits = build_traits(props.get("$set"), props.get("$unset"), _TRAIT_NAMES)
    identify = {**shared, **ids, "type": b'"identify"', "traits": traits}
    if name == "$identify":
        return [{**identify, "anonymousId": props.get("$anon_distinct_id") or ids.get("anonymousId", b"")}]
    if name == "$set":
        return [identify]
    if name == "$create_alias":
        return [{**shared, **_join_ids(props, ids)}]
    if name == "$groupidentify":
        group = {"groupId": props.get("$group_key", b""), "traits": props.get("$group_set", b"")}
        kind = {"properties": build_object(groupType=props.get("$group_type"))}
        return [{**shared, **ids, "type": b'"group"', **group, **kind}]
    message = {**shared, **ids, "type": b'"track"', "event": event, "properties": event_properties}
    if name in ("$pageview", "$screen"):
        del message["event"]
        page = decode_members_or_empty(decode_members_or_empty(context).get("page", b""))
        message["type"] = b'"page"' if name == "$pageview" else b'"screen"'
        message["name"] = props.get("$screen_name", b"") if name == "$screen" else b""
        message["properties"] = json_text.add_missing(event_properties, page)
    if not traits:
        return [message]
    return [message, {**identify, "messageId": encode_text(f"{message_id}:set")}]


def _find_time(members: Members, props: Members, received_at: int) -> Members | None:
    """Return the event's own time: its ``timestamp``, or ``offset`` milliseconds before it was sent."""
    if members.get("timestamp", b"") not in ABSENT:
        ignores_sent_at = props.get(_IGNORE_SENT_AT) == b"true"
        return {
            "timestamp": members["timestamp"],
            "sentAt": encode_text(timestamps.rfc3339(received_at)) if ignores_sent_at else b"",
        }
    offset = decode_text_or_none(members.get("offset"))
    if offset is not None and offset.isdecimal() and int(offset[:15]) <= _OFFSET_MS_MAX:
        moment = timestamps.rfc3339(max(received_at - int(offset[:15]) * 1000, 0))
        return {"timestamp": encode_text(moment), "sentAt": encode_text(timestamps.rfc3339(received_at))}
    return None


def _derive_message_id(raw: bytes, members: Members, props: Members, default_time: bytes) -> str:
    own_id = decode_text_or_none(members.get("uuid")) or decode_text_or_none(props.get("$insert_id"))
    return own_id or hash_id(raw, b"" if members.get("timestamp", b"") not in ABSENT else default_time)


def _find_ids(props: Members) -> Members:
    distinct, device, user = (props.get(name, b"") for name in ("distinct_id", "$device_id", "$user_id"))
    if distinct == _COOKIELESS_ID:
        distinct = b""
    anonymous = distinct == device or props.get("$is_identified") == b"false"
    if anonymous and distinct not in ABSENT:
        return {"userId": b"" if user == distinct else user, "anonymousId": distinct}
    return {"userId": user if distinct in ABSENT else distinct, "anonymousId": device}


def _join_ids(props: Members, ids: Members) -> Members:
    """Join the alias with a user id, or link it as a user id to an anonymous id."""
    alias = props.get("alias", b"")
    if ids.get("userId", b"") in ABSENT:
        return {"type": b'"identify"', "userId": alias, "anonymousId": ids.get("anonymousId", b"")}
    return {"type": b'"alias"', "userId": ids["userId"], "previousId": alias}


def _build_context(props: Members) -> bytes:
    """Build the context. Every event has the session's referrer, which is valid only for the session's first page."""
    get = props.get
    url, entry = get("$current_url"), get("$session_entry_url")
    referrer = get("$referrer") if entry in (None, url) else None
    unapplied = {name: props[name] for name in ("$set_once",) if props.get(name, b"null") != b"null"}
    return build_object(
        library=build_object(name=get("$lib"), version=get("$lib_version")),
        userAgent=get("$raw_user_agent"),
        ip=get("$ip"),
        locale=get("$browser_language"),
        timezone=get("$timezone"),
        page=build_page(url=url, referrer=referrer, title=get("title"), path=get("$pathname")),
        profile=json_text.encode_members(unapplied) if unapplied else None,
    )
