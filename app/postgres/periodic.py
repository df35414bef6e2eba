"""Periodic tasks: a step that runs at an interval, and once more when the process stops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from app.postgres.pool import UNREACHABLE

log = structlog.get_logger(__name__)


class PeriodicTask:
    """Runs ``step`` every ``seconds``. Errors are logged, and the next run tries again."""

    def __init__(self, name: str, seconds: float, step: Callable[[], Awaitable[None]]) -> None:
        self._name = name
        self._seconds = seconds
        self._step = step
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._repeat(), name=self._name)

    async def stop(self) -> None:
        """Stop the task and run the step a last time."""
        self._stopping.set()
        if self._task is not None:
            await self._task
        await self._run_step()

    async def _repeat(self) -> None:
        while not self._stopping.is_set():
            try:
                await asyncio.wait_for(self._stopping.wait(), self._seconds)
            except TimeoutError:
                await self._run_step()

    async def _run_step(self) -> None:
        try:
            await self._step()
        except UNREACHABLE as error:
            log.warning("periodic.failed", step=self._name, error=type(error).__name__)
        except Exception:
            log.exception("periodic.failed", step=self._name)
