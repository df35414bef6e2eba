"""Declaration of routes for other vendors' SDKs, and helpers of their handlers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from fastapi import FastAPI, Security
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from app.api.schemas import describe_problems
from app.errors import SegueError
from app.formats.encodings import Payload, unwrap_data_in_steps, unwrap_in_steps
from app.formats.pixel import GIF
from app.http.auth import WriteKey
from app.http.bodies import read_body
from app.http.body_turns import start_in_turn
from app.http.dependencies import get_services
from app.http.direct_route import DirectRoute, Handler

_TRUE: Final = ("1", "true")
COLLECT_STATUSES: Final = (400, 401, 403, 408, 429, 503)
_NO_STORE: Final = {"Cache-Control": "no-store, no-cache, must-revalidate", "Pragma": "no-cache"}


def add_vendor_route(
    app: FastAPI,
    path: str,
    handler: Handler,
    *,
    tag: str,
    method: str = "POST",
    documented: bool = True,
    keyless: bool = False,
    failures: tuple[int, ...] = COLLECT_STATUSES,
    **options: Any,
) -> None:
    """Add a route with and without a trailing slash; the OpenAPI document contains only the path without one.

    A ``keyless`` route requires no write key.
    """
    for slash in ("", "/"):
        app.router.routes.append(
            DirectRoute(
                path + slash,
                handler,
                methods=[method],
                tags=[tag],
                include_in_schema=documented and not slash,
                dependencies=[] if keyless else [Security(WriteKey())],
                **{"responses": describe_problems(*failures), **options},
            )
        )


def describe_json_400(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """Return ``responses`` of a route whose 400 has the vendor's format, or is a problem if the body is unreadable."""
    problem = describe_problems(400)[400]
    vendor_shape = {"application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}
    return {400: {**problem, "content": {**vendor_shape, **problem["content"]}}}


def list_slash_variants(*paths: str) -> frozenset[str]:
    return frozenset(path + slash for path in paths for slash in ("", "/"))


async def read_payload(request: Request, *, is_known: bool = False) -> Payload:
    """Return ``data`` of the query, else the payload of the body. ``is_known`` is whether the key has been checked.

    Raise BodyTooLarge, BodyTooSlow, InvalidBody or Overloaded.
    """
    limits = get_services(request).settings.limits
    data = request.query_params.get("data")
    if request.method == "GET" or data is not None:
        encoded = (data or "").encode()
        steps = unwrap_data_in_steps(encoded, limits)
        return Payload(await start_in_turn(request, steps, len(encoded), is_known=is_known))
    body = await read_body(request, limits.body_bytes_max)
    payload_steps = unwrap_in_steps(body, request.headers.get("content-encoding"), limits)
    return await start_in_turn(request, payload_steps, len(body), is_known=is_known)


def is_flag_set(request: Request, payload: Payload, name: str) -> bool:
    return (request.query_params.get(name) or payload.flags.get(name, "")) in _TRUE


@contextmanager
def add_error_member() -> Iterator[None]:
    """Add the field ``error`` to problem details, because Mixpanel's clients read it."""
    try:
        yield
    except SegueError as error:
        error.extra.setdefault("error", error.message)
        raise


def pixel_response() -> Response:
    return Response(GIF, 200, _NO_STORE, "image/gif")
