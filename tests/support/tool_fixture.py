"""Type of a connector's test fixture; tests/connectors/test_every_connector.py runs the same checks with each one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

NOW = 1_777_982_400_000_000
"""2026-05-05T12:00:00Z: when the tests' deliveries arrive."""

SignedWith = tuple[Mapping[str, str], Mapping[str, str]]
"""(headers, query parameters) that a tool adds to prove itself."""


@dataclass(frozen=True)
class Touchpoint:
    """What the customer's timeline must show; of ``properties`` and ``context`` at least these members."""

    name: str
    channel: str
    occurred_at: str
    """RFC 3339, compared as an instant."""
    properties: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One delivery and what must become of it."""

    about: str
    body: bytes
    who: str = ""
    """Reference of the customer whose timeline is looked at: ``email:user@example.com``. Empty: nobody's."""
    touchpoints: tuple[Touchpoint, ...] = ()
    """All of that customer, in order of time."""
    traits: Mapping[str, Any] = field(default_factory=dict)
    """At least these of that customer."""
    identities: tuple[str, ...] = ()
    """At least these (``kind:value``) of that customer."""
    accepted: int | None = None
    """Messages stored; None: as many as touchpoints."""
    rejected: int = 0
    ignored: int = 0
    """Events that concern no person."""
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fixture:
    """``sign(body, secret, now, url)`` proves a delivery as the tool does: written with the standard library or the
    vendor's own helper, never with the code it tests. ``now`` is in microseconds.
    """

    kind: str
    secret: str
    """As the operator enters it. Of kinds whose token Segue makes: empty, and the harness hands the token to sign."""
    sign: Callable[[bytes, str, int, str], SignedWith]
    sample: Case
    """The documented sample: its body is CONNECTOR.sample."""
    several: Case
    """Several events in one body, or several people of one event; where a tool sends one by one, another event."""
    unknown: Case
    """An event type that nobody knows yet: stored under the tool's own name."""
    non_ascii: Case
    times: tuple[Case, ...]
    """Times in every spelling that the tool is known to use, and a nonsensical one."""
    malformed: Case
    """Signed, but not what the tool sends: answered with success, and kept in quarantine."""
    others: tuple[Case, ...] = ()
    """Every other type of event that the adapter names, and whatever deserves a row."""
    other_secret: str = ""
    """Another one of the same form, which ``sign`` can sign with too; empty: ``secret`` with ``other-`` before it."""
    options: Mapping[str, str] = field(default_factory=dict)
    certificates: Mapping[str, bytes] = field(default_factory=dict)
    """What stands at addresses that the service asks by itself."""
    stale_seconds: int | None = None
    """A signature older than this is refused; None where the scheme has no time."""
    seal: Callable[[bytes, str, int, str], bytes] = lambda body, *_: body
    """``seal(body, secret, now, url)`` is the body as it is sent, where a tool proves itself inside it; before sign."""
    covers_body: bool = True
    """False where the proof does not cover the body: a token, or a signature of a nonce."""

    @property
    def cases(self) -> tuple[Case, ...]:
        """All of them."""
        always = (self.sample, self.several, self.unknown, self.non_ascii, *self.times, self.malformed)
        return (*always, *self.others)


def json_body(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
