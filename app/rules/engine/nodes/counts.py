# ruff: noqa: ARG002 - all nodes have the same methods; not every node needs every argument
"""Nodes for ``did``: compare the number of touchpoints inside the window with a lowest and a highest count.

Each common kind of window has its own class, which needs only the few instants in the lists of a
:class:`~app.rules.engine.series.Series`. :class:`CountInWindowNode` handles all other windows and needs points.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import Any

from app.rules.engine.node_timezone import NodeTimezone
from app.rules.engine.nodes.base import EvaluationCache, Facts, Node, earliest_instant
from app.rules.engine.nodes.point_windows import PointWindow
from app.rules.engine.series import EMPTY_SERIES
from app.rules.engine.sliding_window import SlidingState
from app.rules.engine.window import INFINITE, Span


class CountNode(Node):
    """Count without a window, which only new touchpoints change. It is also the base of the other counts."""

    __slots__ = ("high", "leaf_id", "low")

    def __init__(self, rule_json: dict[str, Any], leaf_id: str, low: int, high: int | None) -> None:
        super().__init__(rule_json)
        self.leaf_id, self.low, self.high = leaf_id, low, INFINITE if high is None else high

    @property
    def permanent_truth(self) -> bool | None:
        """``True`` for a minimum, ``False`` for a maximum, else ``None``.

        The count only grows, so a minimum stays reached, and a maximum stays exceeded.
        """
        if self.high == INFINITE:
            return True
        return False if self.low == 0 else None

    @property
    def next_check_is_exact(self) -> bool:
        return True

    def count(self, facts: Facts, t: int) -> int:
        """Return the number of touchpoints inside the window at ``t``.

        The result can stop at one more than the highest number in the rule, because the series does not store more
        instants.
        """
        return facts.series.get(self.leaf_id, EMPTY_SERIES).count

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        return self.low <= self.count(facts, t) <= self.high

    def is_inside(self, p: int, facts: Facts, t: int) -> bool:
        """Return whether a touchpoint of the leaf at the instant ``p`` is inside the window at ``t``."""
        return p <= t


class CountWithinNode(CountNode):
    """Count with ``within``: p <= t < p + within. Touchpoints leave in order of age, so the latest instants decide."""

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
        # Touchpoints of one instant leave the window together, so the count may jump from above the upper bound to
        # below the lower bound.
        return instant if len(points) - bisect_right(points, instant - self.within) >= self.low else None


class CountBeforeNode(CountNode):
    """Count with ``before``: p + before <= t. Touchpoints only enter, oldest first, so the earliest instants decide."""

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


class CountBetweenDatesNode(CountNode):
    """Count with dates in the customer's timezone: from <= p < to.

    Only for touchpoints near a midnight of these dates does it depend on the timezone whether they are inside. The
    series stores the instants of these touchpoints (``edges``) and counts the others.
    """

    __slots__ = ("span", "zone")

    def __init__(
        self, rule_json: dict[str, Any], leaf_id: str, low: int, high: int | None, *, span: Span, zone: NodeTimezone
    ) -> None:
        super().__init__(rule_json, leaf_id, low, high)
        self.span, self.zone = span, zone

    @property
    def permanent_truth(self) -> bool | None:
        """Always ``None``: the customer's timezone may change, and then touchpoints near a midnight move."""
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
    """Count with any window and filter. It computes the interval of every point, unless the series is long."""

    __slots__ = ("high", "low", "point_window", "sliding_window")

    def __init__(self, rule_json: dict[str, Any], point_window: PointWindow, low: int, high: int | None) -> None:
        super().__init__(rule_json)
        self.point_window, self.low, self.high = point_window, low, INFINITE if high is None else high
        self.sliding_window = point_window.slide("count")

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        state = self._advance_sliding(facts, t, cache)
        count = len(self.point_window.find_intervals(facts, t, cache)[0]) if state is None else state.count
        return self.low <= count <= self.high

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        """Return the earliest instant at which enough touchpoints can have left or entered to change the truth."""
        state = self._advance_sliding(facts, t, cache)
        if state is not None:
            return self._next_sliding_check_at(facts, state)
        inside, later = self.point_window.find_intervals(facts, t, cache)
        check = self._next_change_at(
            len(inside),
            lambda n: _nth_earliest((interval.leave for interval in inside), n),
            lambda n: _nth_earliest((interval.enter for interval in later), n),
        )
        return earliest_instant((check, self.point_window.operands_next_check_at(facts, t, cache)))

    def _next_change_at(
        self, count: int, nth_leave: Callable[[int], int | None], nth_enter: Callable[[int], int | None]
    ) -> int | None:
        if count < self.low:
            return nth_enter(self.low - count)
        if count > self.high:
            return nth_leave(count - self.high)
        fewer = nth_leave(count - self.low + 1) if self.low else None
        more = nth_enter(self.high - count + 1) if self.high < INFINITE else None
        return earliest_instant((fewer, more))

    def _advance_sliding(self, facts: Facts, t: int, cache: EvaluationCache) -> SlidingState | None:
        return self.point_window.advance_sliding(self.sliding_window, facts, t, cache)

    def _next_sliding_check_at(self, facts: Facts, state: SlidingState) -> int | None:
        """Return the next change if the points that decide it are in memory, else the next enter or leave."""
        sliding, series = self.sliding_window, facts.series[self.point_window.leaf_id]
        assert sliding is not None
        check = self._next_change_at(
            state.count,
            lambda n: _known_or(state.next_leave, sliding.find_nth_leave(series, state, n)),
            lambda n: _known_or(state.next_enter, sliding.find_nth_enter(series, state, n)),
        )
        return check if check is not None and check < INFINITE else None


def _known_or(next_edge: int, edge: int | None) -> int:
    return next_edge if edge is None else edge


def _nth_earliest(instants: Iterable[int], n: int) -> int | None:
    """Return the n-th earliest finite instant, or ``None``."""
    finite = sorted(instant for instant in instants if instant < INFINITE)
    return finite[n - 1] if n <= len(finite) else None
