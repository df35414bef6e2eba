"""The states that every read rests on. A read never writes and is never stale.

A stored truth is believed while nothing can have changed it: a rule that the row holds, not marked stale, ``flips_at``
ahead. If only time has passed the state is carried forward in memory; otherwise the customer's log is replayed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from app.postgres.pool import Connection
from app.projection.coverage import BEFORE_NUMBERS, coverage_of
from app.projection.fold import NeedsReplay, fold
from app.projection.log_replay import replay_log
from app.projection.partial_replay import replay_for_rules
from app.projection.state import Cause, State, first_seen_of, read_state, write_state
from app.rules.engine.ruleset import Ruleset
from app.rules.engine.truth import Truth
from app.touchpoint import STRENGTH, Identity


class StoredState(msgspec.Struct):
    """A customer's row as far as reads look at it."""

    id: bytes
    state: bytes
    flips_at: int | None
    revision: int
    stale: bool


class Membership(msgspec.Struct, frozen=True):
    key: str
    since: int
    valid_until: int | None


class CurrentStage(msgspec.Struct, frozen=True):
    """The place in one journey."""

    stage: str | None
    since: int | None
    valid_until: int | None
    cause: Cause | None


class Customer(msgspec.Struct):
    """A customer at ``as_of``, with the rules that said so, the state they said it of, and until when it stays so."""

    id: bytes
    identities: list[Identity]
    traits: dict[str, Any]
    stages: dict[str, CurrentStage]
    segments: list[Membership]
    as_of: int
    ruleset: Ruleset
    state: State
    until: Mapping[str, int]
    """As of :func:`valid_until`: also of segments that the customer will enter."""


def is_current(row: StoredState, ruleset: Ruleset, now: int) -> bool:
    """Whether all that is stored of the customer, intervals too, holds at ``now`` as it stands."""
    return (
        not row.stale
        and row.revision >= coverage_of(ruleset).current_revision
        and (row.flips_at is None or row.flips_at > now)
    )


def advance_to(row: StoredState, ruleset: Ruleset, now: int, points_max: int) -> State | None:
    """The state at ``now``, or None where only the log can tell. A state may be ahead of a clock that is behind.

    While an edited definition is filled the row does not know what it will be, and nobody asks for it yet.
    """
    rule_coverage = coverage_of(ruleset)
    if row.stale or row.revision < rule_coverage.current_revision:
        return None
    known_rules = rule_coverage.known_rules(row.revision)
    state = read_state(row.state, known_rules)
    if row.flips_at is None or row.flips_at > now:
        return state
    try:
        fold(state, known_rules, (), now, points_max)
    except NeedsReplay:
        return None
    return state


async def states_at(
    connection: Connection,
    rows: Iterable[StoredState],
    ruleset: Ruleset,
    instant: int,
    points_max: int,
    *,
    with_values: bool = False,
) -> dict[bytes, State]:
    """The state of each customer at exactly ``instant``, which may lie behind what is stored. Needs a snapshot.

    ``with_values``: computed traits will be asked of it too, not only truths.
    """
    states: dict[bytes, State] = {}
    to_replay: list[bytes] = []
    born: dict[bytes, int | None] = {}
    for row in rows:
        state = advance_to(row, ruleset, instant, points_max)
        if state is not None and state.at <= instant and not _needs_log(state, ruleset, with_values):
            states[row.id] = state
        elif row.stale or row.revision == BEFORE_NUMBERS:
            to_replay.append(row.id)
        else:
            born[row.id] = first_seen_of(row.state)
    replayed, _ = await replay_for_rules(connection, born, ruleset, instant)
    if to_replay:
        replayed |= await replay_log(connection, to_replay, ruleset, instant)
    for id in (*born, *to_replay):
        states[id] = replayed[id].state if id in replayed else State()
    return states


def _needs_log(state: State, ruleset: Ruleset, with_values: bool) -> bool:
    """Its truths of now are right, but what happens next, or a value, cannot be told from it."""
    return state.is_truncated and (bool(state.pending) or (with_values and not _holds_values(state, ruleset)))


def _holds_values(state: State, ruleset: Ruleset) -> bool:
    """Whether the touchpoints that computed traits rest on are all there; others may have been forgotten."""
    leaves = {leaf for trait in ruleset.traits for leaf in ruleset.leaves_of(f"trait:{trait.key}")}
    return not any(leaf in leaves and series.overflowed for leaf, series in state.series.items())


def build_customer(
    id: bytes,
    kinds: Sequence[str],
    values: Sequence[str],
    state: State,
    ruleset: Ruleset,
    now: int,
    points_max: int,
) -> Customer | None:
    """What a state says of a customer; None where the log is needed, to say until when or to work out a trait."""
    if _needs_log(state, ruleset, with_values=True):
        return None
    try:
        until = valid_until(state, ruleset, points_max)
    except NeedsReplay:
        return None
    return Customer(
        id,
        sort_identities(kinds, values),
        _merge_traits(state, ruleset, max(now, state.at)),
        {journey.key: current_stage_of(state, journey.key, until) for journey in ruleset.journeys},
        memberships_of(state, ruleset, until),
        max(now, state.at),
        ruleset,
        state,
        until,
    )


def _merge_traits(state: State, ruleset: Ruleset, now: int) -> dict[str, Any]:
    """Declared and computed ones; a computed one hides a declared one of its name, be it missing itself."""
    if not ruleset.traits or state.born is None:
        return state.traits
    computed = {trait.key for trait in ruleset.traits}
    declared = {name: value for name, value in state.traits.items() if name not in computed}
    return declared | ruleset.compute_traits(state, now)


def sort_identities(kinds: Sequence[str], values: Sequence[str]) -> list[Identity]:
    """Strongest first."""
    pairs = sorted(zip(kinds, values, strict=True), key=lambda pair: (STRENGTH.get(pair[0], 3), pair))
    return [Identity(kind, value) for kind, value in pairs]


def truth_of(state: State, ruleset: Ruleset, rule_id: str) -> Truth:
    """Of any rule. Before its first message a customer is in nothing."""
    if state.born is None:
        return Truth(False, 0)
    return state.truths.get(rule_id) or Truth(ruleset.initial[rule_id], state.born)


def memberships_of(state: State, ruleset: Ruleset, until: Mapping[str, int]) -> list[Membership]:
    if state.born is None:
        return []
    memberships = []
    for segment in ruleset.segments:
        rule_id = f"segment:{segment.key}"
        truth = truth_of(state, ruleset, rule_id)
        if truth.holds:
            memberships.append(Membership(segment.key, truth.since, until.get(rule_id)))
    return memberships


def current_stage_of(state: State, journey: str, until: Mapping[str, int]) -> CurrentStage:
    position = state.journeys.get(journey)
    if position is None:
        return CurrentStage(None, None, until.get(f"journey:{journey}"), None)
    return CurrentStage(position.stage, position.since, until.get(f"journey:{journey}"), position.cause)


def valid_until(state: State, ruleset: Ruleset, points_max: int) -> dict[str, int]:
    """When each ``segment:KEY`` and ``journey:KEY`` changes if nothing arrives; those that never do are missing.

    Raises:
        NeedsReplay: messages of the future wait, and the state is too short to walk over them.
    """
    ends: dict[str, int] = {}
    if state.pending:
        future_state = read_state(write_state(state, ruleset), ruleset)
        for change in fold(future_state, ruleset, (), state.pending[-1].at, points_max):
            ends.setdefault(change.definition, change.at)
        state = future_state
    for rule_id, truth in state.truths.items():
        if truth.until is not None and rule_id.startswith("segment:"):
            ends.setdefault(rule_id, truth.until)
    for journey, stages in ruleset.stages_of.items():
        end = _find_stage_end(state, journey, stages)
        if end is not None:
            ends.setdefault(f"journey:{journey}", end)
    return ends


def _find_stage_end(state: State, journey: str, stages: Sequence[tuple[str, str]]) -> int | None:
    """Only the rules of the current stage and of those after it can move a customer."""
    position = state.journeys.get(journey)
    current = None if position is None else position.stage
    ends: list[int] = []
    for stage, rule_id in reversed(stages):
        truth = state.truths.get(rule_id)
        if truth is not None and truth.until is not None:
            ends.append(truth.until)
        if stage == current:
            break
    return min(ends, default=None)
