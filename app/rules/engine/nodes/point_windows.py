"""The points of one leaf that a node looks at: those that pass what the filter had to leave open, and their window."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from app.rules.engine.nodes.base import Facts, Memo, Value, Zone, earliest
from app.rules.engine.operators import ComparisonContext, CompiledComparison, DynamicOperand
from app.rules.engine.point_series import Point
from app.rules.engine.series import EMPTY
from app.rules.engine.value_codec import unpack_value
from app.rules.engine.window import INFINITE, Window

NO_POINTS: tuple[Point, ...] = ()


class Operand(DynamicOperand):
    """What stands on the right of a comparison and is worked out when that is asked."""

    __slots__ = ("source",)

    def __init__(self, source: Value) -> None:
        self.source = source


def asking(facts: Facts, now: int, zone: str, t: int, memo: Memo) -> ComparisonContext:
    """A comparison at the instant ``now`` (of a touchpoint, or ``t`` itself) for a question about ``t``."""

    def resolve(operand: Any) -> Any:
        key = (id(operand), t)
        if key not in memo.operands:
            memo.operands[key] = operand.source.value(facts, t, memo)
        return memo.operands[key]

    return ComparisonContext(now, zone, resolve)


def operands_check(compared: Iterable[CompiledComparison], facts: Facts, t: int, memo: Memo) -> int | None:
    """Until when no operand of the comparisons changes by itself."""
    return earliest(
        dynamic.source.next_check(facts, t, memo)
        for each in compared
        for dynamic in each.dynamic_operands
        if isinstance(dynamic, Operand)
    )


class Deferred(NamedTuple):
    """A condition of a filter that only the customer can answer: a date without a zone, an operand that is a trait."""

    column: int
    """Where the value stands in a point."""
    comparison: CompiledComparison


class Spell(NamedTuple):
    """A touchpoint that is inside now or will be: from when, until when, and its place among the points."""

    enter: int
    leave: int
    place: int


class Points:
    __slots__ = ("_rolling", "deferred", "leaf", "window", "zone")

    def __init__(self, leaf: str, window: Window, zone: Zone, deferred: Sequence[Deferred]) -> None:
        self.leaf, self.window, self.zone, self.deferred = leaf, window, zone, tuple(deferred)
        self._rolling = None if deferred else window.rolling_microseconds

    def of(self, facts: Facts) -> Sequence[Point]:
        record = facts.series.get(self.leaf, EMPTY).record
        return NO_POINTS if record is None else record.points

    def passes(self, point: Point, facts: Facts, t: int, memo: Memo) -> bool:
        """Whether the point satisfies what the filter left open. Dates are relative to the touchpoint's own instant."""
        zone = self.zone.of(facts)
        return all(
            compared.holds(unpack_value(point[column]), asking(facts, point[0], zone, t, memo))
            for column, compared in self.deferred
        )

    def spells(self, facts: Facts, t: int, memo: Memo) -> tuple[list[Spell], list[Spell]]:
        """(inside at ``t``, inside later), each in the order of the points."""
        key = (id(self), t)
        known: tuple[list[Spell], list[Spell]] | None = memo.spells.get(key)
        if known is None:
            points = self.of(facts)
            memo.points += len(points)
            known = memo.spells[key] = (
                self._spells(points, facts, t, memo)
                if self._rolling is None
                else (_rolled(points, t, self._rolling), [])
            )
        return known

    def _spells(self, points: Sequence[Point], facts: Facts, t: int, memo: Memo) -> tuple[list[Spell], list[Spell]]:
        inside: list[Spell] = []
        later: list[Spell] = []
        zone = self.zone.of(facts)
        for place, point in enumerate(points):
            enter, leave = self.window.compute_interval(point[0], zone)
            if leave <= t or enter >= leave or (self.deferred and not self.passes(point, facts, t, memo)):
                continue
            (inside if enter <= t else later).append(Spell(enter, leave, place))
        return inside, later

    def next_check(self, facts: Facts, t: int, memo: Memo) -> int | None:
        """The next instant at which a touchpoint enters or leaves, or an operand changes."""
        inside, later = self.spells(facts, t, memo)
        edges = [spell.leave for spell in inside if spell.leave < INFINITE] + [spell.enter for spell in later]
        return earliest([*edges, self.operands_check(facts, t, memo)])

    def operands_check(self, facts: Facts, t: int, memo: Memo) -> int | None:
        if not self.deferred:
            return None
        return operands_check((compared for _, compared in self.deferred), facts, t, memo)


def _rolled(points: Sequence[Point], t: int, within: int) -> list[Spell]:
    """The same for the commonest window, of which the latest points are inside."""
    first = bisect_right(points, t - within, key=_instant)
    return [Spell(points[place][0], points[place][0] + within, place) for place in range(first, len(points))]


def _instant(point: Point) -> int:
    return point[0]  # type: ignore[no-any-return]
