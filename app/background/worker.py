"""Background worker: expires time-based truths, backfills definitions, projects deferred messages, creates partitions.

It runs in the background process of ``serve`` and alone as ``segue worker``. Any number of workers may run; they share
the work with SKIP LOCKED. Reads do not depend on a worker: they re-evaluate customers whose truths are due. A worker
stores due changes soon after they happen, so that reads stay cheap.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from app.background.pacing import IngestionWatch, WorkPacer
from app.config import Settings
from app.ingest.event_log import claim_deferred, count_deferred, delete_deferred, postpone_deferred
from app.observability.metrics import Metrics
from app.postgres.partitions import create_monthly_partitions
from app.postgres.pool import UNREACHABLE, Clock, Connection, Pool, transact
from app.projection.backfill import START, FilledChunk, Position, fill_chunk, find_next_unfilled, record_progress
from app.projection.project import project_deferred, refresh_customers
from app.projection.writes import retract_retired, set_customer_aside
from app.registry.registry import Registry
from app.rules.engine.ruleset import Ruleset
from app.touchpoint import MINUTE

log = structlog.get_logger(__name__)

_IDLE_SECONDS: Final = 1.0
_UPKEEP_SECONDS: Final = 10.0
_WATCH_SECONDS: Final = 0.5
_RETRY_AFTER: Final = MINUTE

_FILL_TASKS: Final = 2
"""Number of concurrent backfill loops: while one waits for the database, the other one computes."""

_SWEEP_SHARE: Final = 3
"""Share of time of the sweep compared with that of backfills: the sweep projects messages that are acknowledged."""

_PROGRESS_SECONDS: Final = 1.0
_RETRACTED_PER_STEP: Final = 2_000
_DUE_COUNTED_MAX: Final = 10_000

_DUE = """
-- Customers whose stored truths may have changed, earliest first; index customers_due alone.
SELECT id FROM customers WHERE sweep_at <= $1 ORDER BY sweep_at LIMIT $2
"""

_COUNT_DUE = f"SELECT count(*) FROM (SELECT FROM customers WHERE sweep_at <= $1 LIMIT {_DUE_COUNTED_MAX}) AS due"


class Worker:
    """Runs a few loops of small transactions, so that live requests never wait long for a lock or the event loop.

    ``count_accepted`` returns how many messages were accepted so far, if this process also serves ingestion. Without
    it, the worker reads that number from PostgreSQL.
    """

    def __init__(
        self,
        pool: Pool,
        registry: Registry,
        settings: Settings,
        clock: Clock,
        metrics: Metrics,
        count_accepted: Callable[[], int] | None = None,
    ) -> None:
        self._pool = pool
        self._registry = registry
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._ingestion = IngestionWatch() if count_accepted is None else None
        count, percent = count_accepted or self._count_stored, settings.busy_worker_percent_max
        self._pacer = WorkPacer(count, percent, self._stopping)
        self._sweep_pacer = WorkPacer(count, min(_SWEEP_SHARE * percent, 100), self._stopping)
        self._fill_progress = _FillProgress()

    async def start(self, *, only_upkeep: bool = False) -> None:
        """Start the loops.

        With ``only_upkeep``, start only the upkeep loop, which every process that accepts messages needs.
        """
        loops: list[tuple[str, Callable[[], Awaitable[int]], float]] = [("upkeep", self.run_upkeep, _UPKEEP_SECONDS)]
        if not only_upkeep:
            if self._ingestion is not None:
                loops.append(("ingestion", self._watch_ingestion, _WATCH_SECONDS))
            loops += [
                ("sweep", lambda: self._sweep_pacer.take_turn(self.sweep), _IDLE_SECONDS),
                *([("fill", lambda: self._pacer.take_turn(self.fill), _IDLE_SECONDS)] * _FILL_TASKS),
                ("deferred", self.project_deferred, _IDLE_SECONDS),
            ]
        self._tasks = [asyncio.create_task(self._repeat(*loop), name=loop[0]) for loop in loops]

    async def stop(self) -> None:
        """Stop each loop after its current transaction."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    async def _repeat(self, name: str, step: Callable[[], Awaitable[int]], idle_seconds: float) -> None:
        """Run ``step`` repeatedly: at once while it finds work, else after a pause."""
        while not self._stopping.is_set():
            try:
                work_done = await step()
            except UNREACHABLE as error:
                log.warning("worker.step_failed", step=name, error=type(error).__name__)
                work_done = 0
            except Exception:
                log.exception("worker.step_failed", step=name)
                work_done = 0
            if work_done:
                # Let live requests, which share this event loop, run between two batches.
                await asyncio.sleep(0)
                continue
            try:
                await asyncio.wait_for(self._stopping.wait(), idle_seconds)
            except TimeoutError:
                continue

    def _count_stored(self) -> int:
        return 0 if self._ingestion is None else self._ingestion.stored

    async def _watch_ingestion(self) -> int:
        assert self._ingestion is not None
        async with self._pool.acquire() as connection:
            return await self._ingestion.update(connection)

    async def sweep(self) -> int:
        """Store the changes that are due because time has passed; return the number of customers."""
        return await self._refresh(_DUE, self._clock.now(), self._settings.sweep_customers_max)

    async def fill(self) -> int:
        """Run one step of a backfill; return 0 if nothing is left to do.

        A step backfills some customers, activates candidate definitions whose backfill is complete, or retracts
        intervals of retired definitions.
        """
        async with self._pool.acquire() as connection:
            ruleset = await self._registry.rules.read(connection)
        if customers_filled := await self._fill_next(ruleset):
            return customers_filled
        if self._registry.rules.has_candidates and await self._registry.definitions.activate():
            return 1
        return await transact(
            self._pool, lambda connection: retract_retired(connection, _RETRACTED_PER_STEP, self._clock.now())
        )

    async def _fill_next(self, ruleset: Ruleset) -> int:
        """Backfill the next customers; after the last customer, start again at the first one."""
        if self._fill_progress.target != ruleset.fill:
            self._fill_progress = _FillProgress(ruleset.fill, self._clock.now())
        progress = self._fill_progress
        for after in dict.fromkeys((progress.position, START)):
            chunk = await self._fill_chunk(ruleset, after)
            if chunk.position is not None:
                progress.position = chunk.position
                await self._record_fill(ruleset, chunk)
                return max(chunk.customers, 1)
        progress.position = START
        await self._record_fill(ruleset, FilledChunk(0, 0, None))
        return 0

    async def _fill_chunk(self, ruleset: Ruleset, after: Position) -> FilledChunk:
        customers_max = self._settings.sweep_customers_max if self._pacer.is_busy else self._settings.fill_customers_max
        try:
            return await self._fill_up_to(ruleset, after, customers_max)
        except UNREACHABLE:
            raise
        except Exception:
            log.exception("backfill.batch_failed")
        total = FilledChunk(0, 0, None)
        for _ in range(customers_max):
            chunk = await self._fill_one(ruleset, total.position or after)
            if chunk.position is None:
                break
            total = FilledChunk(
                total.customers + chunk.customers, total.touchpoints + chunk.touchpoints, chunk.position
            )
        return total

    async def _fill_up_to(self, ruleset: Ruleset, after: Position, customers_max: int) -> FilledChunk:
        return await transact(
            self._pool,
            lambda connection: fill_chunk(connection, ruleset, after, customers_max, self._clock.now(), self._settings),
        )

    async def _fill_one(self, ruleset: Ruleset, after: Position) -> FilledChunk:
        """Backfill one customer; if that fails, postpone the customer so that it does not block the others."""
        async with self._pool.acquire() as connection:
            position = await find_next_unfilled(connection, ruleset, after)
        try:
            return await self._fill_up_to(ruleset, after, 1)
        except UNREACHABLE:
            raise
        except Exception as error:  # noqa: BLE001 - one customer's failure must not stop the backfill
            log.error("backfill.customer_failed", error=type(error).__name__)
        if position is not None:
            await self._postpone_customer(position[1])
        return FilledChunk(0, 0, position)

    async def _record_fill(self, ruleset: Ruleset, chunk: FilledChunk) -> None:
        """Store the progress once a second; a statement for each chunk would make concurrent backfills wait."""
        self._metrics.count_filled(chunk.customers, chunk.touchpoints)
        if (totals := self._fill_progress.add(chunk)) is not None:
            async with self._pool.acquire() as connection:
                await record_progress(connection, ruleset, self._fill_progress.begun_at, self._clock.now(), *totals)

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
            log.exception("refresh.batch_failed", error=type(error).__name__)
            return await self._refresh_each(claimed)

    async def _bring_up_to_date(self, connection: Connection, customer_ids: Sequence[bytes]) -> int:
        if not customer_ids:
            return 0
        ruleset = await self._registry.rules.read(connection)
        return await refresh_customers(connection, customer_ids, ruleset, self._clock.now(), self._settings)

    async def _refresh_each(self, customer_ids: Sequence[bytes]) -> int:
        """Refresh customers one by one, and postpone those that fail so that they do not block the others."""
        refreshed = 0
        for id in customer_ids:
            try:
                await transact(self._pool, lambda connection, id=id: self._bring_up_to_date(connection, [id]))  # type: ignore[misc]  # bound in the loop
                refreshed += 1
            except Exception:
                log.exception("refresh.customer_failed")
                await self._postpone_customer(id)
        return refreshed

    async def _postpone_customer(self, id: bytes) -> None:
        async with self._pool.acquire() as connection:
            await set_customer_aside(connection, id, self._clock.now() + _RETRY_AFTER)

    async def project_deferred(self) -> int:
        """Project messages that were stored without a projection; return their number."""
        claimed: list[bytes] = []
        try:
            return await transact(self._pool, lambda connection: self._project(connection, claimed))
        except UNREACHABLE:
            raise
        except Exception:
            log.exception("deferred.batch_failed", messages=len(claimed))
        return sum([await self._project_alone(key) for key in claimed])

    async def _project(self, connection: Connection, claimed: list[bytes], only: bytes | None = None) -> int:
        now = self._clock.now()
        keys, messages = await claim_deferred(connection, now, self._settings.sweep_customers_max, only)
        claimed[:] = keys
        if messages:
            ruleset = await self._registry.rules.read(connection)
            await project_deferred(connection, messages, ruleset, now, self._settings)
        await delete_deferred(connection, keys)
        return len(keys)

    async def _project_alone(self, key: bytes) -> int:
        try:
            return await transact(self._pool, lambda connection: self._project(connection, [], key))
        except UNREACHABLE:
            raise
        except Exception:
            log.exception("deferred.message_failed")
            async with self._pool.acquire() as connection:
                await postpone_deferred(connection, key, self._clock.now() + _RETRY_AFTER)
            return 0

    async def run_upkeep(self) -> int:
        """Calibrate the clock, create partitions ahead of time, and update gauges."""
        async with self._pool.acquire() as connection:
            await self._clock.calibrate(connection)
            await create_monthly_partitions(connection, self._clock.now())
            self._metrics.set_deferred(await count_deferred(connection))
            self._metrics.set_due(await connection.fetchval(_COUNT_DUE, self._clock.now()))
        return 0


class _FillProgress:
    """Progress of the backfill in this process, and the work that is not yet stored as progress.

    ``target`` is the revision that customers are backfilled to.
    """

    def __init__(self, target: int = 0, begun_at: int = 0) -> None:
        self.target = target
        self.begun_at = begun_at
        self.position: Position = START
        self._customers = 0
        self._touchpoints = 0
        self._reported_at = 0.0

    def add(self, chunk: FilledChunk) -> tuple[int, int] | None:
        """Add a chunk; return the unreported numbers of customers and touchpoints if a report is due."""
        self._customers += chunk.customers
        self._touchpoints += chunk.touchpoints
        is_due = chunk.position is None or time.monotonic() - self._reported_at >= _PROGRESS_SECONDS
        if not self._customers or not is_due:
            return None
        totals = (self._customers, self._touchpoints)
        self._customers = self._touchpoints = 0
        self._reported_at = time.monotonic()
        return totals
