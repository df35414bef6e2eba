"""Definitions in motion: what is new is filled from the log, what is edited stays as it was until then."""

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
from tests.projection.test_project_against_reference import CAPS, DEFINITIONS, NOW, SMALL_CAPS, _crowd
from tests.support.pipeline import Pipeline, item, running_pipeline
from tests.support.reference_model import Definitions, SentMessage, customers, intervals, of_customer

T = 1_700_000_000_000_000
TODAY = T + 30 * DAY

NOTHING = Definitions(segments={}, journeys={"main": [("new", {"did": "*"})]})


def bought(number: int, user: str, days: int = 0, name: str = "bought", **properties: Any) -> dict[str, Any]:
    said = SentMessage(T + days * DAY, f"m{number}", "track", {"user_id": user}, name=name, properties=properties)
    return item(said)


async def base(one: Pipeline, users: int = 12) -> None:
    """Everybody bought once, every other one twice, and every third looked around."""
    await one.define(NOTHING)
    for number in range(users):
        messages = [bought(number * 10, f"u{number:02}", 1, total=number)]
        if number % 2:
            messages.append(bought(number * 10 + 1, f"u{number:02}", 2, total=5))
        if number % 3 == 0:
            messages.append(bought(number * 10 + 2, f"u{number:02}", 3, name="viewed"))
        await one.send(messages)


def views(one: Pipeline) -> SegmentMemberQueries:
    return SegmentMemberQueries(one.pool, one.registry, one.settings)


async def members(one: Pipeline, key: str) -> list[str]:
    """User ids, and that the count is as many."""
    page = await views(one).list_members(key, one.clock.now(), None, 1_000)
    assert await views(one).count_members(key, one.clock.now()) == len(page.items)
    return sorted(identity.value for each in page.items for identity in each.identities if identity.kind == "user_id")


async def of_customer_now(one: Pipeline, user: str) -> dict[str, int]:
    """Segments of a customer with since when, as the customer's own page tells."""
    ids = [identity.id for identity in parse_customer_reference(f"user_id:{user}", one.settings)]
    customer = await CustomerQueries(one.pool, one.registry, one.settings).customer(ids, one.clock.now())
    return {each.key: each.since for each in customer.segments}


async def states(one: Pipeline) -> list[Any]:
    """What every row holds, as far as it can be compared: not when it was last asked."""
    rows = await one.pool.fetch("SELECT id, state, revision FROM customers ORDER BY id")
    ruleset = one.registry.rules.current
    assert all(row["revision"] >= ruleset.fill for row in rows)
    return [(row["id"], comparable(read_state(row["state"], ruleset), ruleset)) for row in rows]


async def all_intervals(one: Pipeline) -> list[Any]:
    rows = await one.pool.fetch(
        "SELECT customer_id, definition, value, meaning, entered_at, left_at, entered_cause, left_cause"
        " FROM transitions WHERE retracted_at IS NULL ORDER BY 1, 2, 3, 4, 5"
    )
    return [tuple(row) for row in rows]


async def is_as_rebuilt(one: Pipeline) -> None:
    """A replay of every customer from the log changes nothing that is stored."""
    before = (await states(one), await all_intervals(one))
    await one.rebuild("")
    assert (await states(one), await all_intervals(one)) == before


TWICE = {"did": "bought", "at_least": 2}
DEAR = {"did": "bought", "where": {"total": {"gte": 5}}}


async def test_a_new_segment_is_answered_at_once_and_filled_in_chunks(database_url: str) -> None:
    """A worker that dies loses nothing: another goes on, and every answer on the way is the same."""
    async with running_pipeline(database_url, TODAY, fill_customers_max=5) as one:
        await base(one)
        await one.segment("twice", TWICE)
        expected = [f"u{number:02}" for number in range(1, 12, 2)]
        steps = 0
        while True:
            assert await members(one, "twice") == expected
            assert "twice" in await of_customer_now(one, "u01")
            assert "twice" not in await of_customer_now(one, "u00")
            another = Worker(one.pool, one.registry, one.settings, one.clock, one.metrics)
            if not await another.fill():
                break
            steps += 1
        assert steps == 3
        assert await views(one).count_unfilled() == 0
        await is_as_rebuilt(one)


async def test_a_fill_reads_only_what_its_rules_read(database_url: str) -> None:
    async with running_pipeline(database_url, TODAY) as one:
        await base(one)
        await one.segment("looked", {"did": "viewed"})
        async with one.pool.acquire() as connection, connection.transaction():
            filled = await backfill.fill_chunk(
                connection, one.registry.rules.current, backfill.START, 100, one.clock.now(), one.settings
            )
        assert (filled.customers, filled.touchpoints) == (12, 4)


async def test_what_fails_in_the_middle_of_a_chunk_leaves_nothing_behind(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after kill -9 between two statements."""
    async with running_pipeline(database_url, TODAY, fill_customers_max=5) as one:
        await base(one)
        await one.segment("twice", TWICE)
        assert await one.worker.fill() == 5
        before = await all_intervals(one)
        with monkeypatch.context() as patched:

            async def die(*_: Any) -> None:
                raise asyncio.CancelledError

            patched.setattr(backfill, "write_customers", die)
            with pytest.raises(asyncio.CancelledError):
                await one.worker.fill()
        assert await all_intervals(one) == before
        assert await views(one).count_unfilled() == 7
        one.worker = Worker(one.pool, one.registry, one.settings, one.clock, one.metrics)
        await one.sweep_all()
        await is_as_rebuilt(one)


async def test_an_edit_keeps_the_old_members_until_the_new_set_is_complete(database_url: str) -> None:
    """Every read on the way says one or the other for everybody, and the switch happens once."""
    async with running_pipeline(database_url, TODAY, fill_customers_max=5) as one:
        await base(one)
        await one.segment("chosen", TWICE)
        await one.segment("read", {"not": {"segment": "chosen"}})
        await one.sweep_all()
        old = [f"u{number:02}" for number in range(1, 12, 2)]
        new = [f"u{number:02}" for number in (1, 3, 5, 6, 7, 8, 9, 10, 11)]
        saved = await one.segment("chosen", DEAR, replace=True)
        assert saved.activated_at is None
        seen = []
        for _ in range(20):
            now = await members(one, "chosen")
            everybody = [f"u{number:02}" for number in range(12)]
            assert now in (old, new)
            assert sorted([*now, *await members(one, "read")]) == everybody
            for user in ("u01", "u06"):
                assert ("chosen" in await of_customer_now(one, user)) == (user in now)
            seen.append(now == new)
            if not await one.worker.fill():
                break
        assert seen == sorted(seen)
        assert seen[0] is False
        assert seen[-1] is True
        versions = await one.pool.fetch(
            "SELECT version, activated_at, superseded_at FROM definitions WHERE key = 'chosen' ORDER BY version"
        )
        assert [(version, activated is None, past is None) for version, activated, past in versions] == [
            (1, False, False),
            (2, False, True),
        ]
        meanings = {one.registry.rules.current.number_of[id] for id in ("segment:chosen", "segment:read")}
        stored = await one.pool.fetch(
            "SELECT DISTINCT meaning FROM transitions WHERE retracted_at IS NULL AND definition LIKE 'segment:%'"
        )
        assert {row["meaning"] for row in stored} == meanings
        await is_as_rebuilt(one)


async def test_the_switch_touches_no_customer(database_url: str) -> None:
    async with running_pipeline(database_url, TODAY) as one:
        await base(one)
        await one.segment("chosen", TWICE)
        await one.sweep_all()
        await one.segment("chosen", DEAR, replace=True)
        assert await one.worker.fill() == 12
        before = await one.pool.fetch("SELECT id, xmin::text FROM customers ORDER BY id")
        assert one.registry.rules.current.upcoming != {}
        await one.sweep_all()
        assert one.registry.rules.current.upcoming == {}
        assert await one.pool.fetch("SELECT id, xmin::text FROM customers ORDER BY id") == before


async def test_a_second_edit_takes_the_place_of_the_first(database_url: str) -> None:
    async with running_pipeline(database_url, TODAY, fill_customers_max=5) as one:
        await base(one)
        await one.segment("chosen", TWICE)
        await one.sweep_all()
        await one.segment("chosen", DEAR, replace=True)
        await one.worker.fill()
        await one.segment("chosen", {"did": "viewed"}, replace=True)
        await one.worker.fill()
        assert await members(one, "chosen") == [f"u{number:02}" for number in range(1, 12, 2)]
        await one.sweep_all()
        assert await members(one, "chosen") == ["u00", "u03", "u06", "u09"]
        await is_as_rebuilt(one)


async def test_an_edit_taken_back_is_current_at_once(database_url: str) -> None:
    async with running_pipeline(database_url, TODAY) as one:
        await base(one)
        await one.segment("chosen", TWICE)
        await one.sweep_all()
        await one.segment("chosen", DEAR, replace=True)
        saved = await one.segment("chosen", TWICE, replace=True)
        assert (saved.activated_at is None, saved.definition.version) == (False, 3)
        assert await one.worker.fill() == 0
        assert await members(one, "chosen") == [f"u{number:02}" for number in range(1, 12, 2)]


async def test_a_new_name_fills_nothing(database_url: str) -> None:
    """Nor do an owner, a note, or the archiving of another definition."""
    async with running_pipeline(database_url, TODAY) as one:
        await base(one)
        await one.segment("chosen", TWICE)
        await one.segment("other", DEAR)
        await one.sweep_all()
        before = await one.pool.fetch("SELECT id, xmin::text FROM customers ORDER BY id")
        saved = await one.segment("chosen", TWICE, replace=True, name="Another name")
        assert saved.activated_at is not None
        await one.registry.definitions.archive("segment", "other")
        assert await views(one).count_unfilled() == 0
        assert await members(one, "chosen") == [f"u{number:02}" for number in range(1, 12, 2)]
        await one.sweep_all()
        assert await one.pool.fetch("SELECT id, xmin::text FROM customers ORDER BY id") == before
        await one.send([bought(900, "u00", 4)])
        assert "u00" in await members(one, "chosen")
        await is_as_rebuilt(one)


async def test_archived_and_made_again(database_url: str) -> None:
    """What happened in between counts, although nobody followed it."""
    async with running_pipeline(database_url, TODAY) as one:
        await base(one)
        await one.segment("chosen", TWICE)
        await one.sweep_all()
        await one.registry.definitions.archive("segment", "chosen")
        await one.send([bought(900, "u00", 4)])
        await one.segment("chosen", TWICE)
        expected = sorted(["u00", *(f"u{number:02}" for number in range(1, 12, 2))])
        assert await members(one, "chosen") == expected
        await one.sweep_all()
        assert await members(one, "chosen") == expected
        await is_as_rebuilt(one)


async def test_messages_during_a_fill(database_url: str) -> None:
    """Live, late, of the future, merging, for customers that are filled and for those that are not yet."""
    async with running_pipeline(database_url, TODAY, fill_customers_max=5) as one:
        await base(one)
        await one.segment("chosen", TWICE)
        await one.sweep_all()
        await one.segment("chosen", DEAR, replace=True)
        await one.segment("new", {"did": "bought", "within": "31d", "at_least": 2})
        await one.worker.fill()
        for number in range(12):
            await one.send([bought(1_000 + number, f"u{number:02}", 20, total=7)])
            await one.send([bought(2_000 + number, f"u{number:02}", 0, total=1)])
        ahead = SentMessage(TODAY + HOUR, "ahead", "track", {"user_id": "u04"}, name="bought", properties={"total": 9})
        joined = SentMessage(T + DAY, "joined", "track", {"anonymous_id": "d1"}, name="bought", properties={"total": 3})
        await one.send([item(ahead), item(joined)])
        link = SentMessage(
            T + 25 * DAY, "link", "identify", {"user_id": "u05", "anonymous_id": "d1"}, traits={"plan": "gold"}
        )
        await one.send([item(link)])
        everybody = [f"u{number:02}" for number in range(12)]
        assert await members(one, "new") == everybody
        assert await members(one, "chosen") == everybody
        await one.sweep_all()
        assert await members(one, "new") == everybody
        assert await members(one, "chosen") == everybody
        await is_as_rebuilt(one)
        one.clock.instant = TODAY + 2 * HOUR
        await one.sweep_all()
        await is_as_rebuilt(one)


@pytest.mark.parametrize("seed", range(4))
async def test_any_definitions_one_after_the_other_while_messages_flow(database_url: str, seed: int) -> None:
    """The rows end as those of a rebuild, and as the naive reading of the whole list says."""
    draw = random.Random(seed)
    said, batches = _crowd(draw)
    prefix = "f-"
    async with running_pipeline(database_url, NOW, fill_customers_max=2, **SMALL_CAPS) as one:
        await one.define(Definitions(segments={}, journeys={}))
        wanted: list[tuple[str, str, Any]] = [
            *(("journey", key, rule) for key, rule in DEFINITIONS.journeys.items()),
            *(("segment", key, rule) for key, rule in DEFINITIONS.segments.items()),
        ]
        edited = {"big", "bought-lately", "main"}
        for kind, key, rule in wanted:
            if key in edited:
                other = {"did": "viewed"}
                await one.put(kind, key, [(stage, other) for stage, _ in rule] if kind == "journey" else other)
            else:
                await one.put(kind, key, rule)
            for _ in range(draw.randrange(3)):
                await one.worker.fill()
            if batches and draw.random() < 0.7:
                await one.send([item(said[index], prefix) for index in batches.pop(0)])
        await one.sweep_all()
        for kind, key, rule in wanted:
            if key in edited:
                await one.put(kind, key, rule, replace=True)
                if batches:
                    await one.send([item(said[index], prefix) for index in batches.pop(0)])
                await one.worker.fill()
        for batch in batches:
            await one.send([item(said[index], prefix) for index in batch])
            await one.worker.fill()
        await one.sweep_all()
        assert one.registry.rules.current.upcoming == {}
        for group in customers(said, CAPS):
            kind, _, value = sorted(group)[0].partition(":")
            own = of_customer(said, group)
            assert await one.intervals(f"{kind}:{prefix}{value}") == intervals(own, NOW, DEFINITIONS)
        await is_as_rebuilt(one)


async def test_progress_is_told(database_url: str) -> None:
    async with running_pipeline(database_url, TODAY, fill_customers_max=5) as one:
        await base(one)
        await one.segment("old", TWICE)
        await one.sweep_all()
        one.clock.instant += HOUR
        await one.segment("new", DEAR)
        told = await views(one).read_fill_progress("segment", "new")
        assert (told.customers_total, told.customers_filled, told.eta_seconds) == (12, 0, None)
        assert told.since is not None
        assert (await views(one).read_fill_progress("segment", "old")).customers_filled == 12
        await one.worker.fill()
        one.clock.instant += 2 * SECOND
        one.worker._fill_progress._reported_at = 0.0
        await one.worker.fill()
        told = await views(one).read_fill_progress("segment", "new")
        assert told.customers_filled == 10
        # Two chunks of five customers in the two seconds since the fill began: two customers are left.
        assert told.eta_seconds == pytest.approx(0.4)
        assert told.touchpoints_per_second == pytest.approx(15 / 2, abs=1.5)
        await one.sweep_all()
        assert (await views(one).read_fill_progress("segment", "new")).eta_seconds is None


async def test_other_settings_mean_other_rules(database_url: str) -> None:
    """The timezone is part of what a rule means: at the next start everybody is filled anew."""
    async with running_pipeline(database_url, TODAY) as one:
        await base(one)
        await one.segment("dated", {"did": "bought", "from": "2023-11-16"})
        await one.sweep_all()
    async with running_pipeline(database_url, TODAY, timezone="Asia/Tokyo") as one:
        assert await views(one).count_unfilled() == 12
        before = await members(one, "dated")
        await one.sweep_all()
        assert await members(one, "dated") == before
        await is_as_rebuilt(one)
        again = Registry(one.pool, one.settings)
        await again.load()
        assert again.rules.current.number_of == one.registry.rules.current.number_of


async def test_a_computed_trait_is_edited_like_any_definition(database_url: str) -> None:
    """Who reads it keeps the old members until everybody is filled."""
    limits = Limits()

    def spent(path: str) -> TraitIn:
        return parse_trait({"key": "spent", "name": "Spent", "value": {"sum": path, "of": "bought"}}, limits)

    async with running_pipeline(database_url, TODAY, fill_customers_max=5) as one:
        await base(one)
        await one.registry.definitions.define(spent("total"), replace=False)
        await one.segment("big", {"trait": "spent", "gte": 12})
        await one.sweep_all()
        old = ["u07", "u09", "u11"]
        assert await members(one, "big") == old
        saved, _ = await one.registry.definitions.define(spent("nothing"), replace=True)
        assert saved.activated_at is None
        assert (await views(one).read_fill_progress("trait", "spent")).customers_filled == 0
        await one.worker.fill()
        assert await members(one, "big") == old
        await one.sweep_all()
        assert await members(one, "big") == []
        await is_as_rebuilt(one)


def lot(kind: str, value: str, salt: str = "s") -> int:
    """0 to 99, as the documentation says, without the engine."""
    digest = hashlib.sha256(f"{salt}\0{kind}\0{value}".encode()).digest()
    return int.from_bytes(digest[:8]) % 100


async def test_lots_are_drawn_by_the_strongest_earliest_identity(database_url: str) -> None:
    """Whatever order the messages come in, and when a stronger or an earlier one turns up."""

    def seen(number: int, days: int, **ids: str) -> dict[str, Any]:
        return item(SentMessage(T + days * DAY, f"m{number}", "track", ids, name="viewed"))

    steps = [
        (seen(1, 5, anonymous_id="d1"), ("anonymous_id", "d1")),
        (seen(2, 6, anonymous_id="d1", email="b@example.com"), ("email", "b@example.com")),
        (seen(3, 7, anonymous_id="d1", email="a@example.com"), ("email", "b@example.com")),
        (seen(4, 1, email="a@example.com"), ("email", "a@example.com")),
        (seen(5, 8, email="a@example.com", user_id="u1"), ("user_id", "u1")),
    ]
    async with running_pipeline(database_url, TODAY) as one:
        await one.define(NOTHING)
        for tenth in range(10):
            await one.segment(f"lot{tenth}", {"bucket": [tenth * 10, tenth * 10 + 10], "salt": "s"})
        for message, (kind, value) in steps:
            await one.send([message])
            drawn = [tenth for tenth in range(10) if await views(one).count_members(f"lot{tenth}", TODAY)]
            assert drawn == [lot(kind, value) // 10]
            stored = await one.pool.fetchval("SELECT state FROM customers")
            assert read_state(stored, one.registry.rules.current).bucketing_key == (kind, value)
            await is_as_rebuilt(one)
        await one.segment("later", {"bucket": [0, 50], "salt": "t"})
        await one.sweep_all()
        assert await views(one).count_members("later", TODAY) == (lot("user_id", "u1", "t") < 50)
        await is_as_rebuilt(one)


async def test_the_worker_finds_its_customers_through_indexes(database_url: str) -> None:
    async with running_pipeline(database_url, TODAY) as one:
        await base(one)
        await one.segment("lately", {"did": "bought", "within": "60d"})
        await one.sweep_all()
        async with one.pool.acquire() as connection:
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


class Ticking:
    """Messages that keep coming, or do not."""

    def __init__(self) -> None:
        self.accepted = 0

    def __call__(self) -> int:
        return self.accepted


async def test_the_worker_leaves_live_work_its_share() -> None:
    ticking = Ticking()
    pacer = WorkPacer(ticking, 10, asyncio.Event())
    loop = asyncio.get_running_loop()

    async def step() -> int:
        ticking.accepted += 1
        await asyncio.sleep(0.02)
        return 1

    begun = loop.time()
    await pacer.take_turn(step)
    assert loop.time() - begun < 0.1
    begun = loop.time()
    await asyncio.gather(*(pacer.take_turn(step) for _ in range(3)))
    # Three turns of 0.02 s, each followed by a rest of nine times as long.
    assert loop.time() - begun >= 3 * 0.2


async def test_the_worker_runs_freely_when_nothing_arrives() -> None:
    pacer = WorkPacer(Ticking(), 10, asyncio.Event())
    loop = asyncio.get_running_loop()

    async def step() -> int:
        await asyncio.sleep(0.02)
        return 1

    begun = loop.time()
    for _ in range(5):
        await pacer.take_turn(step)
    assert loop.time() - begun < 0.5
