"""Intervals in segments and stages: built from transitions, and compared with stored intervals after a replay. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from app.projection.coverage import DefinitionRef
from app.projection.fold import Transition
from app.projection.state import Cause

IntervalKey = tuple[bytes, str, str, int, int]
"""(customer id, definition, value, meaning, entered_at)"""


class Interval(msgspec.Struct, gc=False):
    """Interval of a customer in a segment or stage, [entered_at, left_at), with the causes of its start and end."""

    customer: bytes
    definition: str
    value: str
    version: int
    """Version of the definition when the interval was first written; not part of the key."""
    entered_at: int
    entered_cause: Cause | None
    """None means that a write keeps the stored cause."""
    left_at: int | None = None
    left_cause: Cause | None = None
    meaning: int = 0
    """Number of the meaning of the definition. It separates the intervals of a candidate from those of the current
    version."""

    @property
    def key(self) -> IntervalKey:
        return (self.customer, self.definition, self.value, self.meaning, self.entered_at)

    def matches(self, interval: Interval) -> bool:
        """Return True if this interval and another with the same key have the same end and causes."""
        return (
            self.left_at == interval.left_at
            and self.entered_cause == interval.entered_cause
            and self.left_cause == interval.left_cause
        )


class IntervalWrites(msgspec.Struct):
    """Intervals to write.

    ``begun`` are new intervals. ``ended`` are stored intervals whose end or cause changes. ``retracted`` are stored
    intervals that are wrong, or that belong to an older meaning of their definition.
    """

    begun: list[Interval] = []
    ended: list[Interval] = []
    retracted: list[Interval] = []

    def extend(self, writes: IntervalWrites) -> None:
        self.begun += writes.begun
        self.ended += writes.ended
        self.retracted += writes.retracted


def continue_intervals(
    customer: bytes, changes: Iterable[Transition], refs: Mapping[str, DefinitionRef]
) -> IntervalWrites:
    """Convert the transitions of a fold into new intervals and ends of stored intervals."""
    begun: dict[IntervalKey, Interval] = {}
    ended: list[Interval] = []
    for change in changes:
        ref = refs[change.definition]
        interval = Interval(
            customer,
            ref.definition,
            change.value,
            ref.version,
            change.since,
            change.cause if change.entered else None,
            meaning=ref.meaning,
        )
        if change.entered:
            begun[interval.key] = interval
            continue
        open_interval = begun.get(interval.key)
        if open_interval is None:
            ended.append(interval)
            open_interval = interval
        open_interval.left_at = change.at
        open_interval.left_cause = change.cause
    return IntervalWrites(list(begun.values()), ended)


def correct_intervals(stored: Sequence[Interval], replayed: Sequence[Interval]) -> IntervalWrites:
    """Return the writes that replace stored intervals with replayed ones; equal intervals are not written."""
    replayed_by_key = {interval.key: interval for interval in replayed}
    writes = IntervalWrites()
    for stored_interval in stored:
        replayed_interval = replayed_by_key.pop(stored_interval.key, None)
        if replayed_interval is None:
            writes.retracted.append(stored_interval)
        elif not replayed_interval.matches(stored_interval):
            writes.ended.append(replayed_interval)
    writes.begun = list(replayed_by_key.values())
    return writes
