"""The outermost layer of every request: raw paths, cross-origin answers, request metrics, the last resort.

Plain ASGI and one layer only, because every touchpoint passes through it.
"""

from __future__ import annotations

import time
from typing import Final
from urllib.parse import quote

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import RateLimited, SegueError
from app.http.rate_limits import RateLimits
from app.http.responses import problem_response
from app.observability.metrics import Metrics

CUSTOMERS: Final = ("/v1/customers/", "/api/v1/customers/")
"""Of ours, and of Customer.io's Track API."""

_PREFLIGHT_HEADERS: Final = (
    "Authorization, Content-Type, If-None-Match, X-Retry-Count, AnonymousId, SentAt, X-Write-Key"
)
_PREFLIGHT_SECONDS: Final = "86400"
_UNMATCHED: Final = "(none)"
_METHODS: Final = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"})

_log = structlog.get_logger(__name__)


class IngressMiddleware:
    """``open_paths``, and all paths under ``open_prefixes``, are the routes that any web page may call.

    The others send no CORS headers at all. Requests to these are counted by address where they come from a visitor: a
    page says so by its Origin, an image by GET, a batch by its ``visitor`` (:func:`app.api.collect.collector`). The
    POSTs of servers, which share an address among all their customers, are not.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        rates: RateLimits,
        open_paths: frozenset[str],
        open_prefixes: tuple[str, ...],
    ) -> None:
        self._app = app
        self._rates = rates
        self._metrics = metrics
        self._open_paths = open_paths
        self._open_prefixes = open_prefixes
        self._warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        status: int | None = None
        origin = self._origin(scope)

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if origin is not None:
                    _allow(message, origin)
            await send(message)

        _keep_encoded(scope)
        try:
            if origin is not None and scope["method"] == "OPTIONS":
                await _preflight(scope)(scope, receive, send_noting)
                return
            if origin is not None or (scope["method"] == "GET" and self._is_open(scope["path"])):
                # Before anything of it is read: what is turned away must cost next to nothing.
                await self._rates.address(scope["client"][0] if scope.get("client") else None)
            await self._app(scope, receive, send_noting)
        except RateLimited as error:
            self._look_for_proxy(scope)
            await problem_response(error)(scope, receive, send_noting)
        except Exception:
            _log.exception("request.failed", route=_route(scope))
            if status is not None:
                raise
            await problem_response(SegueError())(scope, receive, send_noting)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.count_request(method, _route(scope), status or 500, time.perf_counter() - start)

    def _look_for_proxy(self, scope: Scope) -> None:
        """Behind a proxy that is not believed all visitors are one address, and soon turned away: say so, once."""
        told = Headers(scope=scope).get("x-forwarded-for")
        if self._warned or told is None or not scope.get("client") or scope["client"][0] in told:
            return
        self._warned = True
        _log.warning("rates.proxy_not_believed", proxy=scope["client"][0], remedy="Name it in FORWARDED_ALLOW_IPS.")

    def _origin(self, scope: Scope) -> str | None:
        """The page that asks, where pages may ask."""
        if not self._is_open(scope["path"]):
            return None
        for name, value in scope["headers"]:
            if name == b"origin":
                return str(value.decode("latin-1"))
        return None

    def _is_open(self, path: str) -> bool:
        return path in self._open_paths or path.startswith(self._open_prefixes)


def _route(scope: Scope) -> str:
    """The template, never the path: labels hold nothing that a client sent."""
    return getattr(scope.get("route"), "path", _UNMATCHED)


def _keep_encoded(scope: Scope) -> None:
    """Customers' ids may hold anything, a slash included: their routes match on the path as it was sent."""
    if scope["path"].startswith(CUSTOMERS) and scope.get("raw_path"):
        raw = scope["raw_path"].decode("latin-1")
        # Where the prefix itself came encoded, encode all anew, so that it is decoded once and not twice.
        scope["path"] = raw if raw.startswith(CUSTOMERS) else quote(scope["path"], errors="replace")


def _allow(message: Message, origin: str) -> None:
    headers = MutableHeaders(raw=message["headers"])
    headers["Access-Control-Allow-Origin"] = origin
    headers["Access-Control-Allow-Credentials"] = "true"
    headers["Access-Control-Expose-Headers"] = "Retry-After, ETag"
    headers.add_vary_header("Origin")


def _preflight(scope: Scope) -> Response:
    """Answered without a key: browsers send none."""
    asked = Headers(scope=scope).get("access-control-request-headers", _PREFLIGHT_HEADERS)
    return Response(
        None,
        204,
        {
            "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE, HEAD, OPTIONS",
            "Access-Control-Allow-Headers": asked,
            "Access-Control-Max-Age": _PREFLIGHT_SECONDS,
        },
    )
