"""/docs without the internet: the page and all it loads come from here. The files of Swagger UI are a package's."""

from __future__ import annotations

from importlib import resources
from typing import Final

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import Response

_PACKAGE: Final = "fastapi_swagger.resources"
_FILES: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}


def add_swagger_ui(app: FastAPI) -> None:
    app.add_api_route("/docs", get_docs, methods=["GET"], include_in_schema=False)
    for name, media_type in _FILES.items():
        app.add_api_route(
            f"/docs/{name}", _create_file_handler(name, media_type), methods=["GET"], include_in_schema=False
        )


async def get_docs(request: Request) -> Response:
    """Its addresses are relative, so that it works behind a path prefix too."""
    return get_swagger_ui_html(
        openapi_url=str(request.app.openapi_url).lstrip("/"),
        title="Segue API",
        swagger_js_url="docs/swagger-ui-bundle.js",
        swagger_css_url="docs/swagger-ui.css",
        swagger_favicon_url="docs/favicon-32x32.png",
        swagger_ui_parameters={"persistAuthorization": True, "displayRequestDuration": True, "filter": True},
    )


def _create_file_handler(name: str, media_type: str):  # type: ignore[no-untyped-def]  # FastAPI reads the inner signature
    async def get_file() -> Response:
        content = resources.files(_PACKAGE).joinpath(name).read_bytes()
        return Response(content, headers={"cache-control": "public, max-age=86400"}, media_type=media_type)

    return get_file
