"""The few requests that we make ourselves: to addresses that a tool names and whose host its adapter has checked."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import httpx

from app.errors import Overloaded

_SECONDS_MAX: Final = 5.0
_BYTES_MAX: Final = 100_000
_CACHE_ENTRIES_MAX: Final = 32
_RETRY_SECONDS: Final = 30


class OutboundClient:
    """``transport`` is the network; tests hand in another."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._client = httpx.AsyncClient(transport=transport, timeout=_SECONDS_MAX, follow_redirects=False)
        self._cache: OrderedDict[str, bytes] = OrderedDict()

    async def close(self) -> None:
        await self._client.aclose()

    async def get_cached(self, url: str) -> bytes:
        """What stands at an address and never changes, as certificates do not. Raises :class:`Overloaded`.

        What was used last is kept longest, so that nobody pushes out what is in use by naming many others.
        """
        if url not in self._cache:
            self._cache[url] = await self.get(url)
            while len(self._cache) > _CACHE_ENTRIES_MAX:
                self._cache.popitem(last=False)
        self._cache.move_to_end(url)
        return self._cache[url]

    async def get(self, url: str) -> bytes:
        """GET, without following redirects. Raises :class:`Overloaded` where that fails: the tool tries again."""
        try:
            async with self._client.stream("GET", url) as response:
                response.raise_for_status()
                body = b""
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > _BYTES_MAX:
                        raise Overloaded(f"{httpx.URL(url).host} answered with too much.", _RETRY_SECONDS)
                return body
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Overloaded(
                f"The tool's own address cannot be reached ({type(error).__name__}).", _RETRY_SECONDS
            ) from None
