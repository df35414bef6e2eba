"""Fields of Segment-shaped messages and how to parse them. Pure.

Two parsers have the same result. Typed structs parse the messages of nearly every SDK. If they fail (an unknown field,
 an id that is a number with a fraction, a wrong type), the message is parsed field by field. ``properties``,
``context`` and ``traits`` are never parsed as a whole; they stay JSON text as sent.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Final, TypeVar

import msgspec

from app.errors import RejectionCode
from app.formats import json_text

TYPES: Final = frozenset({"track", "identify", "page", "screen", "group", "alias"})

NAMES: Final = {"page": "page_viewed", "screen": "screen_viewed"}
"""Message type -> touchpoint name, for types whose touchpoints have a fixed name."""

_ABSENT: Final = msgspec.Raw(b"")
_Text = str | Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)] | None
T = TypeVar("T")


class MessageRefused(Exception):
    """Raised if a message cannot be stored. It stays inside this package, which converts it to a Rejection.

    ``original`` is the text for quarantine if it differs from the message as sent.
    """

    def __init__(
        self, code: RejectionCode, detail: str | None = None, original: bytes | None = None, is_quarantined: bool = True
    ) -> None:
        super().__init__(detail or code.meaning)
        self.code = code
        self.detail = detail or code.meaning
        self.original = original
        self.is_quarantined = is_quarantined


class Item(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """One message as sent. The fields from ``sent_at`` on are transport data and are not stored.

    ``visitor`` contains a secret.
    """

    type: str | None = None
    event: str | None = None
    message_id: _Text = None
    user_id: _Text = None
    anonymous_id: _Text = None
    group_id: _Text = None
    previous_id: _Text = None
    channel: str | None = None
    name: msgspec.Raw = _ABSENT
    category: msgspec.Raw = _ABSENT
    properties: msgspec.Raw = _ABSENT
    context: msgspec.Raw = _ABSENT
    traits: msgspec.Raw = _ABSENT
    integrations: msgspec.Raw = _ABSENT
    timestamp: msgspec.Raw = _ABSENT
    original_timestamp: msgspec.Raw = _ABSENT
    sent_at: msgspec.Raw = _ABSENT
    received_at: msgspec.Raw = _ABSENT
    write_key: msgspec.Raw = _ABSENT
    metadata: msgspec.Raw = msgspec.field(name="_metadata", default=_ABSENT)
    visitor: msgspec.Raw = _ABSENT


class Library(msgspec.Struct):
    name: Any = None


class Contact(msgspec.Struct):
    """The traits that identify a customer."""

    email: Any = None
    phone: Any = None


class ExternalId(msgspec.Struct):
    id: Any = None
    type: Any = None


class ContextView(msgspec.Struct, rename="camel"):
    """The fields of ``context`` that are parsed; the others are only stored.

    Only web messages use the fields that are raw JSON.
    """

    channel: Any = None
    library: Library | None = None
    traits: Contact | None = None
    external_ids: list[ExternalId] | None = None
    user_agent: Any = None
    page: msgspec.Raw = _ABSENT
    campaign: msgspec.Raw = _ABSENT
    click_ids: msgspec.Raw = _ABSENT
    referrer: msgspec.Raw = _ABSENT
    ip: msgspec.Raw = _ABSENT
    location: msgspec.Raw = _ABSENT
    acquisition: msgspec.Raw = _ABSENT
    client: msgspec.Raw = _ABSENT
    channel_rule: msgspec.Raw = msgspec.field(name="channel_rule", default=_ABSENT)


_ITEM = msgspec.json.Decoder(Item)
_CONTACT = msgspec.json.Decoder(Contact, float_hook=Decimal)
_CONTEXT = msgspec.json.Decoder(ContextView, float_hook=Decimal)
_ANY = msgspec.json.Decoder(float_hook=Decimal)
_CANONICAL = msgspec.json.Encoder(order="sorted", decimal_format="number")

_IDS: Final = {"message_id", "user_id", "anonymous_id", "group_id", "previous_id"}
_TEXTS: Final = {"type", "event", "channel"}
_FIELDS: Final = {field.encode_name: field.name for field in msgspec.structs.fields(Item)}
_LIBRARY = msgspec.json.Decoder(Library, float_hook=Decimal)
_TEXTS_OF_CONTEXT: Final = {
    field.name: field.encode_name for field in msgspec.structs.fields(ContextView) if field.type is msgspec.Raw
}
_TRANSPORT: Final = ("sentAt", "writeKey", "_metadata", "receivedAt", "visitor")


def parse_item(raw: bytes, type_of_route: str | None) -> tuple[Item, dict[str, bytes]]:
    """Return the known fields of one message, and its unknown fields. Raise MessageRefused.

    If the route has a message type, it replaces the type in the message.
    """
    try:
        fields = _ITEM.decode(raw)
    except msgspec.ValidationError:
        return _parse_item_by_field(raw, type_of_route)
    if type_of_route is not None:
        fields.type = type_of_route
    return fields, {}


def parse_context(raw: bytes) -> ContextView:
    """Parse a context. A field of an unexpected type counts as absent and does not affect the others."""
    try:
        return _CONTEXT.decode(raw)
    except msgspec.DecodeError:
        members = json_text.decode_members(raw)
    return ContextView(
        channel=_decode_or_none(_ANY, members.get("channel")),
        library=_decode_or_none(_LIBRARY, members.get("library")),
        traits=_decode_or_none(_CONTACT, members.get("traits")),
        external_ids=_parse_external_ids(_decode_or_none(_ANY, members.get("externalIds"))),
        user_agent=_decode_or_none(_ANY, members.get("userAgent")),
        **{field: msgspec.Raw(members[name]) for field, name in _TEXTS_OF_CONTEXT.items() if name in members},
    )


def parse_contact(raw: bytes) -> Contact:
    return _decode_or_none(_CONTACT, raw) or Contact()


def as_id_text(value: Any) -> str | None:
    """Return an id as text: a string, or a number as written; None for anything else, such as a boolean."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return str(value)
    return None


def find_value(properties: bytes, path: str) -> str | None:
    """Return the text or number at a dotted path inside ``properties``, as text."""
    value: Any = _ANY.decode(properties)
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return as_id_text(value)


def encode_canonical_json(raw: bytes, message_type: str) -> bytes:
    """Encode the content of a message in a canonical form: sorted keys, no spaces, no fields that change on a retry."""
    members: dict[str, Any] = _ANY.decode(raw)
    for name in _TRANSPORT:
        members.pop(name, None)
    return _CANONICAL.encode(members | {"type": message_type})


def message_id_at_best(raw: bytes, chars_max: int) -> str | None:
    """Return the message id of a text that may not be a valid message; None if it has no usable id."""
    try:
        value = as_id_text(_ANY.decode(json_text.decode_members(raw).get("messageId", b"null")))
    except (msgspec.DecodeError, RecursionError, ArithmeticError, ValueError):
        return None
    if not value or len(value) > chars_max or "\0" in value or json_text.is_marked(value.encode()):
        return None
    return value


def name_at_best(raw: bytes) -> str | None:
    """Return the touchpoint name of a text that may not be a valid message; for a vendor event, the vendor's name."""
    try:
        members = json_text.decode_members(raw)
        event = json_text.decode_text(members.get("event", b"null"))
        return event or NAMES.get(json_text.decode_text(members.get("type", b"null")) or "")
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None


def _parse_item_by_field(raw: bytes, type_of_route: str | None) -> tuple[Item, dict[str, bytes]]:
    if json_text.holds_long_number(raw):
        raise MessageRefused(RejectionCode.NUMBER_OUT_OF_RANGE)
    members = json_text.decode_members(raw)
    message_type = type_of_route or json_text.decode_text(members.get("type", b"null"))
    if message_type not in TYPES:
        raise MessageRefused(RejectionCode.UNKNOWN_TYPE)
    members.pop("type", None)
    fields = Item(type=message_type)
    extra: dict[str, bytes] = {}
    for name, value in members.items():
        field = _FIELDS.get(name)
        if field is None:
            extra[name] = value
        elif field in _IDS and value[:1] in b"-0123456789":
            setattr(fields, field, value.decode())
        elif field in _IDS or field in _TEXTS:
            setattr(fields, field, _require_text_or_null(name, value))
        else:
            setattr(fields, field, msgspec.Raw(value))
    return fields, extra


def _require_text_or_null(name: str, raw: bytes) -> str | None:
    value = json_text.decode_text(raw)
    if value is None and raw != b"null":
        raise MessageRefused(RejectionCode.INVALID_FIELD, f"`{name}` must be a string")
    return value


def _decode_or_none(decoder: msgspec.json.Decoder[T], raw: bytes | None) -> T | None:
    try:
        return None if raw is None else decoder.decode(raw)
    except msgspec.DecodeError:
        return None


def _parse_external_ids(values: Any) -> list[ExternalId]:
    objects = values if isinstance(values, list) else []
    return [ExternalId(value.get("id"), value.get("type")) for value in objects if isinstance(value, dict)]
