# ruff: noqa: ARG002 - nodes answer the same questions; not every node needs every argument
"""COUNT: how many touchpoints of a leaf are inside. The common windows need no more than a few instants of a series."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

from app.rules.engine.nodes.base import EvaluationCache, Facts, Node, NodeTimezone, earliest_instant
from app.rules.engine.nodes.point_windows import PointWindow
from app.rules.engine.series import EMPTY_SERIES
from app.rules.engine.window import INFINITE, Span


class CountNode(Node):
    """Counts the touchpoints of one leaf that are inside. Without a window, only new ones change the count."""

    __slots__ = ("high", "leaf_id", "low")

    def __init__(self, rule_json: dict[str, Any], leaf_id: str, low: int, high: int | None) -> None:
        super().__init__(rule_json)
        self.leaf_id, self.low, self.high = leaf_id, low, INFINITE if high is None else high

    @property
    def permanent_truth(self) -> bool | None:
        """A number that only grows stays above its lower bound, and beyond its upper one."""
        if self.high == INFINITE:
            return True
        return False if self.low == 0 else None

    @property
    def next_check_is_exact(self) -> bool:
        return True

    def count(self, facts: Facts, t: int) -> int:
        """How many are inside at ``t``; may saturate one above the largest number that the rule names."""
        return facts.series.get(self.leaf_id, EMPTY_SERIES).count

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        return self.low <= self.count(facts, t) <= self.high

    def is_inside(self, p: int, facts: Facts, t: int) -> bool:
        """Whether a touchpoint of the leaf, of instant ``p``, is in the window at ``t``."""
        return p <= t


class CountWithinNode(CountNode):
    """p <= t < p + within: touchpoints only leave, the oldest first, and the latest ones decide."""

    __slots__ = ("within",)

    def __init__(self, rule_json: dict[str, Any], leaf_id: str, low: int, high: int | None, within: int) -> None:
        super().__init__(rule_json, leaf_id, low, high)
        self.within = within

    @property
    def permanent_truth(self) -> bool | None:
        return None

    def count(self, facts: Facts, t: int) -> int:
        points = facts.series.get(self.leaf_id, EMPTY_SERIES).latest
        return len(points) - bisect_right(points, t - self.within)

    def is_inside(self, p: int, facts: Facts, t: int) -> bool:
        return p <= t < p + self.within

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        points = facts.series.get(self.leaf_id, EMPTY_SERIES).latest
        count = len(points) - bisect_right(points, t - self.within)
        if count < self.low:
            return None
        if count <= self.high:
            return points[-self.low] + self.within if self.low else None
        instant = points[-self.high - 1] + self.within
        # Touchpoints of one instant leave together, which may skip the numbers that would do.
        return instant if len(points) - bisect_right(points, instant - self.within) >= self.low else None


class CountBeforeNode(CountNode):
    """p + before <= t: touchpoints only enter, the oldest first, and the earliest ones decide."""

    __slots__ = ("before",)

    def __init__(self, rule_json: dict[str, Any], leaf_id: str, low: int, high: int | None, before: int) -> None:
        super().__init__(rule_json, leaf_id, low, high)
        self.before = before

    def count(self, facts: Facts, t: int) -> int:
        return bisect_right(facts.series.get(self.leaf_id, EMPTY_SERIES).earliest, t - self.before)

    def is_inside(self, p: int, facts: Facts, t: int) -> bool:
        return p + self.before <= t

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        points = facts.series.get(self.leaf_id, EMPTY_SERIES).earliest
        count = bisect_right(points, t - self.before)
        if count > self.high:
            return None
        if count >= self.low:
            return points[self.high] + self.before if len(points) > self.high else None
        if len(points) < self.low:
            return None
        instant = points[self.low - 1] + self.before
        return instant if bisect_right(points, instant - self.before) <= self.high else None


class CountWithinBeforeNode(CountNode):
    """p + before <= t < p + within: touchpoints enter and leave, so every instant of the window is walked."""

    __slots__ = ("before", "within")

    def __init__(
        self, rule_json: dict[str, Any], leaf_id: str, low: int, high: int | None, *, within: int, before: int
    ) -> None:
        super().__init__(rule_json, leaf_id, low, high)
        self.within, self.before = within, before

    @property
    def permanent_truth(self) -> bool | None:
        return None

    def count(self, facts: Facts, t: int) -> int:
        points = facts.series.get(self.leaf_id, EMPTY_SERIES).latest
        return bisect_right(points, t - self.before) - bisect_right(points, t - self.within)

    def is_inside(self, p: int, facts: Facts, t: int) -> bool:
        return p + self.before <= t < p + self.within

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        points = facts.series.get(self.leaf_id, EMPTY_SERIES).latest
        entered = bisect_right(points, t - self.before)
        left = bisect_right(points, t - self.within)
        holds_now = self.low <= entered - left <= self.high
        while left < len(points):
            instant = points[left] + self.within
            if entered < len(points):
                instant = min(instant, points[entered] + self.before)
            while entered < len(points) and points[entered] + self.before <= instant:
                entered += 1
            while left < len(points) and points[left] + self.within <= instant:
                left += 1
            if (self.low <= entered - left <= self.high) != holds_now:
                return instant
        return None


class CountBetweenDatesNode(CountNode):
    """from <= p < to, with dates that begin in the customer's timezone: only the edges depend on which it is."""

    __slots__ = ("span", "zone")

    def __init__(
        self, rule_json: dict[str, Any], leaf_id: str, low: int, high: int | None, *, span: Span, zone: NodeTimezone
    ) -> None:
        super().__init__(rule_json, leaf_id, low, high)
        self.span, self.zone = span, zone

    @property
    def permanent_truth(self) -> bool | None:
        """None: the customer's timezone may change, and with it what is inside."""
        return None

    def _bounds(self, facts: Facts) -> tuple[int, int]:
        start, end = self.span.bounds_in(self.zone.resolve(facts))
        return -INFINITE if start is None else start, INFINITE if end is None else end

    def count(self, facts: Facts, t: int) -> int:
        series = facts.series.get(self.leaf_id, EMPTY_SERIES)
        if not series.edges:
            return series.count
        start, end = self._bounds(facts)
        return series.count + sum(start <= p < end for p in series.edges)

    def is_inside(self, p: int, facts: Facts, t: int) -> bool:
        start, end = self._bounds(facts)
        return p <= t and start <= p < end


class CountInWindowNode(Node):
    """Any window and any filter: every point is asked when it is inside."""

    __slots__ = ("high", "low", "point_window")

    def __init__(self, rule_json: dict[str, Any], point_window: PointWindow, low: int, high: int | None) -> None:
        super().__init__(rule_json)
        self.point_window, self.low, self.high = point_window, low, INFINITE if high is None else high

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        inside, _ = self.point_window.find_intervals(facts, t, cache)
        return self.low <= len(inside) <= self.high

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        """When enough have left, or enough have entered, for the truth to differ; whichever could be first."""
        inside, later = self.point_window.find_intervals(facts, t, cache)
        count = len(inside)
        if count < self.low:
            check = _nth_earliest((interval.enter for interval in later), self.low - count)
        elif count > self.high:
            check = _nth_earliest((interval.leave for interval in inside), count - self.high)
        else:
            fewer = _nth_earliest((interval.leave for interval in inside), count - self.low + 1) if self.low else None
            more = _nth_earliest((interval.enter for interval in later), self.high - count + 1)
            check = earliest_instant((fewer, more))
        return earliest_instant((check, self.point_window.operands_next_check_at(facts, t, cache)))


def _nth_earliest(instants: Iterable[int], n: int) -> int | None:
    """The n-th earliest of those that ever come."""
    finite = sorted(instant for instant in instants if instant < INFINITE)
    return finite[n - 1] if n <= len(finite) else None
