"""State of a leaf for rules that need more than instants: points with values and running totals.

A point is one touchpoint as a list ``[instant, place, value, ...]``. ``place`` is its position among the messages of
the same instant. The values are encoded by :mod:`app.rules.engine.value_codec`. Points are sorted in the order of
messages: by instant, then by place.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from decimal import Context, Decimal, Inexact
from fractions import Fraction
from typing import Any, Final

import msgspec

from app.rules.engine.json_equality import digest_value
from app.rules.engine.value_codec import PackedValue, pack_value, unpack_value
from app.rules.values.decimals import Number, as_number

Point = list[Any]

CHARS_PER_POINT: Final = 100
"""Number of characters in stored values that count as one additional point towards the size limit of a series."""

SCANNED_POINTS_MAX: Final = 32
"""Longest series whose points the rules scan in each evaluation. Rules read a longer one through a
:class:`~app.rules.engine.sliding_window.SlidingWindow`."""

EXACT_CONTEXT: Final = Context(prec=4_000, traps=[Inexact])
"""Decimal context that never rounds. A number has at most 400 digits, so even a sum of 10^3000 numbers is exact."""


def add_exactly(a: Number, b: Number) -> Number:
    if type(a) is int and type(b) is int:
        return a + b
    return EXACT_CONTEXT.add(Decimal(a), Decimal(b))


def divide_exactly(sum: Number, count: int) -> Number | Fraction | None:
    """Return ``sum / count`` without rounding, as a ``Fraction`` only if no finite decimal equals it."""
    if not count:
        return None
    exact = Fraction(sum) / count
    if exact.denominator == 1:
        return exact.numerator
    remainder = exact.denominator
    for prime in (2, 5):
        while remainder % prime == 0:
            remainder //= prime
    if remainder != 1:
        return exact
    return EXACT_CONTEXT.divide(Decimal(exact.numerator), Decimal(exact.denominator))


class ValueFrequency(msgspec.Struct, array_like=True):
    """One distinct value of a leaf, how often it occurred, and the sequence number of the latest touchpoint with it."""

    value: PackedValue
    times: int
    latest: int


class RunningTotals(msgspec.Struct, array_like=True):
    """Totals over all touchpoints of a leaf that have a value, for aggregates without a window."""

    count: int = 0
    number_count: int = 0
    sum: PackedValue = 0
    min: PackedValue = None
    max: PackedValue = None
    first: PackedValue = None
    last: PackedValue = None
    distinct_values: dict[str, ValueFrequency] = {}
    """Digest of a value -> its frequency. Filled only if a rule reads ``distinct`` or ``most_frequent``."""

    def add(self, value: Any, packed: PackedValue, *, keep_distinct: bool) -> None:
        self.count += 1
        if self.count == 1:
            self.first = packed
        self.last = packed
        number = as_number(value)
        if number is not None:
            self.number_count += 1
            self.sum = pack_value(add_exactly(unpack_value(self.sum), number))
            self.min = pack_value(number) if self.min is None else pack_value(min(unpack_value(self.min), number))
            self.max = pack_value(number) if self.max is None else pack_value(max(unpack_value(self.max), number))
        if keep_distinct:
            digest = digest_value(value)
            frequency = self.distinct_values.get(digest)
            if frequency is None:
                self.distinct_values[digest] = ValueFrequency(packed, 1, self.count)
            else:
                frequency.value, frequency.times, frequency.latest = packed, frequency.times + 1, self.count


class PointRetention(msgspec.Struct, frozen=True):
    """The parts of a point series that the rules of a leaf need; :meth:`union` combines the needs of two rules."""

    all_points: bool = False
    window: int = 0
    """Age in microseconds; the series keeps all younger points. Age is measured from the latest touchpoint."""
    first: bool = False
    last: bool = False
    totals: bool = False
    distinct_values: bool = False
    spacing: int = 0
    """Microseconds; if positive, the series keeps only the first and the last point of each interval of this length.
    The intervals begin at multiples of the length. A rolling period of at least this length that contains a point
    between the two also contains one of them."""

    @property
    def keeps_points(self) -> bool:
        return self.all_points or self.window > 0

    scanned: bool = False
    """True if a rule scans all points in each evaluation, so they must stay in the customer's state."""

    def union(self, other: PointRetention) -> PointRetention:
        return PointRetention(
            self.all_points or other.all_points,
            max(self.window, other.window),
            self.first or other.first,
            self.last or other.last,
            self.totals or other.totals,
            self.distinct_values or other.distinct_values,
            min(retention.spacing for retention in (self, other) if retention.keeps_points)
            if self.keeps_points or other.keeps_points
            else 0,
            self.scanned or other.scanned,
        )


class OlderPoints(msgspec.Struct):
    """Points of one leaf that were moved out of the customer's state: a range of positions without gaps."""

    position: int
    """Position of the first point."""
    points: list[Point]


class PointSeries(msgspec.Struct, array_like=True):
    """Points and running totals of one leaf for one customer."""

    points: list[Point] = []
    first: Point | None = None
    last: Point | None = None
    totals: RunningTotals | None = None
    former_sequence_progress: dict[str, Any] = {}
    former_sequence_completed: bool = False
    """Rows of the previous release use these two positions. Nothing reads them: the rules are backfilled."""
    start: int = 0
    """Position of the first of ``points``: the number of touchpoints before it."""
    older_start: int | None = None
    """Position of the first point that was moved out of the state and that a window may still need; ``None`` if no
    such point exists. All points from there to ``start`` are outside the state."""

    @property
    def oldest(self) -> int:
        """Position of the oldest point that a window can still read."""
        return self.start if self.older_start is None else self.older_start

    @property
    def is_long(self) -> bool:
        """True if rules read the points through a sliding window instead of scanning them."""
        return self.older_start is not None or len(self.points) > SCANNED_POINTS_MAX

    @property
    def weight(self) -> int:
        """Size of the series in points, for the size limit. Long values and other state count as points too."""
        return self.points_weight + self.rest_weight

    @property
    def points_weight(self) -> int:
        return sum(1 + _text_weight(point) for point in self.points)

    @property
    def rest_weight(self) -> int:
        """Size of everything but ``points``."""
        weight = 0
        for point in (self.first, self.last):
            weight += 0 if point is None else _text_weight(point)
        if self.totals is not None:
            weight += sum(
                1 + _text_chars(frequency.value) // CHARS_PER_POINT
                for frequency in self.totals.distinct_values.values()
            )
            weight += sum(_text_chars(value) for value in (self.totals.first, self.totals.last)) // CHARS_PER_POINT
        return weight

    def add(self, t: int, place: int, values: Sequence[Any], retention: PointRetention) -> None:
        """Add a touchpoint, which must not be earlier than those added before. ``values`` are not encoded yet."""
        point: Point = [t, place, *map(pack_value, values)]
        if retention.first and self.first is None:
            self.first = point
        if retention.last:
            self.last = point
        if retention.totals and values[0] is not None:
            if self.totals is None:
                self.totals = RunningTotals()
            self.totals.add(values[0], point[2], keep_distinct=retention.distinct_values)
        if retention.keeps_points:
            self.points.append(point)
            if retention.spacing:
                self._thin_latest(retention.spacing)
            if not retention.all_points:
                self._drop_expired(t - retention.window)

    def take_oldest(self, weight: int) -> OlderPoints:
        """Remove the oldest points up to this size, but at least one, and return them."""
        count, taken_weight = 1, 1 + _text_weight(self.points[0])
        while count < len(self.points):
            taken_weight += 1 + _text_weight(self.points[count])
            if taken_weight > weight:
                break
            count += 1
        older = OlderPoints(self.start, self.points[:count])
        del self.points[:count]
        self.older_start = self.start if self.older_start is None else self.older_start
        self.start += count
        return older

    def prune(self, retention: PointRetention | None) -> PointSeries:
        """Return a copy with only the parts that ``retention`` requires."""
        retention = retention or PointRetention()
        totals = self.totals if retention.totals else None
        if totals is not None and not retention.distinct_values:
            totals = msgspec.structs.replace(totals, distinct_values={})
        pruned = msgspec.structs.replace(
            self,
            points=list(self.points) if retention.keeps_points else [],
            first=self.first if retention.first else None,
            last=self.last if retention.last else None,
            totals=totals,
        )
        if pruned.is_long:
            # How many points a long series keeps in the state depends on when the others were moved.
            pruned.points = pruned.points[-SCANNED_POINTS_MAX:]
        if pruned.points and not retention.all_points:
            pruned.drop_points_until(pruned.points[-1][0] - retention.window)
        if pruned.points and retention.spacing:
            pruned._thin_all(retention)
        pruned.start, pruned.older_start = 0, None
        return pruned

    def _thin_latest(self, spacing: int) -> None:
        """Drop the point before the latest one if both are in one interval with a third."""
        points = self.points
        if len(points) > 2 and points[-3][0] // spacing == points[-1][0] // spacing:
            del points[-2]

    def _thin_all(self, retention: PointRetention) -> None:
        """Keep what remains if each point is thinned as it arrives.

        Whether the first point of the interval in which points expire is still there depends on when older ones were
        thinned, so only the last one of that interval is kept.
        """
        points, spacing = self.points, retention.spacing
        self.points = []
        for point in points:
            self.points.append(point)
            self._thin_latest(spacing)
        expiring = (points[-1][0] - retention.window) // spacing
        if len(self.points) > 1 and self.points[1][0] // spacing == expiring:
            del self.points[0]

    def _drop_expired(self, until: int) -> None:
        """Drop the points at or before the instant ``until``; of a long list, only many at once, which is cheaper."""
        points = self.points
        first = 0 if len(points) <= SCANNED_POINTS_MAX else len(points) // 4
        if points and points[first][0] <= until:
            self.drop_points_until(until)

    def drop_points_until(self, until: int) -> None:
        """Drop the points at or before the instant ``until``."""
        dropped = bisect_right(self.points, until, key=_instant_of)
        if dropped:
            del self.points[:dropped]
            self.start += dropped
            self.older_start = None  # Older points have expired too.


def _instant_of(point: Point) -> int:
    return point[0]  # type: ignore[no-any-return]


def _text_chars(packed: PackedValue) -> int:
    return len(packed) if type(packed) is str else 0


def _text_weight(point: Point) -> int:
    chars = 0
    for value in point[2:]:
        chars += _text_chars(value)
    return chars // CHARS_PER_POINT
