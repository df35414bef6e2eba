"""Turns of large requests: their bodies are parsed one at a time, in slices, so that small requests do not wait.

Parsing a body at its size limits takes about 0.1 seconds. It stays on the event loop, because a thread would compete
for the interpreter, which delays other requests more (docs/decisions/parsing-turns.md).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from app.errors import Overloaded
from app.formats.steps import Steps

SLICE_SECONDS: Final = 0.002
"""Time after which a computation gives way to the other tasks of the event loop."""
SMALL_BYTES: Final = 16_384
"""Maximum size of a request that does not wait for its turn before it begins."""
_BEGUN_BYTES: Final = 65_536
"""Memory that a small request holds after its first steps, at most."""
_FIRST_SLICE_SECONDS: Final = 0.002
"""Time after which a small request waits for its turn too, for example because of many unusual email addresses."""

_Result = TypeVar("_Result")


class ParsingTurns:
    """The turns of one process. ``refused`` is called when a request is refused because too much memory waits."""

    def __init__(self, waiting_bytes_max: int, unknown_bytes_max: int, refused: Callable[[], None]) -> None:
        self._waiting_bytes_max = waiting_bytes_max
        self._unknown_bytes_max = unknown_bytes_max
        self._refused = refused
        self._is_taken = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._waiting_bytes = 0

    async def run(
        self,
        steps: Steps[_Result],
        held_bytes: int,
        *,
        is_known: bool = True,
        has_begun: bool = False,
        first_steps_max: int = 1_000_000,
    ) -> _Result:
        """Run a computation in turn, and return its result.

        Args:
            held_bytes: memory that the request holds while it waits.
            is_known: the key of the request has been checked. Other requests may hold less memory in total.
            has_begun: this request had a turn before, and now holds more memory, so it comes first.
            first_steps_max: maximum number of steps that a small request runs before it waits for its turn.

        Raises:
            Overloaded: too much memory waits.
        """
        if held_bytes <= SMALL_BYTES:
            ends_at = time.perf_counter() + _FIRST_SLICE_SECONDS
            try:
                for _ in range(first_steps_max):
                    next(steps)
                    if time.perf_counter() >= ends_at:
                        break
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            held_bytes = _BEGUN_BYTES
        async with self._take_turn(held_bytes, is_known, has_begun):
            while True:
                ends_at = time.perf_counter() + SLICE_SECONDS
                try:
                    while time.perf_counter() < ends_at:
                        next(steps)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]
                await asyncio.sleep(0)

    @asynccontextmanager
    async def _take_turn(self, held_bytes: int, is_known: bool, has_begun: bool) -> AsyncIterator[None]:
        if self._is_taken:
            await self._wait(held_bytes, is_known, has_begun)
        self._is_taken = True
        try:
            yield
        finally:
            # The next turn begins in a later pass of the event loop, so that no pass has two slices.
            asyncio.get_running_loop().call_soon(self._pass_on)

    async def _wait(self, held_bytes: int, is_known: bool, has_begun: bool) -> None:
        bytes_max = self._waiting_bytes_max if is_known else self._unknown_bytes_max
        if not has_begun and self._waiting_bytes + held_bytes > bytes_max:
            self._refused()
            raise Overloaded("Too many large requests wait to be parsed; send it again.")
        turn = asyncio.get_running_loop().create_future()
        if has_begun:
            self._waiting.appendleft(turn)
        else:
            self._waiting.append(turn)
        self._waiting_bytes += held_bytes
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._pass_on()
            raise
        finally:
            self._waiting_bytes -= held_bytes

    def _pass_on(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._is_taken = False
