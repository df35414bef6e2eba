"""Routes of Customer.io's Track API, versions 1 and 2. The site id or the API key is a Segue write key.

Ids in paths may contain any character, such as a slash. The middleware therefore keeps these paths percent-encoded
(:func:`app.http.middleware._restore_encoded_path`), and this module decodes them once.
"""

from __future__ import annotations

from base64 import b64decode
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from app.api.collect import authenticate, submit_envelope
from app.api.schemas import (
    CustomerioBatchIn,
    CustomerioErrorsOut,
    CustomerioIn,
    CustomerioOperationIn,
    CustomerioOut,
    describe_json_body,
    describe_problems,
)
from app.api.vendor_routes import COLLECT_STATUSES, add_vendor_route, describe_json_400
from app.errors import BadRequest, Rejection
from app.formats.customerio_track import (
    describe_error,
    read_batch_in_steps,
    read_call_in_steps,
    read_operation_in_steps,
)
from app.formats.segment import Envelope
from app.http.bodies import read_body
from app.http.body_turns import inflate_body, parse_in_turn
from app.http.dependencies import get_services
from app.http.direct_route import Handler
from app.http.responses import json_response
from app.ingest.pending_request import Receipt
from app.touchpoint import SourceView

_CUSTOMER_PATH: Final = "/api/v1/customers/{id}"
_CALLS: Final = (
    ("PUT", _CUSTOMER_PATH, "identify", "Identify a person"),
    ("DELETE", _CUSTOMER_PATH, "delete", "Request the erasure of a person"),
    ("POST", f"{_CUSTOMER_PATH}/events", "event", "Record an event of a person"),
    ("POST", "/api/v1/events", "anonymous_event", "Record an anonymous event"),
    ("POST", "/api/v1/merge_customers", "merge", "Merge two people"),
    ("PUT", f"{_CUSTOMER_PATH}/devices", "add_device", "Add a push device"),
    ("DELETE", f"{_CUSTOMER_PATH}/devices/{{token}}", "delete_device", "Remove a push device"),
    (
        "POST",
        f"{_CUSTOMER_PATH}/suppress",
        "suppress",
        "Suppress a person and request their erasure",
    ),
    ("POST", f"{_CUSTOMER_PATH}/unsuppress", "unsuppress", "Unsuppress a person"),
    ("POST", "/api/v1/push/events", "push_event", "Record a push metric"),
    ("POST", "/api/v1/metrics", "metric", "Record a delivery metric"),
)
_PATH_PARAMETERS: Final = {
    "id": ("An id, an email address, or `cio_` followed by Customer.io's id. Encode a slash as `%2F`.", "user-1"),
    "token": ("Token of the device.", "device-1"),
}


def add_customerio_track_routes(app: FastAPI) -> None:
    for method, path, call, summary in _CALLS:
        add_vendor_route(
            app,
            path,
            _create_call_handler(call),
            tag="customerio",
            method=method,
            operation_id=f"customerio_{call}",
            summary=summary,
            response_model=CustomerioOut,
            openapi_extra={
                **(describe_json_body(CustomerioIn) if method != "DELETE" else {}),
                "parameters": [_describe_path_parameter(name) for name in _PATH_PARAMETERS if f"{{{name}}}" in path],
            },
        )
    add_vendor_route(
        app,
        "/api/v2/entity",
        receive_entity,
        tag="customerio",
        operation_id="customerio_entity",
        summary="Process one operation",
        description="If the operation is refused, the status is 400 and the body contains `errors`.",
        response_model=CustomerioOut,
        responses={**describe_problems(*COLLECT_STATUSES), **describe_json_400(CustomerioErrorsOut)},
        openapi_extra=describe_json_body(CustomerioOperationIn),
    )
    add_vendor_route(
        app,
        "/api/v2/batch",
        receive_batch,
        tag="customerio",
        operation_id="customerio_batch",
        summary="Process a batch of operations",
        description="If operations are refused, the status is 207 and `errors` lists them. The others are stored.",
        response_model=CustomerioOut,
        openapi_extra={
            **describe_json_body(CustomerioBatchIn),
            "responses": {
                "207": {
                    "description": "Some operations were refused and are in quarantine; the others are stored.",
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/CustomerioErrorsOut"}}},
                }
            },
        },
    )


def _describe_path_parameter(name: str) -> dict[str, Any]:
    description, example = _PATH_PARAMETERS[name]
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "string", "title": name.capitalize()},
        "example": example,
    }


def _create_call_handler(call: str) -> Handler:
    async def receive_call(request: Request) -> Response:
        services = get_services(request)
        received_at = services.clock.now()
        source = await _authenticate_source(request)
        body = await _read_inflated_body(request)
        person_id, device_token = (_decode_path_segment(request.path_params.get(name, "")) for name in _PATH_PARAMETERS)
        steps = read_call_in_steps(call, person_id, device_token, body, received_at, services.settings.limits)
        envelope = await parse_in_turn(request, steps, len(body))
        await _submit_operations(request, source, envelope, len(body), received_at)
        return json_response({})

    return receive_call


async def receive_entity(request: Request) -> Response:
    services = get_services(request)
    received_at = services.clock.now()
    source = await _authenticate_source(request)
    body = await _read_inflated_body(request)
    steps = read_operation_in_steps(body, received_at, services.settings.limits)
    envelope = await parse_in_turn(request, steps, len(body))
    receipt = await _submit_operations(request, source, envelope, len(body), received_at)
    return json_response(_render_errors(receipt.rejections), 400) if receipt.rejections else json_response({})


async def receive_batch(request: Request) -> Response:
    services = get_services(request)
    received_at = services.clock.now()
    source = await _authenticate_source(request)
    body = await _read_inflated_body(request)
    steps = read_batch_in_steps(body, received_at, services.settings.limits)
    envelope = await parse_in_turn(request, steps, len(body))
    receipt = await _submit_operations(request, source, envelope, len(body), received_at)
    return json_response(_render_errors(receipt.rejections), 207) if receipt.rejections else json_response({})


async def _authenticate_source(request: Request) -> SourceView:
    """Authenticate before reading the body: an operation about many people is expensive to parse."""
    return (await authenticate(request, _read_password(request))).source


async def _submit_operations(
    request: Request, source: SourceView, envelope: Envelope, size_bytes: int, received_at: int
) -> Receipt:
    """Submit the messages of a request. Its size is the size of the body or of the messages, if they are larger.

    Raise :class:`Overloaded` if the queue is full.
    """
    item_bytes = sum(len(item) for item in envelope.items)
    return await submit_envelope(request, source, envelope, max(size_bytes, item_bytes), received_at)


async def _read_inflated_body(request: Request) -> bytes:
    limits = get_services(request).settings.limits
    return await inflate_body(request, await read_body(request, limits.body_bytes_max), is_known=True)


def _decode_path_segment(segment: str) -> str:
    """Decode a segment of the path. Raise :class:`BadRequest` if it is not percent-encoded UTF-8."""
    try:
        return unquote_to_bytes(segment.encode("latin-1")).decode()
    except UnicodeError:
        raise BadRequest("The percent-encoded path is not UTF-8.") from None


def _read_password(request: Request) -> str | None:
    """Return the password of Basic authorization, which is the API key; ``authenticate`` reads the user name."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return b64decode(value.strip() + "=" * (-len(value.strip()) % 4)).decode().partition(":")[2] or None
    except ValueError:
        return None


def _render_errors(rejections: list[Rejection]) -> dict[str, Any]:
    return {
        "errors": [describe_error(rejection) for rejection in sorted(rejections, key=lambda rejection: rejection.index)]
    }
