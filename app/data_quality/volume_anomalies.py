"""Volume anomalies: new event names and channels, silence, and jumps in the number of messages per hour.

The functions are pure: the counts per hour and ``now`` are arguments.

**Expected count** of an hour: the median of the same hour of the week in the previous four weeks. Only weeks since the
start of the series count, and at least two are needed. With fewer weeks, it is the median of the same hour of the day
in the previous seven days, of which at least three are needed. One newsletter or one outage does not move a median.
Without enough history there is no expected count and no anomaly.

**Silence**: no message has arrived for at least one whole hour. In the whole hours since the last message (at most the
last 168), the expected counts add up to at least SILENCE_MESSAGES.

**Jump**: a whole hour in the requested period that meets three conditions. The count differs from the expected count by
at least JUMP_MESSAGES. It is at least JUMP_FACTOR times as high or as low. It is higher or lower than in every hour
that it is compared with. Adjacent hours that jump in the same direction are one jump.
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
"""Length of the period that the analysis reads, in microseconds."""

AnomalyKind = Literal["new_source", "new_event", "new_channel", "silence", "volume_up", "volume_down", "too_many_names"]


class FirstSeen(NamedTuple):
    """First hour of a source, channel or event, and its number of messages in the requested period.

    If both ``channel`` and ``event`` are None, the values are those of the whole source.
    """

    source: str
    channel: str | None
    event: str | None
    hour: int
    messages: int


class VolumeSeries(msgspec.Struct):
    """Messages per hour of one event, or of a whole source if ``event`` is None.

    An hour is identified by the instant of its start. Hours without messages may be missing. ``first`` is the first
    hour in which a message ever arrived.
    """

    source: str
    event: str | None
    first: int
    hours: dict[int, int]


class Anomaly(msgspec.Struct, frozen=True):
    """An anomaly of one source. ``since`` and ``until`` are whole hours; ``until`` is None while it continues.

    ``expected`` is the expected count, as the docstring of the module defines it.
    """

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
    """Yield sources, channels and events whose first message is in or after the hour of ``since``.

    The channels and events of a new source are not reported separately. ``other`` is the name under which
    names beyond the limit are counted.
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
    """Yield silences and jumps. If a source is silent, the silence of its events is not reported."""
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
    """Return the counts of the earlier hours with which ``hour`` is compared; empty if the history is too short."""
    for step, times, least in ((WEEK, WEEKS, WEEKS_MIN), (DAY, DAYS, DAYS_MIN)):
        earlier_hours = [hour - step * count for count in range(1, times + 1)]
        counts = [series.hours.get(earlier, 0) for earlier in earlier_hours if earlier >= series.first]
        if len(counts) >= least:
            return counts
    return ()


def expected_count(series: VolumeSeries, hour: int) -> float | None:
    """Return the median of :func:`comparable_counts`; None if the history is too short."""
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
    """Return (hour, messages) of the last ``count`` hours, including the current hour, oldest first."""
    this_hour = hour_of(now)
    return [(hour, hours.get(hour, 0)) for hour in range(this_hour - (count - 1) * HOUR, this_hour + HOUR, HOUR)]
