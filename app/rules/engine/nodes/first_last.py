"""The first or the latest touchpoint of all, and whether that one is inside."""

from __future__ import annotations

from typing import Any

from app.rules.engine.nodes.base import Facts, Memo, Node, earliest
from app.rules.engine.nodes.point_windows import Points
from app.rules.engine.point_series import Point
from app.rules.engine.series import EMPTY
from app.rules.engine.window import INFINITE


class Once(Node):
    __slots__ = ("is_first", "points")

    def __init__(self, rule: dict[str, Any], points: Points, *, is_first: bool) -> None:
        super().__init__(rule)
        self.points, self.is_first = points, is_first

    def place(self, facts: Facts, t: int, memo: Memo) -> int | None:
        """Where it stands among all points that were kept; only for leaves that keep every point."""
        points = self.points.of(facts)
        order = range(len(points)) if self.is_first else range(len(points) - 1, -1, -1)
        return next((place for place in order if self.points.passes(points[place], facts, t, memo)), None)

    def _point(self, facts: Facts, t: int, memo: Memo) -> Point | None:
        record = facts.series.get(self.points.leaf, EMPTY).record
        if record is None:
            return None
        if self.points.deferred:
            place = self.place(facts, t, memo)
            return None if place is None else record.points[place]
        return record.first if self.is_first else record.last

    def _interval(self, facts: Facts, t: int, memo: Memo) -> tuple[int, int]:
        point = self._point(facts, t, memo)
        if point is None:
            return INFINITE, INFINITE
        return self.points.window.compute_interval(point[0], self.points.zone.of(facts))

    def holds(self, facts: Facts, t: int, memo: Memo) -> bool:
        enter, leave = self._interval(facts, t, memo)
        return enter <= t < leave

    def next_check(self, facts: Facts, t: int, memo: Memo) -> int | None:
        enter, leave = self._interval(facts, t, memo)
        edges = [edge for edge in (enter, leave) if t < edge < INFINITE and enter < leave]
        return earliest([*edges, self.points.operands_check(facts, t, memo)])
