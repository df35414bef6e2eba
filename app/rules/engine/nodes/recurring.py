"""Node for ``regularly``: a touchpoint in at least m of the last n rolling periods, counted back from now."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from app.rules.engine.nodes.base import EvaluationCache, Facts, Node, earliest_instant
from app.rules.engine.nodes.point_windows import PointWindow
from app.rules.engine.point_series import Point
from app.rules.values import calendar
from app.rules.values.durations import MICROSECONDS

_CLIPPING_MAX: Final = MICROSECONDS["w"]
_MONTH_MIN: Final = 26 * MICROSECONDS["d"]
"""Lower bound of the length of a month in microseconds: 28 days, less than two days of which a clock can skip."""

_PERIOD_MICROSECONDS: Final = {"day": MICROSECONDS["d"], "week": MICROSECONDS["w"]}


class Cadence(NamedTuple):
    at_least: int
    of_last: int
    period: str

    @property
    def is_calendar(self) -> bool:
        return self.period not in _PERIOD_MICROSECONDS

    @property
    def age_max(self) -> int:
        """Upper bound of the age of a touchpoint that counts, in microseconds."""
        if self.is_calendar:
            return calendar.Length(0, self.of_last).max_microseconds
        return self.of_last * _PERIOD_MICROSECONDS[self.period]

    @property
    def period_min(self) -> int:
        """Lower bound of the length of a period, in microseconds."""
        return _MONTH_MIN if self.is_calendar else _PERIOD_MICROSECONDS[self.period]


class RecurringNode(Node):
    __slots__ = ("cadence", "point_window")

    def __init__(self, rule_json: dict[str, Any], point_window: PointWindow, cadence: Cadence) -> None:
        super().__init__(rule_json)
        self.point_window, self.cadence = point_window, cadence

    def find_matching_points(self, facts: Facts, t: int, cache: EvaluationCache) -> list[Point]:
        points = self.point_window.points_of(facts)
        cache.points_examined += len(points)
        if not self.point_window.open_conditions:
            return list(points)
        return [point for point in points if self.point_window.matches_open_conditions(point, facts, t, cache)]

    def matches_by_period(self, facts: Facts, t: int, cache: EvaluationCache) -> dict[int, list[int]]:
        """Return the instants of the matching touchpoints by period; period 0 ends at ``t``."""
        instants: dict[int, list[int]] = {}
        edges = self._month_edges(facts, t) if self.cadence.is_calendar else None
        for point in self.find_matching_points(facts, t, cache):
            period = self._period_of(point[0], t, edges)
            if period < self.cadence.of_last:
                instants.setdefault(period, []).append(point[0])
        return instants

    def _period_of(self, p: int, t: int, edges: list[int] | None) -> int:
        if edges is None:
            return (t - p) // _PERIOD_MICROSECONDS[self.cadence.period]
        # The edges are in descending order, and period i is the interval (edges[i + 1], edges[i]].
        return bisect_right(edges, -p, key=int.__neg__) - 1

    def _month_edges(self, facts: Facts, t: int) -> list[int]:
        zone = self.point_window.zone.resolve(facts)
        months = range(1, self.cadence.of_last + 1)
        return [t, *(calendar.subtract(t, calendar.Length(0, month), zone) for month in months)]

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        return len(self.matches_by_period(facts, t, cache)) >= self.cadence.at_least

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        instants = {point[0] for point in self.find_matching_points(facts, t, cache)}
        operands = self.point_window.operands_next_check_at(facts, t, cache)
        if not instants:
            return operands
        if self.cadence.is_calendar:
            return earliest_instant((self._next_edge_change_at(instants, facts, t), operands))
        holds_now = self.holds(facts, t, cache)
        return earliest_instant((self._next_period_change_at(instants, t, holds_now=holds_now), operands))

    def _next_period_change_at(self, instants: set[int], t: int, *, holds_now: bool) -> int | None:
        """Return the exact next change for days and weeks, by simulating how the touchpoints grow older.

        A round lasts as long as one period. In each round every touchpoint crosses once into the next older period, in
        the same order. So after a round, period i + 1 holds what period i held before: a later round is like the first
        with fewer periods, and the number of non-empty periods never grows from one round to the next.
        """
        length = _PERIOD_MICROSECONDS[self.cadence.period]
        ages = {p: (t - p) // length for p in instants}
        crossings = sorted((p + (age + 1) * length, age) for p, age in ages.items() if age < self.cadence.of_last)
        if not holds_now:
            return self._find_crossing(crossings, self.cadence.of_last, holds_now)
        # Search for the first round with a change. In the last one, every touchpoint leaves the oldest period.
        rounds = range(self.cadence.of_last)
        first = bisect_left(rounds, True, key=lambda round: self._changes_in_round(crossings, round))
        instant = self._find_crossing(crossings, self.cadence.of_last - first, holds_now)
        return None if instant is None else instant + first * length

    def _changes_in_round(self, crossings: Sequence[tuple[int, int]], round: int) -> bool:
        return self._find_crossing(crossings, self.cadence.of_last - round, True) is not None

    def _find_crossing(self, crossings: Sequence[tuple[int, int]], periods: int, holds_now: bool) -> int | None:
        """Return the first crossing after which the truth differs, if only the latest ``periods`` count.

        ``crossings`` are (instant, period of the touchpoint before it) in order of time.
        """
        in_period = Counter(age for _, age in crossings if age < periods)
        for position, (crossing, age) in enumerate(crossings):
            if age < periods:
                in_period[age] -= 1
                if not in_period[age]:
                    del in_period[age]
                if age + 1 < periods:
                    in_period[age + 1] += 1
            is_shared_instant = position + 1 < len(crossings) and crossings[position + 1][0] == crossing
            if not is_shared_instant and (len(in_period) >= self.cadence.at_least) != holds_now:
                return crossing
        return None

    def _next_edge_change_at(self, instants: set[int], facts: Facts, t: int) -> int | None:
        """Return the next instant at which a boundary between two month-long periods passes a touchpoint.

        Exact crossings are expensive, so they are computed only for edges whose approximate crossing comes first.
        """
        zone = self.point_window.zone.resolve(facts)
        approximate = sorted(
            (when, p, months) for p in instants for when, months in self._approximate_edges(p, t, zone)
        )
        next_change: int | None = None
        for when, p, months in approximate:
            if next_change is not None and when - _CLIPPING_MAX > next_change:
                break
            crossings = (edge for edge in calendar.month_edge_crossings(p, months, zone) if edge > t)
            passing = next((edge for edge in crossings if _edge_passes_at(p, edge, months, zone)), None)
            next_change = earliest_instant((next_change, passing))
        return next_change

    def _approximate_edges(self, p: int, t: int, zone: str) -> Iterator[tuple[int, int]]:
        """Yield (approximate instant, months) of the edges that pass ``p`` next.

        The exact instant differs by less than a week, because days are cut to the end of a month.
        """
        first, now = calendar.local_day(p, zone), calendar.local_day(t, zone)
        months_between = (now.year - first.year) * 12 + now.month - first.month
        for months in range(max(months_between - 1, 1), min(months_between + 2, self.cadence.of_last) + 1):
            when = calendar.add(p, calendar.Length(0, months), zone)
            if when + _CLIPPING_MAX > t:
                yield when, months


def _edge_passes_at(p: int, now: int, months: int, zone: str) -> bool:
    """Return whether the instant ``months`` before now passes the touchpoint at ``p`` exactly at ``now``."""
    length = calendar.Length(0, months)
    return (p <= calendar.subtract(now, length, zone)) != (p <= calendar.subtract(now - 1, length, zone))
