"""Forwarding of heavy reads to the background process, over a Unix socket.

A handler that finds its read too heavy raises :class:`app.queries.replay_limit.HeavyRead`. The exception handler then
forwards the whole request to the same route in the background process, and returns its response.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx
from starlette.requests import Request
from starlette.responses import Response

from app.errors import Overloaded
from app.http.bodies import KEPT_BODY
from app.http.disconnects import run_until_disconnect

FORWARDED_MAX: Final = 16
"""Maximum number of reads that wait for the background process at a time."""

PAGES_FORWARDED_MAX: Final = 4
"""Maximum number of reads of pages among them."""

_CONNECT_SECONDS_MAX: Final = 5.0
"""Time to wait for a background process that starts: longer than a start, shorter than the patience of a client."""

_RETRY_SECONDS: Final = 2
_METRICS_SECONDS_MAX: Final = 1.0

_HOP_HEADERS: Final = frozenset(
    (
        b"connection", b"content-length", b"expect", b"host", b"keep-alive", b"proxy-authenticate",
        b"proxy-authorization", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    )
)  # fmt: skip
"""Headers of one connection, which are not forwarded. A request gets new values of them, a response too."""

_BASE_URL: Final = httpx.URL("http://background")


class BackgroundReads:
    """Client of the background process that listens on ``socket``."""

    def __init__(self, socket: Path, is_running: Callable[[], bool]) -> None:
        self.is_running = is_running
        self._http = httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(socket)), timeout=None)
        self._forwarded: set[asyncio.Task[Response]] = set()
        self._of_pages: set[asyncio.Task[Response]] = set()
        self._is_stopping = False

    async def close(self) -> None:
        await self._http.aclose()

    def cancel_all(self) -> None:
        """Answer all forwarded requests with 503, because this process stops."""
        self._is_stopping = True
        for task in self._forwarded:
            task.cancel()

    async def forward(self, request: Request, *, is_from_page: bool = False) -> Response:
        """Return the response of the background process; give up the read if the client disconnects.

        Raises:
            Overloaded: too many reads wait, or the background process does not run or has stopped.
        """
        if self._is_stopping:
            raise Overloaded("The server is stopping.", _RETRY_SECONDS)
        if len(self._forwarded) >= FORWARDED_MAX:
            raise Overloaded(f"{FORWARDED_MAX} reads of long histories already wait; try again later.", _RETRY_SECONDS)
        if is_from_page and len(self._of_pages) >= PAGES_FORWARDED_MAX:
            raise Overloaded("Too many pages wait for visitors with long histories; try again later.", _RETRY_SECONDS)
        task = asyncio.create_task(self._send(request))
        self._forwarded.add(task)
        if is_from_page:
            self._of_pages.add(task)
        try:
            return await run_until_disconnect(request, _result_of(task))
        except asyncio.CancelledError:
            if self._is_stopping:
                raise Overloaded("The server is stopping.", _RETRY_SECONDS) from None
            raise
        finally:
            self._forwarded.discard(task)
            self._of_pages.discard(task)
            task.cancel()

    async def read_metrics(self) -> str | None:
        """Return the metrics of the background process, or None if it does not answer."""
        try:
            response = await self._http.get(_BASE_URL.copy_with(path="/metrics"), timeout=_METRICS_SECONDS_MAX)
        except httpx.TransportError:
            return None
        return response.text

    async def _send(self, request: Request) -> Response:
        raw_path, query = request.scope["raw_path"], request.scope["query_string"]
        message = self._http.build_request(
            request.method,
            _BASE_URL.copy_with(raw_path=raw_path + b"?" + query if query else raw_path),
            headers=[header for header in request.headers.raw if header[0] not in _HOP_HEADERS],
            content=request.scope.get(KEPT_BODY, b""),
        )
        try:
            response = await self._send_when_it_listens(message)
        except httpx.TransportError:
            raise Overloaded(
                "The background process stopped while it computed the response; try again later.", _RETRY_SECONDS
            ) from None
        forwarded = Response(response.content, response.status_code)
        forwarded.raw_headers = [
            (name.lower(), value) for name, value in response.headers.raw if name.lower() not in _HOP_HEADERS
        ]
        if response.status_code not in (204, 304):
            forwarded.headers["content-length"] = str(len(response.content))
        return forwarded

    async def _send_when_it_listens(self, message: httpx.Request) -> httpx.Response:
        """Send the request; while the background process starts, wait for it."""
        deadline = time.monotonic() + _CONNECT_SECONDS_MAX
        while True:
            try:
                return await self._http.send(message)
            except httpx.ConnectError:
                if time.monotonic() >= deadline:
                    raise Overloaded(
                        "The background process, which answers this read, is not running; try again later.",
                        _RETRY_SECONDS,
                    ) from None
            await asyncio.sleep(0.05)


async def _result_of(task: asyncio.Task[Response]) -> Response:
    return await task
