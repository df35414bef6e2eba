"""Selection of points: tests the open conditions of a filter, and computes the intervals of points in a window."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

from app.rules.engine.node_timezone import NodeTimezone
from app.rules.engine.nodes.base import EvaluationCache, EvaluationLimitExceeded, Facts, ValueNode, earliest_instant
from app.rules.engine.operators import ComparisonContext, CompiledComparison, DynamicOperand
from app.rules.engine.point_series import Point
from app.rules.engine.series import EMPTY_SERIES
from app.rules.engine.sliding_window import AggregateHead, SlidingState, SlidingWindow
from app.rules.engine.value_codec import unpack_value
from app.rules.engine.window import INFINITE, Window

NO_POINTS: tuple[Point, ...] = ()


class ValueOperand(DynamicOperand):
    """Dynamic operand with the compiled value that computes it."""

    __slots__ = ("source",)

    def __init__(self, source: ValueNode) -> None:
        self.source = source


def make_comparison_context(facts: Facts, now: int, zone: str, t: int, cache: EvaluationCache) -> ComparisonContext:
    """Return the context of a comparison within an evaluation at ``t``.

    Date operators compare with ``now``. In a filter it is the instant of the touchpoint; elsewhere it is ``t``.
    """

    def resolve(operand: Any) -> Any:
        key = (id(operand), t)
        if key not in cache.operand_values:
            cache.operand_values[key] = operand.source.evaluate(facts, t, cache)
        return cache.operand_values[key]

    return ComparisonContext(now, zone, resolve)


def operands_next_check_at(
    comparisons: Iterable[CompiledComparison], facts: Facts, t: int, cache: EvaluationCache
) -> int | None:
    """Return an instant after ``t`` before which no dynamic operand changes unless a message arrives."""
    return earliest_instant(
        operand.source.next_check_at(facts, t, cache)
        for comparison in comparisons
        for operand in comparison.dynamic_operands
        if isinstance(operand, ValueOperand)
    )


class OpenCondition(NamedTuple):
    """A condition of a filter that depends on the customer: a date without a timezone, or a dynamic operand."""

    column: int
    """Index of the value in a point."""
    comparison: CompiledComparison


class PointInterval(NamedTuple):
    """[enter, leave) of a touchpoint that is inside the window at ``t`` or later, and its index among the points."""

    enter: int
    leave: int
    position: int


class PointWindow:
    """Selects the points of one leaf by the window and the open conditions of a node."""

    __slots__ = ("_rolling_microseconds", "leaf_id", "open_conditions", "window", "zone")

    def __init__(
        self, leaf_id: str, window: Window, zone: NodeTimezone, open_conditions: Sequence[OpenCondition]
    ) -> None:
        self.leaf_id, self.window, self.zone, self.open_conditions = leaf_id, window, zone, tuple(open_conditions)
        self._rolling_microseconds = None if open_conditions else window.rolling_microseconds

    def slide(self, head: AggregateHead) -> SlidingWindow | None:
        """Return the window for long series; ``None`` if touchpoints may enter out of order."""
        if self.open_conditions or not self.window.enters_in_order:
            return None
        identity = (self.leaf_id, self.window, head, self.zone.own if self.window.uses_zone else None)
        key = blake2b(repr(identity).encode(), digest_size=8).hexdigest()
        window = self.window
        return SlidingWindow(
            key,
            self.leaf_id,
            window,
            self.zone,
            head,
            window.uses_zone,
            window.never_releases,
            window.leaves_in_order,
        )

    def advance_sliding(
        self, sliding: SlidingWindow | None, facts: Facts, t: int, cache: EvaluationCache
    ) -> SlidingState | None:
        """Return the state of the sliding window at ``t``; ``None`` if the points should be scanned.

        Raises:
            EvaluationLimitExceeded: ``t`` is in the future, and a sliding window cannot move back.
        """
        series = None if sliding is None else facts.series.get(self.leaf_id)
        if (
            sliding is None
            or series is None
            or series.point_series is None
            or not series.point_series.is_long
            or cache.scans_points
        ):
            return None
        if t > cache.present:
            raise EvaluationLimitExceeded
        return sliding.advance(facts, t)

    def points_of(self, facts: Facts) -> Sequence[Point]:
        point_series = facts.series.get(self.leaf_id, EMPTY_SERIES).point_series
        return NO_POINTS if point_series is None else point_series.points

    def matches_open_conditions(self, point: Point, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        """Return whether the point satisfies the open conditions; dates are relative to the touchpoint's instant."""
        zone = self.zone.resolve(facts)
        return all(
            comparison.holds(unpack_value(point[column]), make_comparison_context(facts, point[0], zone, t, cache))
            for column, comparison in self.open_conditions
        )

    def find_intervals(
        self, facts: Facts, t: int, cache: EvaluationCache
    ) -> tuple[list[PointInterval], list[PointInterval]]:
        """Return the intervals of the points inside the window at ``t``, and of the points inside it later.

        Both lists are in the order of the points.
        """
        key = (id(self), t)
        intervals: tuple[list[PointInterval], list[PointInterval]] | None = cache.point_intervals.get(key)
        if intervals is None:
            points = self.points_of(facts)
            cache.points_examined += len(points)
            intervals = cache.point_intervals[key] = (
                self._compute_intervals(points, facts, t, cache)
                if self._rolling_microseconds is None
                else (_rolling_intervals(points, t, self._rolling_microseconds), [])
            )
        return intervals

    def _compute_intervals(
        self, points: Sequence[Point], facts: Facts, t: int, cache: EvaluationCache
    ) -> tuple[list[PointInterval], list[PointInterval]]:
        inside: list[PointInterval] = []
        later: list[PointInterval] = []
        zone = self.zone.resolve(facts)
        for index, point in enumerate(points):
            enter, leave = self.window.compute_interval(point[0], zone)
            if (
                leave <= t
                or enter >= leave
                or (self.open_conditions and not self.matches_open_conditions(point, facts, t, cache))
            ):
                continue
            (inside if enter <= t else later).append(PointInterval(enter, leave, index))
        return inside, later

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        """Return the next instant at which a touchpoint enters or leaves the window, or an operand may change."""
        inside, later = self.find_intervals(facts, t, cache)
        edges = [interval.leave for interval in inside if interval.leave < INFINITE]
        edges += [interval.enter for interval in later]
        return earliest_instant([*edges, self.operands_next_check_at(facts, t, cache)])

    def operands_next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        if not self.open_conditions:
            return None
        return operands_next_check_at((comparison for _, comparison in self.open_conditions), facts, t, cache)


def _rolling_intervals(points: Sequence[Point], t: int, within: int) -> list[PointInterval]:
    """Return the intervals for a window with only ``within`` and an exact length: the latest points are inside."""
    first = bisect_right(points, t - within, key=_instant_of)
    return [PointInterval(points[index][0], points[index][0] + within, index) for index in range(first, len(points))]


def _instant_of(point: Point) -> int:
    return point[0]  # type: ignore[no-any-return]
