"""Objects of persons: messages that name only an order belong to the customer of the order, in any order of arrival."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

import pytest

from app.formats.timestamps import rfc3339
from app.ingest import group_commit
from app.projection.project import project_messages
from app.touchpoint import DAY, HOUR, SECOND
from tests.support.pipeline import Pipeline, running_pipeline

NOW = 1_760_000_000_000_000
ORDERS = 300
MANY_ORDERS = 5_000


def message(name: str, number: int, t: int, order: int, **person: str) -> dict[str, Any]:
    """Return an event about an order, as the connector of a shop sends it; ``person`` may have userId and email."""
    context: dict[str, Any] = {"externalIds": [{"id": str(order), "type": "shopify_order"}]}
    if "email" in person:
        context["traits"] = {"email": person.pop("email")}
    return {
        "type": "track",
        "event": name,
        "messageId": f"{name} {order} {number}",
        "timestamp": rfc3339(t),
        "context": context,
        "properties": {"order_id": str(order)},
        **person,
    }


def order(number: int, t: int = NOW - DAY, **person: str) -> dict[str, Any]:
    return message("Order Completed", 0, t, number, **(person or {"userId": "u1", "email": "u1@example.com"}))


def refund(number: int, t: int = NOW - HOUR, nth: int = 0) -> dict[str, Any]:
    return message("Order Refunded", nth, t, number)


async def customers(pipeline: Pipeline) -> dict[str, set[str]]:
    """Return the names of each customer's touchpoints, by its strongest identity."""
    rows = await pipeline.pool.fetch(
        """
        SELECT (SELECT o.kind || ':' || o.value FROM identities o WHERE o.id = i.customer_id) AS customer, t.name
        FROM identities i JOIN touchpoints t ON t.identity_id = i.id
        """
    )
    names: dict[str, set[str]] = {}
    for row in rows:
        names.setdefault(row["customer"], set()).add(row["name"])
    return names


async def identities(pipeline: Pipeline) -> set[str]:
    rows = await pipeline.pool.fetch("SELECT kind || ':' || value AS identity FROM identities")
    return {row["identity"] for row in rows}


async def rows_read(pipeline: Pipeline) -> int:
    """Return how many rows of the identity graph all statements have read so far."""
    connections = [await pipeline.pool.acquire() for _ in range(pipeline.pool.get_max_size())]
    for statement in ("SELECT pg_stat_force_next_flush()", "SELECT 1"):
        for connection in connections:
            await connection.execute(statement)
    rows: int = await connections[0].fetchval(
        """
        SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_user_tables
        WHERE relname IN ('identities', 'links', 'object_owners', 'customers')
        """
    )
    for connection in connections:
        await pipeline.pool.release(connection)
    return rows


BOTH = {"user_id:u1": {"Order Completed", "Order Refunded"}}


async def test_order_is_not_an_identity_of_its_customer(database_url: str) -> None:
    async with running_pipeline(database_url, NOW) as pipeline:
        await pipeline.send([order(number) for number in range(1, ORDERS + 1)])
        await pipeline.send([refund(number) for number in range(1, ORDERS + 1)])
        assert await customers(pipeline) == BOTH
        assert await identities(pipeline) == {"user_id:u1", "email:u1@example.com"}
        assert await pipeline.pool.fetchval("SELECT count(*) FROM touchpoints") == 2 * ORDERS
        assert await pipeline.pool.fetchval("SELECT count(*) FROM customers") == 1


async def test_refund_in_the_same_request_finds_its_order(database_url: str) -> None:
    async with running_pipeline(database_url, NOW) as pipeline:
        await pipeline.send([refund(7), order(7)])
        assert await customers(pipeline) == BOTH
        assert await identities(pipeline) == {"user_id:u1", "email:u1@example.com"}


@pytest.mark.parametrize("arrival", list(itertools.permutations(range(3))), ids=str)
async def test_refunds_before_and_after_the_order_belong_to_one_customer(
    database_url: str, arrival: tuple[int, ...]
) -> None:
    async with running_pipeline(database_url, NOW) as pipeline:
        messages = [order(7), refund(7), refund(7, NOW - HOUR // 2, 1)]
        for number in arrival:
            await pipeline.send([messages[number]])
        assert await customers(pipeline) == BOTH
        stored = await pipeline.pool.fetchval("SELECT count(*) FROM touchpoints")
        assert stored == 3


async def test_concurrent_order_and_refund_meet(database_url: str) -> None:
    async with running_pipeline(database_url, NOW) as first, running_pipeline(database_url, NOW) as second:
        for number in range(40):
            await asyncio.gather(first.send([order(number)]), second.send([refund(number)]))
        assert await customers(first) == BOTH
        assert await first.pool.fetchval("SELECT count(*) FROM customers") == 1


async def test_first_owner_of_an_order_stays(database_url: str) -> None:
    """Two persons with one order id are not one customer."""
    async with running_pipeline(database_url, NOW) as pipeline:
        await pipeline.send([order(7, userId="u1")])
        await pipeline.send([order(7, userId="u2") | {"messageId": "again"}])
        await pipeline.send([refund(7)])
        assert await customers(pipeline) == {
            "user_id:u1": {"Order Completed", "Order Refunded"},
            "user_id:u2": {"Order Completed"},
        }


@pytest.mark.parametrize("arrival", list(itertools.permutations(range(3))), ids=str)
async def test_order_does_not_join_two_persons(database_url: str, arrival: tuple[int, ...]) -> None:
    async with running_pipeline(database_url, NOW) as pipeline:
        messages = [
            refund(7),
            order(7, email="first@example.com"),
            order(7, email="second@example.com") | {"messageId": "of the second"},
        ]
        for number in arrival:
            await pipeline.send([messages[number]])
        first_owner = next("second" if number == 2 else "first" for number in arrival if number != 0)
        refunded = {"Order Completed", "Order Refunded"}
        assert await customers(pipeline) == {
            f"email:{person}@example.com": refunded if person == first_owner else {"Order Completed"}
            for person in ("first", "second")
        }


@pytest.mark.parametrize("seed", range(8))
async def test_any_order_of_arrival_ends_with_the_same_customers(database_url: str, seed: int) -> None:
    """Guests register later, and their orders and refunds arrive in batches of any size, at two servers."""
    shuffler = random.Random(seed)
    persons = [f"u{number}" for number in range(4)]
    messages: list[dict[str, Any]] = []
    for place, person in enumerate(persons):
        guest, user = {"email": f"{person}@example.com"}, {"userId": person}
        messages.append(order(1_000 * place, NOW - DAY, **guest, **user))
        for number in range(1_000 * place + 1, 1_000 * place + 9):
            messages.append(order(number, NOW - DAY + number, **shuffler.choice([guest, user, {**guest, **user}])))
            messages += [refund(number, NOW - HOUR + number, nth) for nth in range(shuffler.randrange(3))]
    shuffler.shuffle(messages)
    async with running_pipeline(database_url, NOW) as first, running_pipeline(database_url, NOW) as second:
        while messages:
            halves = [messages[:3], messages[3 : (end := shuffler.randrange(4, 12))]]
            await asyncio.gather(*(server.send(half) for server, half in zip((first, second), halves, strict=True)))
            messages = messages[end:]
        rows = await first.pool.fetch(
            """
            SELECT DISTINCT i.customer_id, (t.properties ->> 'order_id')::int / 1000 AS person
            FROM touchpoints t LEFT JOIN identities i ON i.id = t.identity_id
            """
        )
        assert sorted(row["person"] for row in rows) == list(range(len(persons)))
        assert len({row["customer_id"] for row in rows} - {None}) == len(persons)
        assert await first.pool.fetchval("SELECT count(*) FROM customers") == len(persons)


async def test_refund_follows_the_merge_of_a_guest_with_a_user(database_url: str) -> None:
    async with running_pipeline(database_url, NOW) as pipeline:
        await pipeline.send([order(7, email="guest@example.com")])
        await pipeline.send([refund(7)])
        await pipeline.send([order(8, userId="u1", email="guest@example.com")])
        await pipeline.send([refund(7, NOW - HOUR // 2, 1)])
        assert await customers(pipeline) == BOTH


async def test_failed_flush_stores_the_owner_with_its_message(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([True, True, False])

    async def fail_first(*arguments: Any) -> Any:
        if next(failures, False):
            raise RuntimeError("simulated failure")
        return await project_messages(*arguments)

    monkeypatch.setattr(group_commit, "project_messages", fail_first)
    async with running_pipeline(database_url, NOW) as pipeline:
        receipt = await pipeline.send([order(7), order(8)])
        assert receipt.accepted == 2
        await pipeline.send([refund(7), refund(8)])
        await pipeline.worker.project_deferred()
        assert await customers(pipeline) == BOTH
        assert await identities(pipeline) == {"user_id:u1", "email:u1@example.com"}


async def test_message_of_a_customer_with_thousands_of_orders_reads_few_rows(database_url: str) -> None:
    async with running_pipeline(database_url, NOW) as pipeline:
        for start in range(0, MANY_ORDERS, 500):
            await pipeline.send([order(number, NOW - DAY + number * SECOND) for number in range(start, start + 500)])
        late = NOW - 2 * DAY
        messages = {
            "a refund of the last order": refund(MANY_ORDERS - 1),
            "a further order": order(MANY_ORDERS),
            "an order that arrives late": order(MANY_ORDERS + 1, late),
            "a late login": order(MANY_ORDERS + 2, late, userId="u1", anonymousId="a1"),
        }
        for name, sent_message in messages.items():
            before = await rows_read(pipeline)
            await pipeline.send([sent_message])
            assert await rows_read(pipeline) - before < 30, name
        assert await pipeline.pool.fetchval("SELECT count(*) FROM identities") == 3


async def test_flush_without_objects_runs_the_same_statements(database_url: str) -> None:
    async with running_pipeline(database_url, NOW) as pipeline:
        statements: list[str] = []
        connections = [await pipeline.pool.acquire() for _ in range(pipeline.pool.get_max_size())]
        for connection in connections:
            connection.add_query_logger(lambda record: statements.append(record.query))
        for connection in connections:
            await pipeline.pool.release(connection)
        await pipeline.send([order(7) | {"context": {}}])
        assert not any("object_owners" in statement for statement in statements)
        await pipeline.send([order(7), order(8), refund(7)])
        assert sum("object_owners" in statement for statement in statements) == 1


async def test_public_key_cannot_take_an_order_from_its_owner(database_url: str) -> None:
    async with running_pipeline(database_url, NOW) as pipeline:
        await pipeline.send([order(7, userId="thief") | {"messageId": "claim"}], trust="public")
        await pipeline.send([order(8, userId="u1")])
        await pipeline.send([order(8, userId="thief") | {"messageId": "late claim"}], trust="public")
        await pipeline.send([refund(8)])
        assert await customers(pipeline) == {
            "user_id:thief": {"Order Completed"},
            "user_id:u1": {"Order Completed", "Order Refunded"},
        }
