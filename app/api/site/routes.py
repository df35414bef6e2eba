"""Routes of the HTML pages (``/``, ``/docs``, ``/docs/guides``) and of the OpenAPI documents."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from app import __version__
from app.api.openapi_document import VENDOR_TAGS
from app.api.site.guides import Guide, load_files, load_guides, render_guide, render_index, render_navigation
from app.api.site.layout import read_template, relative_root, render_page
from app.api.site.shared_content import SharedContent
from app.errors import NotFound
from app.http.responses import JSON, json_response

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
_DOCUMENTS: Final = {"/openapi.json": "openapi.json", "/docs/openapi.json": "page.json"}
"""Path -> file in ``openapi/``. Building a document takes half a second, so ``python -m app.openapi`` writes them."""
_PACKAGE: Final = Path(__file__).parents[2]
_ONE_DAY: Final = "public, max-age=86400"
_ONE_HOUR: Final = "public, max-age=3600"

_DESCRIPTION: Final = "Send customer touchpoints; read journey stages and segments, with the reason for each."


def add_site_routes(app: FastAPI) -> None:
    site = _Site()
    handlers: dict[str, Callable[..., Any]] = {
        "/": site.get_home,
        "/docs": site.get_api_page,
        "/docs/guides": site.get_guides,
        "/docs/guides/{name:path}": site.get_guide,
        **{path: site.create_document_handler(name) for path, name in _DOCUMENTS.items()},
        **{f"/docs/{name}": site.create_asset_handler(name) for name in _ASSETS},
    }
    for path, handler in handlers.items():
        app.add_api_route(path, handler, methods=["GET"], include_in_schema=False, response_model=None)


class _Site:
    """Handlers of the pages and files. Their content is shared by all responses."""

    def __init__(self) -> None:
        self._content = SharedContent()

    async def get_home(self, request: Request) -> Response:
        """Return the home page, or its links as JSON to a client that prefers JSON."""
        if _prefers_json(request.headers.get("accept", "")):
            links = {
                "documentation": "/docs",
                "guides": "/docs/guides",
                "openapi": "/openapi.json",
                "health": "/readyz",
            }
            response = json_response({"name": "Segue", "version": __version__, **links})
        else:
            response = await self._respond_with_page("/", _render_home)
        response.headers["vary"] = "Accept"
        return response

    async def get_api_page(self) -> Response:
        return await self._respond_with_page("/docs", _render_api_page)

    async def get_guides(self) -> Response:
        return await self._respond_with_page("/docs/guides", _render_guides)

    async def get_guide(self, request: Request, name: str) -> Response:
        """Return a guide or one of its images."""
        files = await self._content.get(load_files, load_files)
        if name in files:
            file, media_type = files[name]
            image = await self._content.get(file, file.read_bytes)
            return Response(image, headers={"cache-control": _ONE_HOUR}, media_type=media_type)
        guide = (await self._content.get(load_guides, load_guides)).get(name)
        if guide is None:
            raise NotFound("The guide does not exist; /docs/guides lists all guides.")
        return await self._respond_with_page(request.url.path, lambda: _render_guide(guide), guide.file)

    def create_document_handler(self, name: str) -> Callable[..., Any]:
        async def get_document(request: Request) -> Response:
            return await self._respond_with_file(request, name, lambda: _read_document(name), JSON, "no-cache")

        return get_document

    def create_asset_handler(self, name: str) -> Callable[..., Any]:
        package, media_type = _ASSETS[name]
        cache_control = _ONE_DAY if package == _SWAGGER_UI else _ONE_HOUR

        async def get_asset(request: Request) -> Response:
            return await self._respond_with_file(request, name, lambda: _read_asset(name), media_type, cache_control)

        return get_asset

    async def _respond_with_page(self, path: str, render: Callable[[], bytes], file: Path | None = None) -> Response:
        """Return a page. If its file has changed, it is rendered again."""
        modified_ns = None if file is None else file.stat().st_mtime_ns
        page = await self._content.get((path, modified_ns), render)
        return HTMLResponse(page, headers={"cache-control": "no-cache"})

    async def _respond_with_file(
        self, request: Request, name: str, read: Callable[[], bytes], media_type: str, cache_control: str
    ) -> Response:
        headers = {"cache-control": cache_control, "vary": "Accept-Encoding"}
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(await self._content.get((name, "plain"), read), headers=headers, media_type=media_type)
        compressed = await self._content.get((name, "gzip"), lambda: gzip.compress(read(), mtime=0))
        return Response(compressed, headers={**headers, "content-encoding": "gzip"}, media_type=media_type)


def _render_home() -> bytes:
    content = read_template("home.html").substitute(description=_DESCRIPTION, version=__version__)
    return render_page("/", title="Segue", kind="home", content=content)


def _render_api_page() -> bytes:
    content = (
        '<main id="swagger-ui"><p class="loading">Loading the API documentation ...</p></main>\n'
        '<script src="docs/swagger-ui-bundle.js"></script>\n'
        f'<script src="docs/api.js" data-closed-tags="{" ".join(VENDOR_TAGS)}"></script>'
    )
    styles = ("docs/swagger-ui.css", "docs/site.css", "docs/api.css")
    return render_page("/docs", title="Segue API", kind="api", content=content, styles=styles)


def _render_guides() -> bytes:
    return render_page("/docs/guides", title="Segue guides", kind="guide", content=render_index())


def _render_guide(guide: Guide) -> bytes:
    path = f"/docs/guides/{guide.name}"
    page = render_guide(guide)
    navigation = render_navigation(guide, page)
    content = (
        f'<div class="columns"><nav class="guides" aria-label="Guides"><details><summary>All guides</summary>'
        f'{navigation}</details></nav><main class="text">{page.html}</main></div>'
        f'<script src="{relative_root(path)}docs/guides.js"></script>'
    )
    return render_page(path, title=f"{guide.title} - Segue", kind="guide", content=content)


def find_documents_directory() -> Path:
    """Return ``openapi/``: inside the installed package, else beside it in the checkout."""
    installed = _PACKAGE / "openapi_documents"
    return installed if installed.is_dir() else _PACKAGE.parent / "openapi"


def _read_document(name: str) -> bytes:
    return (find_documents_directory() / name).read_bytes()


def _read_asset(name: str) -> bytes:
    package, _ = _ASSETS[name]
    directory = resources.files(package)
    return (directory / name if package == _SWAGGER_UI else directory / "assets" / name).read_bytes()


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
