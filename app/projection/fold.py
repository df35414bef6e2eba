"""Fold: carries a customer's state forward in event time. Pure: ``now`` is an argument.

``fold`` defines a customer's state. A replay folds the whole log from an empty state; a live update continues the fold
from the stored state. Between two messages, truths change only at their ``until``, so time advances from one ``until``
to the next.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from heapq import heapify, heappop, heappush
from itertools import groupby, islice
from operator import attrgetter
from typing import Final

import msgspec

from app.projection.state import TIME_PASSED, Cause, Input, StagePosition, State, json_size
from app.rules.engine.ruleset import Ruleset
from app.rules.engine.series import NeedsReplay, Series
from app.rules.engine.sliding_window import NeedsOlderPoints
from app.rules.engine.truth import Truth

POINTS_UNLIMITED: Final = 10**9
"""Value of ``points_max`` for a fold over the whole log, whose result must not depend on a size limit."""

EVALUATIONS_UNLIMITED: Final = 10**12
"""Value of ``evaluations_max`` for a fold that no other customer waits for."""

NEVER: Final = 1 << 62
"""Value of ``State.next_due`` if only a message can change the state."""

LOOKAHEAD_STEPS_MAX: Final = 64
"""Maximum number of instants after now that a fold examines to find the next change of a state with sliding windows."""

TRAITS_BYTES_MAX: Final = 65_536
"""Size limit of all traits of one customer as JSON, in bytes. A trait beyond it is not stored; the log contains it."""


class TooManyEvaluations(Exception):
    """A fold has evaluated more rules than its limit. The state is then unusable."""


class Transition(msgspec.Struct, gc=False, frozen=True):
    """Entry into a segment or stage at ``at``, or exit from it. ``value`` is the stage, empty for a segment.

    ``since`` is the instant at which the interval began. For an entry it equals ``at``.
    """

    definition: str
    value: str
    entered: bool
    at: int
    since: int
    cause: Cause


def fold(
    state: State,
    ruleset: Ruleset,
    inputs: Iterable[Input],
    now: int,
    points_max: int = POINTS_UNLIMITED,
    *,
    rewinds: bool = False,
) -> list[Transition]:
    """Advance ``state`` in place over ``inputs`` to ``now``; return the transitions in order of time.

    With ``rewinds``, the state stays at the last change before ``now`` if it has sliding windows. A later message may
    still be earlier than ``now``, and a sliding window cannot move back. ``state.next_due`` is then the earliest
    instant after ``now`` at which the state may change.

    Raises:
        NeedsReplay: A message is not later than the last evaluation of rules, or the state was truncated and lacks
            data that the fold needs. ``state`` is then unusable.
    """
    steps = fold_steps(state, ruleset, inputs, now, points_max, rewinds=rewinds)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def fold_steps(
    state: State,
    ruleset: Ruleset,
    inputs: Iterable[Input],
    now: int,
    points_max: int,
    *,
    rewinds: bool,
    evaluations_max: int = EVALUATIONS_UNLIMITED,
) -> Generator[None, None, list[Transition]]:
    """Do the same as :func:`fold` in small steps: between two of them, the caller may do something else.

    Raise TooManyEvaluations once ``state.evaluations`` exceeds ``evaluations_max``.
    """
    inputs = list(inputs)
    state.messages += len(inputs)
    _check_not_past(state, inputs)
    relevant = [input for input in (*state.pending, *inputs) if input.is_relevant or state.born is None]
    relevant.sort(key=_input_order)
    fold_pass = _FoldPass(state, ruleset, points_max, evaluations_max)
    for instant, group in groupby(relevant, key=_instant):
        if instant > now:
            break
        # Once the customer exists, a message that no rule reads changes nothing.
        arriving = [input for input in group if input.is_relevant or state.born is None]
        if arriving:
            yield from fold_pass.advance_time(instant - 1)
            fold_pass.apply_inputs(instant, arriving)
            yield
    state.pending = [input for input in relevant if input.at > now and (input.is_relevant or state.born is None)]
    if rewinds and state.windows:
        yield from fold_pass.advance_and_rewind(now)
    else:
        yield from fold_pass.advance_time(now)
    return fold_pass.changes


def look_ahead(state: State, ruleset: Ruleset, steps_max: int) -> tuple[State, list[Transition]]:
    """Let time pass for a copy of the state, at up to ``steps_max`` instants; return the copy and its transitions."""
    ahead = msgspec.structs.replace(state)
    _Snapshot(state).restore(ahead)
    fold_pass = _FoldPass(ahead, ruleset, POINTS_UNLIMITED)
    # A window that needs points outside the memory ends the search.
    with suppress(NeedsReplay):
        for _ in islice(fold_pass.advance_time(NEVER), steps_max):
            pass
    return ahead, fold_pass.changes


def flips_at(state: State) -> int | None:
    """Return the earliest instant at which a truth changes or a future message takes effect, or None."""
    due = _find_next_due(state) if state.next_due is None else state.next_due
    if due == NEVER:
        due = None
    if not state.pending:
        return due
    return state.pending[0].at if due is None else min(due, state.pending[0].at)


_instant = attrgetter("at")


def _find_next_due(state: State) -> int | None:
    due: int | None = None
    for truth in state.truths.values():
        until = truth.until
        if until is not None and (due is None or until < due):
            due = until
    return due


def _json_bytes(name: str, value: object) -> int:
    return json_size(name) + json_size(value)


def _input_order(input: Input) -> tuple[int, str, str]:
    return (input.at, input.message_id, input.source)


def _check_not_past(state: State, inputs: Sequence[Input]) -> None:
    """Raise NeedsReplay if a message is not later than the last evaluation of rules.

    Rules are evaluated once for all messages of one instant, so a message of that same instant needs a replay too.
    """
    if state.born is None:
        return
    for input in inputs:
        # A message of the customer's first instant may be the cause of truths that hold from then on, even if no rule
        # reads it.
        if input.at <= state.born or (input.is_relevant and input.at <= state.at):
            raise NeedsReplay
    if state.is_truncated and any(input.is_relevant for input in inputs):
        raise NeedsReplay


class _FoldPass:
    """One pass over time, which changes the state in place and collects the transitions."""

    __slots__ = ("_due", "_evaluations_max", "_has_changed", "changes", "points_max", "ruleset", "state")

    def __init__(
        self, state: State, ruleset: Ruleset, points_max: int, evaluations_max: int = EVALUATIONS_UNLIMITED
    ) -> None:
        self.state = state
        self.ruleset = ruleset
        self.points_max = points_max
        self._evaluations_max = evaluations_max
        self.changes: list[Transition] = []
        self._has_changed = False
        """True if a rule has another result since the attribute was last reset."""
        self._due = [(truth.until, rule) for rule, truth in state.truths.items() if truth.until is not None]
        """Heap of (instant, rule). An entry is outdated if the rule's truth has another ``until`` by now."""
        heapify(self._due)

    def advance_time(self, limit: int) -> Iterator[None]:
        """Evaluate the rules whose truth changes through time alone, up to and including ``limit``."""
        while (instant := self._find_next_due()) is not None and instant <= limit:
            if self.state.is_truncated:
                raise NeedsReplay
            self._decide_rules(instant, dict.fromkeys(self._pop_due(instant), TIME_PASSED))
            self.state.at = instant
            yield

    def advance_and_rewind(self, now: int) -> Iterator[None]:
        """Advance to ``now``, look for the next change, and return to the last change up to ``now``."""
        state = self.state
        snapshot = _Snapshot(state)
        lookahead = 0
        while (instant := self._find_next_due()) is not None and lookahead < LOOKAHEAD_STEPS_MAX:
            if state.is_truncated:
                raise NeedsReplay
            lookahead += instant > now
            changes, self._has_changed = len(self.changes), False
            try:
                self._decide_rules(instant, dict.fromkeys(self._pop_due(instant), TIME_PASSED))
            except NeedsOlderPoints:
                if instant <= now:
                    raise
                break
            state.at = instant
            if self._has_changed and instant > now:
                del self.changes[changes:]
                break
            if self._has_changed:
                snapshot = _Snapshot(state)
            yield
        snapshot.restore(state)
        state.next_due = NEVER if instant is None else instant

    def apply_inputs(self, instant: int, inputs: Sequence[Input]) -> None:
        """Add all messages of one instant, then evaluate the rules once.

        So a state that includes only some of these messages never exists.
        """
        if self.state.is_truncated:
            raise NeedsReplay
        for place, input in enumerate(inputs):
            for leaf in input.leaves:
                self._add_to_series(leaf, instant, place, input)
            if input.traits:
                self._set_traits(input.traits)
        causes = self._find_causes(inputs)
        if self.state.born is None:
            self.state.born = instant
            self._create_customer(instant, causes, _message_cause(inputs[-1]))
        else:
            if self._find_next_due() == instant:
                causes = dict.fromkeys(self._pop_due(instant), TIME_PASSED) | causes
            self._decide_rules(instant, causes)
        self.state.at = instant

    def _find_next_due(self) -> int | None:
        """Return the earliest instant at which a truth changes through time alone, or None."""
        while self._due:
            instant, rule = self._due[0]
            if self.state.truths[rule].until == instant:
                return instant
            heappop(self._due)
        return None

    def _pop_due(self, instant: int) -> list[str]:
        """Return the rules whose truth changes at ``instant``, which is the earliest."""
        rules = []
        while self._find_next_due() == instant:
            rules.append(heappop(self._due)[1])
        return rules

    def _set_truth(self, rule: str, truth: Truth) -> None:
        self.state.truths[rule] = truth
        if truth.until is not None:
            heappush(self._due, (truth.until, rule))

    def _find_causes(self, inputs: Sequence[Input]) -> dict[str, Cause]:
        """Return the rules whose truth the inputs can change, each with the last input that the rule reads."""
        if len(inputs) == 1 and not inputs[0].traits:
            return dict.fromkeys(self.ruleset.rules_reading_leaves(inputs[0].leaves), _message_cause(inputs[0]))
        causes: dict[str, Cause] = {}
        for input in inputs:
            causes |= dict.fromkeys(self.ruleset.rules_reading(input.leaves, input.traits or ()), _message_cause(input))
        return causes

    def _add_to_series(self, leaf_id: str, instant: int, place: int, input: Input) -> None:
        leaf = self.ruleset.leaves.get(leaf_id)
        if leaf is None:
            return  # The message was matched before the definitions changed.
        series = self.state.series.get(leaf_id)
        if series is None:
            series = self.state.series[leaf_id] = Series()
        leaf.add(
            series,
            instant,
            place,
            None if input.leaf_values is None else input.leaf_values.get(leaf_id),
            self.points_max,
        )
        if series.overflowed:
            # The series exceeds its size limit, so only the log contains all its touchpoints.
            raise NeedsReplay

    def _set_traits(self, traits: dict[str, object]) -> None:
        """Set the traits; null removes a trait. Skip values beyond TRAITS_BYTES_MAX, which only the log contains."""
        stored = self.state.traits
        size = sum(_json_bytes(name, value) for name, value in stored.items())
        for name, value in sorted(traits.items()):
            size -= _json_bytes(name, stored.pop(name)) if name in stored else 0
            if value is not None and size + _json_bytes(name, value) <= TRAITS_BYTES_MAX:
                stored[name] = value
                size += _json_bytes(name, value)

    def _create_customer(self, instant: int, causes: dict[str, Cause], first: Cause) -> None:
        """Evaluate all rules at the customer's first message; every truth that holds begins at ``instant``."""
        decided_rules = self.ruleset.sort_rules((*causes, *self.ruleset.decided_at_birth))
        for rule in decided_rules:
            self._set_truth(rule, self.ruleset.evaluate(rule, self.state, instant, instant))
        for rule in dict.fromkeys((*decided_rules, *self.ruleset.true_from_birth)):
            if self._truth_of(rule).holds:
                self._record_segment_change(rule, True, instant, instant, causes.get(rule, first))
        for journey in self.ruleset.stages_of:
            self._update_stage(journey, instant, causes, first)

    def _decide_rules(self, instant: int, causes: dict[str, Cause]) -> None:
        """Evaluate the rules in ``causes``, which maps each rule to the cause of its change."""
        self.state.evaluations += len(causes)
        if self.state.evaluations > self._evaluations_max:
            raise TooManyEvaluations
        journeys: set[str] = set()
        permanent_truths = self.ruleset.permanent_truths
        for rule in self.ruleset.sort_rules(causes) if len(causes) > 1 else causes:
            before = self._truth_of(rule)
            if permanent_truths.get(rule) is before.holds:
                continue
            after = self.ruleset.evaluate(rule, self.state, instant, before.since)
            self._set_truth(rule, after)
            if not after.differs_from(before):
                continue
            self._has_changed = True
            after.since = instant
            if after.holds != before.holds:
                self._record_segment_change(
                    rule, after.holds, instant, instant if after.holds else before.since, causes[rule]
                )
                journeys |= self.ruleset.journeys_of.get(rule, frozenset())
        for journey in sorted(journeys):
            self._update_stage(journey, instant, causes, TIME_PASSED)

    def _update_stage(self, journey: str, instant: int, causes: dict[str, Cause], default: Cause) -> None:
        """Set the current stage, which is the last one in order whose rule holds."""
        stages = self.ruleset.stages_of[journey]
        current = next((stage for stage, rule in reversed(stages) if self._truth_of(rule).holds), None)
        before = self.state.journeys.get(journey)
        if before is not None and before.stage == current:
            return
        cause = self._last_cause([rule for _, rule in stages], causes, default)
        definition = f"journey:{journey}"
        if before is not None and before.stage is not None:
            self.changes.append(Transition(definition, before.stage, False, instant, before.since, cause))
        if current is not None:
            self.changes.append(Transition(definition, current, True, instant, instant, cause))
        self.state.journeys[journey] = StagePosition(current, instant, cause.message_id, cause.source)

    def _last_cause(self, rules: Iterable[str], causes: dict[str, Cause], default: Cause) -> Cause:
        """Return the last message that any of the rules reads; ``default`` if time alone changed them."""
        messages = [causes[rule] for rule in rules if rule in causes and causes[rule] != TIME_PASSED]
        return max(messages, key=_cause_order, default=default)

    def _record_segment_change(self, rule: str, holds: bool, instant: int, since: int, cause: Cause) -> None:
        if rule.startswith("segment:"):
            self.changes.append(Transition(rule, "", holds, instant, since, cause))

    def _truth_of(self, rule: str) -> Truth:
        truth = self.state.truths.get(rule)
        if truth is None:
            assert self.state.born is not None
            return self.ruleset.initial_truth(rule, self.state.born)
        return truth


class _Snapshot:
    """The parts of a state that change through time alone."""

    __slots__ = ("_at", "_journeys", "_truths", "_windows")

    def __init__(self, state: State) -> None:
        self._at = state.at
        self._truths, self._journeys = dict(state.truths), dict(state.journeys)
        self._windows = {key: window.copy() for key, window in state.windows.items()}

    def restore(self, state: State) -> None:
        state.at, state.truths, state.journeys, state.windows = self._at, self._truths, self._journeys, self._windows


def _message_cause(input: Input) -> Cause:
    return Cause("message", input.message_id, input.source)


def _cause_order(cause: Cause) -> tuple[str, str]:
    """Return the sort key of a message among those of one instant."""
    return (cause.message_id or "", cause.source or "")
