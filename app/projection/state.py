"""State of a customer between two messages: pure data, stored as MessagePack in ``customers.state``.

The column is written with every message, so it must be small. Rules and journeys are stored by number, and a truth that
has not changed since the customer's first message is omitted. A number identifies the meaning of a rule, not its name,
so a state stays valid after a rename. Reading drops the numbers that a ruleset does not contain.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from app.rules.engine.point_series import OlderPoints
from app.rules.engine.ruleset import Ruleset
from app.rules.engine.series import Series
from app.rules.engine.sliding_window import SlidingState
from app.rules.engine.truth import Truth


class Cause(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    """Cause of a change of truth: a message, or time alone (``message_id`` is then absent)."""

    kind: str
    message_id: str | None = None
    source: str | None = None


TIME_PASSED = Cause("time")


class StagePosition(msgspec.Struct, gc=False, array_like=True):
    """Position in one journey: the current stage, if any, and the message that caused it; None if time caused it."""

    stage: str | None
    since: int
    message_id: str | None = None
    source: str | None = None

    @property
    def cause(self) -> Cause:
        return TIME_PASSED if self.message_id is None else Cause("message", self.message_id, self.source)


class Input(msgspec.Struct, gc=False, array_like=True):
    """A message reduced for the fold: the leaves that it matches and the traits that it sets."""

    at: int
    message_id: str
    source: str
    leaves: tuple[str, ...]
    traits: dict[str, Any] | None
    leaf_values: dict[str, list[Any]] | None = None
    """Leaf id -> values of the message that the leaf stores in addition to the instant."""

    @property
    def is_relevant(self) -> bool:
        return bool(self.leaves or self.traits)


class State(msgspec.Struct):
    """State of one customer. ``born`` is the instant of the customer's first message.

    ``at`` is the instant at which rules were last evaluated; a relevant message that is not later needs a replay.
    ``truths`` contains only rules that were evaluated. All other rules have the truth in the ruleset's ``initial``.
    """

    born: int | None = None
    at: int = -1
    messages: int = 0
    traits: dict[str, Any] = {}
    series: dict[str, Series] = {}
    truths: dict[str, Truth] = {}
    journeys: dict[str, StagePosition] = {}
    pending: list[Input] = []
    """Messages with a future instant, from clocks that run ahead. Each message takes effect at its own instant."""
    is_truncated: bool = False
    """True if the state was truncated at its size limit: the next message forces a replay from the log."""
    bucketing_key: tuple[str, str] | None = None
    """Kind and value of the strongest, earliest identity; stored only if a rule reads it."""
    searches: dict[Any, Any] = {}
    """Cache of the rule engine, which is never stored: searches in points that a fold continues."""
    windows: dict[str, SlidingState] = {}
    """Key of a sliding window -> its state. Only series that are too long to scan have sliding windows."""
    older_points: dict[str, list[OlderPoints]] = {}
    """Leaf id -> points that were loaded from outside the state, in order. Not stored with the state."""
    next_due: int | None = None
    """Earliest instant at which the state may change, if the fold has looked ahead. Not stored with the state."""
    evaluations: int = 0
    """Number of evaluations of rules since the state was read or created. Not stored with the state."""


class _Stored(msgspec.Struct, array_like=True):
    """Layout of a state in the database. ``traits`` and ``pending`` are JSON, which keeps their numbers exact."""

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
    windows: dict[str, SlidingState] = {}


class _Outline(msgspec.Struct, array_like=True):
    """First fields of :class:`_Stored`, which have the same meaning in every revision."""

    messages: int
    at: int
    born: int | None
    is_truncated: bool = False


class _Declared(msgspec.Struct, array_like=True):
    """Fields of :class:`_Stored` up to ``pending``; ``series``, ``truths`` and ``journeys`` are not decoded."""

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
    """Rules and journeys of one ruleset, keyed by number."""

    __slots__ = ("journeys", "rules")

    def __init__(self, ruleset: Ruleset) -> None:
        self.rules: dict[int, str] = {}
        for rule in ruleset.rule_ids:
            self.rules[ruleset.number_of[rule]] = rule
        self.journeys: dict[int, str] = {}
        for key in ruleset.stages_of:
            self.journeys[ruleset.number_of[f"journey:{key}"]] = key


def read_state(stored: bytes, ruleset: Ruleset) -> State:
    """Decode a stored state for the rules of ``ruleset``, all of which the customer row must contain."""
    row = _decode(stored)
    names, leaves = ruleset.derive(_NumberedNames), ruleset.leaves
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
        windows=row.windows,
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
            state.windows,
        )
    )


def first_positions(stored: bytes) -> dict[str, int]:
    """Return leaf id -> position of the oldest point outside the state that a window can still need."""
    series = _decode(stored).series.items()
    return {id: one.point_series.oldest for id, one in series if one.point_series is not None}


def positions_in_state(stored: bytes) -> dict[str, int]:
    """Return leaf id -> position of the oldest point inside the state."""
    series = _decode(stored).series.items()
    return {id: one.point_series.start for id, one in series if one.point_series is not None}


def json_size(value: object) -> int:
    """Return the size of the value as JSON, in bytes."""
    return len(_encode_json(value))


def count_messages(stored: bytes) -> int:
    """Return the number of messages from which the state was computed. The state may have any revision."""
    return _decode_outline(stored).messages


def is_truncated_state(stored: bytes) -> bool:
    """Return True if the state lost data at its size limit. The state may have any revision but that before numbers."""
    return _decode_outline(stored).is_truncated


def last_decided_at(stored: bytes) -> int:
    """Return the instant at which rules were last evaluated. The state may have any revision."""
    return _decode_outline(stored).at


def first_seen_of(stored: bytes) -> int | None:
    """Return the instant of the first message, which is wrong in a stale state. The state may have any revision."""
    return _decode_outline(stored).born


def declared_traits_at(stored: bytes, now: int) -> dict[str, Any] | None:
    """Return the declared traits as of ``now``; None if the whole state is needed. The state may have any revision."""
    row = _decode_declared(stored)
    if row.pending or row.is_truncated or row.at > now:
        return None
    return _decode_traits(row.traits) if row.traits else {}
