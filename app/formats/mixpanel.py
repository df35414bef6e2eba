"""Mixpanel's events and profile updates as messages: ``/track``, ``/import``, ``/engage``, ``/groups``. Pure.

**Who.** ``$device:<id>`` is an anonymous id, and so is a distinct_id that equals ``$device_id``; any other distinct_id
is a user's. **Special events.** ``$identify`` links, ``$create_alias`` and ``$merge`` join, ``$mp_web_page_view`` is a
page. **Profiles.** ``$set`` sets traits and ``$unset`` removes them. What needs the value before (``$set_once``,
``$add``, ``$append``, ``$union``, ``$remove``) is kept in ``context.profile`` and changes no trait: here a trait is the
latest value said. ``$delete`` is kept likewise: a public key erases nobody. A group's profile names no person and is
refused (``missing_identity``).
"""

from __future__ import annotations

from typing import Final

import msgspec

from app.config import Limits
from app.errors import Rejection, RejectionCode
from app.formats import json_text
from app.formats.encodings import lines, whole
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
    short_hash,
    text_of,
    traits_of,
    without,
)

_NO_ADDRESS: Final = b'"none"'
"""What is no address is not kept, and the connection's does not take its place."""
PROFILES: Final = ("engage", "groups")
_DEVICE: Final = "$device:"
_PAGE_VIEW: Final = "$mp_web_page_view"
_MOVED: Final = ("token", "distinct_id", "$device_id", "$user_id", "$anon_distinct_id", "$insert_id", "time", "ip")
_KEPT_UPDATES: Final[tuple[str, ...]] = ("$set_once", "$add", "$append", "$union", "$remove", "$delete")
_FIELDS: Final = {
    RejectionCode.MISSING_EVENT: "event",
    RejectionCode.EVENT_TOO_LONG: "event",
    RejectionCode.MISSING_IDENTITY: "properties.distinct_id",
    RejectionCode.INVALID_FIELD: "properties",
    RejectionCode.INVALID_ID: "properties.distinct_id",
}
_TRAITS: Final = {
    "$email": "email",
    "$phone": "phone",
    "$name": "name",
    "$first_name": "firstName",
    "$last_name": "lastName",
    "$avatar": "avatar",
    "$created": "createdAt",
}


def read(
    body: bytes,
    route: str,
    received_at: int,
    limits: Limits,
    underscore: str | None = None,
    *,
    with_address: bool = True,
    again: EventTimes | None = None,
) -> Envelope:
    """One event or an array of them, of ``track``, ``import`` or PROFILES; an import may be one JSON text a line, too.

    ``underscore`` is the query's ``_``: the browser's clock in ms when it sent the request. Without address
    (``ip=0`` of the query) none is kept. ``again``: the times of an event that is replayed. Raises InvalidBody.
    """
    events = lines(body, limits) if route == "import" else whole(body, limits)
    clocks = again or EventTimes(received_at, browser_clock_of(underscore))
    writer = EnvelopeBuilder(limits, f"mixpanel/{route}", clocks, len(events))
    key: str | None = None
    for index, (raw, original) in enumerate(writer.refuse_beyond(events)):
        members = members_of(raw)
        if not members:
            writer.put_as_it_is(index, raw, original)
            continue
        token = _token(members)
        key = key or token
        if token not in (None, key):
            writer.refuse(index, RejectionCode.INVALID_FIELD, original, "its token is not that of the first event")
        elif route in PROFILES:
            writer.put(index, _profile(raw, members, writer.moment_of(index)), original)
        else:
            writer.put(index, _event(raw, members, writer.moment_of(index)), original)
    return writer.envelope(key, {} if with_address else {"ip": _NO_ADDRESS})


def count_events(envelope: Envelope) -> int:
    """How many events its body had: each makes one message, or is refused."""
    return len(envelope.items) + len(envelope.rejections)


def failed_records(rejections: list[Rejection]) -> list[dict[str, str | int]]:
    """As the import API says what is wrong, in the order of the body."""
    return [
        {
            "index": each.index,
            "insert_id": _insert_id(each.original),
            "field": _FIELDS.get(each.code, "event"),
            "message": each.message,
        }
        for each in sorted(rejections, key=lambda each: each.index)
    ]


def _insert_id(original: bytes) -> str:
    """Of an event as it was sent, which may not even be JSON."""
    try:
        return text_of(members_of(members_of(original).get("properties", b"")).get("$insert_id")) or ""
    except (msgspec.DecodeError, RecursionError):
        return ""


def _token(members: Members) -> str | None:
    of_event = members_of(members.get("properties", b"")).get("token")
    return text_of(of_event) or text_of(members.get("$token"))


def _event(raw: bytes, members: Members, moment: bytes) -> Members:
    event = members.get("event", b"")
    name = json_text.text(event)
    properties = members.get("properties", b"")
    if not properties.startswith(b"{"):
        return {"type": b'"track"', "event": event, "properties": properties}
    props = json_text.members(properties)
    time = props.get("time", b"")
    shared = {
        "messageId": quoted(_message_id(raw, event, props, moment)),
        "timestamp": moment if time in ABSENT else time,
        "context": _context(props),
    }
    said = without(props, *_MOVED)
    if name == "$identify":
        return {**shared, "type": b'"identify"', **_ids(props), "anonymousId": _before(props)}
    if name == "$create_alias":
        return {**shared, **_join(_ids(props), _ids({**props, "distinct_id": props.get("alias", b"")}))}
    if name == "$merge":
        return {**shared, **_join(*_two(props.get("$distinct_ids", b"")))}
    if name == _PAGE_VIEW:
        page = members_of(members_of(shared["context"]).get("page", b""))
        return {**shared, **_ids(props), "type": b'"page"', "properties": json_text.with_missing(said, page)}
    return {**shared, **_ids(props), "type": b'"track"', "event": event, "properties": said}


def _message_id(raw: bytes, event: bytes, props: Members, moment: bytes) -> str:
    """Mixpanel tells events apart by insert id together with who, what and when."""
    time = props.get("time", b"")
    insert_id = text_of(props.get("$insert_id"))
    if insert_id is None:
        return hash_id(raw, moment if time in ABSENT else b"")
    return f"{insert_id}-{short_hash(event, props.get('distinct_id', b''), time)}"


def _profile(raw: bytes, members: Members, moment: bytes) -> Members:
    """An update that has no time is stored each time it comes: to set the same again changes nothing."""
    time = members.get("$time", b"")
    kept = {name: members[name] for name in _KEPT_UPDATES if name in members}
    ids = {name.removeprefix("$"): raw for name, raw in members.items() if name == "$distinct_id"}
    return {
        "type": b'"identify"',
        "messageId": quoted(hash_id(raw, moment if time in ABSENT else b"")),
        "timestamp": moment if time in ABSENT else time,
        **_ids(members | ids),
        "traits": traits_of(members.get("$set"), members.get("$unset"), _TRAITS),
        "context": objects(
            library=objects(name=members.get("mp_lib")),
            profile=json_text.from_members(kept) if kept else None,
            group=objects(key=members.get("$group_key"), id=members.get("$group_id")),
        ),
    }


def _ids(props: Members) -> Members:
    """userId and anonymousId as they stand in the event, the device prefix taken off."""
    distinct, device, user = (props.get(name, b"") for name in ("distinct_id", "$device_id", "$user_id"))
    text = text_of(distinct) or ""
    if text.startswith(_DEVICE):
        return {"userId": user, "anonymousId": quoted(text.removeprefix(_DEVICE))}
    if distinct not in ABSENT and distinct == device:
        return {"userId": user, "anonymousId": device}
    return {"userId": user if distinct in ABSENT else distinct, "anonymousId": device}


def _before(props: Members) -> bytes:
    """Who ``$identify`` found: a device, the id of a library that knows none, or, after an alias, a known user."""
    before = text_of(props.get("$anon_distinct_id")) or ""
    device = props.get("$device_id", b"")
    if before.startswith(_DEVICE) or device in ABSENT:
        return quoted(before.removeprefix(_DEVICE))
    return device


def _join(one: Members, other: Members) -> Members:
    """Two ids are one person: an anonymous one is linked, two users' are joined; of two anonymous ones nobody is."""
    users = [each["userId"] for each in (one, other) if each.get("userId", b"") not in ABSENT]
    if len(users) == 1:
        anonymous = one if other.get("userId") == users[0] else other
        return {"type": b'"identify"', "userId": users[0], "anonymousId": anonymous.get("anonymousId", b"")}
    return {"type": b'"alias"', "userId": b"".join(users[:1]), "previousId": b"".join(users[1:])}


def _two(raw: bytes) -> tuple[Members, Members]:
    """The first two of an array of distinct_ids."""
    ids = msgspec.json.decode(raw, type=list[msgspec.Raw]) if raw.startswith(b"[") else []
    found: list[Members] = [_ids({"distinct_id": bytes(each)}) for each in ids[:2]]
    first, second = [*found, {}, {}][:2]
    return first, second


def _context(props: Members) -> bytes:
    get = props.get
    return objects(
        library=objects(name=get("mp_lib"), version=get("$lib_version")),
        ip=get("ip"),
        page=page_of(
            url=get("$current_url"),
            referrer=get("$referrer"),
            title=get("current_page_title"),
            path=get("current_url_path"),
            search=get("current_url_search"),
        ),
    )
