"""Live updates: when streams close, failures that must not affect other streams, and the limit by visitor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from uuid import UUID

from app.postgres.pool import UNREACHABLE
from app.queries.live_updates import LiveUpdates, VisitorStream
from app.registry.visitor_tokens import verify_token as read_token
from tests.support.running_app import RunningApp, is_problem
from tests.support.web_page import ORIGIN, WebPage, did

STREAMS_PER_VISITOR = 20
"""Maximum number of open streams of one visitor."""


def live_updates_of(service: RunningApp) -> LiveUpdates:
    live_updates: LiveUpdates = service.app.state.services.live_updates
    return live_updates


async def open_stream(service: RunningApp, page: WebPage, stack: ExitStack, **options: Any) -> VisitorStream:
    """Open a stream for the page as the route does, and wait for its first profile."""
    await page.send(did("Looked"))
    signing = service.app.state.services.registry.access.current.signing_keys
    visitor = read_token(page.token, signing, "default", service.clock.now())
    stream = stack.enter_context(live_updates_of(service).open_stream(visitor, page.key, **options))
    assert await stream.wait_for_profile(5) is not None
    return stream


async def wait_until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.02)


async def test_revoked_signing_secret_closes_its_streams(service: RunningApp) -> None:
    registry = service.app.state.services.registry
    with ExitStack() as stack:
        old = await open_stream(service, WebPage(service), stack)
        await registry.keys.renew_signing_key()
        await asyncio.sleep(0.6)
        assert not old.is_closed, "a secret stays valid after a newer one is created"
        await registry.keys.renew_signing_key(revoke=True)
        await wait_until(lambda: old.is_closed)
        new = await open_stream(service, WebPage(service), stack)
        await asyncio.sleep(0.6)
        assert not new.is_closed


async def test_removed_origin_closes_its_streams(service: RunningApp) -> None:
    (key,) = [entry for entry in (await service.ask("/v1/keys"))["items"] if entry["kind"] == "write"]
    with ExitStack() as stack:
        inside = await open_stream(service, WebPage(service), stack, origin="https://a.example.org")
        outside = await open_stream(service, WebPage(service), stack, origin=ORIGIN)
        server = await open_stream(service, WebPage(service, origin=None), stack)
        await service.tell("PUT", f"/v1/keys/{key['id']}", {"origins": ["https://*.example.org"]})
        await wait_until(lambda: outside.is_closed)
        await asyncio.sleep(0.6)
        assert (inside.is_closed, server.is_closed) == (False, False)


async def test_unreadable_customer_does_not_block_other_streams(service: RunningApp) -> None:
    """The row of one customer is corrupt. Its stream closes, and the other streams receive updates."""
    pool = service.app.state.services.pool
    await service.tell("POST", "/v1/segments", {"key": "vip", "public": True, "rule": {"did": "Bought"}}, 201)
    with ExitStack() as stack:
        pages = [WebPage(service) for _ in range(3)]
        broken, *others = [await open_stream(service, page, stack) for page in pages]
        customer = UUID((await service.ask(f"/v1/customers/anonymous_id:{pages[0].id}"))["id"])
        await pool.execute("UPDATE customers SET state = 'corrupt'::bytea WHERE id = $1", customer.bytes)
        for page in pages[1:]:
            await page.send(did("Bought"))
        for stream in others:
            async with asyncio.timeout(5):
                while (profile := await stream.wait_for_profile(5)) is None or not profile.segments:
                    assert not stream.is_closed
        await wait_until(lambda: broken.is_closed)
        assert not any(stream.is_closed for stream in others)


async def test_unreachable_database_closes_no_stream(service: RunningApp, monkeypatch: Any) -> None:
    with ExitStack() as stack:
        page = WebPage(service)
        stream = await open_stream(service, page, stack)

        async def fail(*_: Any) -> None:
            raise UNREACHABLE[0]

        with monkeypatch.context() as patched:
            patched.setattr(live_updates_of(service)._visitor_customers, "read", fail)
            await page.send(did("Bought"))
            await asyncio.sleep(0.5)
        assert not stream.is_closed


async def test_streams_of_one_visitor_are_limited(service: RunningApp) -> None:
    with ExitStack() as stack:
        page, other = WebPage(service), WebPage(service)
        for _ in range(STREAMS_PER_VISITOR):
            await open_stream(service, page, stack)
        response = await request_stream(service, page)
        assert is_problem(response, 429, "rate_limited")
        assert response.headers["retry-after"].isdecimal()
        await open_stream(service, other, stack)
        live_updates_of(service).refuse_if_full((await open_stream(service, other, stack)).visitor)
    await page.send(did("Looked"))
    signing = service.app.state.services.registry.access.current.signing_keys
    live_updates_of(service).refuse_if_full(read_token(page.token, signing, "default", service.clock.now()))


async def request_stream(service: RunningApp, page: WebPage) -> Any:
    """Request a stream that must be refused. The request would never end if the stream were accepted."""
    params = {"writeKey": page.key, "token": page.token}
    async with asyncio.timeout(10):
        return await service.client.get("/v1/me/stream", params=params, headers={"Origin": ORIGIN})
