"""Health checks and metrics for orchestrators and monitoring. They need no key."""

from __future__ import annotations

from typing import Any, Final

import asyncpg
import structlog
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from app.api.schemas import HealthOut, LiveOut
from app.http.dependencies import Services, get_services
from app.http.responses import json_response
from app.observability.exposition import merge_processes
from app.postgres import migrate
from app.postgres.write_probe import WriteFault
from app.queries.segment_members import SegmentMemberQueries
from app.touchpoint import SECOND

_QUERY_SECONDS_MAX: Final = 2.0

_EARLIEST_DUE = """
-- The earliest change that is due. The epoch marks a stale customer and is not a time.
SELECT min(sweep_at) FROM customers WHERE sweep_at > 'epoch'
"""

_log = structlog.get_logger(__name__)


def add_health_routes(app: FastAPI) -> None:
    app.add_api_route(
        "/livez", get_livez, methods=["GET"], tags=["operations"], operation_id="livez",
        summary="Check that the process answers",
        response_model=LiveOut,
    )  # fmt: skip
    app.add_api_route(
        "/readyz",
        get_readyz,
        methods=["GET"],
        tags=["operations"],
        operation_id="readyz",
        summary="Check that the server is ready",
        response_model=HealthOut,
        responses={503: {"description": "Not ready. The body names the failed check.", "model": HealthOut}},
    )
    app.add_api_route(
        "/metrics",
        get_metrics,
        methods=["GET"],
        tags=["operations"],
        operation_id="get_metrics",
        summary="Get Prometheus metrics",
        response_class=Response,
        responses={
            200: {
                "description": "Metrics in the Prometheus text format.",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            }
        },
    )


async def get_livez() -> Response:
    return json_response({"live": True})


async def get_readyz(request: Request) -> Response:
    health = await _check_health(get_services(request))
    return json_response(health, 200 if health["ready"] else 503)


async def _check_health(services: Services) -> dict[str, Any]:
    try:
        async with services.pool.acquire(timeout=_QUERY_SECONDS_MAX) as connection:
            is_migrated = await migrate.read_revision_of(connection) == migrate.latest_revision()
            earliest_due = await connection.fetchval(_EARLIEST_DUE, timeout=_QUERY_SECONDS_MAX) if is_migrated else None
        write_fault = await services.write_probe.find_fault()
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        _log.warning("database.connection_failed", route="/readyz", error=type(error).__name__)
        return {
            "ready": False,
            "database": False,
            "migrations": False,
            "writable": False,
            "reason": "database_unreachable",
            "background": _is_background_running(services),
            "sweep_lag_seconds": None,
        }
    lag = 0.0 if earliest_due is None else max(0.0, (services.clock.now() - earliest_due) / SECOND)
    reason = _find_reason(services, is_migrated, write_fault)
    return {
        "ready": reason is None,
        "database": True,
        "migrations": is_migrated,
        "writable": write_fault is None,
        "reason": reason,
        "background": _is_background_running(services),
        "sweep_lag_seconds": lag,
    }


def _find_reason(services: Services, is_migrated: bool, write_fault: WriteFault | None) -> str | None:
    """Return why requests fail although the database is reachable, or None if the server is ready."""
    if not is_migrated:
        return "not_migrated"
    return write_fault or ("other_settings" if services.registry.is_outdated else None)


def _is_background_running(services: Services) -> bool | None:
    """Return None if this server has no background process. Ingestion does not need it, so it does not affect ready."""
    return None if services.background_reads is None else services.background_reads.is_running()


async def get_metrics(request: Request) -> Response:
    services = get_services(request)
    metrics = services.metrics
    try:
        # These gauges are queried on each scrape, because the worker may run in another process.
        earliest_due = await services.pool.fetchval(_EARLIEST_DUE, timeout=_QUERY_SECONDS_MAX)
        metrics.set_sweep_lag(0.0 if earliest_due is None else max(0.0, (services.clock.now() - earliest_due) / SECOND))
        queries = SegmentMemberQueries(services.pool, services.registry, services.settings)
        unfilled = await queries.count_unfilled()
        metrics.set_fills_pending(unfilled)
        metrics.set_fill_eta(((await queries.read_fill_progress()).eta_seconds if unfilled else None) or 0.0)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        _log.warning("database.connection_failed", route="/metrics", error=type(error).__name__)
    content = metrics.render()
    if services.background_reads is not None and (background := await services.background_reads.read_metrics()):
        content = merge_processes(content.decode(), background, "background").encode()
    return Response(content, headers={"content-type": metrics.content_type})
