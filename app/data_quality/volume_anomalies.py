"""What is odd about how much arrives: new names and channels, sudden silence, jumps. Pure; hours and ``now`` are given.

**What is expected** of an hour is the median of the same hour of the week in the four weeks before, of those in which
the series existed already; with fewer than two of them, of the same hour of the day in the seven days before, of which
there must be three. A median is not moved by one newsletter or one outage. With neither, nothing is expected and
nothing is odd.

**Silence**: nothing has arrived since some hour ended, at least one whole hour has passed, and of the whole hours since
(at most the last 168) at least SILENCE_MESSAGES were expected together.

**A jump**: a whole hour, within the span asked about, in which at least JUMP_MESSAGES more (or fewer) arrived than
expected, JUMP_FACTOR times as many (or few) or beyond, and more (or fewer) than in each single hour that it is compared
with. Neighbouring hours that jump the same way are one jump.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Final, Literal, NamedTuple

import msgspec

from app.touchpoint import DAY, HOUR, WEEK

WEEKS: Final = 4
WEEKS_MIN: Final = 2
DAYS: Final = 7
DAYS_MIN: Final = 3
SILENCE_MESSAGES: Final = 20
SILENT_HOURS_MAX: Final = 168
JUMP_MESSAGES: Final = 50
JUMP_FACTOR: Final = 3

HISTORY: Final = WEEKS * WEEK + SILENT_HOURS_MAX * HOUR
"""How far back hours are looked at."""

AnomalyKind = Literal["new_source", "new_event", "new_channel", "silence", "volume_up", "volume_down", "too_many_names"]


class FirstSeen(NamedTuple):
    """When something was first seen, by the hour, and how many messages of it arrived in the span asked about.

    A source itself where it has neither ``channel`` nor ``event``.
    """

    source: str
    channel: str | None
    event: str | None
    hour: int
    messages: int


class VolumeSeries(msgspec.Struct):
    """Messages by hour, an hour being the instant at which it begins; hours without any may be left out.

    Of a whole source where ``event`` is None. ``first`` is the first hour in which anything ever arrived.
    """

    source: str
    event: str | None
    first: int
    hours: dict[int, int]


class Anomaly(msgspec.Struct, frozen=True):
    """``since`` and ``until`` are whole hours; ``until`` is None where it still is so. ``expected`` as above."""

    kind: AnomalyKind
    source: str
    event: str | None
    channel: str | None
    since: int
    until: int | None
    messages: int
    expected: float | None = None


def hour_of(instant: int) -> int:
    return instant - instant % HOUR


def find_novelties(firsts: Sequence[FirstSeen], since: int, other: str) -> Iterator[Anomaly]:
    """What was first seen in the span that begins in the hour of ``since``.

    A new source is told once, and nothing of what is new with it. ``other`` is the name of the surplus.
    """
    begin = hour_of(since)
    first_hours = {first.source: first.hour for first in firsts if first.channel is None and first.event is None}
    for first in firsts:
        if first.hour < begin and first.event != other:
            continue
        if first.event == other:
            if first.messages:
                yield Anomaly("too_many_names", first.source, None, None, max(first.hour, begin), None, first.messages)
        elif first.channel is None and first.event is None:
            yield Anomaly("new_source", first.source, None, None, first.hour, None, first.messages)
        elif first_hours[first.source] < begin and first.channel != other:
            kind: AnomalyKind = "new_channel" if first.event is None else "new_event"
            yield Anomaly(kind, first.source, first.event, first.channel, first.hour, None, first.messages)


def find_anomalies(all_series: Sequence[VolumeSeries], since: int, now: int) -> Iterator[Anomaly]:
    """Silence and jumps. Of a source that is silent nothing is told of its single events."""
    silent = {}
    for series in all_series:
        silent[series.source, series.event] = silence = _find_silence(series, now)
        if silence is None or (series.event is not None and silent.get((series.source, None)) is not None):
            continue
        yield silence
    for series in all_series:
        quiet = silent[series.source, series.event] or silent.get((series.source, None))
        end = hour_of(now) if quiet is None else quiet.since
        yield from _find_jumps(series, hour_of(since), min(end, hour_of(now)))


def comparable_counts(series: VolumeSeries, hour: int) -> Sequence[int]:
    """What arrived in the hours that this one is compared with; empty where too little is known."""
    for step, times, least in ((WEEK, WEEKS, WEEKS_MIN), (DAY, DAYS, DAYS_MIN)):
        earlier_hours = [hour - step * count for count in range(1, times + 1)]
        counts = [series.hours.get(earlier, 0) for earlier in earlier_hours if earlier >= series.first]
        if len(counts) >= least:
            return counts
    return ()


def expected_count(series: VolumeSeries, hour: int) -> float | None:
    compared = comparable_counts(series, hour)
    return median(compared) if compared else None


def _find_silence(series: VolumeSeries, now: int) -> Anomaly | None:
    this_hour = hour_of(now)
    active_hours = [hour for hour, messages in series.hours.items() if messages]
    last_hour = max(active_hours, default=None)
    if last_hour is None or last_hour >= this_hour - HOUR:
        return None
    hours = range(max(last_hour + HOUR, this_hour - SILENT_HOURS_MAX * HOUR), this_hour, HOUR)
    missing = sum(expected_count(series, hour) or 0 for hour in hours)
    if missing < SILENCE_MESSAGES:
        return None
    return Anomaly("silence", series.source, series.event, None, last_hour + HOUR, None, 0, missing)


def _find_jumps(series: VolumeSeries, begin: int, end: int) -> Iterator[Anomaly]:
    open_jump: Anomaly | None = None
    for hour in range(max(begin, series.first), end, HOUR):
        jump = _find_jump(series, hour)
        if open_jump is not None and jump is not None and jump.kind == open_jump.kind and open_jump.until == hour:
            open_jump = _merge_jumps(open_jump, jump)
            continue
        if open_jump is not None:
            yield open_jump
        open_jump = jump
    if open_jump is not None:
        yield open_jump


def _find_jump(series: VolumeSeries, hour: int) -> Anomaly | None:
    compared = comparable_counts(series, hour)
    if not compared:
        return None
    usual, messages = median(compared), series.hours.get(hour, 0)
    kind: AnomalyKind
    if messages - usual >= JUMP_MESSAGES and messages >= JUMP_FACTOR * usual and messages > max(compared):
        kind = "volume_up"
    elif usual - messages >= JUMP_MESSAGES and JUMP_FACTOR * messages <= usual and messages < min(compared):
        kind = "volume_down"
    else:
        return None
    return Anomaly(kind, series.source, series.event, None, hour, hour + HOUR, messages, usual)


def _merge_jumps(jump: Anomaly, next_jump: Anomaly) -> Anomaly:
    return msgspec.structs.replace(
        jump,
        until=next_jump.until,
        messages=jump.messages + next_jump.messages,
        expected=(jump.expected or 0) + (next_jump.expected or 0),
    )


def list_hours(hours: Mapping[int, int], now: int, count: int) -> list[tuple[int, int]]:
    """Messages of the last ``count`` hours, the one that is not over included, oldest first."""
    this_hour = hour_of(now)
    return [(hour, hours.get(hour, 0)) for hour in range(this_hour - (count - 1) * HOUR, this_hour + HOUR, HOUR)]
