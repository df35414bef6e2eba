"""A real HTTP server in front of Segue that misbehaves as told: what SDKs meet on a bad day."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

Mood = Literal["pass", "busy", "swallow"]
"""Pass a request through; answer 503 with Retry-After: 1; or pass it through and hang up before the answer."""

_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Type: application/json\r\n"
    b"Content-Length: 15\r\nConnection: close\r\n\r\n" + b'{"code":"busy"}'
)


class Proxy:
    """``moods`` are for the first requests, in turn; later ones pass. ``met`` says how it went, request by request."""

    def __init__(self, upstream_port: int, moods: Sequence[Mood]) -> None:
        self.met: list[Mood] = []
        self.heads: list[bytes] = []
        self.port = 0
        self._upstream_port = upstream_port
        self._moods = list(moods)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        mood = self._moods.pop(0) if self._moods else "pass"
        body = await reader.readexactly(_length(head))
        self.met.append(mood)
        self.heads.append(head.lower())
        answer = _BUSY if mood == "busy" else await self._forward(head, body)
        if mood != "swallow":
            writer.write(answer)
            await writer.drain()
        writer.close()

    async def _forward(self, head: bytes, body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        lines = [line for line in head.split(b"\r\n") if line and not line.lower().startswith(b"connection:")]
        writer.write(b"\r\n".join([*lines, b"Connection: close", b"", b""]) + body)
        await writer.drain()
        answer = await reader.read()
        writer.close()
        return answer


@contextmanager
def proxy_before(port: int, *moods: Mood) -> Iterator[Proxy]:
    """Runs in a thread of its own, so that SDKs that block may be tested."""
    proxy = Proxy(port, moods)
    ready, enough = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with await asyncio.start_server(proxy.handle, "127.0.0.1", 0) as server:
            proxy.port = server.sockets[0].getsockname()[1]
            ready.set()
            await enough.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()], name="proxy", daemon=True)
    thread.start()
    try:
        ready.wait()
        yield proxy
    finally:
        loop.call_soon_threadsafe(enough.set)
        thread.join()
        loop.close()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ValueError("the SDK sent a body of unknown length")
