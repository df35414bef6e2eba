"""Benchmarks on a large dataset: segment counts, backfill of a new segment, preview of an unsaved rule.

One dataset grows: ``count`` runs at 100,000 customers, ``backfill`` and ``preview`` at 200,000. Each customer has ten
touchpoints of a shop in the last 80 days. A few hundred customers (the patterns) pass through the real pipeline. All
others are copies of their rows.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any, Final

import httpx
import psutil

from app.insight.customer_scan import count_customers, fold_customers, scan_customers
from app.insight.verification import SegmentVerifier
from app.postgres.pool import snapshot
from app.projection.coverage import Coverage
from app.queries.customer_state import truth_of
from app.queries.segment_members import SegmentMemberQueries
from app.registry.bootstrap import FirstKeys
from app.touchpoint import derive_identity_id
from bench.dataset import Copy, Pipeline, browser_of, open_pipeline, write_copies
from bench.processes import Server
from bench.result import Benchmark, Progress, Result
from bench.sample_messages import message
from bench.sample_rules import Json
from bench.testbed import Connection, Databases, start_databases, start_segue

DATABASE: Final = "base"
TOUCHPOINTS: Final = 10
DAYS: Final = 80
SEED: Final = 30
SEGMENT: Final = "bought-twice"
BOUGHT_TWICE: Final[Json] = {"did": "Order Completed", "at_least": 2, "within": "90d"}
ALL: Final[Json] = {"did": "*", "at_least": 5, "within": "45d"}
A_TENTH: Final[Json] = {"did": ["Order Completed", "Email Opened"], "within": "45d"}
"""Rule that reads two of the twenty events of :mod:`bench.sample_messages`."""
VERIFIED: Final = 100
BACKFILL_SECONDS_MAX: Final = 1_800.0
RESPONSE_SECONDS_MAX: Final = 1_800.0


@dataclass(frozen=True)
class Sizes:
    patterns: int
    count_customers: int
    """Number of customers in the benchmark ``count``."""
    updates: int
    """Number of messages in each round of the benchmark ``count``."""
    rounds: int
    backfill_customers: int
    """Number of customers in the benchmarks ``backfill`` and ``preview``."""
    estimates: int


FULL: Final = Sizes(400, 100_000, 20, 3, 200_000, 5)
QUICK: Final = Sizes(40, 500, 3, 1, 2_000, 1)


def measure(selected: Collection[Benchmark], sizes: Sizes, progress: Progress) -> list[Result]:
    with start_databases((DATABASE,)) as databases:
        progress("creating the dataset")
        keys, results = asyncio.run(_create_and_count(databases, sizes, Benchmark.COUNT in selected, progress))
        if {Benchmark.BACKFILL, Benchmark.PREVIEW} & set(selected):
            progress("enlarging the dataset")
            asyncio.run(_grow(databases, sizes, sizes.count_customers, sizes.backfill_customers))
            with start_segue(databases, DATABASE) as server:
                results += _measure_over_http(databases, server, keys, selected, sizes, progress)
    return results


# ------------------------------------------------------------------------------------------------- the dataset


def _pattern(number: int) -> str:
    return f"pattern-{number:04}"


def _messages(sizes: Sizes) -> Iterator[Json]:
    """Yield the messages of the customers that pass through the pipeline, each customer's messages in order."""
    rng = random.Random(SEED)
    now = datetime.now(UTC)
    for pattern in range(sizes.patterns):
        ages = sorted((timedelta(days=DAYS * rng.random()) for _ in range(TOUCHPOINTS)), reverse=True)
        for place, age in enumerate(ages):
            number = pattern * TOUCHPOINTS + place
            written = (now - age).isoformat(timespec="milliseconds")
            template = message(7 * number + rng.randrange(20), written)
            user = _pattern(pattern)
            yield {**template, "userId": user, "anonymousId": browser_of(user), "messageId": f"p-{number:06}"}


def _copies(sizes: Sizes, first: int, last: int) -> list[Copy]:
    return [Copy(n, _pattern(n % sizes.patterns), f"copy-{n:07}") for n in range(first, last)]


async def _grow(databases: Databases, sizes: Sizes, first: int, last: int) -> None:
    await write_copies(databases.urls[DATABASE], _copies(sizes, first, last), log=True, browsers=True)


async def _create_and_count(
    databases: Databases, sizes: Sizes, measured: bool, progress: Progress
) -> tuple[FirstKeys, list[Result]]:
    """Create the dataset for the benchmark ``count``; run that benchmark if ``measured``."""
    async with open_pipeline(databases.urls[DATABASE]) as pipeline:
        await pipeline.define(SEGMENT, BOUGHT_TWICE)
        await pipeline.send(list(_messages(sizes)))
        await _grow(databases, sizes, sizes.patterns, sizes.count_customers)
        await _verify_dataset(pipeline)
        return pipeline.keys, [await _measure_count(pipeline, sizes, progress)] if measured else []


async def _verify_dataset(pipeline: Pipeline) -> None:
    """Raise RuntimeError if the stored state of a copied customer differs from a replay of the log."""
    verified = await SegmentVerifier(
        pipeline.pool, pipeline.registry, pipeline.settings, pipeline.clock
    ).verify_segment(SEGMENT, VERIFIED)
    if verified.differing or not verified.customers:
        raise RuntimeError(f"stored states differ from the log: {verified}")


# ---------------------------------------------------------------------------------------------- segment counts


async def _measure_count(pipeline: Pipeline, sizes: Sizes, progress: Progress) -> Result:
    """Compare the time of one message and one read of the count with the time of recounting all customers."""
    views = SegmentMemberQueries(pipeline.pool, pipeline.registry, pipeline.settings)
    next_members = iter(await _find_customers_with_one_order(pipeline, sizes, (1 + sizes.rounds) * sizes.updates))
    updates: list[float] = []
    recomputed: list[float] = []
    members = await views.count_members(SEGMENT, pipeline.clock.now())
    for number in range(1 + sizes.rounds):
        progress(f"segment count, {number} of {sizes.rounds}")
        durations = []
        for _ in range(sizes.updates):
            seconds, count = await _add_member(pipeline, views, next(next_members))
            if count != members + 1:
                raise RuntimeError(f"a message added {count - members} members instead of 1")
            members = count
            durations.append(seconds)
        if number:  # the first round is the warm-up
            updates.append(median(durations))
            recomputed.append(await _recount(pipeline, members))
    async with snapshot(pipeline.pool) as connection:
        customers = await count_customers(connection)
    return Result(
        Benchmark.COUNT,
        f"one message and reading the count, over recounting {customers:,} customers",
        median(update / full for update, full in zip(updates, recomputed, strict=True)),
        "at most",
        1 / 500,
        f"{1000 * median(updates):.1f} ms, COMMIT included, over {1000 * median(recomputed):,.0f} ms, "
        f"which reads only the rule's events; {members:,} members",
        5,
    )


async def _find_customers_with_one_order(pipeline: Pipeline, sizes: Sizes, count: int) -> list[str]:
    """Return the user ids of copied customers with exactly one order. One more order makes them members of SEGMENT."""
    rows = await pipeline.pool.fetch(
        "SELECT identity_id FROM touchpoints WHERE identity_id = ANY($1::uuid[]) AND name = 'Order Completed' "
        "GROUP BY identity_id HAVING count(*) = 1",
        [derive_identity_id("user_id", _pattern(number)) for number in range(sizes.patterns)],
    )
    ordered = {row["identity_id"] for row in rows}
    users = [
        copy.value
        for copy in _copies(sizes, sizes.patterns, sizes.count_customers)
        if derive_identity_id("user_id", copy.pattern) in ordered
    ]
    random.Random(SEED).shuffle(users)
    if len(users) < count:
        raise RuntimeError(f"only {len(users)} customers have exactly one order")
    return users[:count]


async def _add_member(pipeline: Pipeline, views: SegmentMemberQueries, user: str) -> tuple[float, int]:
    """Send one order and read the member count; return the duration in seconds and the count."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    order = {**message(0, now), "event": "Order Completed", "userId": user, "anonymousId": browser_of(user)}
    start = time.perf_counter()
    await pipeline.send([{**order, "messageId": f"order-of-{user}"}])
    members = await views.count_members(SEGMENT, pipeline.clock.now())
    return time.perf_counter() - start, members


async def _recount(pipeline: Pipeline, expected: int) -> float:
    """Count the members from the log.

    Only the touchpoints that the rule needs are read. Return the duration in seconds.
    """
    rule_id = f"segment:{SEGMENT}"
    start = time.perf_counter()
    members = 0
    async with snapshot(pipeline.pool) as connection:
        rules = Coverage(await pipeline.registry.rules.read(connection)).rules_for(rule_id)
        now = pipeline.clock.now()
        async for ids in scan_customers(connection):
            folded = await fold_customers(connection, ids, rules, now)
            members += sum(truth_of(customer.state, rules, rule_id).holds for customer in folded.values())
    seconds = time.perf_counter() - start
    if members != expected:
        raise RuntimeError(f"the log has {members} members, the count is {expected}")
    return seconds


# ---------------------------------------------------------------------------------------- backfill and preview


def _measure_over_http(
    databases: Databases,
    server: Server,
    keys: FirstKeys,
    selected: Collection[Benchmark],
    sizes: Sizes,
    progress: Progress,
) -> list[Result]:
    results: list[Result] = []
    touchpoints = databases.query(DATABASE, lambda connection: connection.fetchval("SELECT count(*) FROM touchpoints"))
    secret = {"Authorization": f"Bearer {keys.secret_key}"}
    with httpx.Client(base_url=server.url, headers=secret, timeout=RESPONSE_SECONDS_MAX) as http:
        if Benchmark.PREVIEW in selected:
            results += _measure_previews(http, touchpoints, sizes, progress)
        if Benchmark.BACKFILL in selected:
            results += _measure_backfills(databases, server, http, progress)
    return results


def _measure_backfills(databases: Databases, server: Server, http: httpx.Client, progress: Progress) -> list[Result]:
    """Measure the backfill of two new segments, one after the other, on a server without other load."""
    process = psutil.Process(server.pid)
    before = process.memory_info().rss / 1e6
    peak = before
    results = []
    for key, rule, scope in (("reads-all", ALL, "all touchpoints"), ("reads-a-tenth", A_TENTH, "a tenth of them")):
        progress(f"backfill of a segment that reads {scope}")
        start = time.perf_counter()
        http.post("/v1/segments", json={"key": key, "rule": rule}).raise_for_status()
        while databases.query(DATABASE, _is_backfilling):
            peak = max(peak, process.memory_info().rss / 1e6)
            if time.perf_counter() - start > BACKFILL_SECONDS_MAX:
                raise RuntimeError("the backfill did not end in time")
            time.sleep(0.1)
        waited = time.perf_counter() - start
        _verify_backfill(http, key)
        touchpoints, customers, seconds = databases.query(DATABASE, _read_backfill)
        results.append(
            Result(
                Benchmark.BACKFILL,
                f"touchpoints/s to backfill a new segment that reads {scope}",
                touchpoints / seconds,
                "at least",
                40_000,
                f"{touchpoints:,} of {customers:,} customers in {seconds:.1f} s, "
                f"{customers / seconds:,.0f} customers/s; {waited:.1f} s after the segment was saved",
                0,
            )
        )
    after = process.memory_info().rss / 1e6
    detail = f"{before:.0f} MB before, {after:.0f} MB after, {peak:.0f} MB at the peak"
    return [
        *results,
        Result(
            Benchmark.BACKFILL,
            "MB of server memory growth during backfills, at the peak",
            peak - before,
            "at most",
            50,
            detail,
        ),
    ]


_TARGET: Final = "(SELECT max(number) FROM rule_numbers)"


async def _is_backfilling(connection: Connection) -> bool:
    is_backfilling: bool = await connection.fetchval(
        f"SELECT EXISTS (SELECT FROM customers WHERE revision < {_TARGET}) "
        f"OR NOT EXISTS (SELECT FROM fills WHERE target = {_TARGET})"
    )
    return is_backfilling


async def _read_backfill(connection: Connection) -> tuple[int, int, float]:
    """Return the touchpoints, customers and seconds that the worker recorded for the latest backfill."""
    for _ in range(50):
        row = await connection.fetchrow(
            "SELECT touchpoints, customers, extract(epoch FROM updated_at - begun_at)::float8, "
            f"customers >= (SELECT count(*) FROM customers) FROM fills WHERE target = {_TARGET}"
        )
        assert row is not None
        touchpoints, customers, seconds, is_complete = row
        if is_complete:
            return touchpoints, customers, seconds
        await asyncio.sleep(0.1)
    raise RuntimeError("the worker did not record the end of the backfill")


def _verify_backfill(http: httpx.Client, key: str) -> None:
    report = http.post(f"/v1/segments/{key}/verify", json={"sample": VERIFIED}).raise_for_status().json()
    if report["differing"] or not report["members"]:
        raise RuntimeError(f"the backfill differs from the log: {report}")


def _measure_previews(http: httpx.Client, touchpoints: int, sizes: Sizes, progress: Progress) -> list[Result]:
    progress("preview of a rule")
    exact, seconds = _preview(http, {"rule": ALL, "sample": 10})
    if not exact["exact"]:
        raise RuntimeError(f"a preview without a time limit must be exact: {exact}")
    progress("estimates in 500 ms")
    estimates = [_preview(http, {"rule": ALL, "sample": 10, "within_ms": 500}) for _ in range(sizes.estimates)]
    inside = sum(estimate["low"] <= exact["count"] <= estimate["high"] for estimate, _ in estimates)
    scanned = median(estimate["customers_scanned"] for estimate, _ in estimates)
    slowest = max(seconds for _, seconds in estimates)
    return [
        Result(
            Benchmark.PREVIEW,
            "touchpoints/s to preview a rule that reads all of them",
            touchpoints / seconds,
            "at least",
            None,
            f"{touchpoints:,} of {exact['customers_total']:,} customers in {seconds:.1f} s, {exact['count']:,} members",
            0,
        ),
        Result(
            Benchmark.PREVIEW,
            "ms of an estimate with within_ms=500",
            1000 * median(seconds for _, seconds in estimates),
            "at most",
            None,
            f"slowest {1000 * slowest:.0f} ms; {scanned:,.0f} customers scanned; the interval contained the count in "
            f"{inside} of {len(estimates)}",
            0,
        ),
    ]


def _preview(http: httpx.Client, body: Json) -> tuple[dict[str, Any], float]:
    """Send the request; return the response body and the duration in seconds."""
    start = time.perf_counter()
    response = http.post("/v1/segments/preview", json=body).raise_for_status().json()
    return response, time.perf_counter() - start
