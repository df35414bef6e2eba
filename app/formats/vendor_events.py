"""What foreign events have in common once they become Segment-shaped messages. Pure.

A foreign event is rewritten, not interpreted: its values stay the JSON text that was sent, and limits, identities,
time and channel are then those of every message. The event itself stays beside it, for quarantine.

**Ids.** An event that carries the vendor's own id keeps it, so that a retry is a duplicate. One without gets a hash of
what it says. One that has no time either counts each time it arrives, as its vendor counts it: its time, that of the
request, is part of what it says.
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
"""Of a JSON object: each value still as text."""

NATIVE_FORM: Final = ""
"""The form of originals that are messages of ours."""
ABSENT: Final = (b"", b"null", b'""')
_NUMBER_STARTS: Final = b"-0123456789"
_EMPTY: Final = b"{}"


_EARLIEST_CLOCK: Final = 1_000_000_000 * SECOND
"""2001. A smaller ``_`` is somebody's number against caches and no clock."""


class EventTimes(msgspec.Struct, frozen=True):
    """The times around an event, in microseconds. A replay reads it as of these, and not as of its own."""

    received_at: int
    sent_at: int | None = None
    """By the sender's clock, where the request says it."""
    moment: int | None = None
    """When an event happened that does not say so, where that was found before: it is replayed."""


class EnvelopeBuilder:
    """Collects the messages of one request of ``count`` events.

    ``form`` says which reader of :mod:`app.quarantine.reparse` takes an event that is refused.
    """

    def __init__(self, limits: Limits, form: str, times: EventTimes, count: int, **request_facts: str) -> None:
        """``request_facts``: what else of the request a replay must know."""
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
        """``original`` is the event at ``place`` that it was made of; one event may make several messages."""
        present = {name: raw for name, raw in message.items() if raw not in ABSENT}
        self.add_raw_item(place, json_text.encode_members(present), original)

    def add_raw_item(self, place: int, raw: bytes, original: bytes) -> None:
        """What is no event at all: it is refused like any message that is none."""
        self._envelope.items.append(raw)
        self._envelope.originals.append(original)
        self._envelope.places.append(place)

    def reject(self, place: int, code: RejectionCode, original: bytes, detail: str | None = None) -> None:
        form = self._envelope.form_of(place)
        self._envelope.rejections.append(Rejection(place, code, detail or code.meaning, None, original, form=form))

    def reject_over_limit(self, events: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The events within the limit of one batch."""
        messages_max = self._limits.batch_messages_max
        for index in range(messages_max, len(events)):
            self.reject(index, RejectionCode.TOO_MANY_MESSAGES, events[index][1])
        return events[:messages_max]

    def default_time(self, index: int) -> bytes:
        """The time of an event that has none: a microsecond apart, so that those of one request keep their order."""
        return encode_text(timestamps.rfc3339(self._first + index))

    def build_envelope(self, write_key: str | None, context: Members | None = None) -> Envelope:
        """``context`` lies under that of each message."""
        self._envelope.write_key = write_key
        self._envelope.context = context or {}
        return self._envelope


def parse_browser_clock(underscore: str | None) -> int | None:
    """A browser's clock when it sent the request: the query's ``_``, in ms."""
    claimed = timestamps.parse(underscore) if underscore else None
    return claimed if claimed is not None and claimed >= _EARLIEST_CLOCK else None


def decode_members_or_empty(raw: bytes) -> Members:
    """The members of an object; none for any other JSON."""
    return json_text.decode_members(raw) if raw.startswith(b"{") else {}


def decode_text_or_none(raw: bytes | None) -> str | None:
    """Text, or a number as it was written; None for anything else and for nothing."""
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
    """A JSON object of what there is; empty text if there is nothing."""
    present = {name: raw for name, raw in members.items() if raw is not None and raw not in (*ABSENT, _EMPTY)}
    return json_text.encode_members(present) if present else b""


def encode_object_without(members: Members, *names: str) -> bytes:
    """The object without those names, and without nulls, which say the same as absence."""
    return json_text.encode_members(
        {name: raw for name, raw in members.items() if name not in names and raw != b"null"}
    )


def build_page(
    *, url: bytes | None, referrer: bytes | None, title: bytes | None = None, path: bytes | None = None,
    search: bytes | None = None,
) -> bytes:  # fmt: skip
    """A Segment ``context.page``; a referrer of ``$direct`` is none."""
    referrer = None if referrer == b'"$direct"' else referrer
    return build_object(url=url, referrer=referrer, title=title, path=path, search=search)


def build_traits(properties: bytes | None, unset: bytes | None, names: dict[str, str]) -> bytes:
    """Traits to set, and null for those to remove; ``names`` are a vendor's reserved ones in Segment's words."""
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
