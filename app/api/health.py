"""Is it alive, is it ready, how is it doing. Without keys: these answer to the machines around the service."""

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
from app.postgres import migrate
from app.queries.segment_members import SegmentMemberQueries
from app.touchpoint import SECOND

_PATIENCE_SECONDS: Final = 2.0

_LAG = """
-- How long the earliest due change has been waiting; a sweep_at at the epoch marks a stale customer, not a time.
SELECT min(sweep_at) FROM customers WHERE sweep_at > 'epoch'
"""

_log = structlog.get_logger(__name__)


def add_health_routes(app: FastAPI) -> None:
    app.add_api_route(
        "/livez", livez, methods=["GET"], tags=["operations"], operation_id="livez", summary="The process answers",
        response_model=LiveOut,
    )  # fmt: skip
    app.add_api_route(
        "/readyz",
        readyz,
        methods=["GET"],
        tags=["operations"],
        operation_id="readyz",
        summary="Database, migrations, sweeper",
        response_model=HealthOut,
        responses={503: {"description": "Not ready; the same shape.", "model": HealthOut}},
    )
    app.add_api_route(
        "/metrics",
        metrics,
        methods=["GET"],
        tags=["operations"],
        operation_id="get_metrics",
        summary="Figures for Prometheus",
        response_class=Response,
        responses={200: {"description": "Prometheus text.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
    )


async def livez() -> Response:
    return json_response({"live": True})


async def readyz(request: Request) -> Response:
    health = await _health(get_services(request))
    return json_response(health, 200 if health["ready"] else 503)


async def _health(services: Services) -> dict[str, Any]:
    try:
        async with services.pool.acquire(timeout=_PATIENCE_SECONDS) as connection:
            migrated = await migrate.read_revision_of(connection) == migrate.latest_revision()
            earliest = await connection.fetchval(_LAG, timeout=_PATIENCE_SECONDS) if migrated else None
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        _log.warning("readyz.database_unreachable", error=type(error).__name__)
        return {"ready": False, "database": False, "migrations": False, "sweep_lag_seconds": None}
    lag = 0.0 if earliest is None else max(0.0, (services.clock.now() - earliest) / SECOND)
    ready = migrated and not services.registry.is_outdated
    return {"ready": ready, "database": True, "migrations": migrated, "sweep_lag_seconds": lag}


async def metrics(request: Request) -> Response:
    services = get_services(request)
    metrics = services.metrics
    try:
        # Asked here, because the work may be done by another process.
        earliest = await services.pool.fetchval(_LAG, timeout=_PATIENCE_SECONDS)
        metrics.set_sweep_lag(0.0 if earliest is None else max(0.0, (services.clock.now() - earliest) / SECOND))
        views = SegmentMemberQueries(services.pool, services.registry, services.settings)
        unfilled = await views.count_unfilled()
        metrics.set_fills_pending(unfilled)
        metrics.set_fill_eta(((await views.read_fill_progress()).eta_seconds if unfilled else None) or 0.0)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        _log.warning("metrics.database_unreachable")
    return Response(metrics.render(), headers={"content-type": metrics.content_type})
