"""Tests of volume anomalies: comparison with a naive model that counts single messages, and cases at the thresholds."""

from __future__ import annotations

from collections import Counter
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.data_quality.volume_anomalies import Anomaly, FirstSeen, VolumeSeries, find_anomalies, find_novelties
from app.ingest.source_stats import OTHER
from app.touchpoint import DAY, HOUR, WEEK

T = 1_767_268_800_000_000
"""2026-01-01T12:00:00Z"""


# ------------------------------------------------------------------------------------------------ naive model


def find_naively(arrived: list[int], since: int, now: int) -> tuple[int | None, list[tuple[str, int]]]:
    """Return the start of the silence, if any, and (kind, hour) of each jump.

    ``arrived`` contains the instants of messages. The model does not use buckets. It counts the
    messages of an hour each time it needs the number.
    """

    def within(begin: int) -> int:
        return sum(begin <= instant < begin + HOUR for instant in arrived)

    birth = min(arrived) // HOUR * HOUR
    now_hour = now // HOUR * HOUR

    def compared(hour: int) -> list[int]:
        weekly = [within(hour - k * WEEK) for k in (1, 2, 3, 4) if hour - k * WEEK >= birth]
        daily = [within(hour - k * DAY) for k in (1, 2, 3, 4, 5, 6, 7) if hour - k * DAY >= birth]
        return weekly if len(weekly) >= 2 else daily if len(daily) >= 3 else []

    silent_since = None
    began = max(arrived) // HOUR * HOUR + HOUR
    missed = [hour for hour in range(began, now_hour, HOUR) if hour >= now_hour - 168 * HOUR]
    expected = [median(compared(hour)) for hour in missed if compared(hour)]
    if missed and sum(expected) >= 20:
        silent_since = began

    jumps = []
    for hour in range(max(since // HOUR * HOUR, birth), now_hour, HOUR):
        if silent_since is not None and hour >= silent_since:
            continue
        others = compared(hour)
        if not others:
            continue
        usual, count = median(others), within(hour)
        if count >= usual + 50 and count >= 3 * usual and all(count > other for other in others):
            jumps.append(("volume_up", hour))
        if count <= usual - 50 and 3 * count <= usual and all(count < other for other in others):
            jumps.append(("volume_down", hour))
    return silent_since, jumps


def hours_of(anomaly: Anomaly) -> list[tuple[str, int]]:
    assert anomaly.until is not None
    return [(anomaly.kind, hour) for hour in range(anomaly.since, anomaly.until, HOUR)]


def series_of(arrived: list[int], event: str | None = None) -> VolumeSeries:
    hours = Counter(instant // HOUR * HOUR for instant in arrived)
    return VolumeSeries("shop", event, min(hours), dict(hours))


# Use few hours of the week, so that several weeks have the same hour, and counts close to the thresholds.
SLOTS = st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 3))
COUNTS = st.sampled_from([0, 1, 10, 20, 21, 40, 49, 50, 60, 75, 150, 151, 200])
ARRIVALS = st.dictionaries(SLOTS, COUNTS, min_size=1, max_size=24)


@given(ARRIVALS, st.integers(0, 8 * 24), st.integers(0, HOUR - 1), st.integers(1, 7 * 24))
def test_find_anomalies_agrees_with_a_naive_model(
    arrivals: dict[tuple[int, int, int], int], later: int, within: int, span_hours: int
) -> None:
    arrived = [
        T - week * WEEK - day * DAY - hour * HOUR + number
        for (week, day, hour), count in arrivals.items()
        for number in range(count)
    ]
    now = T + later * HOUR + within
    since = now - span_hours * HOUR
    arrived = [instant for instant in arrived if instant <= now]
    if not arrived:
        return
    silent_since, jumps = find_naively(arrived, since, now)
    anomalies = list(find_anomalies([series_of(arrived)], since, now))
    assert [anomaly.since for anomaly in anomalies if anomaly.kind == "silence"] == (
        [] if silent_since is None else [silent_since]
    )
    joined = [anomaly for anomaly in anomalies if anomaly.kind != "silence"]
    assert sorted(hour for anomaly in joined for hour in hours_of(anomaly)) == sorted(jumps)
    # Adjacent jumps of the same kind are reported as one anomaly.
    assert not {(anomaly.kind, anomaly.until) for anomaly in joined} & {
        (anomaly.kind, anomaly.since) for anomaly in joined
    }


# ----------------------------------------------------------------------------------------------------- boundaries


def weekly(hours: dict[int, int], count: int, weeks: tuple[int, ...] = (1, 2)) -> dict[int, int]:
    return hours | {T - week * WEEK + hour * HOUR: count for week in weeks for hour in range(-1, 4)}


def list_anomalies(hours: dict[int, int], now: int, span: int = DAY) -> list[tuple[str, int]]:
    series = VolumeSeries("shop", None, min(hours), hours)
    return [(anomaly.kind, anomaly.since) for anomaly in find_anomalies([series], now - span, now)]


def test_silence_begins_when_its_first_hour_is_over() -> None:
    hours = weekly({T - HOUR: 30}, 20)
    assert list_anomalies(hours, T + HOUR - 1) == []
    assert list_anomalies(hours, T + HOUR) == [("silence", T)]


def test_single_message_ends_a_silence() -> None:
    hours = weekly({T - HOUR: 30}, 20)
    assert list_anomalies(hours | {T + HOUR: 1}, T + HOUR) == []


@pytest.mark.parametrize(("each_hour", "hours_until"), [(20, 1), (19, 2), (10, 2), (9, 3), (7, 3), (5, 4)])
def test_silence_needs_twenty_expected_messages(each_hour: int, hours_until: int) -> None:
    hours = weekly({T - HOUR: 30}, each_hour)
    assert list_anomalies(hours, T + hours_until * HOUR - 1) == []
    assert list_anomalies(hours, T + hours_until * HOUR) == [("silence", T)]


def test_source_that_is_quiet_at_night_is_not_silent() -> None:
    day = {T - k * WEEK - 4 * HOUR: 500 for k in range(5)}
    assert list_anomalies(day, T) == []


def test_single_outage_does_not_change_the_expected_count() -> None:
    hours = weekly({T - HOUR: 30}, 25, (1, 2, 3))
    first = {T - 4 * WEEK: 1}
    assert list_anomalies(hours | first, T + HOUR) == [("silence", T)]


@pytest.mark.parametrize(
    ("usual", "count", "kind"),
    [(20, 69, None), (20, 70, "volume_up"), (30, 89, None), (30, 90, "volume_up"), (0, 49, None), (0, 50, "volume_up"),
     (75, 25, "volume_down"), (75, 26, None), (74, 24, "volume_down"), (60, 11, None), (60, 10, "volume_down")],
)  # fmt: skip
def test_jump_thresholds(usual: int, count: int, kind: str | None) -> None:
    hours = weekly({T - HOUR: usual, T + HOUR: usual}, usual) | {T: count}
    assert list_anomalies(hours, T + HOUR + 1, span=HOUR + 1) == ([] if kind is None else [(kind, T)])


def test_current_hour_is_never_a_jump() -> None:
    hours = weekly({T - HOUR: 20}, 20) | {T: 1_000}
    assert list_anomalies(hours, T + HOUR - 1) == []
    assert list_anomalies(hours, T + HOUR) == [("volume_up", T)]


def test_monthly_newsletter_is_not_a_jump() -> None:
    hours = weekly({T - HOUR: 20}, 20, (1, 2, 3)) | {T - 4 * WEEK: 1_000, T: 1_000}
    assert list_anomalies(hours, T + HOUR, span=HOUR) == []


def test_new_source_is_compared_with_previous_days() -> None:
    hours = {T - k * DAY: 20 for k in (1, 2)} | {T: 200}
    assert list_anomalies(hours, T + HOUR, span=HOUR) == []
    assert list_anomalies(hours | {T - 3 * DAY: 20}, T + HOUR, span=HOUR) == [("volume_up", T)]


def test_events_of_a_silent_source_are_not_reported() -> None:
    hours = weekly({T - HOUR: 30}, 20)
    whole, event = VolumeSeries("shop", None, min(hours), hours), VolumeSeries("shop", "e", min(hours), hours)
    now = T + HOUR
    assert [anomaly.event for anomaly in find_anomalies([whole, event], T, now)] == [None]
    # If the source is active, the silence of one of its events is reported.
    whole = VolumeSeries("shop", None, min(hours), hours | {T: 25})
    assert [(anomaly.kind, anomaly.event) for anomaly in find_anomalies([whole, event], T, now)] == [("silence", "e")]


def test_find_novelties() -> None:
    since = T + HOUR // 2
    old, fresh = T - WEEK, T
    firsts = [
        FirstSeen("shop", None, None, old, 9),
        FirstSeen("shop", "web", None, old, 9),
        FirstSeen("shop", "app", None, fresh, 2),
        FirstSeen("shop", None, "Old", old, 7),
        FirstSeen("shop", None, "New", fresh, 2),
        FirstSeen("shop", None, OTHER, old, 5),
        FirstSeen("till", None, None, fresh, 4),
        FirstSeen("till", "in_store", None, fresh, 4),
        FirstSeen("till", None, "Receipt", fresh, 4),
    ]
    novelties = {
        (anomaly.kind, anomaly.source, anomaly.channel or anomaly.event)
        for anomaly in find_novelties(firsts, since, OTHER)
    }
    assert novelties == {
        ("new_channel", "shop", "app"),
        ("new_event", "shop", "New"),
        ("too_many_names", "shop", None),
        ("new_source", "till", None),
    }
    # The span starts at a full hour. With T + 30 min it contains T, with T + 1 h it does not.
    assert [anomaly.event for anomaly in find_novelties(firsts[:5], T + HOUR, OTHER)] == []
