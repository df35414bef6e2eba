"""Customer.io Track API: converts calls of version 1 and operations of version 2 to messages. Pure.

A call of version 1 is rewritten as the equivalent operation of version 2. So there is one parser, and an operation in
quarantine is complete without the path of its request.

**Identities.** ``id`` is a user id, ``email`` an email address, ``cio_id`` an id assigned by Customer.io, and
``anonymous_id`` an anonymous id. A path contains one value, which is any of the first three: an email address if it
looks like one, a ``cio_id`` if it starts with ``cio_``, and otherwise an ``id``.

**Attributes** become traits; null removes a trait.

**Devices** become touchpoints of the channel push, and identities, because the report of a push identifies only the
device.

**Relationships** become group messages. The end of a relationship becomes a track message, because there is no message
for leaving a group. An object without customers has no identity and is rejected. An object's attributes are copied to
each of its customers; a request whose copies would exceed the limit of a decompressed body is rejected before copying.

**Deletion** and suppression only queue an erasure request, because a write key is public in a page's source.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from app.config import Limits
from app.errors import InvalidBody, Rejection, RejectionCode
from app.formats import json_text
from app.formats.encodings import parse_document_in_steps
from app.formats.event_names import vendor_event_name
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
    encode_object_without,
    encode_text,
    hash_id,
)

CALLS: Final = (
    *("identify", "delete", "event", "anonymous_event", "merge", "suppress", "unsuppress"),
    *("add_device", "delete_device", "push_event", "metric"),
)
"""Names of the calls of version 1."""

_IDENTITY_KINDS: Final = {
    "email": "email",
    "phone": "phone",
    "cio_id": "customerio_customer",
    "device_id": "customerio_device",
}
"""Customer.io identifier -> identity kind, for identifiers that are neither user ids nor anonymous ids."""
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


def read_call_in_steps(
    call: str, person: str, device: str, body: bytes, received_at: int, limits: Limits
) -> Steps[Envelope]:
    """Convert a call of version 1, one of CALLS. ``person`` and ``device`` come from the decoded path.

    Raise InvalidBody.
    """
    members: Members = {}
    if body.strip():
        readable = (yield from parse_document_in_steps(body, limits)).readable
        if not readable.startswith(b"{"):
            raise InvalidBody("The body must be a JSON object.")
        members = decode_members_or_empty(readable)
    members_of_operation = _convert_to_operation(call, person, device, members)
    operation = json_text.encode_members({name: raw for name, raw in members_of_operation.items() if raw})
    return (yield from _read_operations([(operation, operation)], limits, EventTimes(received_at)))


read_call = at_once(read_call_in_steps)


def read_operation_in_steps(body: bytes, received_at: int, limits: Limits) -> Steps[Envelope]:
    """Convert the operation of ``/api/v2/entity``. Raise InvalidBody."""
    return (yield from _read_operation(body, limits, EventTimes(received_at)))


read_operation = at_once(read_operation_in_steps)


def read_batch_in_steps(body: bytes, received_at: int, limits: Limits) -> Steps[Envelope]:
    """Convert the operations of ``/api/v2/batch``. Raise InvalidBody."""
    parsed = yield from parse_document_in_steps(body, limits)
    yield
    operations = parsed.elements(decode_members_or_empty(parsed.readable).get("batch", b""))
    return (yield from _read_operations(operations, limits, EventTimes(received_at)))


read_batch = at_once(read_batch_in_steps)


def _read_operation(body: bytes, limits: Limits, times: EventTimes) -> Steps[Envelope]:
    parsed = yield from parse_document_in_steps(body, limits)
    return (yield from _read_operations([(parsed.readable, parsed.sent)], limits, times))


reparse = at_once(_read_operation)
"""Convert an operation from quarantine, with its original times. Raise InvalidBody."""


def describe_error(rejection: Rejection) -> dict[str, str | int]:
    """Return a rejection in the error format of version 2's batch route."""
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
    """One operation: its fields, its identifiers, and the data that all its messages share."""

    members: Members
    action: str
    identifiers: Members
    shared: Members

    def message(self, kind: str, *people: Members, context: Members | None = None, **fields: bytes) -> Members:
        """Build a message of type ``kind`` for one customer.

        The customer has all identifiers of ``people``, or else those of the operation.
        """
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


def _read_operations(operations: list[tuple[bytes, bytes]], limits: Limits, times: EventTimes) -> Steps[Envelope]:
    builder = EnvelopeBuilder(limits, _FORM, times, len(operations))
    envelope = builder.build_envelope(None)
    envelope.rejects_each_place_once = True
    messages_count = repeated_bytes = 0
    for index, (raw, original) in enumerate(builder.reject_over_limit(operations)):
        yield
        members = decode_members_or_empty(raw)
        if not members:
            builder.add_raw_item(index, raw, original)
            continue
        operation = _parse_operation(members, raw, builder.default_time(index))
        kind = decode_text_or_none(members.get("type")) or "person"
        map_operation = _MAPPER_OF_TYPE.get(kind)
        if map_operation is None or not operation.action:
            builder.reject(
                index,
                RejectionCode.UNKNOWN_TYPE,
                original,
                f"the {'type is unknown' if map_operation is None else 'action is missing'}",
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
    """Map an identify. Ids among the attributes become identifiers.

    An email identifier is added to the attributes, unless they contain an email.
    """
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
    """Map a merge. A pair of user ids becomes an alias; any other pair becomes an identify, which links the two."""
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
    """Map the objects that a person joins or leaves; each is ``{"identifiers": {"object_type_id", "object_id"}}``."""
    messages = []
    for relation, leaves in _list_relations(operation):
        group = decode_members_or_empty(relation.get("identifiers", b""))
        traits = relation.get("relationship_attributes") or relation.get("attributes", b"")
        messages.append(_map_relation(operation, operation.identifiers, group, traits, leaves=leaves))
    return messages


def _map_object(operation: _Operation) -> list[Members]:
    """Map the people who join or leave an object; each is ``{"identifiers": {"id"}}``."""
    attributes = operation.members.get("attributes", b"")
    people = [(_parse_ids(relation.get("identifiers", b"")), leaves) for relation, leaves in _list_relations(operation)]
    people = people or [({}, operation.action in _LEAVE_ACTIONS)]
    return [
        _map_relation(operation, identifiers, operation.identifiers, attributes, leaves=leaves)
        for identifiers, leaves in people
    ]


def _list_relations(operation: _Operation) -> list[tuple[Members, bool]]:
    """Return the relationships of an operation, each with True if it ends.

    They are an array, or in version 1 an object ``{"action", "relationships": [..]}``.
    """
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
    """Return an upper bound of the bytes that are copied if each relationship becomes a message.

    An object's attributes are copied to each message; a person's are not.
    """
    unrepeated_names = ("cio_relationships", "attributes") if kind == "person" else ("cio_relationships",)
    bytes_repeated = sum(len(raw) for name, raw in operation.members.items() if name not in unrepeated_names)
    return bytes_repeated * len(_list_relations(operation))


def _map_relation(
    operation: _Operation, identifiers: Members, group: Members, traits: bytes, *, leaves: bool
) -> Members:
    """Map a relationship: joining an object becomes a group message, leaving it a track message."""
    if leaves:
        properties = build_object(object_type_id=group.get("object_type_id"), object_id=group.get("object_id"))
        event = encode_text(vendor_event_name(_FORM, "relationship_deleted"))
        return operation.message("track", identifiers, event=event, properties=properties)
    kind = build_object(groupType=group.get("object_type_id"))
    return operation.message("group", identifiers, groupId=group.get("object_id", b""), traits=traits, properties=kind)


def _map_delivery(operation: _Operation) -> list[Members]:
    """Map a report on a sent email or push; its recipient is an email address or a device."""
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
    """Return the identifiers that are present. The prefix of ``cio_id``, which only paths have, is removed."""
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
