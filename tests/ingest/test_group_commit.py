"""Tests of the flush: number of statements, use of indexes, and handling of failures."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import pytest

from app.errors import Overloaded
from app.identity import customer_locks, graph_writes, resolver
from app.ingest import event_log, group_commit
from app.ingest.event_log import append_messages
from app.projection import stored_intervals, writes
from app.projection.project import project_messages
from app.queries.customers import CustomerQueries
from app.touchpoint import SECOND, Identity
from tests.support.pipeline import Pipeline, item, running_pipeline
from tests.support.reference_model import Definitions, SentMessage

NOW = 1_760_000_000_000_000


def viewed(number: int, **ids: str) -> dict[str, Any]:
    return item(SentMessage(NOW - SECOND, f"m{number}", "track", ids or {"user_id": f"u{number}"}, name="viewed"))


async def record_statements(pipeline: Pipeline, messages: list[dict[str, Any]]) -> list[str]:
    """Return the statements of one flush, including BEGIN and COMMIT, on connections that have loaded their types."""
    statements: list[str] = []
    connections = [await pipeline.pool.acquire() for _ in range(pipeline.pool.get_max_size())]
    for connection in connections:
        for query in (event_log._APPEND, graph_writes._INSERT_IDENTITIES, writes._WRITE_CUSTOMERS):
            await connection.prepare(query)
        connection.add_query_logger(lambda record: statements.append(record.query))
    for connection in connections:
        await pipeline.pool.release(connection)
    await pipeline.send(messages)
    return statements


async def test_flush_takes_the_same_statements_for_any_size(database_url: str) -> None:
    counts = []
    for size in (1, 2_500):
        async with running_pipeline(database_url, NOW, flush_messages_max=10_000) as pipeline:
            body = [viewed(size * 10_000 + number) for number in range(size)]
            counts.append(len(await record_statements(pipeline, body)))
    assert counts[0] == counts[1] <= 8


async def test_merge_statement_runs_only_in_a_flush_that_merges(database_url: str) -> None:
    counts = []
    for size in (1, 50):
        async with running_pipeline(database_url, NOW) as pipeline:
            first, last = size * 10_000, size * 10_000 + size
            await pipeline.send([viewed(number, anonymous_id=f"d{number}") for number in range(first, last)])
            more = [viewed(100_000 + number, anonymous_id=f"d{number}") for number in range(first, last)]
            statements = await record_statements(pipeline, more)
            assert writes._MERGE_CUSTOMERS not in statements
            login = [
                viewed(200_000 + number, user_id=f"u{number}", anonymous_id=f"d{number}")
                for number in range(first, last)
            ]
            statements = await record_statements(pipeline, login)
            assert statements.count(writes._MERGE_CUSTOMERS) == statements.count(graph_writes._WRITE_GRAPH) == 1
            counts.append(len(statements))
    assert counts[0] == counts[1]


async def test_hot_statements_use_indexes(database_url: str) -> None:
    """Each statement of the flush uses an index if the tables have many rows and current statistics."""
    async with running_pipeline(database_url, NOW) as pipeline:
        for start in range(0, 4_000, 1_000):
            await pipeline.send(
                [
                    viewed(start + number, user_id=f"u{start + number}", anonymous_id=f"d{start + number}")
                    for number in range(1_000)
                ]
            )
        async with pipeline.pool.acquire() as connection:
            await connection.execute("ANALYZE")
            ids = [row["id"] for row in await connection.fetch("SELECT id FROM identities LIMIT 3")]
            for query, arguments in (
                (customer_locks._LOCK_OF_IDENTITIES, (ids, [])),
                (resolver._MEMBERS, (ids, ids, ids, ids)),
                (resolver._NEIGHBOURS, (ids, 1_000)),
                (stored_intervals._STORED_INTERVALS, (ids,)),
            ):
                plan = await connection.fetchval("EXPLAIN (FORMAT JSON) " + query, *arguments)
                assert "Seq Scan" not in json.dumps(plan), query
            nothing: list[object] = [NOW, *[[]] * 27]
            plan = await connection.fetchval("EXPLAIN (FORMAT JSON) " + writes._WRITE_CUSTOMERS, *nothing)
            # A skip scan over a different index took ten times as long.
            assert "transitions_one_interval" in json.dumps(plan)


class Poison(Exception):
    """Simulated bug that one message triggers."""


async def test_message_whose_projection_fails_is_deferred_alone(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If projecting one message fails, only this message is deferred. The worker projects it later."""
    real = project_messages

    async def project(connection: Any, messages: Any, *rest: Any) -> Any:
        if any(message.message_id == "m7" for message in messages):
            raise Poison
        return await real(connection, messages, *rest)

    async with running_pipeline(database_url, NOW) as pipeline:
        with monkeypatch.context() as patched:
            patched.setattr(group_commit, "project_messages", project)
            receipt = await pipeline.send([viewed(number) for number in range(20)])
        assert (receipt.accepted, receipt.rejected, receipt.projected) == (20, 0, False)
        assert len(await pipeline.groups("u")) == 19
        assert await pipeline.worker.project_deferred() == 1
        assert len(await pipeline.groups("u")) == 20
        assert await pipeline.worker.project_deferred() == 0
        assert await pipeline.pool.fetchval("SELECT count(*) FROM deferred") == 0


async def test_all_messages_are_deferred_if_every_projection_fails(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure that affects all messages must not cause two transactions for each message."""
    tried = 0

    async def project(*_: Any) -> Any:
        nonlocal tried
        tried += 1
        raise Poison

    async with running_pipeline(database_url, NOW) as pipeline:
        with monkeypatch.context() as patched:
            patched.setattr(group_commit, "project_messages", project)
            receipt = await pipeline.send([viewed(number) for number in range(512)])
        assert (receipt.accepted, receipt.projected) == (512, False)
        assert tried < 30
        while await pipeline.worker.project_deferred():
            pass
        assert len(await pipeline.groups("u")) == 512


async def test_unstorable_message_is_rejected_alone(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = append_messages

    async def append(connection: Any, keys: Any, messages: Any, refused: Any) -> Any:
        if any(message.message_id == "m3" for message in messages):
            raise asyncpg.DataError("invalid value")
        return await real(connection, keys, messages, refused)

    monkeypatch.setattr(group_commit, "append_messages", append)
    async with running_pipeline(database_url, NOW) as pipeline:
        receipt = await pipeline.send([viewed(number) for number in range(8)])
        assert (receipt.accepted, receipt.duplicate, receipt.rejected) == (7, 0, 1)
        assert [rejection.code for rejection in receipt.rejections] == ["unstorable"]
        assert receipt.rejections[0].index == 3
        assert await pipeline.pool.fetchval("SELECT count(*) FROM quarantine WHERE code = 'unstorable'") == 1


async def test_conflicting_twin_is_a_duplicate_and_is_quarantined(database_url: str) -> None:
    async with running_pipeline(database_url, NOW) as pipeline:
        await pipeline.send([viewed(1)])
        twin = viewed(1)
        twin["event"] = "bought"
        receipt = await pipeline.send([twin, viewed(1)])
        assert (receipt.accepted, receipt.duplicate) == (0, 2)
        rows = await pipeline.pool.fetch("SELECT code, message_id, original FROM quarantine")
        assert [(row["code"], row["message_id"]) for row in rows] == [("conflicting_twin", "m1")]
        assert b"bought" in rows[0]["original"]
        assert await pipeline.pool.fetchval("SELECT name FROM touchpoints") == "viewed"


async def test_full_queue_refuses_requests_and_loses_none(database_url: str) -> None:
    async with running_pipeline(database_url, NOW, queue_bytes_max=2_000) as pipeline:
        sent = [asyncio.create_task(pipeline.send([viewed(number)])) for number in range(200)]
        answers = await asyncio.gather(*sent, return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, Overloaded)]
        accepted = [answer for answer in answers if not isinstance(answer, BaseException)]
        assert len(refused) + len(accepted) == 200
        assert refused
        assert int(refused[0].headers["Retry-After"]) >= 1
        assert await pipeline.pool.fetchval("SELECT count(*) FROM touchpoints") == len(accepted) > 0
        assert (await pipeline.send([viewed(999)])).accepted == 1


async def test_waiting_requests_share_a_commit(database_url: str) -> None:
    async with running_pipeline(database_url, NOW) as pipeline:
        before = await pipeline.pool.fetchval(
            "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
        )
        await asyncio.gather(*(pipeline.send([viewed(number)]) for number in range(200)))
        await pipeline.pool.execute("SELECT pg_stat_force_next_flush()")
        await asyncio.sleep(1.1)
        after = await pipeline.pool.fetchval(
            "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
        )
        assert await pipeline.pool.fetchval("SELECT count(*) FROM touchpoints") == 200
        assert after - before < 50


async def test_request_of_another_customer_does_not_wait_for_a_locked_customer(database_url: str) -> None:
    async with running_pipeline(database_url, NOW) as pipeline:
        await pipeline.send([viewed(1, user_id="hot")])
        async with pipeline.pool.acquire() as connection, connection.transaction():
            await connection.fetch("SELECT FROM customers FOR UPDATE")
            hot = asyncio.create_task(pipeline.send([viewed(number, user_id="hot") for number in range(2, 60)]))
            receipts = [await asyncio.wait_for(pipeline.send([viewed(number)]), 10) for number in range(100, 103)]
            assert not hot.done()
        assert all(receipt.accepted == 1 and receipt.projected for receipt in receipts)
        assert (await hot).accepted == 58


async def test_large_requests_do_not_start_more_than_two_flushes(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_flight, most = 0, 0

    async def wait_and_project(*arguments: Any) -> Any:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(3 * group_commit._SLOW_FLUSH_SECONDS)
        in_flight -= 1
        return await project_messages(*arguments)

    monkeypatch.setattr(group_commit, "project_messages", wait_and_project)
    async with running_pipeline(database_url, NOW, flush_messages_max=50) as pipeline:
        batches = [[viewed(number) for number in range(start, start + 50)] for start in range(0, 1_000, 50)]
        receipts = await asyncio.gather(*map(pipeline.send, batches))
        assert sum(receipt.accepted for receipt in receipts) == 1_000
        assert most == 2


async def test_customer_beyond_the_limit_of_evaluations_is_left_to_the_worker(database_url: str) -> None:
    """The other customers of the flush are projected, and a read is right at once."""
    definitions = Definitions(
        segments={f"often-{n}": {"did": "viewed", "at_least": n + 1, "within": "2h"} for n in range(10)}, journeys={}
    )
    async with running_pipeline(database_url, NOW, flush_evaluations_max=100) as pipeline:
        await pipeline.define(definitions)
        minute = 60 * SECOND
        hot = [
            item(SentMessage(NOW - n * minute, f"h{n}", "track", {"user_id": "hot"}, name="viewed")) for n in range(60)
        ]
        hot_receipt, other_receipt = await asyncio.gather(pipeline.send(hot), pipeline.send([viewed(1)]))
        assert (hot_receipt.accepted, hot_receipt.projected) == (60, False)
        assert (other_receipt.accepted, other_receipt.projected) == (1, True)
        queries = CustomerQueries(pipeline.pool, pipeline.registry, pipeline.settings)
        customer = await queries.customer([Identity("user_id", "hot").id], NOW)
        assert len(customer.segments) == 10
        await pipeline.sweep_all()
        assert not await pipeline.pool.fetchval("SELECT count(*) FROM customers WHERE stale")
        assert len(await pipeline.intervals("user_id:hot")) == 10
        pipeline.clock.instant = NOW + SECOND
        later = item(SentMessage(NOW + 1, "later", "track", {"user_id": "hot"}, name="viewed"))
        assert (await pipeline.send([later])).projected
