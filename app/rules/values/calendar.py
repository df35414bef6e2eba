"""Calendar arithmetic in a timezone: adds months, finds days, weeks, months and years, and reads local hours.

An instant (``p``, ``v``, ``now``) is an integer: microseconds since 1970-01-01 UTC, within the years 1 to 9999. Results
outside these years are clamped to their first or last instant, so no function overflows. A zone is a name from the
IANA database. A wall time is what a local clock shows, as microseconds since 1970-01-01 on that clock.
"""

from __future__ import annotations

from calendar import monthrange
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Final, Literal, NamedTuple, assert_never

from app.rules.values import durations
from app.rules.values.durations import EARLIEST, LATEST, MICROSECONDS

_PeriodUnit = Literal["day", "week", "month", "year"]
_PERIODS: Final[dict[str, tuple[bool, _PeriodUnit]]] = {
    "today": (True, "day"),
    "yesterday": (False, "day"),
    "this_week": (True, "week"),
    "last_week": (False, "week"),
    "this_month": (True, "month"),
    "last_month": (False, "month"),
    "this_year": (True, "year"),
    "last_year": (False, "year"),
}
"""Value of ``during`` -> (whether it means the current period or the previous one, unit of the period)."""

PERIODS: Final = tuple(_PERIODS)

_DAY: Final = MICROSECONDS["d"]
_HOUR: Final = MICROSECONDS["h"]
_MONTHS: Final = {"mo": 1, "y": 12}
_MONTHS_MAX: Final = 1_200
_EPOCH: Final = datetime(1970, 1, 1)
_EPOCH_DAY: Final = _EPOCH.toordinal()
_MICROSECOND: Final = timedelta(microseconds=1)
_CACHED_SHIFTS: Final = 4_096
"""Number of results that are kept: all rules with one length shift the same touchpoint."""

_OFFSET_CHANGE_MAX: Final = 2 * _DAY
"""Microseconds; longer than any change of a UTC offset, which is at most a day (Samoa skipped one in 2011)."""

_REORDERED_MAX: Final = 4 * _DAY + 2 * _OFFSET_CHANGE_MAX
"""Microseconds; longer than the time by which adding months can reverse the order of two instants."""


class Length(NamedTuple):
    """A length of time: exact microseconds or calendar months. The other field is 0."""

    microseconds: int
    months: int

    @property
    def is_exact(self) -> bool:
        return self.months == 0

    @property
    def max_microseconds(self) -> int:
        """Upper bound of the length in microseconds, from every start and in every timezone."""
        return self.microseconds if self.is_exact else self.months * 31 * _DAY + _OFFSET_CHANGE_MAX


@lru_cache(maxsize=1024)
def parse_length(text: str) -> Length:
    """Parse a length such as ``"90d"``, ``"3mo"`` or ``"1y"``, up to 100 years.

    Raises ``ValueError`` with a message for the author of the rule.
    """
    number, unit = durations.split_length(text)
    if unit not in _MONTHS:
        return Length(durations.parse_exact_length(text), 0)
    months = number * _MONTHS[unit]
    if months > _MONTHS_MAX:
        raise ValueError("the length is longer than 100 years")
    return Length(0, months)


def add(p: int, length: Length, zone: str) -> int:
    """Return the instant ``length`` after ``p``.

    Months are added to the wall time. If the month is too short, the result is its last day. A wall time that the local
    clock skips moves forward by the skipped time. If the clock shows a wall time twice, the result is the first.
    """
    return _clamp(p + length.microseconds) if length.is_exact else _shift_months(p, length.months, zone)


@lru_cache(maxsize=_CACHED_SHIFTS)
def earliest_from(p: int, length: Length, zone: str) -> int:
    """Return a lower bound of ``add(q, length, zone)`` for every ``q`` from ``p`` on.

    A month that is too short maps up to four days to one, where the time of day decides. A change of the UTC offset can
    also reverse the order of two instants; near one, the bound is some days too early.
    """
    moved = add(p, length, zone)
    if length.is_exact:
        return moved
    near_p = _offset_changes(p, p + _OFFSET_CHANGE_MAX, zone)
    if near_p or _offset_changes(moved - _OFFSET_CHANGE_MAX, moved + _OFFSET_CHANGE_MAX, zone):
        return _clamp(moved - _REORDERED_MAX)
    return min(moved, add(end_of_day(local_day(p, zone), zone), length, zone))


def subtract(p: int, length: Length, zone: str) -> int:
    """Return the instant ``length`` before ``p``, with the same rules as ``add``.

    It does not invert ``add`` if ``add`` moved a day to the end of a shorter month.
    """
    return _clamp(p - length.microseconds) if length.is_exact else _shift_months(p, -length.months, zone)


# ------------------------------------------------------------------------------------- days and periods


def start_of_day(day: date, zone: str) -> int:
    """Return the first instant of the local ``day``."""
    try:
        return durations.first_instant_of_day(day, zone)
    except OverflowError:  # In UTC the day begins in the year 0 or 10000.
        return EARLIEST if day.year == 1 else LATEST


def end_of_day(day: date, zone: str) -> int:
    """Return the first instant after the local ``day``."""
    return _start_of_ordinal(day.toordinal() + 1, zone)


@lru_cache(maxsize=16_384)
def local_day(p: int, zone: str) -> date:
    """Return the local day that contains ``p``.

    A day begins at its first instant and ends where the next day begins. So if the clock is set back across midnight
    and shows the end of the previous day a second time, that hour belongs to the day that has already begun.
    """
    day = _EPOCH_DAY + wall_time(p, zone) // _DAY
    while p >= _start_of_ordinal(day + 1, zone) and day < date.max.toordinal():
        day += 1
    while p < _start_of_ordinal(day, zone) and day > 1:
        day -= 1
    return date.fromordinal(day)


@lru_cache(maxsize=16_384)
def period_bounds(word: str, p: int, zone: str) -> tuple[int, int]:
    """Return the half-open interval of ``now`` in which ``p`` is in the period ``word``, one of ``PERIODS``.

    Example: ``p`` is in ``yesterday`` during the local day after its own day. The interval is empty if the timezone
    skipped that day.
    """
    is_current, unit = _PERIODS[word]
    day = local_day(p, zone)
    next_start = _start_of_ordinal(_first_day_after(day, unit), zone)
    if is_current:
        return p, next_start
    next_end = _first_day_after(date.fromordinal(min(_first_day_after(day, unit), date.max.toordinal())), unit)
    return next_start, _start_of_ordinal(next_end, zone)


def _first_day_after(day: date, unit: _PeriodUnit) -> int:
    """Return the ordinal of the first day after the period that contains ``day``; it may be after the year 9999."""
    match unit:
        case "day":
            return day.toordinal() + 1
        case "week":
            return day.toordinal() + 7 - day.weekday()
        case "month":
            return day.toordinal() + monthrange(day.year, day.month)[1] - day.day + 1
        case "year":
            return date(day.year, 12, 31).toordinal() + 1
        case _:
            assert_never(unit)


def _start_of_ordinal(ordinal: int, zone: str) -> int:
    if not 1 <= ordinal <= date.max.toordinal():
        return EARLIEST if ordinal < 1 else LATEST
    return start_of_day(date.fromordinal(ordinal), zone)


def is_weekend(p: int, zone: str) -> bool:
    return local_day(p, zone).weekday() >= 5


def in_hours(p: int, a: int, b: int, zone: str) -> bool:
    """Return whether the local clock at ``p`` shows an hour from ``a`` until before ``b``, past midnight if a > b."""
    clock = wall_time(p, zone) % _DAY
    if a < b:
        return a * _HOUR <= clock < b * _HOUR
    return clock >= a * _HOUR or clock < b * _HOUR


# -------------------------------------------- instants at which comparisons with now plus a length change


def length_crossings(v: int, length: Length, zone: str) -> tuple[int, ...]:
    """Return candidates, in ascending order, for the instants ``now`` at which ``v <= add(now, length, zone)`` changes.

    The result contains all such instants. At some of the others nothing changes.
    """
    return (_clamp(v - length.microseconds),) if length.is_exact else _shift_crossings(v, length.months, zone)


def month_edge_crossings(p: int, i: int, zone: str) -> tuple[int, ...]:
    """Return candidates, in ascending order, for the instants ``now`` at which ``p <= now minus i months`` changes.

    The result contains all such instants. At some of the others nothing changes.
    """
    return (p,) if i == 0 else _shift_crossings(p, -i, zone)


@lru_cache(maxsize=4096)
def _shift_crossings(v: int, months: int, zone: str) -> tuple[int, ...]:
    """Return candidates for the instants ``now`` at which ``v <= now shifted by months`` changes.

    As ``now`` advances, the shifted instant advances equally. It jumps only at local midnight (because days are cut to
    the end of a month), when the UTC offset changes near ``now``, and when it passes a change of the offset itself. So
    it reaches ``v`` either at a jump, or when the local clock at ``now`` shows the time of day of ``v``, with any
    offset in use around ``v``. Cut days and offsets move the day by less than a week, so a few days around ``v`` minus
    ``months`` contain all candidates.
    """
    changes = _offset_changes(v - _OFFSET_CHANGE_MAX, v + _OFFSET_CHANGE_MAX, zone)
    offsets = {utc_offset(instant, zone) for change in changes for instant in (change - 1, change)}
    clocks = {0} | {(v + offset) % _DAY for offset in offsets or {utc_offset(v, zone)}}
    for change in changes:
        clocks.add((change + max(utc_offset(change - 1, zone), utc_offset(change, zone))) % _DAY)
    centre = _shift_ordinal_months(_EPOCH_DAY + wall_time(v, zone) // _DAY, -months) - _EPOCH_DAY
    days = range(centre - 4, centre + 8)
    candidates = {
        instant_at_wall_time(day * _DAY + clock, zone, fold) for day in days for clock in clocks for fold in (0, 1)
    }
    return tuple(sorted(candidates.union(_offset_changes(days[0] * _DAY, days[-1] * _DAY, zone))))


def _offset_changes(first: int, last: int, zone: str) -> list[int]:
    """Return the instants from ``first`` to ``last`` at which the UTC offset of the zone changes.

    Whole UTC days are searched, so the result can include changes less than a day before ``first`` or after ``last``.
    """
    changes = (_offset_change_on(day, zone) for day in range(first // _DAY, last // _DAY + 1))
    return [change for change in changes if change is not None]


@lru_cache(maxsize=16_384)
def _offset_change_on(day: int, zone: str) -> int | None:
    """Return the instant in a UTC day (numbered from 1970) at which the offset of the zone changes, or ``None``.

    A zone does not change its offset twice in a day, so a binary search finds the instant.
    """
    earlier, later = day * _DAY, (day + 1) * _DAY
    before = utc_offset(earlier, zone)
    if utc_offset(later, zone) == before:
        return None
    while later - earlier > 1:
        middle = (earlier + later) // 2
        if utc_offset(middle, zone) == before:
            earlier = middle
        else:
            later = middle
    return later


# ---------------------------------------------------------------------------------------- wall times


def utc_offset(p: int, zone: str) -> int:
    """Return how many microseconds the local clock is ahead of UTC at ``p``."""
    # Two days inside the years 1 to 9999, the local time is in these years in every zone, so datetime accepts it.
    instant = _EPOCH + timedelta(microseconds=min(max(p, EARLIEST + 2 * _DAY), LATEST - 2 * _DAY))
    tz = durations.get_zone_info(zone)
    local_time = tz.fromutc(instant.replace(tzinfo=tz))
    return (local_time.replace(tzinfo=None) - instant) // _MICROSECOND


@lru_cache(maxsize=16_384)
def wall_time(p: int, zone: str) -> int:
    """Return the wall time at ``p``."""
    return _clamp(p + utc_offset(p, zone))


def instant_at_wall_time(wall: int, zone: str, fold: int = 0) -> int:
    """Return the instant at which the local clock shows ``wall``.

    With ``fold`` 0, the result is the first of two such instants, and a skipped time moves forward. With ``fold`` 1, it
    is the second, and a skipped time moves back.
    """
    clamped = _clamp(wall)
    local = (_EPOCH + timedelta(microseconds=clamped)).replace(tzinfo=durations.get_zone_info(zone), fold=fold)
    offset = local.utcoffset()
    assert offset is not None
    return _clamp(clamped - offset // _MICROSECOND)


@lru_cache(maxsize=16_384)
@lru_cache(maxsize=_CACHED_SHIFTS)
def _shift_months(p: int, months: int, zone: str) -> int:
    day, clock = divmod(wall_time(p, zone), _DAY)
    shifted = _shift_ordinal_months(_EPOCH_DAY + day, months)
    if not 1 <= shifted <= date.max.toordinal():
        return EARLIEST if shifted < 1 else LATEST
    return instant_at_wall_time((shifted - _EPOCH_DAY) * _DAY + clock, zone)


def shift_date_months(day: date, months: int) -> date:
    """Return the same day of another month, or the last day of a shorter month; clamped to the years 1 to 9999."""
    return date.fromordinal(min(max(_shift_ordinal_months(day.toordinal(), months), 1), date.max.toordinal()))


def _shift_ordinal_months(ordinal: int, months: int) -> int:
    """Shift an ordinal like ``shift_date_months``; return 0 or one more than the last ordinal if out of range."""
    day = date.fromordinal(ordinal)
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    if not 1 <= year <= 9999:
        return 0 if year < 1 else date.max.toordinal() + 1
    return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1])).toordinal()


def _clamp(instant: int) -> int:
    return min(max(instant, EARLIEST), LATEST)
