"""Time slices: long computations give way to other tasks of the event loop every few milliseconds.

So a long fold delays no other request, and it can be cancelled or time out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from app.projection.fold import EVALUATIONS_UNLIMITED, POINTS_UNLIMITED, Transition, fold_steps
from app.projection.state import Input, State
from app.rules.engine.ruleset import Ruleset

SLICE_SECONDS: Final = 0.002
"""Time after which a computation gives way. A loop that serves requests is held for about twice this time at most."""


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
    *,
    rewinds: bool = False,
    evaluations_max: int = EVALUATIONS_UNLIMITED,
) -> list[Transition]:
    """Do the same as :func:`app.projection.fold.fold`, in small steps between which other tasks run.

    Raise TooManyEvaluations once ``state.evaluations`` exceeds ``evaluations_max``.
    """
    steps = fold_steps(state, ruleset, inputs, now, points_max, rewinds=rewinds, evaluations_max=evaluations_max)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        await slices.give_way_if_due()
