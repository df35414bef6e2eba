# ruff: noqa: ARG002 - all nodes have the same methods; not every node needs every argument
"""Nodes for ``sequence``: one touchpoint for each step, in order, and optionally a kind that must not follow them.

All steps share one leaf. Its values are a bit mask of the steps that the touchpoint matches, then the values of
``same``, then the values for open conditions.

:class:`TrackedSequenceNode` reads the progress that a :class:`SequenceTracker` keeps, so its cost does not depend on
the number of touchpoints. It needs exact lengths and filters that are the same for every customer. For every other
sequence, :class:`SearchedSequenceNode` searches the points, and a fold continues the search with each new point.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

from app.rules.engine.json_equality import digest_value
from app.rules.engine.nodes.base import EvaluationCache, Facts, Node, earliest_instant
from app.rules.engine.nodes.point_windows import (
    PointWindow,
    make_comparison_context,
    operands_next_check_at,
)
from app.rules.engine.operators import CompiledComparison
from app.rules.engine.point_series import Point
from app.rules.engine.sequence_search import STEP_MASK_COLUMN, SequenceSearch
from app.rules.engine.sequence_tracker import SequenceShape, SequenceTracker
from app.rules.engine.series import EMPTY_SERIES
from app.rules.engine.value_codec import unpack_value
from app.rules.engine.window import INFINITE


class OpenStepTest(NamedTuple):
    """An open condition of the filter of one step."""

    bit: int
    column: int
    """Index of the value in a point."""
    comparison: CompiledComparison


class ContinuedSearch(NamedTuple):
    """A search that later evaluations continue while the inputs of its filters stay the same."""

    inputs: tuple[str, ...]
    """Timezone, and digests of the values of the dynamic operands."""
    search: SequenceSearch


class SearchedSequenceNode(Node):
    """Sequence with any window and filter, found in the points of its leaf."""

    __slots__ = ("_is_continued", "open_tests", "point_window", "shape")

    def __init__(
        self,
        rule_json: dict[str, Any],
        point_window: PointWindow,
        shape: SequenceShape,
        open_tests: Sequence[OpenStepTest],
    ) -> None:
        super().__init__(rule_json)
        self.point_window, self.shape, self.open_tests = point_window, shape, tuple(open_tests)
        window = point_window.window
        never_leaves = window.within is None and window.during is None
        self._is_continued = never_leaves or window.before is None or window.before.is_exact
        """False if touchpoints leave the window, and an older one can enter after a younger one: no single choice of
        steps is then the best at all instants."""

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        search, _ = self._search(facts, t, cache)
        return search.find_true(t) is not None

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        """Return when the last true sequence leaves the window, or else when a sequence may become true."""
        search, next_point_enter = self._search(facts, t, cache)
        sequence = search.find_true(t)
        operands = operands_next_check_at((test.comparison for test in self.open_tests), facts, t, cache)
        if sequence is not None:
            return earliest_instant((sequence.leave if sequence.leave < INFINITE else None, operands))
        return earliest_instant((search.next_enter_at(t), next_point_enter, operands))

    def find_matched_indexes(self, facts: Facts, t: int, cache: EvaluationCache) -> list[int]:
        """Return the indexes of the points of the longest-lasting sequence that is true at ``t``, in order of steps.

        The series must have kept every point.
        """
        search, _ = self._search(facts, t, cache)
        sequence = search.find_true(t)
        return [] if sequence is None else sequence.step.positions

    def _search(self, facts: Facts, t: int, cache: EvaluationCache) -> tuple[SequenceSearch, int | None]:
        """Return a search over the points inside the window now or later.

        If the search cannot be continued, return one over the points inside at ``t``, and the instant at which the next
        point enters.
        """
        points = self.point_window.points_of(facts)
        zone = self.point_window.zone.resolve(facts)
        if self._is_continued:
            return self._continue_search(points, facts, t, cache, zone), None
        search = SequenceSearch(self.shape, self.point_window.window, zone)
        next_point_enter: int | None = None
        cache.points_examined += len(points)
        for point in points:
            mask = self._step_mask(point, facts, t, cache, zone)
            enter, _ = self.point_window.window.compute_interval(point[0], zone)
            if enter > t:
                mask &= 1 << self.shape.step_count  # The window does not apply to the closing step.
                if enter < INFINITE:
                    next_point_enter = earliest_instant((next_point_enter, enter))
            search.add(point, mask)
        return search, next_point_enter

    def _continue_search(
        self, points: Sequence[Point], facts: Facts, t: int, cache: EvaluationCache, zone: str
    ) -> SequenceSearch:
        inputs = (zone, *self._digest_operands(facts, t, cache, zone))
        continued = facts.searches.get(self)
        if continued is None or continued.inputs != inputs:
            continued = ContinuedSearch(inputs, SequenceSearch(self.shape, self.point_window.window, zone))
            if points:
                facts.searches[self] = continued
        search = continued.search
        start = 0 if search.latest is None else bisect_right(points, search.latest, key=_order_of)
        cache.points_examined += len(points) - start
        for point in points[start:]:
            search.add(point, self._step_mask(point, facts, t, cache, zone))
        return search

    def _digest_operands(self, facts: Facts, t: int, cache: EvaluationCache, zone: str) -> list[str]:
        context = make_comparison_context(facts, t, zone, t, cache)
        return [
            digest_value(context.resolve_operand(operand))
            for test in self.open_tests
            for operand in test.comparison.dynamic_operands
        ]

    def _step_mask(self, point: Point, facts: Facts, t: int, cache: EvaluationCache, zone: str) -> int:
        mask: int = point[STEP_MASK_COLUMN]
        for bit, column, comparison in self.open_tests:
            if mask & bit and not comparison.holds(
                unpack_value(point[column]), make_comparison_context(facts, point[0], zone, t, cache)
            ):
                mask &= ~bit
        return mask


class TrackedSequenceNode(Node):
    """Sequence that a :class:`SequenceTracker` tracks.

    ``search`` finds the touchpoints of the sequence in a ruleset for explanations, whose series keep every point.
    """

    __slots__ = ("leaf_id", "search", "tracker")

    def __init__(
        self, rule_json: dict[str, Any], leaf_id: str, tracker: SequenceTracker, search: SearchedSequenceNode
    ) -> None:
        super().__init__(rule_json)
        self.leaf_id, self.tracker, self.search = leaf_id, tracker, search

    @property
    def permanent_truth(self) -> bool | None:
        """``True`` without ``within``: nothing ends a completed sequence."""
        return True if self.tracker.within is None else None

    @property
    def next_check_is_exact(self) -> bool:
        """True if the sequence is true from its last step on, so that only its end is ahead."""
        return self.tracker.delay == 0

    def _find_true(self, facts: Facts, t: int) -> tuple[bool, int | None]:
        state = facts.series.get(self.leaf_id, EMPTY_SERIES).sequence
        return (False, None) if state is None else self.tracker.find_true(state, t)

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        return self._find_true(facts, t)[0]

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        return self._find_true(facts, t)[1]


def _order_of(point: Point) -> tuple[int, int]:
    return (point[0], point[1])
