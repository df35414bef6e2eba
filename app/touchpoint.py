"""Data types of messages, independent of source and format. Pure.

Instants are integers: microseconds since 1970-01-01T00:00:00Z. They are exact, fast to compare and unambiguous. Text
and ``timestamptz`` are used only at the boundaries of the system.
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
"""Total order of messages: (occurred_at, message id, source key), with text compared by code point."""

LinkOrder = tuple[int, int, str, str]
"""Order of links: (0 if vouched for, else 1; instant; message id; source key). The smallest takes precedence."""

Trust = Literal["public", "alias", "server"]
"""Trust in the identities that a sender claims.

``public`` is a write key that every visitor can read in a page. ``alias`` is a public key that may also join two user
ids. ``server`` is a sender that the operator controls: a server key, a verified webhook or an import.
"""

STRENGTH: Final = {"user_id": 0, "email": 1, "phone": 2, "anonymous_id": 4}
"""Identity kind -> rank, strongest first. Every other kind is an id of a tool and has rank 3."""


class Identity(msgspec.Struct, gc=False, frozen=True, order=True):
    """One identity of a customer: its kind, and its value in canonical form."""

    kind: str
    value: str

    @property
    def strength(self) -> int:
        return STRENGTH.get(self.kind, 3)

    @property
    def id(self) -> bytes:
        """Id of 16 bytes, derived from kind and value only, so that all workers compute the same id."""
        return derive_identity_id(self.kind, self.value)

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"


@lru_cache(maxsize=4_096)
def derive_identity_id(kind: str, value: str) -> bytes:
    return blake2b(f"{kind}\0{value}".encode(), digest_size=16).digest()


class Message(msgspec.Struct, gc=False, frozen=True):
    """One accepted message. Only track, page and screen are touchpoints; the others have no ``name``.

    ``properties``, ``context`` and ``traits`` are JSON objects as text (UTF-8 bytes), without NUL and lone surrogates.
    They are parsed only if a rule reads them. ``identities`` are strongest first, and never empty.
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
    trust: Trust = "public"
    vouched_id: str | None = None
    """Anonymous id that the visitor has proven, while the site's server vouches for the user id of the message."""
    digest: bytes = b""
    """8-byte hash of the content, excluding the envelope and sentAt.

    Of two messages with one id, it distinguishes a retry (same content) from a conflicting twin (different content).
    """

    @property
    def order(self) -> Order:
        return (self.occurred_at, self.message_id, self.source)

    def link_order(self, weaker: Identity) -> LinkOrder:
        """Return the order of the link from ``weaker`` to the strongest identity of the message.

        Links that a server vouches for take precedence. A public key cannot date its claims before their receipt.
        """
        is_vouched = self.trust == "server" or (
            self.vouched_id is not None and weaker == Identity("anonymous_id", self.vouched_id)
        )
        instant = self.occurred_at if self.trust == "server" else max(self.occurred_at, self.received_at)
        return (0 if is_vouched else 1, instant, self.message_id, self.source)

    @property
    def key(self) -> bytes:
        """Key of 16 bytes that identifies the message in the dedupe ledger."""
        return blake2b(f"{self.source}\0{self.message_id}".encode(), digest_size=16).digest()


class Warning(msgspec.Struct, frozen=True):
    """A problem of a message that was stored, such as an unreadable timestamp or an invalid email address.

    ``reason`` is a machine-readable word, for codes that have several reasons.
    """

    index: int
    code: str
    message: str
    message_id: str | None = None
    reason: str = ""


class Peer(msgspec.Struct, frozen=True):
    """The client of a connection. ``country`` is an ISO 3166 code; None without a country database."""

    address: str | None = None
    user_agent: str | None = None
    country: str | None = None


BotPolicy = Literal["keep", "quarantine", "drop"]
"""Policy of a source for messages whose user agent is a bot."""


class VouchedVisitor(msgspec.Struct, frozen=True):
    """The visitor who sends a request: a proven anonymous id, and the user id for which the site's server vouches."""

    user_id: str
    anonymous_id: str


class SourceView(msgspec.Struct, frozen=True):
    """The source of a request: the settings and the trust that the conversion of its messages needs.

    ``identity_properties`` maps the dotted path of an event property to the kind of identity that it contains. ``bots``
    is the policy for messages whose user agent is a bot. ``trust`` is that of the key or connection that was used.
    """

    key: str
    default_channel: str | None = None
    identity_properties: dict[str, str] = {}
    bots: BotPolicy = "quarantine"
    trust: Trust = "public"
    visitor: VouchedVisitor | None = None
