"""HTTP client for the few outbound requests: to URLs that a tool supplies, after its connector checked the host."""

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
    """HTTP client with a timeout, a size limit and a small cache. Tests pass a ``transport`` to replace the network."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._client = httpx.AsyncClient(transport=transport, timeout=_SECONDS_MAX, follow_redirects=False)
        self._cache: OrderedDict[str, bytes] = OrderedDict()

    async def close(self) -> None:
        await self._client.aclose()

    async def get_cached(self, url: str) -> bytes:
        """Return the body at a URL whose content never changes, such as a certificate. Raise :class:`Overloaded`.

        The cache evicts the least recently used entry, so that requests for many other URLs do not evict one in use.
        """
        if url not in self._cache:
            self._cache[url] = await self.get(url)
            while len(self._cache) > _CACHE_ENTRIES_MAX:
                self._cache.popitem(last=False)
        self._cache.move_to_end(url)
        return self._cache[url]

    async def get(self, url: str) -> bytes:
        """GET without following redirects. Raise :class:`Overloaded` on failure, so that the tool retries."""
        try:
            async with self._client.stream("GET", url) as response:
                response.raise_for_status()
                body = b""
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > _BYTES_MAX:
                        raise Overloaded(
                            f"The response of {httpx.URL(url).host} is larger than {_BYTES_MAX} bytes.", _RETRY_SECONDS
                        )
                return body
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Overloaded(
                f"The request to the tool's URL failed ({type(error).__name__}).", _RETRY_SECONDS
            ) from None
