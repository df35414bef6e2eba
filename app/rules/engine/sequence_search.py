"""Search for sequences in the points of a leaf, for windows and filters that depend on the customer.

Lengths in months and dates depend on the customer's timezone, and an older touchpoint can leave a window after a
younger one. So for each touchpoint the search finds, among all choices for the previous steps, the one that stays
inside the window the longest. It continues with new points, so a fold searches each point once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from typing import Any, NamedTuple

from app.rules.engine.json_equality import equality_key
from app.rules.engine.point_series import Point
from app.rules.engine.sequence_tracker import SequenceShape
from app.rules.engine.value_codec import unpack_value
from app.rules.engine.window import INFINITE, Window
from app.rules.values.calendar import Length, add

STEP_MASK_COLUMN = 2
"""Index, in a point, of the bit mask of the steps that the touchpoint matches."""


class ChosenStep(NamedTuple):
    """A touchpoint that completes a step, with the best choice of touchpoints for all previous steps.

    All touchpoints are inside the window from ``enter`` until ``leave``. The best choice has the latest ``leave``, and
    of those the earliest ``enter``.
    """

    t: int
    enter: int
    leave: int
    next_from: int
    next_before: int
    """The next step must be at ``next_from`` or later, and before ``next_before``."""
    position: int
    """Index of the touchpoint among the points of the leaf."""
    previous: ChosenStep | None
    """Completed previous step of the best choice; ``None`` for the first step."""

    @property
    def positions(self) -> list[int]:
        """Indexes of the touchpoints of all steps, in order."""
        positions: list[int] = []
        step: ChosenStep | None = self
        while step is not None:
            positions.append(step.position)
            step = step.previous
        return positions[::-1]


class ChosenStepQueue:
    """Touchpoints that complete one step. Finds the touchpoint that the next step should follow."""

    __slots__ = ("_open", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, ChosenStep]] = []
        self._open: list[tuple[int, int, int, ChosenStep]] = []

    def add(self, step: ChosenStep) -> None:
        heappush(self._waiting, (step.next_from, step.position, step))

    def find_longest_lasting(self, t: int) -> ChosenStep | None:
        """Return the completed previous step that a touchpoint at ``t`` may follow, or ``None``.

        If it may follow several, the result is the one that stays inside the window the longest (latest ``leave``).
        ``t`` must not decrease between calls, so each completed step enters and leaves each heap once.
        """
        while self._waiting and self._waiting[0][0] <= t:
            _, position, step = heappop(self._waiting)
            heappush(self._open, (-step.leave, step.enter, position, step))
        while self._open and self._open[0][-1].next_before <= t:
            heappop(self._open)
        return self._open[0][-1] if self._open else None


class FoundSequence:
    """A completed sequence; the rule is true in [enter, leave) unless a closing touchpoint is before ``deadline``."""

    __slots__ = ("deadline", "enter", "is_invalid", "leave", "step")

    def __init__(self, deadline: int, step: ChosenStep) -> None:
        self.enter, self.leave, self.deadline, self.step = max(step.enter, deadline), step.leave, deadline, step
        self.is_invalid = False

    def outlasts(self, other: FoundSequence) -> bool:
        """Return whether this sequence is true whenever ``other`` is, and becomes invalid only if ``other`` does."""
        return self.enter <= other.enter and self.deadline <= other.deadline and self.leave >= other.leave


class KeyProgress:
    """Completed steps of touchpoints with the same values of ``same``, and the sequences that may become invalid."""

    __slots__ = ("latest_found", "queues", "unclosed")

    def __init__(self, step_count: int) -> None:
        self.queues = [ChosenStepQueue() for _ in range(step_count - 1)]
        self.unclosed: list[FoundSequence] = []
        self.latest_found: FoundSequence | None = None


class SequenceSearch:
    """Sequences among the points added so far, in one timezone.

    If the window can end, it must not let an older touchpoint enter after a younger one, as ``before`` with months can.
    """

    def __init__(self, shape: SequenceShape, window: Window, zone: str) -> None:
        self._shape, self._window, self._zone = shape, window, zone
        self._progress: dict[Any, KeyProgress] = {}
        self._longest: FoundSequence | None = None
        """The sequence that leaves the window last, among those that are true at the latest point or were before."""
        self._later: list[tuple[int, int, FoundSequence]] = []
        """Heap of the other sequences by ``enter``."""
        self._point_count = 0
        self.latest: tuple[int, int] | None = None
        """Instant and place of the latest point added."""

    def add(self, point: Point, mask: int) -> None:
        """Add a point, which must be later than those before. ``mask`` is the bit mask of the steps that it matches."""
        self.latest = (point[0], point[1])
        self._point_count += 1
        t: int = point[0]
        self._settle(t)
        if not mask:
            return
        key = _correlation_key(point, self._shape.same_count)
        progress = self._progress.get(key)
        if progress is None:
            if not mask & 1:
                return
            progress = self._progress[key] = KeyProgress(self._shape.step_count)
        if mask & 1 << self._shape.step_count:
            for sequence in progress.unclosed:
                sequence.is_invalid = sequence.deadline > t
            progress.unclosed.clear()
        enter, leave = self._window.compute_interval(t, self._zone)
        if enter < leave:
            self._add_steps(t, mask, (enter, leave), progress)

    def _settle(self, t: int) -> None:
        """Keep only the longest-lasting of the sequences that are true at ``t``."""
        while self._later and self._later[0][0] <= t:
            sequence = heappop(self._later)[2]
            if not sequence.is_invalid and (self._longest is None or sequence.leave > self._longest.leave):
                self._longest = sequence

    def _add_steps(self, t: int, mask: int, interval: tuple[int, int], progress: KeyProgress) -> None:
        """Use the point for every step that it can complete.

        Later steps are tried first, so that one touchpoint never completes two steps of the same sequence.
        """
        own_enter, own_leave = interval
        position = self._point_count - 1
        last = self._shape.step_count - 1
        for step in range(last, -1, -1):
            if not mask & 1 << step:
                continue
            enter, leave = interval
            previous: ChosenStep | None = None
            if step > 0:
                previous = progress.queues[step - 1].find_longest_lasting(t)
                if previous is None:
                    continue
            if previous is not None:
                enter, leave = max(own_enter, previous.enter), min(own_leave, previous.leave)
            chosen = ChosenStep(t, enter, leave, *self._next_step_bounds(t, step), position, previous)
            if step == last:
                self._complete(chosen, progress)
            else:
                progress.queues[step].add(chosen)

    def _next_step_bounds(self, t: int, step: int) -> tuple[int, int]:
        """Return the half-open interval in which the step after this one must be."""
        if step + 1 == self._shape.step_count:
            return t, INFINITE
        gap = self._shape.gaps[step + 1]
        return (
            t if gap.after is None else self._shift(t, gap.after),
            INFINITE if gap.within is None else self._shift(t, gap.within),
        )

    def _shift(self, t: int, length: Length) -> int:
        return t + length.microseconds if length.is_exact else add(t, length, self._zone)

    def _complete(self, step: ChosenStep, progress: KeyProgress) -> None:
        closing = self._shape.closing
        sequence = FoundSequence(step.t if closing is None else self._shift(step.t, closing), step)
        if sequence.enter >= sequence.leave:
            return
        latest = progress.latest_found
        if latest is not None and not latest.is_invalid and latest.outlasts(sequence):
            return
        heappush(self._later, (sequence.enter, step.position, sequence))
        progress.latest_found = sequence
        if closing is not None:
            progress.unclosed.append(sequence)

    def _candidates(self) -> Iterator[FoundSequence]:
        if self._longest is not None:
            yield self._longest
        for _, _, sequence in self._later:
            if not sequence.is_invalid:
                yield sequence

    def find_true(self, t: int) -> FoundSequence | None:
        """Return the longest-lasting sequence that is true at ``t``, or ``None``.

        ``t`` must not be earlier than the points added.
        """
        true_now = (sequence for sequence in self._candidates() if sequence.enter <= t < sequence.leave)
        return max(true_now, key=_leave_of, default=None)

    def next_enter_at(self, t: int) -> int | None:
        """Return when the next sequence becomes true after ``t``, or ``None``."""
        return min((sequence.enter for sequence in self._candidates() if sequence.enter > t), default=None)


def _leave_of(sequence: FoundSequence) -> int:
    return sequence.leave


def _correlation_key(point: Point, same_count: int) -> Any:
    """Return a key of the values of ``same``, which is equal for all points of one sequence."""
    values: Sequence[Any] = point[STEP_MASK_COLUMN + 1 : STEP_MASK_COLUMN + 1 + same_count]
    return tuple(equality_key(unpack_value(value)) for value in values)
