"""Routes that serve the browser library: cached for an hour as ``segue.js``, permanently under its content hash."""

from __future__ import annotations

import gzip
from functools import cache
from typing import Any, Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from app.api.schemas import describe_problems
from app.browser import Snippet, snippet
from app.errors import NotFound
from app.http.direct_route import DirectRoute
from app.http.responses import is_etag_match

_MEDIA_TYPE: Final = "text/javascript; charset=utf-8"
_CACHE_ONE_HOUR: Final = "public, max-age=3600"
_CACHE_IMMUTABLE: Final = "public, max-age=31536000, immutable"
_GZIP_LEVEL: Final = 9
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "JavaScript.", "content": {"text/javascript": {"schema": {"type": "string"}}}},
    304: {"description": "Not modified: If-None-Match names the current version."},
}


def add_browser_library_routes(app: FastAPI) -> None:
    version = {
        "name": "version",
        "in": "path",
        "required": True,
        "description": "The first 12 hex digits of the SHA-256 of the file.",
        "schema": {"type": "string", "title": "Version"},
    }
    for path, endpoint, summary, parameters in (
        ("/segue.js", get_browser_library, "Get the browser library", []),
        (
            "/segue-{version}.js",
            get_browser_library_version,
            "Get one version of the browser library",
            [version],
        ),
    ):
        route = DirectRoute(
            path,
            endpoint,
            methods=["GET"],
            tags=["pages"],
            operation_id=endpoint.__name__,
            summary=summary,
            response_class=Response,
            responses={**_RESPONSES, **(describe_problems(404) if parameters else {})},
            openapi_extra={"security": [], "parameters": parameters},
        )
        app.router.routes.append(route)


async def get_browser_library(request: Request) -> Response:
    return _build_response(request, snippet(), _CACHE_ONE_HOUR)


async def get_browser_library_version(request: Request) -> Response:
    library = snippet()
    if request.path_params["version"] != library.version:
        raise NotFound("This server has another version of the library. Load /segue.js instead.")
    return _build_response(request, library, _CACHE_IMMUTABLE)


def _build_response(request: Request, library: Snippet, cache_control: str) -> Response:
    is_gzip = _accepts_gzip(request.headers.get("accept-encoding", ""))
    # A strong ETag identifies exact bytes, so the compressed file has a different ETag than the plain file.
    tag = f'"{library.version}{"-gzip" if is_gzip else ""}"'
    headers = {
        "etag": tag,
        "cache-control": cache_control,
        "vary": "Accept-Encoding",
        "access-control-allow-origin": "*",
        "x-content-type-options": "nosniff",
        "cross-origin-resource-policy": "cross-origin",
    }
    if is_etag_match(request.headers.get("if-none-match"), f"W/{tag}"):
        return Response(None, 304, headers)
    if is_gzip:
        headers["content-encoding"] = "gzip"
    body = _compress(library.content) if is_gzip else library.content
    return Response(body, 200, headers, _MEDIA_TYPE)


def _accepts_gzip(accept_encoding: str) -> bool:
    """Return whether Accept-Encoding allows gzip (RFC 9110).

    ``q=0`` forbids a coding; ``*`` matches all codings that the header does not list.
    """
    weights: dict[str, bool] = {}
    for coding in accept_encoding.lower().split(","):
        name, _, weight = coding.replace(" ", "").partition(";q=")
        weights[name] = weight.strip("0.") != "" or "q=" not in coding
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", False)))


@cache
def _compress(content: bytes) -> bytes:
    return gzip.compress(content, _GZIP_LEVEL, mtime=0)
