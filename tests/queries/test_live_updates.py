"""Open streams as the poller sees them: who ends, who is told in spite of others, and how many one visitor may have."""

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

SHARED = 20
"""Streams that one visitor may have."""


def streams_of(service: RunningApp) -> LiveUpdates:
    streams: LiveUpdates = service.app.state.services.live_updates
    return streams


async def watching(service: RunningApp, page: WebPage, stack: ExitStack, **more: Any) -> VisitorStream:
    """A stream of this page, as the route opens it, after its first answer."""
    await page.send(did("Looked"))
    signing = service.app.state.services.registry.access.current.signing_keys
    visitor = read_token(page.token, signing, "default", service.clock.now())
    watched = stack.enter_context(streams_of(service).open_stream(visitor, page.key, **more))
    assert await watched.wait_for_profile(5) is not None
    return watched


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_revoked_signing_secret_ends_the_streams_of_its_tokens(service: RunningApp) -> None:
    registry = service.app.state.services.registry
    with ExitStack() as stack:
        old = await watching(service, WebPage(service), stack)
        await registry.keys.renew_signing_key()
        await asyncio.sleep(0.6)
        assert not old.is_closed, "a secret that is followed by another still holds"
        await registry.keys.renew_signing_key(revoke=True)
        await until(lambda: old.is_closed)
        new = await watching(service, WebPage(service), stack)
        await asyncio.sleep(0.6)
        assert not new.is_closed


async def test_a_page_that_the_key_is_no_longer_for_ends_its_stream(service: RunningApp) -> None:
    (key,) = [each for each in (await service.ask("/v1/keys"))["items"] if each["kind"] == "write"]
    with ExitStack() as stack:
        inside = await watching(service, WebPage(service), stack, origin="https://a.example.org")
        outside = await watching(service, WebPage(service), stack, origin=ORIGIN)
        server = await watching(service, WebPage(service, origin=None), stack)
        await service.tell("PUT", f"/v1/keys/{key['id']}", {"origins": ["https://*.example.org"]})
        await until(lambda: outside.is_closed)
        await asyncio.sleep(0.6)
        assert (inside.is_closed, server.is_closed) == (False, False)


async def test_a_customer_who_cannot_be_read_keeps_nobody_waiting(service: RunningApp) -> None:
    """The row of one is spoilt: its stream ends, those of the others say what is new."""
    pool = service.app.state.services.pool
    await service.tell("POST", "/v1/segments", {"key": "vip", "public": True, "rule": {"did": "Bought"}}, 201)
    with ExitStack() as stack:
        pages = [WebPage(service) for _ in range(3)]
        spoilt, *others = [await watching(service, page, stack) for page in pages]
        customer = UUID((await service.ask(f"/v1/customers/anonymous_id:{pages[0].id}"))["id"])
        await pool.execute("UPDATE customers SET state = 'spoilt'::bytea WHERE id = $1", customer.bytes)
        for page in pages[1:]:
            await page.send(did("Bought"))
        for watched in others:
            async with asyncio.timeout(5):
                while (answer := await watched.wait_for_profile(5)) is None or not answer.segments:
                    assert not watched.is_closed
        await until(lambda: spoilt.is_closed)
        assert not any(watched.is_closed for watched in others)


async def test_a_database_that_is_away_ends_no_stream(service: RunningApp, monkeypatch: Any) -> None:
    with ExitStack() as stack:
        page = WebPage(service)
        watched = await watching(service, page, stack)

        async def away(*_: Any) -> None:
            raise UNREACHABLE[0]

        with monkeypatch.context() as broken:
            broken.setattr(streams_of(service)._customers, "customers", away)
            await page.send(did("Bought"))
            await asyncio.sleep(0.5)
        assert not watched.is_closed


async def test_one_visitor_has_so_many_streams_and_others_have_theirs(service: RunningApp) -> None:
    with ExitStack() as stack:
        page, other = WebPage(service), WebPage(service)
        for _ in range(SHARED):
            await watching(service, page, stack)
        refused = await ask_for_stream(service, page)
        assert is_problem(refused, 429, "rate_limited")
        assert refused.headers["retry-after"].isdecimal()
        await watching(service, other, stack)
        streams_of(service).refuse_if_full((await watching(service, other, stack)).visitor)
    await page.send(did("Looked"))
    signing = service.app.state.services.registry.access.current.signing_keys
    streams_of(service).refuse_if_full(read_token(page.token, signing, "default", service.clock.now()))


async def ask_for_stream(service: RunningApp, page: WebPage) -> Any:
    """Only for one that is refused: an answer that goes on for ever would be waited for here."""
    asked = {"writeKey": page.key, "token": page.token}
    async with asyncio.timeout(10):
        return await service.client.get("/v1/me/stream", params=asked, headers={"Origin": ORIGIN})
