"""Collecting messages: the routes that Segment's SDKs know.

Each request goes the same way: body within bounds, inflated, taken apart, key, messages, one flush, receipt.
"""

from __future__ import annotations

import re
from base64 import b64decode
from typing import Any, Final

from fastapi import FastAPI, Security
from starlette.requests import Request
from starlette.responses import Response

from app.api.schemas import COLLECT_PROBLEMS, BatchIn, CallIn, ReceiptOut, SettingsOut, describe_json_body
from app.api.visitor_claims import receipt_members, verify_claim
from app.errors import NotFound
from app.formats.decompression import inflate
from app.formats.segment import Envelope, read
from app.formats.vendor_events import ABSENT
from app.http.auth import WriteKey
from app.http.bodies import read_body
from app.http.client_info import read_client_info
from app.http.dependencies import Services, get_services
from app.http.direct_route import DirectRoute, Handler
from app.http.responses import JSON, encode_json, json_response
from app.http.write_keys import authenticate_write_key
from app.ingest.group_commit import Receipt
from app.ingest.submit import Submission
from app.registry.access import WriteKeyGrant
from app.touchpoint import SourceView

LETTERS: Final = {"track": "t", "identify": "i", "page": "p", "screen": "s", "group": "g", "alias": "a", "batch": "b"}
ROUTES: Final = ("track", "batch", "identify", "page", "screen", "group", "alias", "import")
"""Tried in this order, so the busiest come first."""
OPEN_PATHS: Final = frozenset(f"/v1/{name}{slash}" for name in (*ROUTES, *LETTERS.values(), "m") for slash in ("", "/"))
OPEN_PREFIXES: Final = ("/v1/projects/",)

_SUMMARIES: Final = {
    "track": "Something a customer did",
    "identify": "Who a customer is: links ids, sets traits",
    "page": "A page was viewed",
    "screen": "A screen of an app was viewed",
    "group": "A customer belongs to a company or team",
    "alias": "Two user ids are one person",
    "batch": "Many messages at once",
    "import": "Many messages of the past at once",
}
_HOST: Final = re.compile(r"[A-Za-z0-9.:_\[\]-]{1,255}")


def add_collect_routes(app: FastAPI) -> None:
    for route in ROUTES:
        _add(app, route, route, documented=True)
        if route in LETTERS:
            _add(app, LETTERS[route], route, documented=False)
    _add_direct(app, "/v1/m", "POST", ignore_metrics, documented=False)
    _add_direct(
        app,
        "/v1/projects/{write_key}/settings",
        "GET",
        sdk_settings,
        documented=True,
        operation_id="get_sdk_settings",
        summary="Settings that a browser SDK asks for before it sends",
        response_model=SettingsOut,
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


def _add(app: FastAPI, name: str, route: str, documented: bool) -> None:
    batch = route in ("batch", "import")
    _add_direct(
        app,
        f"/v1/{name}",
        "POST",
        collector(route),
        documented,
        operation_id=f"collect_{route}",
        summary=_SUMMARIES[route],
        description=(f"`/v1/{LETTERS[route]}` is the same. " if route in LETTERS else "")
        + "The body may be gzip and of any content type. The answer comes after COMMIT: what was accepted is durable "
        "and the customer's stages and segments reflect it.",
        response_model=ReceiptOut,
        responses=COLLECT_PROBLEMS,
        dependencies=[Security(WriteKey())],
        openapi_extra=describe_json_body(BatchIn if batch else CallIn),
    )


def _add_direct(app: FastAPI, path: str, method: str, handler: Handler, documented: bool, **options: Any) -> None:
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


def collector(route: str) -> Handler:
    async def collect(request: Request) -> Response:
        services = get_services(request)
        limits = services.settings.limits
        body = await read_body(request, limits.body_bytes_max)
        received_at = services.clock.now()
        inflated = inflate(body, request.headers.get("content-encoding"), limits)
        envelope = read(inflated, route, limits)
        key = await _admit(request, services, envelope)
        guest = await verify_claim(request, services, key, envelope.visitor) if envelope.visitor not in ABSENT else None
        receipt = await submit(request, key.source, envelope, len(inflated), received_at)
        answer = receipt_json(receipt)
        if guest is not None:
            answer = answer[:-1] + await receipt_members(services, key, guest, projected=receipt.projected) + b"}"
        return Response(answer, media_type=JSON)

    return collect


async def submit_envelope(
    request: Request, envelope: Envelope, size_bytes: int, received_at: int | None = None
) -> Receipt:
    """Authenticate the write key and submit: what every format does once its body is an envelope.

    ``size_bytes`` as inflated; ``received_at`` is the instant as of which the envelope was read, if reading took one.
    Raises :class:`Overloaded` and what :func:`authenticate` does; then nothing was stored.
    """
    services = get_services(request)
    source = await authenticate(request, services, envelope)
    return await submit(request, source, envelope, size_bytes, received_at or services.clock.now())


async def authenticate(request: Request, services: Services, envelope: Envelope) -> SourceView:
    """The source whose key the request carries. Raises what :func:`app.http.write_keys.authenticate_write_key` does."""
    return (await _admit(request, services, envelope)).source


async def _admit(request: Request, services: Services, envelope: Envelope) -> WriteKeyGrant:
    """The header wins, unless only the body's key is known."""
    keys = (_key_of_header(request), envelope.write_key, request.query_params.get("writeKey"))
    return (await authenticate_write_key(request, services, *keys))[1]


async def submit(
    request: Request, source: SourceView, envelope: Envelope, size_bytes: int, received_at: int
) -> Receipt:
    """Submit an envelope of an authenticated source. Raises :class:`Overloaded`."""
    services = get_services(request)
    peer = read_client_info(request, services.settings)
    return await services.ingest.submit(
        Submission(source=source, envelope=envelope, received_at=received_at, size_bytes=size_bytes, peer=peer)
    )


def _key_of_header(request: Request) -> str | None:
    """From ``Basic base64(key:)``, with or without the colon, or ``Bearer key``."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() != "basic":
        return None
    try:
        return b64decode(value.strip() + "=" * (-len(value.strip()) % 4)).decode().partition(":")[0]
    except ValueError:
        return None


def receipt_json(receipt: Receipt) -> bytes:
    if not receipt.rejections and not receipt.warnings:
        return b'{"success":true,"accepted":%d,"duplicate":%d,"rejected":%d,"projected":%s,"rejections":[]}' % (
            receipt.accepted,
            receipt.duplicate,
            receipt.rejected,
            b"true" if receipt.projected else b"false",
        )
    answer: dict[str, Any] = {
        "success": True,
        "accepted": receipt.accepted,
        "duplicate": receipt.duplicate,
        "rejected": receipt.rejected,
        "projected": receipt.projected,
        "rejections": [rejection_json(each) for each in receipt.rejections],
    }
    if receipt.warnings:
        answer["warnings"] = [rejection_json(each) for each in receipt.warnings]
    return encode_json(answer)


def rejection_json(each: Any) -> dict[str, Any]:
    """Of a rejection or a warning. An id may have been refused for characters that no answer can hold."""
    message_id = each.message_id
    if message_id is not None:
        message_id = message_id.encode("utf-8", "replace").decode()
    return {"index": each.index, "messageId": message_id, "code": str(each.code), "message": each.message}


async def ignore_metrics(request: Request) -> Response:
    """Browser SDKs report on themselves; nothing is kept of it."""
    await read_body(request, get_services(request).settings.limits.body_bytes_max)
    return json_response({"success": True})


async def sdk_settings(request: Request) -> Response:
    """What analytics-next needs to start: only with the key ``Segment.io`` does it take the page's own host."""
    key = request.path_params["write_key"]
    if await get_services(request).registry.access.find_source(key) is None:
        raise NotFound("There is no such write key.")
    segment: dict[str, Any] = {"apiKey": key, "retryQueue": True}
    host = request.headers.get("host", "")
    if _HOST.fullmatch(host):
        segment |= {"apiHost": f"{host}/v1", "protocol": request.url.scheme}
    return json_response({"integrations": {"Segment.io": segment}, "metrics": {"sampleRate": 0}})
