"""Customer states for reads. Reads never write and never return stale data.

A read uses a stored state as it is if the customer row contains the rule, is not marked stale, and ``flips_at`` is in
the future. If only time has passed, the read folds the state forward in memory; otherwise it replays the customer's
log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec

from app.postgres.pool import Connection, Pool
from app.projection.checkpoints import CHECKPOINT_MESSAGES, Checkpoint, find_checkpoints
from app.projection.coverage import BEFORE_NUMBERS, Coverage
from app.projection.fold import POINTS_UNLIMITED, fold, look_ahead
from app.projection.log_replay import read_inputs_after, replay_log
from app.projection.older_points import fold_stored_state
from app.projection.partial_replay import replay_for_rules
from app.projection.state import Cause, State, count_messages, first_seen_of, read_state, write_state
from app.projection.time_slices import TimeSlices
from app.queries.replay_limit import UNLIMITED, check_replay_length
from app.rules.engine.ruleset import Ruleset
from app.rules.engine.series import NeedsReplay
from app.rules.engine.truth import Truth
from app.touchpoint import STRENGTH, Identity

_LOOKAHEAD_STEPS_MAX: Final = 256
"""Maximum number of instants at which a read evaluates rules to find the next change of a customer with a long series.
Beyond it, ``valid_until`` is the last of these instants: nothing changes before it."""


class StoredState(msgspec.Struct):
    """Columns of a customer row that reads need."""

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
    """Current stage in one journey."""

    stage: str | None
    since: int | None
    valid_until: int | None
    cause: Cause | None


class Customer(msgspec.Struct):
    """A customer at ``as_of``, with the ruleset and the state from which it was computed."""

    id: bytes
    identities: list[Identity]
    traits: dict[str, Any]
    stages: dict[str, CurrentStage]
    segments: list[Membership]
    as_of: int
    ruleset: Ruleset
    state: State
    until: Mapping[str, int]
    """Result of :func:`valid_until`; it includes segments that the customer will enter."""


def is_current(row: StoredState, ruleset: Ruleset, now: int) -> bool:
    """Return True if everything stored about the customer, intervals included, is correct at ``now``."""
    return (
        not row.stale
        and row.revision >= Coverage(ruleset).current_revision
        and (row.flips_at is None or row.flips_at > now)
    )


async def advance_to(
    connection: Connection | Pool, row: StoredState, ruleset: Ruleset, now: int, points_max: int
) -> State | None:
    """Return the state at ``now``; None if the customer needs a replay.

    The state may be later than ``now`` if this process's clock is behind. It lacks candidates that are not backfilled
    yet, because reads do not need them.
    """
    rule_coverage = Coverage(ruleset)
    if row.stale or row.revision < rule_coverage.current_revision:
        return None
    known_rules = rule_coverage.known_rules(row.revision)
    state = read_state(row.state, known_rules)
    if not state.windows and (row.flips_at is None or row.flips_at > now):
        return state
    try:
        state, _ = await fold_stored_state(
            connection, row.id, row.state, known_rules, (), now, points_max, TimeSlices()
        )
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
    messages_max: int = UNLIMITED,
) -> dict[bytes, State]:
    """Return each customer's state at exactly ``instant``, which may be before the stored state's instant.

    With ``with_values``, the states also contain the data for computed traits. Requires a snapshot. Raise
    :class:`HeavyRead` if customers with more than ``messages_max`` messages in total need a replay.
    """
    states: dict[bytes, State] = {}
    to_replay: list[StoredState] = []
    born: dict[bytes, int | None] = {}
    replayed_states: list[bytes] = []
    slices = TimeSlices()
    for row in rows:
        await slices.give_way_if_due()
        state = await advance_to(connection, row, ruleset, instant, points_max)
        if state is not None and state.at <= instant and not _needs_log(state, ruleset, with_values):
            states[row.id] = state
            continue
        replayed_states.append(row.state)
        if row.stale or row.revision == BEFORE_NUMBERS:
            to_replay.append(row)
        else:
            born[row.id] = first_seen_of(row.state)
    checkpoints = await _find_usable_checkpoints(connection, to_replay, ruleset, instant)
    skipped = sum(checkpoint.messages for checkpoint in checkpoints.values())
    check_replay_length(replayed_states, messages_max, skipped)
    for row in to_replay:
        if row.id in checkpoints:
            checkpoint = checkpoints[row.id]
            states[row.id] = await _continue_checkpoint(connection, row, checkpoint, ruleset, instant, messages_max)
    whole_ids = [row.id for row in to_replay if row.id not in checkpoints]
    replayed, _ = await replay_for_rules(connection, born, ruleset, instant)
    if whole_ids:
        replayed |= await replay_log(connection, whole_ids, ruleset, instant)
    for id in (*born, *whole_ids):
        states[id] = replayed[id].state if id in replayed else State()
    return states


async def replay_state(
    connection: Connection, row: StoredState, ruleset: Ruleset, instant: int, messages_max: int
) -> State:
    """Return a customer's state at ``instant``, computed from the log and, if possible, a checkpoint.

    Requires a snapshot. Raise :class:`HeavyRead` if the customer has more than ``messages_max`` messages to replay.
    """
    checkpoint = (await _find_usable_checkpoints(connection, [row], ruleset, instant)).get(row.id)
    check_replay_length([row.state], messages_max, 0 if checkpoint is None else checkpoint.messages)
    if checkpoint is not None:
        return await _continue_checkpoint(connection, row, checkpoint, ruleset, instant, messages_max)
    replayed = await replay_log(connection, [row.id], ruleset, instant)
    return replayed[row.id].state if row.id in replayed else State()


async def _find_usable_checkpoints(
    connection: Connection, rows: Iterable[StoredState], ruleset: Ruleset, instant: int
) -> dict[bytes, Checkpoint]:
    """Return a checkpoint up to ``instant`` for each long history that has one with all current definitions."""
    revision = Coverage(ruleset).current_revision
    long_ids = [row.id for row in rows if count_messages(row.state) >= CHECKPOINT_MESSAGES]
    return await find_checkpoints(connection, [(id, instant + 1, revision) for id in long_ids])


async def _continue_checkpoint(
    connection: Connection,
    row: StoredState,
    checkpoint: Checkpoint,
    ruleset: Ruleset,
    instant: int,
    messages_max: int,
) -> State:
    """Return the customer's state at ``instant``, computed from a checkpoint and the log after it.

    Future messages need all points in memory, so the whole log is then replayed.
    """
    rules = Coverage(ruleset).known_rules(checkpoint.revision)
    inputs = await read_inputs_after(connection, row.id, rules, checkpoint.at)
    if not any(input.at > instant for input in inputs):
        with suppress(NeedsReplay):
            state, _ = await fold_stored_state(
                connection, row.id, checkpoint.state, rules, inputs, instant, POINTS_UNLIMITED, TimeSlices()
            )
            return state
    check_replay_length([row.state], messages_max)
    replayed = await replay_log(connection, [row.id], ruleset, instant)
    return replayed[row.id].state if row.id in replayed else State()


def _needs_log(state: State, ruleset: Ruleset, with_values: bool) -> bool:
    """Return True if the state's truths are correct, but it lacks data for future changes or computed traits."""
    if state.pending and (state.is_truncated or state.windows):
        return True
    return state.is_truncated and with_values and not _holds_values(state, ruleset)


def _holds_values(state: State, ruleset: Ruleset) -> bool:
    """Return True if the state has all touchpoints that computed traits read; it may lack others."""
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
    """Build the customer from a state; return None if ``valid_until`` or a computed trait needs the log.

    A replayed state, which requires ``POINTS_UNLIMITED`` as ``points_max``, never needs it.
    """
    if points_max < POINTS_UNLIMITED and _needs_log(state, ruleset, with_values=True):
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
    """Return declared and computed traits.

    A computed trait hides a declared trait with the same name, even if the computed one has no value.
    """
    if not ruleset.traits or state.born is None:
        return state.traits
    computed = {trait.key for trait in ruleset.traits}
    declared = {name: value for name, value in state.traits.items() if name not in computed}
    return declared | ruleset.compute_traits(state, now)


def sort_identities(kinds: Sequence[str], values: Sequence[str]) -> list[Identity]:
    """Return the identities, strongest first."""
    pairs = sorted(zip(kinds, values, strict=True), key=lambda pair: (STRENGTH.get(pair[0], 3), pair))
    return [Identity(kind, value) for kind, value in pairs]


def truth_of(state: State, ruleset: Ruleset, rule_id: str) -> Truth:
    """Return the truth of a rule, which is false before the customer's first message."""
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
    """Return ``segment:KEY`` or ``journey:KEY`` -> instant at which it changes if no message arrives.

    The result excludes segments and journeys that never change.

    Raises:
        NeedsReplay: Future messages are pending, and the state was truncated.
    """
    ends: dict[str, int] = {}
    if state.pending:
        future_state = read_state(write_state(state, ruleset), ruleset)
        for change in fold(future_state, ruleset, (), state.pending[-1].at, points_max):
            ends.setdefault(change.definition, change.at)
        state = future_state
    elif state.windows:
        # A truth that reads a sliding window is stored with an ``until`` that may be too early.
        state, changes = look_ahead(state, ruleset, _LOOKAHEAD_STEPS_MAX)
        for change in changes:
            ends.setdefault(change.definition, change.at)
    for rule_id, truth in state.truths.items():
        if truth.until is not None and rule_id.startswith("segment:"):
            ends.setdefault(rule_id, truth.until)
    for journey, stages in ruleset.stages_of.items():
        end = _find_stage_end(state, journey, stages)
        if end is not None:
            ends.setdefault(f"journey:{journey}", end)
    return ends


def _find_stage_end(state: State, journey: str, stages: Sequence[tuple[str, str]]) -> int | None:
    """Return the earliest change of the rules of the current and later stages: no other rule changes the stage."""
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
