"""Conversion of one Segment-shaped message: identities, name, channel, time and stored content. Pure.

Time follows Segment's rule: occurred_at = received_at - (sentAt - claimed), which removes the client's clock skew.
``claimed`` is ``originalTimestamp``, or else ``timestamp``: if both are present, ``timestamp`` is already corrected.
Without a readable sentAt, occurred_at is the claimed time. A historical import follows the same rule, because SDKs send
within a second of setting sentAt.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final

import msgspec

from app.config import Settings
from app.enrichment.channel import HINTS, lower_snake, sender_of
from app.errors import RejectionCode
from app.formats import json_text, timestamps
from app.formats.email_phone import REASONS, count_costly_chars
from app.formats.identifiers import identity_rules
from app.formats.segment_fields import (
    NAMES,
    TYPES,
    ContextView,
    Item,
    MessageRefused,
    as_id_text,
    encode_canonical_json,
    find_value,
    message_id_at_best,
    parse_contact,
    parse_context,
    parse_item,
)
from app.formats.web_context import WEB, WebEnricher
from app.touchpoint import SECOND, STRENGTH, Identity, Message, Peer, SourceView, Warning

_MEMBERS_OF_TYPE: Final = {
    "track": ("event",),
    "page": ("name", "category"),
    "screen": ("name", "category"),
    "group": ("groupId",),
    "alias": ("previousId",),
}
_EMPTY: Final = b"{}"
_RESERVED_KINDS: Final = frozenset({"previous_id"})
"""Names that the log uses for data that is not an identity, so an external id must not have them as its type."""

UNUSUAL_ADDRESS_CHARS_MAX: Final = 2_500
"""Maximum length of all different email addresses of one request together that need the library, in characters.

The library takes up to 0.03 ms for each character. The limit counts characters and not time, so that the same request
always has the same receipt.
"""

UNUSABLE: Final = {"email": "email_unusable", "phone": "phone_unusable"}
"""Identity kind -> code of the warning about an unusable value."""
ID_UNUSABLE: Final = "id_unusable"
"""Code of the warning about an unusable value of any other kind."""
_CONTACTS: Final = {"email": "email address", "phone": "phone number"}


def refuse_unreadable(raw: bytes, bytes_max: int) -> None:
    if json_text.is_marked(raw):
        raise MessageRefused(RejectionCode.INVALID_UTF8)
    if not raw.startswith(b"{"):
        raise MessageRefused(RejectionCode.NOT_AN_OBJECT)
    if len(raw) > bytes_max:
        raise MessageRefused(
            RejectionCode.MESSAGE_TOO_LARGE, f"the message has {len(raw)} bytes; the limit is {bytes_max}"
        )


def to_standalone(
    raw: bytes, message_type: str, message_id: str, shared_context: dict[str, bytes], sent_at: int | None
) -> bytes:
    """Return the message as JSON that needs no envelope: the envelope's data is copied into the message."""
    members = json_text.decode_members(raw)
    members |= {"type": msgspec.json.encode(message_type), "messageId": msgspec.json.encode(message_id)}
    if shared_context:
        own_context = members.get("context", _EMPTY)
        own_context = own_context if own_context.startswith(b"{") else _EMPTY
        members["context"] = json_text.add_missing(own_context, shared_context)
    if sent_at is not None and members.get("sentAt", b"null") == b"null":
        members["sentAt"] = b"%d" % sent_at
    return json_text.encode_members(members)


class MessageReader:
    """Converts the messages of one request, with shared data prepared once. It appends to ``warnings``.

    ``type_of_route`` is the message type of the route, if it has one. ``sent_at`` and ``context`` are from the
    envelope. ``peer`` is the sender of the request; None if the operator imports or replays it.
    """

    def __init__(
        self,
        source: SourceView,
        received_at: int,
        settings: Settings,
        type_of_route: str | None,
        sent_at: int | None,
        context: dict[str, bytes],
        peer: Peer | None = None,
    ) -> None:
        self.warnings: list[Warning] = []
        self._type_of_route = type_of_route
        self._sent_at = sent_at
        self._shared_context = context
        self._source = source
        self._received_at = received_at
        self._latest = received_at + settings.limits.future_seconds_max * SECOND
        self._limits = settings.limits
        self._message_bytes_max = settings.limits.message_bytes_max
        self._depth_levels_max = settings.limits.depth_levels_max
        self._ids = identity_rules(settings)
        self._unusual_addresses: set[str] = set()
        self._unusual_chars = 0
        self._web_enricher = WebEnricher(source, settings, peer)

    def read_message(self, index: int, raw: bytes) -> Message:
        """Convert one message. Raise MessageRefused; the checks are in the order of precedence of RejectionCode."""
        refuse_unreadable(raw, self._message_bytes_max)
        if json_text.is_deeper(raw, self._depth_levels_max):
            raise MessageRefused(RejectionCode.TOO_DEEP)
        fields, extra = parse_item(raw, self._type_of_route)
        content = _join_content(fields, extra)
        if json_text.may_hold_long_number(content) and json_text.holds_long_number(raw):
            raise MessageRefused(RejectionCode.NUMBER_OUT_OF_RANGE)
        message_type = _require_type(fields)
        properties = _require_object("properties", fields.properties)
        context = _require_object("context", fields.context)
        traits = _require_object("traits", fields.traits)
        message_id = self._check_id("messageId", fields.message_id)
        user_id = self._check_id("userId", fields.user_id)
        anonymous_id = self._check_id("anonymousId", fields.anonymous_id)
        group_id = self._check_id("groupId", fields.group_id)
        previous_id = self._check_id("previousId", fields.previous_id)
        name = self._event_name(message_type, fields.event)
        if message_type == "group" and group_id is None:
            raise MessageRefused(RejectionCode.MISSING_GROUP_ID)
        previous_id = self._check_previous_id(user_id, previous_id) if message_type == "alias" else None

        context = self._put_context(context, fields, extra)
        view = parse_context(context)
        message_id = message_id or _hash_id(raw, message_type)
        identities, unusable = self._identities(user_id, anonymous_id, message_type, traits, properties, view)
        if unusable:
            self._warn_unusable(index, message_id, unusable)
        sender = sender_of(_find_library_name(view), message_type, fields.channel)
        if sender.name == WEB and self._web_enricher.is_refused_bot(view, sender):
            raise self._refuse_bot(raw, message_id, fields)
        channel, context = self._web_enricher.enrich(message_type, context, view, properties, sender)
        occurred_at, sent_at, claimed = self._resolve_time(index, message_id, fields)
        return Message(
            type=message_type,
            message_id=message_id,
            source=self._source.key,
            occurred_at=occurred_at,
            received_at=self._received_at,
            identities=identities,
            channel=channel,
            name=name,
            properties=json_text.replace_nul(_build_properties(properties, message_type, fields, group_id, traits)),
            context=json_text.replace_nul(context),
            traits=_build_traits(traits, message_type, context),
            sent_at=sent_at,
            original_timestamp=claimed,
            previous_id=previous_id,
            trust=self._source.trust,
            vouched_id=self._find_vouched_id(identities),
            digest=_compute_digest(fields, content),
        )

    def _check_id(self, field: str, value: str | int | None) -> str | None:
        """Return an id as text, or None if it is absent. Junk ids are handled later, in :meth:`_identities`."""
        if value is None or value == "":
            return None
        text = value if isinstance(value, str) else str(value)
        if self._ids.is_invalid(text):
            raise MessageRefused(RejectionCode.INVALID_ID, f"{field}: {RejectionCode.INVALID_ID.meaning}")
        return text

    def _event_name(self, message_type: str, event: str | None) -> str | None:
        if message_type != "track":
            return NAMES.get(message_type)
        if not event or event.isspace():
            raise MessageRefused(RejectionCode.MISSING_EVENT)
        if len(event) > self._limits.event_chars_max or "\0" in event:
            raise MessageRefused(RejectionCode.EVENT_TOO_LONG)
        return event

    def _check_previous_id(self, user_id: str | None, previous_id: str | None) -> str | None:
        """Return the user id to join; None if both ids of the alias are equal, which browsers send by mistake."""
        current = self._ids.canonical("user_id", user_id or "")
        previous = self._ids.canonical("user_id", previous_id or "")
        if current is None or previous is None:
            raise MessageRefused(RejectionCode.MISSING_ALIAS_IDS)
        return None if previous == current else previous

    def _put_context(self, context: bytes, fields: Item, extra: dict[str, bytes]) -> bytes:
        """Return the context to store, with defaults from the envelope, and with fields that do not have a column."""
        additions: dict[str, bytes] = {}
        if fields.integrations:
            integrations = bytes(fields.integrations)
            if integrations != b"null" and integrations[1:-1].strip():
                additions["integrations"] = integrations
        extra = extra | _collect_leftovers(fields)
        if extra:
            additions["_extra"] = json_text.encode_members(extra)
        defaults = self._shared_context | additions
        return json_text.add_missing(context, defaults) if defaults else context

    def _identities(
        self,
        user_id: str | None,
        anonymous_id: str | None,
        message_type: str,
        traits: bytes,
        properties: bytes,
        view: ContextView,
    ) -> tuple[tuple[Identity, ...], Sequence[tuple[str, str]]]:
        """Return the identities, strongest first, and (kind, reason) of each unusable email address or phone number.

        Identities of equal strength keep their order in the message. Raise MessageRefused if there is no identity.
        """
        claims: list[tuple[str, Any]] = [("user_id", user_id), ("anonymous_id", anonymous_id)]
        contacts = [parse_contact(traits)] if message_type == "identify" and traits != _EMPTY else []
        if view.traits is not None:
            contacts.append(view.traits)
        if contacts:
            claims.append(("email", self._first_usable("email", [contact.email for contact in contacts])))
            claims.append(("phone", self._first_usable("phone", [contact.phone for contact in contacts])))
        for external in view.external_ids or ():
            claims.append((lower_snake(external.type) if isinstance(external.type, str) else "", external.id))
        for path, kind in self._source.identity_properties.items():
            claims.append((kind, find_value(properties, path)))

        identities: dict[Identity, None] = {}
        unusable: list[tuple[str, str]] = []
        for kind, claimed in claims:
            text = as_id_text(claimed)
            if not kind or text is None or kind in _RESERVED_KINDS:
                continue
            if (value := self._canonicalise(kind, text)) is not None:
                identities[Identity(kind, value)] = None
            elif (reason := self._ids.explain_invalid(kind, text)) is not None:
                unusable.append((kind, reason))
        if not identities:
            raise MessageRefused(RejectionCode.MISSING_IDENTITY, _describe_missing_identity(unusable))
        return tuple(sorted(identities, key=_rank_identity)), unusable

    def _find_vouched_id(self, identities: tuple[Identity, ...]) -> str | None:
        """Return the visitor's proven anonymous id if the message links it to the visitor's vouched user id."""
        visitor = self._source.visitor
        if visitor is None or identities[0] != Identity("user_id", visitor.user_id):
            return None
        return visitor.anonymous_id if Identity("anonymous_id", visitor.anonymous_id) in identities else None

    def _first_usable(self, kind: str, values: list[Any]) -> str | None:
        """Return the first usable value; if none is usable, the first value. Junk ids count as absent."""
        texts = [text for value in values if (text := as_id_text(value)) is not None]
        usable = (text for text in texts if self._canonicalise(kind, text) is not None)
        return next(usable, texts[0] if texts else None)

    def _canonicalise(self, kind: str, text: str) -> str | None:
        """Return the canonical form of an identity, or None. Raise MessageRefused if the request costs too much."""
        if kind == "email" and text not in self._unusual_addresses and (costly_chars := count_costly_chars(text)):
            self._unusual_chars += costly_chars
            if self._unusual_chars > UNUSUAL_ADDRESS_CHARS_MAX:
                detail = (
                    "the email addresses of the batch that are internationalised or unusual have more than "
                    f"{UNUSUAL_ADDRESS_CHARS_MAX} characters; send this message in another batch"
                )
                raise MessageRefused(RejectionCode.TOO_MANY_MESSAGES, detail)
            self._unusual_addresses.add(text)
        return self._ids.canonical(kind, text)

    def _warn_unusable(self, index: int, message_id: str, unusable: Sequence[tuple[str, str]]) -> None:
        for kind, reason in dict.fromkeys(unusable):
            detail = f"the {_CONTACTS.get(kind, kind)} cannot be used as an identity: {REASONS[reason]}"
            self.warnings.append(Warning(index, UNUSABLE.get(kind, ID_UNUSABLE), detail, message_id, reason))

    def _resolve_time(self, index: int, message_id: str, fields: Item) -> tuple[int, int | None, str | None]:
        """Return occurred_at, sent_at, and the claimed time as text."""
        sent_at = timestamps.parse_claimed(bytes(fields.sent_at))[1] if fields.sent_at else None
        if sent_at is None:
            sent_at = self._sent_at
        text, claimed = timestamps.parse_claimed(bytes(fields.original_timestamp))
        if text is None:
            text, claimed = timestamps.parse_claimed(bytes(fields.timestamp))
        if text is None:
            return self._received_at, sent_at, None
        if claimed is None:
            self._warn(
                index, message_id, "timestamp_unreadable", "the timestamp is unreadable; the time of receipt is used"
            )
            return self._received_at, sent_at, text
        occurred_at = claimed if sent_at is None else self._received_at - (sent_at - claimed)
        if occurred_at > self._latest:
            self._warn(
                index,
                message_id,
                "timestamp_future",
                "the timestamp is too far in the future; the time of receipt is used",
            )
            return self._received_at, sent_at, text
        if occurred_at < 0:
            self._warn(index, message_id, "timestamp_before_1970", "the timestamp is before 1970; 1970-01-01 is used")
            return 0, sent_at, text
        return occurred_at, sent_at, text

    def _refuse_bot(self, raw: bytes, message_id: str, fields: Item) -> MessageRefused:
        """Build the refusal of a bot's message, with an original that needs no envelope, so that it can be replayed."""
        original = to_standalone(raw, _require_type(fields), message_id, self._shared_context, self._sent_at)
        return MessageRefused(RejectionCode.BOT, original=original, is_quarantined=self._web_enricher.keeps_refused)

    def _warn(self, index: int, message_id: str, code: str, message: str) -> None:
        self.warnings.append(Warning(index, code, message, message_id))


def _describe_missing_identity(unusable: Sequence[tuple[str, str]]) -> str:
    """Return the text of a rejection because of a missing identity, with the reason for each unusable value."""
    details = [f"the {_CONTACTS.get(kind, kind)} is unusable: {REASONS[reason]}" for kind, reason in unusable]
    return "; ".join([RejectionCode.MISSING_IDENTITY.meaning, *details])


def _require_type(fields: Item) -> str:
    if fields.type not in TYPES:
        raise MessageRefused(RejectionCode.UNKNOWN_TYPE)
    return fields.type


def _require_object(name: str, raw: msgspec.Raw) -> bytes:
    value = bytes(raw)
    if value.startswith(b"{"):
        return value
    if value in (b"", b"null"):
        return _EMPTY
    raise MessageRefused(RejectionCode.INVALID_FIELD, f"`{name}` must be a JSON object")


def _join_content(fields: Item, extra: dict[str, bytes]) -> bytes:
    """Return the content of the message as sent, without ids, sentAt and other transport data."""
    return b"\x1f".join(
        (
            fields.properties,
            fields.context,
            fields.traits,
            fields.integrations,
            fields.name,
            fields.category,
            fields.timestamp,
            fields.original_timestamp,
            *extra.values(),
        )
    )


def _compute_digest(fields: Item, content: bytes) -> bytes:
    digest = blake2b(content, digest_size=8)
    ids = (fields.user_id, fields.anonymous_id, fields.group_id, fields.previous_id)
    digest.update(f"{fields.type}\0{fields.event}\0{ids}\0{fields.channel}".encode())
    return digest.digest()


def _hash_id(raw: bytes, message_type: str) -> str:
    return "hash-" + blake2b(encode_canonical_json(raw, message_type), digest_size=16).hexdigest()


def id_at_best(raw: bytes, chars_max: int) -> str | None:
    """Return the id of a text that may not be a valid message: its own id, or else the hash of its content."""
    if (own_id := message_id_at_best(raw, chars_max)) is not None:
        return own_id
    try:
        message_type = json_text.decode_text(json_text.decode_members(raw).get("type", b"null"))
        return _hash_id(raw, message_type) if message_type in TYPES else None
    except (msgspec.DecodeError, RecursionError, ArithmeticError, ValueError):
        return None


def _collect_leftovers(fields: Item) -> dict[str, bytes]:
    """Return the fields that belong to other message types. They are stored, so that no sent data is lost."""
    own_names = (*_MEMBERS_OF_TYPE.get(fields.type or "", ()), "channel" if fields.channel in HINTS else "")
    leftovers: dict[str, bytes] = {}
    texts = (
        ("event", fields.event),
        ("groupId", fields.group_id),
        ("previousId", fields.previous_id),
        ("channel", fields.channel),
    )
    for name, value in texts:
        if value is not None and name not in own_names:
            leftovers[name] = msgspec.json.encode(value)
    for name, raw in (("name", fields.name), ("category", fields.category)):
        if raw and name not in own_names:
            leftovers[name] = bytes(raw)
    return leftovers


def _build_properties(properties: bytes, message_type: str, fields: Item, group_id: str | None, traits: bytes) -> bytes:
    if message_type in NAMES:
        copied = {"name": bytes(fields.name), "category": bytes(fields.category)}
        copied = {key: raw for key, raw in copied.items() if raw not in (b"", b"null")}
        return json_text.add_missing(properties, copied) if copied else properties
    if message_type == "group":
        group = {"groupId": msgspec.json.encode(group_id), "traits": traits}
        return json_text.encode_members(json_text.decode_members(properties) | group)
    return properties


def _build_traits(traits: bytes, message_type: str, context: bytes) -> bytes | None:
    """Return the traits to store: those of the message, or for an identify those of its context.

    Traits of other message types are stored too, so that rules can read them.
    """
    if message_type == "group":
        return None
    if traits[1:-1].strip():
        return json_text.replace_nul(traits)
    if message_type != "identify":
        return None
    within = json_text.decode_members(context).get("traits", b"null")
    return json_text.replace_nul(within) if within.startswith(b"{") else None


def _find_library_name(view: ContextView) -> str | None:
    name = view.library.name if view.library is not None else None
    return name if isinstance(name, str) else None


def _rank_identity(identity: Identity) -> int:
    return STRENGTH.get(identity.kind, 3)
