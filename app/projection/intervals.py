"""From changes to intervals, and from a new history to the least that must be written. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from app.projection.fold import Change
from app.projection.state import Cause

IntervalKey = tuple[bytes, str, str, int, int]
"""(customer id, definition, value, version, entered_at)"""


class Interval(msgspec.Struct, gc=False):
    """A stay in a segment or a stage: [entered_at, left_at), with the causes of both ends."""

    customer: bytes
    definition: str
    value: str
    version: int
    entered_at: int
    entered_cause: Cause | None
    """None: as it is stored."""
    left_at: int | None = None
    left_cause: Cause | None = None

    @property
    def key(self) -> IntervalKey:
        return (self.customer, self.definition, self.value, self.version, self.entered_at)


class IntervalWrites(msgspec.Struct):
    """What to write: rows that begin, rows that now end (elsewhere, no longer, for another cause), and rows that
    never were or belong to an older version of their definition."""

    begun: list[Interval] = []
    ended: list[Interval] = []
    retracted: list[Interval] = []

    def extend(self, other: IntervalWrites) -> None:
        self.begun += other.begun
        self.ended += other.ended
        self.retracted += other.retracted


def continue_intervals(customer: bytes, changes: Iterable[Change], versions: Mapping[str, int]) -> IntervalWrites:
    """The changes of a live fold: intervals that begin, and ends of intervals that are stored or just began."""
    begun: dict[IntervalKey, Interval] = {}
    ended: list[Interval] = []
    for change in changes:
        entered_cause = change.cause if change.entered else None
        version = versions[change.definition]
        interval = Interval(customer, change.definition, change.value, version, change.since, entered_cause)
        if change.entered:
            begun[interval.key] = interval
            continue
        known = begun.get(interval.key)
        if known is None:
            ended.append(interval)
            known = interval
        known.left_at = change.at
        known.left_cause = change.cause
    return IntervalWrites(list(begun.values()), ended)


def correct_intervals(stored: Sequence[Interval], replayed: Sequence[Interval]) -> IntervalWrites:
    """Only where the replay differs from what is stored is anything written."""
    wanted = {interval.key: interval for interval in replayed}
    writes = IntervalWrites()
    for old in stored:
        new = wanted.pop(old.key, None)
        if new is None:
            writes.retracted.append(old)
        elif new != old:
            writes.ended.append(new)
    writes.begun = list(wanted.values())
    return writes
