"""Every failure in one shape: RFC 9457 problem details that also carry ``code`` and ``message`` at top level."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app.errors import Overloaded, SegueError
from app.http.responses import encode_json, problem_response
from app.postgres.pool import UNREACHABLE

CLIENT_CLOSED_REQUEST: Final = 499
"""Of nginx; no client ever reads it."""

_log = structlog.get_logger(__name__)


def add_problem_handlers(app: FastAPI) -> None:
    app.add_exception_handler(SegueError, _handle_segue_error)
    for error in UNREACHABLE:
        app.add_exception_handler(error, _handle_unreachable_database)
    app.add_exception_handler(ClientDisconnect, _handle_disconnect)
    app.add_exception_handler(HTTPException, _handle_http_exception)
    app.add_exception_handler(RequestValidationError, _handle_invalid_parameter)


async def _handle_segue_error(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, SegueError)
    return problem_response(error)


async def _handle_unreachable_database(request: Request, error: Exception) -> Response:
    """Away for a while, and not the caller's fault: never a status on which clients drop what they hold."""
    _log.warning(
        "database.connection_failed", route=getattr(request.scope.get("route"), "path", ""), error=type(error).__name__
    )
    return problem_response(Overloaded("The database cannot be reached; send it again later."))


async def _handle_disconnect(request: Request, error: Exception) -> Response:
    """The caller hung up: only the figures of requests see this status."""
    del request, error
    return Response(None, CLIENT_CLOSED_REQUEST)


async def _handle_http_exception(request: Request, error: Exception) -> Response:
    """No route, or a route that knows the path but not the method."""
    del request
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
    return _build_problem_response(error.status_code, code, phrase, str(error.detail), dict(error.headers or {}))


async def _handle_invalid_parameter(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, RequestValidationError)
    first_error = error.errors()[0]
    path = ".".join(str(part) for part in first_error["loc"])
    return _build_problem_response(
        422, "invalid_parameter", "A parameter is not valid", f"{path}: {first_error['msg']}", {}, path=path
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
