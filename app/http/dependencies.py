"""What the handlers of one application work with."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, cast

from starlette.requests import Request

from app.config import Settings
from app.errors import Overloaded
from app.http.outbound_client import OutboundClient
from app.http.rate_limits import RateLimits
from app.ingest.submit import Ingest
from app.observability.metrics import Metrics
from app.postgres.pool import Clock, Pool
from app.queries.live_updates import LiveUpdates
from app.registry.registry import Registry
from app.registry.segment_usage import SegmentUsage

_AT_A_TIME: Final = 2
_RETRY_SECONDS: Final = 5
_LISTS_AT_A_TIME: Final = 3


class HeavyReadSlots:
    """So many requests that look at the whole base may run at a time; the next is turned away and may come again."""

    def __init__(self, free: int = _AT_A_TIME) -> None:
        self._free = free

    @contextmanager
    def one(self) -> Iterator[None]:
        """Raises :class:`Overloaded`."""
        if not self._free:
            raise Overloaded(
                f"{_AT_A_TIME} questions about the whole base are being answered; ask again later.", _RETRY_SECONDS
            )
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


@dataclass(frozen=True, slots=True)
class Services:
    settings: Settings
    clock: Clock
    metrics: Metrics
    pool: Pool
    registry: Registry
    ingest: Ingest
    segment_usage: SegmentUsage
    rate_limits: RateLimits
    live_updates: LiveUpdates
    outbound: OutboundClient
    heavy_read_slots: HeavyReadSlots = field(default_factory=HeavyReadSlots)
    member_lists: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_LISTS_AT_A_TIME))
    """While a segment is being filled a count looks at many customers: connections must be left for messages."""


def get_services(request: Request) -> Services:
    return cast(Services, request.scope["app"].state.services)
