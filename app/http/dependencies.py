"""Services that request handlers use, and how a handler gets them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final, cast

from starlette.requests import Request

from app.config import Settings
from app.http.background_reads import BackgroundReads
from app.http.heavy_reads import HeavyReads
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

_MEMBER_LISTS_MAX: Final = 3


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
    heavy_reads: HeavyReads
    background_reads: BackgroundReads | None
    """Forwards reads to the background process; None if this process answers every read itself."""
    member_list_slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_MEMBER_LISTS_MAX))
    """Limits concurrent member lists and counts, which are slow during a backfill and hold a connection."""


def get_services(request: Request) -> Services:
    return cast(Services, request.scope["app"].state.services)
