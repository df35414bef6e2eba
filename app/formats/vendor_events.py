"""Shared conversion of vendor events to Segment-shaped messages. Pure.

A vendor event is rewritten, not interpreted: its values stay JSON text as sent. Limits, identities, time and channel
are then handled as for every message. The original event is kept beside the message, for quarantine.

**Ids.** An event keeps the vendor's id, so that a retry is a duplicate. An event without an id gets a hash of its
content. If it has no time either, the time of the request is part of the hash, so the event counts each time it
arrives, as its vendor counts it.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final
from urllib.parse import urlencode

import msgspec

from app.config import Limits
from app.errors import Rejection, RejectionCode
from app.formats import json_text, timestamps
from app.formats.segment import Envelope
from app.touchpoint import SECOND

Members = dict[str, bytes]
"""Fields of a JSON object: name -> value as JSON text."""

NATIVE_FORM: Final = ""
"""Format code of an original that is already a Segment-shaped message."""
ABSENT: Final = (b"", b"null", b'""')
_NUMBER_STARTS: Final = b"-0123456789"
_EMPTY: Final = b"{}"


_EARLIEST_CLOCK: Final = 1_000_000_000 * SECOND
"""Smallest value of the query parameter ``_`` that is a clock: the year 2001, in microseconds.

A smaller value is a random number that prevents caching.
"""


class EventTimes(msgspec.Struct, frozen=True):
    """Times of a request in microseconds. A replay from quarantine uses the original times instead of its own."""

    received_at: int
    sent_at: int | None = None
    """Time at which the request was sent, by the sender's clock; None if the request does not contain it."""
    moment: int | None = None
    """For a replay: the time that was assigned to an event without a time when it first arrived."""


class EnvelopeBuilder:
    """Collects the messages of one request that has ``count`` events.

    ``form`` is the format code with which :mod:`app.quarantine.reparse` finds the parser of a rejected event.
    """

    def __init__(self, limits: Limits, form: str, times: EventTimes, count: int, **request_facts: str) -> None:
        """Prepare the envelope. ``request_facts`` are further data of the request that a replay needs."""
        self._limits = limits
        last_at = times.received_at if times.sent_at is None else times.sent_at
        self._first = max(last_at - max(count - 1, 0) if times.moment is None else times.moment, 0)
        if times.sent_at is not None:
            request_facts["sent"] = str(times.sent_at)
        self._envelope = Envelope(None, [], [], sent_at=times.sent_at)
        if form != NATIVE_FORM:
            self._envelope.form = f"{form}?{urlencode({**request_facts, 'moment': ''})}"
            self._envelope.moment = self._first

    def add_message(self, place: int, message: Members, original: bytes) -> None:
        """Add a message for ``original``, the event at index ``place``. One event can become several messages."""
        present = {name: raw for name, raw in message.items() if raw not in ABSENT}
        self.add_raw_item(place, json_text.encode_members(present), original)

    def add_raw_item(self, place: int, raw: bytes, original: bytes) -> None:
        """Add an item as it is; if it is not an event, it is rejected later like any invalid message."""
        self._envelope.items.append(raw)
        self._envelope.originals.append(json_text.unmark(original))
        self._envelope.places.append(place)

    def reject(self, place: int, code: RejectionCode, original: bytes, detail: str | None = None) -> None:
        form, original = self._envelope.form_of(place), json_text.unmark(original)
        self._envelope.rejections.append(Rejection(place, code, detail or code.meaning, None, original, form=form))

    def reject_over_limit(self, events: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Reject the events beyond the limit of one batch, and return the others."""
        messages_max = self._limits.batch_messages_max
        for index in range(messages_max, len(events)):
            self.reject(index, RejectionCode.TOO_MANY_MESSAGES, events[index][1])
        return events[:messages_max]

    def default_time(self, index: int) -> bytes:
        """Return the time for an event that has no time. One microsecond per index keeps the events in order."""
        return encode_text(timestamps.rfc3339(self._first + index))

    def build_envelope(self, write_key: str | None, context: Members | None = None) -> Envelope:
        """Return the envelope. ``context`` contains default fields for the context of each message."""
        self._envelope.write_key = write_key
        self._envelope.context = context or {}
        return self._envelope


def parse_browser_clock(underscore: str | None) -> int | None:
    """Return the browser's clock when it sent the request, from the query parameter ``_`` in ms."""
    claimed = timestamps.parse(underscore) if underscore else None
    return claimed if claimed is not None and claimed >= _EARLIEST_CLOCK else None


def decode_members_or_empty(raw: bytes) -> Members:
    """Return the fields of a JSON object; an empty dict for any other JSON."""
    return json_text.decode_members(raw) if raw.startswith(b"{") else {}


def decode_text_or_none(raw: bytes | None) -> str | None:
    """Return a JSON string's content, or a number as written; None if empty, absent or anything else."""
    if not raw:
        return None
    if raw[:1] in _NUMBER_STARTS:
        return raw.decode()
    return json_text.decode_text(raw) or None


def encode_text(text: str) -> bytes:
    return msgspec.json.encode(text)


def hash_id(*parts: bytes) -> str:
    return "hash-" + blake2b(b"\0".join(parts), digest_size=16).hexdigest()


def compute_short_hash(*parts: bytes) -> str:
    return blake2b(b"\0".join(parts), digest_size=8).hexdigest()


def build_object(**members: bytes | None) -> bytes:
    """Return a JSON object of the fields that are present; an empty text if all are absent."""
    present = {name: raw for name, raw in members.items() if raw is not None and raw not in (*ABSENT, _EMPTY)}
    return json_text.encode_members(present) if present else b""


def encode_object_without(members: Members, *names: str) -> bytes:
    """Return the JSON object without the fields ``names``. Nulls are removed too, because they mean absence."""
    return json_text.encode_members(
        {name: raw for name, raw in members.items() if name not in names and raw != b"null"}
    )


def build_page(
    *, url: bytes | None, referrer: bytes | None, title: bytes | None = None, path: bytes | None = None,
    search: bytes | None = None,
) -> bytes:  # fmt: skip
    """Build Segment's ``context.page``; the referrer ``$direct`` counts as absent."""
    referrer = None if referrer == b'"$direct"' else referrer
    return build_object(url=url, referrer=referrer, title=title, path=path, search=search)


def build_traits(properties: bytes | None, unset: bytes | None, names: dict[str, str]) -> bytes:
    """Return the traits to set, with null for those to remove.

    ``names`` maps a vendor's reserved names to Segment's names.
    """
    traits = {names.get(name, name): raw for name, raw in decode_members_or_empty(properties or b"").items()}
    for name in _parse_names(unset or b""):
        traits[names.get(name, name)] = b"null"
    return json_text.encode_members(traits) if traits else b""


def _parse_names(raw: bytes) -> list[str]:
    if not raw.startswith(b"["):
        return [name] if (name := json_text.decode_text(raw)) else []
    return [
        name
        for element in msgspec.json.decode(raw, type=list[msgspec.Raw])
        if (name := json_text.decode_text(bytes(element)))
    ]
