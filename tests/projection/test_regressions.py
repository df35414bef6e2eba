"""Regression tests: scenarios that once failed, or that a review found risky."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest

from app.background import worker
from app.errors import Rejection, RejectionCode
from app.formats.segment import Parsed
from app.ingest.pending_request import PendingRequest
from app.postgres.pool import Connection
from app.projection import project as project_module
from app.projection import replays
from app.projection.backfill import fill_chunk
from app.projection.log_replay import replay_log
from app.projection.rebuild import rebuild_customers
from app.touchpoint import DAY, HOUR, Identity, Message
from tests.support.pipeline import Pipeline, item, running_pipeline
from tests.support.reference_model import Definitions, SentMessage

T0 = 1_700_000_000_000_000
NOW = T0 + 40 * DAY

STAGES = [("awareness", {"did": "*"}), ("purchase", {"did": "bought"})]
DEFINITIONS = Definitions(segments={"lately": {"did": "bought", "within": "5d"}}, journeys={"main": STAGES})


def track(number: int, t: int, user: str = "u1", name: str = "bought", **ids: str) -> SentMessage:
    return SentMessage(t, f"m{number:05}", "track", {"user_id": user, **ids}, name=name)


def run_scenario(
    database_url: str,
    check: Callable[[Pipeline], Awaitable[None]],
    definitions: Definitions = DEFINITIONS,
    now: int = NOW,
    **settings: Any,
) -> None:
    async def run() -> None:
        async with running_pipeline(database_url, now, **settings) as pipeline:
            await pipeline.define(definitions)
            await asyncio.wait_for(check(pipeline), 60)

    asyncio.run(run())


async def count_differing(pipeline: Pipeline) -> int:
    """Rebuild all customers and return the number of those that differed from their log."""
    return await rebuild_customers(pipeline.pool, pipeline.registry.rules.current, pipeline.clock, pipeline.settings)


async def stored_intervals(pipeline: Pipeline) -> set[tuple[Any, ...]]:
    rows = await pipeline.pool.fetch(
        "SELECT definition, value, entered_at, left_at, entered_cause, left_cause FROM transitions "
        "WHERE retracted_at IS NULL"
    )
    return {tuple(row) for row in rows}


# ----------------------------------------------------------------------------------------------- fold


@pytest.mark.parametrize("batches", [[8], [5, 3], [1] * 8])
def test_series_overflow_within_one_flush_is_exact(database_url: str, batches: list[int]) -> None:
    definitions = Definitions(segments={"six": {"did": "bought", "at_least": 6, "within": "30d"}}, journeys={})

    async def check(pipeline: Pipeline) -> None:
        messages = [track(number, NOW - (10 - number) * HOUR) for number in range(8)]
        for size in batches:
            batch, messages = messages[:size], messages[size:]
            await pipeline.send([item(message) for message in batch])
        assert ("segment:six", "", NOW - 5 * HOUR, None) in await pipeline.intervals("user_id:u1")

    run_scenario(database_url, check, definitions, series_points_max=4)


def test_transition_cause_is_independent_of_arrival_order(database_url: str) -> None:
    """If two purchases have one instant, the later one in order is the cause, even if it arrives first."""

    async def check(pipeline: Pipeline) -> None:
        await pipeline.send([item(track(1, T0))])
        await pipeline.send([item(track(2, T0))])
        one_by_one = await stored_intervals(pipeline)
        assert await count_differing(pipeline) == 0
        assert await stored_intervals(pipeline) == one_by_one
        await pipeline.pool.execute("TRUNCATE ledger, touchpoints, identities, links, customers, transitions")
        await pipeline.send([item(track(1, T0)), item(track(2, T0))])
        assert await stored_intervals(pipeline) == one_by_one

    run_scenario(database_url, check)


def test_message_that_no_rule_reads_is_not_a_cause(database_url: str) -> None:
    """A purchase leaves its window at the instant of an irrelevant message. The cause is time, live and in a replay."""
    without_journeys = Definitions(segments=DEFINITIONS.segments, journeys={})

    async def check(pipeline: Pipeline) -> None:
        await pipeline.send([item(track(1, T0))])
        await pipeline.send([item(track(2, T0 + 5 * DAY, name="other"))])
        live = await stored_intervals(pipeline)
        await pipeline.pool.execute("TRUNCATE ledger, touchpoints, identities, links, customers, transitions")
        await pipeline.send([item(track(1, T0)), item(track(2, T0 + 5 * DAY, name="other"))])
        assert await stored_intervals(pipeline) == live

    run_scenario(database_url, check, without_journeys)


def test_future_message_that_no_rule_reads_changes_no_state(database_url: str) -> None:
    without_journeys = Definitions(segments=DEFINITIONS.segments, journeys={})

    async def check(pipeline: Pipeline) -> None:
        await pipeline.send([item(track(1, NOW + HOUR, name="other"))])
        await pipeline.send([item(track(2, NOW - HOUR))])
        await pipeline.send([item(track(3, NOW - HOUR, "u2"))])
        await pipeline.send([item(track(4, NOW + HOUR, "u2", name="other"))])
        assert await count_differing(pipeline) == 0

    run_scenario(database_url, check, without_journeys)


def test_size_of_state_with_future_messages_is_limited(database_url: str) -> None:
    """Messages from a client an hour ahead wait in the state, and each further message rewrites the state."""

    async def check(pipeline: Pipeline) -> None:
        for start in range(0, 4_000, 1_000):
            await pipeline.send([item(track(number, NOW + HOUR + number)) for number in range(start, start + 1_000)])
        size = await pipeline.pool.fetchval("SELECT max(length(state)) FROM customers")
        assert size < 64_000

    run_scenario(database_url, check)


def test_size_of_traits_is_limited(database_url: str) -> None:
    """The write key is public, so a stranger who sends many trait names must not make a state grow without limit."""

    async def check(pipeline: Pipeline) -> None:
        for number in range(20):
            traits = {f"k{number}-{index}": "x" * 100 for index in range(200)}
            await pipeline.send(
                [item(SentMessage(T0 + number, f"i{number}", "identify", {"user_id": "u1"}, traits=traits))]
            )
        size = await pipeline.pool.fetchval("SELECT max(length(state)) FROM customers")
        assert size < 256_000

    run_scenario(database_url, check)


# --------------------------------------------------------------------------------------------- ingest


def message(id: str, **changes: Any) -> Message:
    default = Message(
        "track", id, "default", T0, NOW, (Identity("user_id", "u1"),), "web", "bought", digest=b"12345678"
    )
    return msgspec.structs.replace(default, **changes)


def test_unencodable_text_rejects_only_its_message(database_url: str) -> None:
    async def check(pipeline: Pipeline) -> None:
        parsed = Parsed([(0, message("good")), (1, message("bad", channel="\ud800"))])
        receipt = await pipeline.ingest.group_commit.commit(PendingRequest("default", parsed, 100))
        assert (receipt.accepted, receipt.rejected) == (1, 1)

    run_scenario(database_url, check)


def test_rejected_item_is_quarantined_beside_an_unstorable_one(database_url: str) -> None:
    """The rows to quarantine belong to the first half of a bisection, which fails in this test."""

    async def check(pipeline: Pipeline) -> None:
        rejection = Rejection(1, RejectionCode.MISSING_EVENT, "no event", "refused", b"{}")
        parsed = Parsed([(0, message("bad", channel="a\0b"))], [rejection])
        receipt = await pipeline.ingest.group_commit.commit(PendingRequest("default", parsed, 100))
        assert (receipt.accepted, receipt.rejected) == (0, 2)
        quarantined = {row["message_id"] for row in await pipeline.pool.fetch("SELECT message_id FROM quarantine")}
        assert quarantined == {"bad", "refused"}

    run_scenario(database_url, check)


def test_unstorable_message_is_quarantined_in_full(database_url: str) -> None:
    async def check(pipeline: Pipeline) -> None:
        bad = message("bad", channel="a\0b", properties=b'{"total":5}')
        await pipeline.ingest.group_commit.commit(PendingRequest("default", Parsed([(0, bad)]), 100))
        assert b"total" in await pipeline.pool.fetchval("SELECT original FROM quarantine")

    run_scenario(database_url, check)


@pytest.mark.parametrize(
    "context",
    [
        {"externalIds": [{"id": "1", "type": "a\0b"}]},
        {"externalIds": [{"id": "1", "type": "x" * 20_000}]},
        {"externalIds": [{"id": "1", "type": "\ud800"}]},
        {"channel": "a\0b"},
        {"channel": "\ud800"},
        {"library": {"name": "\0"}},
        {"traits": {"email": "a\0@example.com"}},
    ],
)
def test_hostile_context_values_are_stored(database_url: str, context: dict[str, Any]) -> None:
    async def check(pipeline: Pipeline) -> None:
        hostile = item(track(1, T0)) | {"context": context}
        receipt = await pipeline.send([hostile, item(track(2, T0))])
        assert (receipt.accepted, receipt.rejected, receipt.projected) == (2, 0, True)

    run_scenario(database_url, check)


def test_failure_after_the_flush_does_not_block_requests(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(pipeline: Pipeline) -> None:
        def fail(messages: int) -> None:
            raise ValueError(messages)

        monkeypatch.setattr(pipeline.ingest._metrics, "observe_flush", fail)
        for number in range(2):
            try:
                async with asyncio.timeout(2):
                    await pipeline.send([item(track(number, T0))])
            except TimeoutError:
                pytest.fail("the request does not return")
            except Exception:  # Any response is accepted.
                pass

    run_scenario(database_url, check)


def test_lock_and_statement_timeouts_are_set(database_url: str) -> None:
    """A transaction that locks one customer and never ends must not stop all ingestion."""

    async def check(pipeline: Pipeline) -> None:
        async with pipeline.pool.acquire() as connection:
            limits = [await connection.fetchval(f"SHOW {name}") for name in ("lock_timeout", "statement_timeout")]
        assert limits != ["0", "0"]

    run_scenario(database_url, check)


# ------------------------------------------------------------------------------------ deferred, worker


def fail_on(monkeypatch: pytest.MonkeyPatch, poison: str) -> None:
    """Make each projection fail that contains this message."""
    for path in ("app.ingest.group_commit.project_messages", "app.background.worker.project_deferred"):
        module, _, name = path.rpartition(".")
        original = getattr(__import__(module, fromlist=[name]), name)

        async def fail_if_poisoned(
            connection: Connection, messages: Sequence[Message], *rest: Any, original: Any = original
        ) -> Any:
            if any(message.message_id == poison for message in messages):
                raise ValueError(poison)
            return await original(connection, messages, *rest)

        monkeypatch.setattr(path, fail_if_poisoned)


def test_failing_deferred_message_does_not_block_others(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(pipeline: Pipeline) -> None:
        with monkeypatch.context() as patched:

            async def fail(*_: Any) -> None:
                raise ValueError("down")

            patched.setattr("app.ingest.group_commit.project_messages", fail)
            for number in range(3):
                receipt = await pipeline.send([item(track(number, T0, f"user{number}"))])
                assert (receipt.accepted, receipt.projected) == (1, False)
        fail_on(monkeypatch, "m00001")
        for _ in range(15):
            await pipeline.worker.project_deferred()
        waiting = [row["message_id"] for row in await pipeline.pool.fetch("SELECT message_id FROM deferred")]
        assert waiting == ["m00001"]

    run_scenario(database_url, check)


def test_failing_customer_does_not_block_the_backfill(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(pipeline: Pipeline) -> None:
        await pipeline.send([item(track(number, T0, f"user{number}")) for number in range(6)])
        order = [row["id"] for row in await pipeline.pool.fetch("SELECT id FROM customers ORDER BY id")]
        poison = set(order[:2])
        await pipeline.define(Definitions(segments={"new": {"did": "bought"}}, journeys={"main": STAGES}))
        original = fill_chunk

        async def fail_if_poisoned(connection: Connection, *rest: Any) -> Any:
            filled = await original(connection, *rest)
            if await connection.fetchval(
                "SELECT EXISTS (SELECT FROM customers WHERE id = ANY($1::uuid[]) AND revision >= $2)",
                poison,
                pipeline.registry.rules.current.fill,
            ):
                raise ValueError
            return filled

        monkeypatch.setattr(worker, "fill_chunk", fail_if_poisoned)
        for _ in range(5):
            await pipeline.worker.fill()
        left = await pipeline.pool.fetchval(
            "SELECT count(*) FROM customers WHERE revision < $1", pipeline.registry.rules.current.fill
        )
        assert left == 2

    run_scenario(database_url, check, fill_customers_max=2)


def test_long_replay_does_not_block_other_customers(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweeper locks only the customers that one step replays, not all due customers."""

    async def check(pipeline: Pipeline) -> None:
        await pipeline.send([item(track(1, T0, "long")), item(track(2, T0, "short"))])
        await pipeline.pool.execute("UPDATE customers SET stale = true, sweep_at = 'epoch'")
        long = Identity("user_id", "long").id
        replay_started, resume = asyncio.Event(), asyncio.Event()
        original = replay_log

        async def wait_and_replay(connection: Connection, ids: Sequence[bytes], *args: Any, **options: Any) -> Any:
            if long in ids:
                replay_started.set()
                await resume.wait()
            return await original(connection, ids, *args, **options)

        monkeypatch.setattr(replays, "replay_log", wait_and_replay)
        monkeypatch.setattr(project_module, "LOCKED_MESSAGES_MAX", 1)
        sweeping = asyncio.create_task(pipeline.worker.sweep())
        await replay_started.wait()
        live = asyncio.create_task(pipeline.send([item(track(3, T0 + 1, "short"))]))
        done, _ = await asyncio.wait([live], timeout=2)
        resume.set()
        await asyncio.gather(sweeping, live)
        assert done

    run_scenario(database_url, check)


def test_first_message_gets_a_monthly_partition(database_url: str) -> None:
    """If a message were stored before the partition of its month, that partition could never be created."""

    async def check(pipeline: Pipeline) -> None:
        await pipeline.send([item(track(1, T0))])
        await pipeline.worker.run_upkeep()
        assert await pipeline.pool.fetchval("SELECT to_regclass('touchpoints_2023_12')") is not None

    run_scenario(database_url, check)


def test_timezone_change_does_not_use_old_states(database_url: str) -> None:
    definitions = Definitions(segments={"nineteenth": {"did": "bought", "from": "2023-11-19"}}, journeys={})
    evening = 1_700_348_400_000_000  # 2023-11-18T23:00:00Z, which is the 19th in Berlin

    async def check(pipeline: Pipeline) -> None:
        await pipeline.send([item(track(1, evening))])
        assert await pipeline.intervals("user_id:u1") == set()
        async with running_pipeline(database_url, NOW, timezone="Europe/Berlin") as other:
            await other.sweep_all()
            assert await other.intervals("user_id:u1") == {("segment:nineteenth", "", evening, None)}

    run_scenario(database_url, check, definitions)


# ------------------------------------------------------------------------------------------- identity


def test_late_message_of_a_shared_device_rewrites_few_customers(database_url: str) -> None:
    """Many users share a kiosk. One late message from it must not lock and rewrite all of them."""

    async def check(pipeline: Pipeline) -> None:
        users = 200
        await pipeline.send(
            [item(track(number, T0 + number * HOUR, f"u{number}", anonymous_id="kiosk")) for number in range(users)]
        )
        before = {row["id"]: row["xmin"] for row in await pipeline.pool.fetch("SELECT id, xmin::text FROM customers")}
        await pipeline.send([item(track(users, T0 + 90 * HOUR + 1, "late", anonymous_id="kiosk"))])
        after = {row["id"]: row["xmin"] for row in await pipeline.pool.fetch("SELECT id, xmin::text FROM customers")}
        rewritten = sum(after[id] != xmin for id, xmin in before.items())
        assert rewritten <= 2

    run_scenario(database_url, check)


def test_split_beyond_the_replay_budget_keeps_unchanged_intervals(database_url: str) -> None:
    """The history of u1 does not change, so no interval may be retracted and recorded again."""

    async def check(pipeline: Pipeline) -> None:
        own = [item(track(number, T0 + number * HOUR)) for number in range(5)]
        await pipeline.send([*own, item(track(9, T0 + 9 * HOUR, anonymous_id="d1"))])
        before = await stored_intervals(pipeline)
        late = SentMessage(T0, "m-late", "track", {"user_id": "u2", "anonymous_id": "d1"}, name="viewed")
        await pipeline.send([item(late)])
        await pipeline.sweep_all()
        retracted = await pipeline.pool.fetchval("SELECT count(*) FROM transitions WHERE retracted_at IS NOT NULL")
        assert before <= await stored_intervals(pipeline)
        assert retracted == 0
        assert await count_differing(pipeline) == 0

    run_scenario(database_url, check, replay_messages_max=8)


def test_merge_beyond_the_replay_budget_equals_one_within_it(database_url: str) -> None:
    async def deliver(pipeline: Pipeline) -> set[Any]:
        await pipeline.send(
            [item(SentMessage(T0 + n * DAY, f"a{n}", "track", {"anonymous_id": "d1"}, name="bought")) for n in range(8)]
        )
        await pipeline.send([item(track(number, T0 + number * HOUR)) for number in range(8)])
        await pipeline.send([item(track(99, T0 + 20 * DAY, anonymous_id="d1"))])
        await pipeline.sweep_all()
        assert await count_differing(pipeline) == 0
        return await pipeline.intervals("anonymous_id:d1")

    async def check(pipeline: Pipeline) -> None:
        small = await deliver(pipeline)
        await pipeline.pool.execute("TRUNCATE ledger, touchpoints, identities, links, customers, transitions")
        async with running_pipeline(database_url, NOW) as large:
            assert await deliver(large) == small

    run_scenario(database_url, check, replay_messages_max=3)


def test_undo_and_restore_of_a_link_change_nothing(database_url: str) -> None:
    async def check(pipeline: Pipeline) -> None:
        await pipeline.send([item(SentMessage(T0, "m1", "track", {"anonymous_id": "d1"}, name="viewed"))])
        await pipeline.send([item(track(2, T0 + HOUR, anonymous_id="d1"))])
        before = await pipeline.groups(""), await stored_intervals(pipeline)
        pair = Identity("anonymous_id", "d1").id, Identity("user_id", "u1").id
        for undone in (True, False):
            async with pipeline.pool.acquire() as connection, connection.transaction():
                assert await project_module.undo_link(
                    connection, *pair, undone, pipeline.registry.rules.current, pipeline.clock.now(), pipeline.settings
                )
            assert len(await pipeline.groups("")) == 1 + undone
            assert await count_differing(pipeline) == 0
        assert (await pipeline.groups(""), await stored_intervals(pipeline)) == before

    run_scenario(database_url, check)


def test_clock_that_moves_back_loses_no_transition(database_url: str) -> None:
    async def check(pipeline: Pipeline) -> None:
        await pipeline.send([item(track(1, NOW - 5 * DAY + HOUR))])
        pipeline.clock.instant = NOW + 2 * HOUR
        await pipeline.sweep_all()
        after = await stored_intervals(pipeline)
        pipeline.clock.instant = NOW
        await pipeline.send([item(track(2, NOW - 5 * DAY + HOUR, name="viewed"))])
        await pipeline.send([item(track(3, NOW, name="viewed"))])
        pipeline.clock.instant = NOW + 2 * HOUR
        await pipeline.sweep_all()
        assert {row[:4] for row in await stored_intervals(pipeline)} == {row[:4] for row in after}
        assert await count_differing(pipeline) == 0

    run_scenario(database_url, check)


def test_undone_link_records_an_earlier_message(database_url: str) -> None:
    """Restoring a link results in the same customers as if its earlier message had arrived before the undo."""

    async def set_undone(pipeline: Pipeline, undone: bool) -> None:
        pair = Identity("anonymous_id", "d1").id, Identity("user_id", "u1").id
        async with pipeline.pool.acquire() as connection, connection.transaction():
            await project_module.undo_link(
                connection, *pair, undone, pipeline.registry.rules.current, NOW, pipeline.settings
            )

    async def check(pipeline: Pipeline) -> None:
        await pipeline.send([item(track(5, T0 + 5 * HOUR, anonymous_id="d1"))])
        await set_undone(pipeline, True)
        await pipeline.send([item(track(3, T0 + 3 * HOUR, "u2", anonymous_id="d1"))])
        await pipeline.send([item(track(1, T0 + 1 * HOUR, anonymous_id="d1"))])
        await set_undone(pipeline, False)
        assert await pipeline.groups("") == {frozenset({"user_id:u1", "anonymous_id:d1"}), frozenset({"user_id:u2"})}

    run_scenario(database_url, check)


def test_customer_updates_are_hot(database_url: str) -> None:
    async def check(pipeline: Pipeline) -> None:
        for number in range(40):
            await pipeline.send([item(track(number, NOW - DAY + number))])
        await asyncio.sleep(1.2)
        async with pipeline.pool.acquire() as connection:
            await connection.execute("SELECT pg_stat_force_next_flush()")
        row = await pipeline.pool.fetchrow(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'customers'"
        )
        assert row is not None
        assert row["n_tup_upd"] - row["n_tup_hot_upd"] <= 2

    run_scenario(database_url, check)


def test_trait_numbers_stay_exact_in_the_state(database_url: str) -> None:
    exact = Definitions(segments={"big": {"trait": "n", "eq": 10**30 + 1}}, journeys={})

    async def check(pipeline: Pipeline) -> None:
        first = SentMessage(T0, "i1", "identify", {"user_id": "u1"}, traits={"n": 10**30 + 1, "f": 1e-300})
        await pipeline.send([item(first)])
        await pipeline.send([item(SentMessage(T0 + 1, "i2", "identify", {"user_id": "u1"}, traits={"other": 1}))])
        assert await pipeline.intervals("user_id:u1") == {("segment:big", "", T0, None)}
        assert await count_differing(pipeline) == 0

    run_scenario(database_url, check, exact)


def test_repeated_conflict_is_quarantined_once(database_url: str) -> None:
    """An SDK that retries the same conflicting batch must not fill the quarantine."""

    async def check(pipeline: Pipeline) -> None:
        await pipeline.send([item(track(1, T0))])
        for _ in range(3):
            receipt = await pipeline.send([item(track(1, T0, name="viewed"))])
            assert receipt.duplicate == 1
        assert await pipeline.pool.fetchval("SELECT count(*) FROM quarantine") == 1

    run_scenario(database_url, check)


def test_replaced_definition_records_its_new_version(database_url: str) -> None:
    """The audit trail keeps version 1, while the current interval has the current version."""
    rule = {"did": "bought", "within": "5d", "at_least": 1}

    async def check(pipeline: Pipeline) -> None:
        from app.rules.language.definitions import parse_segment

        await pipeline.send([item(track(1, NOW - DAY))])
        body = {"key": "lately", "name": "Lately, again", "rule": {"any": [rule, {"did": "x"}]}}
        await pipeline.registry.definitions.define(parse_segment(body, pipeline.settings.limits), replace=True)
        await pipeline.sweep_all()
        versions = await pipeline.pool.fetch(
            "SELECT version FROM transitions WHERE definition = 'segment:lately' AND retracted_at IS NULL"
        )
        assert [row["version"] for row in versions] == [2]

    run_scenario(database_url, check)
