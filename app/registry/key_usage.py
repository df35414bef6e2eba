"""Usage of keys: collects used keys in memory and stores the time of their last use every minute."""

from __future__ import annotations

import asyncio
from typing import Final

from app.postgres.periodic import PeriodicTask
from app.postgres.pool import Clock, Pool
from app.registry.access import AccessCache
from app.registry.key_store import record_uses

_FLUSH_SECONDS: Final = 60.0


class KeyUsage:
    """Writes which keys were used. A killed process loses the uses since the last flush."""

    def __init__(self, pool: Pool, access: AccessCache, clock: Clock) -> None:
        self._pool = pool
        self._access = access
        self._clock = clock
        self._flushing = asyncio.Lock()
        self._flush_task = PeriodicTask("key-usage", _FLUSH_SECONDS, self.flush)

    def start(self) -> None:
        self._flush_task.start()

    async def stop(self) -> None:
        await self._flush_task.stop()

    async def flush(self) -> None:
        """Store the current time as the last use of each key used since the last flush.

        So a request costs no clock read, and the time is exact to the interval between flushes.
        """
        async with self._flushing:
            used = self._access.take_used_keys()
            if not used:
                return
            try:
                await record_uses(self._pool, used, self._clock.now())
            except BaseException:
                self._access.used_keys |= used
                raise
