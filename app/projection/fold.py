"""A customer's state carried forward in event time. Pure: ``now`` is an argument.

``fold`` is the whole meaning of a customer: a replay is a fold from an empty state over the whole log, live work is
the same fold from where the last one stopped. Between two messages nothing changes but at the ``until`` of a truth,
so time passes by stepping from one to the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final

import msgspec

from app.projection.state import PASSED, Cause, Input, StagePosition, State, json_size
from app.rules.engine.ruleset import Ruleset
from app.rules.engine.series import Series
from app.rules.engine.truth import Truth

POINTS_UNLIMITED: Final = 10**9
"""For folds that have the whole log at hand: their answers never depend on a cap."""

TRAITS_BYTES_MAX: Final = 65_536
"""JSON of all traits of one customer. A trait that does not fit any more is not kept; the log has it."""


class NeedsReplay(Exception):
    """The messages cannot extend this state: they belong into its past."""


class Transition(msgspec.Struct, gc=False, frozen=True):
    """A customer entered (or left) a segment or a stage at ``at``. ``value`` is the stage, empty for a segment.

    ``since`` is when the interval began: ``at`` itself for an entry.
    """

    definition: str
    value: str
    entered: bool
    at: int
    since: int
    cause: Cause


def fold(
    state: State, ruleset: Ruleset, moves: Iterable[Input], now: int, points_max: int = POINTS_UNLIMITED
) -> list[Transition]:
    """Carry ``state`` (changed in place) over ``moves`` to ``now``; returns what changed, in order of time.

    Raises:
        NeedsReplay: a move lies before something that has been decided already, or the state was cut short where it
            would have been asked. ``state`` is then unusable.
    """
    moves = list(moves)
    state.messages += len(moves)
    _refuse_the_past(state, moves)
    waiting = [move for move in (*state.pending, *moves) if move.matters or state.born is None]
    waiting.sort(key=_order)
    walk = _Walk(state, ruleset, points_max)
    for instant, group in groupby(waiting, key=_instant):
        if instant > now:
            break
        # Once there is a customer, what no rule reads changes nothing.
        told = [move for move in group if move.matters or state.born is None]
        if told:
            walk.pass_time(instant - 1)
            walk.arrive(instant, told)
    state.pending = [move for move in waiting if move.at > now and (move.matters or state.born is None)]
    walk.pass_time(now)
    return walk.changes


def flips_at(state: State) -> int | None:
    """The earliest instant at which a truth changes, or a message of the future begins to count."""
    due = _next_due(state)
    if not state.pending:
        return due
    return state.pending[0].at if due is None else min(due, state.pending[0].at)


def cut_short(state: State, points_max: int) -> State:
    """Keep at most ``points_max`` instants of each leaf and messages of the future; the log has the others."""
    for series in state.series.values():
        if series.longest > points_max:
            series.overflow()
            state.cut = True
    return cut_pending(state, points_max)


def cut_pending(state: State, points_max: int) -> State:
    """All that a fold with that cap may have left too long."""
    if len(state.pending) > points_max:
        del state.pending[points_max:]
        state.cut = True
    return state


_instant = attrgetter("at")


def _next_due(state: State) -> int | None:
    due: int | None = None
    for truth in state.truths.values():
        until = truth.until
        if until is not None and (due is None or until < due):
            due = until
    return due


def _size(name: str, value: object) -> int:
    return json_size(name) + json_size(value)


def _order(move: Input) -> tuple[int, str, str]:
    return (move.at, move.message_id, move.source)


def _refuse_the_past(state: State, moves: Sequence[Input]) -> None:
    """Messages of one instant are decided together, so one that comes after that decision needs a replay too."""
    if state.born is None:
        return
    for move in moves:
        # A message of the first instant may be the cause of what held from birth, even if no rule reads it.
        if move.at <= state.born or (move.matters and move.at <= state.at):
            raise NeedsReplay
    if state.cut and any(move.matters for move in moves):
        raise NeedsReplay


class _Walk:
    """One pass over time; the state is its own and the list of changes grows."""

    __slots__ = ("_due", "changes", "points_max", "ruleset", "state")

    def __init__(self, state: State, ruleset: Ruleset, points_max: int) -> None:
        self.state = state
        self.ruleset = ruleset
        self.points_max = points_max
        self.changes: list[Transition] = []
        self._due = _next_due(state)

    def pass_time(self, limit: int) -> None:
        """Let every truth change that changes by itself up to and including ``limit``."""
        while self._due is not None and self._due <= limit:
            if self.state.cut:
                raise NeedsReplay
            instant = self._due
            self._decide(instant, dict.fromkeys(self._changing_at(instant), PASSED))
            self.state.at = instant

    def arrive(self, instant: int, moves: Sequence[Input]) -> None:
        """Take in all messages of one instant, then decide: what holds only between two of them never held."""
        if self.state.cut:
            raise NeedsReplay
        for place, move in enumerate(moves):
            for leaf in move.leaves:
                self._count(leaf, instant, place, move)
            if move.traits:
                self._set_traits(move.traits)
        causes = self._touched(moves)
        if self.state.born is None:
            self.state.born = instant
            self._be_born(instant, causes, _cause(moves[-1]))
        else:
            if self._due == instant:
                causes = dict.fromkeys(self._changing_at(instant), PASSED) | causes
            self._decide(instant, causes)
        self.state.at = instant

    def _changing_at(self, instant: int) -> list[str]:
        return [rule for rule, truth in self.state.truths.items() if truth.until == instant]

    def _touched(self, moves: Sequence[Input]) -> dict[str, Cause]:
        """Rules whose truth the moves may have changed, each with the last of the moves that it reads."""
        if len(moves) == 1 and not moves[0].traits:
            return dict.fromkeys(self.ruleset.rules_reading_leaves(moves[0].leaves), _cause(moves[0]))
        causes: dict[str, Cause] = {}
        for move in moves:
            causes |= dict.fromkeys(self.ruleset.rules_reading(move.leaves, move.traits or ()), _cause(move))
        return causes

    def _count(self, leaf_id: str, instant: int, place: int, move: Input) -> None:
        leaf = self.ruleset.leaves.get(leaf_id)
        if leaf is None:
            return  # a message of the future that waited while the definitions changed
        series = self.state.series.get(leaf_id)
        if series is None:
            series = self.state.series[leaf_id] = Series()
        leaf.add(series, instant, place, None if move.kept is None else move.kept.get(leaf_id), self.points_max)
        if series.overflowed:
            # More points than may be kept: only the log can tell.
            raise NeedsReplay

    def _set_traits(self, traits: dict[str, object]) -> None:
        """Key by key; null removes. What would outgrow the bound on a customer's traits is left to the log."""
        kept = self.state.traits
        size = sum(_size(name, value) for name, value in kept.items())
        for name, value in sorted(traits.items()):
            size -= _size(name, kept.pop(name)) if name in kept else 0
            if value is not None and size + _size(name, value) <= TRAITS_BYTES_MAX:
                kept[name] = value
                size += _size(name, value)

    def _be_born(self, instant: int, causes: dict[str, Cause], first: Cause) -> None:
        """Before its first message a customer was in nothing: whatever holds now was entered now."""
        decided = self.ruleset.in_order((*causes, *self.ruleset.decided_at_birth))
        for rule in decided:
            self.state.truths[rule] = self.ruleset.judge(rule, self.state, instant, instant)
        for rule in dict.fromkeys((*decided, *self.ruleset.true_from_birth)):
            if self._known(rule).holds:
                self._note(rule, True, instant, instant, causes.get(rule, first))
        for journey in self.ruleset.stages_of:
            self._stand(journey, instant, causes, first)
        self._due = _next_due(self.state)

    def _decide(self, instant: int, causes: dict[str, Cause]) -> None:
        """``causes``: the rules to decide, each with why."""
        journeys: set[str] = set()
        lasting = self.ruleset.lasting
        for rule in self.ruleset.in_order(causes) if len(causes) > 1 else causes:
            before = self._known(rule)
            if lasting.get(rule) is before.holds:
                continue
            after = self.ruleset.judge(rule, self.state, instant, before.since)
            self.state.truths[rule] = after
            if not after.differs(before):
                continue
            after.since = instant
            if after.holds != before.holds:
                self._note(rule, after.holds, instant, instant if after.holds else before.since, causes[rule])
                journeys |= self.ruleset.journeys_of.get(rule, frozenset())
        for journey in sorted(journeys):
            self._stand(journey, instant, causes, PASSED)
        self._due = _next_due(self.state)

    def _stand(self, journey: str, instant: int, causes: dict[str, Cause], otherwise: Cause) -> None:
        """The current stage is the last stage in order whose rule holds."""
        stages = self.ruleset.stages_of[journey]
        current = next((stage for stage, rule in reversed(stages) if self._known(rule).holds), None)
        before = self.state.journeys.get(journey)
        if before is not None and before.stage == current:
            return
        cause = self._cause_among([rule for _, rule in stages], causes, otherwise)
        definition = f"journey:{journey}"
        if before is not None and before.stage is not None:
            self.changes.append(Transition(definition, before.stage, False, instant, before.since, cause))
        if current is not None:
            self.changes.append(Transition(definition, current, True, instant, instant, cause))
        self.state.journeys[journey] = StagePosition(current, instant, cause.message_id, cause.source)

    def _cause_among(self, rules: Iterable[str], causes: dict[str, Cause], otherwise: Cause) -> Cause:
        """The last message that any of the rules reads; time alone only where there is none."""
        messages = [causes[rule] for rule in rules if rule in causes and causes[rule] != PASSED]
        return max(messages, key=_place_of_cause, default=otherwise)

    def _note(self, rule: str, holds: bool, instant: int, since: int, cause: Cause) -> None:
        if rule.startswith("segment:"):
            self.changes.append(Transition(rule, "", holds, instant, since, cause))

    def _known(self, rule: str) -> Truth:
        known = self.state.truths.get(rule)
        if known is None:
            assert self.state.born is not None
            return self.ruleset.initial_truth(rule, self.state.born)
        return known


def _cause(move: Input) -> Cause:
    return Cause("message", move.message_id, move.source)


def _place_of_cause(cause: Cause) -> tuple[str, str]:
    """Among the messages of one instant."""
    return (cause.message_id or "", cause.source or "")
