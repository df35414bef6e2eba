"""PostHog's events as messages: ``/e/``, ``/capture/``, ``/batch/`` and their relatives. Pure.

**Who.** A distinct_id is anonymous where it equals ``$device_id`` or the event says that nobody is identified; else it
is a user's. **Special events.** ``$pageview`` and ``$screen`` are page and screen, ``$identify`` links,
``$create_alias`` joins, ``$set`` sets traits, ``$groupidentify`` is a group. ``$set`` and ``$unset`` beside any other
event are a message of their own. ``$set_once`` is kept in ``context.profile`` and changes no trait: here a trait is
the latest value said.
"""

from __future__ import annotations

from typing import Final

import msgspec

from app.config import Limits
from app.errors import Rejection
from app.formats import json_text, timestamps
from app.formats.encodings import document
from app.formats.segment import Envelope
from app.formats.vendor_events import (
    ABSENT,
    EnvelopeBuilder,
    EventTimes,
    Members,
    browser_clock_of,
    hash_id,
    members_of,
    objects,
    page_of,
    quoted,
    text_of,
    traits_of,
    without,
)

_MOVED: Final = (
    *("token", "distinct_id", "$device_id", "$user_id", "$anon_distinct_id", "$insert_id", "$time"),
    *("$set", "$set_once", "$unset", "$raw_user_agent", "$lib", "$lib_version", "$ip"),
)
_AS_CLAIMED: Final = "$ignore_sent_at"
"""Of events whose time is another machine's than the sender's: no error of its clock is taken off."""
_NOBODY: Final = b'"$posthog_cookieless"'
_TRAITS: Final = {"$email": "email", "$phone": "phone", "$name": "name"}
_OFFSET_MS_MAX: Final = 31_536_000_000
_FORM: Final = "posthog"
_FORM_V1: Final = "posthog/v1"
_TOP_LEVEL: Final = {"session_id": "$session_id", "window_id": "$window_id"}
_OPTIONS: Final = {
    "cookieless_mode": "$cookieless_mode",
    "disable_skew_correction": _AS_CLAIMED,
    "product_tour_id": "$product_tour_id",
    "process_person_profile": "$process_person_profile",
}
_LIBRARIES: Final = {"posthog-js": "web"}
"""Whose older protocol names its library otherwise than its newer one."""


def is_posthog(body: bytes, limits: Limits) -> bool:
    """Whether a body of ``/track`` or ``/engage``, which Mixpanel has too, is PostHog's. Raises InvalidBody."""
    parsed = document(body, limits)
    raw = parsed.readable
    if raw.startswith(b"["):
        raw = next((item for item, _ in parsed.elements(raw)), b"")
    members = members_of(raw)
    if any(name in members for name in ("api_key", "batch", "uuid", "distinct_id", "offset", "timestamp")):
        return True
    props = members_of(members.get("properties", b""))
    return "$lib" in props and "mp_lib" not in props


def read(
    body: bytes,
    received_at: int,
    limits: Limits,
    underscore: str | None = None,
    *,
    sdk: str | None = None,
    sending: str | None = None,
    again: EventTimes | None = None,
) -> Envelope:
    """A batch, an array of events or one event. Raises InvalidBody.

    ``underscore`` is the query's ``_``. Of version 1 of the protocol: ``sdk`` is who sends it (``name/version``) and
    ``sending`` when it does, which headers say. ``again``: the times of an event that is replayed.
    """
    parsed = document(body, limits)
    raw = parsed.readable
    around = members_of(raw)
    batch = around.get("batch") or (around.get("data") if around.get("data", b"").startswith(b"[") else None)
    if raw.startswith(b"["):
        events = parsed.elements(raw)
    else:
        events = [(raw, parsed.sent)] if batch is None else parsed.elements(batch)
    clocks = again or EventTimes(received_at, _sent_at(around, sending, underscore))
    key = text_of(around.get("api_key")) or text_of(around.get("token"))
    form, said = (_FORM, {}) if sdk is None else (_FORM_V1, {"sdk": sdk})
    writer = EnvelopeBuilder(limits, form, clocks, len(events), **said)
    for index, (raw, original) in enumerate(writer.refuse_beyond(events)):
        members = members_of(raw)
        key = key or _key(members)
        if not members:
            writer.put_as_it_is(index, raw, original)
            continue
        if sdk is not None:
            members = _as_v0(members, sdk)
        for message in _event(raw, members, writer.moment_of(index), received_at):
            writer.put(index, message, original)
    return writer.envelope(key)


def results(envelope: Envelope, rejections: list[Rejection]) -> dict[str, dict[str, str]]:
    """What version 1 is answered, by uuid; an event of several messages fails with any of them."""
    answers: dict[str, dict[str, str]] = {}
    for original in envelope.originals:
        if (uuid := _uuid(original)) is not None:
            answers[uuid] = {"result": "ok"}
    for each in rejections:
        if (uuid := _uuid(each.original)) is not None:
            answers[uuid] = {"result": "retry" if each.code.retryable else "drop", "details": each.message}
    return answers


def _uuid(original: bytes) -> str | None:
    """Of an event as it was sent, which may not even be JSON."""
    try:
        return text_of(members_of(original).get("uuid"))
    except (msgspec.DecodeError, RecursionError):
        return None


def _sent_at(around: Members, sending: str | None, underscore: str | None) -> int | None:
    """By the sender's clock; a body that says so itself comes first."""
    for raw in (around.get("sent_at", b""), quoted(sending or "")):
        if (sent := timestamps.parse_claimed(raw)[1]) is not None:
            return sent
    return browser_clock_of(underscore)


def _as_v0(members: Members, sdk: str) -> Members:
    """An event of version 1 with what it says apart put back among its properties, and the library that a header names.

    Properties that are no object stay, to be refused.
    """
    properties = members.get("properties", b"{}")
    if not properties.startswith(b"{"):
        return members
    name, _, version = sdk.partition("/")
    apart = {"$lib": quoted(_LIBRARIES.get(name, name)), "$lib_version": quoted(version)}
    options = members_of(members.get("options", b""))
    for source, names in ((options, _OPTIONS), (members, _TOP_LEVEL)):
        apart |= {ours: source[theirs] for theirs, ours in names.items() if source.get(theirs, b"null") != b"null"}
    return members | {"properties": json_text.with_missing(properties, apart)}


def _key(members: Members) -> str | None:
    within = members_of(members.get("properties", b"")).get("token")
    return text_of(members.get("api_key")) or text_of(members.get("token")) or text_of(within)


def _event(raw: bytes, members: Members, moment: bytes, received_at: int) -> list[Members]:
    event = members.get("event", b"")
    name = json_text.text(event)
    properties = members.get("properties", b"")
    if properties not in ABSENT and not properties.startswith(b"{"):
        return [{"type": b'"track"', "event": event, "properties": properties}]
    props = members_of(properties)
    # What may stand beside the properties or among them.
    for each in ("distinct_id", "$set", "$set_once", "$unset"):
        if members.get(each, b"null") != b"null":
            props[each] = members[each]
    time = _time(members, props, received_at) or {"timestamp": moment}
    message_id = _message_id(raw, members, props, time["timestamp"])
    context = _context(props)
    shared = {"messageId": quoted(message_id), **time, "context": context}
    said = without(props, *_MOVED)
    ids = _ids(props)
    traits = traits_of(props.get("$set"), props.get("$unset"), _TRAITS)
    identify = {**shared, **ids, "type": b'"identify"', "traits": traits}
    if name == "$identify":
        return [{**identify, "anonymousId": props.get("$anon_distinct_id") or ids.get("anonymousId", b"")}]
    if name == "$set":
        return [identify]
    if name == "$create_alias":
        return [{**shared, **_join(props, ids)}]
    if name == "$groupidentify":
        group = {"groupId": props.get("$group_key", b""), "traits": props.get("$group_set", b"")}
        kind = {"properties": objects(groupType=props.get("$group_type"))}
        return [{**shared, **ids, "type": b'"group"', **group, **kind}]
    message = {**shared, **ids, "type": b'"track"', "event": event, "properties": said}
    if name in ("$pageview", "$screen"):
        del message["event"]
        page = members_of(members_of(context).get("page", b""))
        message["type"] = b'"page"' if name == "$pageview" else b'"screen"'
        message["name"] = props.get("$screen_name", b"") if name == "$screen" else b""
        message["properties"] = json_text.with_missing(said, page)
    if not traits:
        return [message]
    return [message, {**identify, "messageId": quoted(f"{message_id}:set")}]


def _time(members: Members, props: Members, received_at: int) -> Members | None:
    """An event's own time; an ``offset`` says how many ms before sending it happened."""
    if members.get("timestamp", b"") not in ABSENT:
        as_claimed = props.get(_AS_CLAIMED) == b"true"
        return {
            "timestamp": members["timestamp"],
            "sentAt": quoted(timestamps.rfc3339(received_at)) if as_claimed else b"",
        }
    offset = text_of(members.get("offset"))
    if offset is not None and offset.isdecimal() and int(offset[:15]) <= _OFFSET_MS_MAX:
        moment = timestamps.rfc3339(max(received_at - int(offset[:15]) * 1000, 0))
        return {"timestamp": quoted(moment), "sentAt": quoted(timestamps.rfc3339(received_at))}
    return None


def _message_id(raw: bytes, members: Members, props: Members, moment: bytes) -> str:
    own = text_of(members.get("uuid")) or text_of(props.get("$insert_id"))
    return own or hash_id(raw, b"" if members.get("timestamp", b"") not in ABSENT else moment)


def _ids(props: Members) -> Members:
    distinct, device, user = (props.get(name, b"") for name in ("distinct_id", "$device_id", "$user_id"))
    if distinct == _NOBODY:
        distinct = b""
    anonymous = distinct == device or props.get("$is_identified") == b"false"
    if anonymous and distinct not in ABSENT:
        return {"userId": b"" if user == distinct else user, "anonymousId": distinct}
    return {"userId": user if distinct in ABSENT else distinct, "anonymousId": device}


def _join(props: Members, ids: Members) -> Members:
    """The alias is another id of a user, or the user that somebody anonymous turned out to be."""
    alias = props.get("alias", b"")
    if ids.get("userId", b"") in ABSENT:
        return {"type": b'"identify"', "userId": alias, "anonymousId": ids.get("anonymousId", b"")}
    return {"type": b'"alias"', "userId": ids["userId"], "previousId": alias}


def _context(props: Members) -> bytes:
    """PostHog repeats the referrer of the session on each event; a page's own it is only where the session began."""
    get = props.get
    url, entry = get("$current_url"), get("$session_entry_url")
    referrer = get("$referrer") if entry in (None, url) else None
    kept = {name: props[name] for name in ("$set_once",) if props.get(name, b"null") != b"null"}
    return objects(
        library=objects(name=get("$lib"), version=get("$lib_version")),
        userAgent=get("$raw_user_agent"),
        ip=get("$ip"),
        locale=get("$browser_language"),
        timezone=get("$timezone"),
        page=page_of(url=url, referrer=referrer, title=get("title"), path=get("$pathname")),
        profile=json_text.from_members(kept) if kept else None,
    )
