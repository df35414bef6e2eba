"""Services that request handlers use, and how a handler gets them."""

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
from app.postgres.write_probe import WriteProbe
from app.queries.live_updates import LiveUpdates
from app.registry.key_usage import KeyUsage
from app.registry.registry import Registry
from app.registry.segment_usage import SegmentUsage

_HEAVY_READS_MAX: Final = 2
_RETRY_SECONDS: Final = 5
_MEMBER_LISTS_MAX: Final = 3


class HeavyReadSlots:
    """Concurrency limit for reads that scan all customers. A request beyond it is refused and can be retried."""

    def __init__(self, slots: int = _HEAVY_READS_MAX) -> None:
        self._free_slots = slots

    @contextmanager
    def acquire(self) -> Iterator[None]:
        """Hold one slot. Raise :class:`Overloaded` if none is free."""
        if not self._free_slots:
            raise Overloaded(
                f"{_HEAVY_READS_MAX} reads over all customers are already running; try again later.",
                _RETRY_SECONDS,
            )
        self._free_slots -= 1
        try:
            yield
        finally:
            self._free_slots += 1


@dataclass(frozen=True, slots=True)
class Services:
    """The services of one application."""

    settings: Settings
    clock: Clock
    metrics: Metrics
    pool: Pool
    registry: Registry
    ingest: Ingest
    segment_usage: SegmentUsage
    key_usage: KeyUsage
    rate_limits: RateLimits
    live_updates: LiveUpdates
    outbound: OutboundClient
    write_probe: WriteProbe
    heavy_read_slots: HeavyReadSlots = field(default_factory=HeavyReadSlots)
    member_list_slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_MEMBER_LISTS_MAX))
    """Limits concurrent member lists and counts, which are slow during a backfill and hold a connection."""


def get_services(request: Request) -> Services:
    return cast(Services, request.scope["app"].state.services)
