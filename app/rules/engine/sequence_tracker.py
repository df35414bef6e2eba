"""Progress of a sequence with exact lengths, tracked as touchpoints arrive.

All lengths of such a sequence (gaps, ``within`` and ``before`` of the window, the closing ``not`` step) are exact, so
they do not depend on a timezone. A sequence then leaves the window when its first touchpoint does. Of all choices for
the previous steps, the one with the latest first touchpoint is the best, and the best choice never gets earlier from
one touchpoint to the next. So a step needs only its latest touchpoint, or with ``after_at_least`` also those that are
not old enough yet. A touchpoint costs amortised constant time, regardless of how many touchpoints came before.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from app.rules.engine.json_equality import digest_value
from app.rules.values.calendar import Length

ALWAYS_INSIDE: Final = 0
"""Instant of the first touchpoint of every sequence without ``within``: none of them leaves the window."""

_NEVER: Final = 1 << 62


class Gap(NamedTuple):
    """Allowed time between a step and the previous one: at least ``after``, and less than ``within``."""

    within: Length | None
    after: Length | None


class SequenceShape(NamedTuple):
    """Structure of a sequence, without the filters of its steps."""

    gaps: tuple[Gap, ...]
    """Gap before each positive step. The gap of the first step is empty."""
    closing: Length | None
    """Time after the last positive step in which no touchpoint may match the closing ``not`` step; ``None`` if the
    sequence does not end with a ``not`` step."""
    same_count: int
    """Number of values of ``same``."""

    @property
    def step_count(self) -> int:
        return len(self.gaps)

    @property
    def is_exact(self) -> bool:
        """True if all gaps have exact lengths, which do not depend on a timezone."""
        lengths = [length for gap in self.gaps for length in gap] + [self.closing]
        return all(length is None or length.is_exact for length in lengths)


class StepEnd(NamedTuple):
    """A touchpoint at ``t`` that completes a step, and the instant of the latest possible first touchpoint."""

    t: int
    first: int


class PendingSequence(NamedTuple):
    """A sequence that will be true later: after the time of the closing ``not`` step, and of ``before``.

    ``t`` is the instant of the last positive step. The sequence is true from ``t`` plus the delay of the tracker until
    ``first`` leaves the window.
    """

    t: int
    first: int
    key: str


class SequenceProgress(msgspec.Struct, array_like=True):
    """Progress of a sequence for touchpoints with the same values of ``same``.

    ``step_ends[i]`` are touchpoints that complete the first ``i + 1`` steps, in order. ``updated_at`` is the instant of
    the latest touchpoint. ``pending`` is the latest pending sequence that no touchpoint has invalidated.
    """

    step_ends: list[list[StepEnd]]
    updated_at: int
    pending: StepEnd | None = None


class SequenceState(msgspec.Struct, array_like=True):
    """State of a tracked sequence for one customer."""

    progress: dict[str, SequenceProgress] = {}
    """Digest of the values of ``same`` -> progress, least recently updated first."""
    pending: list[PendingSequence] = []
    """In order of ``t``."""
    first: int | None = None
    """Latest first touchpoint of all sequences that have been true; ``None`` if none has."""

    @property
    def weight(self) -> int:
        """Size of the state in points, for the size limit."""
        return len(self.pending) + sum(1 + sum(map(len, progress.step_ends)) for progress in self.progress.values())


class SequenceTracker:
    """Tracks one sequence. ``within`` and ``before`` are the parts of its window, in microseconds."""

    __slots__ = ("_idle_max", "_spans", "before", "closing", "delay", "shape", "within")

    def __init__(self, shape: SequenceShape, within: int | None, before: int | None) -> None:
        self.shape, self.within, self.before = shape, within, before
        self.closing = None if shape.closing is None else shape.closing.microseconds
        self.delay = max(self.closing or 0, before or 0)
        """Time in microseconds from the last positive step until the sequence is true."""
        self._spans = [
            (0 if gap.after is None else gap.after.microseconds, gap.within and gap.within.microseconds)
            for gap in shape.gaps
        ]
        self._idle_max = self._longest_idle_time()

    @property
    def canonical_form(self) -> list[Any]:
        """JSON value that identifies the tracker. It must never change, because stored states depend on it."""
        return [self._spans, self.closing, self.shape.same_count, self.within, self.before]

    def _longest_idle_time(self) -> int | None:
        """Return the time in microseconds after which progress without a touchpoint can no longer continue."""
        gaps = [within for _, within in self._spans[1:]]
        limits = [] if self.within is None else [self.within]
        if None not in gaps:
            limits.append(max((gap for gap in gaps if gap is not None), default=0))
        return max(min(limits), self.delay) if limits else None

    def leaves_at(self, first: int) -> int | None:
        """Return when a sequence with this first touchpoint leaves the window; ``None`` for never."""
        return None if self.within is None else first + self.within

    def add(self, state: SequenceState, t: int, values: Sequence[Any]) -> None:
        """Add one touchpoint, which must not be earlier than those added before.

        ``values`` are the bit mask of steps and the values of ``same``, before encoding.
        """
        if self._is_permanently_true(state):
            return
        self._settle(state, t)
        if not self._is_permanently_true(state):
            self._drop_idle(state, t)
            self._add_step(state, t, values)
        if self._is_permanently_true(state):
            state.progress, state.pending = {}, []

    def _add_step(self, state: SequenceState, t: int, values: Sequence[Any]) -> None:
        mask: int = values[0]
        key = "".join(map(digest_value, values[1 : 1 + self.shape.same_count]))
        progress = state.progress.pop(key, None)
        if progress is None:
            if not mask & 1:
                return
            progress = SequenceProgress([[] for _ in self.shape.gaps[1:]], t)
        progress.updated_at = t
        # The progress moves to the end, so that the least recently updated comes first.
        state.progress[key] = progress
        if mask & 1 << self.shape.step_count:
            self._invalidate(state, progress, t, key)
        first = self._advance(progress, t, mask)
        if first is not None:
            self._complete(state, progress, t, first, key)

    def _is_permanently_true(self, state: SequenceState) -> bool:
        return self.within is None and state.first is not None

    def _settle(self, state: SequenceState, t: int) -> None:
        """Move the pending sequences that are true at ``t`` into ``first``."""
        settled = 0
        for pending in state.pending:
            if pending.t + self.delay > t:
                break
            self._record_true(state, pending.first)
            settled += 1
        del state.pending[:settled]

    def _record_true(self, state: SequenceState, first: int) -> None:
        if state.first is None or first > state.first:
            state.first = first

    def _drop_idle(self, state: SequenceState, t: int) -> None:
        """Drop progress that can no longer continue. Its pending sequences have been settled."""
        while self._idle_max is not None and state.progress:
            key = next(iter(state.progress))
            if state.progress[key].updated_at + self._idle_max > t:
                return
            del state.progress[key]

    def _invalidate(self, state: SequenceState, progress: SequenceProgress, t: int, key: str) -> None:
        """Drop the pending sequences in whose closing time a touchpoint of the closing step at ``t`` is."""
        if self.closing is None or progress.pending is None or progress.pending.t + self.closing <= t:
            return
        start = bisect_right(state.pending, t - self.closing, key=_instant_of)
        state.pending[start:] = [pending for pending in state.pending[start:] if pending.key != key]
        progress.pending = None

    def _advance(self, progress: SequenceProgress, t: int, mask: int) -> int | None:
        """Record the steps that the touchpoint completes.

        Return the first touchpoint of the best sequence that it completes, or ``None``. Later steps are tried first,
        so that one touchpoint never completes two steps of the same sequence.
        """
        last = self.shape.step_count - 1
        completed: int | None = None
        for step in range(last, -1, -1):
            if not mask & 1 << step:
                continue
            first = self._start_of(t) if step == 0 else self._find_first(progress.step_ends[step - 1], t, step)
            if first is None:
                continue
            if step == last:
                completed = first
            else:
                self._add_step_end(progress.step_ends[step], StepEnd(t, first), step + 1)
        return completed

    def _start_of(self, t: int) -> int:
        return ALWAYS_INSIDE if self.within is None else t

    def _find_first(self, ends: list[StepEnd], t: int, step: int) -> int | None:
        """Return the first touchpoint of the best choice that ``step`` at ``t`` can follow, or ``None``."""
        after, within = self._spans[step]
        place = bisect_right(ends, t - after, key=_instant_of) - 1
        if place < 0 or (within is not None and ends[place].t + within <= t):
            return None
        first = ends[place].first
        return None if self.within is not None and first + self.within <= t else first

    def _add_step_end(self, ends: list[StepEnd], end: StepEnd, next_step: int) -> None:
        """Record the completed step, and drop the step ends that are never better than another one."""
        after, within = self._spans[next_step]
        if ends and within is None and ends[-1].first == end.first:
            return
        if ends and ends[-1].t == end.t:
            ends.pop()
        ends.append(end)
        old_enough = bisect_right(ends, end.t - after, key=_instant_of)
        del ends[: old_enough - 1 if old_enough else 0]

    def _complete(self, state: SequenceState, progress: SequenceProgress, t: int, first: int, key: str) -> None:
        """Record a sequence whose last positive step is at ``t``."""
        if not self.delay:
            self._record_true(state, first)
            return
        leave = self.leaves_at(first)
        if leave is not None and leave <= t + self.delay:
            return
        if progress.pending is not None and progress.pending.first == first:
            return  # The earlier sequence is true earlier and as long.
        if self.closing is None and state.pending:
            latest = state.pending[-1]
            latest_leave = self.leaves_at(latest.first)
            if latest_leave is None or t + self.delay <= latest_leave:
                # Nothing can invalidate the two sequences, and the second is true before the first leaves the window.
                state.pending[-1] = PendingSequence(latest.t, max(latest.first, first), key)
                return
        progress.pending = StepEnd(t, first)
        state.pending.append(PendingSequence(t, first, key))

    def find_true(self, state: SequenceState, t: int) -> tuple[bool, int | None]:
        """Return whether a sequence is true at ``t``, and an instant before which that does not change.

        ``t`` must not be earlier than the touchpoints added. The instant is ``None`` if time alone changes nothing.
        """
        entered = bisect_right(state.pending, t - self.delay, key=_instant_of)
        leave = self._find_leave(state, t, entered)
        if leave is not None:
            return True, leave if leave != _NEVER else None
        if entered < len(state.pending):
            return False, state.pending[entered].t + self.delay
        return False, None

    def _find_leave(self, state: SequenceState, t: int, entered: int) -> int | None:
        """Return when a true sequence leaves the window; ``None`` if none of the first ``entered`` pending is true."""
        # Without ``same``, the latest pending sequence is also the last one to leave the window.
        earliest = 0 if self.shape.same_count else max(entered - 1, 0)
        firsts = [pending.first for pending in state.pending[earliest:entered]]
        if state.first is not None:
            firsts.append(state.first)
        if not firsts:
            return None
        leave = self.leaves_at(max(firsts))
        if leave is None:
            return _NEVER
        return leave if leave > t else None


def _instant_of(item: StepEnd | PendingSequence) -> int:
    return item.t
