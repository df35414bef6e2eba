"""Turns of large requests: slices, order, memory bound and cancellation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from app.errors import Overloaded
from app.formats.steps import Steps
from app.ingest.parsing_turns import SMALL_BYTES, ParsingTurns

LARGE = 100_000


def create_turns(waiting_bytes_max: int = 10 * LARGE, unknown_bytes_max: int = 2 * LARGE) -> ParsingTurns:
    return ParsingTurns(waiting_bytes_max, unknown_bytes_max, lambda: None)


def compute(name: str, order: list[str], steps: int = 30) -> Steps[str]:
    """Compute for about one millisecond in each step, and note each step."""
    for _ in range(steps):
        ends_at = time.process_time() + 0.001
        while time.process_time() < ends_at:
            pass
        order.append(name)
        yield
    return name


async def test_large_requests_are_parsed_one_after_another() -> None:
    turns, order = create_turns(), list[str]()
    results = await asyncio.gather(*(turns.run(compute(name, order), LARGE) for name in "abc"))
    assert results == ["a", "b", "c"]
    assert order == ["a"] * 30 + ["b"] * 30 + ["c"] * 30


async def test_small_request_does_not_wait_for_large_ones() -> None:
    turns, order = create_turns(), list[str]()
    large = [asyncio.create_task(turns.run(compute(name, order), LARGE)) for name in "abc"]
    await asyncio.sleep(0)
    assert await turns.run(compute("small", order, steps=1), SMALL_BYTES) == "small"
    assert not any(task.done() for task in large)
    await asyncio.gather(*large)


async def test_other_tasks_run_between_slices() -> None:
    turns, order = create_turns(), list[str]()
    task = asyncio.create_task(turns.run(compute("a", order), LARGE))
    passes = 0
    while not task.done():
        await asyncio.sleep(0)
        passes += 1
    assert passes >= 8, "30 ms are several slices"


async def test_request_that_has_begun_comes_first() -> None:
    turns, order = create_turns(), list[str]()
    first = asyncio.create_task(turns.run(compute("first", order), LARGE))
    await asyncio.sleep(0)
    new = asyncio.create_task(turns.run(compute("new", order, steps=1), LARGE))
    await asyncio.sleep(0)
    begun = asyncio.create_task(turns.run(compute("begun", order, steps=1), LARGE, has_begun=True))
    await asyncio.gather(first, new, begun)
    assert order[-2:] == ["begun", "new"]


async def test_small_request_that_takes_long_waits_for_its_turn() -> None:
    turns, order = create_turns(), list[str]()
    large = asyncio.create_task(turns.run(compute("large", order), LARGE))
    await asyncio.sleep(0)
    await turns.run(compute("small", order, steps=20), SMALL_BYTES)
    assert large.done()


async def test_waiting_memory_is_bounded_and_less_for_requests_without_a_key() -> None:
    turns, order = create_turns(), list[str]()
    tasks = [asyncio.create_task(turns.run(compute("a", order), LARGE, is_known=False)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await turns.run(compute("b", order), LARGE, is_known=False)
    tasks.append(asyncio.create_task(turns.run(compute("c", order), LARGE)))
    assert await asyncio.gather(*tasks) == ["a", "a", "a", "c"]
    assert await turns.run(compute("d", order), LARGE, is_known=False) == "d"


async def test_cancelled_and_failed_requests_pass_their_turn_on() -> None:
    turns, order = create_turns(), list[str]()

    def fail() -> Iterator[None]:
        yield
        raise ValueError("invalid")

    running = asyncio.create_task(turns.run(compute("running", order), LARGE))
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(turns.run(compute(name, order), LARGE)) for name in "ab"]
    await asyncio.sleep(0)
    running.cancel()
    waiting[0].cancel()
    with pytest.raises(ValueError, match="invalid"):
        await turns.run(fail(), LARGE)  # type: ignore[arg-type]
    assert await waiting[1] == "b"
    assert await turns.run(compute("c", order), LARGE) == "c"
