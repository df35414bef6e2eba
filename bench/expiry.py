"""Expiry benchmarks: 100 due memberships in a small and in a large dataset, and a million in the same second.

Both benchmarks use the same dataset. Each customer has one touchpoint and one segment, which ends at a known instant
shortly after the dataset is created. Some hundred customers pass through the real pipeline. All others are copies of
their rows.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import asyncpg
import httpx

from app.formats.timestamps import rfc3339
from app.postgres.pool import FrozenClock, prepare_connection
from app.registry.bootstrap import FirstKeys
from app.touchpoint import DAY, HOUR, MINUTE, SECOND
from bench.dataset import Copy, Pipeline, open_pipeline, write_copies
from bench.load_generator import Generator, Load, Plan, RequestKind
from bench.processes import Server
from bench.result import Benchmark, Progress, Result
from bench.sample_rules import Json
from bench.testbed import Connection, Databases, start_databases, start_segue
from bench.throughput import BATCH_IN_FLIGHT, BATCH_MESSAGES, SINGLE_IN_FLIGHT

FEW: Final = "few"
MANY: Final = "many"
SEGMENT: Final = "active"
ACTIVE: Final[Json] = {"did": "*", "within": "30d"}
JOURNEY: Final = "six-stage"
TICK: Final = 100
"""Number of customers that are due at each tick of the worker."""
FIRST_TICK: Final = 10 * MINUTE
STORM: Final = 2 * HOUR
"""Time from the creation of the dataset to the instant at which all remaining customers are due.

FIRST_TICK is the time to the first tick.
"""
CLOCK_LAG: Final = 3 * HOUR
"""Time by which the pipeline's clock is behind, so that the storm is already past when the server starts later."""
SEED: Final = 40
SAMPLE_SECONDS: Final = 0.5


@dataclass(frozen=True)
class Sizes:
    few: int
    many: int
    ticks: int
    parts: int
    """Number of distinct instants at which customers are due, within the second of the storm."""
    warm_up: int
    batched: int
    """Number of messages that each repetition sends in batches."""
    singles: int
    repetitions: int
    reads: int
    drain_seconds: float
    """Time for which expiry without other load is measured."""


FULL: Final = Sizes(10_000, 1_000_000, 9, 1_000, 100_000, 30_000, 9_000, 5, 100, 20.0)
QUICK: Final = Sizes(1_000, 4_000, 2, 100, 1_000, 3_000, 500, 1, 20, 2.0)


@dataclass(frozen=True)
class _Dataset:
    """Keys, due time and pause file of the larger dataset."""

    keys: FirstKeys
    storm_at: int
    """Start of the second in which all customers are due."""
    pause_file: Path
    """Marker file. While it exists, the server's worker does not expire customers (BENCH_HELD in server.py)."""


def measure(selected: Collection[Benchmark], generator: Generator, sizes: Sizes, progress: Progress) -> list[Result]:
    with start_databases((FEW, MANY)) as databases:
        dataset, results = asyncio.run(_measure_ticks(databases, selected, sizes, progress))
        if Benchmark.STORM in selected:
            dataset.pause_file.touch()
            with start_segue(databases, MANY, {"BENCH_HELD": str(dataset.pause_file)}) as server:
                results += _Storm(databases, server, dataset, generator, sizes, progress).measure()
    return results


# ------------------------------------------------------------------------------------------------- the dataset


def _tick_of(number: int) -> str:
    return f"tick-{number:04}"


def _part_of(number: int) -> str:
    return f"storm-{number:04}"


def _patterns(created_at: int, sizes: Sizes) -> dict[str, int]:
    """Return the due time of each customer that passes through the pipeline."""
    due = {_tick_of(tick): created_at + FIRST_TICK + tick * SECOND for tick in range(1 + sizes.ticks)}
    return due | {_part_of(part): created_at + STORM + part * SECOND // sizes.parts for part in range(sizes.parts)}


def _number_of(pattern: str) -> int:
    return int(pattern.split("-")[1])


def _copies(customers: int, sizes: Sizes) -> Iterable[Copy]:
    """Yield the copies, those due at a tick spread over the table. The copied customers count in the total."""
    copies = customers - 1 - sizes.ticks - sizes.parts
    interval = copies // (TICK - 1)
    left = dict.fromkeys(range(1 + sizes.ticks), TICK - 1)
    for number in range(copies):
        tick = number % interval
        if left.get(tick):
            left[tick] -= 1
            yield Copy(number, _tick_of(tick), f"due-{number:07}")
        else:
            yield Copy(number, _part_of(number % sizes.parts), f"due-{number:07}")


async def _create_dataset(
    databases: Databases, database: str, pipeline: Pipeline, customers: int, sizes: Sizes
) -> None:
    created_at = pipeline.clock.now()
    await pipeline.archive_except(JOURNEY)
    await pipeline.define(SEGMENT, ACTIVE)
    await pipeline.send(
        [
            {
                "type": "track",
                "event": "Product Viewed",
                "userId": user,
                "messageId": f"m-{user}",
                "timestamp": rfc3339(due - 30 * DAY),
            }
            for user, due in _patterns(created_at, sizes).items()
        ]
    )
    await write_copies(databases.urls[database], _copies(customers, sizes), log=False, browsers=False)


# ------------------------------------------------------------------------------------------- a tick of the worker


async def _measure_ticks(
    databases: Databases, selected: Collection[Benchmark], sizes: Sizes, progress: Progress
) -> tuple[_Dataset, list[Result]]:
    """Run the expiry benchmark with frozen clocks, so that only the measured changes are due.

    Return the dataset too.
    """
    clock = FrozenClock(time.time_ns() // 1000 - CLOCK_LAG)
    customers = {FEW: sizes.few, MANY: sizes.many} if Benchmark.EXPIRY in selected else {MANY: sizes.many}
    async with AsyncExitStack() as stack:
        pipelines = {}
        for database, count in customers.items():
            progress(f"creating {count:,} customers")
            pipelines[database] = await stack.enter_async_context(open_pipeline(databases.urls[database], clock, 1))
            await _create_dataset(databases, database, pipelines[database], count, sizes)
        created_at = clock.instant
        results = []
        if Benchmark.EXPIRY in selected:
            seconds: dict[str, list[float]] = {FEW: [], MANY: []}
            plan = ""
            for tick in range(1 + sizes.ticks):
                progress(f"expiry, tick {tick} of {sizes.ticks}")
                clock.instant = created_at + FIRST_TICK + tick * SECOND
                for database in (MANY, FEW) if tick % 2 else (FEW, MANY):
                    elapsed, queries = await _sweep(pipelines[database])
                    if tick:
                        seconds[database].append(elapsed)
                    elif database == FEW:  # warm-up: nothing has expired in the larger database yet
                        plan = await _explain_claim(databases.urls[MANY], queries, clock.instant)
            results.append(_tick_result(seconds, sizes, plan))
        return _Dataset(pipelines[MANY].keys, created_at + STORM, databases.directory / "held"), results


async def _sweep(pipeline: Pipeline) -> tuple[float, list[tuple[str, Any]]]:
    """Run one tick of the worker. Return the duration in seconds, and the statements with their arguments."""
    queries: list[tuple[str, Any]] = []

    def listen(logged: Any) -> None:
        queries.append((logged.query, logged.args))

    async with pipeline.pool.acquire() as connection:
        connection.add_query_logger(listen)
    start = time.perf_counter()
    swept = await pipeline.worker.sweep()
    elapsed = time.perf_counter() - start
    async with pipeline.pool.acquire() as connection:
        connection.remove_query_logger(listen)
    if swept != TICK:
        raise RuntimeError(f"a tick expired {swept} customers instead of {TICK}")
    return elapsed, queries


async def _explain_claim(url: str, queries: Sequence[tuple[str, Any]], now: int) -> str:
    """Return the plan of the query that claims due customers. Raise RuntimeError unless it is an index-only scan."""
    claim = next(query for query, _ in queries if "sweep_at <=" in query)
    connection: Connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET enable_seqscan = off")  # as on every connection of the service
        at = f"timestamptz 'epoch' + interval '{now} microseconds'"
        rows = await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS) {claim.replace('$1', at).replace('$2', '200')}")
    finally:
        await connection.close()
    plan = "\n".join(row[0] for row in rows)
    scans = re.findall(r"^\W*((?:\w+ )*Scan\b.*?)  \(", plan, re.MULTILINE)
    if scans != ["Index Only Scan using customers_due on customers"] or f"rows={TICK}.00" not in plan:
        raise RuntimeError(f"the claim does not use an index-only scan:\n{plan}")
    fetches = re.search(r"Heap Fetches: (\d+)", plan)
    buffers = re.search(r"Buffers: (.*)", plan)
    assert fetches is not None
    assert buffers is not None
    return f"claim: Index Only Scan using customers_due, heap fetches {fetches[1]}, buffers {buffers[1]}"


def _tick_result(seconds: dict[str, list[float]], sizes: Sizes, plan: str) -> Result:
    few, many = ([1000 * value for value in seconds[database]] for database in (FEW, MANY))
    return Result(
        Benchmark.EXPIRY,
        f"worker tick with {TICK} of {sizes.many:,} customers due, over {TICK} of {sizes.few:,}",
        median(a / b for a, b in zip(many, few, strict=True)),
        "at most",
        1.5,
        f"{_spread(many)} ms over {_spread(few)} ms, COMMIT included; {plan}",
    )


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):,.1f} ({min(values):,.1f} to {max(values):,.1f})"


def _rates(loads: Sequence[Load]) -> str:
    return f"{_spread([load.rate for load in loads])}/s"


# ---------------------------------------------------------------------------------------- all due in one second


class _Storm:
    """Benchmark of a server on which all customers are due.

    The same load runs in turn with the worker paused and with the worker running.
    """

    def __init__(
        self,
        databases: Databases,
        server: Server,
        dataset: _Dataset,
        generator: Generator,
        sizes: Sizes,
        progress: Progress,
    ) -> None:
        self.databases, self.server, self.dataset, self.generator = databases, server, dataset, generator
        self.sizes, self.progress = sizes, progress
        secret = {"Authorization": f"Bearer {dataset.keys.secret_key}"}
        self.http = httpx.Client(base_url=server.url, headers=secret, timeout=60)
        self.next_message = 0
        self.to_read = self._choose_reads()
        self.wrong: list[str] = []
        self.lags: list[float] = []
        self.busy_seconds = 0.0
        """Total seconds between samples that were taken under load while the worker was running."""
        self.drained = 0
        """Number of customers that expired during ``busy_seconds``."""
        self.last_sample: tuple[float, float, int] | None = None

    def measure(self) -> list[Result]:
        sizes = self.sizes
        all_due = self._due()
        self.progress("expiry storm: warming up")
        self._send(RequestKind.BATCH, sizes.warm_up)
        self._send(RequestKind.SINGLE, sizes.singles)
        idle: dict[RequestKind, list[Load]] = {RequestKind.BATCH: [], RequestKind.SINGLE: []}
        storm: dict[RequestKind, list[Load]] = {RequestKind.BATCH: [], RequestKind.SINGLE: []}
        for repetition in range(sizes.repetitions):
            self.progress(f"expiry storm, {repetition + 1} of {sizes.repetitions}")
            for kind, messages in ((RequestKind.BATCH, sizes.batched), (RequestKind.SINGLE, sizes.singles)):
                idle[kind].append(self._send(kind, messages, self._sample))
                self._resume()
                storm[kind].append(self._send(kind, messages, self._sample_in_storm))
                self._pause()
        while self.to_read:
            self._read_one()
        self.progress("expiry storm: drain without load")
        self._resume()
        full_rate, left = self._drain()
        results = [
            self._rate_result("batches of 100", storm[RequestKind.BATCH], idle[RequestKind.BATCH]),
            self._rate_result("single messages", storm[RequestKind.SINGLE], idle[RequestKind.SINGLE]),
            self._reads_result(),
            self._drain_result(all_due, full_rate, left),
        ]
        self.http.close()
        return results

    def _rate_result(self, name: str, storm: Sequence[Load], idle: Sequence[Load]) -> Result:
        return Result(
            Benchmark.STORM,
            f"{name}: messages/s during an expiry storm over without it",
            median(a.rate / b.rate for a, b in zip(storm, idle, strict=True)),
            "at least",
            0.8,
            f"{_rates(storm)} over {_rates(idle)}; p99 {median(load.p99_ms for load in storm):.0f} ms, "
            f"without it {median(load.p99_ms for load in idle):.0f} ms",
        )

    def _reads_result(self) -> Result:
        return Result(
            Benchmark.STORM,
            f"wrong responses in {self.sizes.reads} reads of due customers",
            len(self.wrong),
            "at most",
            0,
            "; ".join(self.wrong[:3]) or "segment ended and stage since its instant, before the worker expired them",
            0,
        )

    def _drain_result(self, all_due: int, full_rate: float, left: int) -> Result:
        rate = self.drained / max(self.busy_seconds, 1e-9)
        lags = ", ".join(f"{lag:,.0f}" for lag in self.lags[:: max(1, len(self.lags) // 5)])
        return Result(
            Benchmark.STORM,
            f"minutes to expire {all_due:,} customers under load, at the measured rate",
            all_due / max(rate, 1e-9) / 60,
            "at most",
            None,
            f"{rate:,.0f} customers/s; {full_rate:,.0f}/s without load, "
            f"{all_due / max(full_rate, 1e-9) / 60:.1f} minutes; {left:,} left at the end; lag {lags} s, "
            f"at the end {self._read_metrics()[0]:,.0f} s: it falls when the last one expires",
            1,
        )

    def _pause(self) -> None:
        self.dataset.pause_file.touch()

    def _resume(self) -> None:
        """Resume the worker and wait one second, because it checks the pause file once a second."""
        self.dataset.pause_file.unlink()
        self.last_sample = None
        time.sleep(1.0)

    def _drain(self) -> tuple[float, int]:
        """Return the expired customers per second without other load, and the number of customers still due."""
        due, start = self._due(), time.perf_counter()
        left, seconds = due, 0.0
        while left and seconds < self.sizes.drain_seconds:
            time.sleep(0.1)
            left, seconds = self._due(), time.perf_counter() - start
        return (due - left) / max(seconds, 1e-9), left

    def _choose_reads(self) -> list[Copy]:
        """Return customers that are due late in the storm, so that they have not expired when they are read."""
        copies = (copy for copy in _copies(self.sizes.many, self.sizes) if copy.pattern.startswith("storm-"))
        late = [copy for copy in copies if _number_of(copy.pattern) >= self.sizes.parts * 3 // 4]
        return random.Random(SEED).sample(late, self.sizes.reads)

    def _send(self, kind: RequestKind, messages: int, meanwhile: Any = lambda: None) -> Load:
        size, in_flight = (BATCH_MESSAGES, BATCH_IN_FLIGHT) if kind is RequestKind.BATCH else (1, SINGLE_IN_FLIGHT)
        plan = Plan(
            kind, self.server.port, self.dataset.keys.write_key, messages // size, in_flight, self.next_message, size
        )
        self.next_message += messages
        return self.generator.run(plan, meanwhile)

    def _sample(self) -> None:
        """Read one customer, and sometimes the metrics. The work is the same whether the worker is paused or not."""
        if self.to_read:
            self._read_one()
        if self.last_sample is None or time.perf_counter() - self.last_sample[0] >= SAMPLE_SECONDS:
            lag, messages = self._read_metrics()
            self.lags.append(lag)
            self.last_sample = (time.perf_counter(), messages, self._due())

    def _sample_in_storm(self) -> None:
        before = self.last_sample
        self._sample()
        after = self.last_sample
        if before is not None and after is not None and after[1] > before[1]:
            self.busy_seconds += after[0] - before[0]
            self.drained += before[2] - after[2]

    def _read_metrics(self) -> tuple[float, float]:
        """Return the worker's lag in seconds and the number of accepted messages."""
        text = self.http.get("/metrics").raise_for_status().text
        lag = re.search(r"^segue_sweep_lag_seconds ([\d.e+-]+)$", text, re.MULTILINE)
        accepted = re.search(r'^segue_messages_total\{outcome="accepted"\} ([\d.e+]+)$', text, re.MULTILINE)
        assert lag is not None
        return float(lag[1]), float(accepted[1]) if accepted else 0.0

    def _due(self) -> int:
        """Return the number of due customers, exact to one instant of the storm.

        The worker expires customers in order, so the earliest due instant determines the number.
        """
        first = self.dataset.storm_at

        async def select_earliest(connection: Connection) -> int | None:
            await prepare_connection(connection)
            earliest: int | None = await connection.fetchval(_EARLIEST, first, first + SECOND)
            return earliest

        earliest = self.databases.query(MANY, select_earliest)
        return 0 if earliest is None else self.sizes.many * (first + SECOND - earliest) // SECOND

    def _read_one(self) -> None:
        copy = self.to_read.pop()
        customer = self.http.get(f"/v1/customers/user_id:{copy.value}").raise_for_status().json()
        due = self.dataset.storm_at + _number_of(copy.pattern) * SECOND // self.sizes.parts
        stage = customer["stages"][JOURNEY]
        if customer["segments"] or (stage["stage"], stage["since"]) != ("consideration", rfc3339(due - 30 * DAY)):
            self.wrong.append(f"{copy.value} as of {customer['as_of']}: {customer['segments']}, {stage}")


_EARLIEST: Final = """
SELECT sweep_at FROM customers WHERE sweep_at >= $1 AND sweep_at < $2 ORDER BY sweep_at LIMIT 1
"""
