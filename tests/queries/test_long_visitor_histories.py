"""Profiles of visitors with long histories: the process that serves ingestion leaves their replays to another one."""

from __future__ import annotations

import pytest

from app.projection.state import count_messages
from app.queries.replay_limit import HeavyRead
from app.queries.visitor_customers import VisitorCustomer, VisitorCustomers
from app.registry.visitor_tokens import Visitor
from app.touchpoint import HOUR
from tests.support.running_app import RunningApp
from tests.support.web_page import WebPage, did

MESSAGES = 20


async def read_profile(service: RunningApp, page: WebPage, messages_max: int) -> VisitorCustomer:
    services = service.app.state.services
    settings = services.settings.model_copy(update={"read_messages_max": messages_max})
    now = services.clock.now()
    visitor = Visitor("default", now + HOUR, page.id)
    (part,) = await VisitorCustomers(services.pool, services.registry, settings).read([(visitor, False)], now)
    return part


async def test_stale_long_history_is_a_heavy_read(service: RunningApp) -> None:
    page = WebPage(service)
    await page.send(*(did("Product Viewed", price=number) for number in range(MESSAGES)))
    await service.app.state.services.pool.execute("UPDATE customers SET stale = true")
    with pytest.raises(HeavyRead):
        await read_profile(service, page, MESSAGES - 1)
    part = await read_profile(service, page, MESSAGES)
    assert part.customer is not None


async def test_own_long_history_beside_a_foreign_message_is_a_heavy_read(service: RunningApp) -> None:
    page = WebPage(service)
    await page.send(*(did("Product Viewed", price=number) for number in range(MESSAGES)))
    await service.send({"type": "track", "userId": "user-1", "event": "Order Completed"})
    await page.send({"type": "identify", "userId": "user-2"})
    await service.send({"type": "track", "userId": "user-2", "event": "Order Completed"})
    with pytest.raises(HeavyRead):
        await read_profile(service, page, MESSAGES - 1)
    assert (await read_profile(service, page, MESSAGES + 1)).customer is not None


async def test_foreign_long_history_does_not_make_the_own_one_heavy(service: RunningApp) -> None:
    page = WebPage(service)
    await page.send(did("Product Viewed"), {"type": "identify", "userId": "user-2"})
    for number in range(MESSAGES):
        await service.send(
            {"type": "track", "userId": "user-2", "event": "Order Completed", "messageId": f"m-{number}"}
        )
    state = await service.app.state.services.pool.fetchval("SELECT state FROM customers")
    assert count_messages(state) > MESSAGES
    assert (await read_profile(service, page, 5)).customer is not None
