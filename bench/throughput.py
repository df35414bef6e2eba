"""Throughput benchmarks over HTTP, with the server's WAL syncs, statements and memory.

Each comparison is repeated and its median reported. Its sides alternate within a repetition, so that a slow minute of
the machine slows both.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import linear_regression, median

import psutil

from bench.load_generator import Load, RequestKind
from bench.result import Benchmark, Progress, Result
from bench.sql_statements import list_flush_statements
from bench.testbed import Connection, Testbed

BATCH_MESSAGES = 100
BATCH_IN_FLIGHT = 12
SINGLE_IN_FLIGHT = 64
READ_IN_FLIGHT = 8
STATISTICS_SECONDS = 1.1
"""Pause before statistics are read, because PostgreSQL's backends report them at most once a second."""


@dataclass(frozen=True)
class Sizes:
    """Number of repetitions, and number of messages (for reads: requests) in each repetition."""

    batched: int
    batch_repetitions: int
    baseline_batched: int
    singles: int
    noops: int
    reads: int
    repetitions: int
    warm_up: int


FULL = Sizes(20_000, 10, 2_000, 10_000, 20_000, 6_000, 5, 2_000)
"""Sizes of a full run. The batches add up to the 200,000 messages of the memory benchmark."""
QUICK = Sizes(400, 2, 200, 100, 200, 100, 1, 100)
"""Sizes of the smoke test, whose results mean nothing."""


def measure(testbed: Testbed, selected: Collection[Benchmark], sizes: Sizes, progress: Progress) -> list[Result]:
    progress("warming up")
    _warm_up(testbed, sizes)
    groups: tuple[tuple[set[Benchmark], Callable[[], list[Result]]], ...] = (
        (
            {Benchmark.BATCH, Benchmark.SCATTERED, Benchmark.BASELINE, Benchmark.MEMORY},
            lambda: _measure_batches(testbed, sizes, progress),
        ),
        (
            {Benchmark.BASELINE, Benchmark.SINGLE, Benchmark.WAL},
            lambda: _measure_single_messages(testbed, sizes, progress),
        ),
        ({Benchmark.READ}, lambda: _measure_reads(testbed, sizes, progress)),
        ({Benchmark.STATEMENTS}, lambda: _measure_statements(testbed, progress)),
    )
    results = [result for benchmarks, measure in groups if benchmarks & set(selected) for result in measure()]
    return [result for result in results if result.benchmark in selected]


def _warm_up(testbed: Testbed, sizes: Sizes) -> None:
    batches = sizes.warm_up // BATCH_MESSAGES
    for baseline in (False, True):
        testbed.generator.run(testbed.plan(RequestKind.BATCH, batches, 4, BATCH_MESSAGES, baseline=baseline))
        testbed.generator.run(testbed.plan(RequestKind.SINGLE, sizes.warm_up, SINGLE_IN_FLIGHT, baseline=baseline))
    for kind in (RequestKind.NOOP_POST, RequestKind.NOOP_GET, RequestKind.CUSTOMER):
        testbed.generator.run(testbed.plan(kind, sizes.warm_up, READ_IN_FLIGHT))


# ------------------------------------------------------------------------------------ batches of 100 messages


def _measure_batches(testbed: Testbed, sizes: Sizes, progress: Progress) -> list[Result]:
    segue: list[Load] = []
    scattered: list[Load] = []
    copied: list[float] = []
    baseline: list[Load] = []
    memory = ResidentMemory(testbed.segue.pid)
    server, postgres = CpuTime(testbed.segue.pid), CpuTime(testbed.databases.postgres_pid)
    requests, fewer = sizes.batched // BATCH_MESSAGES, sizes.baseline_batched // BATCH_MESSAGES
    last_received_at = "SELECT max(received_at) FROM touchpoints"
    for repetition in range(sizes.batch_repetitions):
        progress(f"batches, {repetition + 1} of {sizes.batch_repetitions}")
        since = testbed.query("segue", lambda connection: connection.fetchval(last_received_at))
        with server, postgres:
            plan = testbed.plan(RequestKind.BATCH, requests, BATCH_IN_FLIGHT, BATCH_MESSAGES)
            segue.append(testbed.generator.run(plan, memory.sample))
        memory.record(plan.messages)
        copied.append(_measure_copy(testbed, since))
        plan = testbed.plan(RequestKind.BATCH, fewer, BATCH_IN_FLIGHT, BATCH_MESSAGES, visit=1)
        scattered.append(testbed.generator.run(plan))
        plan = testbed.plan(RequestKind.BATCH, fewer, BATCH_IN_FLIGHT, BATCH_MESSAGES, baseline=True)
        baseline.append(testbed.generator.run(plan))
    segue_rates, baseline_rates = _rates(segue), _rates(baseline)
    seconds = sum(load.seconds for load in segue)
    cpu = f"share of one core: server {server.seconds / seconds:.0%}, PostgreSQL {postgres.seconds / seconds:.0%}"
    return [
        Result(
            Benchmark.BATCH,
            "batches of 100: acknowledged messages/s over COPY rows/s",
            _ratio(segue_rates, copied),
            "at least",
            0.20,
            f"{_spread(segue_rates)} over {_spread(copied)}; {_latency(segue)}; {cpu}",
        ),
        Result(
            Benchmark.SCATTERED,
            "the same, consecutive messages from different customers",
            _ratio(_rates(scattered), copied),
            "at least",
            0.20,
            _spread(_rates(scattered)),
        ),
        Result(
            Benchmark.BASELINE,
            "batches of 100: messages/s over the baseline service",
            _ratio(segue_rates, baseline_rates),
            "at least",
            10,
            f"{_spread(segue_rates)} over {_spread(baseline_rates)}",
        ),
        *memory.results(),
    ]


def _measure_copy(testbed: Testbed, since: object) -> float:
    """Return the rate of COPY in rows/s, measured with the rows received after ``since``.

    COPY writes them in one transaction into tables with the same columns and indexes.
    """

    async def read(connection: Connection) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
        rows = "SELECT * FROM {} WHERE received_at > $1"
        touchpoints = await connection.fetch(rows.format("touchpoints"), since)
        ledger = await connection.fetch(rows.format("ledger"), since)
        return [tuple(row) for row in touchpoints], [tuple(row) for row in ledger]

    touchpoints, ledger = testbed.query("segue", read)

    async def copy(connection: Connection) -> float:
        start = time.perf_counter()
        async with connection.transaction():
            await connection.copy_records_to_table("ledger", records=ledger)
            await connection.copy_records_to_table("touchpoints", records=touchpoints)
        return time.perf_counter() - start

    return len(touchpoints) / testbed.query("copied", copy)


class CpuTime:
    """Total CPU time that a process and its living children use during the ``with`` blocks."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._since: dict[int, float] = {}
        self.seconds = 0.0

    def _now(self) -> dict[int, float]:
        now = {}
        for process in (self._process, *self._process.children()):
            with suppress(psutil.NoSuchProcess):  # A child may end in the meantime.
                times = process.cpu_times()
                now[process.pid] = float(times.user + times.system)
        return now

    def __enter__(self) -> None:
        self._since = self._now()

    def __exit__(self, *_: object) -> None:
        self.seconds += sum(now - self._since.get(pid, 0.0) for pid, now in self._now().items())


class ResidentMemory:
    """Resident memory of a process: its peak, and its growth during the second half of the messages."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._peak_mb = 0.0
        self._messages = 0
        self._samples: list[tuple[int, float]] = []
        """(number of messages sent so far, resident megabytes at that time)"""

    def sample(self) -> float:
        resident_mb: float = self._process.memory_info().rss / 1e6
        self._peak_mb = max(self._peak_mb, resident_mb)
        return resident_mb

    def record(self, messages: int) -> None:
        """Take a sample after ``messages`` more messages were stored."""
        self._messages += messages
        self._samples.append((self._messages, self.sample()))

    def results(self) -> list[Result]:
        """Return peak and growth.

        Growth is the slope of a regression line through the second half of the samples, times its length.
        """
        settled = self._samples[len(self._samples) // 2 - 1 :]
        slope, _ = linear_regression([sent for sent, _ in settled], [resident for _, resident in settled])
        growth_mb = slope * (settled[-1][0] - settled[0][0])
        samples = ", ".join(f"{resident:.0f}" for _, resident in self._samples)
        peak = f"peak MB after {self._messages:,} messages"
        growth = "MB of growth during the second half of them"
        return [
            Result(Benchmark.MEMORY, peak, self._peak_mb, "at most", 160, f"{samples} MB"),
            Result(Benchmark.MEMORY, growth, growth_mb, "at most", 10, "by linear regression"),
        ]


# -------------------------------------------------------------------------------------------- single messages


def _measure_single_messages(testbed: Testbed, sizes: Sizes, progress: Progress) -> list[Result]:
    noop: list[Load] = []
    segue: list[Load] = []
    baseline: list[Load] = []
    syncs: list[float] = []
    for repetition in range(sizes.repetitions):
        progress(f"single messages, {repetition + 1} of {sizes.repetitions}")
        noop.append(testbed.generator.run(testbed.plan(RequestKind.NOOP_POST, sizes.noops, SINGLE_IN_FLIGHT)))
        before = _count_wal_syncs(testbed)
        segue.append(testbed.generator.run(testbed.plan(RequestKind.SINGLE, sizes.singles, SINGLE_IN_FLIGHT)))
        syncs.append((_count_wal_syncs(testbed) - before) / sizes.singles)
        plan = testbed.plan(RequestKind.SINGLE, sizes.singles // 5, SINGLE_IN_FLIGHT, baseline=True)
        baseline.append(testbed.generator.run(plan))
    segue_rates = _rates(segue)
    return [
        Result(
            Benchmark.BASELINE,
            "single messages/s over the baseline service",
            _ratio(segue_rates, _rates(baseline)),
            "at least",
            3,
            f"{_spread(segue_rates)} over {_spread(_rates(baseline))}",
        ),
        Result(
            Benchmark.SINGLE,
            f"single messages/s over no-op POST/s, {SINGLE_IN_FLIGHT} in flight",
            _ratio(segue_rates, _rates(noop)),
            "at least",
            0.4,
            f"{_spread(segue_rates)} over {_spread(_rates(noop))}; {_latency(segue)}",
        ),
        Result(
            Benchmark.WAL,
            f"WAL syncs per acknowledged message, {SINGLE_IN_FLIGHT} in flight",
            median(syncs),
            "at most",
            0.08,
            f"{min(syncs):.3f} to {max(syncs):.3f}, from pg_stat_io",
            digits=3,
        ),
    ]


def _count_wal_syncs(testbed: Testbed) -> int:
    """Return the number of WAL syncs of all processes so far.

    A backend reports its statistics at the end of a transaction, at most once a second. The function therefore waits a
    second and sends one more message, whose commit reports the earlier syncs.
    """
    time.sleep(STATISTICS_SECONDS)
    testbed.generator.run(testbed.plan(RequestKind.SINGLE, 1, 1))
    return int(testbed.query("segue", lambda connection: connection.fetchval(_WAL_SYNCS)))


_WAL_SYNCS = "SELECT sum(fsyncs)::bigint FROM pg_stat_io WHERE object = 'wal'"


# --------------------------------------------------------------------------------------- reads and statements


def _measure_reads(testbed: Testbed, sizes: Sizes, progress: Progress) -> list[Result]:
    noop: list[Load] = []
    customers: list[Load] = []
    for repetition in range(sizes.repetitions):
        progress(f"reads, {repetition + 1} of {sizes.repetitions}")
        noop.append(testbed.generator.run(testbed.plan(RequestKind.NOOP_GET, sizes.noops, READ_IN_FLIGHT)))
        customers.append(testbed.generator.run(testbed.plan(RequestKind.CUSTOMER, sizes.reads, READ_IN_FLIGHT)))
    customer_rates = _rates(customers)
    return [
        Result(
            Benchmark.READ,
            f"customers read/s over no-op GET/s, {READ_IN_FLIGHT} in flight",
            _ratio(customer_rates, _rates(noop)),
            "at least",
            0.4,
            f"{_spread(customer_rates)} over {_spread(_rates(noop))}; {_latency(customers)}",
        )
    ]


def _measure_statements(testbed: Testbed, progress: Progress) -> list[Result]:
    progress("statements per flush")
    counts = asyncio.run(list_flush_statements(testbed.databases.urls["counted"], (1, 2_500)))
    one, many = counts[1], counts[2_500]
    total = "SQL statements in a flush of 2,500 messages"
    difference = "difference to a flush of 1 message"
    detail = "" if one == many else f"1 message: {'; '.join(one)}"
    return [
        Result(Benchmark.STATEMENTS, total, len(many), "at most", 8, "; ".join(many), 0),
        Result(Benchmark.STATEMENTS, difference, abs(len(many) - len(one)), "at most", 0, detail, 0),
    ]


# ------------------------------------------------------------------------------------------------- arithmetic


def _rates(loads: Sequence[Load]) -> list[float]:
    return [load.rate for load in loads]


def _ratio(measured: Sequence[float], reference: Sequence[float]) -> float:
    """Return the median of the ratios of the individual repetitions."""
    return median(a / b for a, b in zip(measured, reference, strict=True))


def _spread(rates: Sequence[float]) -> str:
    return f"{median(rates):,.0f}/s ({min(rates):,.0f} to {max(rates):,.0f})"


def _latency(loads: Sequence[Load]) -> str:
    p50, p99 = median(load.p50_ms for load in loads), median(load.p99_ms for load in loads)
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"
