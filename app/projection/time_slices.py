"""Time slices: long computations give way to other tasks of the event loop every few milliseconds.

So a long fold delays no other request, and it can be cancelled or time out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Final

from app.projection.fold import POINTS_UNLIMITED, Transition, flips_at, fold
from app.projection.state import Input, State
from app.rules.engine.ruleset import Ruleset

SLICE_SECONDS: Final = 0.01
"""Time after which a computation gives way. A loop that serves requests is held for about twice this time at most."""

_INPUTS_PER_STEP: Final = 16


class TimeSlices:
    """Measures how long a computation has held the event loop, and gives way when its slice is used up."""

    def __init__(self) -> None:
        self._ends_at = time.perf_counter() + SLICE_SECONDS

    async def give_way_if_due(self) -> None:
        if time.perf_counter() >= self._ends_at:
            await asyncio.sleep(0)
            self._ends_at = time.perf_counter() + SLICE_SECONDS


async def fold_in_slices(
    state: State,
    ruleset: Ruleset,
    inputs: Sequence[Input],
    now: int,
    slices: TimeSlices,
    points_max: int = POINTS_UNLIMITED,
) -> list[Transition]:
    """Do the same as :func:`app.projection.fold.fold`, in small steps between which other tasks run."""
    changes: list[Transition] = []
    for step in _split_between_instants(inputs):
        instant = min(now, step[-1].at)
        changes += await _advance_in_slices(state, ruleset, min(now, step[0].at) - 1, slices, points_max)
        changes += fold(state, ruleset, step, instant, points_max)
        await slices.give_way_if_due()
    return changes + await _advance_in_slices(state, ruleset, now, slices, points_max)


async def _advance_in_slices(
    state: State, ruleset: Ruleset, limit: int, slices: TimeSlices, points_max: int
) -> list[Transition]:
    """Advance from one change through time alone to the next, up to ``limit``."""
    changes: list[Transition] = []
    while (due := flips_at(state)) is not None and due <= limit:
        changes += fold(state, ruleset, (), due, points_max)
        await slices.give_way_if_due()
    return changes


def _split_between_instants(inputs: Sequence[Input]) -> Iterator[Sequence[Input]]:
    """Split inputs, in the order of time, into steps. All inputs of one instant are in the same step."""
    ordered = sorted(inputs, key=lambda input: (input.at, input.message_id, input.source))
    start = 0
    while start < len(ordered):
        end = min(start + _INPUTS_PER_STEP, len(ordered))
        while end < len(ordered) and ordered[end].at == ordered[end - 1].at:
            end += 1
        yield ordered[start:end]
        start = end
