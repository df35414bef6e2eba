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

import msgspec

from app.config import Limits
from app.errors import Rejection, RejectionCode
from app.touchpoint import SECOND
from app.wire import instants, json_text
from app.wire.segment import Envelope

Members = dict[str, bytes]
"""Of a JSON object: each value still as text."""

ABSENT: Final = (b"", b"null", b'""')
_NUMBER_STARTS: Final = b"-0123456789"
_EMPTY: Final = b"{}"


_EARLIEST_CLOCK: Final = 1_000_000_000 * SECOND
"""2001. A smaller ``_`` is somebody's number against caches and no clock."""


class Writer:
    """Collects the messages of one request. ``moment`` is its time by the sender's clock where known, else by ours."""

    def __init__(self, limits: Limits, moment: int, count: int) -> None:
        self._limits = limits
        self._moment = moment
        self._count = count
        self._items: list[bytes] = []
        self._originals: list[bytes] = []
        self._rejections: list[Rejection] = []

    def put(self, message: Members, original: bytes) -> None:
        """``original`` is the event that it was made of; one event may make several messages."""
        self._items.append(json_text.from_members({name: raw for name, raw in message.items() if raw not in ABSENT}))
        self._originals.append(original)

    def put_as_it_is(self, raw: bytes, original: bytes) -> None:
        """What is no event at all: it is refused like any message that is none."""
        self._items.append(raw)
        self._originals.append(original)

    def refuse(self, index: int, code: RejectionCode, original: bytes, detail: str | None = None) -> None:
        self._rejections.append(Rejection(index, code, detail or code.meaning, None, original))

    def refuse_beyond(self, events: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The events within the limit of one batch."""
        many = self._limits.batch_messages_max
        for index in range(many, len(events)):
            self.refuse(index, RejectionCode.TOO_MANY_MESSAGES, events[index][1])
        return events[:many]

    def moment_of(self, index: int) -> bytes:
        """The time of an event that has none: a microsecond apart, so that those of one request keep their order."""
        return quoted(instants.rfc3339(max(self._moment - (self._count - 1 - index), 0)))

    def envelope(self, write_key: str | None, sent_at: int | None, context: Members | None = None) -> Envelope:
        """``context`` lies under that of each message."""
        return Envelope(
            write_key,
            self._items,
            self._originals,
            sent_at=sent_at,
            context=context or {},
            rejections=self._rejections,
        )


def clock_of(underscore: str | None) -> int | None:
    """A browser's clock when it sent the request: the query's ``_``, in ms."""
    claimed = instants.parse(underscore) if underscore else None
    return claimed if claimed is not None and claimed >= _EARLIEST_CLOCK else None


def members_of(raw: bytes) -> Members:
    """The members of an object; none for any other JSON."""
    return json_text.members(raw) if raw.startswith(b"{") else {}


def text_of(raw: bytes | None) -> str | None:
    """Text, or a number as it was written; None for anything else and for nothing."""
    if not raw:
        return None
    if raw[:1] in _NUMBER_STARTS:
        return raw.decode()
    return json_text.text(raw) or None


def quoted(text: str) -> bytes:
    return msgspec.json.encode(text)


def hash_id(*parts: bytes) -> str:
    return "hash-" + blake2b(b"\0".join(parts), digest_size=16).hexdigest()


def short_hash(*parts: bytes) -> str:
    return blake2b(b"\0".join(parts), digest_size=8).hexdigest()


def objects(**members: bytes | None) -> bytes:
    """A JSON object of what there is; empty text if there is nothing."""
    present = {name: raw for name, raw in members.items() if raw is not None and raw not in (*ABSENT, _EMPTY)}
    return json_text.from_members(present) if present else b""


def without(members: Members, *names: str) -> bytes:
    """The object without those names, and without nulls, which say the same as absence."""
    return json_text.from_members({name: raw for name, raw in members.items() if name not in names and raw != b"null"})


def page_of(
    *, url: bytes | None, referrer: bytes | None, title: bytes | None = None, path: bytes | None = None,
    search: bytes | None = None,
) -> bytes:  # fmt: skip
    """A Segment ``context.page``; a referrer of ``$direct`` is none."""
    referrer = None if referrer == b'"$direct"' else referrer
    return objects(url=url, referrer=referrer, title=title, path=path, search=search)


def traits_of(properties: bytes | None, unset: bytes | None, names: dict[str, str]) -> bytes:
    """Traits to set, and null for those to remove; ``names`` are a vendor's reserved ones in Segment's words."""
    traits = {names.get(name, name): raw for name, raw in members_of(properties or b"").items()}
    for name in _names(unset or b""):
        traits[names.get(name, name)] = b"null"
    return json_text.from_members(traits) if traits else b""


def _names(raw: bytes) -> list[str]:
    if not raw.startswith(b"["):
        return [name] if (name := json_text.text(raw)) else []
    return [name for each in msgspec.json.decode(raw, type=list[msgspec.Raw]) if (name := json_text.text(bytes(each)))]
