"""Aggregates over the touchpoints inside a moving window, for series that are too long to scan.

A window admits touchpoints in the order of their instants and releases them in the same order. So the touchpoints
inside it are always a range of positions, and a :class:`SlidingState` moves both ends of this range forward as time
passes. Each touchpoint is added once and removed once.

A window with a length in months releases some touchpoints in another order. Before any of them can leave, they wait in
a queue that is ordered by the instant at which they leave.

The position of a touchpoint is the number of touchpoints that were added to its series before it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from operator import attrgetter, itemgetter
from typing import Any, Final, Literal, NamedTuple, Protocol, assert_never

import msgspec

from app.rules.engine.json_equality import digest_value, format_instant
from app.rules.engine.node_timezone import HasTraits, NodeTimezone
from app.rules.engine.point_series import OlderPoints, Point, PointSeries, ValueFrequency, add_exactly, divide_exactly
from app.rules.engine.series import NeedsReplay, Series
from app.rules.engine.value_codec import PackedValue, pack_value, unpack_value
from app.rules.engine.window import EMPTY_INTERVAL, INFINITE, Window
from app.rules.values.decimals import Number, as_number

PathHead = Literal["sum", "avg", "min", "max", "distinct", "first_value", "last_value", "most_frequent"]
"""Heads that aggregate a property."""
AggregateHead = PathHead | Literal["count", "first_at", "last_at"]

HEADS_WITHOUT_PATH: Final = frozenset({"count", "first_at", "last_at"})
"""Heads that aggregate the touchpoints themselves, not a property."""

_VALUE_COLUMN: Final = 2

_QUEUED_PER_ENTRY: Final = 4
"""Number of queued touchpoints that count as one entry of a state towards its size limit."""


class NeedsOlderPoints(NeedsReplay):
    """An evaluation needs points that are not in memory: those of ``leaf_id`` from ``position`` on.

    A replay of the log has all points in memory.
    """

    def __init__(self, leaf_id: str, position: int) -> None:
        super().__init__(leaf_id, position)
        self.leaf_id, self.position = leaf_id, position


class SlidingState(msgspec.Struct, array_like=True):
    """The touchpoints inside a window at one instant: a range of positions, and what their aggregate needs.

    ``first`` and ``next_position`` are the positions of the oldest touchpoint inside and of the next one to enter.
    ``next_leave`` and ``next_enter`` are the instants at which these two leave and enter; ``INFINITE`` means never.
    ``zone`` is the timezone in which the range was computed.
    """

    zone: str
    first: int
    next_position: int
    next_leave: int = INFINITE
    next_enter: int = INFINITE
    count: int = 0
    """Number of touchpoints inside that have a value."""
    number_count: int = 0
    sum: PackedValue = 0
    extremes: list[tuple[int, PackedValue]] = []
    """For ``min`` and ``max``: (position, value) of each touchpoint inside that is more extreme than all later ones. If
    touchpoints leave out of order: (instant of leaving, value), and more extreme than all that leave later."""
    frequencies: dict[str, ValueFrequency] = {}
    """For ``distinct`` and ``most_frequent``: digest of a value -> its frequency. ``latest`` is a position."""
    first_value: PackedValue = None
    last_value: PackedValue = None
    """Value of the oldest and of the latest touchpoint inside that has one; for ``first_at`` and ``last_at`` its
    instant."""
    queue: list[tuple[int, int]] = []
    """Heap of (instant of leaving, position) of touchpoints inside that may leave before an earlier one."""
    next_unqueued: int = 0
    """Position of the oldest touchpoint inside that is not in the queue; used only with the queue."""

    def copy(self) -> SlidingState:
        """Return a copy that shares no mutable part."""
        return msgspec.structs.replace(
            self,
            extremes=list(self.extremes),
            queue=list(self.queue),
            frequencies={digest: msgspec.structs.replace(value) for digest, value in self.frequencies.items()},
        )

    @property
    def weight(self) -> int:
        """Size of the state in entries. Those of the queue are small, and most days it is empty."""
        return len(self.extremes) + len(self.frequencies) + len(self.queue) // _QUEUED_PER_ENTRY

    @property
    def next_edge(self) -> int | None:
        """Return the next instant at which a touchpoint enters or leaves the window."""
        edge = min(self.next_leave, self.next_enter)
        return edge if edge < INFINITE else None


class SlidingFacts(HasTraits, Protocol):
    """The part of a customer's facts that a sliding window reads and changes."""

    @property
    def series(self) -> Mapping[str, Series]: ...
    @property
    def windows(self) -> dict[str, SlidingState]: ...
    @property
    def older_points(self) -> dict[str, list[OlderPoints]]: ...


class SlidingWindow(NamedTuple):
    """A moving window over the points of one leaf, and the aggregate that is computed in it.

    ``key`` identifies the leaf, the window, its timezone and the aggregate, so equal windows of several rules share one
    state.
    """

    key: str
    leaf_id: str
    window: Window
    zone: NodeTimezone
    head: AggregateHead
    uses_zone: bool
    never_releases: bool
    leaves_in_order: bool
    """Properties of ``window``, which every evaluation reads."""

    def advance(self, facts: SlidingFacts, t: int) -> SlidingState:
        """Return the state at ``t``; ``t`` must not decrease from call to call for one customer.

        Raises:
            NeedsOlderPoints: The range moves over points that are not in memory. The state is then unusable.
        """
        point_series = facts.series[self.leaf_id].point_series
        assert point_series is not None
        zone = self.zone.resolve(facts) if self.uses_zone else ""
        state = facts.windows.get(self.key)
        if state is None or state.zone != zone or self._first_unread(state) < point_series.oldest:
            oldest = point_series.oldest
            state = facts.windows[self.key] = SlidingState(zone, oldest, oldest)
        is_entering = state.next_position < point_series.start + len(point_series.points) and (
            state.next_enter <= t or state.next_enter == INFINITE
        )
        if is_entering or state.next_leave <= t:
            points = _Points(self.leaf_id, point_series, facts.older_points.get(self.leaf_id, ()))
            if is_entering:
                self._admit(state, points, t)
            if state.next_leave <= t:
                if self.leaves_in_order:
                    self._release(state, points, t)
                else:
                    self._release_queued(state, points, t)
        return state

    def first_needed(self, facts: SlidingFacts, state: SlidingState) -> int:
        """Return the position of the first point that the window may still read.

        If the window depends on the customer's timezone, that is any point, because the timezone may change.
        """
        point_series = facts.series[self.leaf_id].point_series
        assert point_series is not None
        return point_series.oldest if self.uses_zone else self._first_unread(state)

    def _first_unread(self, state: SlidingState) -> int:
        return state.next_position if self.never_releases else state.first

    def result(self, state: SlidingState) -> Any:
        """Return the value of the aggregate."""
        match self.head:
            case "count":
                return state.count
            case "sum":
                return unpack_value(state.sum)
            case "avg":
                return divide_exactly(unpack_value(state.sum), state.number_count)
            case "min" | "max":
                return unpack_value(state.extremes[0][1]) if state.extremes else None
            case "distinct":
                return len(state.frequencies)
            case "most_frequent":
                best = max(state.frequencies.values(), key=lambda value: (value.times, value.latest), default=None)
                return None if best is None else unpack_value(best.value)
            case "first_value":
                return unpack_value(state.first_value)
            case "last_value":
                return unpack_value(state.last_value)
            case "first_at":
                return _format_optional(state.first_value)
            case "last_at":
                return _format_optional(state.last_value)
            case _:
                assert_never(self.head)

    def find_nth_leave(self, series: Series, state: SlidingState, n: int) -> int | None:
        """Return when the n-th of the touchpoints inside leaves; ``None`` if that is not known."""
        if not self.leaves_in_order:
            return None
        return self._find_edge(series, state.zone, state.first + n - 1, edge=1)

    def find_nth_enter(self, series: Series, state: SlidingState, n: int) -> int | None:
        """Return when the n-th of the touchpoints outside enters; ``None`` if that is unknown without older points."""
        return self._find_edge(series, state.zone, state.next_position + n - 1, edge=0)

    def _find_edge(self, series: Series, zone: str, position: int, edge: int) -> int | None:
        if series.point_series is None or self.window.skips_touchpoints:
            return None
        index = position - series.point_series.start
        if index < 0:
            return None
        if index >= len(series.point_series.points):
            return INFINITE
        return self.window.compute_interval(series.point_series.points[index][0], zone)[edge]

    def _admit(self, state: SlidingState, points: _Points, t: int) -> None:
        while state.next_position < points.end:
            point = points.at(state.next_position)
            enter, leave = self._compute_interval(point, state.zone)
            if enter < leave:
                if enter > t:
                    state.next_enter = enter
                    return
                self._add(state, state.next_position, point, leave)
            state.next_position += 1
        state.next_enter = INFINITE

    def _release(self, state: SlidingState, points: _Points, t: int) -> None:
        while state.count:
            point = points.at(state.first)
            enter, leave = self._compute_interval(point, state.zone)
            if enter < leave:
                if leave > t:
                    state.next_leave, state.first_value = leave, self._packed_value(point)
                    return
                self._remove(state, state.first, point)
            state.first += 1
        state.first = state.next_position
        state.next_leave = INFINITE
        state.first_value = state.last_value = None

    def _release_queued(self, state: SlidingState, points: _Points, t: int) -> None:
        bound = self._enqueue(state, points, t)
        queue, count_before = state.queue, state.count
        while queue and queue[0][0] <= t:
            leave, position = heappop(queue)
            point = points.at(position)
            self._remove(state, position, point, leave)
            if self.head == "most_frequent":
                self._restore_latest(state, points, position, point)
        state.next_leave = min(queue[0][0] if queue else INFINITE, bound)
        if state.count == count_before:
            return
        state.first = min((position for _, position in queue), default=state.next_unqueued)
        if not state.count:
            state.first_value = state.last_value = None
            return
        state.first_value = self._packed_value(points.at(state.first))
        if state.next_unqueued == state.next_position:
            state.last_value = self._packed_value(points.at(max(position for _, position in queue)))

    def _enqueue(self, state: SlidingState, points: _Points, t: int) -> int:
        """Queue the touchpoints after which one may leave up to ``t``; return when the next ones must be queued."""
        while state.next_unqueued < state.next_position:
            point = points.at(state.next_unqueued)
            enter, leave = self._compute_interval(point, state.zone)
            if enter < leave:
                bound = self.window.earliest_leave_from(point[0], leave, state.zone)
                if bound > t:
                    return bound
                heappush(state.queue, (leave, state.next_unqueued))
            state.next_unqueued += 1
        return INFINITE

    def _restore_latest(self, state: SlidingState, points: _Points, position: int, point: Point) -> None:
        """If the latest touchpoint with a value has left before earlier ones, which are all queued, find the latest."""
        digest = digest_value(unpack_value(self._packed_value(point)))
        frequency = state.frequencies.get(digest)
        if frequency is None or frequency.latest != position:
            return
        for _, queued in sorted(state.queue, key=_position_of_queued, reverse=True):
            packed = self._packed_value(points.at(queued))
            if digest_value(unpack_value(packed)) == digest:
                frequency.value, frequency.latest = packed, queued
                return

    def _compute_interval(self, point: Point, zone: str) -> tuple[int, int]:
        """Return [enter, leave), which is empty for a touchpoint without a value."""
        if self.head not in HEADS_WITHOUT_PATH and point[_VALUE_COLUMN] is None:
            return EMPTY_INTERVAL
        return self.window.compute_interval(point[0], zone)

    def _packed_value(self, point: Point) -> PackedValue:
        return point[0] if self.head in HEADS_WITHOUT_PATH else point[_VALUE_COLUMN]  # type: ignore[no-any-return]

    def _add(self, state: SlidingState, position: int, point: Point, leave: int) -> None:
        packed = state.last_value = self._packed_value(point)
        if state.count == 0:
            state.first, state.next_leave, state.first_value = position, leave, packed
            state.next_unqueued = position
        if not self.leaves_in_order:
            bound = self.window.earliest_leave_from(point[0], leave, state.zone)
            state.next_leave = min(state.next_leave, bound)
        state.count += 1
        match self.head:
            case "sum" | "avg":
                number = as_number(unpack_value(packed))
                if number is not None:
                    state.number_count += 1
                    state.sum = pack_value(add_exactly(unpack_value(state.sum), number))
            case "min" | "max":
                number = as_number(unpack_value(packed))
                if number is not None and self.leaves_in_order:
                    self._add_extreme(state.extremes, position, number)
                elif number is not None:
                    self._insert_extreme(state.extremes, leave, number)
            case "distinct" | "most_frequent":
                digest = digest_value(unpack_value(packed))
                frequency = state.frequencies.get(digest)
                state.frequencies[digest] = ValueFrequency(
                    packed, 1 if frequency is None else frequency.times + 1, position
                )
            case "count" | "first_value" | "last_value" | "first_at" | "last_at":
                pass
            case _:
                assert_never(self.head)

    def _add_extreme(self, extremes: list[tuple[int, PackedValue]], position: int, number: Number) -> None:
        while extremes:
            last: Number = unpack_value(extremes[-1][1])
            if last > number if self.head == "max" else last < number:
                break
            extremes.pop()
        extremes.append((position, pack_value(number)))

    def _insert_extreme(self, extremes: list[tuple[int, PackedValue]], leave: int, number: Number) -> None:
        """Insert an extreme by the instant at which it leaves, and delete those that it makes irrelevant."""
        place = bisect_left(extremes, leave, key=_leave_of)
        if place < len(extremes) and self._is_as_extreme(extremes[place][1], number):
            return
        first = place
        while first and not self._is_as_extreme(extremes[first - 1][1], number, strictly=True):
            first -= 1
        last = place
        while last < len(extremes) and extremes[last][0] == leave:
            last += 1
        extremes[first:last] = [(leave, pack_value(number))]

    def _is_as_extreme(self, packed: PackedValue, number: Number, *, strictly: bool = False) -> bool:
        value: Number = unpack_value(packed)
        if value == number:
            return not strictly
        return value > number if self.head == "max" else value < number

    def _remove(self, state: SlidingState, position: int, point: Point, leave: int | None = None) -> None:
        """Remove a touchpoint; ``leave`` is given if it can be out of order."""
        packed = self._packed_value(point)
        state.count -= 1
        match self.head:
            case "sum" | "avg":
                number = as_number(unpack_value(packed))
                if number is not None:
                    state.number_count -= 1
                    rest = add_exactly(unpack_value(state.sum), -number)
                    state.sum = pack_value(rest) if state.number_count else 0
            case "min" | "max":
                key = position if leave is None else leave
                if state.extremes and state.extremes[0][0] <= key:
                    del state.extremes[0]
            case "distinct" | "most_frequent":
                digest = digest_value(unpack_value(packed))
                frequency = state.frequencies[digest]
                frequency.times -= 1
                if not frequency.times:
                    del state.frequencies[digest]
            case "count" | "first_value" | "last_value" | "first_at" | "last_at":
                pass
            case _:
                assert_never(self.head)


def _format_optional(instant: PackedValue) -> str | None:
    return format_instant(instant) if type(instant) is int else None


class _Points:
    """Points of a series by position, whether they are in the state or were moved out of it."""

    __slots__ = ("_leaf_id", "_older", "_series", "end")

    def __init__(self, leaf_id: str, series: PointSeries, older: Sequence[OlderPoints]) -> None:
        self._leaf_id, self._series, self._older = leaf_id, series, older
        self.end = series.start + len(series.points)

    def at(self, position: int) -> Point:
        if position >= self._series.start:
            return self._series.points[position - self._series.start]
        index = bisect_right(self._older, position, key=_position_of) - 1
        if index >= 0 and position - self._older[index].position < len(self._older[index].points):
            return self._older[index].points[position - self._older[index].position]
        raise NeedsOlderPoints(self._leaf_id, position)


_position_of = attrgetter("position")
_leave_of = itemgetter(0)
_position_of_queued = itemgetter(1)
