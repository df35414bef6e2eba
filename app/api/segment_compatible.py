"""Routes for SDKs that speak Segment's protocol under other paths: RudderStack, Jitsu, and tracking pixels."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from app.api.collect import (
    authenticate,
    authenticate_and_submit,
    authenticate_by_head,
    create_collect_handler,
    submit_envelope,
)
from app.api.schemas import (
    BatchIn,
    CallIn,
    JitsuOut,
    ReceiptOut,
    SourceConfigOut,
    describe_json_body,
    describe_problems,
)
from app.api.vendor_routes import add_vendor_route, list_slash_variants, pixel_response
from app.errors import InvalidBody, NotFound
from app.formats import pixel
from app.formats.segment import TYPE_OF_ROUTE, read_in_steps, read_write_key_in_steps
from app.http.bodies import read_body
from app.http.body_turns import inflate_body, parse_in_turn, start_in_turn
from app.http.dependencies import get_services
from app.http.direct_route import Handler
from app.http.responses import json_response

OPEN_PATHS: Final = list_slash_variants("/sourceConfig", "/beacon/v1/batch")
OPEN_PREFIXES: Final = ("/pixel/v1/", "/v1/pixel/", "/api/s/")

_CALLS: Final = ("track", "identify", "page", "screen", "group", "alias")
_SDK_CONFIG: Final = {"statsCollection": {"errors": {"enabled": False}, "metrics": {"enabled": False}}}
_TYPE_PARAMETER: Final = {
    "name": "type",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "title": "Type", "enum": list(_CALLS)},
    "example": "track",
}
_KEY_PARAMETER: Final = {
    "name": "writeKey",
    "in": "query",
    "required": True,
    "schema": {"type": "string", "title": "Write key"},
    "example": "wk_demo",
}
_DATA_PARAMETER: Final = {
    "name": "data",
    "in": "query",
    "required": True,
    "description": "The message, including writeKey, as base64-encoded JSON.",
    "schema": {"type": "string", "title": "Data"},
}

_PIXEL_STATUSES: Final = (400, 401, 403, 429, 503)
_PIXEL_RESPONSE: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "An image of one transparent pixel.",
        "content": {"image/gif": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def add_segment_compatible_routes(app: FastAPI) -> None:
    add_vendor_route(
        app,
        "/sourceConfig",
        get_source_config,
        tag="rudderstack",
        method="GET",
        failures=(401, 403, 429, 503),
        operation_id="rudder_source_config",
        summary="Get the settings of RudderStack's browser SDK",
        response_model=SourceConfigOut,
    )
    add_vendor_route(
        app,
        "/beacon/v1/batch",
        create_collect_handler("batch"),
        tag="rudderstack",
        operation_id="rudder_beacon",
        summary="Send a batch as a beacon",
        response_model=ReceiptOut,
        openapi_extra={**describe_json_body(BatchIn), "parameters": [_KEY_PARAMETER]},
    )
    _add_pixel_routes(app)
    for path, name in (("/api/s/{type}", "jitsu_browser"), ("/api/s/s2s/{type}", "jitsu_server")):
        add_vendor_route(
            app,
            path,
            collect_jitsu,
            tag="jitsu",
            operation_id=name,
            summary="Send one message",
            description="Send the write key as X-Write-Key.",
            failures=(400, 401, 403, 404, 408, 429, 503),
            response_model=JitsuOut,
            openapi_extra={**describe_json_body(CallIn), "parameters": [_TYPE_PARAMETER]},
        )


def _add_pixel_routes(app: FastAPI) -> None:
    for path, handler, tag, name, parameters, statuses in (
        (
            "/pixel/v1/track",
            _create_pixel_handler("track"),
            "rudderstack",
            "rudder_pixel_track",
            [_KEY_PARAMETER],
            _PIXEL_STATUSES,
        ),
        (
            "/pixel/v1/page",
            _create_pixel_handler("page"),
            "rudderstack",
            "rudder_pixel_page",
            [_KEY_PARAMETER],
            _PIXEL_STATUSES,
        ),
        (
            "/v1/pixel/{type}",
            collect_pixel,
            "collect",
            "segment_pixel",
            [_TYPE_PARAMETER, _DATA_PARAMETER],
            (404, *_PIXEL_STATUSES),
        ),
    ):
        add_vendor_route(
            app,
            path,
            handler,
            tag=tag,
            method="GET",
            operation_id=name,
            summary="Record a message by loading an image",
            description="For emails, which cannot run scripts.",
            response_class=Response,
            responses={**_PIXEL_RESPONSE, **describe_problems(*statuses)},
            openapi_extra={"parameters": parameters},
        )


async def get_source_config(request: Request) -> Response:
    source = (await authenticate(request, None)).source
    about = {"id": source.key, "name": source.key, "workspaceId": "segue", "enabled": True}
    return json_response({"source": {**about, "config": _SDK_CONFIG, "destinations": []}})


async def collect_jitsu(request: Request) -> Response:
    """Collect one message. Jitsu masks the secret half of writeKey, so Segue reads only the half before the colon."""
    services = get_services(request)
    limits = services.settings.limits
    route = request.path_params["type"]
    if route not in _CALLS:
        raise NotFound(f"Unknown message type {route}; use one of {', '.join(_CALLS)}.")
    received_at = services.clock.now()
    header_key = request.headers.get("x-write-key")
    grant = await authenticate(request, _public_half(header_key)) if header_key else await authenticate_by_head(request)
    body = await read_body(request, limits.body_bytes_max)
    inflated = await inflate_body(request, body, is_known=grant is not None)
    if grant is None:
        key = await parse_in_turn(request, read_write_key_in_steps(inflated, limits), len(inflated))
        grant = await authenticate(request, _public_half(key))
    envelope = await parse_in_turn(request, read_in_steps(inflated, route, limits), len(inflated))
    await submit_envelope(request, grant.source, envelope, len(inflated), received_at)
    return json_response({"ok": True})


def _public_half(key: str | None) -> str | None:
    return (key or "").partition(":")[0] or None


def _create_pixel_handler(route: str) -> Handler:
    async def collect(request: Request) -> Response:
        services = get_services(request)
        query = request.query_params.multi_items()
        envelope = pixel.read_query(query, route, services.clock.now(), services.settings.limits)
        await authenticate_and_submit(request, envelope, len(envelope.items[0]))
        return pixel_response()

    return collect


async def collect_pixel(request: Request) -> Response:
    services = get_services(request)
    route = TYPE_OF_ROUTE.get(request.path_params["type"])
    if route is None:
        raise NotFound(f"Unknown message type; use one of {', '.join(TYPE_OF_ROUTE)}.")
    data = request.query_params.get("data")
    if not data:
        raise InvalidBody("Send the message as ?data=, in base64-encoded JSON.")
    steps = pixel.read_data_in_steps(data, route, services.clock.now(), services.settings.limits)
    envelope = await start_in_turn(request, steps, len(data), is_known=False)
    await authenticate_and_submit(request, envelope, len(envelope.items[0]))
    return pixel_response()
