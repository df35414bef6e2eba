"""Routes for daily metrics of channels: upload a file, list rows and totals. Metrics belong to no customer."""

from __future__ import annotations

import asyncio
from datetime import date
from enum import StrEnum
from fractions import Fraction
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import FastAPI, Query, Security
from starlette.requests import Request
from starlette.responses import Response

from app.api.schemas import ChannelMetricsOut, MetricFormatsOut, MetricsStoredOut, describe_problems
from app.channel_metrics.metric_store import BEFORE_ALL, DailyMetric, DayTotal, MetricQuery, MetricStore, Place
from app.channel_metrics.parsers import METRIC_FORMATS
from app.channel_metrics.parsers.metric import MetricDefaults, Unreadable
from app.errors import BadRequest, InvalidBody, NotFound
from app.formats.decompression import inflate
from app.http.as_of import parse_page_as_of
from app.http.auth import SecretKey
from app.http.bodies import read_body
from app.http.dependencies import get_services
from app.http.pagination import DEFAULT_ITEMS, Limit, PageCursor
from app.http.responses import Cursor, format_instant, json_response, read_cursor, write_cursor
from app.http.schema_types import KEY_PATTERN

_GZIP: Final = b"\x1f\x8b"
_NO_NUL: Final = r"^[^\x00]*$"

MetricFormatKey = StrEnum("MetricFormatKey", {key: key for key in METRIC_FORMATS})  # type: ignore[misc]  # the modules that there are

Kind = Annotated[
    MetricFormatKey, Query(description="Format of the file; `GET /v1/channel-metrics/formats` lists them.")
]
OfSource = Annotated[
    str, Query(description="Key of the source that the metrics belong to.", pattern=KEY_PATTERN, max_length=64)
]
Subject = Annotated[
    str, Query(description="Page, post or keyword for rows in which it is missing.", max_length=255, pattern=_NO_NUL)
]
OnDay = Annotated[date | None, Query(description="Day for rows in which it is missing.")]
Dates = Annotated[
    Literal["dmy", "mdy"] | None,
    Query(
        description="Order of day and month in ambiguous dates such as `03/04/2026`. Default: Segue refuses "
        "ambiguous dates."
    ),
]
Filter = Annotated[str | None, Query(description="Only rows with this value.", max_length=255, pattern=_NO_NUL)]
From = Annotated[date, Query(alias="from", description="First day.")]
To = Annotated[date, Query(description="Last day, inclusive.")]


def add_channel_metric_routes(app: FastAPI) -> None:
    for path, method, endpoint, model, summary, extra in (
        (
            "/v1/channel-metrics",
            "POST",
            store_channel_metrics,
            MetricsStoredOut,
            "Upload a file of metrics",
            _FILE_BODY,
        ),
        (
            "/v1/channel-metrics",
            "GET",
            list_channel_metrics,
            ChannelMetricsOut,
            "List metrics and daily totals",
            None,
        ),
        (
            "/v1/channel-metrics/formats",
            "GET",
            list_channel_metric_formats,
            MetricFormatsOut,
            "List file formats",
            None,
        ),
    ):
        app.add_api_route(
            path,
            endpoint,
            methods=[method],
            tags=["channel-metrics"],
            operation_id=endpoint.__name__,
            summary=summary,
            response_model=model,
            responses=describe_problems(400, 401, 403, *((404,) if method == "POST" else ()), 422),
            dependencies=[Security(SecretKey())],
            openapi_extra=extra,
        )


_FILE_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {
                "schema": {"type": "string", "format": "binary"},
                "example": METRIC_FORMATS["generic"].sample.decode(),
            }
        },
    }
}


async def store_channel_metrics(
    request: Request, kind: Kind, source: OfSource, subject: Subject = "", day: OnDay = None, dates: Dates = None
) -> Response:
    """Store the metrics of a file. The body is the file with any content type, optionally gzip.

    A row that is already stored is not stored twice; if its value has changed, the new value replaces the old one.
    Unreadable rows are reported with their line number.
    """
    services = get_services(request)
    if source not in services.registry.access.current.sources:
        raise NotFound(f"The source {source} does not exist.")
    limits = services.settings.limits
    body = await read_body(request, limits.inflated_bytes_max)
    if body.startswith(_GZIP):
        body = inflate(body, None, limits)
    defaults = MetricDefaults(subject, day, None if dates is None else dates == "dmy")
    try:
        metrics = await asyncio.to_thread(METRIC_FORMATS[kind].parse_file, body, defaults)
    except Unreadable as error:
        raise InvalidBody(f"The body is not a file of kind {kind}: {error}.") from None
    stored = await MetricStore(services.pool).store(source, kind, metrics, services.clock.now())
    days = [metric.day for metric in metrics]
    return json_response(
        {
            "added": stored.added,
            "changed": stored.changed,
            "unchanged": len(metrics) - stored.added - stored.changed,
            "bad": metrics.bad_count,
            "bad_rows": metrics.bad,
            "first": min(days, default=None),
            "last": max(days, default=None),
        }
    )


async def list_channel_metrics(
    request: Request,
    channel: Filter = None,
    metric: Filter = None,
    subject: Filter = None,
    source: Filter = None,
    first: From = date.min,
    to: To = date.max,
    limit: Limit = DEFAULT_ITEMS,
    cursor: PageCursor = None,
) -> Response:
    services = get_services(request)
    page_cursor = read_cursor(cursor, str, str, str, str, str, str)
    as_of, _ = parse_page_as_of(None, page_cursor, services.clock.now())
    items_max = min(limit, services.settings.limits.page_items_max)
    store = MetricStore(services.pool)
    query = MetricQuery(first, to, channel, metric, subject, source)
    metrics = await store.page(query, _read_page_start(page_cursor), items_max + 1)
    page, has_more = metrics[:items_max], len(metrics) > items_max
    totals_query = msgspec.structs.replace(query, first=page[0].day, last=page[-1].day) if page else None
    return json_response(
        {
            "items": [_render_metric(daily_metric) for daily_metric in page],
            "totals": [_render_total(total) for total in await store.totals(totals_query)] if totals_query else [],
            "next_cursor": write_cursor(as_of, page[-1].day.isoformat(), *page[-1].place[1:]) if has_more else None,
            "as_of": format_instant(as_of),
        }
    )


async def list_channel_metric_formats() -> Response:
    return json_response(
        {
            "items": [
                {
                    "key": metric_format.key,
                    "name": metric_format.name,
                    "steps": metric_format.steps,
                    "sample": metric_format.sample.decode(),
                }
                for metric_format in METRIC_FORMATS.values()
            ]
        }
    )


def _read_page_start(cursor: Cursor | None) -> Place:
    """Return the position in ``cursor``. Raise :class:`BadRequest` if the cursor belongs to another list."""
    if cursor is None:
        return BEFORE_ALL
    day, *rest = map(str, cursor.place)
    try:
        channel, metric, subject, source, kind = rest
        return date.fromisoformat(day), channel, metric, subject, source, kind
    except ValueError:
        raise BadRequest("The cursor belongs to another list.") from None


def _render_metric(metric: DailyMetric) -> dict[str, Any]:
    return {**msgspec.structs.asdict(metric), "recorded_at": format_instant(metric.recorded_at)}


def _render_total(total: DayTotal) -> dict[str, Any]:
    return {**msgspec.structs.asdict(total), "mean": Fraction(total.sum) / total.values}
