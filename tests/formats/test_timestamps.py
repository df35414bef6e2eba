"""Tests of timestamps: all common forms are parsed exactly to the microsecond, and no text raises an exception."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.formats.timestamps import parse, parse_claimed, rfc3339

TEN = 1_777_888_800_000_000  # 2026-05-04T10:00:00Z


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-05-04T10:00:00Z", TEN),
        ("2026-05-04T10:00:00.000Z", TEN),
        ("2026-05-04t10:00:00z", TEN),
        ("2026-05-04 10:00:00", TEN),
        ("2026-05-04T10:00", TEN),
        ("2026-05-04T10:00:00", TEN),
        (" 2026-05-04T10:00:00Z\n", TEN),
        ("2026-05-04T10:00:00+00:00", TEN),
        ("2026-05-04T12:00:00+0200", TEN),
        ("2026-05-04T12:00:00+02", TEN),
        ("2026-05-04 12:00:00 +0200", TEN),
        ("2026-05-04 10:00:00 UTC", TEN),
        ("2026-05-04T04:30:00-05:30", TEN),
        ("2026-05-04", TEN - 10 * 3_600_000_000),
        ("2026-05-04T10:00:00.1Z", TEN + 100_000),
        ("2026-05-04T10:00:00,25Z", TEN + 250_000),
        ("2026-05-04T10:00:00.1234567+00:00", TEN + 123_456),
        ("2026-05-04T10:00:00.123456789Z", TEN + 123_456),
        ("2026-05-04T10:00:00.999999999Z", TEN + 999_999),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("0001-01-01T00:00:00Z", -62_135_596_800_000_000),
        ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
        ("1777888800", TEN),
        ("1777888800.5", TEN + 500_000),
        ("1795370364.535", 1_795_370_364_535_000),
        ("1777888800000", TEN),
        ("1777888800000.25", TEN + 250),
        ("1777888800000000", TEN),
        ("1777888800000000999", TEN),
        ("1.7778888e9", TEN),
        ("99999999999", 99_999_999_999_000_000),
        ("100000000000", 100_000_000_000_000),
        ("100000000000000", 100_000_000_000_000),
        ("100000000000000000", 100_000_000_000_000),
        ("0", 0),
        ("-1", -1_000_000),
        ("-0.0000001", -1),
    ],
)
def test_parse_accepts_common_forms(text: str, instant: int) -> None:
    assert parse(text) == instant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "infinity",
        "-infinity",
        "NaN",
        "null",
        "2026-05-04T10:00:60Z",
        "2026-05-04T24:00:00Z",
        "2026-05-04T10:60:00Z",
        "2026-02-30",
        "2026-13-01",
        "0000-01-01T00:00:00Z",
        "99999-01-01T00:00:00Z",
        "+010000-01-01T00:00:00Z",
        "9999-12-31T23:59:59-01:00",
        "0001-01-01T00:00:00+01:00",
        "2026-05-04T10:00:00+99:00",
        "2026-05-04T10:00:00.1234567890Z",
        "2026-W19-1",
        "04/05/2026",
        "253402300800000000000",
        "1e300",
        "1e999",
        "-1e999",
        "1e9999",
        "9" * 70,
        "\u0662\u0660\u0662\u0666-05-04",
        "0x10",
        "1_000",
    ],
)
def test_parse_returns_none_for_unreadable_text(text: str) -> None:
    assert parse(text) is None


@given(st.text(max_size=80))
@example("2026-05-04T10:00:00+23:60")
def test_parse_never_raises(text: str) -> None:
    parse(text)


@given(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
def test_rfc3339_round_trip(instant: int) -> None:
    assert parse(rfc3339(instant)) == instant


@given(st.datetimes(timezones=st.just(UTC)), st.integers(-1439, 1439))
def test_offsets_agree_with_datetime(moment: datetime, minutes: int) -> None:
    sign = "-" if minutes < 0 else "+"
    offset = f"{sign}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
    expected = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) - minutes * 60_000_000
    in_range = -62_135_596_800_000_000 <= expected <= 253_402_300_799_999_999
    text = moment.replace(tzinfo=None).isoformat(timespec="microseconds") + offset
    assert parse(text) == (expected if in_range else None)


def test_rfc3339_has_microseconds_and_z() -> None:
    assert rfc3339(TEN) == "2026-05-04T10:00:00.000000Z"
    assert rfc3339(-1) == "1969-12-31T23:59:59.999999Z"


@pytest.mark.parametrize(
    ("raw", "text", "instant"),
    [
        (b"", None, None),
        (b"null", None, None),
        (b'""', None, None),
        (b'" "', None, None),
        (b'"2026-05-04"', "2026-05-04", TEN - 36_000_000_000),
        (b'"2026\\u002d05-04"', "2026-05-04", TEN - 36_000_000_000),
        (b"1777888800.5", "1777888800.5", TEN + 500_000),
        (b"true", "true", None),
        (b"{}", "{}", None),
        (b'"a\\u0000b"', "a\ufffdb", None),
        (b'"' + b"x" * 500 + b'"', "x" * 64, None),
    ],
)
def test_parse_claimed(raw: bytes, text: str | None, instant: int | None) -> None:
    assert parse_claimed(raw) == (text, instant)
