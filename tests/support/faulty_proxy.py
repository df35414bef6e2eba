"""HTTP proxy in front of Segue that injects faults, for tests of how SDKs retry."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from ssl import SSLContext
from typing import Final, Literal

Fault = Literal["pass", "busy", "swallow"]
"""Fault of one request.

``pass`` forwards the request. ``busy`` responds with 503. ``swallow`` forwards the request, but closes the connection
before the response.
"""

_CLOSE_SECONDS_MAX: Final = 1.0
_IDLE_LOOP_TURNS: Final = 5
"""Number of turns of the event loop to wait, because an aborted transport closes its socket in a later turn."""

_BUSY = (
    "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {retry_after}\r\nContent-Type: application/json\r\n"
    "Access-Control-Allow-Origin: {origin}\r\nAccess-Control-Allow-Credentials: true\r\n"
    "Access-Control-Expose-Headers: Retry-After\r\nContent-Length: 15\r\nConnection: close\r\n\r\n"
    '{{"code":"busy"}}'
)
"""Response to a request with the fault ``busy``. Its CORS headers let pages read it, like a 503 of Segue itself."""


class FaultyProxy:
    """Proxy to a local port. Each request takes the next fault of ``faults``; later requests pass.

    ``injected`` contains the fault of each request, and ``heads`` its request line and headers in lower case. GET and
    OPTIONS requests (scripts and preflights) always pass and are not recorded.
    """

    def __init__(self, upstream_port: int, faults: Sequence[Fault], scheme: str = "http") -> None:
        self.injected: list[Fault] = []
        self.heads: list[bytes] = []
        self.faults = list(faults)
        self.retry_after_seconds = 1
        self.port = 0
        self._upstream_port = upstream_port
        self._scheme = scheme

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handle the one request of a connection, then close the connection. A cancelled call returns early."""
        # Browsers open spare connections and drop them. Some are still open when the proxy stops.
        with suppress(asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            async with _closing(writer):
                await self._answer(reader, writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        fault: Fault = "pass"
        if has_body := not head.startswith((b"GET ", b"OPTIONS ")):
            fault = self.faults.pop(0) if self.faults else "pass"
            self.injected.append(fault)
            self.heads.append(head.lower())
        body = await reader.readexactly(_content_length(head)) if has_body else b""
        answer = self._busy(head) if fault == "busy" else await self._forward(head, body)
        if fault != "swallow":
            writer.write(answer)
            await writer.drain()

    def _busy(self, head: bytes) -> bytes:
        origin = _header(head, b"origin") or b"*"
        return _BUSY.format(retry_after=self.retry_after_seconds, origin=origin.decode()).encode()

    async def _forward(self, head: bytes, body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        async with _closing(writer):
            lines = [line for line in head.split(b"\r\n") if line and not line.lower().startswith(b"connection:")]
            writer.write(b"\r\n".join([*lines, b"Connection: close", b"", b""]) + body)
            await writer.drain()
            return await reader.read()


@asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """Close the connection and wait until it is closed.

    Abort it if the body of the block fails or the client does not complete a TLS shutdown.
    """
    try:
        yield
        writer.close()
        async with asyncio.timeout(_CLOSE_SECONDS_MAX):
            await writer.wait_closed()
    finally:
        writer.transport.abort()


@contextmanager
def running_proxy(port: int, *faults: Fault, tls: SSLContext | None = None) -> Iterator[FaultyProxy]:
    """Run a proxy in a separate thread, because most SDKs block. With ``tls`` the proxy terminates TLS."""
    proxy = FaultyProxy(port, faults, "http" if tls is None else "https")
    is_ready, should_stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with await asyncio.start_server(proxy.handle, "127.0.0.1", 0, ssl=tls) as server:
            proxy.port = server.sockets[0].getsockname()[1]
            is_ready.set()
            await should_stop.wait()
            server.close()
            await _cancel_other_tasks()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()], name="proxy", daemon=True)
    thread.start()
    try:
        is_ready.wait()
        yield proxy
    finally:
        loop.call_soon_threadsafe(should_stop.set)
        thread.join()
        loop.close()


async def _cancel_other_tasks() -> None:
    """Cancel all open connections. The task of a connection that was just accepted starts a few loop turns later."""
    idle_turns = 0
    while idle_turns < _IDLE_LOOP_TURNS:
        await asyncio.sleep(0)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        idle_turns = 0 if others else idle_turns + 1
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


def _content_length(head: bytes) -> int:
    if (length := _header(head, b"content-length")) is None:
        raise ValueError("the request has a body and no Content-Length")
    return int(length)


def _header(head: bytes, lower_name: bytes) -> bytes | None:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == lower_name:
            return value.strip()
    return None
