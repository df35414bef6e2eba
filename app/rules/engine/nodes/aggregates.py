# ruff: noqa: ARG002 - all values have the same methods; not every value needs every argument
"""Aggregates over the touchpoints of a leaf: sum, average, extremes, and first, last, distinct and frequent values."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, Final, Protocol, assert_never

from app.rules.engine.json_equality import equality_key, format_instant
from app.rules.engine.nodes.base import EvaluationCache, Facts, ValueNode, earliest_instant
from app.rules.engine.nodes.point_windows import PointWindow
from app.rules.engine.point_series import RunningTotals, add_exactly, divide_exactly
from app.rules.engine.series import EMPTY_SERIES
from app.rules.engine.sliding_window import HEADS_WITHOUT_PATH, AggregateHead, PathHead
from app.rules.engine.value_codec import unpack_value
from app.rules.engine.window import INFINITE
from app.rules.values.decimals import Number, as_number


class Accumulator(Protocol):
    """Computes an aggregate from values, which are added in any order with the index of their touchpoints."""

    def add(self, index: int, value: Any) -> None: ...
    @property
    def result(self) -> Any: ...


class _NumberAccumulator:
    def __init__(self) -> None:
        self.sum: Number = 0
        self.count = 0
        self.least: Number | None = None
        self.most: Number | None = None

    def add(self, index: int, value: Any) -> None:
        number = as_number(value)
        if number is not None:
            self.count += 1
            self.add_number(number)

    def add_number(self, number: Number) -> None:
        raise NotImplementedError


class _Sum(_NumberAccumulator):
    def add_number(self, number: Number) -> None:
        self.sum = add_exactly(self.sum, number)

    @property
    def result(self) -> Any:
        return self.sum


class _Avg(_Sum):
    @property
    def result(self) -> Any:
        return divide_exactly(self.sum, self.count)


class _Min(_NumberAccumulator):
    def add_number(self, number: Number) -> None:
        if self.least is None or number < self.least:
            self.least = number

    @property
    def result(self) -> Any:
        return self.least


class _Max(_NumberAccumulator):
    def add_number(self, number: Number) -> None:
        if self.most is None or number > self.most:
            self.most = number

    @property
    def result(self) -> Any:
        return self.most


class _Distinct:
    def __init__(self) -> None:
        self.keys: set[Hashable] = set()

    def add(self, index: int, value: Any) -> None:
        self.keys.add(equality_key(value))

    @property
    def result(self) -> Any:
        return len(self.keys)


class _First:
    def __init__(self) -> None:
        self.index: int | None = None
        self.result: Any = None

    def add(self, index: int, value: Any) -> None:
        if self.index is None or index < self.index:
            self.index, self.result = index, value


class _Last(_First):
    def add(self, index: int, value: Any) -> None:
        if self.index is None or index > self.index:
            self.index, self.result = index, value


class _MostFrequent:
    """The most frequent value; in a tie, the one that occurred latest."""

    def __init__(self) -> None:
        self.frequencies: dict[Hashable, tuple[int, int, Any]] = {}
        self.best: tuple[int, int, Any] | None = None

    def add(self, index: int, value: Any) -> None:
        key = equality_key(value)
        times, latest, latest_value = self.frequencies.get(key, (0, -1, None))
        if index > latest:
            latest, latest_value = index, value
        frequency = self.frequencies[key] = (times + 1, latest, latest_value)
        if self.best is None or frequency[:2] > self.best[:2]:
            self.best = frequency

    @property
    def result(self) -> Any:
        return None if self.best is None else self.best[2]


class _Count:
    def __init__(self) -> None:
        self.result: Any = 0

    def add(self, index: int, value: Any) -> None:
        self.result += 1


ACCUMULATORS: Final[dict[AggregateHead, Callable[[], Accumulator]]] = {
    "sum": _Sum,
    "avg": _Avg,
    "min": _Min,
    "max": _Max,
    "distinct": _Distinct,
    "first_value": _First,
    "last_value": _Last,
    "most_frequent": _MostFrequent,
    "count": _Count,
    "first_at": _First,
    "last_at": _Last,
}


def read_totals(head: PathHead, totals: RunningTotals | None) -> Any:
    """Return the aggregate over all touchpoints that ever matched, from the running totals."""
    if totals is None:
        return 0 if head in ("sum", "distinct") else None
    match head:
        case "sum":
            return unpack_value(totals.sum)
        case "avg":
            return divide_exactly(unpack_value(totals.sum), totals.number_count)
        case "distinct":
            return len(totals.distinct_values)
        case "most_frequent":
            best = max(
                totals.distinct_values.values(), key=lambda frequency: (frequency.times, frequency.latest), default=None
            )
            return None if best is None else unpack_value(best.value)
        case "first_value":
            return unpack_value(totals.first)
        case "last_value":
            return unpack_value(totals.last)
        case "min":
            return unpack_value(totals.min)
        case "max":
            return unpack_value(totals.max)
        case _:
            assert_never(head)


class LifetimeAggregate(ValueNode):
    """Aggregates all touchpoints of a leaf. Reads the running totals of the series."""

    __slots__ = ("head", "point_window")

    def __init__(self, head: AggregateHead, point_window: PointWindow) -> None:
        self.head, self.point_window = head, point_window

    def evaluate(self, facts: Facts, t: int, cache: EvaluationCache) -> Any:
        series = facts.series.get(self.point_window.leaf_id, EMPTY_SERIES)
        if self.head == "count":
            return series.count
        point_series = series.point_series
        if self.head == "first_at" or self.head == "last_at":
            point = (
                None if point_series is None else point_series.first if self.head == "first_at" else point_series.last
            )
            return None if point is None else format_instant(point[0])
        return read_totals(self.head, None if point_series is None else point_series.totals)


class WindowedAggregate(ValueNode):
    """Aggregates the touchpoints inside a window. Reads them from the points of the series."""

    __slots__ = ("head", "point_window", "sliding_window")

    def __init__(self, head: AggregateHead, point_window: PointWindow) -> None:
        self.head, self.point_window = head, point_window
        self.sliding_window = point_window.slide(head)

    def evaluate(self, facts: Facts, t: int, cache: EvaluationCache) -> Any:
        sliding = self.sliding_window
        state = self.point_window.advance_sliding(sliding, facts, t, cache)
        if sliding is not None and state is not None:
            return sliding.result(state)
        accumulator = ACCUMULATORS[self.head]()
        for index, value in self.values_in_window(facts, t, cache):
            accumulator.add(index, value)
        return accumulator.result

    def values_in_window(self, facts: Facts, t: int, cache: EvaluationCache) -> list[tuple[int, Any]]:
        """Return (index, value) of each touchpoint that is inside the window and has a value."""
        inside, _ = self.point_window.find_intervals(facts, t, cache)
        return list(self._read_values(facts, (interval.position for interval in inside)))

    def _read_values(self, facts: Facts, indexes: Iterable[int]) -> Iterable[tuple[int, Any]]:
        points = self.point_window.points_of(facts)
        for index in indexes:
            value = self._read_value(points[index])
            if value is not None:
                yield index, value

    def _read_value(self, point: list[Any]) -> Any:
        if self.head == "count":
            return True
        return format_instant(point[0]) if self.head in HEADS_WITHOUT_PATH else unpack_value(point[2])

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        state = self.point_window.advance_sliding(self.sliding_window, facts, t, cache)
        if state is not None:
            return state.next_edge
        return self.point_window.next_check_at(facts, t, cache)

    def next_change_at(self, facts: Facts, t: int, cache: EvaluationCache, test: Callable[[Any], bool]) -> int | None:
        """Return an instant after ``t`` before which the result of ``test`` for the aggregate does not change.

        One pass is enough: the touchpoints inside the window are added in reverse order of leaving it. So the partial
        aggregate before each addition is the value after that touchpoint has left the window. For a long series, the
        result is the next instant at which a touchpoint enters or leaves.
        """
        state = self.point_window.advance_sliding(self.sliding_window, facts, t, cache)
        if state is not None:
            return state.next_edge
        inside, later = self.point_window.find_intervals(facts, t, cache)
        points = self.point_window.points_of(facts)
        accumulator = ACCUMULATORS[self.head]()
        changes: list[tuple[int, bool]] = []
        leaving = sorted(inside, key=lambda interval: -interval.leave)
        for number, interval in enumerate(leaving):
            if interval.leave < INFINITE and (number == 0 or leaving[number - 1].leave != interval.leave):
                changes.append((interval.leave, test(accumulator.result)))
            value = self._read_value(points[interval.position])
            if value is not None:
                accumulator.add(interval.position, value)
        holds_now = test(accumulator.result)
        next_leave = next((leave for leave, holds in reversed(changes) if holds is not holds_now), None)
        next_enter = earliest_instant(interval.enter for interval in later)
        return earliest_instant((next_leave, next_enter, self.point_window.operands_next_check_at(facts, t, cache)))
