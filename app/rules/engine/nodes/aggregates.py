# ruff: noqa: ARG002 - values answer the same questions; not every one needs every argument
"""Aggregates of a property over the touchpoints inside a window: figures, first, last and most frequent values."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, Protocol

from app.rules.engine.decimals import Number, as_number
from app.rules.engine.json_equality import equality_key, format_instant
from app.rules.engine.nodes.base import Facts, Memo, Value, earliest
from app.rules.engine.nodes.point_windows import Points
from app.rules.engine.point_series import EXACT, RunningTotals, plus
from app.rules.engine.series import EMPTY
from app.rules.engine.value_codec import unpack_value
from app.rules.engine.window import INFINITE


def ratio(sum: Number, count: int) -> Number | Fraction | None:
    """``sum / count`` without rounding: a Fraction only where no finite decimal is equal to it."""
    if not count:
        return None
    exact = Fraction(sum) / count
    if exact.denominator == 1:
        return exact.numerator
    rest = exact.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest != 1:
        return exact
    return EXACT.divide(Decimal(exact.numerator), Decimal(exact.denominator))


class Accumulator(Protocol):
    """Takes values one by one, in any order, each with its place in the one order of touchpoints."""

    def add(self, place: int, value: Any) -> None: ...
    @property
    def result(self) -> Any: ...


class _Numbers:
    def __init__(self) -> None:
        self.sum: Number = 0
        self.count = 0
        self.least: Number | None = None
        self.most: Number | None = None

    def add(self, place: int, value: Any) -> None:
        number = as_number(value)
        if number is not None:
            self.count += 1
            self.take(number)

    def take(self, number: Number) -> None:
        raise NotImplementedError


class _Sum(_Numbers):
    def take(self, number: Number) -> None:
        self.sum = plus(self.sum, number)

    @property
    def result(self) -> Any:
        return self.sum


class _Avg(_Sum):
    @property
    def result(self) -> Any:
        return ratio(self.sum, self.count)


class _Min(_Numbers):
    def take(self, number: Number) -> None:
        if self.least is None or number < self.least:
            self.least = number

    @property
    def result(self) -> Any:
        return self.least


class _Max(_Numbers):
    def take(self, number: Number) -> None:
        if self.most is None or number > self.most:
            self.most = number

    @property
    def result(self) -> Any:
        return self.most


class _Distinct:
    def __init__(self) -> None:
        self.keys: set[Hashable] = set()

    def add(self, place: int, value: Any) -> None:
        self.keys.add(equality_key(value))

    @property
    def result(self) -> Any:
        return len(self.keys)


class _First:
    def __init__(self) -> None:
        self.place: int | None = None
        self.result: Any = None

    def add(self, place: int, value: Any) -> None:
        if self.place is None or place < self.place:
            self.place, self.result = place, value


class _Last(_First):
    def add(self, place: int, value: Any) -> None:
        if self.place is None or place > self.place:
            self.place, self.result = place, value


class _MostFrequent:
    """Of the values seen most often, the one seen latest; told as it was then."""

    def __init__(self) -> None:
        self.seen: dict[Hashable, tuple[int, int, Any]] = {}
        self.best: tuple[int, int, Any] | None = None

    def add(self, place: int, value: Any) -> None:
        key = equality_key(value)
        times, latest, told = self.seen.get(key, (0, -1, None))
        if place > latest:
            latest, told = place, value
        found = self.seen[key] = (times + 1, latest, told)
        if self.best is None or found[:2] > self.best[:2]:
            self.best = found

    @property
    def result(self) -> Any:
        return None if self.best is None else self.best[2]


class _Count:
    def __init__(self) -> None:
        self.result: Any = 0

    def add(self, place: int, value: Any) -> None:
        self.result += 1


TALLIES: Final[dict[str, Callable[[], Accumulator]]] = {
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
WITHOUT_PATH: Final = frozenset({"count", "first_at", "last_at"})
"""Of the touchpoints themselves, not of a property."""


def of_totals(kind: str, totals: RunningTotals | None) -> Any:
    """The aggregate over everything that ever matched, from running figures."""
    if totals is None:
        return 0 if kind in ("sum", "distinct") else None
    match kind:
        case "sum":
            return unpack_value(totals.sum)
        case "avg":
            return ratio(unpack_value(totals.sum), totals.numbers)
        case "distinct":
            return len(totals.different)
        case "most_frequent":
            best = max(totals.different.values(), key=lambda seen: (seen.times, seen.latest), default=None)
            return None if best is None else unpack_value(best.value)
        case "first_value":
            return unpack_value(totals.first)
        case "last_value":
            return unpack_value(totals.last)
        case "min":
            return unpack_value(totals.min)
        case _:
            return unpack_value(totals.max)


class LifetimeAggregate(Value):
    """Over all touchpoints of a leaf there have been, which running figures answer."""

    __slots__ = ("kind", "points")

    def __init__(self, kind: str, points: Points) -> None:
        self.kind, self.points = kind, points

    def value(self, facts: Facts, t: int, memo: Memo) -> Any:
        series = facts.series.get(self.points.leaf, EMPTY)
        if self.kind == "count":
            return series.count
        record = series.record
        if self.kind in WITHOUT_PATH:
            point = None if record is None else record.first if self.kind == "first_at" else record.last
            return None if point is None else format_instant(point[0])
        return of_totals(self.kind, None if record is None else record.totals)


class Aggregate(Value):
    """Over the touchpoints inside a window."""

    __slots__ = ("kind", "points")

    def __init__(self, kind: str, points: Points) -> None:
        self.kind, self.points = kind, points

    def value(self, facts: Facts, t: int, memo: Memo) -> Any:
        tally = TALLIES[self.kind]()
        for place, value in self.counted(facts, t, memo):
            tally.add(place, value)
        return tally.result

    def counted(self, facts: Facts, t: int, memo: Memo) -> list[tuple[int, Any]]:
        """(place, value) of the touchpoints inside that have one."""
        inside, _ = self.points.spells(facts, t, memo)
        return list(self._valued(facts, (spell.place for spell in inside)))

    def _valued(self, facts: Facts, places: Iterable[int]) -> Iterable[tuple[int, Any]]:
        points = self.points.of(facts)
        for place in places:
            value = self._value_of(points[place])
            if value is not None:
                yield place, value

    def _value_of(self, point: list[Any]) -> Any:
        if self.kind == "count":
            return True
        return format_instant(point[0]) if self.kind in WITHOUT_PATH else unpack_value(point[2])

    def next_check(self, facts: Facts, t: int, memo: Memo) -> int | None:
        return self.points.next_check(facts, t, memo)

    def next_flip(self, facts: Facts, t: int, memo: Memo, test: Callable[[Any], bool]) -> int | None:
        """The next instant at which ``test`` of the value may differ, in one pass.

        Touchpoints are taken in the order in which they leave, the last to leave first: so each figure along the way
        is the value at one instant ahead.
        """
        inside, later = self.points.spells(facts, t, memo)
        points = self.points.of(facts)
        tally = TALLIES[self.kind]()
        flips: list[tuple[int, bool]] = []
        leaving = sorted(inside, key=lambda spell: -spell.leave)
        for number, spell in enumerate(leaving):
            if spell.leave < INFINITE and (number == 0 or leaving[number - 1].leave != spell.leave):
                flips.append((spell.leave, test(tally.result)))
            value = self._value_of(points[spell.place])
            if value is not None:
                tally.add(spell.place, value)
        now = test(tally.result)
        flip = next((leave for leave, truth in reversed(flips) if truth is not now), None)
        entering = earliest(spell.enter for spell in later)
        return earliest((flip, entering, self.points.operands_check(facts, t, memo)))
