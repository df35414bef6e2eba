"""Objects of persons: messages that name only an order belong to the customer of the order, in any order of arrival."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from app.formats.timestamps import rfc3339
from app.ingest import group_commit
from app.projection.project import project_messages
from app.touchpoint import DAY, HOUR
from tests.support.pipeline import Pipeline, running_pipeline

NOW = 1_760_000_000_000_000
ORDERS = 300


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
