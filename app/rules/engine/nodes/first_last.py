"""Node for ``first`` and ``last``: selects one touchpoint of all that match, and tests it against the window."""

from __future__ import annotations

from typing import Any

from app.rules.engine.nodes.base import EvaluationCache, Facts, Node, earliest_instant
from app.rules.engine.nodes.point_windows import PointWindow
from app.rules.engine.point_series import Point
from app.rules.engine.series import EMPTY_SERIES
from app.rules.engine.window import INFINITE


class FirstOrLastNode(Node):
    __slots__ = ("is_first", "point_window")

    def __init__(self, rule_json: dict[str, Any], point_window: PointWindow, *, is_first: bool) -> None:
        super().__init__(rule_json)
        self.point_window, self.is_first = point_window, is_first

    def find_index(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        """Return the index of the selected touchpoint among the points. The leaf must keep every point."""
        points = self.point_window.points_of(facts)
        order = range(len(points)) if self.is_first else range(len(points) - 1, -1, -1)
        matches = self.point_window.matches_open_conditions
        return next((index for index in order if matches(points[index], facts, t, cache)), None)

    def _find_point(self, facts: Facts, t: int, cache: EvaluationCache) -> Point | None:
        point_series = facts.series.get(self.point_window.leaf_id, EMPTY_SERIES).point_series
        if point_series is None:
            return None
        if self.point_window.open_conditions:
            index = self.find_index(facts, t, cache)
            return None if index is None else point_series.points[index]
        return point_series.first if self.is_first else point_series.last

    def _compute_interval(self, facts: Facts, t: int, cache: EvaluationCache) -> tuple[int, int]:
        point = self._find_point(facts, t, cache)
        if point is None:
            return INFINITE, INFINITE
        return self.point_window.window.compute_interval(point[0], self.point_window.zone.resolve(facts))

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        enter, leave = self._compute_interval(facts, t, cache)
        return enter <= t < leave

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        enter, leave = self._compute_interval(facts, t, cache)
        edges = [edge for edge in (enter, leave) if t < edge < INFINITE and enter < leave]
        return earliest_instant([*edges, self.point_window.operands_next_check_at(facts, t, cache)])
