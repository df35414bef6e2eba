"""Composition root: builds the application from its parts, starts them in order and stops them in reverse."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import httpx
from fastapi import FastAPI

from app import __version__
from app.api import collect, segment_compatible, vendor_sdks, visitor
from app.api.browser_library import add_browser_library_routes
from app.api.channel_metrics import add_channel_metric_routes
from app.api.collect import add_collect_routes
from app.api.connectors import add_connector_routes
from app.api.customerio_track import add_customerio_track_routes
from app.api.customers import add_customer_routes
from app.api.data_quality import add_data_quality_routes
from app.api.definitions import add_definition_routes
from app.api.erasure_requests import add_erasure_request_routes
from app.api.health import add_health_routes
from app.api.openapi_document import DESCRIPTION, TAGS, add_openapi, choose_operation_id
from app.api.quarantine import add_quarantine_routes
from app.api.segment_analysis import add_segment_analysis_routes
from app.api.segment_compatible import add_segment_compatible_routes
from app.api.segments import add_segment_routes
from app.api.sessions import add_session_routes
from app.api.site.routes import add_site_routes
from app.api.sources import add_source_routes
from app.api.tickets import add_ticket_routes
from app.api.vendor_sdks import add_vendor_sdk_routes
from app.api.visitor import add_visitor_routes
from app.api.webhooks import add_webhook_routes
from app.background.process import BackgroundProcess
from app.background.worker import Worker
from app.config import Settings
from app.enrichment import user_agents
from app.enrichment.geoip import open_countries
from app.http.background_reads import BackgroundReads
from app.http.connection_limits import ConnectionLimits
from app.http.dependencies import Services
from app.http.heavy_reads import HeavyReads
from app.http.middleware import IngressMiddleware
from app.http.outbound_client import OutboundClient
from app.http.problems import add_problem_handlers
from app.http.rate_limits import RateLimits
from app.ingest.submit import Ingest
from app.observability.loop_lag import LoopLagProbe
from app.observability.metrics import Metrics
from app.postgres.migrate import asyncpg_url
from app.postgres.partitions import create_monthly_partitions
from app.postgres.pool import Clock, Pool, open_pool
from app.postgres.write_probe import WriteProbe
from app.queries.live_updates import LiveUpdates
from app.queries.replay_limit import UNLIMITED
from app.registry.key_usage import KeyUsage
from app.registry.registry import Registry
from app.registry.segment_usage import SegmentUsage

_OPEN_PATHS: Final[frozenset[str]] = frozenset().union(
    collect.OPEN_PATHS, visitor.OPEN_PATHS, vendor_sdks.OPEN_PATHS, segment_compatible.OPEN_PATHS
)
"""Paths that any web page may call (CORS), collected from the modules that serve them."""
_OPEN_PREFIXES: Final = (*collect.OPEN_PREFIXES, *vendor_sdks.OPEN_PREFIXES, *segment_compatible.OPEN_PREFIXES)


def create_app(
    settings: Settings,
    *,
    clock: Clock | None = None,
    worker: bool = True,
    network: httpx.AsyncBaseTransport | None = None,
    tune_gc: bool = False,
    background: BackgroundProcess | None = None,
    is_background: bool = False,
) -> FastAPI:
    """Build the application for a migrated database.

    Args:
        worker: also expire time-based truths and backfill definitions in this process.
        background: the process that, instead of this one, runs the worker and answers heavy reads.
        is_background: this application is in that process.
        network: replaces the internet, from which the certificates of some tools are downloaded (for tests).
        tune_gc: make garbage collection cheap for a process that runs one application until it exits. Garbage of
            earlier applications in the same process would never be freed.
    """
    if background is None:
        settings = settings.model_copy(update={"read_messages_max": UNLIMITED})
    metrics = Metrics()
    clock = clock or Clock()
    rate_limits = RateLimits(settings, clock.now)
    role = _Role(worker, background, is_background)
    app = FastAPI(
        title="Segue",
        version=__version__,
        description=DESCRIPTION,
        openapi_tags=TAGS,
        lifespan=lambda app: _run_lifespan(
            app, settings, clock, metrics, rate_limits, role, OutboundClient(network), tune_gc
        ),
        redirect_slashes=False,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        generate_unique_id_function=choose_operation_id,
    )
    app.state.connection_limits = ConnectionLimits(settings, metrics)
    # Routes are matched one after another, 0.8 us each: those of the hot path come first.
    add_customer_routes(app)
    add_session_routes(app)
    add_ticket_routes(app)
    add_collect_routes(app)
    add_webhook_routes(app)
    add_visitor_routes(app)
    add_vendor_sdk_routes(app)
    add_segment_compatible_routes(app)
    add_customerio_track_routes(app)
    add_segment_routes(app)
    add_segment_analysis_routes(app)
    add_definition_routes(app)
    add_source_routes(app)
    add_connector_routes(app)
    add_browser_library_routes(app)
    add_data_quality_routes(app)
    add_quarantine_routes(app)
    add_erasure_request_routes(app)
    add_channel_metric_routes(app)
    add_health_routes(app)
    add_site_routes(app)
    add_openapi(app)
    add_problem_handlers(app)
    _add_ingress(app, metrics, rate_limits)
    return app


def _add_ingress(app: FastAPI, metrics: Metrics, rate_limits: RateLimits) -> None:
    app.add_middleware(
        IngressMiddleware,
        metrics=metrics,
        rate_limits=rate_limits,
        has_server_key=lambda key: app.state.services.registry.access.has_server_key(key),
        open_paths=_OPEN_PATHS,
        open_prefixes=_OPEN_PREFIXES,
    )


@dataclass(frozen=True, slots=True)
class _Role:
    """Work of this process beside ingestion and light reads; see the arguments of :func:`create_app`."""

    worker: bool
    background: BackgroundProcess | None
    is_background: bool


@asynccontextmanager
async def _run_lifespan(
    app: FastAPI,
    settings: Settings,
    clock: Clock,
    metrics: Metrics,
    rate_limits: RateLimits,
    role: _Role,
    outbound: OutboundClient,
    tune_gc: bool,
) -> AsyncIterator[None]:
    """Start the parts from the database up; stop them in reverse, so that requests in flight are still answered."""
    if settings.database_url is None:
        raise ValueError("database_url must be set; `segue serve` starts the embedded PostgreSQL and sets it")
    user_agents.prepare()
    if settings.country_database is not None:
        open_countries(settings.country_database)
    if tune_gc:
        _tune_gc()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(outbound.close)
        pool = await open_pool(asyncpg_url(settings.database_url), settings.pool_connections_max)
        stack.push_async_callback(pool.close)
        metrics.watch_pool(lambda: pool.get_size() - pool.get_idle_size(), pool.get_size)
        await _prepare_database(clock, pool)
        registry = Registry(pool, settings)
        await registry.load()
        registry.start()
        stack.push_async_callback(registry.stop)
        ingest = Ingest(pool, registry, settings, clock, metrics)
        await ingest.start()
        stack.push_async_callback(ingest.stop)
        segment_usage = SegmentUsage(pool, clock)
        segment_usage.start()
        stack.push_async_callback(segment_usage.stop)
        key_usage = KeyUsage(pool, registry.access, clock)
        key_usage.start()
        stack.push_async_callback(key_usage.stop)
        worker = Worker(
            pool, registry, settings, clock, metrics, None if role.is_background else lambda: metrics.accepted
        )
        await worker.start(only_upkeep=not role.worker or role.background is not None)
        stack.push_async_callback(worker.stop)
        background_reads = _open_background_reads(role.background, metrics, stack)
        loop_lag = LoopLagProbe(metrics.observe_loop_lag)
        loop_lag.start()
        stack.push_async_callback(loop_lag.stop)
        live_updates = LiveUpdates(pool, registry, settings, clock)
        live_updates.start()
        metrics.watch_streams(lambda: len(live_updates))
        stack.push_async_callback(live_updates.stop)
        ingest.after_commit.append(live_updates.notify_change)
        app.state.services = Services(
            settings,
            clock,
            metrics,
            pool,
            registry,
            ingest,
            segment_usage,
            key_usage,
            rate_limits,
            live_updates,
            outbound,
            WriteProbe(pool),
            HeavyReads(runs_here=background_reads is None),
            background_reads,
        )
        yield


def _open_background_reads(
    process: BackgroundProcess | None, metrics: Metrics, stack: AsyncExitStack
) -> BackgroundReads | None:
    """Return the client of the background process; None if this process answers every read itself."""
    if process is None:
        return None
    background_reads = BackgroundReads(process.socket, lambda: process.is_running)
    stack.push_async_callback(background_reads.close)
    metrics.watch_background(lambda: process.is_running, lambda: process.restarts)
    return background_reads


def _tune_gc() -> None:
    """Make the garbage collector run rarely, and skip all objects that exist now.

    Reference counting already frees the objects of a flush. Searching them for cycles cost 15 % of the throughput.
    """
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def cancel_heavy_reads(app: FastAPI) -> None:
    """Answer the reads that wait for the background process with 503, because this process stops."""
    services: Services = app.state.services
    if services.background_reads is not None:
        services.background_reads.cancel_all()


async def _prepare_database(clock: Clock, pool: Pool) -> None:
    """Calibrate the clock and create the monthly partitions.

    Rows that arrive before their month's partition exists go to the default partition, and PostgreSQL then refuses to
    create the partition.
    """
    async with pool.acquire() as connection:
        await clock.calibrate(connection)
        await create_monthly_partitions(connection, clock.now())
