"""Intervals in segments and stages: built from transitions, and compared with stored intervals after a replay. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from app.projection.coverage import DefinitionRef
from app.projection.fold import Transition
from app.projection.state import Cause

BEGINNING: Final = -(1 << 62)
END: Final = 1 << 62
"""Instants before and after all others, as limits of a period without limits."""

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


def correct_intervals(
    stored: Iterable[Interval], replayed: IntervalWrites, after: int = BEGINNING, until: int = END
) -> IntervalWrites:
    """Return the writes that replace stored intervals with replayed ones, in the period from ``after`` to ``until``.

    ``stored`` are the intervals that were open after ``after`` or began after it. ``replayed`` are the intervals that
    begin in the period, and the ends of intervals that were open at its start. What happens to stored intervals after
    the period stays as it is. Equal intervals are not written.
    """
    begun = {interval.key: interval for interval in replayed.begun}
    ended = {interval.key: interval for interval in replayed.ended}
    writes = IntervalWrites()
    for interval in stored:
        if interval.entered_at <= after:
            replacement = ended.get(interval.key) or msgspec.structs.replace(interval, left_at=None, left_cause=None)
            replacement.entered_cause = interval.entered_cause
        elif interval.key in begun:
            replacement = begun.pop(interval.key)
        else:
            if interval.entered_at <= until:
                writes.retracted.append(interval)
            continue
        if replacement.left_at is None and interval.left_at is not None and interval.left_at > until:
            replacement.left_at, replacement.left_cause = interval.left_at, interval.left_cause
        if not replacement.matches(interval):
            writes.ended.append(replacement)
    writes.begun = list(begun.values())
    return writes
