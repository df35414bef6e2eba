"""Routes that list erasure requests of tools and mark them as handled."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import FastAPI, Query, Security
from starlette.requests import Request
from starlette.responses import Response

from app.api.schemas import ErasureRequestsOut, HandledIn, HandledOut, describe_json_body, describe_problems
from app.http.as_of import parse_page_as_of
from app.http.auth import SecretKey
from app.http.bodies import read_model
from app.http.dependencies import get_services
from app.http.pagination import DEFAULT_ITEMS, Limit, PageCursor
from app.http.responses import format_instant, format_uuid, json_response, read_cursor, write_cursor
from app.ingest.erasure_queue import mark_erasures_handled
from app.privacy import erasure_requests
from app.privacy.erasure_requests import ErasureRequest

IncludeHandled = Annotated[bool, Query(description="Include handled requests.")]


def add_erasure_request_routes(app: FastAPI) -> None:
    secret = [Security(SecretKey())]
    app.add_api_route(
        "/v1/erasure-requests",
        list_erasure_requests,
        methods=["GET"],
        tags=["erasure-requests"],
        operation_id="list_erasure_requests",
        summary="List erasure requests",
        response_model=ErasureRequestsOut,
        responses=describe_problems(400, 401, 403, 422),
        dependencies=secret,
    )
    app.add_api_route(
        "/v1/erasure-requests/handled",
        handle_erasure_requests,
        methods=["POST"],
        tags=["erasure-requests"],
        operation_id="handle_erasure_requests",
        summary="Mark erasure requests as handled",
        response_model=HandledOut,
        responses=describe_problems(400, 401, 403),
        dependencies=secret,
        openapi_extra=describe_json_body(HandledIn),
    )


async def list_erasure_requests(
    request: Request, limit: Limit = DEFAULT_ITEMS, cursor: PageCursor = None, handled: IncludeHandled = False
) -> Response:
    services = get_services(request)
    page_cursor = read_cursor(cursor, int)
    as_of, _ = parse_page_as_of(None, page_cursor, services.clock.now())
    items_max = min(limit, services.settings.limits.page_items_max)
    before = None if page_cursor is None else int(page_cursor.place[0])
    requests = await erasure_requests.list_erasure_requests(
        services.pool, before, items_max + 1, include_handled=handled
    )
    has_more = len(requests) > items_max
    return json_response(
        {
            "items": [_render_request(erasure) for erasure in requests[:items_max]],
            "next_cursor": write_cursor(as_of, requests[items_max - 1].id) if has_more else None,
            "as_of": format_instant(as_of),
        }
    )


async def handle_erasure_requests(request: Request) -> Response:
    """Mark requests as handled. This does not erase data."""
    services = get_services(request)
    handled = await read_model(request, HandledIn)
    return json_response({"handled": await mark_erasures_handled(services.pool, handled.ids, services.clock.now())})


def _render_request(erasure: ErasureRequest) -> dict[str, Any]:
    return {
        **msgspec.structs.asdict(erasure),
        "requested_at": format_instant(erasure.requested_at),
        "handled_at": format_instant(erasure.handled_at),
        "customer": None if erasure.customer is None else format_uuid(erasure.customer),
    }
