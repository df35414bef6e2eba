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
from app.formats.encodings import Document, parse_document
from app.formats.event_names import vendor_event_name
from app.formats.segment import Envelope
from app.formats.vendor_events import (
    ABSENT,
    EnvelopeBuilder,
    EventTimes,
    Members,
    build_object,
    build_page,
    decode_members_or_empty,
    decode_text_or_none,
    encode_object_without,
    encode_text,
    hash_id,
)

CALLS: Final = (
    *("identify", "delete", "event", "anonymous_event", "merge", "suppress", "unsuppress"),
    *("add_device", "delete_device", "push_event", "metric"),
)
"""Of version 1."""

_IDENTITY_KINDS: Final = {
    "email": "email",
    "phone": "phone",
    "cio_id": "customerio_customer",
    "device_id": "customerio_device",
}
"""Identifiers that are neither a user's nor a visitor's, and what kind of identity they are here."""
_ERASED_KINDS: Final = {
    **{"id": "user_id", "anonymous_id": "anonymous_id"},
    **{"email": "email", "phone": "phone", "cio_id": "customerio_customer"},
}
_LEAVE_ACTIONS: Final = ("delete", "delete_relationships")
_CIO_PREFIX: Final = "cio_"
_ADDRESS: Final = re.compile(r"[^@\s/]+@[^@\s/]+\.[^@\s/.]+")
_EVENT_ACTIONS: Final = ("event", "page", "screen")
_OPERATION_MEMBERS: Final = ("type", "action", "identifiers", "timestamp", "id", "name", "attributes")
_FORM: Final = "customerio"
_REASON_AND_FIELD: Final = {
    RejectionCode.MISSING_IDENTITY: ("required", "identifiers"),
    RejectionCode.MISSING_ALIAS_IDS: ("required", "secondary"),
    RejectionCode.MISSING_EVENT: ("required", "name"),
    RejectionCode.MISSING_GROUP_ID: ("required", "object_id"),
    RejectionCode.EVENT_TOO_LONG: ("invalid", "name"),
    RejectionCode.INVALID_ID: ("invalid", "identifiers"),
    RejectionCode.INVALID_FIELD: ("invalid", "attributes"),
    RejectionCode.UNKNOWN_TYPE: ("invalid", "type"),
}


def read_call(call: str, person: str, device: str, body: bytes, received_at: int, limits: Limits) -> Envelope:
    """One of CALLS; ``person`` and ``device`` are what the path names, decoded. Raises InvalidBody."""
    members: Members = {}
    if body.strip():
        readable = parse_document(body, limits).readable
        if not readable.startswith(b"{"):
            raise InvalidBody("The body must be a JSON object.")
        members = decode_members_or_empty(readable)
    members_of_operation = _convert_to_operation(call, person, device, members)
    operation = json_text.encode_members({name: raw for name, raw in members_of_operation.items() if raw})
    return _read_operations([(operation, operation)], limits, EventTimes(received_at))


def read_operation(body: bytes, received_at: int, limits: Limits) -> Envelope:
    """The one operation of ``/api/v2/entity``. Raises InvalidBody."""
    parsed = parse_document(body, limits)
    return _read_operations([(parsed.readable, parsed.sent)], limits, EventTimes(received_at))


def read_batch(body: bytes, received_at: int, limits: Limits) -> Envelope:
    """The operations of ``/api/v2/batch``. Raises InvalidBody."""
    parsed: Document = parse_document(body, limits)
    return _read_operations(
        parsed.elements(decode_members_or_empty(parsed.readable).get("batch", b"")), limits, EventTimes(received_at)
    )


def reparse(original: bytes, limits: Limits, clocks: EventTimes) -> Envelope:
    """Return the messages and erasures of an operation from quarantine. Raises InvalidBody."""
    parsed = parse_document(original, limits)
    return _read_operations([(parsed.readable, parsed.sent)], limits, clocks)


def describe_error(rejection: Rejection) -> dict[str, str | int]:
    """As version 2 says what is wrong with an operation of a batch."""
    reason, field = _REASON_AND_FIELD.get(rejection.code, ("invalid", ""))
    return {"batch_index": rejection.index, "reason": reason, "field": field, "message": rejection.message}


# -------------------------------------------------------------------------------------- version 1 as operations


def _convert_to_operation(call: str, person: str, device: str, body: Members) -> Members:
    operation = {"type": b'"person"', "action": encode_text(call), "identifiers": _identifiers_of_path(person)}
    event: Members = {name: body[name] for name in ("id", "name", "timestamp") if name in body}
    if call == "identify":
        return {**operation, "attributes": json_text.encode_members(body)}
    if call in ("event", "anonymous_event"):
        kind = decode_text_or_none(body.get("type"))
        operation["action"] = encode_text(kind if kind in _EVENT_ACTIONS else "event")
        if call == "anonymous_event":
            operation["identifiers"] = build_object(anonymous_id=body.get("anonymous_id"))
        return {**operation, **event, "attributes": body.get("data", b"{}")}
    if call == "merge":
        del operation["identifiers"]
        return {**operation, **{name: body[name] for name in ("primary", "secondary") if name in body}}
    if call == "add_device":
        return {**operation, "device": body.get("device", b"{}")}
    if call == "delete_device":
        return {**operation, "device": build_object(id=encode_text(device))}
    if call in ("push_event", "metric"):
        return {**body, "type": b'"delivery"', "action": body.get("event") or body.get("metric", b"")}
    return operation


def _identifiers_of_path(person: str) -> bytes:
    if _ADDRESS.fullmatch(person):
        return build_object(email=encode_text(person))
    return (
        build_object(cio_id=encode_text(person))
        if person.startswith(_CIO_PREFIX)
        else build_object(id=encode_text(person))
    )


# ------------------------------------------------------------------------------------------ operations as messages


class _Operation(msgspec.Struct):
    """One operation: its members, who it names, and what each message made of it has in common."""

    members: Members
    action: str
    identifiers: Members
    shared: Members

    def message(self, kind: str, *people: Members, context: Members | None = None, **fields: bytes) -> Members:
        """A message of that type, of the one person whom all of ``people`` identify, else the operation itself."""
        present = [
            (name, raw)
            for identifiers in people or (self.identifiers,)
            for name, raw in identifiers.items()
            if raw not in ABSENT
        ]
        objects = [
            build_object(id=raw, type=encode_text(_IDENTITY_KINDS[name]))
            for name, raw in present
            if name in _IDENTITY_KINDS
        ]
        external_ids = b"[%b]" % b",".join(objects) if objects else b""
        return {
            **self.shared,
            "type": encode_text(kind),
            "userId": dict(present).get("id", b""),
            "anonymousId": dict(present).get("anonymous_id", b""),
            "context": build_object(**(context or {}), externalIds=external_ids),
            **fields,
        }


def _read_operations(operations: list[tuple[bytes, bytes]], limits: Limits, times: EventTimes) -> Envelope:
    builder = EnvelopeBuilder(limits, _FORM, times, len(operations))
    envelope = builder.build_envelope(None)
    envelope.rejects_each_place_once = True
    messages_count = repeated_bytes = 0
    for index, (raw, original) in enumerate(builder.reject_over_limit(operations)):
        members = decode_members_or_empty(raw)
        if not members:
            builder.add_raw_item(index, raw, original)
            continue
        operation = _parse_operation(members, raw, builder.default_time(index))
        kind = decode_text_or_none(members.get("type")) or "person"
        map_operation = _MAPPER_OF_TYPE.get(kind)
        if map_operation is None or not operation.action:
            builder.reject(
                index, RejectionCode.UNKNOWN_TYPE, original, f"no {'type' if map_operation is None else 'action'}"
            )
            continue
        fits = len(raw) <= limits.message_bytes_max
        repeats = _count_repeated_bytes(operation, kind) if fits else 0
        if not fits or repeats > limits.inflated_bytes_max:
            builder.reject(index, RejectionCode.MESSAGE_TOO_LARGE, original)
            continue
        repeated_bytes += repeats
        messages = map_operation(operation) if repeated_bytes <= limits.inflated_bytes_max else []
        messages_count += len(messages)
        if repeated_bytes > limits.inflated_bytes_max or messages_count > limits.batch_messages_max:
            builder.reject(index, RejectionCode.TOO_MANY_MESSAGES, original)
            continue
        erasures = list(_list_erasures(operation)) if kind == "person" else []
        envelope.erasures += erasures
        for count, message in enumerate(messages):
            if count:
                message["messageId"] = encode_text(f"{decode_text_or_none(message['messageId'])}:{count}")
            builder.add_message(index, message, original)
        if not messages and not erasures:
            builder.reject(index, RejectionCode.MISSING_IDENTITY, original)
    return envelope


def _parse_operation(members: Members, raw: bytes, default_time: bytes) -> _Operation:
    identifiers = _parse_ids(members.get("identifiers", b""))
    if "anonymous_id" in members:
        identifiers.setdefault("anonymous_id", members["anonymous_id"])
    time = members.get("timestamp", b"")
    own_id = decode_text_or_none(members.get("id"))
    shared = {
        "messageId": encode_text(own_id or hash_id(raw, default_time if time in ABSENT else b"")),
        "timestamp": default_time if time in ABSENT else time,
    }
    return _Operation(members, decode_text_or_none(members.get("action")) or "", identifiers, shared)


def _map_person(operation: _Operation) -> list[Members]:
    map_action = _MAPPER_OF_ACTION.get(operation.action)
    if map_action is not None:
        return map_action(operation)
    properties = encode_object_without(operation.members, *_OPERATION_MEMBERS)
    name = encode_text(vendor_event_name(_FORM, operation.action))
    return [operation.message("track", event=name, properties=properties)]


def _map_identify(operation: _Operation) -> list[Members]:
    """Ids among the attributes are identifiers too; an address that identifies is the attribute, unless it says so."""
    sent_attributes = operation.members.get("attributes", b"")
    if sent_attributes not in ABSENT and not sent_attributes.startswith(b"{"):
        return [operation.message("identify", traits=sent_attributes)]
    attributes = decode_members_or_empty(sent_attributes)
    identifiers = dict(operation.identifiers)
    attributes.pop("cio_relationships", None)
    attributes.pop("_update", None)
    for name in ("anonymous_id", "cio_id", "id"):
        if (
            attributes.get(name, b"") not in ABSENT
            and identifiers.setdefault(name, attributes[name]) == attributes[name]
        ):
            del attributes[name]
    if "email" in identifiers:
        attributes.setdefault("email", identifiers["email"])
    traits = json_text.encode_members(attributes)
    return [operation.message("identify", identifiers, traits=traits), *_map_groups(operation)]


def _map_event(operation: _Operation) -> list[Members]:
    name, data = operation.members.get("name", b""), operation.members.get("attributes", b"")
    if operation.action == "event":
        return [operation.message("track", event=name, properties=data)]
    if operation.action == "screen":
        return [operation.message("screen", name=name, properties=data)]
    attributes = decode_members_or_empty(data)
    if not (decode_text_or_none(name) or "").startswith(("http://", "https://", "/")):
        return [operation.message("page", name=name, properties=data)]
    page = build_page(url=name, referrer=attributes.get("referrer"), title=attributes.get("title"))
    if data not in ABSENT and not data.startswith(b"{"):
        return [operation.message("page", properties=data)]
    properties = json_text.add_missing(json_text.encode_members(attributes), {"url": name})
    return [operation.message("page", context={"page": page}, properties=properties)]


def _map_merge(operation: _Operation) -> list[Members]:
    """Two ids are two names of one user; with anything else an id is only linked, as by an identify."""
    first, second = (_parse_ids(operation.members.get(name, b"")) for name in ("primary", "secondary"))
    if not first or not second:
        return []
    if "id" in first and "id" in second:
        return [operation.message("alias", {"id": first["id"]}, previousId=second["id"])]
    return [operation.message("identify", first, second)]


def _map_suppress(operation: _Operation) -> list[Members]:
    suppressed = b"true" if operation.action == "suppress" else b"false"
    return [operation.message("identify", traits=build_object(suppressed=suppressed))]


def _map_device(operation: _Operation) -> list[Members]:
    device = decode_members_or_empty(operation.members.get("device", b""))
    token = device.get("id") or device.get("token", b"")
    name = "push.device_added" if operation.action == "add_device" else "push.device_removed"
    properties = build_object(platform=device.get("platform"), attributes=device.get("attributes"))
    context = {"channel": b'"push"', "device": build_object(token=token, type=device.get("platform"))}
    identifiers = operation.identifiers | {"device_id": token}
    return [operation.message("track", identifiers, context=context, event=encode_text(name), properties=properties)]


def _map_groups(operation: _Operation) -> list[Members]:
    """What a person joins or leaves: ``{"identifiers": {"object_type_id", "object_id"}}`` each."""
    messages = []
    for relation, leaves in _list_relations(operation):
        group = decode_members_or_empty(relation.get("identifiers", b""))
        traits = relation.get("relationship_attributes") or relation.get("attributes", b"")
        messages.append(_map_relation(operation, operation.identifiers, group, traits, leaves=leaves))
    return messages


def _map_object(operation: _Operation) -> list[Members]:
    """Those who join or leave it: ``{"identifiers": {"id"}}`` each."""
    attributes = operation.members.get("attributes", b"")
    people = [(_parse_ids(relation.get("identifiers", b"")), leaves) for relation, leaves in _list_relations(operation)]
    people = people or [({}, operation.action in _LEAVE_ACTIONS)]
    return [
        _map_relation(operation, identifiers, operation.identifiers, attributes, leaves=leaves)
        for identifiers, leaves in people
    ]


def _list_relations(operation: _Operation) -> list[tuple[Members, bool]]:
    """Those of an operation, and whether each ends: an array, in version 1 ``{"action", "relationships": [..]}``."""
    relations: list[tuple[Members, bool]] = []
    attributes = operation.members.get("attributes", b"") if operation.action == "identify" else b""
    for holder in (decode_members_or_empty(attributes), operation.members):
        elements, action = holder.get("cio_relationships", b""), operation.action
        if elements.startswith(b"{"):
            wrapper = decode_members_or_empty(elements)
            elements, action = wrapper.get("relationships", b""), decode_text_or_none(wrapper.get("action")) or action
        relations += [(relation, action in _LEAVE_ACTIONS) for relation in _decode_elements(elements)]
    return relations


def _count_repeated_bytes(operation: _Operation, kind: str) -> int:
    """How much is said again, at most, as each relation becomes a message: an object's attributes, not a person's."""
    unrepeated_names = ("cio_relationships", "attributes") if kind == "person" else ("cio_relationships",)
    bytes_repeated = sum(len(raw) for name, raw in operation.members.items() if name not in unrepeated_names)
    return bytes_repeated * len(_list_relations(operation))


def _map_relation(
    operation: _Operation, identifiers: Members, group: Members, traits: bytes, *, leaves: bool
) -> Members:
    """A person joins an object, which is a group; or leaves it, which groups cannot say: an event of its own."""
    if leaves:
        properties = build_object(object_type_id=group.get("object_type_id"), object_id=group.get("object_id"))
        event = encode_text(vendor_event_name(_FORM, "relationship_deleted"))
        return operation.message("track", identifiers, event=event, properties=properties)
    kind = build_object(groupType=group.get("object_type_id"))
    return operation.message("group", identifiers, groupId=group.get("object_id", b""), traits=traits, properties=kind)


def _map_delivery(operation: _Operation) -> list[Members]:
    """A report on one message that was sent: of an address, or of a device."""
    fields = decode_members_or_empty(operation.members.get("attributes", b"")) | operation.members
    recipient = fields.get("recipient", b"")
    is_email = _ADDRESS.fullmatch(decode_text_or_none(recipient) or "") is not None
    device = operation.identifiers.get("device_id") or fields.get("device_id") or recipient
    delivery = operation.identifiers.get("delivery_id") or operation.identifiers.get("id") or fields.get("delivery_id")
    metric = decode_text_or_none(fields.get("metric")) or operation.action
    channel = "email" if is_email else "push"
    properties = build_object(delivery_id=delivery, link=fields.get("href"), reason=fields.get("reason"))
    return [
        operation.message(
            "track",
            {"email": recipient} if is_email else {"device_id": device},
            context={"channel": encode_text(channel)},
            event=encode_text(vendor_event_name(channel, metric)),
            properties=properties,
        )
    ]


def _list_erasures(operation: _Operation) -> Iterable[tuple[str, str]]:
    if operation.action not in ("delete", "suppress"):
        return
    for name, kind in _ERASED_KINDS.items():
        if (value := decode_text_or_none(operation.identifiers.get(name, b""))) is not None:
            yield kind, value


def _decode_elements(raw: bytes) -> list[Members]:
    elements = msgspec.json.decode(raw, type=list[msgspec.Raw]) if raw.startswith(b"[") else []
    return [decode_members_or_empty(bytes(element)) for element in elements]


def _parse_ids(raw: bytes) -> Members:
    """Identifiers that are there; an id that the tool gave without the prefix that says so in paths."""
    ids = {name: value for name, value in decode_members_or_empty(raw).items() if value not in ABSENT}
    if "cio_id" in ids:
        ids["cio_id"] = encode_text((decode_text_or_none(ids["cio_id"]) or "").removeprefix(_CIO_PREFIX))
    return ids


def _map_nothing(operation: _Operation) -> list[Members]:
    del operation
    return []


_MAPPER_OF_ACTION: Final[dict[str, Callable[[_Operation], list[Members]]]] = {
    "identify": _map_identify,
    "delete": _map_nothing,
    **dict.fromkeys(_EVENT_ACTIONS, _map_event),
    "merge": _map_merge,
    "suppress": _map_suppress,
    "unsuppress": _map_suppress,
    "add_device": _map_device,
    "delete_device": _map_device,
    "add_relationships": _map_groups,
    "delete_relationships": _map_groups,
}
_MAPPER_OF_TYPE: Final[dict[str, Callable[[_Operation], list[Members]]]] = {
    "person": _map_person,
    "object": _map_object,
    "delivery": _map_delivery,
}
