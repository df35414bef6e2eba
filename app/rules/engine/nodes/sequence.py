# ruff: noqa: ARG002 - nodes answer the same questions; not every node needs every argument
"""Touchpoints in order: one a step, each after the one before, and perhaps nothing of a kind after the last.

All steps of a sequence read one leaf. The first column of its points is a mask that says which steps the touchpoint
could be; the next are the values that must be the same; what a filter had to leave open follows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any, Final, NamedTuple

from app.rules.engine.calendar import Length
from app.rules.engine.json_equality import digest_value, equality_key
from app.rules.engine.nodes.base import Facts, Memo, Node, earliest
from app.rules.engine.nodes.point_windows import Points, asking
from app.rules.engine.point_series import Chains, Point, Record
from app.rules.engine.series import EMPTY, Series
from app.rules.engine.value_codec import unpack_value
from app.rules.engine.window import INFINITE

FORGOTTEN_EVERY: Final = 16
"""After so many new values, chains that nothing can follow any more are looked for and dropped."""

MASK: Final = 2
"""The column of a point that says which steps it could be."""


class Gap(NamedTuple):
    """How far a step may be from the one before: at least ``after``, and less than ``within``."""

    within: Length | None
    after: Length | None


class Shape(NamedTuple):
    """What is asked of the steps, apart from what each of them matches."""

    gaps: tuple[Gap, ...]
    """One for each positive step; that of the first is empty."""
    closing: Length | None
    """For how long nothing that the closing step matches may follow."""
    same: int
    """How many values must be the same."""

    @property
    def steps(self) -> int:
        return len(self.gaps)

    @property
    def is_exact(self) -> bool:
        """Whether no timezone has a say in how far steps are from each other."""
        lengths = [length for gap in self.gaps for length in gap] + [self.closing]
        return all(length is None or length.is_exact for length in lengths)

    def key(self, point: Point) -> Any:
        """What points of one sequence have in common."""
        if self.same == 0:
            return None
        return tuple(equality_key(unpack_value(value)) for value in point[MASK + 1 : MASK + 1 + self.same])


class End(NamedTuple):
    """A touchpoint with which the first steps can be done. ``leave`` is when the best choice of them falls apart."""

    t: int
    place: int
    leave: int
    opens: int
    closes: int
    """The next step may come from ``opens`` on, and before ``closes``."""
    number: int
    """Where the touchpoint stands among all points."""
    before: End | None
    """The step before, of that best choice."""


class Ends:
    """The ends of one step, asked in order of time for the one that the next step should follow."""

    __slots__ = ("_open", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, End]] = []
        self._open: list[tuple[int, int, End]] = []

    def add(self, end: End) -> None:
        heappush(self._waiting, (end.opens, end.number, end))

    def longest_lasting(self, t: int) -> End | None:
        """Of those that a touchpoint of instant ``t`` may follow; ``t`` never goes back, so each is looked at twice."""
        while self._waiting and self._waiting[0][0] <= t:
            _, number, end = heappop(self._waiting)
            heappush(self._open, (-end.leave, number, end))
        while self._open and self._open[0][2].closes <= t:
            heappop(self._open)
        return self._open[0][2] if self._open else None


class Completed(NamedTuple):
    """All steps are done: true in [answered, leave)."""

    answered: int
    leave: int
    end: End


class SequenceDone(Node):
    """Any window, any filter: the steps are looked for among the points that are inside."""

    __slots__ = ("open_tests", "points", "shape")

    def __init__(
        self, rule: dict[str, Any], points: Points, shape: Shape, open_tests: Sequence[tuple[int, int, Any]]
    ) -> None:
        super().__init__(rule)
        self.points, self.shape, self.open_tests = points, shape, tuple(open_tests)
        """``open_tests`` are (bit of the step, column of the value, comparison) that the filter had to leave open."""

    def holds(self, facts: Facts, t: int, memo: Memo) -> bool:
        completed, _ = self.completed(facts, t, memo)
        return any(each.answered <= t < each.leave for each in completed)

    def next_check(self, facts: Facts, t: int, memo: Memo) -> int | None:
        """While true: when the sequence that lasts longest falls apart. Else: when one may be answered."""
        completed, entering = self.completed(facts, t, memo)
        standing = [each.leave for each in completed if each.answered <= t < each.leave]
        if standing:
            checks = [leave for leave in (max(standing),) if leave < INFINITE]
        else:
            checks = [each.answered for each in completed if t < each.answered < each.leave]
            checks += [] if entering is None else [entering]
        return earliest([*checks, self.points.operands_check(facts, t, memo)])

    def used(self, facts: Facts, t: int, memo: Memo) -> list[int]:
        """Numbers of the points that make the sequence true, of the choice that lasts longest."""
        completed, _ = self.completed(facts, t, memo)
        standing = [each for each in completed if each.answered <= t < each.leave]
        if not standing:
            return []
        step: End | None = max(standing, key=lambda each: each.leave).end
        numbers = []
        while step is not None:
            numbers.append(step.number)
            step = step.before
        return numbers[::-1]

    def completed(self, facts: Facts, t: int, memo: Memo) -> tuple[list[Completed], int | None]:
        """Sequences among the points inside at ``t``, and when the next point comes inside."""
        window, zone = self.points.window, self.points.zone.of(facts)
        ends: dict[Any, tuple[list[Ends], list[End]]] = {}
        spoiling: dict[Any, list[tuple[int, int]]] = {}
        entering: int | None = None
        closing_bit = 1 << self.shape.steps
        points = self.points.of(facts)
        memo.points += len(points)
        for number, point in enumerate(points):
            mask = self._mask(point, facts, t, memo)
            if not mask:
                continue
            key = self.shape.key(point)
            if mask & closing_bit:
                spoiling.setdefault(key, []).append((point[0], point[1]))
            enter, leave = window.compute_interval(point[0], zone)
            if leave <= t or enter >= leave:
                continue
            if enter > t:
                entering = enter if entering is None or enter < entering else entering
                continue
            found = ends.get(key)
            if found is None:
                found = ends[key] = ([Ends() for _ in self.shape.gaps], [])
            self._take(point, mask, leave, number, found, facts)
        return self._answers(ends, spoiling, facts), entering

    def _mask(self, point: Point, facts: Facts, t: int, memo: Memo) -> int:
        mask: int = point[MASK]
        for bit, column, compared in self.open_tests:
            if mask & bit and not compared.holds(
                unpack_value(point[column]), asking(facts, point[0], self.points.zone.of(facts), t, memo)
            ):
                mask &= ~bit
        return mask

    def _take(
        self, point: Point, mask: int, leave: int, number: int, found: tuple[list[Ends], list[End]], facts: Facts
    ) -> None:
        """Let the point be every step that it can be, the last first, so that it is never two of one sequence."""
        ends, done = found
        last = self.shape.steps - 1
        for step in range(last, -1, -1):
            if not mask & 1 << step:
                continue
            before: End | None = None
            if step > 0:
                before = ends[step - 1].longest_lasting(point[0])
                if before is None:
                    continue
            lasting = leave if before is None else min(leave, before.leave)
            end = End(point[0], point[1], lasting, *self._until_next(point[0], step, facts), number, before)
            if step == last:
                done.append(end)
            else:
                ends[step].add(end)

    def _until_next(self, t: int, step: int, facts: Facts) -> tuple[int, int]:
        """From when on, and before when, the step after this one may come."""
        if step + 1 == self.shape.steps:
            return t, INFINITE
        gap, zone = self.shape.gaps[step + 1], self.points.zone
        return (
            t if gap.after is None else zone.add(t, gap.after, facts),
            INFINITE if gap.within is None else zone.add(t, gap.within, facts),
        )

    def _answers(
        self, ends: dict[Any, tuple[list[Ends], list[End]]], spoiling: dict[Any, list[tuple[int, int]]], facts: Facts
    ) -> list[Completed]:
        closing = self.shape.closing
        if closing is None:
            return [Completed(0, end.leave, end) for _, done in ends.values() for end in done]
        completed = []
        for key, (_, done) in ends.items():
            spoilers = spoiling.get(key, [])
            for end in done:
                answered = self.points.zone.add(end.t, closing, facts)
                after = bisect_right(spoilers, (end.t, end.place))
                if after == len(spoilers) or spoilers[after][0] >= answered:
                    completed.append(Completed(answered, end.leave, end))
        return completed


class Course(NamedTuple):
    """How a sequence without a window and with exact gaps is followed: only what can still go on is remembered."""

    shape: Shape

    def add(self, series: Series, t: int, place: int, kept: Sequence[Any]) -> None:
        """Take in one touchpoint; ``kept`` is the mask and the values that must be the same, not packed."""
        record = series.record
        assert record is not None
        if record.done:
            return
        shape = self.shape
        mask: int = kept[0]
        key = "".join(map(digest_value, kept[1 : 1 + shape.same]))
        chains = record.chains.get(key)
        if chains is None:
            if not mask & 1:
                return
            if len(record.chains) % FORGOTTEN_EVERY == FORGOTTEN_EVERY - 1:
                self._forget_the_dead(record, t)
            chains = record.chains[key] = Chains([[] for _ in shape.gaps])
        if shape.closing is not None and chains.unanswered is not None:
            if chains.unanswered[0] + shape.closing.microseconds <= t:
                self._finish(series)
                return
            if mask & 1 << shape.steps and chains.unanswered < [t, place]:
                chains.unanswered = None
        if self._reaches_the_end(chains, t, place, mask):
            if shape.closing is None:
                self._finish(series)
            elif chains.unanswered is None:
                chains.unanswered = [t, place]

    def _forget_the_dead(self, record: Record, t: int) -> None:
        """Drop chains that nothing can follow any more."""
        spans = [gap.within and gap.within.microseconds for gap in self.shape.gaps[1:]]
        if None in spans:
            return
        record.chains = {
            key: chains
            for key, chains in record.chains.items()
            if chains.unanswered is not None
            or any(ends and ends[-1][0] + span > t for ends, span in zip(chains.ends, spans, strict=False) if span)
        }

    def _reaches_the_end(self, chains: Chains, t: int, place: int, mask: int) -> bool:
        last = self.shape.steps - 1
        reached = False
        for step in range(last, -1, -1):
            if mask & 1 << step and (step == 0 or _follows(chains.ends[step - 1], t, self.shape.gaps[step])):
                if step == last:
                    reached = True
                else:
                    self._keep(chains.ends[step], t, place, self.shape.gaps[step + 1])
        return reached

    def _keep(self, ends: list[Point], t: int, place: int, next_gap: Gap) -> None:
        """Without a longest gap the earliest end serves every step that may follow."""
        if next_gap.within is None:
            if not ends:
                ends.append([t, place])
            return
        while ends and ends[0][0] + next_gap.within.microseconds <= t:
            del ends[0]
        ends.append([t, place])

    def _finish(self, series: Series) -> None:
        assert series.record is not None
        series.record.done = True
        series.record.chains = {}


def _follows(ends: Sequence[Point], t: int, gap: Gap) -> bool:
    latest = t if gap.after is None else t - gap.after.microseconds
    for end in reversed(ends):
        if end[0] <= latest:
            return gap.within is None or t < end[0] + gap.within.microseconds
    return False


class SequenceEver(Node):
    """A sequence that is followed as it happens: once done it stays so."""

    __slots__ = ("closing", "leaf")

    def __init__(self, rule: dict[str, Any], leaf: str, closing: Length | None) -> None:
        super().__init__(rule)
        self.leaf, self.closing = leaf, closing

    @property
    def lasting(self) -> bool | None:
        return True

    def _answers(self, facts: Facts) -> list[int]:
        record = facts.series.get(self.leaf, EMPTY).record
        if record is None or self.closing is None:
            return []
        unanswered = (chains.unanswered for chains in record.chains.values())
        return [end[0] + self.closing.microseconds for end in unanswered if end is not None]

    def holds(self, facts: Facts, t: int, memo: Memo) -> bool:
        record = facts.series.get(self.leaf, EMPTY).record
        return record is not None and (record.done or any(answer <= t for answer in self._answers(facts)))

    def next_check(self, facts: Facts, t: int, memo: Memo) -> int | None:
        return earliest(answer for answer in self._answers(facts) if answer > t)
