"""Segment format: converts bodies of Segment, RudderStack, Jitsu and Segue's browser library to messages. Pure.

:func:`read` splits a body into items, and :func:`normalise` converts each item to a message. An unreadable body raises
an exception. An invalid item becomes a Rejection and does not affect the other items. A large body takes up to a tenth
of a second, so the functions that end with ``_in_steps`` let the caller do something else in between.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

import msgspec

from app.config import Limits, Settings
from app.errors import InvalidBody, Rejection, RejectionCode
from app.formats import json_text, timestamps
from app.formats.segment_fields import MessageRefused, message_id_at_best
from app.formats.segment_message import MessageReader, refuse_unreadable, to_standalone
from app.formats.steps import Steps, at_once
from app.touchpoint import Message, Peer, SourceView, Warning

TYPE_OF_ROUTE: Final[dict[str, str | None]] = {
    **{name: name for name in ("track", "identify", "page", "screen", "group", "alias")},
    **{"t": "track", "i": "identify", "p": "page", "s": "screen", "g": "group", "a": "alias"},
    **{"batch": None, "b": None, "import": None},
}
"""Route -> message type; None if each item has its own ``type``."""

ITEMS_MAX: Final = 5_000
"""Maximum number of items; a larger body is refused as a whole, because a rejection per item would cost too much."""

_ABSENT: Final = msgspec.Raw(b"")


class Envelope(msgspec.Struct):
    """A body split into items. ``items`` are JSON texts that can be parsed; ``originals`` are the texts as sent."""

    write_key: str | None
    items: list[bytes]
    originals: list[bytes]
    sent_at: int | None = None
    context: dict[str, bytes] = {}
    type_of_route: str | None = None
    rejections: list[Rejection] = []
    visitor: bytes = b""
    """The visitor claim of a web page, as unparsed JSON. It contains a secret and is never stored with a message."""
    erasures: list[tuple[str, Any]] = []
    """(kind, value) of customers whose erasure is requested; the values are as sent."""
    form: str = ""
    """Format code of the originals (see :mod:`app.quarantine.reparse`); empty for Segment-shaped messages."""
    places: list[int] = []
    """For each item, the index of its event in the body; empty if item n is event n."""
    moment: int | None = None
    """Time in microseconds of the first event if it does not have a time.

    For each further event, one microsecond is added.
    """
    rejects_each_place_once: bool = False
    """True if one event can become many items, one per customer. Then only its first rejection is reported."""

    def place_of(self, index: int) -> int:
        return self.places[index] if self.places else index

    def form_of(self, place: int) -> str:
        """Return the format code of one event with the time that was assigned to it, which a replay uses again."""
        return self.form if self.moment is None else f"{self.form}{self.moment + place}"


class Parsed(msgspec.Struct):
    """The messages of a request with their index in the batch, the rejections, and the warnings."""

    messages: list[tuple[int, Message]] = []
    rejections: list[Rejection] = []
    warnings: list[Warning] = []
    received_at: int = 0
    """Time of receipt of the request, in microseconds since the epoch."""
    raws: list[bytes] = []
    """For each of ``messages``, the item of the envelope from which it was parsed."""
    envelope: Envelope | None = None


class _Batch(msgspec.Struct, rename="camel"):
    batch: list[msgspec.Raw]
    write_key: msgspec.Raw = _ABSENT
    sent_at: msgspec.Raw = _ABSENT
    context: msgspec.Raw = _ABSENT
    integrations: msgspec.Raw = _ABSENT
    visitor: msgspec.Raw = _ABSENT


class _Single(msgspec.Struct, rename="camel"):
    write_key: msgspec.Raw = _ABSENT


_BATCH = msgspec.json.Decoder(_Batch)
_SINGLE = msgspec.json.Decoder(_Single)


def read_in_steps(body: bytes, route: str, limits: Limits) -> Steps[Envelope]:
    """Split a decompressed body into items. ``route`` is a key of TYPE_OF_ROUTE. Raise InvalidBody."""
    type_of_route = TYPE_OF_ROUTE[route]
    json_text.refuse_dense(body)
    yield
    sent = json_text.as_utf8(body)  # Bytes that are not UTF-8 are marked, and normalise() rejects their messages.
    yield
    readable = yield from json_text.replace_lone_surrogates_in_steps(sent)
    try:
        return (yield from _build_envelope(readable, sent, type_of_route, limits))
    except RecursionError:
        envelope_levels = 0 if type_of_route else 2
        depth_max = limits.depth_levels_max + envelope_levels
        readable = yield from json_text.truncate_depth_in_steps(readable, depth_max)
    try:
        return (yield from _build_envelope(readable, sent, type_of_route, limits))
    except RecursionError:
        raise InvalidBody("The body is nested too deeply.") from None


read = at_once(read_in_steps)


def read_write_key_in_steps(body: bytes, limits: Limits) -> Steps[str | None]:
    """Return the write key of a decompressed body; None if the body is not JSON or has no key.

    The parser skips everything else, so this costs a few milliseconds. Raise InvalidBody if the body is dense.
    """
    json_text.refuse_dense(body)
    readable = yield from json_text.replace_lone_surrogates_in_steps(body.removeprefix(b"\xef\xbb\xbf"))
    try:
        return _decode_write_key(_SINGLE.decode(readable).write_key)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    except RecursionError:
        readable = yield from json_text.truncate_depth_in_steps(readable, limits.depth_levels_max)
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _decode_write_key(_SINGLE.decode(readable).write_key)
    return None


def normalise_in_steps(
    envelope: Envelope, source: SourceView, received_at: int, settings: Settings, peer: Peer | None = None
) -> Steps[Parsed]:
    """Convert each item to a Message or a Rejection. ``received_at`` is in microseconds since the epoch.

    ``peer`` is the sender of the request; None if the operator imports or replays messages.
    """
    reader = MessageReader(
        source, received_at, settings, envelope.type_of_route, envelope.sent_at, envelope.context, peer
    )
    messages: list[tuple[int, Message]] = []
    raws: list[bytes] = []
    rejections: list[Rejection] = []
    for index, raw in enumerate(envelope.items):
        yield
        place = envelope.place_of(index)
        try:
            messages.append((place, reader.read_message(place, raw)))
            raws.append(raw)
        except MessageRefused as refusal:
            original, form = envelope.originals[index], envelope.form_of(place)
            rejections.append(_build_rejection(place, raw, original, refusal, settings.limits, form))
    rejections += envelope.rejections
    if envelope.rejects_each_place_once:
        rejections = list({rejection.index: rejection for rejection in reversed(rejections)}.values())
    return Parsed(messages, rejections, reader.warnings, received_at, raws, envelope)


normalise = at_once(normalise_in_steps)


def standalone_message(parsed: Parsed, position: int) -> bytes:
    """Return the original of one message as a Segment-shaped message that needs no envelope, for quarantine."""
    envelope = parsed.envelope
    assert envelope is not None
    raw, (_, message) = parsed.raws[position], parsed.messages[position]
    original = to_standalone(raw, message.type, message.message_id, envelope.context, envelope.sent_at)
    return _drop_visitor(original, raw)


def _build_envelope(readable: bytes, sent: bytes, type_of_route: str | None, limits: Limits) -> Steps[Envelope]:
    if not readable.startswith(b"{"):
        raise InvalidBody("The body must be a JSON object.")
    try:
        if type_of_route is not None:
            write_key = _SINGLE.decode(readable).write_key
            return Envelope(
                _decode_write_key(write_key), [readable], [json_text.unmark(sent)], type_of_route=type_of_route
            )
        batch = _BATCH.decode(readable)
    except msgspec.ValidationError as error:
        raise InvalidBody(f"The body has the wrong shape: {error}.") from None
    except msgspec.DecodeError as error:
        raise json_text.refuse_json(readable, error) from None
    if len(batch.batch) > ITEMS_MAX:
        raise InvalidBody(f"The batch has {len(batch.batch)} items; send at most {ITEMS_MAX} in one request.")
    yield
    items = [bytes(raw) for raw in batch.batch]
    originals = items if readable is sent else json_text.find_originals(items, readable, sent)
    yield
    if json_text.is_marked(sent):
        originals = [json_text.unmark(original) for original in originals]
    messages_max = limits.batch_messages_max
    rejections: list[Rejection] = []
    for index in range(messages_max, len(items)):
        yield
        rejections.append(_reject_over_limit(index, items[index], originals[index], limits))
    context = _collect_shared_context(bytes(batch.context), bytes(batch.integrations), limits)
    _refuse_expensive_context(context, min(len(items), messages_max), limits)
    return Envelope(
        _decode_write_key(batch.write_key),
        items[:messages_max],
        originals[:messages_max],
        sent_at=timestamps.parse_claimed(bytes(batch.sent_at))[1],
        context=context,
        rejections=rejections,
        visitor=bytes(batch.visitor),
    )


def _collect_shared_context(context: bytes, integrations: bytes, limits: Limits) -> dict[str, bytes]:
    """Return the fields of the envelope that are defaults for the context of each item."""
    shared: dict[str, bytes] = {}
    for name, raw in (("context", context), ("integrations", integrations)):
        if raw in (b"", b"null"):
            continue
        too_much = (
            len(raw) > limits.message_bytes_max
            or json_text.is_deeper(raw, limits.depth_levels_max)
            or json_text.holds_long_number(raw)
        )
        if too_much or not raw.startswith(b"{"):
            raise InvalidBody(f"`{name}` of the batch must be a JSON object within the limits of a message.")
        if json_text.is_marked(raw):
            raise InvalidBody(f"`{name}` of the batch is not UTF-8.")
        members = json_text.decode_members(raw)
        shared |= members if name == "context" else ({"integrations": raw} if members else {})
    return shared


def _refuse_expensive_context(context: dict[str, bytes], messages: int, limits: Limits) -> None:
    """Raise InvalidBody if the copies of the shared context, one in each message, need too much memory."""
    size = messages * sum(len(name) + len(raw) for name, raw in context.items())
    if size > limits.inflated_bytes_max:
        raise InvalidBody(
            f"`context` and `integrations` of the batch need {size} bytes in all messages together; the limit is "
            f"{limits.inflated_bytes_max}. Send fewer messages in one request, or a smaller context."
        )


def _reject_over_limit(index: int, raw: bytes, original: bytes, limits: Limits) -> Rejection:
    try:
        refuse_unreadable(raw, limits.message_bytes_max)
        raise MessageRefused(RejectionCode.TOO_MANY_MESSAGES)
    except MessageRefused as refusal:
        return _build_rejection(index, raw, original, refusal, limits)


def _build_rejection(
    index: int, raw: bytes, original: bytes, refusal: MessageRefused, limits: Limits, form: str = ""
) -> Rejection:
    """Build a rejection. If the refusal contains an original, which is Segment-shaped, it replaces ``original``."""
    message_id = message_id_at_best(raw, limits.id_chars_max)
    if refusal.original is not None:
        original, form = refusal.original, ""
    original = _drop_visitor(original, raw)
    return Rejection(index, refusal.code, refusal.detail, message_id, original, refusal.is_quarantined, form)


def _drop_visitor(original: bytes, readable: bytes) -> bytes:
    """Remove ``visitor``, which contains a secret. If the original cannot be parsed, use the readable text."""
    if b'"visitor"' not in original:
        return original
    for raw in (original, readable):
        with suppress(msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            members = json_text.decode_members(raw)
            if members.pop("visitor", None) is None:
                return original
            return json_text.unmark(json_text.encode_members(members))
    return original


def _decode_write_key(raw: msgspec.Raw) -> str | None:
    return json_text.decode_text(bytes(raw)) or None
