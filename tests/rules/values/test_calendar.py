"""Tests of calendar lengths, local days and periods, mostly around changes of the UTC offset."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from app.rules.values import calendar, durations
from app.rules.values.calendar import Length

LISBON, NEW_YORK, ST_JOHNS, APIA = "Europe/Lisbon", "America/New_York", "America/St_Johns", "Pacific/Apia"
HOUR, DAY = 3_600_000_000, 86_400_000_000


def at(text: str) -> int:
    instant = durations.parse_instant_or_date(text)
    assert isinstance(instant, int)
    return instant


def format_utc(instant: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=instant)).isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1ms", Length(1_000, 0)),
        ("90d", Length(90 * DAY, 0)),
        ("36525d", Length(36_525 * DAY, 0)),
        ("1mo", Length(0, 1)),
        ("1y", Length(0, 12)),
        ("100y", Length(0, 1_200)),
        ("1200mo", Length(0, 1_200)),
    ],
)
def test_parse_length(text, expected):
    assert calendar.parse_length(text) == expected


@pytest.mark.parametrize("text", ["101y", "1201mo", "36526d", "0mo", "1", "mo", "1 mo", "1Y", "-1y", "1.5y", ""])
def test_parse_length_refuses_invalid_text(text):
    with pytest.raises(ValueError, match="length"):
        calendar.parse_length(text)


def test_parse_length_names_an_unknown_unit():
    with pytest.raises(ValueError, match="`q` is not a unit of time; the units are"):
        calendar.parse_length("1q")


@pytest.mark.parametrize(
    ("start", "months", "zone", "expected"),
    [
        ("2023-01-31T10:00:00Z", 1, "UTC", "2023-02-28T10:00:00Z"),
        ("2024-01-31T10:00:00Z", 1, "UTC", "2024-02-29T10:00:00Z"),
        ("2024-02-29T10:00:00Z", 12, "UTC", "2025-02-28T10:00:00Z"),
        ("2024-02-29T10:00:00Z", 48, "UTC", "2028-02-29T10:00:00Z"),
        ("1999-12-31T23:59:59.999999Z", 2, "UTC", "2000-02-29T23:59:59.999999Z"),
        # The day of the local date, not of the UTC date, is limited to the end of the month.
        ("2023-01-31T03:00:00Z", 1, NEW_YORK, "2023-03-01T03:00:00Z"),
        # The local time stays the same, so the UTC time is an hour earlier in summer.
        ("2024-03-01T12:00:00Z", 1, LISBON, "2024-04-01T11:00:00Z"),
        # Skipped local times move forward: Lisbon skipped 01:30 on 31 March 2024.
        ("2024-02-29T01:30:00Z", 1, LISBON, "2024-03-29T01:30:00Z"),
        ("2024-01-31T01:30:00Z", 2, LISBON, "2024-03-31T01:30:00Z"),
        ("2024-02-10T07:30:00Z", 1, NEW_YORK, "2024-03-10T07:30:00Z"),
        # If a local time occurs twice, the first occurrence is used.
        ("2024-10-03T05:30:00Z", 1, NEW_YORK, "2024-11-03T05:30:00Z"),
        ("2024-12-03T06:30:00Z", -1, NEW_YORK, "2024-11-03T05:30:00Z"),
        # The clock was set back across midnight and showed 6 November 23:01 a second time.
        ("2010-10-07T02:00:00Z", 1, ST_JOHNS, "2010-11-07T02:00:00Z"),
        ("2010-12-07T03:30:30Z", -1, ST_JOHNS, "2010-11-07T02:30:30Z"),
        # Samoa skipped 30 December 2011.
        ("2011-11-30T22:00:00Z", 1, APIA, "2011-12-30T22:00:00Z"),
        ("2012-01-29T22:00:00Z", -1, APIA, "2011-12-30T22:00:00Z"),
        ("1970-01-01T00:00:00Z", 1, "UTC", "1970-02-01T00:00:00Z"),
        ("9998-12-31T12:00:00Z", 1, "UTC", "9999-01-31T12:00:00Z"),
        ("9999-12-01T00:00:00Z", 1, "UTC", "9999-12-31T23:59:59.999999Z"),
        ("0001-01-15T00:00:00Z", -1, "UTC", "0001-01-01T00:00:00Z"),
    ],
)
def test_months_are_added_to_local_time(start, months, zone, expected):
    move = calendar.add if months > 0 else calendar.subtract
    assert format_utc(move(at(start), Length(0, abs(months)), zone)) == expected


def test_exact_length_ignores_timezone_and_is_clamped():
    noon = at("2024-03-30T12:00:00Z")
    assert calendar.add(noon, calendar.parse_length("1d"), LISBON) == noon + DAY
    assert calendar.subtract(noon, calendar.parse_length("1d"), LISBON) == noon - DAY
    assert calendar.add(at("9999-12-31T00:00:00Z"), calendar.parse_length("2d"), "UTC") == durations.LATEST
    assert calendar.subtract(at("0001-01-02T00:00:00Z"), calendar.parse_length("2d"), "UTC") == durations.EARLIEST


@pytest.mark.parametrize("zone", ["UTC", NEW_YORK, APIA])
def test_max_microseconds_is_upper_bound(zone):
    start = at("2011-11-01T00:00:00Z")
    for months in (1, 2, 3, 11, 12, 1200):
        for day in range(0, 500, 3):
            p = start + day * DAY
            assert calendar.add(p, Length(0, months), zone) - p < Length(0, months).max_microseconds
    assert Length(5, 0).max_microseconds == 5


@pytest.mark.parametrize(
    ("instant", "zone", "expected"),
    [
        ("2024-07-01T22:59:59.999999Z", LISBON, "2024-07-01"),
        ("2024-07-01T23:00:00Z", LISBON, "2024-07-02"),
        # In America/St_Johns, 7 November 2010 began at 02:30Z; a minute later the clock showed 6 November again.
        ("2010-11-07T02:29:59.999999Z", ST_JOHNS, "2010-11-06"),
        ("2010-11-07T02:30:00Z", ST_JOHNS, "2010-11-07"),
        ("2010-11-07T02:31:00Z", ST_JOHNS, "2010-11-07"),
        ("2010-11-07T03:30:00Z", ST_JOHNS, "2010-11-07"),
        ("2010-11-08T03:29:59.999999Z", ST_JOHNS, "2010-11-07"),
        ("2011-12-30T09:59:59.999999Z", APIA, "2011-12-29"),
        ("2011-12-30T10:00:00Z", APIA, "2011-12-31"),
        ("1970-01-01T00:00:00Z", NEW_YORK, "1969-12-31"),
        ("9998-12-31T23:59:59.999999Z", "UTC", "9998-12-31"),
        ("9999-12-31T23:59:59.999999Z", APIA, "9999-12-31"),
        ("0001-01-01T00:00:00Z", NEW_YORK, "0001-01-01"),
    ],
)
def test_local_day(instant, zone, expected):
    assert calendar.local_day(at(instant), zone) == date.fromisoformat(expected)


@pytest.mark.parametrize("zone", ["UTC", LISBON, NEW_YORK, ST_JOHNS, APIA, "Asia/Tehran", "America/Sao_Paulo"])
def test_local_days_have_no_gap_or_overlap(zone):
    rng = random.Random(7)
    for _ in range(300):
        p = rng.randrange(at("1970-01-01T00:00:00Z"), at("2040-01-01T00:00:00Z"))
        day = calendar.local_day(p, zone)
        assert calendar.start_of_day(day, zone) <= p < calendar.end_of_day(day, zone)


@pytest.mark.parametrize(
    ("word", "p", "zone", "enter", "leave"),
    [
        ("today", "2024-03-31T12:00:00Z", LISBON, None, "2024-03-31T23:00:00Z"),
        ("today", "2024-03-31T23:00:00Z", LISBON, None, "2024-04-01T23:00:00Z"),
        ("yesterday", "2024-03-30T12:00:00Z", LISBON, "2024-03-31T00:00:00Z", "2024-03-31T23:00:00Z"),
        ("today", "2010-11-07T02:30:30Z", ST_JOHNS, None, "2010-11-08T03:30:00Z"),
        ("yesterday", "2010-11-07T02:29:59Z", ST_JOHNS, "2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z"),
        ("yesterday", "2011-12-29T20:00:00Z", APIA, "2011-12-30T10:00:00Z", "2011-12-30T10:00:00Z"),
        # Sunday 3 November 2024 had 25 hours.
        ("this_week", "2024-11-04T04:59:59.999999Z", NEW_YORK, None, "2024-11-04T05:00:00Z"),
        ("this_week", "2024-11-04T05:00:00Z", NEW_YORK, None, "2024-11-11T05:00:00Z"),
        ("last_week", "2024-11-01T00:00:00Z", NEW_YORK, "2024-11-04T05:00:00Z", "2024-11-11T05:00:00Z"),
        ("this_month", "2024-02-10T00:00:00Z", "UTC", None, "2024-03-01T00:00:00Z"),
        ("last_month", "2024-01-31T23:59:59.999999Z", "UTC", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"),
        ("last_month", "2024-12-01T00:00:00Z", "UTC", "2025-01-01T00:00:00Z", "2025-02-01T00:00:00Z"),
        ("this_year", "1970-01-01T00:00:00Z", NEW_YORK, None, "1970-01-01T05:00:00Z"),
        ("last_year", "1970-06-01T00:00:00Z", "UTC", "1971-01-01T00:00:00Z", "1972-01-01T00:00:00Z"),
        ("last_year", "9998-06-01T00:00:00Z", "UTC", "9999-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"),
        ("last_year", "9999-06-01T00:00:00Z", "UTC", "9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_period_bounds(word, p, zone, enter, leave):
    assert [format_utc(bound) for bound in calendar.period_bounds(word, at(p), zone)] == [
        enter or format_utc(at(p)),
        leave,
    ]


@pytest.mark.parametrize(
    ("instant", "zone", "expected"),
    [
        ("2024-03-09T04:59:59.999999Z", NEW_YORK, False),
        ("2024-03-09T05:00:00Z", NEW_YORK, True),
        ("2024-03-11T03:59:59.999999Z", NEW_YORK, True),
        ("2024-03-11T04:00:00Z", NEW_YORK, False),
    ],
)
def test_is_weekend(instant, zone, expected):
    assert calendar.is_weekend(at(instant), zone) is expected


@pytest.mark.parametrize(
    ("instant", "hours", "zone", "expected"),
    [
        ("2024-07-01T07:59:59.999999Z", (9, 17), LISBON, False),
        ("2024-07-01T08:00:00Z", (9, 17), LISBON, True),
        ("2024-07-01T15:59:59.999999Z", (9, 17), LISBON, True),
        ("2024-07-01T16:00:00Z", (9, 17), LISBON, False),
        ("2024-07-01T21:59:59.999999Z", (22, 6), "UTC", False),
        ("2024-07-01T22:00:00Z", (22, 6), "UTC", True),
        ("2024-07-01T00:00:00Z", (22, 6), "UTC", True),
        ("2024-07-01T06:00:00Z", (22, 6), "UTC", False),
        ("2024-07-01T23:59:59.999999Z", (22, 24), "UTC", True),
        ("2024-07-01T00:00:00Z", (22, 24), "UTC", False),
        ("2024-07-01T00:00:00Z", (6, 0), "UTC", False),
        ("2024-07-01T23:00:00Z", (6, 0), "UTC", True),
        # 01:30 occurs twice; a zone has an offset of half an hour; an hour is skipped.
        ("2024-11-03T05:30:00Z", (1, 2), NEW_YORK, True),
        ("2024-11-03T06:30:00Z", (1, 2), NEW_YORK, True),
        ("2024-01-01T12:30:00Z", (9, 10), ST_JOHNS, True),
        ("2024-03-10T07:00:00Z", (2, 3), NEW_YORK, False),
        # The clock shows 6 November 23:30 a second time, although 7 November has begun.
        ("2010-11-07T03:00:00Z", (23, 24), ST_JOHNS, True),
    ],
)
def test_in_hours_uses_local_clock(instant, hours, zone, expected):
    assert calendar.in_hours(at(instant), hours[0], hours[1], zone) is expected


def _naive_shift(p: int, months: int, zone: str) -> int:
    local = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=p)).astimezone(ZoneInfo(zone))
    month = local.year * 12 + local.month - 1 + months
    for day in range(local.day, 0, -1):
        try:
            shifted = local.replace(year=month // 12, month=month % 12 + 1, day=day, fold=0)
        except ValueError:
            continue
        return (shifted.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    raise AssertionError


NIGHTS = [
    (LISBON, "2024-03-31T01:00:00Z"),
    (LISBON, "2024-10-27T01:00:00Z"),
    (NEW_YORK, "2024-03-10T07:00:00Z"),
    (NEW_YORK, "2024-11-03T06:00:00Z"),
    (ST_JOHNS, "2010-11-07T02:31:00Z"),
    (ST_JOHNS, "1988-04-03T03:31:00Z"),
    (APIA, "2011-12-30T10:00:00Z"),
    ("UTC", "2024-02-29T00:00:00Z"),
    ("UTC", "2023-02-28T23:30:00Z"),
]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("zone", "night"), NIGHTS)
def test_calendar_length_changes_only_at_crossings(zone, night, sign):
    rng = random.Random(f"{zone}{night}")
    fine = [step * 1_800_000_000 for step in range(-48, 48)]
    coarse = [step * 4 * HOUR for step in range(-60, 60)]
    for _ in range(40):
        months = rng.choice((1, 2, 6, 11, 12, 13, 25))
        centre = at(night) if rng.random() < 0.5 else _naive_shift(at(night), sign * months, zone)
        v = centre + rng.choice((0, -1, 1, rng.randrange(-2 * HOUR, 2 * HOUR), rng.randrange(-3 * DAY, 3 * DAY)))
        instants = (
            calendar.length_crossings(v, Length(0, months), zone)
            if sign == 1
            else calendar.month_edge_crossings(v, months, zone)
        )
        assert list(instants) == sorted(set(instants))
        around = _naive_shift(v, -sign * months, zone)
        beside = [instant + shift for instant in instants for shift in (-1, 0)]
        probes = sorted({*beside, *(around + step for step in fine + coarse)})
        truths = [(now, v <= _naive_shift(now, sign * months, zone)) for now in probes]
        assert {truth for _, truth in truths} == {True, False}
        for (_, before), (now, after) in pairwise(truths):
            # Each crossing and the microsecond before it are probed. A change at any other instant would fail here.
            assert before == after or now in instants


def test_crossings_of_exact_length_and_zero_months():
    assert calendar.length_crossings(5 * DAY, Length(2 * DAY, 0), NEW_YORK) == (3 * DAY,)
    assert calendar.month_edge_crossings(5 * DAY, 0, NEW_YORK) == (5 * DAY,)


def test_first_and_last_year_do_not_overflow():
    for zone in ("UTC", APIA, NEW_YORK):
        for v in (durations.EARLIEST, durations.LATEST):
            assert calendar.length_crossings(v, Length(0, 1), zone)
            assert calendar.month_edge_crossings(v, 1, zone)
            for word in calendar.PERIODS:
                enter, leave = calendar.period_bounds(word, v, zone)
                assert enter <= leave
