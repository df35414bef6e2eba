"""Type of a connector's test fixture.

tests/connectors/test_every_connector.py runs the same checks with every fixture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

NOW = 1_777_982_400_000_000
"""2026-05-05T12:00:00Z, at which the tests deliver webhooks."""

SignedWith = tuple[Mapping[str, str], Mapping[str, str]]
"""(headers, query parameters) with which a tool authenticates a delivery."""


@dataclass(frozen=True)
class Touchpoint:
    """Expected touchpoint. The stored ``properties`` and ``context`` may have more fields than these."""

    name: str
    channel: str
    occurred_at: str
    """RFC 3339 timestamp; any text for the same instant is equal."""
    properties: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One delivery (HTTP request of a tool) and its expected result."""

    about: str
    body: bytes
    who: str = ""
    """Customer whose touchpoints, traits and identities are checked, such as ``email:user@example.com``.

    Empty means none.
    """
    touchpoints: tuple[Touchpoint, ...] = ()
    """All touchpoints of the customer ``who``, oldest first."""
    traits: Mapping[str, Any] = field(default_factory=dict)
    """Traits that the customer ``who`` must have. More traits are allowed."""
    identities: tuple[str, ...] = ()
    """Identities (``kind:value``) that the customer ``who`` must have. More identities are allowed."""
    accepted: int | None = None
    """Number of stored messages. None means one for each touchpoint."""
    rejected: int = 0
    ignored: int = 0
    """Number of events that Segue ignores, for example because they concern no customer."""
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fixture:
    """Deliveries of one tool and their expected results.

    ``sign(body, secret, now, url)`` authenticates a delivery as the tool does. It uses the standard library or the
    vendor's own helper, never the code under test. ``now`` is in microseconds.
    """

    kind: str
    secret: str
    """Secret that the operator enters. It is empty if Segue generates the token, which ``sign`` then receives."""
    sign: Callable[[bytes, str, int, str], SignedWith]
    sample: Case
    """Documented sample, whose body is ``CONNECTOR.sample``."""
    several: Case
    """Several events in one body, or several customers of one event. If a tool never sends these, any other event."""
    unknown: Case
    """Event of an unknown type, which is stored under the name that the tool uses."""
    non_ascii: Case
    times: tuple[Case, ...]
    """Events with each known time format of the tool, and with an invalid time."""
    malformed: Case
    """Authenticated delivery with an invalid body. The response is a success, and the body is quarantined."""
    others: tuple[Case, ...] = ()
    """All other event types of the connector, and special cases."""
    other_secret: str = ""
    """Second secret that ``sign`` accepts. If empty, ``other-`` followed by ``secret`` is used."""
    options: Mapping[str, str] = field(default_factory=dict)
    certificates: Mapping[str, bytes] = field(default_factory=dict)
    """Responses to requests that the application itself sends, by URL."""
    stale_seconds: int | None = None
    """Maximum age of a signature in seconds. None means that signatures have no timestamp."""
    seal: Callable[[bytes, str, int, str], bytes] = lambda body, *_: body
    """Return the body with the tool's credentials inside. It is called before ``sign`` with the same arguments."""
    covers_body: bool = True
    """False if the credentials do not depend on the body: a token, or the signature of a nonce."""

    @property
    def cases(self) -> tuple[Case, ...]:
        always = (self.sample, self.several, self.unknown, self.non_ascii, *self.times, self.malformed)
        return (*always, *self.others)


def json_body(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
