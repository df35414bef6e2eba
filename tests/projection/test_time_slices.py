"""Folds in time slices: the same result as a fold at once, while other tasks run."""

from __future__ import annotations

import asyncio

import pytest

from app.config import Limits
from app.projection import time_slices
from app.projection.fold import Transition, fold
from app.projection.state import Input, State, write_state
from app.projection.time_slices import TimeSlices, fold_in_slices
from app.rules.engine.ruleset import Ruleset, compile_ruleset
from app.rules.engine.touchpoint_view import TouchpointView
from app.rules.language.definitions import parse_rule
from app.rules.language.references import Definition
from app.touchpoint import DAY, MINUTE

NOW = 1_767_268_800_000_000
RULE = {"all": [{"did": "A", "within": "1d"}, {"not": {"did": "B", "within": "1h"}}]}


def make_ruleset() -> Ruleset:
    rule = parse_rule(RULE, "/rule", Limits())
    segment = Definition("segment", "sample", 1, "", "", "", rule, ())
    return compile_ruleset([segment], revision=1, timezone="UTC", default_journey="six-stage")


def make_inputs(ruleset: Ruleset, number: int) -> list[Input]:
    """Return inputs of which pairs share an instant, the last of them after NOW."""
    inputs = []
    for place in range(number):
        at = NOW - 30 * DAY + (place // 2) * (30 * DAY // number * 2) + MINUTE
        name = "AAB"[place % 3]
        leaves, values = ruleset.match_touchpoint(TouchpointView(name, "", "web", at))
        inputs.append(Input(at, f"message-{place}", "web", leaves, None, values))
    return inputs


async def test_slices_do_not_change_the_result() -> None:
    ruleset = make_ruleset()
    inputs = make_inputs(ruleset, 301)
    whole, sliced = State(), State()
    changes: list[Transition] = fold(whole, ruleset, inputs, NOW)
    assert await fold_in_slices(sliced, ruleset, inputs[::-1], NOW, TimeSlices()) == changes
    assert len(changes) > 20
    assert write_state(sliced, ruleset) == write_state(whole, ruleset)


async def test_long_fold_lets_other_tasks_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_slices, "SLICE_SECONDS", 0)
    ruleset = make_ruleset()
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counter = asyncio.create_task(count_turns())
    await fold_in_slices(State(), ruleset, make_inputs(ruleset, 320), NOW, TimeSlices())
    counter.cancel()
    assert turns >= 20


async def test_long_fold_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_slices, "SLICE_SECONDS", 0)
    ruleset = make_ruleset()
    state = State()
    inputs = make_inputs(ruleset, 320)
    folding = asyncio.create_task(fold_in_slices(state, ruleset, inputs, NOW, TimeSlices()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    folding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await folding
    assert state.born is not None
    assert state.at < inputs[-1].at
