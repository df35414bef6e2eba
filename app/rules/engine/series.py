"""What one customer remembers of one leaf: a count and the few instants that its rules can still ask about."""

from __future__ import annotations

from bisect import bisect_right
from typing import Final, NamedTuple

import msgspec

from app.rules.engine.point_series import PointSeries


class Retention(NamedTuple):
    """What a series must keep so that every rule that reads it is answered exactly.

    ``latest`` and ``earliest`` are how many of the latest and earliest instants; ``window`` keeps also every
    instant younger than that many microseconds; ``edges`` are half-open bands ``[a, b)`` of instants that are
    kept one by one and not counted, because whether they lie inside depends on the customer's timezone.
    """

    latest: int
    earliest: int
    window: int | None
    edges: tuple[tuple[int, int], ...]


class Series(msgspec.Struct, array_like=True):
    """Points in ascending order of time. ``overflowed`` says that the cap cost exactness: ask the log instead."""

    count: int = 0
    latest: list[int] = msgspec.field(default_factory=list)
    earliest: list[int] = msgspec.field(default_factory=list)
    edges: list[int] = msgspec.field(default_factory=list)
    overflowed: bool = False
    point_series: PointSeries | None = None
    """Where the touchpoints must be told apart: points with values, running totals, sequences."""

    def add(self, t: int, retention: Retention, points_max: int) -> None:
        """Fold in one touchpoint of instant ``t``, which is not before any folded in earlier."""
        latest, earliest, window, bands = retention
        for start, end in bands:
            if start <= t < end:
                self._add_edge(t, points_max)
                return
        self.count += 1
        if len(self.earliest) < earliest:
            self._add_earliest(t, points_max)
        if latest or window is not None:
            self.latest.append(t)
            self._drop_surplus(t, latest, window, points_max)

    @property
    def longest_length(self) -> int:
        """The length of the longest list; the cap applies to each list by itself."""
        point_weight = 0 if self.point_series is None else self.point_series.weight
        return max(len(self.latest), len(self.earliest), len(self.edges), point_weight)

    def drop_instants(self) -> None:
        """Drop the instants and mark the series as cut: its customer must be replayed from the log."""
        self.overflowed = True
        self.latest.clear()
        self.earliest.clear()
        self.edges.clear()
        self.point_series = None

    def _add_edge(self, t: int, points_max: int) -> None:
        if len(self.edges) < points_max:
            self.edges.append(t)
        else:
            self.overflowed = True

    def _add_earliest(self, t: int, points_max: int) -> None:
        if len(self.earliest) < points_max:
            self.earliest.append(t)
        else:
            self.overflowed = True

    def _drop_surplus(self, t: int, latest: int, window: int | None, points_max: int) -> None:
        points = self.latest
        surplus = len(points) - latest
        if window is not None:
            surplus = min(surplus, bisect_right(points, t - window))
        if len(points) - max(surplus, 0) > points_max:
            surplus = len(points) - points_max
            self.overflowed = True
        if surplus > 0:
            del points[:surplus]


EMPTY_SERIES: Final = Series()
"""What a customer remembers of a leaf that nothing matched. Never add to it."""
