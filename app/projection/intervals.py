"""From changes to intervals, and from a new history to the least that must be written. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from app.projection.coverage import Kept
from app.projection.fold import Transition
from app.projection.state import Cause

IntervalKey = tuple[bytes, str, str, int, int]
"""(customer id, definition, value, meaning, entered_at)"""


class Interval(msgspec.Struct, gc=False):
    """A stay in a segment or a stage: [entered_at, left_at), with the causes of both ends."""

    customer: bytes
    definition: str
    value: str
    version: int
    """Of the definition when the interval was first written; it tells nothing apart."""
    entered_at: int
    entered_cause: Cause | None
    """None: as it is stored."""
    left_at: int | None = None
    left_cause: Cause | None = None
    meaning: int = 0
    """The number of what the definition meant: a candidate's intervals stand beside the current ones."""

    @property
    def key(self) -> IntervalKey:
        return (self.customer, self.definition, self.value, self.meaning, self.entered_at)

    def says(self, other: Interval) -> bool:
        """Whether both, of one key, say the same."""
        return (
            self.left_at == other.left_at
            and self.entered_cause == other.entered_cause
            and self.left_cause == other.left_cause
        )


class IntervalWrites(msgspec.Struct):
    """What to write: rows that begin, rows that now end (elsewhere, no longer, for another cause), and rows that
    never were or belong to an older meaning of their definition."""

    begun: list[Interval] = []
    ended: list[Interval] = []
    retracted: list[Interval] = []

    def extend(self, other: IntervalWrites) -> None:
        self.begun += other.begun
        self.ended += other.ended
        self.retracted += other.retracted


def continue_intervals(customer: bytes, changes: Iterable[Transition], kept: Mapping[str, Kept]) -> IntervalWrites:
    """The changes of a live fold: intervals that begin, and ends of intervals that are stored or just began."""
    begun: dict[IntervalKey, Interval] = {}
    ended: list[Interval] = []
    for change in changes:
        where = kept[change.definition]
        interval = Interval(
            customer,
            where.definition,
            change.value,
            where.version,
            change.since,
            change.cause if change.entered else None,
            meaning=where.meaning,
        )
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
        elif not new.says(old):
            writes.ended.append(new)
    writes.begun = list(wanted.values())
    return writes
