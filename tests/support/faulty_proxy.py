"""A real HTTP server in front of Segue that misbehaves as told: what SDKs meet on a bad day."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from ssl import SSLContext
from typing import Literal

Fault = Literal["pass", "busy", "swallow"]
"""Pass a request through; answer 503 with Retry-After: 1; or pass it through and hang up before the answer."""

_QUIET_ROUNDS = 3

_BUSY = (
    "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {retry_after}\r\nContent-Type: application/json\r\n"
    "Access-Control-Allow-Origin: {origin}\r\nAccess-Control-Allow-Credentials: true\r\n"
    "Access-Control-Expose-Headers: Retry-After\r\nContent-Length: 15\r\nConnection: close\r\n\r\n"
    '{{"code":"busy"}}'
)
"""Pages may read it, as they may read the 503 of Segue itself."""


class FaultyProxy:
    """``moods`` are for the next requests, in turn; later ones pass. ``met`` says how it went, request by request.

    Only requests with a body have moods: what fetches a script or asks for leave to send (a preflight) just passes.
    """

    def __init__(self, upstream_port: int, moods: Sequence[Fault], scheme: str = "http") -> None:
        self.met: list[Fault] = []
        self.heads: list[bytes] = []
        self.moods = list(moods)
        self.retry_after_seconds = 1
        self.port = 0
        self._upstream_port = upstream_port
        self._scheme = scheme

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Browsers open connections in reserve, go away, and are still there when the proxy ends.
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            await self._answer(reader, writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        mood: Fault = "pass"
        if has_body := not head.startswith((b"GET ", b"OPTIONS ")):
            mood = self.moods.pop(0) if self.moods else "pass"
            self.met.append(mood)
            self.heads.append(head.lower())
        body = await reader.readexactly(_length(head)) if has_body else b""
        answer = self._busy(head) if mood == "busy" else await self._forward(head, body)
        if mood != "swallow":
            writer.write(answer)
            await writer.drain()

    def _busy(self, head: bytes) -> bytes:
        origin = _value(head, b"origin") or b"*"
        return _BUSY.format(retry_after=self.retry_after_seconds, origin=origin.decode()).encode()

    async def _forward(self, head: bytes, body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        try:
            lines = [line for line in head.split(b"\r\n") if line and not line.lower().startswith(b"connection:")]
            writer.write(b"\r\n".join([*lines, b"Connection: close", b"", b""]) + body)
            await writer.drain()
            return await reader.read()
        finally:
            writer.close()


@contextmanager
def running_proxy(port: int, *moods: Fault, tls: SSLContext | None = None) -> Iterator[FaultyProxy]:
    """Runs in a thread of its own, so that SDKs that block may be tested. With ``tls`` it ends that, as proxies do."""
    proxy = FaultyProxy(port, moods, "http" if tls is None else "https")
    ready, enough = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with await asyncio.start_server(proxy.handle, "127.0.0.1", 0, ssl=tls) as server:
            proxy.port = server.sockets[0].getsockname()[1]
            ready.set()
            await enough.wait()
            server.close()
            await _end_the_others()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()], name="proxy", daemon=True)
    thread.start()
    try:
        ready.wait()
        yield proxy
    finally:
        loop.call_soon_threadsafe(enough.set)
        thread.join()
        loop.close()


async def _end_the_others() -> None:
    """Pages are closed while something of theirs is still on its way: end it, until nothing has come for a while."""
    quiet = 0
    while quiet < _QUIET_ROUNDS:
        await asyncio.sleep(0.02)  # what was accepted just now gets as far as to be closed
        others = asyncio.all_tasks() - {asyncio.current_task()}
        quiet = 0 if others else quiet + 1
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


def _length(head: bytes) -> int:
    if (length := _value(head, b"content-length")) is None:
        raise ValueError("the SDK sent a body of unknown length")
    return int(length)


def _value(head: bytes, wanted: bytes) -> bytes | None:
    """Of a header; the name in lower case."""
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == wanted:
            return value.strip()
    return None
