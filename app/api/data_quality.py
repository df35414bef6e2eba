"""Routes for data quality: tracking plan, volume anomalies, health of sources, trait coverage."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final

import msgspec
from fastapi import FastAPI, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from app.api.schemas import (
    AnomaliesOut,
    PlanEntryIn,
    PlanEntryOut,
    PlanOut,
    SourceHealthOut,
    TraitCoverageOut,
    ViolationsOut,
    describe_json_body,
)
from app.api.secret_routes import add_secret_route
from app.data_quality.source_health import SourceHealth, SourceHealthQueries, ViolationCount
from app.data_quality.trait_coverage import TraitCoverageQueries
from app.data_quality.volume_anomalies import Anomaly
from app.errors import BadRequest
from app.http.bodies import read_model
from app.http.dependencies import get_services
from app.http.pagination import DEFAULT_ITEMS, Limit
from app.http.responses import format_instant, json_response
from app.http.schema_types import KEY_PATTERN
from app.touchpoint import HOUR
from app.tracking_plan.event_schema import SCHEMA_BYTES_MAX
from app.tracking_plan.plan import EVERY_SOURCE
from app.tracking_plan.plan_store import PlanEntry

_BODY_BYTES_MAX: Final = 2 * SCHEMA_BYTES_MAX
_SPAN_HOURS: Final = 24
_SPAN_HOURS_MAX: Final = 168

OfSource = Annotated[
    str | None, Query(description="Key of a source. Default: all sources.", pattern=KEY_PATTERN, max_length=64)
]
Event = Annotated[
    str,
    Path(
        description="Name of the event; page views are named `page_viewed`, screen views `screen_viewed`.", min_length=1
    ),
]
OfEvent = Annotated[str | None, Query(description="Only violations of this event.", max_length=1_000)]
Hours = Annotated[int, Query(ge=1, le=_SPAN_HOURS_MAX, description="Length of the period before now, in hours.")]
SourceKey = Annotated[str, Path(description="Key of a source.", pattern=KEY_PATTERN, max_length=64)]


def add_data_quality_routes(app: FastAPI) -> None:
    plan, entry = "/v1/tracking-plan", "/v1/tracking-plan/{event:path}"
    for path, method, endpoint, model, status, extra, failures, summary in (
        (plan, "GET", get_tracking_plan, PlanOut, 200, None, (), "Get the tracking plan"),
        (f"{plan}/violations", "GET", list_violations, ViolationsOut, 200, None, (422,), "List plan violations"),
        (
            entry, "PUT", put_plan_entry, PlanEntryOut, 200, describe_json_body(PlanEntryIn), (400, 404, 422),
            "Set the plan of an event",
        ),
        (entry, "DELETE", drop_plan_entry, None, 204, None, (404, 422), "Remove an event from the plan"),
        (
            "/v1/data-quality/anomalies", "GET", list_anomalies, AnomaliesOut, 200, None, (422, 503, 504),
            "List anomalies",
        ),
        (
            "/v1/data-quality/trait-coverage", "GET", get_trait_coverage, TraitCoverageOut, 200, None, (422, 503, 504),
            "Get trait coverage",
        ),
        (
            "/v1/sources/{key}/health", "GET", get_source_health, SourceHealthOut, 200, None, (404, 422),
            "Get the health of a source",
        ),
    ):  # fmt: skip
        add_secret_route(
            app,
            method,
            path,
            endpoint,
            tag="data-quality",
            summary=summary,
            model=model,
            status=status,
            failures=failures,
            extra=extra,
        )


async def get_tracking_plan(request: Request) -> Response:
    return json_response(
        {"items": [_render_entry(entry) for entry in await get_services(request).registry.plans.list_entries()]}
    )


async def put_plan_entry(request: Request, event: Event, source: OfSource = None) -> Response:
    """Set the JSON Schema for the properties of an event. Every process applies it within a second.

    Messages that are already stored are not checked.
    """
    services = get_services(request)
    _check_event_name(event, services.settings.limits.event_chars_max)
    body = await read_model(request, PlanEntryIn, _BODY_BYTES_MAX)
    entry = await services.registry.plans.put(source or EVERY_SOURCE, event, body.mode, body.schema_)
    return json_response(_render_entry(entry))


async def drop_plan_entry(request: Request, event: Event, source: OfSource = None) -> Response:
    services = get_services(request)
    _check_event_name(event, services.settings.limits.event_chars_max)
    await services.registry.plans.delete(source or EVERY_SOURCE, event)
    return Response(status_code=204)


async def list_violations(
    request: Request, source: OfSource = None, event: OfEvent = None, limit: Limit = DEFAULT_ITEMS
) -> Response:
    """Return the violations of the period, counted by source, event and reason."""
    services = get_services(request)
    await services.ingest.source_stats.flush()
    if event is not None and "\0" in event:
        event = ""
    counts = await SourceHealthQueries(services.pool).list_violations(source, event, limit)
    return json_response(
        {"items": [_render_violation_count(count) for count in counts], "as_of": format_instant(services.clock.now())}
    )


async def list_anomalies(request: Request, source: OfSource = None, hours: Hours = _SPAN_HOURS) -> Response:
    """Compare the message volume of the period with the history of each source and its most frequent events.

    The guide [Data quality](docs/guides/data-quality) describes the rules.
    """
    services = get_services(request)
    await services.ingest.source_stats.flush()
    now = services.clock.now()
    since = now - hours * HOUR
    anomalies = await services.heavy_reads.run(
        request, SourceHealthQueries(services.pool).list_anomalies(source, since, now)
    )
    return json_response(
        {
            "items": [_render_anomaly(anomaly) for anomaly in anomalies],
            "since": format_instant(since),
            "as_of": format_instant(now),
        }
    )


async def get_trait_coverage(request: Request, limit: Limit = DEFAULT_ITEMS) -> Response:
    """Return the share of current customers who have each declared trait; computed traits do not count.

    At most two analyses of all customers run at a time.
    """
    services = get_services(request)
    started_at = time.monotonic()
    now = services.clock.now()
    queries = TraitCoverageQueries(services.pool, services.registry, services.settings)
    coverage = await services.heavy_reads.run(request, queries.count_traits(now))
    ranked = sorted(coverage.traits.items(), key=lambda item: (-item[1].customers, item[0]))
    return json_response(
        {
            "customers": coverage.customers,
            "items": [
                {
                    "trait": name,
                    "customers": count.customers,
                    "share": round(count.customers / coverage.customers, 4),
                    "empty": count.empty,
                }
                for name, count in ranked[:limit]
            ],
            "traits_total": len(ranked),
            "took_ms": round((time.monotonic() - started_at) * 1_000),
            "as_of": format_instant(now),
        }
    )


async def get_source_health(request: Request, key: SourceKey) -> Response:
    services = get_services(request)
    await services.ingest.source_stats.flush()
    now = services.clock.now()
    return json_response(_render_health(await SourceHealthQueries(services.pool).read_health(key, now), now))


def _check_event_name(event: str, chars_max: int) -> None:
    """Raise :class:`BadRequest` for a name that no stored message can have."""
    if len(event) > chars_max or "\0" in event or any("\ud800" <= char <= "\udfff" for char in event):
        raise BadRequest(
            f"An event name has at most {chars_max} characters, and neither NUL nor lone surrogates.", path="/event"
        )


def _render_entry(entry: PlanEntry) -> dict[str, Any]:
    return {
        "source": entry.source or None,
        "event": entry.event,
        "mode": entry.mode,
        "schema": msgspec.Raw(entry.schema),
        "updated_at": format_instant(entry.updated_at),
    }


def _render_violation_count(count: ViolationCount) -> dict[str, Any]:
    return {
        **msgspec.structs.asdict(count),
        "first_at": format_instant(count.first_at),
        "last_at": format_instant(count.last_at),
        "sample": msgspec.Raw(count.sample),
    }


def _render_anomaly(anomaly: Anomaly) -> dict[str, Any]:
    return {
        **msgspec.structs.asdict(anomaly),
        "since": format_instant(anomaly.since),
        "until": format_instant(anomaly.until),
    }


def _render_health(health: SourceHealth, now: int) -> dict[str, Any]:
    return {
        **msgspec.structs.asdict(health),
        "last_seen_at": format_instant(health.last_seen_at),
        "per_hour": round(sum(messages for _, messages in health.hours) / len(health.hours), 2),
        "hours": [{"hour": format_instant(hour), "messages": messages} for hour, messages in health.hours],
        "anomalies": [_render_anomaly(anomaly) for anomaly in health.anomalies],
        "as_of": format_instant(now),
    }
