"""What is stored of a customer between two messages. Pure data; MessagePack in the ``customers.state`` column.

The column is written with every message, so it is kept small: rules and journeys go by their numbers, and a truth that
is as at birth is left out. A number says what a rule means, not what it is called, so a state outlives names and
versions; what a ruleset has no number for is dropped.
"""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from typing import Any

import msgspec

from app.rules.engine.ruleset import Ruleset
from app.rules.engine.series import Series
from app.rules.engine.truth import Truth


class Cause(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    """Why a truth changed: a message arrived, or time alone passed (``message_id`` is then absent)."""

    kind: str
    message_id: str | None = None
    source: str | None = None


TIME_PASSED = Cause("time")


class StagePosition(msgspec.Struct, gc=False, array_like=True):
    """The place in one journey: the current stage, or none, and the message that led there (none: time did)."""

    stage: str | None
    since: int
    message_id: str | None = None
    source: str | None = None

    @property
    def cause(self) -> Cause:
        return TIME_PASSED if self.message_id is None else Cause("message", self.message_id, self.source)


class Input(msgspec.Struct, gc=False, array_like=True):
    """What is left of a message once it has met the rules: the leaves it belongs to and the traits it sets."""

    at: int
    message_id: str
    source: str
    leaves: tuple[str, ...]
    traits: dict[str, Any] | None
    leaf_values: dict[str, list[Any]] | None = None
    """leaf id -> what the leaf keeps of it beside the instant"""

    @property
    def is_relevant(self) -> bool:
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
    journeys: dict[str, StagePosition] = {}
    pending: list[Input] = []
    """Messages of the future (clocks run ahead): they count from their own instant on."""
    is_truncated: bool = False
    """More was to be kept than may be; whatever comes next, only the log can tell."""
    bucketing_key: tuple[str, str] | None = None
    """The strongest, earliest identity; kept only where some rule reads it."""


class _Stored(msgspec.Struct, array_like=True):
    """The layout in the database. ``traits`` and ``pending`` are JSON, which keeps their numbers exact."""

    messages: int
    at: int
    born: int | None
    is_truncated: bool
    traits: bytes
    series: dict[str, Series]
    truths: dict[int, Truth]
    journeys: dict[int, StagePosition]
    pending: bytes
    bucketing_key: tuple[str, str] | None = None


class _Outline(msgspec.Struct, array_like=True):
    """The first fields of :class:`_Stored`, which mean the same whatever the revision."""

    messages: int
    at: int
    born: int | None


class _Declared(msgspec.Struct, array_like=True):
    """The fields of :class:`_Stored` up to ``pending``; those between are not looked at."""

    messages: int
    at: int
    born: int | None
    is_truncated: bool
    traits: bytes
    series: msgspec.Raw
    truths: msgspec.Raw
    journeys: msgspec.Raw
    pending: bytes


_decode = msgspec.msgpack.Decoder(_Stored).decode
_decode_declared = msgspec.msgpack.Decoder(_Declared).decode
_decode_outline = msgspec.msgpack.Decoder(_Outline).decode
_encode = msgspec.msgpack.Encoder().encode
_decode_traits = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode
_decode_pending = msgspec.json.Decoder(list[Input], float_hook=Decimal).decode
_encode_json = msgspec.json.Encoder(decimal_format="number").encode


class _NumberedNames:
    """What the numbers stand for in one ruleset."""

    __slots__ = ("journeys", "rules")

    def __init__(self, ruleset: Ruleset) -> None:
        self.rules: dict[int, str] = {}
        for rule in ruleset.rule_ids:
            self.rules[ruleset.number_of[rule]] = rule
        self.journeys: dict[int, str] = {}
        for key in ruleset.stages_of:
            self.journeys[ruleset.number_of[f"journey:{key}"]] = key


@lru_cache(maxsize=32)
def _numbered_names(ruleset: Ruleset) -> _NumberedNames:
    return _NumberedNames(ruleset)


def read_state(stored: bytes, ruleset: Ruleset) -> State:
    """What the row holds of these rules, which must not be more than its revision covers."""
    row = _decode(stored)
    names, leaves = _numbered_names(ruleset), ruleset.leaves
    rules, journeys = names.rules, names.journeys
    return State(
        row.born,
        row.at,
        row.messages,
        _decode_traits(row.traits) if row.traits else {},
        {leaf: series for leaf, series in row.series.items() if leaf in leaves},
        {rules[number]: truth for number, truth in row.truths.items() if number in rules},
        {journeys[number]: position for number, position in row.journeys.items() if number in journeys},
        _decode_pending(row.pending) if row.pending else [],
        row.is_truncated,
        row.bucketing_key if ruleset.reads_bucketing_key else None,
    )


def write_state(state: State, ruleset: Ruleset) -> bytes:
    number_of, initial, born = ruleset.number_of, ruleset.initial, state.born
    return _encode(
        _Stored(
            state.messages,
            state.at,
            born,
            state.is_truncated,
            _encode_json(state.traits) if state.traits else b"",
            state.series,
            {
                number_of[rule]: truth
                for rule, truth in state.truths.items()
                if truth.until is not None
                or truth.since != born
                or truth.holds != initial[rule]
                or (truth.value_digest is not None and truth != ruleset.initial_truth(rule, born))
            },
            {number_of[f"journey:{key}"]: position for key, position in state.journeys.items()},
            _encode_json(state.pending) if state.pending else b"",
            state.bucketing_key if ruleset.reads_bucketing_key else None,
        )
    )


def json_size(value: object) -> int:
    """Bytes of the value written as JSON."""
    return len(_encode_json(value))


def count_messages(stored: bytes) -> int:
    """How many messages the state was made of, whatever its revision."""
    return _decode_outline(stored).messages


def last_decided_at(stored: bytes) -> int:
    """The last instant at which the state decided anything, whatever its revision."""
    return _decode_outline(stored).at


def first_seen_of(stored: bytes) -> int | None:
    """When the customer's first message was, whatever the revision; not of a stale one."""
    return _decode_outline(stored).born


def declared_traits_at(stored: bytes, now: int) -> dict[str, Any] | None:
    """The declared traits as of ``now``, whatever the revision; None where only the state as a whole can tell."""
    row = _decode_declared(stored)
    if row.pending or row.is_truncated or row.at > now:
        return None
    return _decode_traits(row.traits) if row.traits else {}
