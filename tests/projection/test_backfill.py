"""Backfill of new and edited definitions; an edited definition keeps its old members until it is backfilled."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from typing import Any

import pytest

from app.background import worker
from app.background.pacing import WorkPacer
from app.background.worker import Worker
from app.config import Limits
from app.formats.identifiers import parse_customer_reference
from app.projection import backfill
from app.projection.rebuild import comparable
from app.projection.state import read_state
from app.queries.customers import CustomerQueries
from app.queries.segment_members import SegmentMemberQueries
from app.registry.registry import Registry
from app.rules.language.definitions import TraitIn, parse_trait
from app.touchpoint import DAY, HOUR, SECOND
from tests.projection.test_project_against_reference import (
    CAPS,
    DEFINITIONS,
    NOW,
    SMALL_CAPS,
    random_delivery,
    send_as_claimed,
)
from tests.support.pipeline import Pipeline, item, running_pipeline
from tests.support.reference_model import Definitions, SentMessage, customers, intervals, of_customer

T = 1_700_000_000_000_000
TODAY = T + 30 * DAY

NO_SEGMENTS = Definitions(segments={}, journeys={"main": [("new", {"did": "*"})]})


def bought(number: int, user: str, days: int = 0, name: str = "bought", **properties: Any) -> dict[str, Any]:
    message = SentMessage(T + days * DAY, f"m{number}", "track", {"user_id": user}, name=name, properties=properties)
    return item(message)


async def send_purchases(pipeline: Pipeline, users: int = 12) -> None:
    """Send purchases: every user bought once and every second user twice. Every third user viewed a product."""
    await pipeline.define(NO_SEGMENTS)
    for number in range(users):
        messages = [bought(number * 10, f"u{number:02}", 1, total=number)]
        if number % 2:
            messages.append(bought(number * 10 + 1, f"u{number:02}", 2, total=5))
        if number % 3 == 0:
            messages.append(bought(number * 10 + 2, f"u{number:02}", 3, name="viewed"))
        await pipeline.send(messages)


def segment_queries(pipeline: Pipeline) -> SegmentMemberQueries:
    return SegmentMemberQueries(pipeline.pool, pipeline.registry, pipeline.settings)


async def members(pipeline: Pipeline, key: str) -> list[str]:
    """Return the user ids of the members. Check that the count equals their number."""
    page = await segment_queries(pipeline).list_members(key, pipeline.clock.now(), None, 1_000)
    assert await segment_queries(pipeline).count_members(key, pipeline.clock.now()) == len(page.items)
    return sorted(
        identity.value for member in page.items for identity in member.identities if identity.kind == "user_id"
    )


async def segments_of(pipeline: Pipeline, user: str) -> dict[str, int]:
    """Return the segments of a customer and the start of each membership, as the customer's own query returns them."""
    ids = [identity.id for identity in parse_customer_reference(f"user_id:{user}", pipeline.settings)]
    customer = await CustomerQueries(pipeline.pool, pipeline.registry, pipeline.settings).customer(
        ids, pipeline.clock.now()
    )
    return {segment.key: segment.since for segment in customer.segments}


async def read_states(pipeline: Pipeline) -> list[Any]:
    """Return the state of every customer in a form that can be compared. All customers must be backfilled."""
    rows = await pipeline.pool.fetch("SELECT id, state, revision FROM customers ORDER BY id")
    ruleset = pipeline.registry.rules.current
    assert all(row["revision"] >= ruleset.fill for row in rows)
    return [(row["id"], comparable(read_state(row["state"], ruleset), ruleset)) for row in rows]


async def read_intervals(pipeline: Pipeline) -> list[Any]:
    rows = await pipeline.pool.fetch(
        "SELECT customer_id, definition, value, meaning, entered_at, left_at, entered_cause, left_cause"
        " FROM transitions WHERE retracted_at IS NULL ORDER BY 1, 2, 3, 4, 5"
    )
    return [tuple(row) for row in rows]


async def check_rebuild_changes_nothing(pipeline: Pipeline) -> None:
    """Replay every customer from the log. Check that states and intervals stay the same."""
    before = (await read_states(pipeline), await read_intervals(pipeline))
    await pipeline.rebuild("")
    assert (await read_states(pipeline), await read_intervals(pipeline)) == before


BOUGHT_TWICE = {"did": "bought", "at_least": 2}
EXPENSIVE = {"did": "bought", "where": {"total": {"gte": 5}}}


async def test_new_segment_is_exact_during_its_backfill(database_url: str) -> None:
    """Each chunk runs in a new worker, as after a crash. All reads return the same result throughout."""
    async with running_pipeline(database_url, TODAY, fill_customers_max=5) as pipeline:
        await send_purchases(pipeline)
        await pipeline.segment("twice", BOUGHT_TWICE)
        expected = [f"u{number:02}" for number in range(1, 12, 2)]
        steps = 0
        while True:
            assert await members(pipeline, "twice") == expected
            assert "twice" in await segments_of(pipeline, "u01")
            assert "twice" not in await segments_of(pipeline, "u00")
            restarted = Worker(pipeline.pool, pipeline.registry, pipeline.settings, pipeline.clock, pipeline.metrics)
            if not await restarted.fill():
                break
            steps += 1
        assert steps == 3
        assert await segment_queries(pipeline).count_unfilled() == 0
        await check_rebuild_changes_nothing(pipeline)


async def test_backfill_reads_only_matching_touchpoints(database_url: str) -> None:
    async with running_pipeline(database_url, TODAY) as pipeline:
        await send_purchases(pipeline)
        await pipeline.segment("looked", {"did": "viewed"})
        async with pipeline.pool.acquire() as connection, connection.transaction():
            filled = await backfill.fill_chunk(
                connection,
                pipeline.registry.rules.current,
                backfill.START,
                100,
                pipeline.clock.now(),
                pipeline.settings,
            )
        assert (filled.customers, filled.touchpoints) == (12, 4)


async def test_failed_chunk_is_rolled_back(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure has the same effect as kill -9 between two statements."""
    async with running_pipeline(database_url, TODAY, fill_customers_max=5) as pipeline:
        await send_purchases(pipeline)
        await pipeline.segment("twice", BOUGHT_TWICE)
        assert await pipeline.worker.fill() == 5
        before = await read_intervals(pipeline)
        with monkeypatch.context() as patched:

            async def die(*_: Any) -> None:
                raise asyncio.CancelledError

            patched.setattr(backfill, "write_customers", die)
            with pytest.raises(asyncio.CancelledError):
                await pipeline.worker.fill()
        assert await read_intervals(pipeline) == before
        assert await segment_queries(pipeline).count_unfilled() == 7
        pipeline.worker = Worker(pipeline.pool, pipeline.registry, pipeline.settings, pipeline.clock, pipeline.metrics)
        await pipeline.sweep_all()
        await check_rebuild_changes_nothing(pipeline)


async def test_edited_segment_keeps_old_members_until_backfilled(database_url: str) -> None:
    """During the backfill, every read uses one version for all customers.

    The switch to the new version happens once.
    """
    async with running_pipeline(database_url, TODAY, fill_customers_max=5) as pipeline:
        await send_purchases(pipeline)
        await pipeline.segment("chosen", BOUGHT_TWICE)
        await pipeline.segment("read", {"not": {"segment": "chosen"}})
        await pipeline.sweep_all()
        old = [f"u{number:02}" for number in range(1, 12, 2)]
        new = [f"u{number:02}" for number in (1, 3, 5, 6, 7, 8, 9, 10, 11)]
        saved = await pipeline.segment("chosen", EXPENSIVE, replace=True)
        assert saved.activated_at is None
        is_switched = []
        for _ in range(20):
            current = await members(pipeline, "chosen")
            all_users = [f"u{number:02}" for number in range(12)]
            assert current in (old, new)
            assert sorted([*current, *await members(pipeline, "read")]) == all_users
            for user in ("u01", "u06"):
                assert ("chosen" in await segments_of(pipeline, user)) == (user in current)
            is_switched.append(current == new)
            if not await pipeline.worker.fill():
                break
        assert is_switched == sorted(is_switched)
        assert is_switched[0] is False
        assert is_switched[-1] is True
        versions = await pipeline.pool.fetch(
            "SELECT version, activated_at, superseded_at FROM definitions WHERE key = 'chosen' ORDER BY version"
        )
        assert [(version, activated is None, superseded is None) for version, activated, superseded in versions] == [
            (1, False, False),
            (2, False, True),
        ]
        meanings = {pipeline.registry.rules.current.number_of[id] for id in ("segment:chosen", "segment:read")}
        stored = await pipeline.pool.fetch(
            "SELECT DISTINCT meaning FROM transitions WHERE retracted_at IS NULL AND definition LIKE 'segment:%'"
        )
        assert {row["meaning"] for row in stored} == meanings
        await check_rebuild_changes_nothing(pipeline)


async def test_activation_writes_no_customer(database_url: str) -> None:
    async with running_pipeline(database_url, TODAY) as pipeline:
        await send_purchases(pipeline)
        await pipeline.segment("chosen", BOUGHT_TWICE)
        await pipeline.sweep_all()
        await pipeline.segment("chosen", EXPENSIVE, replace=True)
        assert await pipeline.worker.fill() == 12
        before = await pipeline.pool.fetch("SELECT id, xmin::text FROM customers ORDER BY id")
        assert pipeline.registry.rules.current.upcoming != {}
        await pipeline.sweep_all()
        assert pipeline.registry.rules.current.upcoming == {}
        assert await pipeline.pool.fetch("SELECT id, xmin::text FROM customers ORDER BY id") == before


async def test_second_edit_replaces_the_first(database_url: str) -> None:
    async with running_pipeline(database_url, TODAY, fill_customers_max=5) as pipeline:
        await send_purchases(pipeline)
        await pipeline.segment("chosen", BOUGHT_TWICE)
        await pipeline.sweep_all()
        await pipeline.segment("chosen", EXPENSIVE, replace=True)
        await pipeline.worker.fill()
        await pipeline.segment("chosen", {"did": "viewed"}, replace=True)
        await pipeline.worker.fill()
        assert await members(pipeline, "chosen") == [f"u{number:02}" for number in range(1, 12, 2)]
        await pipeline.sweep_all()
        assert await members(pipeline, "chosen") == ["u00", "u03", "u06", "u09"]
        await check_rebuild_changes_nothing(pipeline)


async def test_reverted_edit_is_current_at_once(database_url: str) -> None:
    async with running_pipeline(database_url, TODAY) as pipeline:
        await send_purchases(pipeline)
        await pipeline.segment("chosen", BOUGHT_TWICE)
        await pipeline.sweep_all()
        await pipeline.segment("chosen", EXPENSIVE, replace=True)
        saved = await pipeline.segment("chosen", BOUGHT_TWICE, replace=True)
        assert (saved.activated_at is None, saved.definition.version) == (False, 3)
        assert await pipeline.worker.fill() == 0
        assert await members(pipeline, "chosen") == [f"u{number:02}" for number in range(1, 12, 2)]


async def test_rename_needs_no_backfill(database_url: str) -> None:
    """Archiving another definition needs no backfill either."""
    async with running_pipeline(database_url, TODAY) as pipeline:
        await send_purchases(pipeline)
        await pipeline.segment("chosen", BOUGHT_TWICE)
        await pipeline.segment("other", EXPENSIVE)
        await pipeline.sweep_all()
        before = await pipeline.pool.fetch("SELECT id, xmin::text FROM customers ORDER BY id")
        saved = await pipeline.segment("chosen", BOUGHT_TWICE, replace=True, name="Another name")
        assert saved.activated_at is not None
        await pipeline.registry.definitions.archive("segment", "other")
        assert await segment_queries(pipeline).count_unfilled() == 0
        assert await members(pipeline, "chosen") == [f"u{number:02}" for number in range(1, 12, 2)]
        await pipeline.sweep_all()
        assert await pipeline.pool.fetch("SELECT id, xmin::text FROM customers ORDER BY id") == before
        await pipeline.send([bought(900, "u00", 4)])
        assert "u00" in await members(pipeline, "chosen")
        await check_rebuild_changes_nothing(pipeline)


async def test_recreated_segment_includes_messages_sent_while_archived(database_url: str) -> None:
    """Messages that were sent while the segment was archived are counted when it is defined again."""
    async with running_pipeline(database_url, TODAY) as pipeline:
        await send_purchases(pipeline)
        await pipeline.segment("chosen", BOUGHT_TWICE)
        await pipeline.sweep_all()
        await pipeline.registry.definitions.archive("segment", "chosen")
        await pipeline.send([bought(900, "u00", 4)])
        await pipeline.segment("chosen", BOUGHT_TWICE)
        expected = sorted(["u00", *(f"u{number:02}" for number in range(1, 12, 2))])
        assert await members(pipeline, "chosen") == expected
        await pipeline.sweep_all()
        assert await members(pipeline, "chosen") == expected
        await check_rebuild_changes_nothing(pipeline)


async def test_messages_during_backfill_are_included(database_url: str) -> None:
    """Live, late, future and merging messages arrive for customers before and after their backfill."""
    async with running_pipeline(database_url, TODAY, fill_customers_max=5) as pipeline:
        await send_purchases(pipeline)
        await pipeline.segment("chosen", BOUGHT_TWICE)
        await pipeline.sweep_all()
        await pipeline.segment("chosen", EXPENSIVE, replace=True)
        await pipeline.segment("new", {"did": "bought", "within": "31d", "at_least": 2})
        await pipeline.worker.fill()
        for number in range(12):
            await pipeline.send([bought(1_000 + number, f"u{number:02}", 20, total=7)])
            await pipeline.send([bought(2_000 + number, f"u{number:02}", 0, total=1)])
        future = SentMessage(TODAY + HOUR, "ahead", "track", {"user_id": "u04"}, name="bought", properties={"total": 9})
        anonymous = SentMessage(
            T + DAY, "joined", "track", {"anonymous_id": "d1"}, name="bought", properties={"total": 3}
        )
        await pipeline.send([item(future), item(anonymous)])
        link = SentMessage(
            T + 25 * DAY, "link", "identify", {"user_id": "u05", "anonymous_id": "d1"}, traits={"plan": "gold"}
        )
        await pipeline.send([item(link)])
        all_users = [f"u{number:02}" for number in range(12)]
        assert await members(pipeline, "new") == all_users
        assert await members(pipeline, "chosen") == all_users
        await pipeline.sweep_all()
        assert await members(pipeline, "new") == all_users
        assert await members(pipeline, "chosen") == all_users
        await check_rebuild_changes_nothing(pipeline)
        pipeline.clock.instant = TODAY + 2 * HOUR
        await pipeline.sweep_all()
        await check_rebuild_changes_nothing(pipeline)


@pytest.mark.parametrize("seed", range(4))
async def test_definition_changes_between_messages_match_the_reference(database_url: str, seed: int) -> None:
    """The customers equal those of a rebuild, and those of the reference model over all messages."""
    rng = random.Random(seed)
    messages, batches = random_delivery(rng)
    prefix = "f-"
    async with running_pipeline(database_url, NOW, fill_customers_max=2, **SMALL_CAPS) as pipeline:
        await pipeline.define(Definitions(segments={}, journeys={}))
        definitions: list[tuple[str, str, Any]] = [
            *(("journey", key, rule) for key, rule in DEFINITIONS.journeys.items()),
            *(("segment", key, rule) for key, rule in DEFINITIONS.segments.items()),
        ]
        edited = {"big", "bought-lately", "main"}
        for kind, key, rule in definitions:
            if key in edited:
                other = {"did": "viewed"}
                await pipeline.put(kind, key, [(stage, other) for stage, _ in rule] if kind == "journey" else other)
            else:
                await pipeline.put(kind, key, rule)
            for _ in range(rng.randrange(3)):
                await pipeline.worker.fill()
            if batches and rng.random() < 0.7:
                await send_as_claimed(pipeline, [messages[index] for index in batches.pop(0)], prefix)
        await pipeline.sweep_all()
        for kind, key, rule in definitions:
            if key in edited:
                await pipeline.put(kind, key, rule, replace=True)
                if batches:
                    await send_as_claimed(pipeline, [messages[index] for index in batches.pop(0)], prefix)
                await pipeline.worker.fill()
        for batch in batches:
            await send_as_claimed(pipeline, [messages[index] for index in batch], prefix)
            await pipeline.worker.fill()
        await pipeline.sweep_all()
        assert pipeline.registry.rules.current.upcoming == {}
        for group in customers(messages, CAPS):
            kind, _, value = sorted(group)[0].partition(":")
            own = of_customer(messages, group)
            assert await pipeline.intervals(f"{kind}:{prefix}{value}") == intervals(own, NOW, DEFINITIONS)
        await check_rebuild_changes_nothing(pipeline)


async def test_backfill_progress_reports_speed_and_remaining_time(database_url: str) -> None:
    async with running_pipeline(database_url, TODAY, fill_customers_max=5) as pipeline:
        await send_purchases(pipeline)
        await pipeline.segment("old", BOUGHT_TWICE)
        await pipeline.sweep_all()
        pipeline.clock.instant += HOUR
        await pipeline.segment("new", EXPENSIVE)
        progress = await segment_queries(pipeline).read_fill_progress("segment", "new")
        assert (progress.customers_total, progress.customers_filled, progress.eta_seconds) == (12, 0, None)
        assert progress.since is not None
        assert (await segment_queries(pipeline).read_fill_progress("segment", "old")).customers_filled == 12
        await pipeline.worker.fill()
        pipeline.clock.instant += 2 * SECOND
        pipeline.worker._fill_progress._reported_at = 0.0
        await pipeline.worker.fill()
        progress = await segment_queries(pipeline).read_fill_progress("segment", "new")
        assert progress.customers_filled == 10
        # The worker filled two chunks of five customers in two seconds; two customers are left.
        assert progress.eta_seconds == pytest.approx(0.4)
        assert progress.touchpoints_per_second == pytest.approx(15 / 2, abs=1.5)
        await pipeline.sweep_all()
        assert (await segment_queries(pipeline).read_fill_progress("segment", "new")).eta_seconds is None


async def test_timezone_change_requires_a_backfill(database_url: str) -> None:
    """The timezone changes the meaning of a rule, so the next start backfills all customers."""
    async with running_pipeline(database_url, TODAY) as pipeline:
        await send_purchases(pipeline)
        await pipeline.segment("dated", {"did": "bought", "from": "2023-11-16"})
        await pipeline.sweep_all()
    async with running_pipeline(database_url, TODAY, timezone="Asia/Tokyo") as pipeline:
        assert await segment_queries(pipeline).count_unfilled() == 12
        before = await members(pipeline, "dated")
        await pipeline.sweep_all()
        assert await members(pipeline, "dated") == before
        await check_rebuild_changes_nothing(pipeline)
        reloaded = Registry(pipeline.pool, pipeline.settings)
        await reloaded.load()
        assert reloaded.rules.current.number_of == pipeline.registry.rules.current.number_of


async def test_edited_computed_trait_keeps_old_members_until_backfilled(database_url: str) -> None:
    """A segment that reads the trait keeps its old members too, until all customers are backfilled."""
    limits = Limits()

    def spent(path: str) -> TraitIn:
        return parse_trait({"key": "spent", "name": "Spent", "value": {"sum": path, "of": "bought"}}, limits)

    async with running_pipeline(database_url, TODAY, fill_customers_max=5) as pipeline:
        await send_purchases(pipeline)
        await pipeline.registry.definitions.define(spent("total"), replace=False)
        await pipeline.segment("big", {"trait": "spent", "gte": 12})
        await pipeline.sweep_all()
        old = ["u07", "u09", "u11"]
        assert await members(pipeline, "big") == old
        saved, _ = await pipeline.registry.definitions.define(spent("nothing"), replace=True)
        assert saved.activated_at is None
        assert (await segment_queries(pipeline).read_fill_progress("trait", "spent")).customers_filled == 0
        await pipeline.worker.fill()
        assert await members(pipeline, "big") == old
        await pipeline.sweep_all()
        assert await members(pipeline, "big") == []
        await check_rebuild_changes_nothing(pipeline)


def bucket(kind: str, value: str, salt: str = "s") -> int:
    """Return the bucket of an identity, 0 to 99, by the documented formula."""
    digest = hashlib.sha256(f"{salt}\0{kind}\0{value}".encode()).digest()
    return int.from_bytes(digest[:8]) % 100


async def test_bucket_depends_on_the_strongest_earliest_identity(database_url: str) -> None:
    """The bucket changes when a stronger or an earlier identity appears. Arrival order does not matter."""

    def viewed(number: int, days: int, **ids: str) -> dict[str, Any]:
        return item(SentMessage(T + days * DAY, f"m{number}", "track", ids, name="viewed"))

    steps = [
        (viewed(1, 5, anonymous_id="d1"), ("anonymous_id", "d1")),
        (viewed(2, 6, anonymous_id="d1", email="b@example.com"), ("email", "b@example.com")),
        (viewed(3, 7, anonymous_id="d1", email="a@example.com"), ("email", "b@example.com")),
        (viewed(4, 1, email="a@example.com"), ("email", "a@example.com")),
        (viewed(5, 8, email="a@example.com", user_id="u1"), ("user_id", "u1")),
    ]
    async with running_pipeline(database_url, TODAY) as pipeline:
        await pipeline.define(NO_SEGMENTS)
        for tenth in range(10):
            await pipeline.segment(f"lot{tenth}", {"bucket": [tenth * 10, tenth * 10 + 10], "salt": "s"})
        for message, (kind, value) in steps:
            await pipeline.send([message])
            members_of = [
                tenth for tenth in range(10) if await segment_queries(pipeline).count_members(f"lot{tenth}", TODAY)
            ]
            assert members_of == [bucket(kind, value) // 10]
            stored = await pipeline.pool.fetchval("SELECT state FROM customers")
            assert read_state(stored, pipeline.registry.rules.current).bucketing_key == (kind, value)
            await check_rebuild_changes_nothing(pipeline)
        await pipeline.segment("later", {"bucket": [0, 50], "salt": "t"})
        await pipeline.sweep_all()
        assert await segment_queries(pipeline).count_members("later", TODAY) == (bucket("user_id", "u1", "t") < 50)
        await check_rebuild_changes_nothing(pipeline)


async def test_worker_finds_customers_through_indexes(database_url: str) -> None:
    async with running_pipeline(database_url, TODAY) as pipeline:
        await send_purchases(pipeline)
        await pipeline.segment("lately", {"did": "bought", "within": "60d"})
        await pipeline.sweep_all()
        async with pipeline.pool.acquire() as connection:
            await connection.execute("VACUUM (ANALYZE) customers")
            for query, arguments, index in (
                (worker._DUE, (TODAY, 10), "customers_due"),
                (worker._COUNT_DUE, (TODAY,), "customers_due"),
                (backfill._CLAIM, (1, *backfill.START, 10), "customers_to_fill"),
            ):
                plan = json.dumps(json.loads(await connection.fetchval("EXPLAIN (FORMAT JSON) " + query, *arguments)))
                assert index in plan
                assert "Seq Scan" not in plan
                assert ("Index Only Scan" in plan) == (index == "customers_due")


class AcceptedCounter:
    """Counter of accepted messages, which simulates live traffic."""

    def __init__(self) -> None:
        self.accepted = 0

    def __call__(self) -> int:
        return self.accepted


async def test_worker_rests_while_messages_arrive() -> None:
    counter = AcceptedCounter()
    pacer = WorkPacer(counter, 10, asyncio.Event())
    loop = asyncio.get_running_loop()

    async def step() -> int:
        counter.accepted += 100
        await asyncio.sleep(0.02)
        return 1

    start = loop.time()
    await pacer.take_turn(step)
    assert loop.time() - start < 0.1
    start = loop.time()
    await asyncio.gather(*(pacer.take_turn(step) for _ in range(3)))
    # Three steps take 0.02 s each, and each is followed by a rest nine times as long.
    assert loop.time() - start >= 3 * 0.2


async def test_worker_does_not_rest_while_few_messages_arrive() -> None:
    counter = AcceptedCounter()
    pacer = WorkPacer(counter, 10, asyncio.Event())
    loop = asyncio.get_running_loop()

    async def step() -> int:
        counter.accepted += 1
        await asyncio.sleep(0.02)
        return 1

    start = loop.time()
    for _ in range(5):
        await pacer.take_turn(step)
    assert loop.time() - start < 0.5
