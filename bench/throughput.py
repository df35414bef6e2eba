"""The figures, each measured several times beside what it is compared with; the median counts.

The parts of a comparison take turns within each repetition, so that a slow minute of the machine slows both.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import linear_regression, median

import psutil

from bench.load_generator import Kind, Load
from bench.result import Figure, Say
from bench.sql_statements import statements_per_flush
from bench.testbed import Connection, Stage

BATCH_MESSAGES = 100
BATCH_IN_FLIGHT = 12
SINGLE_IN_FLIGHT = 64
READ_IN_FLIGHT = 8
STATISTICS_SECONDS = 1.1
"""PostgreSQL's backends report their statistics at most once a second."""


@dataclass(frozen=True)
class Sizes:
    """How much is sent in each repetition, in messages (requests, for reads), and how often it is repeated."""

    batched: int
    batch_repetitions: int
    baseline_batched: int
    singles: int
    noops: int
    reads: int
    repetitions: int
    warm_up: int


FULL = Sizes(20_000, 10, 2_000, 10_000, 20_000, 6_000, 5, 2_000)
"""The batches add up to the 200,000 messages of the memory figure."""
QUICK = Sizes(400, 2, 200, 100, 200, 100, 1, 100)
"""Shows that everything runs; the figures mean nothing."""


def measure(stage: Stage, wanted: Collection[str], sizes: Sizes, say: Say) -> list[Figure]:
    say("warming up")
    _warm_up(stage, sizes)
    parts: tuple[tuple[str, Callable[[], list[Figure]]], ...] = (
        ("abg", lambda: _batches(stage, sizes, say)),
        ("bce", lambda: _singles(stage, sizes, say)),
        ("d", lambda: _reads(stage, sizes, say)),
        ("f", lambda: _statements(stage, say)),
    )
    found = [figure for letters, part in parts if set(letters) & set(wanted) for figure in part()]
    return [figure for figure in found if figure.letter in wanted]


def _warm_up(stage: Stage, sizes: Sizes) -> None:
    batches = sizes.warm_up // BATCH_MESSAGES
    for baseline in (False, True):
        stage.generator.run(stage.plan(Kind.BATCH, batches, 4, BATCH_MESSAGES, baseline=baseline))
        stage.generator.run(stage.plan(Kind.SINGLE, sizes.warm_up, SINGLE_IN_FLIGHT, baseline=baseline))
    for kind in (Kind.NOOP_POST, Kind.NOOP_GET, Kind.CUSTOMER):
        stage.generator.run(stage.plan(kind, sizes.warm_up, READ_IN_FLIGHT))


# ------------------------------------------------------------------------- (a) (b) (g): batches of 100 messages


def _batches(stage: Stage, sizes: Sizes, say: Say) -> list[Figure]:
    segue: list[Load] = []
    scattered: list[Load] = []
    copied: list[float] = []
    baseline: list[Load] = []
    memory = Memory(stage.segue.pid)
    server, postgres = Cpu(stage.segue.pid), Cpu(stage.databases.postgres_pid)
    requests, fewer = sizes.batched // BATCH_MESSAGES, sizes.baseline_batched // BATCH_MESSAGES
    for repetition in range(sizes.batch_repetitions):
        say(f"batches, {repetition + 1} of {sizes.batch_repetitions}")
        mark = stage.query("segue", lambda connection: connection.fetchval("SELECT max(received_at) FROM touchpoints"))
        with server, postgres:
            plan = stage.plan(Kind.BATCH, requests, BATCH_IN_FLIGHT, BATCH_MESSAGES)
            segue.append(stage.generator.run(plan, memory.look))
        memory.note(plan.messages)
        copied.append(_copy_rate(stage, mark))
        plan = stage.plan(Kind.BATCH, fewer, BATCH_IN_FLIGHT, BATCH_MESSAGES, visit=1)
        scattered.append(stage.generator.run(plan))
        plan = stage.plan(Kind.BATCH, fewer, BATCH_IN_FLIGHT, BATCH_MESSAGES, baseline=True)
        baseline.append(stage.generator.run(plan))
    ours, theirs = _rates(segue), _rates(baseline)
    seconds = sum(load.seconds for load in segue)
    busy = f"busy of one core: server {server.seconds / seconds:.0%}, PostgreSQL {postgres.seconds / seconds:.0%}"
    return [
        Figure(
            "a",
            "batches of 100, acked messages/s over COPY rows/s",
            _ratio(ours, copied),
            "at least",
            0.20,
            f"{_spread(ours)} over {_spread(copied)}; {_latency(segue)}; {busy}",
        ),
        Figure(
            "a",
            "the same where no two messages that follow each other are one customer's",
            _ratio(_rates(scattered), copied),
            "at least",
            0.20,
            f"{_spread(_rates(scattered))}",
        ),
        Figure(
            "b",
            "batches of 100, messages/s over the baseline's",
            _ratio(ours, theirs),
            "at least",
            10,
            f"{_spread(ours)} over {_spread(theirs)}",
        ),
        *memory.figures(),
    ]


def _copy_rate(stage: Stage, mark: object) -> float:
    """Rows a second: what Segue has just stored, by COPY into equal tables with equal indexes, in one transaction."""

    async def read(connection: Connection) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
        rows = "SELECT * FROM {} WHERE received_at > $1"
        touchpoints = await connection.fetch(rows.format("touchpoints"), mark)
        ledger = await connection.fetch(rows.format("ledger"), mark)
        return [tuple(row) for row in touchpoints], [tuple(row) for row in ledger]

    touchpoints, ledger = stage.query("segue", read)

    async def copy(connection: Connection) -> float:
        start = time.perf_counter()
        async with connection.transaction():
            await connection.copy_records_to_table("ledger", records=ledger)
            await connection.copy_records_to_table("touchpoints", records=touchpoints)
        return time.perf_counter() - start

    return len(touchpoints) / stage.query("copied", copy)


class Cpu:
    """Processor time of a process and its living children, over the stretches of a ``with``."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._since: dict[int, float] = {}
        self.seconds = 0.0

    def _now(self) -> dict[int, float]:
        now = {}
        for process in (self._process, *self._process.children()):
            with suppress(psutil.NoSuchProcess):  # a child may end while we look
                times = process.cpu_times()
                now[process.pid] = float(times.user + times.system)
        return now

    def __enter__(self) -> None:
        self._since = self._now()

    def __exit__(self, *_: object) -> None:
        self.seconds += sum(now - self._since.get(pid, 0.0) for pid, now in self._now().items())


class Memory:
    """Resident memory of the server: its peak, and what it still grows by once it has settled."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._peak_mb = 0.0
        self._messages = 0
        self._course: list[tuple[int, float]] = []

    def look(self) -> float:
        resident_mb: float = self._process.memory_info().rss / 1e6
        self._peak_mb = max(self._peak_mb, resident_mb)
        return resident_mb

    def note(self, messages: int) -> None:
        """So many more were taken in."""
        self._messages += messages
        self._course.append((self._messages, self.look()))

    def figures(self) -> list[Figure]:
        """Growth is the slope of a line through the second half of the course, times that half."""
        settled = self._course[len(self._course) // 2 - 1 :]
        slope, _ = linear_regression([sent for sent, _ in settled], [resident for _, resident in settled])
        growth_mb = slope * (settled[-1][0] - settled[0][0])
        course = ", ".join(f"{resident:.0f}" for _, resident in self._course)
        return [
            Figure("g", f"peak MB after {self._messages:,} messages", self._peak_mb, "at most", 200, f"{course} MB"),
            Figure("g", "MB that it grew by in the second half of them", growth_mb, "at most", 10, "a line through it"),
        ]


# ------------------------------------------------------------------------------- (b) (c) (e): single messages


def _singles(stage: Stage, sizes: Sizes, say: Say) -> list[Figure]:
    noop: list[Load] = []
    segue: list[Load] = []
    baseline: list[Load] = []
    syncs: list[float] = []
    for repetition in range(sizes.repetitions):
        say(f"single messages, {repetition + 1} of {sizes.repetitions}")
        noop.append(stage.generator.run(stage.plan(Kind.NOOP_POST, sizes.noops, SINGLE_IN_FLIGHT)))
        before = _wal_syncs(stage)
        segue.append(stage.generator.run(stage.plan(Kind.SINGLE, sizes.singles, SINGLE_IN_FLIGHT)))
        syncs.append((_wal_syncs(stage) - before) / sizes.singles)
        plan = stage.plan(Kind.SINGLE, sizes.singles // 5, SINGLE_IN_FLIGHT, baseline=True)
        baseline.append(stage.generator.run(plan))
    ours = _rates(segue)
    return [
        Figure(
            "b",
            "single messages/s over the baseline's",
            _ratio(ours, _rates(baseline)),
            "at least",
            3,
            f"{_spread(ours)} over {_spread(_rates(baseline))}",
        ),
        Figure(
            "c",
            f"single messages/s over no-op POST/s, {SINGLE_IN_FLIGHT} in flight",
            _ratio(ours, _rates(noop)),
            "at least",
            0.4,
            f"{_spread(ours)} over {_spread(_rates(noop))}; {_latency(segue)}",
        ),
        Figure(
            "e",
            f"WAL syncs per acked message, {SINGLE_IN_FLIGHT} in flight",
            median(syncs),
            "at most",
            0.08,
            f"{min(syncs):.3f} to {max(syncs):.3f}, from pg_stat_io",
            digits=3,
        ),
    ]


def _wal_syncs(stage: Stage) -> int:
    """Syncs of the WAL so far, by any process.

    A backend reports its own at the end of a transaction, at most once a second: so wait a second, and have
    Segue's commit once more.
    """
    time.sleep(STATISTICS_SECONDS)
    stage.generator.run(stage.plan(Kind.SINGLE, 1, 1))
    return int(stage.query("segue", lambda connection: connection.fetchval(_WAL_SYNCS)))


_WAL_SYNCS = "SELECT sum(fsyncs)::bigint FROM pg_stat_io WHERE object = 'wal'"


# ---------------------------------------------------------------------------------- (d): reads; (f): statements


def _reads(stage: Stage, sizes: Sizes, say: Say) -> list[Figure]:
    noop: list[Load] = []
    customers: list[Load] = []
    for repetition in range(sizes.repetitions):
        say(f"reads, {repetition + 1} of {sizes.repetitions}")
        noop.append(stage.generator.run(stage.plan(Kind.NOOP_GET, sizes.noops, READ_IN_FLIGHT)))
        customers.append(stage.generator.run(stage.plan(Kind.CUSTOMER, sizes.reads, READ_IN_FLIGHT)))
    ours = _rates(customers)
    return [
        Figure(
            "d",
            f"customers read/s over no-op GET/s, {READ_IN_FLIGHT} in flight",
            _ratio(ours, _rates(noop)),
            "at least",
            0.4,
            f"{_spread(ours)} over {_spread(_rates(noop))}; {_latency(customers)}",
        )
    ]


def _statements(stage: Stage, say: Say) -> list[Figure]:
    say("statements per flush")
    counts = asyncio.run(statements_per_flush(stage.databases.urls["counted"], (1, 2_500)))
    one, many = counts[1], counts[2_500]
    differing = "" if one == many else f"of 1: {'; '.join(one)}"
    return [
        Figure("f", "SQL statements of a flush of 2,500 messages", len(many), "at most", 8, "; ".join(many), 0),
        Figure("f", "more or fewer for 1 message", abs(len(many) - len(one)), "at most", 0, differing, 0),
    ]


# ------------------------------------------------------------------------------------------------- arithmetic


def _rates(loads: Sequence[Load]) -> list[float]:
    return [load.rate for load in loads]


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of the ratios of the repetitions."""
    return median(a / b for a, b in zip(ours, theirs, strict=True))


def _spread(rates: Sequence[float]) -> str:
    return f"{median(rates):,.0f}/s ({min(rates):,.0f} to {max(rates):,.0f})"


def _latency(loads: Sequence[Load]) -> str:
    p50, p99 = median(load.p50_ms for load in loads), median(load.p99_ms for load in loads)
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"
