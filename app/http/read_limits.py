"""Bounds on each request of the background process: time, memory, and the patience of the caller."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import ReadTimedOut, ReadTooLarge, SegueError
from app.http.responses import problem_response

_REMEDY: Final = "Read less at once: a sample, `within_ms`, or a shorter list."


class ReadLimitsMiddleware:
    """Runs each request as a task, which is cancelled when the caller disconnects or the request exceeds a limit.

    The serving process sends bodies in one piece, so the whole body is read first.
    """

    def __init__(self, app: ASGIApp, seconds_max: float) -> None:
        self._app = app
        self._seconds_max = seconds_max
        self._running: set[asyncio.Task[None]] = set()
        self._is_out_of_memory = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        response = _Response(send)
        error = await self._run(scope, receive, response)
        if error is not None and not response.has_started:
            await problem_response(error)(scope, receive, send)

    def refuse_for_memory(self) -> None:
        """End all running requests, and refuse new ones, because the process is about to restart."""
        self._is_out_of_memory = True
        for task in self._running:
            task.cancel()

    async def _run(self, scope: Scope, receive: Receive, response: _Response) -> SegueError | None:
        """Run the request; return the limit that it exceeded, or None."""
        body = _Body(receive)
        await body.read()
        read = asyncio.create_task(_run_app(self._app, scope, body.receive, response.send))
        disconnect = asyncio.create_task(body.wait_for_disconnect())
        self._running.add(read)
        try:
            await asyncio.wait((read, disconnect), timeout=self._seconds_max, return_when=asyncio.FIRST_COMPLETED)
            if self._is_out_of_memory:
                return ReadTooLarge(f"The background process reached its memory limit. {_REMEDY}")
            if read.done():
                read.result()
                return None
            if disconnect.done():
                return None
            return ReadTimedOut(f"The read took longer than {self._seconds_max:g} seconds. {_REMEDY}")
        finally:
            self._running.discard(read)
            for task in (read, disconnect):
                task.cancel()
            await asyncio.wait((read, disconnect))


async def _run_app(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


class _Body:
    """The body of a request, read in advance, so that the only message that can follow is a disconnect."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: list[Message] = []
        self._disconnected = asyncio.Event()

    async def read(self) -> None:
        while True:
            message = await self._receive()
            self._messages.append(message)
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                break
        self._messages.reverse()

    async def wait_for_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._disconnected.set()

    async def receive(self) -> Message:
        if self._messages:
            return self._messages.pop()
        await self._disconnected.wait()
        return {"type": "http.disconnect"}


class _Response:
    """Notes whether the response has started, because an error response is then impossible."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_started = False

    async def send(self, message: Message) -> None:
        self.has_started = True
        await self._send(message)
