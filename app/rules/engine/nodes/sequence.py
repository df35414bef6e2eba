# ruff: noqa: ARG002 - all nodes have the same methods; not every node needs every argument
"""Nodes for ``sequence``: one touchpoint for each step, in order, and optionally a kind that must not follow them.

All steps share one leaf. The values of its points are a bit mask of the steps that the touchpoint matches, then the
values of ``same``, then the values for open conditions.

A sequence without a window and with exact gaps is tracked by :class:`SequenceTracker` as touchpoints arrive, and the
series keeps only the progress. For every other sequence, :class:`SequenceNode` searches the points in each evaluation.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any, Final, NamedTuple

from app.rules.engine.json_equality import digest_value, equality_key
from app.rules.engine.nodes.base import EvaluationCache, Facts, Node, earliest_instant
from app.rules.engine.nodes.point_windows import PointWindow, make_comparison_context
from app.rules.engine.point_series import Point, PointSeries, SequenceProgress
from app.rules.engine.series import EMPTY_SERIES, Series
from app.rules.engine.value_codec import unpack_value
from app.rules.engine.window import INFINITE
from app.rules.values.calendar import Length

PRUNED_EVERY: Final = 16
"""Number of new combinations of ``same`` values after which a series drops the progress that can no longer continue."""

STEP_MASK_COLUMN: Final = 2
"""Index, in a point, of the bit mask of the steps that the touchpoint matches."""


class Gap(NamedTuple):
    """Allowed time between a step and the previous one: at least ``after``, and less than ``within``."""

    within: Length | None
    after: Length | None


class SequenceShape(NamedTuple):
    """Structure of a sequence, without the filters of its steps."""

    gaps: tuple[Gap, ...]
    """Gap before each positive step. The gap of the first step is empty."""
    closing: Length | None
    """Time after the last positive step in which no touchpoint may match the closing ``not`` step; ``None`` if the
    sequence does not end with a ``not`` step."""
    same_count: int
    """Number of values of ``same``."""

    @property
    def step_count(self) -> int:
        return len(self.gaps)

    @property
    def is_exact(self) -> bool:
        """True if all gaps have exact lengths, which do not depend on a timezone."""
        lengths = [length for gap in self.gaps for length in gap] + [self.closing]
        return all(length is None or length.is_exact for length in lengths)

    def correlation_key(self, point: Point) -> Any:
        """Return a key of the values of ``same``, which is equal for all points of one sequence."""
        if self.same_count == 0:
            return None
        return tuple(
            equality_key(unpack_value(value))
            for value in point[STEP_MASK_COLUMN + 1 : STEP_MASK_COLUMN + 1 + self.same_count]
        )


class StepEnd(NamedTuple):
    """A touchpoint that completes a step, with the best choice of touchpoints for all previous steps.

    The best choice stays inside the window the longest. ``leave`` is the instant at which the first of the touchpoints
    leaves the window, so that the completed steps are lost.
    """

    t: int
    place: int
    leave: int
    next_from: int
    next_before: int
    """The next step must be at ``next_from`` or later, and before ``next_before``."""
    position: int
    """Index of the touchpoint among the points of the leaf."""
    previous: StepEnd | None
    """Completed previous step of the best choice; ``None`` for the first step."""


class StepEndQueue:
    """Touchpoints that complete one step. Finds the touchpoint that the next step should follow."""

    __slots__ = ("_open", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, StepEnd]] = []
        self._open: list[tuple[int, int, StepEnd]] = []

    def add(self, end: StepEnd) -> None:
        heappush(self._waiting, (end.next_from, end.position, end))

    def find_longest_lasting(self, t: int) -> StepEnd | None:
        """Return the completed previous step that a touchpoint at ``t`` may follow, or ``None``.

        If it may follow several, the result is the one that stays inside the window the longest (latest ``leave``).
        ``t`` must not decrease between calls, so each completed step enters and leaves each heap once.
        """
        while self._waiting and self._waiting[0][0] <= t:
            _, index, end = heappop(self._waiting)
            heappush(self._open, (-end.leave, index, end))
        while self._open and self._open[0][2].next_before <= t:
            heappop(self._open)
        return self._open[0][2] if self._open else None


class CompletedSequence(NamedTuple):
    """A completed sequence; the rule is true in [enter, leave)."""

    enter: int
    leave: int
    end: StepEnd


class SequenceNode(Node):
    """Sequence with any window and filter. Each evaluation searches the points inside the window."""

    __slots__ = ("open_tests", "point_window", "shape")

    def __init__(
        self,
        rule_json: dict[str, Any],
        point_window: PointWindow,
        shape: SequenceShape,
        open_tests: Sequence[tuple[int, int, Any]],
    ) -> None:
        super().__init__(rule_json)
        self.point_window, self.shape, self.open_tests = point_window, shape, tuple(open_tests)
        """(bit of the step, index of the value in a point, comparison) of each open condition."""

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        completed, _ = self.find_completed(facts, t, cache)
        return any(sequence.enter <= t < sequence.leave for sequence in completed)

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        """Return when the last true sequence leaves the window, or else when a sequence may become true."""
        completed, next_enter = self.find_completed(facts, t, cache)
        leaves = [sequence.leave for sequence in completed if sequence.enter <= t < sequence.leave]
        if leaves:
            checks = [leave for leave in (max(leaves),) if leave < INFINITE]
        else:
            checks = [sequence.enter for sequence in completed if t < sequence.enter < sequence.leave]
            checks += [] if next_enter is None else [next_enter]
        return earliest_instant([*checks, self.point_window.operands_next_check_at(facts, t, cache)])

    def find_matched_indexes(self, facts: Facts, t: int, cache: EvaluationCache) -> list[int]:
        """Return the indexes of the points of the longest-lasting sequence that is true at ``t``, in order of steps."""
        completed, _ = self.find_completed(facts, t, cache)
        true_now = [sequence for sequence in completed if sequence.enter <= t < sequence.leave]
        if not true_now:
            return []
        end: StepEnd | None = max(true_now, key=lambda sequence: sequence.leave).end
        indexes = []
        while end is not None:
            indexes.append(end.position)
            end = end.previous
        return indexes[::-1]

    def find_completed(
        self, facts: Facts, t: int, cache: EvaluationCache
    ) -> tuple[list[CompletedSequence], int | None]:
        """Return the completed sequences of points inside at ``t``, and the instant at which the next point enters."""
        window, zone = self.point_window.window, self.point_window.zone.resolve(facts)
        progress: dict[Any, tuple[list[StepEndQueue], list[StepEnd]]] = {}
        closing_points: dict[Any, list[tuple[int, int]]] = {}
        next_enter: int | None = None
        closing_bit = 1 << self.shape.step_count
        points = self.point_window.points_of(facts)
        cache.points_examined += len(points)
        for index, point in enumerate(points):
            mask = self._step_mask(point, facts, t, cache)
            if not mask:
                continue
            key = self.shape.correlation_key(point)
            if mask & closing_bit:
                closing_points.setdefault(key, []).append((point[0], point[1]))
            enter, leave = window.compute_interval(point[0], zone)
            if leave <= t or enter >= leave:
                continue
            if enter > t:
                next_enter = enter if next_enter is None or enter < next_enter else next_enter
                continue
            step_ends = progress.get(key)
            if step_ends is None:
                step_ends = progress[key] = ([StepEndQueue() for _ in self.shape.gaps], [])
            self._add_point(point, mask, leave, index, step_ends, facts)
        return self._complete(progress, closing_points, facts), next_enter

    def _step_mask(self, point: Point, facts: Facts, t: int, cache: EvaluationCache) -> int:
        mask: int = point[STEP_MASK_COLUMN]
        for bit, column, comparison in self.open_tests:
            if mask & bit and not comparison.holds(
                unpack_value(point[column]),
                make_comparison_context(facts, point[0], self.point_window.zone.resolve(facts), t, cache),
            ):
                mask &= ~bit
        return mask

    def _add_point(
        self,
        point: Point,
        mask: int,
        leave: int,
        index: int,
        step_ends: tuple[list[StepEndQueue], list[StepEnd]],
        facts: Facts,
    ) -> None:
        """Use the point for every step that it can complete.

        Later steps are tried first, so that one touchpoint never completes two steps of the same sequence.
        """
        queues, last_ends = step_ends
        last = self.shape.step_count - 1
        for step in range(last, -1, -1):
            if not mask & 1 << step:
                continue
            previous: StepEnd | None = None
            if step > 0:
                previous = queues[step - 1].find_longest_lasting(point[0])
                if previous is None:
                    continue
            first_leave = leave if previous is None else min(leave, previous.leave)
            next_step_bounds = self._next_step_bounds(point[0], step, facts)
            end = StepEnd(point[0], point[1], first_leave, *next_step_bounds, index, previous)
            if step == last:
                last_ends.append(end)
            else:
                queues[step].add(end)

    def _next_step_bounds(self, t: int, step: int, facts: Facts) -> tuple[int, int]:
        """Return the half-open interval in which the step after this one must be."""
        if step + 1 == self.shape.step_count:
            return t, INFINITE
        gap, zone = self.shape.gaps[step + 1], self.point_window.zone
        return (
            t if gap.after is None else zone.add(t, gap.after, facts),
            INFINITE if gap.within is None else zone.add(t, gap.within, facts),
        )

    def _complete(
        self,
        progress: dict[Any, tuple[list[StepEndQueue], list[StepEnd]]],
        closing_points: dict[Any, list[tuple[int, int]]],
        facts: Facts,
    ) -> list[CompletedSequence]:
        closing = self.shape.closing
        if closing is None:
            return [CompletedSequence(0, end.leave, end) for _, last_ends in progress.values() for end in last_ends]
        completed = []
        for key, (_, last_ends) in progress.items():
            closing_of_key = closing_points.get(key, [])
            for end in last_ends:
                deadline = self.point_window.zone.add(end.t, closing, facts)
                after = bisect_right(closing_of_key, (end.t, end.place))
                if after == len(closing_of_key) or closing_of_key[after][0] >= deadline:
                    completed.append(CompletedSequence(deadline, end.leave, end))
        return completed


class SequenceTracker(NamedTuple):
    """Tracks a sequence without a window and with exact gaps. It keeps only progress that can still continue."""

    shape: SequenceShape

    def add(self, series: Series, t: int, place: int, values: Sequence[Any]) -> None:
        """Add one touchpoint. ``values`` are the bit mask of steps and the values of ``same``, before encoding."""
        point_series = series.point_series
        assert point_series is not None
        if point_series.sequence_completed:
            return
        shape = self.shape
        mask: int = values[0]
        key = "".join(map(digest_value, values[1 : 1 + shape.same_count]))
        progress = point_series.sequence_progress.get(key)
        if progress is None:
            if not mask & 1:
                return
            if len(point_series.sequence_progress) % PRUNED_EVERY == PRUNED_EVERY - 1:
                self._drop_expired(point_series, t)
            progress = point_series.sequence_progress[key] = SequenceProgress([[] for _ in shape.gaps])
        if shape.closing is not None and progress.pending_end is not None:
            if progress.pending_end[0] + shape.closing.microseconds <= t:
                self._mark_completed(series)
                return
            if mask & 1 << shape.step_count and progress.pending_end < [t, place]:
                progress.pending_end = None
        if self._advance(progress, t, place, mask):
            if shape.closing is None:
                self._mark_completed(series)
            elif progress.pending_end is None:
                progress.pending_end = [t, place]

    def _drop_expired(self, point_series: PointSeries, t: int) -> None:
        """Drop the progress that no later touchpoint can continue."""
        spans = [gap.within and gap.within.microseconds for gap in self.shape.gaps[1:]]
        if None in spans:
            return
        point_series.sequence_progress = {
            key: progress
            for key, progress in point_series.sequence_progress.items()
            if progress.pending_end is not None
            or any(
                ends and ends[-1][0] + span > t for ends, span in zip(progress.step_ends, spans, strict=False) if span
            )
        }

    def _advance(self, progress: SequenceProgress, t: int, place: int, mask: int) -> bool:
        """Record the steps that the touchpoint completes; return whether it completes the last step."""
        last = self.shape.step_count - 1
        is_completed = False
        for step in range(last, -1, -1):
            if mask & 1 << step and (step == 0 or _can_follow(progress.step_ends[step - 1], t, self.shape.gaps[step])):
                if step == last:
                    is_completed = True
                else:
                    self._add_step_end(progress.step_ends[step], t, place, self.shape.gaps[step + 1])
        return is_completed

    def _add_step_end(self, ends: list[Point], t: int, place: int, next_gap: Gap) -> None:
        """Record that a touchpoint completes a step; without a limit on the next gap, the earliest is enough."""
        if next_gap.within is None:
            if not ends:
                ends.append([t, place])
            return
        while ends and ends[0][0] + next_gap.within.microseconds <= t:
            del ends[0]
        ends.append([t, place])

    def _mark_completed(self, series: Series) -> None:
        assert series.point_series is not None
        series.point_series.sequence_completed = True
        series.point_series.sequence_progress = {}


def _can_follow(ends: Sequence[Point], t: int, gap: Gap) -> bool:
    latest = t if gap.after is None else t - gap.after.microseconds
    for end in reversed(ends):
        if end[0] <= latest:
            return gap.within is None or t < end[0] + gap.within.microseconds
    return False


class LifetimeSequenceNode(Node):
    """Sequence that a :class:`SequenceTracker` tracks. Once the sequence is completed, it stays true."""

    __slots__ = ("closing", "leaf_id")

    def __init__(self, rule_json: dict[str, Any], leaf_id: str, closing: Length | None) -> None:
        super().__init__(rule_json)
        self.leaf_id, self.closing = leaf_id, closing

    @property
    def permanent_truth(self) -> bool | None:
        return True

    def _deadlines(self, facts: Facts) -> list[int]:
        point_series = facts.series.get(self.leaf_id, EMPTY_SERIES).point_series
        if point_series is None or self.closing is None:
            return []
        ends = (progress.pending_end for progress in point_series.sequence_progress.values())
        return [end[0] + self.closing.microseconds for end in ends if end is not None]

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        point_series = facts.series.get(self.leaf_id, EMPTY_SERIES).point_series
        if point_series is None:
            return False
        return point_series.sequence_completed or any(deadline <= t for deadline in self._deadlines(facts))

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        return earliest_instant(deadline for deadline in self._deadlines(facts) if deadline > t)
