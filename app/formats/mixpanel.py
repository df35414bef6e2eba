"""Mixpanel format: converts events and profile updates to messages. Pure.

The routes are ``/track``, ``/import``, ``/engage`` and ``/groups``.

**Identities.** ``$device:<id>`` is an anonymous id, and so is a distinct_id that equals ``$device_id``. Any other
distinct_id is a user id.

**Special events.** ``$identify`` links an anonymous id to a user. ``$create_alias`` and ``$merge`` join two users.
``$mp_web_page_view`` becomes a page message.

**Profiles.** ``$set`` sets traits and ``$unset`` removes them. Updates that depend on the previous value
(``$set_once``, ``$add``, ``$append``, ``$union``, ``$remove``) are stored in ``context.profile`` and change no trait,
because a trait is the latest value that was sent. ``$delete`` is stored there too: the token is public, so it cannot
erase a customer. A group's profile has no customer and is rejected (``missing_identity``).
"""

from __future__ import annotations

from typing import Final

import msgspec

from app.config import Limits
from app.errors import Rejection, RejectionCode
from app.formats import json_text
from app.formats.encodings import parse_elements, parse_elements_or_lines
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
    compute_short_hash,
    decode_members_or_empty,
    decode_text_or_none,
    encode_object_without,
    encode_text,
    hash_id,
    parse_browser_clock,
)

_NO_ADDRESS_VALUE: Final = b'"none"'
"""Value of ``ip`` with which no address is stored, because it replaces the connection's address but is invalid."""
PROFILES: Final = ("engage", "groups")
_DEVICE_PREFIX: Final = "$device:"
_PAGE_VIEW: Final = "$mp_web_page_view"
_MOVED_NAMES: Final = (
    "token",
    "distinct_id",
    "$device_id",
    "$user_id",
    "$anon_distinct_id",
    "$insert_id",
    "time",
    "ip",
)
_KEPT_UPDATES: Final[tuple[str, ...]] = ("$set_once", "$add", "$append", "$union", "$remove", "$delete")
_FIELD_OF_CODE: Final = {
    RejectionCode.MISSING_EVENT: "event",
    RejectionCode.EVENT_TOO_LONG: "event",
    RejectionCode.MISSING_IDENTITY: "properties.distinct_id",
    RejectionCode.INVALID_FIELD: "properties",
    RejectionCode.INVALID_ID: "properties.distinct_id",
}
_TRAIT_NAMES: Final = {
    "$email": "email",
    "$phone": "phone",
    "$name": "name",
    "$first_name": "firstName",
    "$last_name": "lastName",
    "$avatar": "avatar",
    "$created": "createdAt",
}


def read_in_steps(
    body: bytes,
    route: str,
    received_at: int,
    limits: Limits,
    browser_clock: str | None = None,
    *,
    with_address: bool = True,
    replay_times: EventTimes | None = None,
) -> Steps[Envelope]:
    """Convert one event or an array of events to an envelope. Raise InvalidBody.

    ``route`` is ``track``, ``import`` or one of PROFILES; an import may also have one JSON object per line.
    ``browser_clock`` is the query parameter ``_``: the browser's clock in ms when it sent the request. If
    ``with_address`` is False (``ip=0`` in the query), no IP address is stored. ``replay_times`` are the times of an
    event that is replayed from quarantine.
    """
    parse = parse_elements_or_lines if route == "import" else parse_elements
    events = yield from parse(body, limits)
    times = replay_times or EventTimes(received_at, parse_browser_clock(browser_clock))
    builder = EnvelopeBuilder(limits, f"mixpanel/{route}", times, len(events))
    key: str | None = None
    for index, (raw, original) in enumerate(builder.reject_over_limit(events)):
        yield
        members = decode_members_or_empty(raw)
        if not members:
            builder.add_raw_item(index, raw, original)
            continue
        token = _find_token(members)
        key = key or token
        if token not in (None, key):
            builder.reject(
                index, RejectionCode.INVALID_FIELD, original, "the token differs from the token of the first event"
            )
        elif route in PROFILES:
            builder.add_message(index, _map_profile(raw, members, builder.default_time(index)), original)
        else:
            builder.add_message(index, _map_event(raw, members, builder.default_time(index)), original)
    return builder.build_envelope(key, {} if with_address else {"ip": _NO_ADDRESS_VALUE})


read = at_once(read_in_steps)


def count_events(envelope: Envelope) -> int:
    """Return the number of events in the body: each one becomes a message or a rejection."""
    return len(envelope.items) + len(envelope.rejections)


def describe_failed_records(rejections: list[Rejection]) -> list[dict[str, str | int]]:
    """Return the rejections in the format of Mixpanel's import API, in the order of the body."""
    return [
        {
            "index": rejection.index,
            "insert_id": _find_insert_id(rejection.original),
            "field": _FIELD_OF_CODE.get(rejection.code, "event"),
            "message": rejection.message,
        }
        for rejection in sorted(rejections, key=lambda rejection: rejection.index)
    ]


def _find_insert_id(original: bytes) -> str:
    """Return ``$insert_id`` of an event as sent, or an empty text; the event may be invalid JSON."""
    try:
        return (
            decode_text_or_none(
                decode_members_or_empty(decode_members_or_empty(original).get("properties", b"")).get("$insert_id")
            )
            or ""
        )
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return ""


def _find_token(members: Members) -> str | None:
    event_token = decode_members_or_empty(members.get("properties", b"")).get("token")
    return decode_text_or_none(event_token) or decode_text_or_none(members.get("$token"))


def _map_event(raw: bytes, members: Members, default_time: bytes) -> Members:
    event = members.get("event", b"")
    name = json_text.decode_text(event)
    properties = members.get("properties", b"")
    if not properties.startswith(b"{"):
        return {"type": b'"track"', "event": event, "properties": properties}
    props = json_text.decode_members(properties)
    time = props.get("time", b"")
    shared = {
        "messageId": encode_text(_derive_message_id(raw, event, props, default_time)),
        "timestamp": default_time if time in ABSENT else time,
        "context": _build_context(props),
    }
    event_properties = encode_object_without(props, *_MOVED_NAMES)
    if name == "$identify":
        return {**shared, "type": b'"identify"', **_find_ids(props), "anonymousId": _find_previous_id(props)}
    if name == "$create_alias":
        return {**shared, **_join_ids(_find_ids(props), _find_ids({**props, "distinct_id": props.get("alias", b"")}))}
    if name == "$merge":
        return {**shared, **_join_ids(*_find_first_two_ids(props.get("$distinct_ids", b"")))}
    if name == _PAGE_VIEW:
        page = decode_members_or_empty(decode_members_or_empty(shared["context"]).get("page", b""))
        return {
            **shared,
            **_find_ids(props),
            "type": b'"page"',
            "properties": json_text.add_missing(event_properties, page),
        }
    return {**shared, **_find_ids(props), "type": b'"track"', "event": event, "properties": event_properties}


def _derive_message_id(raw: bytes, event: bytes, props: Members, default_time: bytes) -> str:
    """Derive the id from insert id, event name, distinct_id and time, which Mixpanel uses for deduplication."""
    time = props.get("time", b"")
    insert_id = decode_text_or_none(props.get("$insert_id"))
    if insert_id is None:
        return hash_id(raw, default_time if time in ABSENT else b"")
    return f"{insert_id}-{compute_short_hash(event, props.get('distinct_id', b''), time)}"


def _map_profile(raw: bytes, members: Members, default_time: bytes) -> Members:
    """Map a profile update.

    An update without a time is stored each time it arrives, because setting a value again has no effect.
    """
    time = members.get("$time", b"")
    unapplied = {name: members[name] for name in _KEPT_UPDATES if name in members}
    ids = {name.removeprefix("$"): raw for name, raw in members.items() if name == "$distinct_id"}
    return {
        "type": b'"identify"',
        "messageId": encode_text(hash_id(raw, default_time if time in ABSENT else b"")),
        "timestamp": default_time if time in ABSENT else time,
        **_find_ids(members | ids),
        "traits": build_traits(members.get("$set"), members.get("$unset"), _TRAIT_NAMES),
        "context": build_object(
            library=build_object(name=members.get("mp_lib")),
            profile=json_text.encode_members(unapplied) if unapplied else None,
            group=build_object(key=members.get("$group_key"), id=members.get("$group_id")),
        ),
    }


def _find_ids(props: Members) -> Members:
    """Return userId and anonymousId of the event, without the device prefix."""
    distinct, device, user = (props.get(name, b"") for name in ("distinct_id", "$device_id", "$user_id"))
    text = decode_text_or_none(distinct) or ""
    if text.startswith(_DEVICE_PREFIX):
        return {"userId": user, "anonymousId": encode_text(text.removeprefix(_DEVICE_PREFIX))}
    if distinct not in ABSENT and distinct == device:
        return {"userId": user, "anonymousId": device}
    return {"userId": user if distinct in ABSENT else distinct, "anonymousId": device}


def _find_previous_id(props: Members) -> bytes:
    """Return the id that ``$identify`` links to the user: a device id, or the previous distinct_id."""
    previous = decode_text_or_none(props.get("$anon_distinct_id")) or ""
    device = props.get("$device_id", b"")
    if previous.startswith(_DEVICE_PREFIX) or device in ABSENT:
        return encode_text(previous.removeprefix(_DEVICE_PREFIX))
    return device


def _join_ids(left: Members, right: Members) -> Members:
    """Join two ids of one customer: an identify links an anonymous id, an alias joins two user ids.

    Two anonymous ids become an alias without ids, which is rejected.
    """
    users = [ids["userId"] for ids in (left, right) if ids.get("userId", b"") not in ABSENT]
    if len(users) == 1:
        anonymous = left if right.get("userId") == users[0] else right
        return {"type": b'"identify"', "userId": users[0], "anonymousId": anonymous.get("anonymousId", b"")}
    return {"type": b'"alias"', "userId": b"".join(users[:1]), "previousId": b"".join(users[1:])}


def _find_first_two_ids(raw: bytes) -> tuple[Members, Members]:
    """Return the ids of the first two elements of an array of distinct_ids."""
    ids = msgspec.json.decode(raw, type=list[msgspec.Raw]) if raw.startswith(b"[") else []
    both: list[Members] = [_find_ids({"distinct_id": bytes(distinct_id)}) for distinct_id in ids[:2]]
    first, second = [*both, {}, {}][:2]
    return first, second


def _build_context(props: Members) -> bytes:
    get = props.get
    return build_object(
        library=build_object(name=get("mp_lib"), version=get("$lib_version")),
        ip=get("ip"),
        page=build_page(
            url=get("$current_url"),
            referrer=get("$referrer"),
            title=get("current_page_title"),
            path=get("current_url_path"),
            search=get("current_url_search"),
        ),
    )
