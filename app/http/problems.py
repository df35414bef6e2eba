"""Exception handlers: every error response is RFC 9457 problem details, with ``code`` and ``message`` added."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match

from app.errors import Overloaded, SegueError
from app.http.dependencies import get_services
from app.http.responses import encode_json, problem_response
from app.postgres.pool import UNREACHABLE
from app.queries.replay_limit import HeavyPageRead, HeavyRead

CLIENT_CLOSED_REQUEST: Final = 499
"""Status that nginx uses for a client that disconnected; it appears only in logs and metrics."""

_log = structlog.get_logger(__name__)


def add_problem_handlers(app: FastAPI) -> None:
    app.add_exception_handler(SegueError, _handle_segue_error)
    for error in UNREACHABLE:
        app.add_exception_handler(error, _handle_unreachable_database)
    app.add_exception_handler(HeavyRead, _forward_heavy_read)
    app.add_exception_handler(ClientDisconnect, _handle_disconnect)
    app.add_exception_handler(HTTPException, _handle_http_exception)
    app.add_exception_handler(RequestValidationError, _handle_invalid_parameter)


async def _handle_segue_error(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, SegueError)
    return problem_response(error)


async def _forward_heavy_read(request: Request, error: Exception) -> Response:
    """Let the background process answer a read that is too heavy for this process."""
    background_reads = get_services(request).background_reads
    assert background_reads is not None, "a process without a background process answers every read"
    try:
        return await background_reads.forward(request, is_from_page=isinstance(error, HeavyPageRead))
    except ClientDisconnect as disconnect:
        return await _handle_disconnect(request, disconnect)
    except SegueError as refusal:
        return problem_response(refusal)


async def _handle_unreachable_database(request: Request, error: Exception) -> Response:
    """Respond with 503, so that clients keep their messages and retry."""
    _log.warning(
        "database.connection_failed", route=getattr(request.scope.get("route"), "path", ""), error=type(error).__name__
    )
    return problem_response(Overloaded("The database is unreachable; try again later."))


async def _handle_disconnect(request: Request, error: Exception) -> Response:
    """Return a status for the request metrics; the client has disconnected and receives nothing."""
    del request, error
    return Response(None, CLIENT_CLOSED_REQUEST)


async def _handle_http_exception(request: Request, error: Exception) -> Response:
    """Convert the errors of routing: an unknown path, or a method that the path does not support."""
    assert isinstance(error, HTTPException)
    message, headers = str(error.detail), dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_find_allowed_methods(request))
        message = f"{request.method} is not allowed here; use {headers['Allow']}."
    title = HTTPStatus(error.status_code).phrase.capitalize()
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
    return _build_problem_response(error.status_code, code, title, message, headers)


def _find_allowed_methods(request: Request) -> list[str]:
    """Return the methods of all routes with this path. Starlette reports only those of the first one."""
    methods: set[str] = set()
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    return sorted(methods)


async def _handle_invalid_parameter(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, RequestValidationError)
    first_error = error.errors()[0]
    path = ".".join(str(part) for part in first_error["loc"])
    return _build_problem_response(
        422, "invalid_parameter", "Invalid parameter", f"{path}: {first_error['msg']}", {}, path=path
    )


def _build_problem_response(
    status: int, code: str, title: str, message: str, headers: dict[str, str], **extra: Any
) -> Response:
    content = {
        "type": f"urn:segue:error:{code}",
        "title": title,
        "status": status,
        "detail": message,
        "code": code,
        "message": message,
        **extra,
    }
    return Response(encode_json(content), status, headers, "application/problem+json")
