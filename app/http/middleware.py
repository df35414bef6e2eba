"""Outermost ASGI middleware: HEAD, paths, CORS, security headers, address rate limits, metrics, unexpected errors.

It is one plain ASGI layer, for speed: every message passes through it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import RateLimited, SegueError
from app.http.rate_limits import RateLimits
from app.http.responses import problem_response
from app.http.write_keys import read_authorization_key
from app.observability.metrics import Metrics

ENCODED_PATH_PREFIXES: Final = ("/v1/customers/", "/api/v1/customers/")
"""Prefixes of routes with a customer id in the path: Segue's API, and Customer.io's Track API."""

_PREFLIGHT_HEADERS: Final = (
    "Authorization, Content-Type, If-None-Match, X-Retry-Count, AnonymousId, SentAt, X-Write-Key"
)
_PREFLIGHT_SECONDS: Final = "86400"
_PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics"})
_NO_ROUTE: Final = "(none)"
IS_HEAD: Final = "segue.is_head"
"""Key of the scope of a HEAD request, whose method handlers see as GET."""

_PAGE_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; "
        b"base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
)
"""Security headers of HTML responses. Swagger UI needs inline styles and images in data URLs."""
_METHODS: Final = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"})

_log = structlog.get_logger(__name__)


class IngressMiddleware:
    """Middleware of the whole application.

    ``open_paths``, and all paths under ``open_prefixes``, are open routes: any web page may call them. Responses of
    other routes have no CORS headers.

    A request to an open route counts against the visitors' rate limit of its address if it comes from a visitor. A
    request from a page has an Origin header, an image is a GET, and a batch has a ``visitor``
    (:func:`app.api.visitor_claims.verify_claim`). Other requests have a higher limit, because all customers of a server
    share its address; those with a server key are exempt, see ``has_server_key``. Probes do not count.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        rate_limits: RateLimits,
        has_server_key: Callable[[str], bool],
        open_paths: frozenset[str],
        open_prefixes: tuple[str, ...],
    ) -> None:
        self._app = app
        self._rate_limits = rate_limits
        self._has_server_key = has_server_key
        self._metrics = metrics
        self._open_paths = open_paths
        self._open_prefixes = open_prefixes
        self._warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in _METHODS else "other"
        if method == "HEAD":
            scope, send = {**scope, "method": "GET", IS_HEAD: True}, _drop_body(send)
        started_at = time.perf_counter()
        status: int | None = None
        origin = self._find_origin(scope)

        async def send_and_note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_page_headers(message)
                if origin is not None:
                    _add_cors_headers(message, origin)
            await send(message)

        _restore_encoded_path(scope)
        try:
            if origin is not None and scope["method"] == "OPTIONS":
                await _build_preflight_response(scope)(scope, receive, send_and_note_status)
                return
            # Count before reading the body, so that refusing a request costs almost nothing.
            await self._count_address(scope, origin)
            await self._app(scope, receive, send_and_note_status)
        except RateLimited as error:
            self._warn_of_untrusted_proxy(scope)
            await problem_response(error)(scope, receive, send_and_note_status)
        except Exception:
            _log.exception("request.failed", route=_find_route_template(scope))
            if status is not None:
                raise
            await problem_response(SegueError())(scope, receive, send_and_note_status)
        finally:
            self._metrics.count_request(
                method, _find_route_template(scope), status or 500, time.perf_counter() - started_at
            )

    async def _count_address(self, scope: Scope, origin: str | None) -> None:
        address = scope["client"][0] if scope.get("client") else None
        if origin is not None or (scope["method"] == "GET" and self._is_open(scope["path"])):
            await self._rate_limits.count_address(address)
        elif scope["path"] not in _PROBES:
            key = read_authorization_key(Headers(scope=scope).get("authorization", ""))
            if key is None or not self._has_server_key(key):
                await self._rate_limits.count_server_address(address)

    def _warn_of_untrusted_proxy(self, scope: Scope) -> None:
        """Warn once if an untrusted proxy makes all visitors share one address, and so one rate limit."""
        forwarded_for = Headers(scope=scope).get("x-forwarded-for")
        if self._warned or forwarded_for is None or not scope.get("client") or scope["client"][0] in forwarded_for:
            return
        self._warned = True
        _log.warning("forwarded_for.ignored", proxy=scope["client"][0], remedy="Add it to FORWARDED_ALLOW_IPS.")

    def _find_origin(self, scope: Scope) -> str | None:
        """Return the Origin header if the route is open to web pages."""
        if not self._is_open(scope["path"]):
            return None
        for name, value in scope["headers"]:
            if name == b"origin":
                return str(value.decode("latin-1"))
        return None

    def _is_open(self, path: str) -> bool:
        return path in self._open_paths or path.startswith(self._open_prefixes)


def _drop_body(send: Send) -> Send:
    """Return a function that sends a response without its body, as HEAD requires, and ends it at once.

    A stream then ends, because its handler learns that the client has disconnected.
    """
    is_complete = False

    async def send_head(message: Message) -> None:
        nonlocal is_complete
        if message["type"] == "http.response.start":
            await send(message)
        elif not is_complete:
            is_complete = True
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return send_head


def _add_page_headers(message: Message) -> None:
    if any(name == b"content-type" and value.startswith(b"text/html") for name, value in message["headers"]):
        present = {name for name, _ in message["headers"]}
        message["headers"] = [*message["headers"], *(header for header in _PAGE_HEADERS if header[0] not in present)]


def _find_route_template(scope: Scope) -> str:
    """Return the route's template, never the path: a metric label must not contain text from a client."""
    return getattr(scope.get("route"), "path", _NO_ROUTE)


def _restore_encoded_path(scope: Scope) -> None:
    """Make customer routes match on the percent-encoded path, because a customer id may contain a slash."""
    if scope["path"].startswith(ENCODED_PATH_PREFIXES) and scope.get("raw_path"):
        raw_path = scope["raw_path"].decode("latin-1")
        # If the prefix itself was percent-encoded, encode the decoded path again, because handlers decode it once more.
        scope["path"] = (
            raw_path if raw_path.startswith(ENCODED_PATH_PREFIXES) else quote(scope["path"], errors="replace")
        )


def _add_cors_headers(message: Message, origin: str) -> None:
    headers = MutableHeaders(raw=message["headers"])
    headers["Access-Control-Allow-Origin"] = origin
    headers["Access-Control-Allow-Credentials"] = "true"
    headers["Access-Control-Expose-Headers"] = "Retry-After, ETag"
    headers.add_vary_header("Origin")


def _build_preflight_response(scope: Scope) -> Response:
    """Build the response to a CORS preflight. It needs no key, because browsers send none with a preflight."""
    requested_headers = Headers(scope=scope).get("access-control-request-headers", _PREFLIGHT_HEADERS)
    return Response(
        None,
        204,
        {
            "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE, HEAD, OPTIONS",
            "Access-Control-Allow-Headers": requested_headers,
            "Access-Control-Max-Age": _PREFLIGHT_SECONDS,
        },
    )
