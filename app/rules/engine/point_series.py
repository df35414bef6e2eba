"""What one customer remembers of a leaf whose touchpoints must be told apart: points with values, and running totals.

A point is ``[instant, place, value, ...]``: ``place`` is its place among the messages of its instant, the values are
packed (:mod:`app.rules.engine.value_codec`). Points are in the one order of everything.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from decimal import Context, Decimal, Inexact
from typing import Any, Final

import msgspec

from app.rules.engine.decimals import Number, as_number
from app.rules.engine.json_equality import digest_value
from app.rules.engine.value_codec import PackedValue, pack_value, unpack_value

Point = list[Any]

POINT_CHARS: Final = 100
"""A kept value of that many characters weighs as much as a point of its own."""

EXACT: Final = Context(prec=4_000, traps=[Inexact])
"""Numbers have at most 400 digits before and after the point: a sum of 10^3000 of them is exact."""


def plus(one: Number, other: Number) -> Number:
    if type(one) is int and type(other) is int:
        return one + other
    return EXACT.add(Decimal(one), Decimal(other))


class LastSeen(msgspec.Struct, array_like=True):
    """One of the different values of a leaf: how often, and the number of the touchpoint that had it last."""

    value: PackedValue
    times: int
    latest: int


class RunningTotals(msgspec.Struct, array_like=True):
    """Running figures over all touchpoints of a leaf that have a value, for aggregates without a window."""

    count: int = 0
    numbers: int = 0
    sum: PackedValue = 0
    min: PackedValue = None
    max: PackedValue = None
    first: PackedValue = None
    last: PackedValue = None
    different: dict[str, LastSeen] = {}
    """By digest of the value; filled only where some rule asks for different values."""

    def add(self, value: Any, packed: PackedValue, *, keep_different: bool) -> None:
        self.count += 1
        if self.count == 1:
            self.first = packed
        self.last = packed
        number = as_number(value)
        if number is not None:
            self.numbers += 1
            self.sum = pack_value(plus(unpack_value(self.sum), number))
            self.min = pack_value(number) if self.min is None else pack_value(min(unpack_value(self.min), number))
            self.max = pack_value(number) if self.max is None else pack_value(max(unpack_value(self.max), number))
        if keep_different:
            digest = digest_value(value)
            seen = self.different.get(digest)
            if seen is None:
                self.different[digest] = LastSeen(packed, 1, self.count)
            else:
                seen.value, seen.times, seen.latest = packed, seen.times + 1, self.count


class Keeping(msgspec.Struct, frozen=True):
    """What the rules that read a leaf need of its points; the union of what each needs."""

    everything: bool = False
    window: int = 0
    """Points younger than that many microseconds."""
    first: bool = False
    last: bool = False
    totals: bool = False
    different: bool = False

    def union(self, other: Keeping) -> Keeping:
        return Keeping(
            self.everything or other.everything,
            max(self.window, other.window),
            self.first or other.first,
            self.last or other.last,
            self.totals or other.totals,
            self.different or other.different,
        )


class Chains(msgspec.Struct, array_like=True):
    """How far sequences without a window have come, for touchpoints of the same values.

    ``ends[i]`` are the points ``[instant, place]`` at which the first ``i + 1`` steps are done and from which the
    next can still follow; ``unanswered`` is the earliest end of all steps that no closing step has spoiled.
    """

    ends: list[list[Point]]
    unanswered: Point | None = None


class Record(msgspec.Struct, array_like=True):
    points: list[Point] = []
    first: Point | None = None
    last: Point | None = None
    totals: RunningTotals | None = None
    chains: dict[str, Chains] = {}
    done: bool = False
    """A sequence without a window was completed: that stays."""

    @property
    def weight(self) -> int:
        """Points, or what weighs as much."""
        weight = len(self.points) + sum(_weight(point) for point in self.points)
        for point in (self.first, self.last):
            weight += 0 if point is None else _weight(point)
        if self.totals is not None:
            weight += sum(1 + _chars(seen.value) // POINT_CHARS for seen in self.totals.different.values())
            weight += sum(_chars(value) for value in (self.totals.first, self.totals.last)) // POINT_CHARS
        return weight + sum(1 + sum(map(len, chains.ends)) for chains in self.chains.values())

    def add(self, t: int, place: int, kept: Sequence[Any], keeping: Keeping) -> None:
        """Fold in one touchpoint, which is not before any folded in earlier. ``kept`` are its values, not packed."""
        point: Point = [t, place, *map(pack_value, kept)]
        if keeping.first and self.first is None:
            self.first = point
        if keeping.last:
            self.last = point
        if keeping.totals and kept[0] is not None:
            if self.totals is None:
                self.totals = RunningTotals()
            self.totals.add(kept[0], point[2], keep_different=keeping.different)
        if keeping.everything or keeping.window:
            self.points.append(point)
            if not keeping.everything:
                self.forget(t - keeping.window)

    def needed(self, keeping: Keeping | None) -> Record:
        """A copy without what ``keeping`` does not ask for."""
        keeping = keeping or Keeping()
        totals = self.totals if keeping.totals else None
        if totals is not None and not keeping.different:
            totals = msgspec.structs.replace(totals, different={})
        kept = msgspec.structs.replace(
            self,
            points=list(self.points) if keeping.everything or keeping.window else [],
            first=self.first if keeping.first else None,
            last=self.last if keeping.last else None,
            totals=totals,
        )
        if kept.points and not keeping.everything:
            kept.forget(kept.points[-1][0] - keeping.window)
        return kept

    def forget(self, until: int) -> None:
        """Drop the points up to and including that instant."""
        points = self.points
        if points and points[0][0] <= until:
            del points[: bisect_right(points, until, key=_instant)]


def _instant(point: Point) -> int:
    return point[0]  # type: ignore[no-any-return]


def _chars(packed: PackedValue) -> int:
    return len(packed) if type(packed) is str else 0


def _weight(point: Point) -> int:
    chars = 0
    for value in point[2:]:
        chars += _chars(value)
    return chars // POINT_CHARS
