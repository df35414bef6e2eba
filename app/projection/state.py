"""What is stored of a customer between two messages. Pure data; MessagePack in the ``customers.state`` column.

The column is written with every message, so it is kept small: rules go by their place in the ruleset (a state is
only ever read with the revision it was written with), and a truth that is as at birth is left out.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from app.rules.ruleset import Ruleset
from app.rules.series import Series
from app.rules.truth import Truth


class Cause(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    """Why a truth changed: a message arrived, or time alone passed (``message_id`` is then absent)."""

    kind: str
    message_id: str | None = None
    source: str | None = None


PASSED = Cause("time")


class Standing(msgspec.Struct, gc=False, array_like=True):
    """The place in one journey: the current stage, or none, and the message that led there (none: time did)."""

    stage: str | None
    since: int
    message_id: str | None = None
    source: str | None = None

    @property
    def cause(self) -> Cause:
        return PASSED if self.message_id is None else Cause("message", self.message_id, self.source)


class Move(msgspec.Struct, gc=False, array_like=True):
    """What is left of a message once it has met the rules: the leaves it belongs to and the traits it sets."""

    at: int
    message_id: str
    source: str
    leaves: tuple[str, ...]
    traits: dict[str, Any] | None
    kept: dict[str, list[Any]] | None = None
    """leaf id -> what the leaf keeps of it beside the instant"""

    @property
    def matters(self) -> bool:
        return bool(self.leaves or self.traits)


class State(msgspec.Struct):
    """``truths`` holds only rules that something has touched; any other rule is as the ruleset's ``initial`` says.

    ``at`` is the last instant at which anything was decided: a message that matters and is not later needs a replay.
    """

    born: int | None = None
    at: int = -1
    messages: int = 0
    traits: dict[str, Any] = {}
    series: dict[str, Series] = {}
    truths: dict[str, Truth] = {}
    journeys: dict[str, Standing] = {}
    pending: list[Move] = []
    """Messages of the future (clocks run ahead): they count from their own instant on."""
    cut: bool = False
    """More was to be kept than may be; whatever comes next, only the log can tell."""
    person: tuple[str, str] | None = None
    """(kind, value) of the strongest, earliest identity, where some rule draws customers by it."""


class _Stored(msgspec.Struct, array_like=True):
    """The layout in the database. ``traits`` and ``pending`` are JSON, which keeps their numbers exact."""

    messages: int
    at: int
    born: int | None
    cut: bool
    traits: bytes
    series: dict[str, Series]
    truths: dict[int, Truth]
    journeys: dict[str, Standing]
    pending: bytes


class _Outline(msgspec.Struct, array_like=True):
    """The first fields of :class:`_Stored`, which mean the same whatever the revision."""

    messages: int
    at: int


_decode = msgspec.msgpack.Decoder(_Stored).decode
_decode_outline = msgspec.msgpack.Decoder(_Outline).decode
_encode = msgspec.msgpack.Encoder().encode
_decode_traits = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode
_decode_pending = msgspec.json.Decoder(list[Move], float_hook=Decimal).decode
_encode_json = msgspec.json.Encoder(decimal_format="number").encode


def read_state(stored: bytes, ruleset: Ruleset) -> State:
    """``ruleset`` must be of the revision that the state was written with."""
    row = _decode(stored)
    rule_ids = ruleset.rule_ids
    return State(
        row.born,
        row.at,
        row.messages,
        _decode_traits(row.traits) if row.traits else {},
        row.series,
        {rule_ids[place]: truth for place, truth in row.truths.items()},
        row.journeys,
        _decode_pending(row.pending) if row.pending else [],
        row.cut,
    )


def write_state(state: State, ruleset: Ruleset) -> bytes:
    place_of, initial, born = ruleset.place_of, ruleset.initial, state.born
    return _encode(
        _Stored(
            state.messages,
            state.at,
            born,
            state.cut,
            _encode_json(state.traits) if state.traits else b"",
            state.series,
            {
                place_of[rule]: truth
                for rule, truth in state.truths.items()
                if truth.until is not None or truth.since != born or truth.holds != initial[rule]
            },
            state.journeys,
            _encode_json(state.pending) if state.pending else b"",
        )
    )


def json_size(value: object) -> int:
    """Bytes of the value written as JSON."""
    return len(_encode_json(value))


def messages_of(stored: bytes) -> int:
    """How many messages the state was made of, whatever its revision."""
    return _decode_outline(stored).messages


def decided_at(stored: bytes) -> int:
    """The last instant at which the state decided anything, whatever its revision."""
    return _decode_outline(stored).at
