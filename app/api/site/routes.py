"""Routes of the HTML pages (``/``, ``/docs``, ``/docs/guides``) and of the OpenAPI documents."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any, Final

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from app import __version__
from app.api.openapi_document import VENDOR_TAGS, build_page_document
from app.api.site.guides import load_files, load_guides, render_guide, render_index, render_navigation
from app.api.site.layout import read_template, relative_root, render_page
from app.errors import NotFound
from app.http.responses import JSON, encode_json, json_response

_SWAGGER_UI: Final = "fastapi_swagger.resources"
_ASSETS: Final = {
    "swagger-ui-bundle.js": (_SWAGGER_UI, "text/javascript"),
    "swagger-ui.css": (_SWAGGER_UI, "text/css"),
    "api.js": ("app.api.site", "text/javascript"),
    "guides.js": ("app.api.site", "text/javascript"),
    "api.css": ("app.api.site", "text/css"),
    "site.css": ("app.api.site", "text/css"),
    "icon.svg": ("app.api.site", "image/svg+xml"),
}
_ONE_DAY: Final = "public, max-age=86400"
_ONE_HOUR: Final = "public, max-age=3600"

_DESCRIPTION: Final = "Send customer touchpoints; read journey stages and segments, with the reason for each."


def add_site_routes(app: FastAPI) -> None:
    handlers: dict[str, Callable[..., Any]] = {
        "/": get_home,
        "/openapi.json": get_document,
        "/docs": get_api_page,
        "/docs/openapi.json": get_page_document,
        "/docs/guides": get_guides,
        "/docs/guides/{name:path}": get_guide,
        **{f"/docs/{name}": _create_asset_handler(name) for name in _ASSETS},
    }
    for path, handler in handlers.items():
        app.add_api_route(path, handler, methods=["GET"], include_in_schema=False, response_model=None)


async def get_home(request: Request) -> Response:
    """Return the home page, or its links as JSON to a client that prefers JSON."""
    if _prefers_json(request.headers.get("accept", "")):
        links = {"documentation": "/docs", "guides": "/docs/guides", "openapi": "/openapi.json", "health": "/readyz"}
        response = json_response({"name": "Segue", "version": __version__, **links})
    else:
        content = read_template("home.html").substitute(description=_DESCRIPTION, version=__version__)
        response = render_page("/", title="Segue", kind="home", content=content)
    response.headers["vary"] = "Accept"
    return response


async def get_api_page() -> Response:
    content = (
        '<main id="swagger-ui"><p class="loading">Loading the API documentation ...</p></main>\n'
        '<script src="docs/swagger-ui-bundle.js"></script>\n'
        f'<script src="docs/api.js" data-closed-tags="{" ".join(VENDOR_TAGS)}"></script>'
    )
    styles = ("docs/swagger-ui.css", "docs/site.css", "docs/api.css")
    return render_page("/docs", title="Segue API", kind="api", content=content, styles=styles)


async def get_document(request: Request) -> Response:
    """Return the full OpenAPI document."""
    return Response(await _build_once(request.app, "document", request.app.openapi), media_type=JSON)


async def get_page_document(request: Request) -> Response:
    """Return the OpenAPI document for the API page."""
    build = request.app.openapi
    return Response(
        await _build_once(request.app, "page_document", lambda: build_page_document(build())), media_type=JSON
    )


async def _build_once(app: FastAPI, name: str, build: Callable[[], dict[str, Any]]) -> bytes:
    """Return a document, built once for each application, in a thread: that takes more than a second.

    Requests that arrive meanwhile wait for the same document.
    """
    if not hasattr(app.state, "documents"):
        app.state.documents = {}
    documents: dict[str, asyncio.Future[bytes]] = app.state.documents
    if name not in documents or documents[name].cancelled():
        documents[name] = asyncio.ensure_future(run_in_threadpool(lambda: encode_json(build())))
    return await asyncio.shield(documents[name])  # Other requests wait for it too.


def get_guides() -> Response:
    return render_page("/docs/guides", title="Segue guides", kind="guide", content=render_index())


def get_guide(request: Request, name: str) -> Response:
    """Return a guide or one of its images. Rendering blocks, so FastAPI runs this function in a thread."""
    files = load_files()
    if name in files:
        file, media_type = files[name]
        return Response(file.read_bytes(), headers={"cache-control": _ONE_HOUR}, media_type=media_type)
    guide = load_guides().get(name)
    if guide is None:
        raise NotFound("The guide does not exist; /docs/guides lists all guides.")
    page = render_guide(guide)
    navigation = render_navigation(guide, page)
    content = (
        f'<div class="columns"><nav class="guides" aria-label="Guides"><details><summary>All guides</summary>'
        f'{navigation}</details></nav><main class="text">{page.html}</main></div>'
        f'<script src="{relative_root(request.url.path)}docs/guides.js"></script>'
    )
    return render_page(request.url.path, title=f"{guide.title} - Segue", kind="guide", content=content)


def _create_asset_handler(name: str) -> Callable[..., Any]:
    package, media_type = _ASSETS[name]

    def get_asset(request: Request) -> Response:
        headers = {"cache-control": _ONE_DAY if package == _SWAGGER_UI else _ONE_HOUR, "vary": "Accept-Encoding"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(_compress(name), headers={**headers, "content-encoding": "gzip"}, media_type=media_type)
        return Response(_read(name), headers=headers, media_type=media_type)

    return get_asset


def _read(name: str) -> bytes:
    package, _ = _ASSETS[name]
    directory = resources.files(package)
    return (directory / name if package == _SWAGGER_UI else directory / "assets" / name).read_bytes()


@cache
def _compress(name: str) -> bytes:
    """Return a compressed asset, and cache it: the bundle of Swagger UI is 1.7 MB, or 0.5 MB after gzip."""
    return gzip.compress(_read(name), mtime=0)


def _prefers_json(accept: str) -> bool:
    """Return whether the Accept header contains JSON with a higher weight than HTML."""
    weights: dict[str, float] = {}
    for option in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in option.split(";"))
        weight = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        try:
            weights[media_type] = float(weight)
        except ValueError:
            weights[media_type] = 0.0
    return weights.get("application/json", 0.0) > weights.get("text/html", 0.0)
