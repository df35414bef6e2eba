"""Tests of date values, anniversaries, and equality of JSON values."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from typing import Any

import pytest

from app.rules.engine import dates
from app.rules.engine.json_equality import digest_value, equality_key, format_instant
from app.rules.values import calendar, durations

LISBON, NEW_YORK, ST_JOHNS, APIA = "Europe/Lisbon", "America/New_York", "America/St_Johns", "Pacific/Apia"
DAY = 86_400_000_000


def at(text: str) -> int:
    result = durations.parse_instant_or_date(text)
    assert isinstance(result, int)
    return result


@pytest.mark.parametrize(
    ("value", "zone", "expected"),
    [
        ("1997-10-01T00:00:00Z", "UTC", "1997-10-01T00:00:00.000000Z"),
        ("1997-10-01t01:00:00.1234567+01:00", NEW_YORK, "1997-10-01T00:00:00.123456Z"),
        ("1969-12-31T23:59:59.9999999Z", "UTC", "1969-12-31T23:59:59.999999Z"),
        ("1997-10-01", "UTC", "1997-10-01T00:00:00.000000Z"),
        ("1997-10-01", NEW_YORK, "1997-10-01T04:00:00.000000Z"),
        ("2010-11-07", ST_JOHNS, "2010-11-07T02:30:00.000000Z"),
        ("2011-12-30", APIA, "2011-12-30T10:00:00.000000Z"),
        ("2011-12-31", APIA, "2011-12-30T10:00:00.000000Z"),
        ("1970-01-01", "UTC", "1970-01-01T00:00:00.000000Z"),
        ("9998-12-31", "UTC", "9998-12-31T00:00:00.000000Z"),
        ("0001-01-01", "UTC", "0001-01-01T00:00:00.000000Z"),
        ("9999-12-31T23:59:59.999999Z", "UTC", "9999-12-31T23:59:59.999999Z"),
        (0, "UTC", "1970-01-01T00:00:00.000000Z"),
        (875_664_000, "UTC", "1997-10-01T00:00:00.000000Z"),
        (Decimal("875664000.5"), "UTC", "1997-10-01T00:00:00.500000Z"),
        (Decimal("-0.0000001"), "UTC", "1969-12-31T23:59:59.999999Z"),
        (Fraction(1, 3), "UTC", "1970-01-01T00:00:00.333333Z"),
        (10**11 - 1, "UTC", "5138-11-16T09:46:39.000000Z"),
        (10**11, "UTC", "1973-03-03T09:46:40.000000Z"),
        (10**14 - 1, "UTC", "5138-11-16T09:46:39.999000Z"),
        (10**14, "UTC", "1973-03-03T09:46:40.000000Z"),
        (10**17 - 1, "UTC", "5138-11-16T09:46:39.999999Z"),
        (10**17, "UTC", "1973-03-03T09:46:40.000000Z"),
        (10**17 + 999, "UTC", "1973-03-03T09:46:40.000000Z"),
        (-(10**11), "UTC", "1966-10-31T14:13:20.000000Z"),
        (-62_135_596_800, "UTC", "0001-01-01T00:00:00.000000Z"),
        (253_402_300_799_999_999_999, "UTC", "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_value_is_read_as_date(value, zone, expected):
    instant = dates.read_instant(value, zone)
    assert instant is not None
    assert format_instant(instant) == expected


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        [],
        ["1997-10-01"],
        {"at": 0},
        "",
        "875664000",
        "1997-10-01T00:00:00",
        "1997-10-01 00:00:00Z",
        "1997-10-1",
        "19971001",
        "1997-W40-3",
        "1997-02-29",
        "0000-01-01",
        "10000-01-01",
        " 1997-10-01",
        "1997-10-01T24:00:00Z",
        "1997-10-01T23:59:60Z",
        "1997-10-01T00:00:00+24:00",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        -62_135_596_801,
        253_402_300_800_000_000_000,
        Decimal("1E+399"),
        Decimal("-1E+399"),
    ],
)
def test_value_that_is_not_a_date(value):
    assert dates.read_instant(value, "UTC") is None
    assert dates.read_local_day(value, "UTC") is None
    assert dates.check_anniversary(value, calendar.parse_length("1d"), 0, "UTC") == (False, None)


@pytest.mark.parametrize(
    ("value", "zone", "expected"),
    [
        ("1997-10-01", APIA, "1997-10-01"),
        ("1997-10-01T03:59:59.999999Z", NEW_YORK, "1997-09-30"),
        ("1997-10-01T04:00:00Z", NEW_YORK, "1997-10-01"),
        ("2010-11-07T02:31:00Z", ST_JOHNS, "2010-11-07"),
        (0, NEW_YORK, "1969-12-31"),
    ],
)
def test_local_day_of_value(value, zone, expected):
    assert dates.read_local_day(value, zone) == date.fromisoformat(expected)


@pytest.mark.parametrize(
    ("value", "length", "zone", "begin", "end"),
    [
        ("1990-05-10", "7d", "UTC", "2024-05-03T00:00:00Z", "2024-05-11T00:00:00Z"),
        ("1990-05-10T03:00:00Z", "7d", NEW_YORK, "2024-05-02T04:00:00Z", "2024-05-10T04:00:00Z"),
        # 7 days are exactly 168 hours, even across the change of the clocks on 10 March.
        ("1990-03-12", "7d", NEW_YORK, "2024-03-05T04:00:00Z", "2024-03-13T04:00:00Z"),
        ("1990-03-12", "1mo", NEW_YORK, "2024-02-12T05:00:00Z", "2024-03-13T04:00:00Z"),
        ("1990-03-31", "1mo", LISBON, "2024-02-29T00:00:00Z", "2024-03-31T23:00:00Z"),
        ("1990-03-31", "1ms", LISBON, "2024-03-30T23:59:59.999Z", "2024-03-31T23:00:00Z"),
        # The anniversary of 29 February is 28 February in common years.
        ("1996-02-29", "1d", "UTC", "2023-02-27T00:00:00Z", "2023-03-01T00:00:00Z"),
        ("1996-02-29", "1d", "UTC", "2024-02-28T00:00:00Z", "2024-03-01T00:00:00Z"),
        ("1996-02-29", "1d", "UTC", "2100-02-27T00:00:00Z", "2100-03-01T00:00:00Z"),
        ("1996-02-29", "3mo", "UTC", "2023-11-29T00:00:00Z", "2024-03-01T00:00:00Z"),
        # Midnight does not exist on this day, which begins at 01:00. Months are counted from midnight nevertheless.
        ("1990-10-15", "1mo", "America/Sao_Paulo", "2017-09-15T03:00:00Z", "2017-10-16T02:00:00Z"),
        ("1990-10-15", "1d", "America/Sao_Paulo", "2017-10-14T03:00:00Z", "2017-10-16T02:00:00Z"),
        # Shortly after this day has begun, the clock is set back to the previous day.
        ("1990-11-07", "1d", ST_JOHNS, "2010-11-06T02:30:00Z", "2010-11-08T03:30:00Z"),
        # Samoa skipped 30 December 2011. The anniversary has no length, but the time before it counts.
        ("1990-12-30", "1d", APIA, "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z"),
        ("1990-12-31", "1d", APIA, "2011-12-29T10:00:00Z", "2011-12-31T10:00:00Z"),
        ("1969-01-01", "1d", "UTC", "1969-12-31T00:00:00Z", "1970-01-02T00:00:00Z"),
        ("1990-12-31", "1d", "UTC", "9998-12-30T00:00:00Z", "9999-01-01T00:00:00Z"),
        # The range can begin in the year before the anniversary.
        ("1990-01-03", "7d", "UTC", "2023-12-27T00:00:00Z", "2024-01-04T00:00:00Z"),
    ],
)
def test_anniversary_starts_length_before_day_and_ends_with_day(value, length, zone, begin, end):
    def anniversary_at(t: int) -> tuple[bool, int | None]:
        return dates.check_anniversary(value, calendar.parse_length(length), t, zone)

    assert anniversary_at(at(begin) - 1) == (False, at(begin))
    assert anniversary_at(at(begin)) == (True, at(end))
    assert anniversary_at(at(end) - 1) == (True, at(end))
    holds, following = anniversary_at(at(end))
    assert not holds
    assert following is not None
    assert following > at(end)


def test_original_day_is_not_an_anniversary():
    week = calendar.parse_length("7d")
    assert dates.check_anniversary("2024-05-10", week, at("2024-05-10T12:00:00Z"), "UTC") == (
        False,
        at("2025-05-03T00:00:00Z"),
    )


@pytest.mark.parametrize(
    ("length", "end"),
    [
        ("11mo", "2022-05-11T00:00:00Z"),
        (
            "364d",
            "2023-05-11T00:00:00Z",
        ),  # overlaps the next anniversary only after a common year
        ("365d", None),
        ("366d", None),
        ("12mo", None),
        ("3y", None),
    ],
)
def test_overlapping_anniversaries_are_merged(length, end):
    result = dates.check_anniversary("1990-05-10", calendar.parse_length(length), at("2022-05-10T12:00:00Z"), "UTC")
    assert result == (True, None if end is None else at(end))


def test_last_anniversary_in_year_9999():
    week = calendar.parse_length("7d")
    assert dates.check_anniversary("1990-05-10", week, at("9999-05-10T00:00:00Z"), "UTC") == (
        True,
        at("9999-05-11T00:00:00Z"),
    )
    assert dates.check_anniversary("1990-05-10", week, at("9999-05-11T00:00:00Z"), "UTC") == (False, None)
    assert dates.check_anniversary("9999-05-10", week, at("2024-01-01T00:00:00Z"), "UTC") == (False, None)


def _naive_anniversary(day: date, length: timedelta, t: int, zone: str) -> bool:
    now = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=t)
    for year in range(max(day.year + 1, now.year - 2), now.year + 4):
        try:
            anniversary = day.replace(year=year)
        except ValueError:
            anniversary = date(year, 2, 28)
        begin = durations.first_instant_of_day(anniversary, zone) - length // timedelta(microseconds=1)
        if begin <= t < durations.first_instant_of_day(anniversary + timedelta(days=1), zone):
            return True
    return False


@pytest.mark.parametrize("zone", ["UTC", NEW_YORK, LISBON])
def test_anniversary_next_change_is_first_change(zone):
    rng = random.Random(zone)
    for _ in range(60):
        day = rng.choice((date(1996, 2, 29), date(1980, 1, 1) + timedelta(days=rng.randrange(20_000))))
        days = rng.choice((1, 7, 30, 300, 364, 365))
        length = timedelta(days=days)
        t = at("2023-01-01T00:00:00Z") + rng.randrange(1500 * DAY)

        def naive(t: int, day: date = day, length: timedelta = length) -> bool:
            return _naive_anniversary(day, length, t, zone)

        holds, change = dates.check_anniversary(day.isoformat(), calendar.parse_length(f"{days}d"), t, zone)
        assert holds is naive(t)
        assert change is None or (naive(change) is not holds and naive(change - 1) is holds)
        until = min(change or t + 1500 * DAY, t + 1500 * DAY)
        assert all(naive(instant) is holds for instant in range(t, until, DAY // 2))


# ------------------------------------------------------------------------------------ equality of values


EQUAL_VALUES: list[Any] = [
    [1, Decimal("1.0"), Decimal("1E0"), Fraction(1)],
    [Decimal("0.5"), Fraction(1, 2), Decimal("0.500")],
    [0, Decimal("-0.0")],
    [True],
    [False],
    ["1"],
    ["true"],
    [""],
    [Fraction(1, 3)],
    [Decimal("0." + "3" * 300)],
    [2**53 + 1],
    [2**53],
    [[]],
    [{}],
    [[1, "a"], [Decimal("1.0"), "a"]],
    [["a", 1]],
    [["1a"], ["1a"]],
    [["1", "a"]],
    [[["1"], "a"]],
    [[True]],
    [[None]],
    [{"a": 1, "b": [True]}, {"b": [True], "a": Decimal("1.00")}],
    [{"a": 1, "b": [1]}],
    [{"a": None}],
    [[["a", 1]]],
    [{"a": "1"}],
    [10**399],
    [Decimal("1E-399")],
]


def test_equality_key_and_digest_follow_json_equality():
    for group in EQUAL_VALUES:
        assert len({equality_key(value) for value in group}) == 1
        assert len({digest_value(value) for value in group}) == 1
    for first, second in combinations(EQUAL_VALUES, 2):
        assert equality_key(first[0]) != equality_key(second[0])
        assert digest_value(first[0]) != digest_value(second[0])


def test_digest_is_empty_for_missing_value_and_stable_for_others():
    assert digest_value(None) == ""
    assert digest_value({"b": [1, True], "a": "é"}) == "bcd6ecda8f03bde894c2f819a6daf1e4"
    assert all(len(digest_value(group[0])) == 32 for group in EQUAL_VALUES)


@pytest.mark.parametrize(
    ("instant", "expected"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (durations.EARLIEST, "0001-01-01T00:00:00.000000Z"),
        (durations.LATEST, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_formatted_instant_round_trips(instant, expected):
    assert format_instant(instant) == expected
    assert dates.read_instant(format_instant(instant), NEW_YORK) == instant
