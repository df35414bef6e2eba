"""Forwarding of heavy reads: pages, which anyone can open, may occupy only a part of the places."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.types import Message

from app.errors import Overloaded
from app.http.background_reads import FORWARDED_MAX, PAGES_FORWARDED_MAX, BackgroundReads

pytestmark = pytest.mark.server  # The tests open Unix sockets.


@pytest.fixture
async def busy_reads(tmp_path: Path) -> AsyncIterator[BackgroundReads]:
    """Return a client of a background process that accepts requests and never responds."""

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(wait, tmp_path / "background")
    reads = BackgroundReads(tmp_path / "background", lambda: True)
    yield reads
    await reads.close()
    server.close()


def build_request() -> Request:
    async def wait_for_disconnect() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "headers": []}
    return Request(scope, wait_for_disconnect)


async def test_pages_leave_places_for_other_reads(busy_reads: BackgroundReads) -> None:
    waiting = [
        asyncio.create_task(busy_reads.forward(build_request(), is_from_page=True)) for _ in range(PAGES_FORWARDED_MAX)
    ]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="pages"):
        await busy_reads.forward(build_request(), is_from_page=True)
    waiting += [
        asyncio.create_task(busy_reads.forward(build_request())) for _ in range(FORWARDED_MAX - PAGES_FORWARDED_MAX)
    ]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="long histories already wait"):
        await busy_reads.forward(build_request())
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    last = asyncio.create_task(busy_reads.forward(build_request(), is_from_page=True))
    await asyncio.sleep(0.05)
    assert not last.done()
    last.cancel()
