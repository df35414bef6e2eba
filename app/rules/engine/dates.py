"""Conversion of values to instants and local days for the date operators, and anniversaries.

Instants are microseconds since 1970; zones and lengths are those of :mod:`app.rules.values.calendar`.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from math import floor
from typing import Any, Final

from app.rules.values import calendar
from app.rules.values.calendar import Length
from app.rules.values.durations import EARLIEST, LATEST, MICROSECONDS, parse_instant_or_date

_UNITS: Final = (
    (10**17, Fraction(1, 1_000)),
    (10**14, Fraction(1)),
    (10**11, Fraction(1_000)),
    (0, Fraction(1_000_000)),
)
"""(lowest absolute value, microseconds of one unit) of epoch numbers in nano-, micro-, milliseconds and seconds."""
_EPOCH_NUMBER_MAX: Final = 10**21
"""Limit of epoch numbers. A larger number is outside the years 1 to 9999, even in nanoseconds."""
_WHOLE_YEAR: Final = 367 * MICROSECONDS["d"]
_CALENDAR_CYCLE_YEARS: Final = 400
"""The Gregorian calendar repeats after this number of years, including weekdays."""


def parse_date_value(value: Any) -> int | date | None:
    """Return the value as an instant, or as a date if it has no time; ``None`` if it is not a date.

    Accepts RFC 3339 text with an offset, dates, and epoch numbers, whose size determines their unit. ``None`` is also
    returned for values outside the years 1 to 9999.
    """
    if isinstance(value, str):
        try:
            return parse_instant_or_date(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | Decimal | Fraction):
        return None
    if not -_EPOCH_NUMBER_MAX < value < _EPOCH_NUMBER_MAX:
        return None
    number = Fraction(value)
    instant = floor(number * next(factor for size, factor in _UNITS if abs(number) >= size))
    return instant if EARLIEST <= instant <= LATEST else None


def read_instant(value: Any, zone: str) -> int | None:
    """Return the value as an instant; a date begins at its first instant in ``zone``. ``None`` if it is not a date."""
    moment = parse_date_value(value)
    return calendar.start_of_day(moment, zone) if isinstance(moment, date) else moment


def read_local_day(value: Any, zone: str) -> date | None:
    """Return the local day of the value in ``zone``; ``None`` if it is not a date."""
    moment = parse_date_value(value)
    return calendar.local_day(moment, zone) if isinstance(moment, int) else moment


def check_anniversary(value: Any, length: Length, t: int, zone: str) -> tuple[bool, int | None]:
    """Return whether ``t`` is on an anniversary of the date or within ``length`` before it, and the exact next change.

    Anniversaries are local days in the years after the year of ``value``. In common years, the anniversary of 29
    February is 28 February. The result is (False, None) if ``value`` is not a date.
    """
    day = read_local_day(value, zone)
    if day is None:
        return False, None
    year = max(day.year + 1, calendar.local_day(t, zone).year)
    while year <= date.max.year and calendar.end_of_day(_anniversary_in(day, year), zone) <= t:
        year += 1
    if year > date.max.year:
        return False, None
    start = _anniversary_start(_anniversary_in(day, year), length, zone)
    return (False, start) if t < start else (True, _end_of_run(day, year, length, zone))


@lru_cache(maxsize=4096)
def _end_of_run(day: date, year: int, length: Length, zone: str) -> int | None:
    """Return the end of the uninterrupted truth that includes the anniversary in ``year``; ``None`` means never.

    The truth continues past an anniversary if the ``length`` before the next anniversary has already begun.
    """
    if length.months >= 12 or length.microseconds >= _WHOLE_YEAR:
        return None
    for candidate in range(year, year + _CALENDAR_CYCLE_YEARS):
        end = calendar.end_of_day(_anniversary_in(day, candidate), zone)
        if candidate == date.max.year or _anniversary_start(_anniversary_in(day, candidate + 1), length, zone) > end:
            return end
    return None


def _anniversary_in(day: date, year: int) -> date:
    return calendar.shift_date_months(day, (year - day.year) * 12)


def _anniversary_start(day: date, length: Length, zone: str) -> int:
    """Return the instant ``length`` before the local day.

    An exact length counts back from the first instant of the day; months count back from its midnight on the clock.
    """
    if length.is_exact:
        return calendar.subtract(calendar.start_of_day(day, zone), length, zone)
    midnight = calendar.shift_date_months(day, -length.months).toordinal() - date(1970, 1, 1).toordinal()
    return calendar.instant_at_wall_time(midnight * MICROSECONDS["d"], zone)
