"""Parser of exact durations (``90d``), RFC 3339 instants and dates; returns integer microseconds or dates.

Instants are microseconds since 1970-01-01 UTC. This module also finds the first instant of a local day. Parsers raise
``ValueError`` with a message for the author of the rule.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from functools import cache, lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo, available_timezones

MICROSECONDS: Final = {
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
"""Unit of exact length -> microseconds. A day always has 24 hours, also when the clock is changed."""

CALENDAR_UNITS: Final = ("mo", "y")
LENGTH_MAX: Final = 36_525 * MICROSECONDS["d"]
"""100 years in microseconds. A longer length is probably a typing error."""

ZONE_SHIFT_MAX: Final = 15 * MICROSECONDS["h"]
"""Upper bound, in microseconds, of the distance between the starts of a local date and of the same date in UTC. Offsets
since 1970 are from -12 h to +14 h."""

EARLIEST: Final = -62_135_596_800_000_000
LATEST: Final = 253_402_300_799_999_999
"""First and last instant of the years 1 to 9999 in UTC. Instants outside are not supported."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LENGTH: Final = re.compile(r"([1-9][0-9]{0,17})([a-z]+)")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_INSTANT: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]((?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2})(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)
_ACCEPTED_YEARS: Final = range(1900, 2200)


def parse_exact_length(text: str) -> int:
    """Return the microseconds of a length such as ``"90d"``; exact units only, from 1 ms to 100 years."""
    number, unit = split_length(text)
    if unit in CALENDAR_UNITS:
        raise ValueError(f"`{unit}` is a calendar unit, which has no exact length")
    microseconds = number * MICROSECONDS[unit]
    if microseconds > LENGTH_MAX:
        raise ValueError("the length is longer than 100 years")
    return microseconds


def split_length(text: str) -> tuple[int, str]:
    """Split ``"90d"`` into (90, "d"); the unit is one of ``MICROSECONDS`` or ``CALENDAR_UNITS``."""
    match = _LENGTH.fullmatch(text)
    if match is None:
        raise ValueError('a length must be a positive whole number and a unit, such as "90d"')
    number, unit = match.groups()
    units = (*MICROSECONDS, *CALENDAR_UNITS)
    if unit not in units:
        raise ValueError(f"`{unit}` is not a unit of time; the units are {' '.join(units)}")
    return int(number), unit


def parse_moment(text: str) -> int | date:
    """Return an RFC 3339 instant with an offset in microseconds, and a date without a time as a date.

    The years 1900 to 2199 are allowed.
    """
    try:
        bound = parse_instant_or_date(text)
    except ValueError as error:
        raise ValueError(
            'the value must be an RFC 3339 instant with an offset, such as "1997-10-01T00:00:00Z", or a date'
        ) from error
    year = bound.year if isinstance(bound, date) else (_EPOCH + timedelta(microseconds=bound)).year
    if year not in _ACCEPTED_YEARS:
        raise ValueError("the year must be from 1900 to 2199")
    return bound


def parse_instant_or_date(text: str) -> int | date:
    """Parse like ``parse_moment``, but for the years 1 to 9999. Digits beyond microseconds are cut."""
    return date.fromisoformat(text) if _DATE.fullmatch(text) else _parse_instant(text)


def _parse_instant(text: str) -> int:
    match = _INSTANT.fullmatch(text)
    if match is None:
        raise ValueError(text)
    day, clock, fraction, sign, hours, minutes = match.groups()
    local = datetime.combine(date.fromisoformat(day), time.fromisoformat(clock), UTC)
    offset = timedelta(0)
    if sign:
        if int(hours) > 23 or int(minutes) > 59:
            raise ValueError(text)
        offset = timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == "-" else 1)
    instant = _microseconds(local) - offset // timedelta(microseconds=1) + int((fraction or "0")[:6].ljust(6, "0"))
    if not EARLIEST <= instant <= LATEST:
        raise ValueError(text)
    return instant


def utc_midnight_of(day: date) -> int:
    return (day - _EPOCH.date()).days * MICROSECONDS["d"]


@lru_cache(maxsize=4096)
def first_instant_of_day(day: date, zone: str) -> int:
    """Return the first instant of the local ``day``; if the zone skipped that day, the instant after the skip."""
    midnight = datetime.combine(day, time())
    tz = get_zone_info(zone)
    earlier, later = sorted(_microseconds(midnight.replace(tzinfo=tz, fold=fold)) for fold in (0, 1))
    if earlier == later or _wall_time(earlier, tz) == midnight:
        return earlier
    # The clock skipped midnight, so the day begins when the offset changes, which is in (earlier, later].
    before = _utc_offset(earlier, tz)
    while later - earlier > 1:
        middle = (earlier + later) // 2
        if _utc_offset(middle, tz) == before:
            earlier = middle
        else:
            later = middle
    return later


def _microseconds(moment: datetime) -> int:
    return (moment.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)


def _wall_time(instant: int, tz: ZoneInfo) -> datetime:
    return (_EPOCH + timedelta(microseconds=instant)).astimezone(tz).replace(tzinfo=None)


def _utc_offset(instant: int, tz: ZoneInfo) -> timedelta | None:
    return (_EPOCH + timedelta(microseconds=instant)).astimezone(tz).utcoffset()


@cache
def get_zone_info(zone: str) -> ZoneInfo:
    """Return ``ZoneInfo(zone)`` from an unlimited cache; ``ZoneInfo`` itself keeps only eight zones in memory."""
    return ZoneInfo(zone)


@cache
def _timezones() -> frozenset[str]:
    return frozenset(available_timezones()) - {"localtime", "Factory"}  # Their meaning depends on the machine.


def is_timezone(name: Any) -> bool:
    """Return whether ``name``, which may have any type, is a zone of the IANA database."""
    return isinstance(name, str) and name in _timezones()
