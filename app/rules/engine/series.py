"""State of one leaf for one customer: a count, and the instants that some rule can still need.

A rule such as "at least 2 orders within 90 days" needs only a few of the latest instants. The compiler derives such a
:class:`Retention` from each rule, and merges those of all rules that share the leaf.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final, NamedTuple

import msgspec

from app.rules.engine.point_series import PointSeries
from app.rules.engine.sequence_tracker import SequenceState


class NeedsReplay(Exception):
    """A state cannot be extended, because a message is too old or the state lacks data. The log must be replayed."""


class Retention(NamedTuple):
    """The instants that a series must keep so that all rules that read it stay exact.

    ``latest`` and ``earliest`` are how many of the latest and earliest instants to keep. ``window`` is an age in
    microseconds: the series also keeps all younger instants. ``edges`` are half-open ranges ``[a, b)`` around local
    midnights. Instants in these ranges are stored one by one and not counted, because it depends on the customer's
    timezone whether they are inside the window.
    """

    latest: int
    earliest: int
    window: int | None
    edges: tuple[tuple[int, int], ...]


class Series(msgspec.Struct, array_like=True):
    """State of a leaf; all lists of instants are in ascending order.

    ``overflowed`` is true if a list reached its size limit and lost an instant that a rule may need. Then the customer
    must be replayed from the log.
    """

    count: int = 0
    latest: list[int] = msgspec.field(default_factory=list)
    earliest: list[int] = msgspec.field(default_factory=list)
    edges: list[int] = msgspec.field(default_factory=list)
    overflowed: bool = False
    point_series: PointSeries | None = None
    """State for rules that need more than instants: values of touchpoints and running totals."""
    sequence: SequenceState | None = None
    """State of a tracked sequence."""

    def add(self, t: int, retention: Retention, points_max: int) -> None:
        """Add a touchpoint at the instant ``t``, which must not be earlier than the instants added before.

        ``points_max`` is the size limit of each list.
        """
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
        """Length of the longest list of instants, or the size of the sequence if that is larger.

        The size limit applies to each of them separately.
        """
        sequence_weight = 0 if self.sequence is None else self.sequence.weight
        return max(len(self.latest), len(self.earliest), len(self.edges), sequence_weight)

    def drop_instants(self) -> None:
        """Drop all instants and mark the series as overflowed, so that the customer is replayed from the log."""
        self.overflowed = True
        self.latest.clear()
        self.earliest.clear()
        self.edges.clear()
        self.point_series = self.sequence = None

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
"""Shared series of a leaf without touchpoints. Never add to it."""
