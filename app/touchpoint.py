"""What a message means to us, whoever sent it and in whatever format. Pure.

Instants are integers: microseconds since 1970-01-01T00:00:00Z. They are exact, compare fast and have one
meaning; text and ``timestamptz`` exist only at the edges.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import Final, Literal

import msgspec

SECOND: Final = 1_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
WEEK: Final = 7 * DAY

Order = tuple[int, str, str]
"""(occurred_at, message id, source key): the one order of everything; text by code point."""

STRENGTH: Final = {"user_id": 0, "email": 1, "phone": 2, "anonymous_id": 4}
"""Rank of an identity kind, strongest first; every other kind is a tool's own id and ranks 3."""


class Identity(msgspec.Struct, gc=False, frozen=True, order=True):
    """One (kind, value) pair, value already in canonical form."""

    kind: str
    value: str

    @property
    def strength(self) -> int:
        return STRENGTH.get(self.kind, 3)

    @property
    def id(self) -> bytes:
        """16 bytes that follow from kind and value alone, so that two workers agree without asking."""
        return derive_identity_id(self.kind, self.value)

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"


@lru_cache(maxsize=20_000)
def derive_identity_id(kind: str, value: str) -> bytes:
    return blake2b(f"{kind}\0{value}".encode(), digest_size=16).digest()


class Message(msgspec.Struct, gc=False, frozen=True):
    """One accepted message. Only track, page and screen are touchpoints; the others have no ``name``.

    ``properties``, ``context`` and ``traits`` are JSON objects as text (UTF-8 bytes), free of NUL and lone
    surrogates; they are parsed only where a rule reads them. ``identities`` are strongest first, never empty.
    """

    type: str
    message_id: str
    source: str
    occurred_at: int
    received_at: int
    identities: tuple[Identity, ...]
    channel: str
    name: str | None = None
    properties: bytes = b"{}"
    context: bytes = b"{}"
    traits: bytes | None = None
    sent_at: int | None = None
    original_timestamp: str | None = None
    previous_id: str | None = None
    digest: bytes = b""
    """8 bytes of what the client said, envelope and sentAt left out: tells a retry from a differing twin."""

    @property
    def order(self) -> Order:
        return (self.occurred_at, self.message_id, self.source)

    @property
    def key(self) -> bytes:
        """16-byte key of the dedupe ledger."""
        return blake2b(f"{self.source}\0{self.message_id}".encode(), digest_size=16).digest()


class Warning(msgspec.Struct, frozen=True):
    """A message that was stored, but not as sent: a clamped or unreadable timestamp, an address that is none.

    ``reason`` is a word of ours where the code has several.
    """

    index: int
    code: str
    message: str
    message_id: str | None = None
    reason: str = ""


class Peer(msgspec.Struct, frozen=True):
    """Who is at the other end of a connection. ``country`` is an ISO 3166 code, where there is a database of them."""

    address: str | None = None
    user_agent: str | None = None
    country: str | None = None


BotPolicy = Literal["keep", "quarantine", "drop"]
"""What becomes of messages that a bot's browser sends."""


class SourceView(msgspec.Struct, frozen=True):
    """What reading a message needs to know of its source.

    ``identity_properties`` maps the dotted path of an event property to the identity kind that it holds. ``bots`` says
    what becomes of messages that a bot's browser sends: ``keep``, ``quarantine`` or ``drop``.
    """

    key: str
    default_channel: str | None = None
    identity_properties: dict[str, str] = {}
    bots: BotPolicy = "quarantine"
