"""Routes that Segment's SDKs send messages to.

Every request takes the same steps: authenticate the write key, read the bounded body, decompress it, parse the
envelope, submit the messages, and answer with a receipt after the flush. If neither the headers nor the query contain
the key, it is read from the body, before anything else in the body is parsed.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Security
from starlette.requests import Request
from starlette.responses import Response

from app.api.schemas import (
    COLLECT_PROBLEMS,
    BatchIn,
    CallIn,
    ReceiptOut,
    SettingsOut,
    describe_json_body,
    describe_problems,
)
from app.api.visitor_claims import encode_receipt_members, verify_claim
from app.errors import NotFound
from app.formats.segment import Envelope, read_in_steps, read_write_key_in_steps
from app.formats.vendor_events import ABSENT
from app.http.auth import WriteKey
from app.http.bodies import read_body
from app.http.body_turns import inflate_body, parse_in_turn
from app.http.client_info import read_client_info
from app.http.dependencies import get_services
from app.http.direct_route import DirectRoute, Handler
from app.http.responses import JSON, encode_json, json_response
from app.http.write_keys import authenticate_write_key, read_authorization_key
from app.ingest.pending_request import Receipt
from app.ingest.submit import Submission
from app.registry.access import WriteKeyGrant
from app.touchpoint import SourceView

SHORT_ROUTES: Final = {
    "track": "t",
    "identify": "i",
    "page": "p",
    "screen": "s",
    "group": "g",
    "alias": "a",
    "batch": "b",
}
ROUTES: Final = ("track", "batch", "identify", "page", "screen", "group", "alias", "import")
"""Message routes, the most frequently called first, because the router tries them in this order."""
OPEN_PATHS: Final = frozenset(
    f"/v1/{name}{slash}" for name in (*ROUTES, *SHORT_ROUTES.values(), "m") for slash in ("", "/")
)
OPEN_PREFIXES: Final = ("/v1/projects/",)

_SUMMARIES: Final = {
    "track": "Record an event",
    "identify": "Link ids and set traits",
    "page": "Record a page view",
    "screen": "Record a screen view",
    "group": "Add a customer to a group",
    "alias": "Merge two user ids",
    "batch": "Send a batch of messages",
    "import": "Import historical messages",
}
_HOST_PATTERN: Final = re.compile(r"[A-Za-z0-9.:_\[\]-]{1,255}")


def add_collect_routes(app: FastAPI) -> None:
    for route in ROUTES:
        _add_collect_route(app, route, route, documented=True)
        if route in SHORT_ROUTES:
            _add_collect_route(app, SHORT_ROUTES[route], route, documented=False)
    _add_direct_route(app, "/v1/m", "POST", ignore_metrics, documented=False)
    _add_direct_route(
        app,
        "/v1/projects/{write_key}/settings",
        "GET",
        get_sdk_settings,
        documented=True,
        operation_id="get_sdk_settings",
        summary="Get the settings of a browser SDK",
        description="analytics-next requests these settings before it sends messages.",
        response_model=SettingsOut,
        responses=describe_problems(404, 429, 503),
        openapi_extra={
            "security": [],
            "parameters": [
                {
                    "name": "write_key",
                    "in": "path",
                    "required": True,
                    "description": "A write key.",
                    "schema": {"type": "string", "title": "Write key"},
                    "example": "wk_demo",
                }
            ],
        },
    )


def _add_collect_route(app: FastAPI, name: str, route: str, documented: bool) -> None:
    batch = route in ("batch", "import")
    _add_direct_route(
        app,
        f"/v1/{name}",
        "POST",
        create_collect_handler(route),
        documented,
        operation_id=f"collect_{route}",
        summary=_SUMMARIES[route],
        description="The body may be gzip and have any content type. Segue answers after COMMIT: accepted messages are "
        "durable, and the customer's stages and segments reflect them."
        + (f" `/v1/{SHORT_ROUTES[route]}` is an alias." if route in SHORT_ROUTES else ""),
        response_model=ReceiptOut,
        responses=COLLECT_PROBLEMS,
        dependencies=[Security(WriteKey())],
        openapi_extra=describe_json_body(BatchIn if batch else CallIn),
    )


def _add_direct_route(app: FastAPI, path: str, method: str, handler: Handler, documented: bool, **options: Any) -> None:
    for slash in ("", "/"):
        route = DirectRoute(
            path + slash,
            handler,
            methods=[method],
            tags=["collect"],
            include_in_schema=documented and not slash,
            **options,
        )
        app.router.routes.append(route)


def create_collect_handler(route: str) -> Handler:
    async def collect(request: Request) -> Response:
        services = get_services(request)
        limits = services.settings.limits
        grant = await authenticate_by_head(request)
        body = await read_body(request, limits.body_bytes_max)
        received_at = services.clock.now()
        content = await inflate_body(request, body, is_known=grant is not None)
        if grant is None:
            key = await parse_in_turn(request, read_write_key_in_steps(content, limits), len(content))
            grant = await authenticate(request, key)
        envelope = await parse_in_turn(request, read_in_steps(content, route, limits), len(content))
        claimed_visitor = (
            await verify_claim(request, services, grant, envelope.visitor) if envelope.visitor not in ABSENT else None
        )
        source = grant.source
        if claimed_visitor is not None:
            source = msgspec.structs.replace(source, visitor=claimed_visitor.vouched)
        receipt = await submit_envelope(request, source, envelope, len(content), received_at)
        receipt_body = encode_receipt(receipt)
        if claimed_visitor is not None:
            members = await encode_receipt_members(services, grant, claimed_visitor, projected=receipt.projected)
            receipt_body = receipt_body[:-1] + members + b"}"
        return Response(receipt_body, media_type=JSON)

    return collect


async def authenticate_and_submit(
    request: Request, envelope: Envelope, size_bytes: int, received_at: int | None = None
) -> Receipt:
    """Authenticate the write key of a parsed envelope and submit its messages.

    ``size_bytes`` is the decompressed size. ``received_at`` is the time of receipt that the parser used; if None, the
    current time applies.
    Raise :class:`Overloaded` or an error of :func:`authenticate`; nothing is stored then.
    """
    grant = await authenticate(request, envelope.write_key)
    received_at = received_at or get_services(request).clock.now()
    return await submit_envelope(request, grant.source, envelope, size_bytes, received_at)


async def authenticate_by_head(request: Request) -> WriteKeyGrant | None:
    """Return the grant of the write key in the header or the query, before the body is read.

    Return None if neither contains a valid write key: the body can contain one, because proxies and pages use the
    Authorization header for other credentials. Raise OriginNotAllowed or RateLimited.
    """
    keys = (read_authorization_key(request.headers.get("authorization", "")), request.query_params.get("writeKey"))
    access = get_services(request).registry.access
    if not any([key and await access.find_write_key(key) for key in keys]):
        return None
    return await authenticate(request, None)


async def authenticate(request: Request, body_key: str | None) -> WriteKeyGrant:
    """Return the grant of the first valid write key: from the header, the body (``body_key``) or the query.

    Raise the errors of :func:`app.http.write_keys.authenticate_write_key`.
    """
    keys = (
        read_authorization_key(request.headers.get("authorization", "")),
        body_key,
        request.query_params.get("writeKey"),
    )
    return (await authenticate_write_key(request, get_services(request), *keys))[1]


async def submit_envelope(
    request: Request, source: SourceView, envelope: Envelope, size_bytes: int, received_at: int
) -> Receipt:
    """Submit an envelope of an authenticated source. Raise :class:`Overloaded` if the queue is full."""
    services = get_services(request)
    peer = read_client_info(request, services.settings)
    return await services.ingest.submit(
        Submission(source=source, envelope=envelope, received_at=received_at, size_bytes=size_bytes, peer=peer)
    )


def encode_receipt(receipt: Receipt) -> bytes:
    if not receipt.rejections and not receipt.warnings:
        return b'{"success":true,"accepted":%d,"duplicate":%d,"rejected":%d,"projected":%s,"rejections":[]}' % (
            receipt.accepted,
            receipt.duplicate,
            receipt.rejected,
            b"true" if receipt.projected else b"false",
        )
    members: dict[str, Any] = {
        "success": True,
        "accepted": receipt.accepted,
        "duplicate": receipt.duplicate,
        "rejected": receipt.rejected,
        "projected": receipt.projected,
        "rejections": [render_rejection(rejection) for rejection in receipt.rejections],
    }
    if receipt.warnings:
        members["warnings"] = [render_rejection(rejection) for rejection in receipt.warnings]
    return encode_json(members)


def render_rejection(rejection: Any) -> dict[str, Any]:
    """Return a rejection or warning as JSON. Replace characters that JSON cannot encode; an id may contain them."""
    message_id = rejection.message_id
    if message_id is not None:
        message_id = message_id.encode("utf-8", "replace").decode()
    return {
        "index": rejection.index,
        "messageId": message_id,
        "code": str(rejection.code),
        "message": rejection.message,
    }


async def ignore_metrics(request: Request) -> Response:
    """Accept and discard the metrics that browser SDKs report about themselves."""
    await read_body(request, get_services(request).settings.limits.body_bytes_max)
    return json_response({"success": True})


async def get_sdk_settings(request: Request) -> Response:
    """Return the settings that analytics-next needs to start.

    It sends messages to this host only if the integration is named ``Segment.io``.
    """
    key = request.path_params["write_key"]
    if await get_services(request).registry.access.find_source(key) is None:
        raise NotFound("The write key does not exist.")
    segment: dict[str, Any] = {"apiKey": key, "retryQueue": True}
    host = request.headers.get("host", "")
    if _HOST_PATTERN.fullmatch(host):
        segment |= {"apiHost": f"{host}/v1", "protocol": request.url.scheme}
    return json_response({"integrations": {"Segment.io": segment}, "metrics": {"sampleRate": 0}})
