"""What happens although nobody asks: time passes, definitions change, a projection is repeated, a month begins.

Runs inside ``serve`` and alone as ``segue worker``; any number may run, they share the work by SKIP LOCKED. Nothing
here is needed for a read to be right: reads re-evaluate what is due. It keeps stored truths close to the present, so
that reads stay cheap and transitions are recorded soon after they happen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from app.config import Settings
from app.db import UNREACHABLE, Clock, Connection, Pool, transact
from app.ingest.log import claim_deferred, count_deferred, postpone_deferred, settle_deferred
from app.metrics import Metrics
from app.partitions import make_months
from app.projection.project import project_deferred, refresh
from app.registry import Registry
from app.touchpoint import MINUTE

log = structlog.get_logger(__name__)

_IDLE_SECONDS: Final = 1.0
_UPKEEP_SECONDS: Final = 10.0
_RETRY_AFTER: Final = MINUTE

_DUE = """
-- Customers whose stored truths may have changed, earliest first; index customers_due.
SELECT id FROM customers WHERE sweep_at <= $1 ORDER BY sweep_at LIMIT $2
"""

_UNFILLED = """
-- Customers whose state was made with older definitions; index customers_to_fill.
SELECT id FROM customers WHERE revision < $1 AND NOT (stale AND sweep_at > $3) ORDER BY revision, id LIMIT $2
"""

_SET_ASIDE = "UPDATE customers SET stale = true, sweep_at = $2 WHERE id = $1"


class Worker:
    """A few loops, each a small transaction at a time, so that live work is never kept waiting for long."""

    def __init__(self, pool: Pool, registry: Registry, settings: Settings, clock: Clock, metrics: Metrics) -> None:
        self._pool = pool
        self._registry = registry
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, *, only_upkeep: bool = False) -> None:
        """``only_upkeep``: what every process that takes messages needs, whoever does the work."""
        loops = [("upkeep", self.keep_up, _UPKEEP_SECONDS)]
        if not only_upkeep:
            loops += [
                ("sweep", self.sweep, _IDLE_SECONDS),
                ("fill", self.fill, _IDLE_SECONDS),
                ("deferred", self.project_deferred, _IDLE_SECONDS),
            ]
        self._tasks = [asyncio.create_task(self._repeat(*loop), name=loop[0]) for loop in loops]

    async def stop(self) -> None:
        """Each loop ends after the transaction it is in."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    async def _repeat(self, name: str, step: Callable[[], Awaitable[int]], idle_seconds: float) -> None:
        """Run ``step`` again at once while it finds work, else after a pause."""
        while not self._stopping.is_set():
            try:
                done = await step()
            except UNREACHABLE as error:
                log.warning("worker step failed", step=name, error=type(error).__name__)
                done = 0
            except Exception:
                log.exception("worker step failed", step=name)
                done = 0
            if done:
                # Live requests share this event loop; let them in between two batches.
                await asyncio.sleep(0)
                continue
            try:
                await asyncio.wait_for(self._stopping.wait(), idle_seconds)
            except TimeoutError:
                continue

    async def sweep(self) -> int:
        """Let time pass for customers that are due; returns how many."""
        return await self._refresh(_DUE, self._clock.now(), self._settings.sweep_customers_max)

    async def fill(self) -> int:
        """Bring customers to the current definitions; returns how many."""
        async with self._pool.acquire() as connection:
            ruleset = await self._registry.current_ruleset(connection)
        return await self._refresh(_UNFILLED, ruleset.revision, self._settings.sweep_customers_max, self._clock.now())

    async def _refresh(self, claim: str, *arguments: int) -> int:
        claimed: list[bytes] = []

        async def work(connection: Connection) -> int:
            rows = await connection.fetch(claim, *arguments)
            claimed[:] = [row["id"] for row in rows]
            return await self._bring_up_to_date(connection, claimed)

        try:
            return await transact(self._pool, work)
        except UNREACHABLE:
            raise
        except Exception as error:
            log.exception("a batch could not be refreshed; trying its customers one by one", error=type(error).__name__)
            return await self._refresh_each(claimed)

    async def _bring_up_to_date(self, connection: Connection, customer_ids: Sequence[bytes]) -> int:
        if not customer_ids:
            return 0
        ruleset = await self._registry.current_ruleset(connection)
        projected = await refresh(connection, customer_ids, ruleset, self._clock.now(), self._settings)
        return projected.customers

    async def _refresh_each(self, customer_ids: Sequence[bytes]) -> int:
        """One customer that cannot be refreshed must not hold up the others; it is tried again later."""
        done = 0
        for id in customer_ids:
            try:
                await transact(self._pool, lambda connection, id=id: self._bring_up_to_date(connection, [id]))  # type: ignore[misc]  # bound in the loop
                done += 1
            except Exception:
                log.exception("a customer could not be refreshed")
                async with self._pool.acquire() as connection:
                    await connection.execute(_SET_ASIDE, id, self._clock.now() + _RETRY_AFTER)
        return done

    async def project_deferred(self) -> int:
        """Project messages that were stored only; returns how many."""
        claimed: list[bytes] = []
        try:
            return await transact(self._pool, lambda connection: self._project(connection, claimed))
        except UNREACHABLE:
            raise
        except Exception:
            log.exception("deferred messages could not be projected; trying them one by one", messages=len(claimed))
        return sum([await self._project_alone(key) for key in claimed])

    async def _project(self, connection: Connection, claimed: list[bytes], only: bytes | None = None) -> int:
        now = self._clock.now()
        keys, messages = await claim_deferred(connection, now, self._settings.sweep_customers_max, only)
        claimed[:] = keys
        if messages:
            ruleset = await self._registry.current_ruleset(connection)
            await project_deferred(connection, messages, ruleset, now, self._settings)
        await settle_deferred(connection, keys)
        return len(keys)

    async def _project_alone(self, key: bytes) -> int:
        try:
            return await transact(self._pool, lambda connection: self._project(connection, [], key))
        except UNREACHABLE:
            raise
        except Exception:
            log.exception("a deferred message could not be projected")
            async with self._pool.acquire() as connection:
                await postpone_deferred(connection, key, self._clock.now() + _RETRY_AFTER)
            return 0

    async def keep_up(self) -> int:
        """Months ahead, and the clock's offset to the database's."""
        async with self._pool.acquire() as connection:
            await self._clock.calibrate(connection)
            await make_months(connection, self._clock.now())
            self._metrics.deferred(await count_deferred(connection))
        return 0
