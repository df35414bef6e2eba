"""Rate limits by write key, address and visitor, counted in this process.

The library ``limits`` does the counting. Its in-memory storage is replaced, because it scans all counters on each
request: 4 ms with 50,000 addresses.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from math import ceil
from typing import Final

from limits import RateLimitItem, parse
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter

from app.config import Settings
from app.errors import RateLimited
from app.touchpoint import SECOND, Trust

COUNTERS_MAX: Final = 100_000
"""Maximum number of counters; beyond it the oldest are evicted, so a client with more addresses evades the limit."""

KEY_SHARES: Final = 100
"""Above the limit of a public key, an address may send the limit divided by this number."""

_SENDERS: Final = {"server_key": "server key", "server_address": "address"}
_NETWORK_BITS: Final = 64


class CounterStorage(Storage):
    """Counters of fixed windows; a window starts with its first request. ``now`` returns microseconds."""

    STORAGE_SCHEME = None

    def __init__(self, now: Callable[[], int], counters_max: int = COUNTERS_MAX) -> None:
        super().__init__()
        self._now = now
        self._counters_max = counters_max
        self._counts: dict[str, tuple[int, int]] = {}
        """Key -> (requests, end of the window), ordered by the start of the window."""

    def __len__(self) -> int:
        return len(self._counts)

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        return ()

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        now = self._now()
        count, end = self._counts.get(key, (0, 0))
        if end <= now:
            self._counts.pop(key, None)
            self._evict_oldest(now)
            count, end = 0, now + expiry * SECOND
        self._counts[key] = count + amount, end
        return count + amount

    async def get(self, key: str) -> int:
        count, end = self._counts.get(key, (0, 0))
        return count if end > self._now() else 0

    async def get_expiry(self, key: str) -> float:
        """Return the end of the window in seconds, the unit of the library."""
        return self._counts.get(key, (0, self._now()))[1] / SECOND

    async def check(self) -> bool:
        return True

    async def reset(self) -> int | None:
        self._counts.clear()
        return None

    async def clear(self, key: str) -> None:
        self._counts.pop(key, None)

    def _evict_oldest(self, now: int) -> None:
        """Remove up to two expired or surplus counters in O(1).

        Each new counter calls it, so more counters are removed than added.
        """
        for _ in range(2):
            oldest = next(iter(self._counts), None)
            if oldest is None or (self._counts[oldest][1] > now and len(self._counts) < self._counters_max):
                return
            del self._counts[oldest]


class RateLimits:
    """The configured rate limits. Each method counts one request and raises :class:`RateLimited` above the limit."""

    def __init__(self, settings: Settings, now: Callable[[], int]) -> None:
        self._now = now
        self._limits = {
            name: (parse(rate), FixedWindowRateLimiter(CounterStorage(now)))
            for name in ("key", "server_key", "address", "server_address", "visitor")
            if (rate := getattr(settings, f"{name}_rate"))
        }
        if "key" in self._limits:
            rate = self._limits["key"][0]
            share = type(rate)(max(rate.amount // KEY_SHARES, 1), rate.multiples)
            self._limits["key_share"] = share, FixedWindowRateLimiter(CounterStorage(now))

    async def count_key(self, write_key: str, trust: Trust, address: str | None = None) -> None:
        """Count a request with a write key.

        Above the limit of a public key, addresses with few requests are still served: anyone can copy the key from a
        page, so one client could otherwise use up the limit of all visitors.
        """
        if trust == "server":
            await self._count_request("server_key", write_key)
            return
        is_small_sender = address is not None and await self._is_within("key_share", write_key, group_address(address))
        if not await self._is_within("key", write_key) and not is_small_sender:
            raise await self._build_error("key", write_key)

    async def count_address(self, address: str | None) -> None:
        """Count a request of a page's visitor."""
        await self._count_address("address", address)

    async def count_server_address(self, address: str | None) -> None:
        """Count a request that does not come from a page, as far as its head shows."""
        await self._count_address("server_address", address)

    async def _count_address(self, name: str, address: str | None) -> None:
        if address is not None and name in self._limits:
            await self._count_request(name, group_address(address))

    async def count_visitor(self, source: str, id: str) -> None:
        await self._count_request("visitor", source, id)

    async def _count_request(self, name: str, *identifiers: str) -> None:
        if not await self._is_within(name, *identifiers):
            raise await self._build_error(name, *identifiers)

    async def _is_within(self, name: str, *identifiers: str) -> bool:
        """Count a request, and return whether it is within the limit. Without a limit, every request is."""
        limit = self._limits.get(name)
        return limit is None or await limit[1].hit(limit[0], *identifiers)

    async def _build_error(self, name: str, *identifiers: str) -> RateLimited:
        rate, limiter = self._limits[name]
        end = await limiter.storage.get_expiry(rate.key_for(*identifiers))
        return RateLimited(
            f"This {_SENDERS.get(name, name)} sent more than {_describe_rate(rate)}; retry after the seconds in "
            "Retry-After.",
            max(1, ceil(end - self._now() / SECOND)),
        )


def _describe_rate(rate: RateLimitItem) -> str:
    return f"{rate.amount} requests per {rate.GRANULARITY.name}"


def group_address(address: str) -> str:
    """Return the address, or for IPv6 its /64 network: one subscriber controls all addresses of a /64."""
    if ":" not in address:
        return address
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{int(parsed) >> (128 - _NETWORK_BITS):x}"
