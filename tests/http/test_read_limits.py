"""Limits of one read in the background process: time, memory, and the connection of the caller."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from app.http.read_limits import ReadLimitsMiddleware


class EndlessRead:
    """An application whose requests wait until they are cancelled."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.body = b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, send
        self.body = (await receive())["body"]
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()


class Caller:
    """The connection of a caller that sends one body, and disconnects when the test calls `disconnect`."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._messages.put_nowait({"type": "http.request", "body": b"{}", "more_body": False})
        self.responses: list[Message] = []

    def disconnect(self) -> None:
        self._messages.put_nowait({"type": "http.disconnect"})

    async def request(self, app: ReadLimitsMiddleware) -> None:
        async def send(message: Message) -> None:
            self.responses.append(message)

        scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/", "headers": []}
        await app(scope, self._messages.get, send)

    @property
    def refusal(self) -> tuple[int, str]:
        start, body = self.responses
        return start["status"], json.loads(body["body"])["code"]


@pytest.fixture
def read() -> EndlessRead:
    return EndlessRead()


async def test_late_read_is_cancelled_and_answered_504(read: EndlessRead) -> None:
    caller = Caller()
    await caller.request(ReadLimitsMiddleware(read, 0.05))
    assert caller.refusal == (504, "read_timed_out")
    assert read.cancelled.is_set()
    assert read.body == b"{}"


async def test_read_is_cancelled_when_its_caller_disconnects(read: EndlessRead) -> None:
    caller = Caller()
    request = asyncio.create_task(caller.request(ReadLimitsMiddleware(read, 60)))
    await read.started.wait()
    caller.disconnect()
    await request
    assert read.cancelled.is_set()
    assert caller.responses == []


async def test_running_reads_are_refused_at_the_memory_limit(read: EndlessRead) -> None:
    caller, app = Caller(), ReadLimitsMiddleware(read, 60)
    request = asyncio.create_task(caller.request(app))
    await read.started.wait()
    app.refuse_for_memory()
    await request
    assert caller.refusal == (503, "read_too_large")
    assert not any(
        message.get("headers") and b"retry-after" in dict(message["headers"]) for message in caller.responses
    )


async def test_failure_of_the_application_is_raised() -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive, send
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Caller().request(ReadLimitsMiddleware(fail, 60))
