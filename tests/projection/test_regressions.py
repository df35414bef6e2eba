"""Scenarios that once went wrong, or were feared to: each says what must hold."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest

from app.background import worker
from app.errors import Rejection, RejectionCode
from app.formats.segment import Parsed
from app.ingest.group_commit import PendingRequest
from app.postgres.pool import Connection
from app.projection import project as projecting
from app.projection.backfill import fill_chunk
from app.projection.log_replay import replay_log
from app.projection.rebuild import rebuild_customers
from app.rules.engine.ruleset import Ruleset
from app.touchpoint import DAY, HOUR, Identity, Message
from tests.support.pipeline import Pipeline, item, running_pipeline
from tests.support.reference_model import Definitions, SentMessage

T0 = 1_700_000_000_000_000
NOW = T0 + 40 * DAY

STAGES = [("awareness", {"did": "*"}), ("purchase", {"did": "bought"})]
PLAIN = Definitions(segments={"lately": {"did": "bought", "within": "5d"}}, journeys={"main": STAGES})


def said(number: int, t: int, user: str = "u1", name: str = "bought", **ids: str) -> SentMessage:
    return SentMessage(t, f"m{number:05}", "track", {"user_id": user, **ids}, name=name)


def scenario(
    database_url: str,
    act: Callable[[Pipeline], Awaitable[None]],
    definitions: Definitions = PLAIN,
    now: int = NOW,
    **changes: Any,
) -> None:
    async def run() -> None:
        async with running_pipeline(database_url, now, **changes) as one:
            await one.define(definitions)
            await asyncio.wait_for(act(one), 60)

    asyncio.run(run())


async def differing(one: Pipeline) -> int:
    """How many customers are not what their log says, by our own measure."""
    return await rebuild_customers(one.pool, one.registry.rules.current, one.clock, one.settings)


async def stored_intervals(one: Pipeline) -> set[tuple[Any, ...]]:
    rows = await one.pool.fetch(
        "SELECT definition, value, entered_at, left_at, entered_cause, left_cause FROM transitions "
        "WHERE retracted_at IS NULL"
    )
    return {tuple(row) for row in rows}


# ----------------------------------------------------------------------------------------------- fold


@pytest.mark.parametrize("batches", [[8], [5, 3], [1] * 8])
def test_a_series_that_overflows_inside_one_flush_still_answers_exactly(database_url: str, batches: list[int]) -> None:
    definitions = Definitions(segments={"six": {"did": "bought", "at_least": 6, "within": "30d"}}, journeys={})

    async def act(one: Pipeline) -> None:
        everything = [said(number, NOW - (10 - number) * HOUR) for number in range(8)]
        for size in batches:
            batch, everything = everything[:size], everything[size:]
            await one.send([item(message) for message in batch])
        assert ("segment:six", "", NOW - 5 * HOUR, None) in await one.intervals("user_id:u1")

    scenario(database_url, act, definitions, series_points_max=4)


def test_the_cause_of_a_transition_does_not_depend_on_arrival(database_url: str) -> None:
    """Two purchases of one instant: the later in order decides, whichever came first."""

    async def act(one: Pipeline) -> None:
        await one.send([item(said(1, T0))])
        await one.send([item(said(2, T0))])
        one_by_one = await stored_intervals(one)
        assert await differing(one) == 0
        assert await stored_intervals(one) == one_by_one
        await one.pool.execute("TRUNCATE ledger, touchpoints, identities, links, customers, transitions")
        await one.send([item(said(1, T0)), item(said(2, T0))])
        assert await stored_intervals(one) == one_by_one

    scenario(database_url, act)


def test_a_message_that_no_rule_reads_is_no_cause(database_url: str) -> None:
    """The purchase lapses at the very instant of a message that says nothing: time is the cause, live and replayed."""
    quiet = Definitions(segments=PLAIN.segments, journeys={})

    async def act(one: Pipeline) -> None:
        await one.send([item(said(1, T0))])
        await one.send([item(said(2, T0 + 5 * DAY, name="other"))])
        live = await stored_intervals(one)
        await one.pool.execute("TRUNCATE ledger, touchpoints, identities, links, customers, transitions")
        await one.send([item(said(1, T0)), item(said(2, T0 + 5 * DAY, name="other"))])
        assert await stored_intervals(one) == live

    scenario(database_url, act, quiet)


def test_future_messages_that_no_rule_reads_leave_no_trace_either_way(database_url: str) -> None:
    quiet = Definitions(segments=PLAIN.segments, journeys={})

    async def act(one: Pipeline) -> None:
        await one.send([item(said(1, NOW + HOUR, name="other"))])
        await one.send([item(said(2, NOW - HOUR))])
        await one.send([item(said(3, NOW - HOUR, "u2"))])
        await one.send([item(said(4, NOW + HOUR, "u2", name="other"))])
        assert await differing(one) == 0

    scenario(database_url, act, quiet)


def test_a_clock_that_runs_ahead_does_not_make_the_state_grow(database_url: str) -> None:
    """A client an hour ahead: its messages wait in the state, which is rewritten with every further one."""

    async def act(one: Pipeline) -> None:
        for start in range(0, 4_000, 1_000):
            await one.send([item(said(number, NOW + HOUR + number)) for number in range(start, start + 1_000)])
        size = await one.pool.fetchval("SELECT max(length(state)) FROM customers")
        assert size < 64_000

    scenario(database_url, act)


def test_traits_of_one_customer_are_bounded(database_url: str) -> None:
    """The write key is public: distinct trait names must not let a state grow without end."""

    async def act(one: Pipeline) -> None:
        for number in range(20):
            traits = {f"k{number}-{index}": "x" * 100 for index in range(200)}
            await one.send([item(SentMessage(T0 + number, f"i{number}", "identify", {"user_id": "u1"}, traits=traits))])
        size = await one.pool.fetchval("SELECT max(length(state)) FROM customers")
        assert size < 256_000

    scenario(database_url, act)


# --------------------------------------------------------------------------------------------- ingest


def message(id: str, **changes: Any) -> Message:
    plain = Message("track", id, "default", T0, NOW, (Identity("user_id", "u1"),), "web", "bought", digest=b"12345678")
    return msgspec.structs.replace(plain, **changes)


def test_text_that_cannot_be_encoded_is_one_rejection_and_not_an_endless_503(database_url: str) -> None:
    async def act(one: Pipeline) -> None:
        parsed = Parsed([(0, message("good")), (1, message("bad", channel="\ud800"))])
        receipt = await one.ingest.group_commit.commit(PendingRequest("default", parsed, 100))
        assert (receipt.accepted, receipt.rejected) == (1, 1)

    scenario(database_url, act)


def test_a_rejected_item_is_quarantined_beside_an_unstorable_one(database_url: str) -> None:
    """The rows for quarantine travel with the first half of a bisection, and fall with it."""

    async def act(one: Pipeline) -> None:
        refused = Rejection(1, RejectionCode.MISSING_EVENT, "no event", "refused", b"{}")
        parsed = Parsed([(0, message("bad", channel="a\0b"))], [refused])
        receipt = await one.ingest.group_commit.commit(PendingRequest("default", parsed, 100))
        assert (receipt.accepted, receipt.rejected) == (0, 2)
        quarantined = {row["message_id"] for row in await one.pool.fetch("SELECT message_id FROM quarantine")}
        assert quarantined == {"bad", "refused"}

    scenario(database_url, act)


def test_an_unstorable_message_is_quarantined_whole(database_url: str) -> None:
    async def act(one: Pipeline) -> None:
        bad = message("bad", channel="a\0b", properties=b'{"total":5}')
        await one.ingest.group_commit.commit(PendingRequest("default", Parsed([(0, bad)]), 100))
        assert b"total" in await one.pool.fetchval("SELECT original FROM quarantine")

    scenario(database_url, act)


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
def test_hostile_words_that_become_columns(database_url: str, context: dict[str, Any]) -> None:
    async def act(one: Pipeline) -> None:
        hostile = item(said(1, T0)) | {"context": context}
        receipt = await one.send([hostile, item(said(2, T0))])
        assert (receipt.accepted, receipt.rejected, receipt.projected) == (2, 0, True)

    scenario(database_url, act)


def test_an_ack_task_that_dies_leaves_nobody_waiting(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(one: Pipeline) -> None:
        def broken(messages: int) -> None:
            raise ValueError(messages)

        monkeypatch.setattr(one.ingest._metrics, "observe_flush", broken)
        for number in range(2):
            try:
                async with asyncio.timeout(2):
                    await one.send([item(said(number, T0))])
            except TimeoutError:
                pytest.fail("the request hangs for ever")
            except Exception:  # any answer will do
                pass

    scenario(database_url, act)


def test_waiting_for_a_lock_ends(database_url: str) -> None:
    """Somebody's forgotten transaction on one customer must not stop all ingestion for as long as it lives."""

    async def act(one: Pipeline) -> None:
        async with one.pool.acquire() as connection:
            limits = [await connection.fetchval(f"SHOW {name}") for name in ("lock_timeout", "statement_timeout")]
        assert limits != ["0", "0"]

    scenario(database_url, act)


# ------------------------------------------------------------------------------------ deferred, worker


def fail_on(monkeypatch: pytest.MonkeyPatch, poison: str) -> None:
    """Let every projection fail that holds this message."""
    for place in ("app.ingest.group_commit.project_messages", "app.background.worker.project_deferred"):
        module, _, name = place.rpartition(".")
        real = getattr(__import__(module, fromlist=[name]), name)

        async def failing(connection: Connection, messages: Sequence[Message], *rest: Any, real: Any = real) -> Any:
            if any(each.message_id == poison for each in messages):
                raise ValueError(poison)
            return await real(connection, messages, *rest)

        monkeypatch.setattr(place, failing)


def test_one_deferred_message_that_keeps_failing_stops_no_other(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(one: Pipeline) -> None:
        with monkeypatch.context() as everything:

            async def never(*_: Any) -> None:
                raise ValueError("down")

            everything.setattr("app.ingest.group_commit.project_messages", never)
            for number in range(3):
                receipt = await one.send([item(said(number, T0, f"user{number}"))])
                assert (receipt.accepted, receipt.projected) == (1, False)
        fail_on(monkeypatch, "m00001")
        for _ in range(15):
            await one.worker.project_deferred()
        waiting = [row["message_id"] for row in await one.pool.fetch("SELECT message_id FROM deferred")]
        assert waiting == ["m00001"]

    scenario(database_url, act)


def test_a_customer_that_cannot_be_filled_holds_up_no_other(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(one: Pipeline) -> None:
        await one.send([item(said(number, T0, f"user{number}")) for number in range(6)])
        order = [row["id"] for row in await one.pool.fetch("SELECT id FROM customers ORDER BY id")]
        poison = set(order[:2])
        await one.define(Definitions(segments={"new": {"did": "bought"}}, journeys={"main": STAGES}))
        real = fill_chunk

        async def failing(connection: Connection, *rest: Any) -> Any:
            filled = await real(connection, *rest)
            if await connection.fetchval(
                "SELECT EXISTS (SELECT FROM customers WHERE id = ANY($1::uuid[]) AND revision >= $2)",
                poison,
                one.registry.rules.current.fill,
            ):
                raise ValueError
            return filled

        monkeypatch.setattr(worker, "fill_chunk", failing)
        for _ in range(5):
            await one.worker.fill()
        left = await one.pool.fetchval(
            "SELECT count(*) FROM customers WHERE revision < $1", one.registry.rules.current.fill
        )
        assert left == 2

    scenario(database_url, act, fill_customers_max=2)


def test_a_long_replay_by_the_worker_keeps_no_other_customer_waiting(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep locks what one step replays, not all that is due."""

    async def act(one: Pipeline) -> None:
        await one.send([item(said(1, T0, "long")), item(said(2, T0, "short"))])
        await one.pool.execute("UPDATE customers SET stale = true, sweep_at = 'epoch'")
        long = Identity("user_id", "long").id
        reached, go = asyncio.Event(), asyncio.Event()
        real = replay_log

        async def slow(connection: Connection, ids: Sequence[bytes], ruleset: Ruleset, now: int) -> Any:
            if long in ids:
                reached.set()
                await go.wait()
            return await real(connection, ids, ruleset, now)

        monkeypatch.setattr(projecting, "replay_log", slow)
        sweeping = asyncio.create_task(one.worker.sweep())
        await reached.wait()
        live = asyncio.create_task(one.send([item(said(3, T0 + 1, "short"))]))
        done, _ = await asyncio.wait([live], timeout=2)
        go.set()
        await asyncio.gather(sweeping, live)
        assert done

    scenario(database_url, act, replay_messages_max=1)


def test_the_month_of_the_first_message_gets_its_partition(database_url: str) -> None:
    """What arrives before the worker made the month lies in the default partition and forbids the month for ever."""

    async def act(one: Pipeline) -> None:
        await one.send([item(said(1, T0))])
        await one.worker.run_upkeep()
        assert await one.pool.fetchval("SELECT to_regclass('touchpoints_2023_12')") is not None

    scenario(database_url, act)


def test_another_timezone_in_the_settings_is_not_answered_from_old_states(database_url: str) -> None:
    definitions = Definitions(segments={"nineteenth": {"did": "bought", "from": "2023-11-19"}}, journeys={})
    evening = 1_700_348_400_000_000  # 2023-11-18T23:00:00Z, the 19th in Berlin

    async def act(one: Pipeline) -> None:
        await one.send([item(said(1, evening))])
        assert await one.intervals("user_id:u1") == set()
        async with running_pipeline(database_url, NOW, timezone="Europe/Berlin") as other:
            await other.sweep_all()
            assert await other.intervals("user_id:u1") == {("segment:nineteenth", "", evening, None)}

    scenario(database_url, act, definitions)


# ------------------------------------------------------------------------------------------- identity


def test_a_late_message_of_a_shared_device_rewrites_only_whom_it_concerns(database_url: str) -> None:
    """A kiosk seen with many users: one late message from it must not lock and rewrite them all."""

    async def act(one: Pipeline) -> None:
        users = 200
        await one.send(
            [item(said(number, T0 + number * HOUR, f"u{number}", anonymous_id="kiosk")) for number in range(users)]
        )
        before = {row["id"]: row["xmin"] for row in await one.pool.fetch("SELECT id, xmin::text FROM customers")}
        await one.send([item(said(users, T0 + 90 * HOUR + 1, "late", anonymous_id="kiosk"))])
        after = {row["id"]: row["xmin"] for row in await one.pool.fetch("SELECT id, xmin::text FROM customers")}
        rewritten = sum(after[id] != xmin for id, xmin in before.items())
        assert rewritten <= 2

    scenario(database_url, act)


def test_a_split_beyond_the_budget_keeps_the_history_of_who_stays(database_url: str) -> None:
    """Nothing of u1's own history changed: not one of its intervals may be retracted and recorded anew."""

    async def act(one: Pipeline) -> None:
        own = [item(said(number, T0 + number * HOUR)) for number in range(5)]
        await one.send([*own, item(said(9, T0 + 9 * HOUR, anonymous_id="d1"))])
        before = await stored_intervals(one)
        late = SentMessage(T0, "m-late", "track", {"user_id": "u2", "anonymous_id": "d1"}, name="viewed")
        await one.send([item(late)])
        await one.sweep_all()
        retracted = await one.pool.fetchval("SELECT count(*) FROM transitions WHERE retracted_at IS NOT NULL")
        assert before <= await stored_intervals(one)
        assert retracted == 0
        assert await differing(one) == 0

    scenario(database_url, act, replay_messages_max=8)


def test_a_merge_beyond_the_budget_ends_like_one_within_it(database_url: str) -> None:
    async def deliver(one: Pipeline) -> set[Any]:
        await one.send(
            [item(SentMessage(T0 + n * DAY, f"a{n}", "track", {"anonymous_id": "d1"}, name="bought")) for n in range(8)]
        )
        await one.send([item(said(number, T0 + number * HOUR)) for number in range(8)])
        await one.send([item(said(99, T0 + 20 * DAY, anonymous_id="d1"))])
        await one.sweep_all()
        assert await differing(one) == 0
        return await one.intervals("anonymous_id:d1")

    async def act(one: Pipeline) -> None:
        small = await deliver(one)
        await one.pool.execute("TRUNCATE ledger, touchpoints, identities, links, customers, transitions")
        async with running_pipeline(database_url, NOW) as large:
            assert await deliver(large) == small

    scenario(database_url, act, replay_messages_max=3)


def test_undo_and_restore_end_where_they_began(database_url: str) -> None:
    async def act(one: Pipeline) -> None:
        await one.send([item(SentMessage(T0, "m1", "track", {"anonymous_id": "d1"}, name="viewed"))])
        await one.send([item(said(2, T0 + HOUR, anonymous_id="d1"))])
        before = await one.groups(""), await stored_intervals(one)
        pair = Identity("anonymous_id", "d1").id, Identity("user_id", "u1").id
        for undone in (True, False):
            async with one.pool.acquire() as connection, connection.transaction():
                assert await projecting.undo_link(
                    connection, *pair, undone, one.registry.rules.current, one.clock.now(), one.settings
                )
            assert len(await one.groups("")) == 1 + undone
            assert await differing(one) == 0
        assert (await one.groups(""), await stored_intervals(one)) == before

    scenario(database_url, act)


def test_a_clock_that_goes_back_loses_nothing(database_url: str) -> None:
    async def act(one: Pipeline) -> None:
        await one.send([item(said(1, NOW - 5 * DAY + HOUR))])
        one.clock.instant = NOW + 2 * HOUR
        await one.sweep_all()
        after = await stored_intervals(one)
        one.clock.instant = NOW
        await one.send([item(said(2, NOW - 5 * DAY + HOUR, name="viewed"))])
        await one.send([item(said(3, NOW, name="viewed"))])
        one.clock.instant = NOW + 2 * HOUR
        await one.sweep_all()
        assert {row[:4] for row in await stored_intervals(one)} == {row[:4] for row in after}
        assert await differing(one) == 0

    scenario(database_url, act)


def test_an_undone_link_still_learns_its_earliest_message(database_url: str) -> None:
    """Undo, hear an earlier message that says the same link, restore: as if all had been heard first."""

    async def toggle(one: Pipeline, undone: bool) -> None:
        pair = Identity("anonymous_id", "d1").id, Identity("user_id", "u1").id
        async with one.pool.acquire() as connection, connection.transaction():
            await projecting.undo_link(connection, *pair, undone, one.registry.rules.current, NOW, one.settings)

    async def act(one: Pipeline) -> None:
        await one.send([item(said(5, T0 + 5 * HOUR, anonymous_id="d1"))])
        await toggle(one, True)
        await one.send([item(said(3, T0 + 3 * HOUR, "u2", anonymous_id="d1"))])
        await one.send([item(said(1, T0 + 1 * HOUR, anonymous_id="d1"))])
        await toggle(one, False)
        assert await one.groups("") == {frozenset({"user_id:u1", "anonymous_id:d1"}), frozenset({"user_id:u2"})}

    scenario(database_url, act)


def test_updates_of_a_known_customer_stay_hot(database_url: str) -> None:
    async def act(one: Pipeline) -> None:
        for number in range(40):
            await one.send([item(said(number, NOW - DAY + number))])
        await asyncio.sleep(1.2)
        async with one.pool.acquire() as connection:
            await connection.execute("SELECT pg_stat_force_next_flush()")
        row = await one.pool.fetchrow(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'customers'"
        )
        assert row is not None
        assert row["n_tup_upd"] - row["n_tup_hot_upd"] <= 2

    scenario(database_url, act)


def test_numbers_of_traits_survive_the_state(database_url: str) -> None:
    exact = Definitions(segments={"big": {"trait": "n", "eq": 10**30 + 1}}, journeys={})

    async def act(one: Pipeline) -> None:
        first = SentMessage(T0, "i1", "identify", {"user_id": "u1"}, traits={"n": 10**30 + 1, "f": 1e-300})
        await one.send([item(first)])
        await one.send([item(SentMessage(T0 + 1, "i2", "identify", {"user_id": "u1"}, traits={"other": 1}))])
        assert await one.intervals("user_id:u1") == {("segment:big", "", T0, None)}
        assert await differing(one) == 0

    scenario(database_url, act, exact)


def test_a_differing_twin_sent_again_is_recorded_once(database_url: str) -> None:
    """An SDK that retries one conflicting batch must not fill the quarantine."""

    async def act(one: Pipeline) -> None:
        await one.send([item(said(1, T0))])
        for _ in range(3):
            receipt = await one.send([item(said(1, T0, name="viewed"))])
            assert receipt.duplicate == 1
        assert await one.pool.fetchval("SELECT count(*) FROM quarantine") == 1

    scenario(database_url, act)


def test_a_definition_that_is_replaced_records_its_new_version(database_url: str) -> None:
    """The audit trail keeps version 1; what holds today carries the version that says so."""
    renamed = {"did": "bought", "within": "5d", "at_least": 1}

    async def act(one: Pipeline) -> None:
        from app.rules.language.definitions import parse_segment

        await one.send([item(said(1, NOW - DAY))])
        wanted = {"key": "lately", "name": "Lately, again", "rule": {"any": [renamed, {"did": "x"}]}}
        await one.registry.definitions.define(parse_segment(wanted, one.settings.limits), replace=True)
        await one.sweep_all()
        versions = await one.pool.fetch(
            "SELECT version FROM transitions WHERE definition = 'segment:lately' AND retracted_at IS NULL"
        )
        assert [row["version"] for row in versions] == [2]

    scenario(database_url, act)
