"""Migration of orders that earlier releases stored as identities of their customers."""

from __future__ import annotations

from typing import Any

import pytest

from app.identity import object_owners
from app.postgres import migrate
from tests.ingest.test_object_owners import NOW, customers, identities, order, refund
from tests.support.pipeline import Pipeline, running_pipeline

ORDERS = 120
"""More orders than a customer can have identities of one kind."""
PERSON = {"user_id:u1", "email:u1@example.com"}


async def migrate_again(pipeline: Pipeline) -> None:
    assert pipeline.settings.database_url is not None
    await pipeline.pool.execute("DELETE FROM object_owners; UPDATE alembic_version SET version_num = '0011'")
    assert await migrate.upgrade(pipeline.settings.database_url or "") is True


async def send_to_an_earlier_release(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, *batches: Any) -> None:
    """Send messages to a service that makes each order an identity, then migrate its database."""
    with monkeypatch.context() as patched:
        patched.setattr(object_owners, "OBJECT_KINDS", frozenset())
        for batch in batches:
            await pipeline.send(batch)
    await migrate_again(pipeline)


async def test_orders_become_objects(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_pipeline(database_url, NOW) as pipeline:
        await pipeline.segment("everyone", {"everyone": True})
        await send_to_an_earlier_release(pipeline, monkeypatch, [order(number) for number in range(ORDERS)])
        assert await identities(pipeline) == PERSON
        for rows in ("links", "customers", "(SELECT DISTINCT customer_id FROM transitions) AS t"):
            assert await pipeline.pool.fetchval(f"SELECT count(*) FROM {rows}") == 1, rows
        await pipeline.send([refund(number) for number in (0, ORDERS - 1)])
        assert await customers(pipeline) == {"user_id:u1": {"Order Completed", "Order Refunded"}}
        assert await identities(pipeline) == PERSON


async def test_order_that_arrives_after_the_migration_finds_its_refund(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_pipeline(database_url, NOW) as pipeline:
        await send_to_an_earlier_release(pipeline, monkeypatch, [refund(7)], [order(8)])
        assert await identities(pipeline) == PERSON | {"shopify_order:7"}
        await pipeline.send([order(7)])
        assert await customers(pipeline) == {"user_id:u1": {"Order Completed", "Order Refunded"}}


async def test_orders_that_hold_messages_or_join_persons_stay(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_pipeline(database_url, NOW) as pipeline:
        guest = order(2, email="guest@example.com") | {"messageId": "of the guest"}
        await send_to_an_earlier_release(pipeline, monkeypatch, [order(1), refund(1), order(2), order(3)], [guest])
        joined = PERSON | {"email:guest@example.com", "shopify_order:1", "shopify_order:2"}
        assert await identities(pipeline) == joined
        await pipeline.send([refund(number, nth=1) for number in (1, 2, 3)])
        assert await customers(pipeline) == {"user_id:u1": {"Order Completed", "Order Refunded"}}
        assert await identities(pipeline) == joined


async def test_undone_link_and_claim_of_a_public_key_name_no_owner(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_pipeline(database_url, NOW) as pipeline:
        with monkeypatch.context() as patched:
            patched.setattr(object_owners, "OBJECT_KINDS", frozenset())
            await pipeline.send([order(1)])
            await pipeline.send([order(2, userId="thief")], trust="public")
        await pipeline.pool.execute(
            "UPDATE links SET undone_at = now() FROM identities WHERE id = weaker AND value = '1'"
        )
        await migrate_again(pipeline)
        owned = await pipeline.pool.fetchval("SELECT count(owner_kind) FROM object_owners WHERE is_identity")
        assert (owned, await pipeline.pool.fetchval("SELECT count(*) FROM object_owners")) == (0, 2)
        assert {"shopify_order:1", "shopify_order:2"} <= await identities(pipeline)
        await pipeline.send([order(2, userId="u2") | {"messageId": "of the owner"}])
        await pipeline.send([refund(2)])
        assert (await customers(pipeline))["user_id:u2"] == {"Order Completed", "Order Refunded"}


async def test_deferred_refund_finds_its_order(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_pipeline(database_url, NOW) as pipeline:
        with monkeypatch.context() as patched:
            patched.setattr(object_owners, "OBJECT_KINDS", frozenset())
            await pipeline.send([refund(7)])
        await pipeline.pool.execute(
            """
            INSERT INTO deferred (key, identity_id, message_id, source, received_at, reason)
            SELECT l.key, t.identity_id, t.message_id, t.source, t.received_at, 'RuntimeError'
            FROM ledger l, touchpoints t
            """
        )
        await pipeline.pool.execute("DELETE FROM identities; DELETE FROM customers")
        await migrate_again(pipeline)
        await pipeline.send([order(7)])
        await pipeline.worker.project_deferred()
        assert await customers(pipeline) == {"user_id:u1": {"Order Completed", "Order Refunded"}}
