"""Time passes: a hundred customers due among few and among many, and all of a million due in the same second.

Both are measured on one base, whose customers did one thing each and have since been in one segment for 30 days less a
little. They are copies of some hundred who came in by the real pipeline, each with an instant of its own.
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
from bench.dataset import Copy, Pipeline, multiply, pipeline
from bench.load_generator import Generator, Kind, Load, Plan
from bench.processes import Server
from bench.result import Figure, Say
from bench.sample_rules import Json
from bench.testbed import Connection, Databases, databases, segue
from bench.throughput import BATCH_IN_FLIGHT, BATCH_MESSAGES, SINGLE_IN_FLIGHT

FEW: Final = "few"
MANY: Final = "many"
SEGMENT: Final = "active"
ACTIVE: Final[Json] = {"did": "*", "within": "30d"}
JOURNEY: Final = "six-stage"
TICK: Final = 100
"""Customers due at each tick."""
FIRST_TICK: Final = 10 * MINUTE
STORM: Final = 2 * HOUR
"""How long after the base is begun ticks and the storm come."""
BEGUN_BEFORE: Final = 3 * HOUR
"""The clock of the pipeline is that much behind, so that a server finds the storm to have come."""
SEED: Final = 40
LOOK_SECONDS: Final = 0.5


@dataclass(frozen=True)
class Sizes:
    few: int
    many: int
    ticks: int
    parts: int
    """Different instants within the second in which all others are due."""
    warm_up: int
    batched: int
    """Messages of each stretch of the load, in batches."""
    singles: int
    repetitions: int
    reads: int
    drain_seconds: float
    """How long the drain is watched when nothing else happens."""


FULL: Final = Sizes(10_000, 1_000_000, 9, 1_000, 100_000, 30_000, 9_000, 5, 100, 20.0)
QUICK: Final = Sizes(1_000, 4_000, 2, 100, 1_000, 3_000, 500, 1, 20, 2.0)


@dataclass(frozen=True)
class _Base:
    """What is to be known of the larger base."""

    keys: FirstKeys
    storm_at: int
    """When the second begins in which all are due."""
    held: Path
    """While there is such a file, a server over it sweeps nobody."""


def measure(wanted: Collection[str], generator: Generator, sizes: Sizes, say: Say) -> list[Figure]:
    with databases((FEW, MANY)) as made:
        base, figures = asyncio.run(_ticks(made, wanted, sizes, say))
        if "l" in wanted:
            base.held.touch()
            with segue(made, MANY, {"BENCH_HELD": str(base.held)}) as server:
                figures += _Storm(made, server, base, generator, sizes, say).measure()
    return figures


# --------------------------------------------------------------------------------------------------- the base


def _tick_of(number: int) -> str:
    return f"tick-{number:04}"


def _part_of(number: int) -> str:
    return f"storm-{number:04}"


def _patterns(begun_at: int, sizes: Sizes) -> dict[str, int]:
    """Who is due when, apart from the copies."""
    due = {_tick_of(tick): begun_at + FIRST_TICK + tick * SECOND for tick in range(1 + sizes.ticks)}
    return due | {_part_of(part): begun_at + STORM + part * SECOND // sizes.parts for part in range(sizes.parts)}


def _number_of(pattern: str) -> int:
    return int(pattern.split("-")[1])


def _copies(customers: int, sizes: Sizes) -> Iterable[Copy]:
    """Those of each tick are spread over all; their patterns are among the customers."""
    copies = customers - 1 - sizes.ticks - sizes.parts
    apart = copies // (TICK - 1)
    left = dict.fromkeys(range(1 + sizes.ticks), TICK - 1)
    for number in range(copies):
        tick = number % apart
        if left.get(tick):
            left[tick] -= 1
            yield Copy(number, _tick_of(tick), f"due-{number:07}")
        else:
            yield Copy(number, _part_of(number % sizes.parts), f"due-{number:07}")


async def _build(made: Databases, database: str, one: Pipeline, customers: int, sizes: Sizes) -> None:
    begun_at = one.clock.now()
    await one.archive_all_but(JOURNEY)
    await one.define(SEGMENT, ACTIVE)
    await one.send(
        [
            {
                "type": "track",
                "event": "Product Viewed",
                "userId": user,
                "messageId": f"m-{user}",
                "timestamp": rfc3339(due - 30 * DAY),
            }
            for user, due in _patterns(begun_at, sizes).items()
        ]
    )
    await multiply(made.urls[database], _copies(customers, sizes), log=False, browsers=False)


# -------------------------------------------------------------------------------------- (j): a hundred are due


async def _ticks(made: Databases, wanted: Collection[str], sizes: Sizes, say: Say) -> tuple[_Base, list[Figure]]:
    """The bases, and (j). Its clocks stand still, so that nothing is due but what a tick is about."""
    clock = FrozenClock(time.time_ns() // 1000 - BEGUN_BEFORE)
    customers = {FEW: sizes.few, MANY: sizes.many} if "j" in wanted else {MANY: sizes.many}
    async with AsyncExitStack() as stack:
        bases = {}
        for database, count in customers.items():
            say(f"a base of {count:,} customers")
            bases[database] = await stack.enter_async_context(pipeline(made.urls[database], clock, 1))
            await _build(made, database, bases[database], count, sizes)
        begun_at = clock.instant
        figures = []
        if "j" in wanted:
            seconds: dict[str, list[float]] = {FEW: [], MANY: []}
            plan = ""
            for tick in range(1 + sizes.ticks):
                say(f"expiry, tick {tick} of {sizes.ticks}")
                clock.instant = begun_at + FIRST_TICK + tick * SECOND
                for database in (MANY, FEW) if tick % 2 else (FEW, MANY):
                    took, heard = await _sweep(bases[database])
                    if tick:
                        seconds[database].append(took)
                    elif database == FEW:  # the first prepares the statements; nothing was swept among the many yet
                        plan = await _plan_of_claim(made.urls[MANY], heard, clock.instant)
            figures.append(_tick_figure(seconds, sizes, plan))
        return _Base(bases[MANY].keys, begun_at + STORM, made.place / "held"), figures


async def _sweep(one: Pipeline) -> tuple[float, list[tuple[str, Any]]]:
    """(seconds, statements with their arguments) of one tick of the worker."""
    heard: list[tuple[str, Any]] = []

    def listen(logged: Any) -> None:
        heard.append((logged.query, logged.args))

    async with one.pool.acquire() as only:
        only.add_query_logger(listen)
    start = time.perf_counter()
    swept = await one.worker.sweep()
    took = time.perf_counter() - start
    async with one.pool.acquire() as only:
        only.remove_query_logger(listen)
    if swept != TICK:
        raise RuntimeError(f"a tick took {swept} customers, not {TICK}")
    return took, heard


async def _plan_of_claim(url: str, heard: Sequence[tuple[str, Any]], now: int) -> str:
    """How PostgreSQL claims the customers of a tick: the worker's own statement, analysed.

    Raises RuntimeError unless it reads nothing but the index.
    """
    claim = next(query for query, _ in heard if "sweep_at <=" in query)
    connection: Connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET enable_seqscan = off")  # as every connection of the service
        at = f"timestamptz 'epoch' + interval '{now} microseconds'"
        rows = await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS) {claim.replace('$1', at).replace('$2', '200')}")
    finally:
        await connection.close()
    plan = "\n".join(row[0] for row in rows)
    scans = re.findall(r"^\W*((?:\w+ )*Scan\b.*?)  \(", plan, re.MULTILINE)
    if scans != ["Index Only Scan using customers_due on customers"] or f"rows={TICK}.00" not in plan:
        raise RuntimeError(f"the claim does not read the index alone:\n{plan}")
    fetches = re.search(r"Heap Fetches: (\d+)", plan)
    buffers = re.search(r"Buffers: (.*)", plan)
    assert fetches is not None
    assert buffers is not None
    return f"claim: Index Only Scan using customers_due, heap fetches {fetches[1]}, buffers {buffers[1]}"


def _tick_figure(seconds: dict[str, list[float]], sizes: Sizes, plan: str) -> Figure:
    few, many = ([1000 * each for each in seconds[database]] for database in (FEW, MANY))
    return Figure(
        "j",
        f"tick of {TICK} customers due among {sizes.many:,}, over among {sizes.few:,}",
        median(a / b for a, b in zip(many, few, strict=True)),
        "at most",
        1.5,
        f"{_spread(many)} ms over {_spread(few)} ms, COMMIT included; {plan}",
    )


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):,.1f} ({min(values):,.1f} to {max(values):,.1f})"


def _rates(loads: Sequence[Load]) -> str:
    return f"{_spread([load.rate for load in loads])}/s"


# ------------------------------------------------------------------------------ (l): all are due in one second


class _Storm:
    """One server with everybody due; the same load with the worker held and let go, in turns."""

    def __init__(
        self, made: Databases, server: Server, base: _Base, generator: Generator, sizes: Sizes, say: Say
    ) -> None:
        self.made, self.server, self.base, self.generator = made, server, base, generator
        self.sizes, self.say = sizes, say
        secret = {"Authorization": f"Bearer {base.keys.secret_key}"}
        self.http = httpx.Client(base_url=server.url, headers=secret, timeout=60)
        self.next_message = 0
        self.to_read = self._sampled()
        self.wrong: list[str] = []
        self.lags: list[float] = []
        self.busy_seconds = 0.0
        """With the worker let go, between two looks of which the second knows of more messages."""
        self.drained = 0
        """Customers swept in these seconds."""
        self.last_look: tuple[float, float, int] | None = None

    def measure(self) -> list[Figure]:
        """(l)"""
        sizes = self.sizes
        all_due = self._due()
        self.say("expiry storm: warming up")
        self._send(Kind.BATCH, sizes.warm_up)
        self._send(Kind.SINGLE, sizes.singles)
        idle: dict[Kind, list[Load]] = {Kind.BATCH: [], Kind.SINGLE: []}
        storm: dict[Kind, list[Load]] = {Kind.BATCH: [], Kind.SINGLE: []}
        for repetition in range(sizes.repetitions):
            self.say(f"expiry storm, {repetition + 1} of {sizes.repetitions}")
            for kind, messages in ((Kind.BATCH, sizes.batched), (Kind.SINGLE, sizes.singles)):
                idle[kind].append(self._send(kind, messages, self._meanwhile))
                self._let_go()
                storm[kind].append(self._send(kind, messages, self._meanwhile_in_the_storm))
                self._hold()
        while self.to_read:
            self._read_one()
        self.say("expiry storm: nothing else")
        self._let_go()
        full_rate, left = self._drain()
        figures = [
            self._rate_figure("batches of 100", storm[Kind.BATCH], idle[Kind.BATCH]),
            self._rate_figure("single messages", storm[Kind.SINGLE], idle[Kind.SINGLE]),
            self._reads_figure(),
            self._drain_figure(all_due, full_rate, left),
        ]
        self.http.close()
        return figures

    def _rate_figure(self, name: str, storm: Sequence[Load], idle: Sequence[Load]) -> Figure:
        return Figure(
            "l",
            f"{name} during an expiry storm over without it, messages/s",
            median(a.rate / b.rate for a, b in zip(storm, idle, strict=True)),
            "at least",
            0.8,
            f"{_rates(storm)} over {_rates(idle)}; p99 {median(load.p99_ms for load in storm):.0f} ms, "
            f"without it {median(load.p99_ms for load in idle):.0f} ms",
        )

    def _reads_figure(self) -> Figure:
        return Figure(
            "l",
            f"wrong answers of {self.sizes.reads} reads of customers of the storm",
            len(self.wrong),
            "at most",
            0,
            "; ".join(self.wrong[:3]) or "no segment, and the stage since when it was; the last to be swept",
            0,
        )

    def _drain_figure(self, all_due: int, full_rate: float, left: int) -> Figure:
        rate = self.drained / max(self.busy_seconds, 1e-9)
        course = ", ".join(f"{each:,.0f}" for each in self.lags[:: max(1, len(self.lags) // 5)])
        return Figure(
            "l",
            f"minutes to drain {all_due:,} while messages come in, at the rate seen",
            all_due / max(rate, 1e-9) / 60,
            "at most",
            None,
            f"{rate:,.0f} customers/s; {full_rate:,.0f}/s when nothing else happens, "
            f"{all_due / max(full_rate, 1e-9) / 60:.1f} minutes; {left:,} left at the end; lag {course} s, "
            f"at the end {self._look_at_metrics()[0]:,.0f} s: it cannot fall before the last is swept",
            1,
        )

    def _hold(self) -> None:
        self.base.held.touch()

    def _let_go(self) -> None:
        """And wait until the worker has seen it: it looks once a second."""
        self.base.held.unlink()
        self.last_look = None
        time.sleep(1.0)

    def _drain(self) -> tuple[float, int]:
        """(customers a second, customers left), when nobody sends anything."""
        due, start = self._due(), time.perf_counter()
        left, seconds = due, 0.0
        while left and seconds < self.sizes.drain_seconds:
            time.sleep(0.1)
            left, seconds = self._due(), time.perf_counter() - start
        return (due - left) / max(seconds, 1e-9), left

    def _sampled(self) -> list[Copy]:
        """From among those that are swept last, so that they are still due when they are read."""
        copies = (copy for copy in _copies(self.sizes.many, self.sizes) if copy.pattern.startswith("storm-"))
        late = [copy for copy in copies if _number_of(copy.pattern) >= self.sizes.parts * 3 // 4]
        return random.Random(SEED).sample(late, self.sizes.reads)

    def _send(self, kind: Kind, messages: int, meanwhile: Any = lambda: None) -> Load:
        size, in_flight = (BATCH_MESSAGES, BATCH_IN_FLIGHT) if kind is Kind.BATCH else (1, SINGLE_IN_FLIGHT)
        plan = Plan(
            kind, self.server.port, self.base.keys.write_key, messages // size, in_flight, self.next_message, size
        )
        self.next_message += messages
        return self.generator.run(plan, meanwhile)

    def _meanwhile(self) -> None:
        """One read, and now and then a look at the metrics; the same with the storm and without."""
        if self.to_read:
            self._read_one()
        if self.last_look is None or time.perf_counter() - self.last_look[0] >= LOOK_SECONDS:
            lag, messages = self._look_at_metrics()
            self.lags.append(lag)
            self.last_look = (time.perf_counter(), messages, self._due())

    def _meanwhile_in_the_storm(self) -> None:
        before = self.last_look
        self._meanwhile()
        after = self.last_look
        if before is not None and after is not None and after[1] > before[1]:
            self.busy_seconds += after[0] - before[0]
            self.drained += before[2] - after[2]

    def _look_at_metrics(self) -> tuple[float, float]:
        """(lag of the sweeper in seconds, messages accepted)"""
        text = self.http.get("/metrics").raise_for_status().text
        lag = re.search(r"^segue_sweep_lag_seconds ([\d.e+-]+)$", text, re.MULTILINE)
        accepted = re.search(r'^segue_messages_total\{outcome="accepted"\} ([\d.e+]+)$', text, re.MULTILINE)
        assert lag is not None
        return float(lag[1]), float(accepted[1]) if accepted else 0.0

    def _due(self) -> int:
        """Customers of the storm that were not swept yet, to within those of one instant: they are swept in order."""
        first = self.base.storm_at

        async def ask(connection: Connection) -> int | None:
            await prepare_connection(connection)
            earliest: int | None = await connection.fetchval(_EARLIEST, first, first + SECOND)
            return earliest

        earliest = self.made.query(MANY, ask)
        return 0 if earliest is None else self.sizes.many * (first + SECOND - earliest) // SECOND

    def _read_one(self) -> None:
        copy = self.to_read.pop()
        found = self.http.get(f"/v1/customers/user_id:{copy.value}").raise_for_status().json()
        due = self.base.storm_at + _number_of(copy.pattern) * SECOND // self.sizes.parts
        stage = found["stages"][JOURNEY]
        if found["segments"] or (stage["stage"], stage["since"]) != ("consideration", rfc3339(due - 30 * DAY)):
            self.wrong.append(f"{copy.value} as of {found['as_of']}: {found['segments']}, {stage}")


_EARLIEST: Final = """
SELECT sweep_at FROM customers WHERE sweep_at >= $1 AND sweep_at < $2 ORDER BY sweep_at LIMIT 1
"""
