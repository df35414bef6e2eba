"""Customer.io's Track API as messages: version 1's calls and version 2's operations. Pure.

A call of version 1 is rewritten as the operation of version 2 that means the same, so that there is one reader, and so
that what is kept in quarantine stands for itself: a path is no longer there to say whom it concerns.

**Who.** ``id`` is a user, ``email`` an address, ``cio_id`` an id that the tool gave, ``anonymous_id`` a visitor. In a
path one text stands for any of the first three: what looks like an address is one, what begins with ``cio_`` is the
tool's, all else is an id. **Attributes** are traits; null removes one. **Devices** are touchpoints of the channel push
and identities of their own, because a report of a push names nothing but the device that it was opened on.
**Relationships** are groups, and their end is an event, for groups are only joined; an object to which nobody belongs
names no person and is refused. Each of its people has what is said of it, and no request says more by that than one may
have bytes: it is reckoned before anything is copied. **Deleting** and
suppressing queue an erasure and erase nothing: whoever reads a page's source has its key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from app.config import Limits
from app.errors import InvalidBody, Rejection, RejectionCode
from app.formats import json_text
from app.formats.encodings import Document, document
from app.formats.event_names import vendor_event_name
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
from app.formats.vendor_events import without as object_without

CALLS: Final = (
    *("identify", "delete", "event", "anonymous_event", "merge", "suppress", "unsuppress"),
    *("add_device", "delete_device", "push_event", "metric"),
)
"""Of version 1."""

_KINDS: Final = {"email": "email", "phone": "phone", "cio_id": "customerio_customer", "device_id": "customerio_device"}
"""Identifiers that are neither a user's nor a visitor's, and what kind of identity they are here."""
_ERASED: Final = {
    **{"id": "user_id", "anonymous_id": "anonymous_id"},
    **{"email": "email", "phone": "phone", "cio_id": "customerio_customer"},
}
_LEAVING: Final = ("delete", "delete_relationships")
_CIO: Final = "cio_"
_ADDRESS: Final = re.compile(r"[^@\s/]+@[^@\s/]+\.[^@\s/.]+")
_EVENTS: Final = ("event", "page", "screen")
_OF_OPERATIONS: Final = ("type", "action", "identifiers", "timestamp", "id", "name", "attributes")
_FORM: Final = "customerio"
_REASONS: Final = {
    RejectionCode.MISSING_IDENTITY: ("required", "identifiers"),
    RejectionCode.MISSING_ALIAS_IDS: ("required", "secondary"),
    RejectionCode.MISSING_EVENT: ("required", "name"),
    RejectionCode.MISSING_GROUP_ID: ("required", "object_id"),
    RejectionCode.EVENT_TOO_LONG: ("invalid", "name"),
    RejectionCode.INVALID_ID: ("invalid", "identifiers"),
    RejectionCode.INVALID_FIELD: ("invalid", "attributes"),
    RejectionCode.UNKNOWN_TYPE: ("invalid", "type"),
}


class ParsedRequest(msgspec.Struct):
    """What a request holds: messages, and (kind, value) of people who are to be forgotten."""

    envelope: Envelope
    erasures: list[tuple[str, str]] = []


def read_call(call: str, who: str, device: str, body: bytes, received_at: int, limits: Limits) -> ParsedRequest:
    """One of CALLS; ``who`` and ``device`` are what the path names, decoded. Raises InvalidBody."""
    members: Members = {}
    if body.strip():
        readable = document(body, limits).readable
        if not readable.startswith(b"{"):
            raise InvalidBody("The body must be a JSON object.")
        members = members_of(readable)
    said = _as_operation(call, who, device, members)
    operation = json_text.from_members({name: raw for name, raw in said.items() if raw})
    return _read([(operation, operation)], limits, EventTimes(received_at))


def read_operation(body: bytes, received_at: int, limits: Limits) -> ParsedRequest:
    """The one operation of ``/api/v2/entity``. Raises InvalidBody."""
    parsed = document(body, limits)
    return _read([(parsed.readable, parsed.sent)], limits, EventTimes(received_at))


def read_batch(body: bytes, received_at: int, limits: Limits) -> ParsedRequest:
    """The operations of ``/api/v2/batch``. Raises InvalidBody."""
    parsed: Document = document(body, limits)
    return _read(parsed.elements(members_of(parsed.readable).get("batch", b"")), limits, EventTimes(received_at))


def reparse(original: bytes, limits: Limits, clocks: EventTimes) -> Envelope:
    """An operation that stood in quarantine. Raises InvalidBody."""
    parsed = document(original, limits)
    return _read([(parsed.readable, parsed.sent)], limits, clocks).envelope


def error_of(rejection: Rejection) -> dict[str, str | int]:
    """As version 2 says what is wrong with an operation of a batch."""
    reason, field = _REASONS.get(rejection.code, ("invalid", ""))
    return {"batch_index": rejection.index, "reason": reason, "field": field, "message": rejection.message}


# -------------------------------------------------------------------------------------- version 1 as operations


def _as_operation(call: str, who: str, device: str, body: Members) -> Members:
    person = {"type": b'"person"', "action": quoted(call), "identifiers": _named_in_path(who)}
    event: Members = {name: body[name] for name in ("id", "name", "timestamp") if name in body}
    if call == "identify":
        return {**person, "attributes": json_text.from_members(body)}
    if call in ("event", "anonymous_event"):
        kind = text_of(body.get("type"))
        person["action"] = quoted(kind if kind in _EVENTS else "event")
        if call == "anonymous_event":
            person["identifiers"] = objects(anonymous_id=body.get("anonymous_id"))
        return {**person, **event, "attributes": body.get("data", b"{}")}
    if call == "merge":
        del person["identifiers"]
        return {**person, **{name: body[name] for name in ("primary", "secondary") if name in body}}
    if call == "add_device":
        return {**person, "device": body.get("device", b"{}")}
    if call == "delete_device":
        return {**person, "device": objects(id=quoted(device))}
    if call in ("push_event", "metric"):
        return {**body, "type": b'"delivery"', "action": body.get("event") or body.get("metric", b"")}
    return person


def _named_in_path(who: str) -> bytes:
    if _ADDRESS.fullmatch(who):
        return objects(email=quoted(who))
    return objects(cio_id=quoted(who)) if who.startswith(_CIO) else objects(id=quoted(who))


# ------------------------------------------------------------------------------------------ operations as messages


class _Operation(msgspec.Struct):
    """One operation: its members, who it names, and what each message made of it has in common."""

    members: Members
    action: str
    identifiers: Members
    shared: Members

    def message(self, kind: str, *who: Members, context: Members | None = None, **said: bytes) -> Members:
        """A message of that type, of the one person whom all of ``who`` identify, else the operation itself."""
        named = [(name, raw) for each in who or (self.identifiers,) for name, raw in each.items() if raw not in ABSENT]
        external = [objects(id=raw, type=quoted(_KINDS[name])) for name, raw in named if name in _KINDS]
        listed = b"[%b]" % b",".join(external) if external else b""
        return {
            **self.shared,
            "type": quoted(kind),
            "userId": dict(named).get("id", b""),
            "anonymousId": dict(named).get("anonymous_id", b""),
            "context": objects(**(context or {}), externalIds=listed),
            **said,
        }


def _read(operations: list[tuple[bytes, bytes]], limits: Limits, clocks: EventTimes) -> ParsedRequest:
    writer = EnvelopeBuilder(limits, _FORM, clocks, len(operations))
    asked = ParsedRequest(writer.envelope(None))
    made = repeated = 0
    for place, (raw, original) in enumerate(writer.refuse_beyond(operations)):
        members = members_of(raw)
        if not members:
            writer.put_as_it_is(place, raw, original)
            continue
        operation = _operation(members, raw, writer.moment_of(place))
        kind = text_of(members.get("type")) or "person"
        read = _OF_TYPE.get(kind)
        if read is None or not operation.action:
            writer.refuse(place, RejectionCode.UNKNOWN_TYPE, original, f"no {'type' if read is None else 'action'}")
            continue
        fits = len(raw) <= limits.message_bytes_max
        repeats = _repeated_bytes(operation, kind) if fits else 0
        if not fits or repeats > limits.inflated_bytes_max:
            writer.refuse(place, RejectionCode.MESSAGE_TOO_LARGE, original)
            continue
        repeated += repeats
        messages = read(operation) if repeated <= limits.inflated_bytes_max else []
        made += len(messages)
        if repeated > limits.inflated_bytes_max or made > limits.batch_messages_max:
            writer.refuse(place, RejectionCode.TOO_MANY_MESSAGES, original)
            continue
        forgotten = list(_forgotten(operation)) if kind == "person" else []
        asked.erasures += forgotten
        for count, message in enumerate(messages):
            if count:
                message["messageId"] = quoted(f"{text_of(message['messageId'])}:{count}")
            writer.put(place, message, original)
        if not messages and not forgotten:
            writer.refuse(place, RejectionCode.MISSING_IDENTITY, original)
    return asked


def _operation(members: Members, raw: bytes, moment: bytes) -> _Operation:
    identifiers = _ids(members.get("identifiers", b""))
    if "anonymous_id" in members:
        identifiers.setdefault("anonymous_id", members["anonymous_id"])
    time = members.get("timestamp", b"")
    own_id = text_of(members.get("id"))
    shared = {
        "messageId": quoted(own_id or hash_id(raw, moment if time in ABSENT else b"")),
        "timestamp": moment if time in ABSENT else time,
    }
    return _Operation(members, text_of(members.get("action")) or "", identifiers, shared)


def _person(operation: _Operation) -> list[Members]:
    read = _OF_ACTION.get(operation.action)
    if read is not None:
        return read(operation)
    said = object_without(operation.members, *_OF_OPERATIONS)
    name = quoted(vendor_event_name(_FORM, operation.action))
    return [operation.message("track", event=name, properties=said)]


def _identify(operation: _Operation) -> list[Members]:
    """Ids among the attributes are identifiers too; an address that identifies is the attribute, unless it says so."""
    given = operation.members.get("attributes", b"")
    if given not in ABSENT and not given.startswith(b"{"):
        return [operation.message("identify", traits=given)]
    attributes = members_of(given)
    who = dict(operation.identifiers)
    attributes.pop("cio_relationships", None)
    attributes.pop("_update", None)
    for name in ("anonymous_id", "cio_id", "id"):
        if attributes.get(name, b"") not in ABSENT and who.setdefault(name, attributes[name]) == attributes[name]:
            del attributes[name]
    if "email" in who:
        attributes.setdefault("email", who["email"])
    traits = json_text.from_members(attributes)
    return [operation.message("identify", who, traits=traits), *_groups(operation)]


def _event(operation: _Operation) -> list[Members]:
    name, data = operation.members.get("name", b""), operation.members.get("attributes", b"")
    if operation.action == "event":
        return [operation.message("track", event=name, properties=data)]
    if operation.action == "screen":
        return [operation.message("screen", name=name, properties=data)]
    said = members_of(data)
    if not (text_of(name) or "").startswith(("http://", "https://", "/")):
        return [operation.message("page", name=name, properties=data)]
    page = page_of(url=name, referrer=said.get("referrer"), title=said.get("title"))
    if data not in ABSENT and not data.startswith(b"{"):
        return [operation.message("page", properties=data)]
    properties = json_text.with_missing(json_text.from_members(said), {"url": name})
    return [operation.message("page", context={"page": page}, properties=properties)]


def _merge(operation: _Operation) -> list[Members]:
    """Two ids are two names of one user; with anything else an id is only linked, as by an identify."""
    first, second = (_ids(operation.members.get(name, b"")) for name in ("primary", "secondary"))
    if not first or not second:
        return []
    if "id" in first and "id" in second:
        return [operation.message("alias", {"id": first["id"]}, previousId=second["id"])]
    return [operation.message("identify", first, second)]


def _suppress(operation: _Operation) -> list[Members]:
    suppressed = b"true" if operation.action == "suppress" else b"false"
    return [operation.message("identify", traits=objects(suppressed=suppressed))]


def _device(operation: _Operation) -> list[Members]:
    device = members_of(operation.members.get("device", b""))
    token = device.get("id") or device.get("token", b"")
    name = "push.device_added" if operation.action == "add_device" else "push.device_removed"
    said = objects(platform=device.get("platform"), attributes=device.get("attributes"))
    context = {"channel": b'"push"', "device": objects(token=token, type=device.get("platform"))}
    who = operation.identifiers | {"device_id": token}
    return [operation.message("track", who, context=context, event=quoted(name), properties=said)]


def _groups(operation: _Operation) -> list[Members]:
    """What a person joins or leaves: ``{"identifiers": {"object_type_id", "object_id"}}`` each."""
    found = []
    for relation, leaves in _relations(operation):
        group = members_of(relation.get("identifiers", b""))
        traits = relation.get("relationship_attributes") or relation.get("attributes", b"")
        found.append(_relation(operation, operation.identifiers, group, traits, leaves=leaves))
    return found


def _object(operation: _Operation) -> list[Members]:
    """Those who join or leave it: ``{"identifiers": {"id"}}`` each."""
    attributes = operation.members.get("attributes", b"")
    people = [(_ids(each.get("identifiers", b"")), leaves) for each, leaves in _relations(operation)]
    people = people or [({}, operation.action in _LEAVING)]
    return [_relation(operation, who, operation.identifiers, attributes, leaves=leaves) for who, leaves in people]


def _relations(operation: _Operation) -> list[tuple[Members, bool]]:
    """Those of an operation, and whether each ends: an array, in version 1 ``{"action", "relationships": [..]}``."""
    found = []
    within = operation.members.get("attributes", b"") if operation.action == "identify" else b""
    for holder in (members_of(within), operation.members):
        relations, action = holder.get("cio_relationships", b""), operation.action
        if relations.startswith(b"{"):
            around = members_of(relations)
            relations, action = around.get("relationships", b""), text_of(around.get("action")) or action
        found += [(each, action in _LEAVING) for each in _elements(relations)]
    return found


def _repeated_bytes(operation: _Operation, kind: str) -> int:
    """How much is said again, at most, as each relation becomes a message: an object's attributes, not a person's."""
    once = ("cio_relationships", "attributes") if kind == "person" else ("cio_relationships",)
    said = sum(len(raw) for name, raw in operation.members.items() if name not in once)
    return said * len(_relations(operation))


def _relation(operation: _Operation, who: Members, group: Members, traits: bytes, *, leaves: bool) -> Members:
    """A person joins an object, which is a group; or leaves it, which groups cannot say: an event of its own."""
    if leaves:
        left = objects(object_type_id=group.get("object_type_id"), object_id=group.get("object_id"))
        event = quoted(vendor_event_name(_FORM, "relationship_deleted"))
        return operation.message("track", who, event=event, properties=left)
    kind = objects(groupType=group.get("object_type_id"))
    return operation.message("group", who, groupId=group.get("object_id", b""), traits=traits, properties=kind)


def _delivery(operation: _Operation) -> list[Members]:
    """A report on one message that was sent: of an address, or of a device."""
    said = members_of(operation.members.get("attributes", b"")) | operation.members
    recipient = said.get("recipient", b"")
    by_mail = _ADDRESS.fullmatch(text_of(recipient) or "") is not None
    device = operation.identifiers.get("device_id") or said.get("device_id") or recipient
    delivery = operation.identifiers.get("delivery_id") or operation.identifiers.get("id") or said.get("delivery_id")
    metric = text_of(said.get("metric")) or operation.action
    channel = "email" if by_mail else "push"
    properties = objects(delivery_id=delivery, link=said.get("href"), reason=said.get("reason"))
    return [
        operation.message(
            "track",
            {"email": recipient} if by_mail else {"device_id": device},
            context={"channel": quoted(channel)},
            event=quoted(vendor_event_name(channel, metric)),
            properties=properties,
        )
    ]


def _forgotten(operation: _Operation) -> Iterable[tuple[str, str]]:
    if operation.action not in ("delete", "suppress"):
        return
    for name, kind in _ERASED.items():
        if (value := text_of(operation.identifiers.get(name, b""))) is not None:
            yield kind, value


def _elements(raw: bytes) -> list[Members]:
    listed = msgspec.json.decode(raw, type=list[msgspec.Raw]) if raw.startswith(b"[") else []
    return [members_of(bytes(each)) for each in listed]


def _ids(raw: bytes) -> Members:
    """Identifiers that are there; an id that the tool gave without the prefix that says so in paths."""
    ids = {name: value for name, value in members_of(raw).items() if value not in ABSENT}
    if "cio_id" in ids:
        ids["cio_id"] = quoted((text_of(ids["cio_id"]) or "").removeprefix(_CIO))
    return ids


def _nothing(operation: _Operation) -> list[Members]:
    del operation
    return []


_OF_ACTION: Final[dict[str, Callable[[_Operation], list[Members]]]] = {
    "identify": _identify,
    "delete": _nothing,
    **dict.fromkeys(_EVENTS, _event),
    "merge": _merge,
    "suppress": _suppress,
    "unsuppress": _suppress,
    "add_device": _device,
    "delete_device": _device,
    "add_relationships": _groups,
    "delete_relationships": _groups,
}
_OF_TYPE: Final[dict[str, Callable[[_Operation], list[Members]]]] = {
    "person": _person,
    "object": _object,
    "delivery": _delivery,
}
