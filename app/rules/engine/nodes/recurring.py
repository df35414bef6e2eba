"""In at least m of the last n periods: rolling periods that end now."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from app.rules.engine import calendar
from app.rules.engine.nodes.base import Facts, Memo, Node, earliest
from app.rules.engine.nodes.point_windows import Points
from app.rules.engine.point_series import Point
from app.rules.language.durations import MICROSECONDS

_ABOUT: Final = MICROSECONDS["w"]
PERIODS: Final = {"day": MICROSECONDS["d"], "week": MICROSECONDS["w"]}


class Cadence(NamedTuple):
    at_least: int
    of_last: int
    period: str

    @property
    def is_calendar(self) -> bool:
        return self.period not in PERIODS

    @property
    def age_max(self) -> int:
        """How old a touchpoint may be that still counts, at most."""
        if self.is_calendar:
            return calendar.Length(0, self.of_last).max_microseconds
        return self.of_last * PERIODS[self.period]


class Regularly(Node):
    __slots__ = ("pace", "points")

    def __init__(self, rule: dict[str, Any], points: Points, pace: Cadence) -> None:
        super().__init__(rule)
        self.points, self.pace = points, pace

    def matching(self, facts: Facts, t: int, memo: Memo) -> list[Point]:
        points = self.points.of(facts)
        memo.points += len(points)
        if not self.points.deferred:
            return list(points)
        return [point for point in points if self.points.passes(point, facts, t, memo)]

    def hit(self, facts: Facts, t: int, memo: Memo) -> dict[int, list[int]]:
        """Which of the last n periods hold a match: period, counted back from now, to the instants in it."""
        found: dict[int, list[int]] = {}
        edges = self._edges(facts, t) if self.pace.is_calendar else None
        for point in self.matching(facts, t, memo):
            period = self._period_of(point[0], t, edges)
            if period < self.pace.of_last:
                found.setdefault(period, []).append(point[0])
        return found

    def _period_of(self, p: int, t: int, edges: list[int] | None) -> int:
        if edges is None:
            return (t - p) // PERIODS[self.pace.period]
        # Edges descend: period i is (edges[i + 1], edges[i]].
        return bisect_right(edges, -p, key=int.__neg__) - 1

    def _edges(self, facts: Facts, t: int) -> list[int]:
        zone = self.points.zone.of(facts)
        months = range(1, self.pace.of_last + 1)
        return [t, *(calendar.subtract(t, calendar.Length(0, month), zone) for month in months)]

    def holds(self, facts: Facts, t: int, memo: Memo) -> bool:
        return len(self.hit(facts, t, memo)) >= self.pace.at_least

    def next_check(self, facts: Facts, t: int, memo: Memo) -> int | None:
        instants = {point[0] for point in self.matching(facts, t, memo)}
        operands = self.points.operands_check(facts, t, memo)
        if not instants:
            return operands
        if self.pace.is_calendar:
            return earliest((self._next_edge(instants, facts, t), operands))
        return earliest((self._next_crossing(instants, t, len(self.hit(facts, t, memo))), operands))

    def _next_crossing(self, instants: set[int], t: int, periods_hit: int) -> int | None:
        """Touchpoints cross into the next period one after the other; each crossing changes at most one period."""
        length, last = PERIODS[self.pace.period], self.pace.of_last
        ages = {p: (t - p) // length for p in instants}
        in_period: dict[int, int] = {}
        for age in ages.values():
            if age < last:
                in_period[age] = in_period.get(age, 0) + 1
        now = periods_hit >= self.pace.at_least
        # In each round of one period's length every touchpoint crosses once, in the same order.
        order = sorted((p + (ages[p] + 1) * length, p) for p in instants if ages[p] < last)
        for round in range(last):
            for position, (crossing, p) in enumerate(order):
                age = ages[p] + round
                if age < last:
                    in_period[age] -= 1
                    if not in_period[age]:
                        del in_period[age]
                    if age + 1 < last:
                        in_period[age + 1] = in_period.get(age + 1, 0) + 1
                instant = crossing + round * length
                more_now = position + 1 < len(order) and order[position + 1][0] == crossing
                if not more_now and (len(in_period) >= self.pace.at_least) != now:
                    return instant
            if not in_period:
                break
        return None

    def _next_edge(self, instants: set[int], facts: Facts, t: int) -> int | None:
        """The next instant at which a month's edge may pass a touchpoint: exact only for those that are about due."""
        zone = self.points.zone.of(facts)
        about = sorted((when, p, months) for p in instants for when, months in self._about(p, t, zone))
        found: int | None = None
        for when, p, months in about:
            if found is not None and when - _ABOUT > found:
                break
            crossings = (edge for edge in calendar.month_edge_crossings(p, months, zone) if edge > t)
            found = earliest((found, next((edge for edge in crossings if _passes(p, edge, months, zone)), None)))
        return found

    def _about(self, p: int, t: int, zone: str) -> Iterator[tuple[int, int]]:
        """(about when, months) of the edges that ``p`` passes next; clipped days move them by less than a week."""
        first, now = calendar.local_day(p, zone), calendar.local_day(t, zone)
        apart = (now.year - first.year) * 12 + now.month - first.month
        for months in range(max(apart - 1, 1), min(apart + 2, self.pace.of_last) + 1):
            when = calendar.add(p, calendar.Length(0, months), zone)
            if when + _ABOUT > t:
                yield when, months


def _passes(p: int, now: int, months: int, zone: str) -> bool:
    """Whether it is at ``now`` that the edge of so many months ago passes ``p``."""
    length = calendar.Length(0, months)
    return (p <= calendar.subtract(now, length, zone)) != (p <= calendar.subtract(now - 1, length, zone))
