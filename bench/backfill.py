"""Over a large base: one message against asking everybody, filling a new segment, and asking about an unsaved one.

One base grows: (i) is measured when it has 100,000 customers, (m) and (n) when it has 200,000. Each has ten touchpoints
of a shop's events over the last 80 days; a few hundred of them sent these themselves, the others are copies.
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
from app.projection.coverage import coverage_of
from app.queries.customer_state import truth_of
from app.queries.segment_members import SegmentMemberQueries
from app.registry.bootstrap import FirstKeys
from app.touchpoint import derive_identity_id
from bench.dataset import Copy, Pipeline, browser_of, multiply, pipeline
from bench.processes import Server
from bench.result import Figure, Say
from bench.sample_messages import message
from bench.sample_rules import Json
from bench.testbed import Connection, Databases, databases, segue

DATABASE: Final = "base"
TOUCHPOINTS: Final = 10
DAYS: Final = 80
SEED: Final = 30
SEGMENT: Final = "bought-twice"
BOUGHT_TWICE: Final[Json] = {"did": "Order Completed", "at_least": 2, "within": "90d"}
ALL: Final[Json] = {"did": "*", "at_least": 5, "within": "45d"}
A_TENTH: Final[Json] = {"did": ["Order Completed", "Email Opened"], "within": "45d"}
"""Two of the twenty events of :mod:`bench.sample_messages`."""
VERIFIED: Final = 100
FILL_SECONDS_MAX: Final = 1_800.0
ANSWER_SECONDS_MAX: Final = 1_800.0


@dataclass(frozen=True)
class Sizes:
    patterns: int
    updated_among: int
    """Customers in (i)."""
    updates: int
    """Messages in each round of (i)."""
    rounds: int
    filled: int
    """Customers in (m) and (n)."""
    estimates: int


FULL: Final = Sizes(400, 100_000, 20, 3, 200_000, 5)
QUICK: Final = Sizes(40, 500, 3, 1, 2_000, 1)


def measure(wanted: Collection[str], sizes: Sizes, say: Say) -> list[Figure]:
    figures: list[Figure] = []
    with databases((DATABASE,)) as made:
        say("the base")
        keys, begun = asyncio.run(_begin(made, sizes, "i" in wanted, say))
        figures += begun
        if {"m", "n"} & set(wanted):
            say("the base, larger")
            asyncio.run(_grow(made, sizes, sizes.updated_among, sizes.filled))
            with segue(made, DATABASE) as server:
                figures += _over_http(made, server, keys, wanted, sizes, say)
    return figures


# --------------------------------------------------------------------------------------------------- the base


def _pattern(number: int) -> str:
    return f"pattern-{number:04}"


def _messages(sizes: Sizes) -> Iterator[Json]:
    """Of the customers who send for themselves, each in order."""
    chance = random.Random(SEED)
    now = datetime.now(UTC)
    for pattern in range(sizes.patterns):
        ages = sorted((timedelta(days=DAYS * chance.random()) for _ in range(TOUCHPOINTS)), reverse=True)
        for place, age in enumerate(ages):
            number = pattern * TOUCHPOINTS + place
            written = (now - age).isoformat(timespec="milliseconds")
            told = message(7 * number + chance.randrange(20), written)
            user = _pattern(pattern)
            yield {**told, "userId": user, "anonymousId": browser_of(user), "messageId": f"p-{number:06}"}


def _copies(sizes: Sizes, first: int, last: int) -> list[Copy]:
    return [Copy(n, _pattern(n % sizes.patterns), f"copy-{n:07}") for n in range(first, last)]


async def _grow(made: Databases, sizes: Sizes, first: int, last: int) -> None:
    await multiply(made.urls[DATABASE], _copies(sizes, first, last), log=True, browsers=True)


async def _begin(made: Databases, sizes: Sizes, measured: bool, say: Say) -> tuple[FirstKeys, list[Figure]]:
    """The smaller base, and (i)."""
    async with pipeline(made.urls[DATABASE]) as one:
        await one.define(SEGMENT, BOUGHT_TWICE)
        await one.send(list(_messages(sizes)))
        await _grow(made, sizes, sizes.patterns, sizes.updated_among)
        await _refuse_a_wrong_base(one)
        return one.keys, [await _update(one, sizes, say)] if measured else []


async def _refuse_a_wrong_base(one: Pipeline) -> None:
    """What is stored of the copies must be what a replay of their logs gives."""
    verified = await SegmentVerifier(one.pool, one.registry, one.settings, one.clock).verify_segment(SEGMENT, VERIFIED)
    if verified.differing or not verified.customers:
        raise RuntimeError(f"the base is not as the real code makes it: {verified}")


# ---------------------------------------------------------------------------------- (i): one message, or everybody


async def _update(one: Pipeline, sizes: Sizes, say: Say) -> Figure:
    """One message that makes a member, and the count read after it; against the count worked out anew."""
    views = SegmentMemberQueries(one.pool, one.registry, one.settings)
    about_to_join = iter(await _with_one_order(one, sizes, (1 + sizes.rounds) * sizes.updates))
    updates: list[float] = []
    recomputed: list[float] = []
    members = await views.count_members(SEGMENT, one.clock.now())
    for number in range(1 + sizes.rounds):
        say(f"one message, or everybody, {number} of {sizes.rounds}")
        took = []
        for _ in range(sizes.updates):
            seconds, found = await _one_more(one, views, next(about_to_join))
            if found != members + 1:
                raise RuntimeError(f"a message made {found - members} members, not 1")
            members = found
            took.append(seconds)
        if number:  # the first round prepares the statements
            updates.append(median(took))
            recomputed.append(await _everybody(one, members))
    async with snapshot(one.pool) as connection:
        customers = await count_customers(connection)
    return Figure(
        "i",
        f"one message and the count, over working the count out for {customers:,} customers",
        median(update / full for update, full in zip(updates, recomputed, strict=True)),
        "at most",
        1 / 500,
        f"{1000 * median(updates):.1f} ms, COMMIT included, over {1000 * median(recomputed):,.0f} ms, "
        f"which read only what the rule reads; {members:,} members",
        5,
    )


async def _with_one_order(one: Pipeline, sizes: Sizes, wanted: int) -> list[str]:
    """Copies that have ordered once: another order makes them members."""
    rows = await one.pool.fetch(
        "SELECT identity_id FROM touchpoints WHERE identity_id = ANY($1::uuid[]) AND name = 'Order Completed' "
        "GROUP BY identity_id HAVING count(*) = 1",
        [derive_identity_id("user_id", _pattern(number)) for number in range(sizes.patterns)],
    )
    ordered = {row["identity_id"] for row in rows}
    found = [
        copy.value
        for copy in _copies(sizes, sizes.patterns, sizes.updated_among)
        if derive_identity_id("user_id", copy.pattern) in ordered
    ]
    random.Random(SEED).shuffle(found)
    if len(found) < wanted:
        raise RuntimeError(f"only {len(found)} customers have ordered once")
    return found[:wanted]


async def _one_more(one: Pipeline, views: SegmentMemberQueries, user: str) -> tuple[float, int]:
    """(seconds, members after it)"""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    told = {**message(0, now), "event": "Order Completed", "userId": user, "anonymousId": browser_of(user)}
    start = time.perf_counter()
    await one.send([{**told, "messageId": f"order-of-{user}"}])
    members = await views.count_members(SEGMENT, one.clock.now())
    return time.perf_counter() - start, members


async def _everybody(one: Pipeline, expected: int) -> float:
    """Seconds to answer the same from the log, by the leaves of the rule alone."""
    rule_id = f"segment:{SEGMENT}"
    start = time.perf_counter()
    members = 0
    async with snapshot(one.pool) as connection:
        alone = coverage_of(await one.registry.rules.read(connection)).rules_for(rule_id)
        now = one.clock.now()
        async for ids in scan_customers(connection):
            folded = await fold_customers(connection, ids, alone, now)
            members += sum(truth_of(each.state, alone, rule_id).holds for each in folded.values())
    seconds = time.perf_counter() - start
    if members != expected:
        raise RuntimeError(f"the log says {members} members, the count says {expected}")
    return seconds


# --------------------------------------------------------------------- (m), (n): the server over the larger base


def _over_http(
    made: Databases, server: Server, keys: FirstKeys, wanted: Collection[str], sizes: Sizes, say: Say
) -> list[Figure]:
    figures: list[Figure] = []
    touchpoints = made.query(DATABASE, lambda connection: connection.fetchval("SELECT count(*) FROM touchpoints"))
    secret = {"Authorization": f"Bearer {keys.secret_key}"}
    with httpx.Client(base_url=server.url, headers=secret, timeout=ANSWER_SECONDS_MAX) as http:
        if "n" in wanted:
            figures += _previews(http, touchpoints, sizes, say)
        if "m" in wanted:
            figures += _fills(made, server, http, say)
    return figures


def _fills(made: Databases, server: Server, http: httpx.Client, say: Say) -> list[Figure]:
    """Two new segments one after the other, filled by the worker of a server that nobody asks anything else."""
    process = psutil.Process(server.pid)
    before = process.memory_info().rss / 1e6
    peak = before
    figures = []
    for key, rule, which in (("reads-all", ALL, "all touchpoints"), ("reads-a-tenth", A_TENTH, "a tenth of them")):
        say(f"fill of a segment that reads {which}")
        start = time.perf_counter()
        http.post("/v1/segments", json={"key": key, "rule": rule}).raise_for_status()
        while made.query(DATABASE, _is_unfilled):
            peak = max(peak, process.memory_info().rss / 1e6)
            if time.perf_counter() - start > FILL_SECONDS_MAX:
                raise RuntimeError("the segment was not filled in time")
            time.sleep(0.1)
        waited = time.perf_counter() - start
        _refuse_a_wrong_fill(http, key)
        touchpoints, customers, seconds = made.query(DATABASE, _filled)
        figures.append(
            Figure(
                "m",
                f"touchpoints/s read to fill a new segment that reads {which}",
                touchpoints / seconds,
                "at least",
                40_000,
                f"{touchpoints:,} of {customers:,} customers in {seconds:.1f} s, "
                f"{customers / seconds:,.0f} customers/s; {waited:.1f} s after the segment was saved",
                0,
            )
        )
    after = process.memory_info().rss / 1e6
    detail = f"{before:.0f} MB before, {after:.0f} MB after, {peak:.0f} MB at most"
    return [
        *figures,
        Figure("m", "MB that the server grew by meanwhile, at its peak", peak - before, "at most", 50, detail),
    ]


_TARGET: Final = "(SELECT max(number) FROM rule_numbers)"


async def _is_unfilled(connection: Connection) -> bool:
    unfilled: bool = await connection.fetchval(
        f"SELECT EXISTS (SELECT FROM customers WHERE revision < {_TARGET}) "
        f"OR NOT EXISTS (SELECT FROM fills WHERE target = {_TARGET})"
    )
    return unfilled


async def _filled(connection: Connection) -> tuple[int, int, float]:
    """Touchpoints, customers and seconds, as the worker has written them down at the end."""
    for _ in range(50):
        row = await connection.fetchrow(
            "SELECT touchpoints, customers, extract(epoch FROM updated_at - begun_at)::float8, "
            f"customers >= (SELECT count(*) FROM customers) FROM fills WHERE target = {_TARGET}"
        )
        assert row is not None
        touchpoints, customers, seconds, is_all = row
        if is_all:
            return touchpoints, customers, seconds
        await asyncio.sleep(0.1)
    raise RuntimeError("the worker did not write down all that it filled")


def _refuse_a_wrong_fill(http: httpx.Client, key: str) -> None:
    found = http.post(f"/v1/segments/{key}/verify", json={"sample": VERIFIED}).raise_for_status().json()
    if found["differing"] or not found["members"]:
        raise RuntimeError(f"the fill is not what the log says: {found}")


def _previews(http: httpx.Client, touchpoints: int, sizes: Sizes, say: Say) -> list[Figure]:
    say("preview of a rule")
    exact, seconds = _asked(http, {"rule": ALL, "sample": 10})
    if not exact["exact"]:
        raise RuntimeError(f"a preview without a time limit must be exact: {exact}")
    say("estimates in 500 ms")
    estimates = [_asked(http, {"rule": ALL, "sample": 10, "within_ms": 500}) for _ in range(sizes.estimates)]
    inside = sum(found["low"] <= exact["count"] <= found["high"] for found, _ in estimates)
    looked = median(found["customers_scanned"] for found, _ in estimates)
    slowest = max(took for _, took in estimates)
    return [
        Figure(
            "n",
            "touchpoints/s read to preview a rule that reads all of them",
            touchpoints / seconds,
            "at least",
            None,
            f"{touchpoints:,} of {exact['customers_total']:,} customers in {seconds:.1f} s, {exact['count']:,} found",
            0,
        ),
        Figure(
            "n",
            "ms of its estimate with within_ms=500",
            1000 * median(took for _, took in estimates),
            "at most",
            None,
            f"slowest {1000 * slowest:.0f} ms; {looked:,.0f} customers looked at; the interval held the count in "
            f"{inside} of {len(estimates)}",
            0,
        ),
    ]


def _asked(http: httpx.Client, question: Json) -> tuple[dict[str, Any], float]:
    """(answer, seconds)"""
    start = time.perf_counter()
    answer = http.post("/v1/segments/preview", json=question).raise_for_status().json()
    return answer, time.perf_counter() - start
