"""The published document: what FastAPI gathers from the routes, and what it cannot know of bodies read by hand."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.api import schemas as shapes
from app.api.schemas import REQUEST_MODELS, Problem

DESCRIPTION: Final = """\
Touchpoints in, journey stages and segments out.

Send messages with a write key (Segment's SDKs work unchanged); ask with a secret key. An answer to a message comes
after COMMIT, when stages and segments already reflect it. Instants are RFC 3339 with microseconds, in UTC. Every
failure has one shape: RFC 9457 problem details that carry `code` and `message` at top level.
"""

TAGS: Final[list[dict[str, Any]]] = [
    {"name": "collect", "description": "Send messages. With a write key."},
    {"name": "pages", "description": "What a page is told of its visitor. With a write key and a visitor token."},
    {"name": "customers", "description": "One customer: identities, stages, segments, and why. With a secret key."},
    {"name": "segments", "description": "Segments, their members and counts. With a secret key."},
    {"name": "journeys", "description": "Journeys and their stages. With a secret key."},
    {"name": "access", "description": "Sources and keys. With a secret key."},
    {"name": "webhooks", "description": "Tools as sources. With a secret key, but for deliveries, which are signed."},
    {"name": "data-quality", "description": "Tracking plan, anomalies and health of sources. With a secret key."},
    {"name": "quarantine", "description": "Messages that were not stored. With a secret key."},
    {"name": "erasure-requests", "description": "People who asked a tool to be forgotten. With a secret key."},
    {
        "name": "channel-metrics",
        "description": "Daily metrics of channels, which belong to no customer. With a secret key.",
    },
    {"name": "operations", "description": "For the machines around the service. Without a key."},
]


_EXAMPLES: Final[dict[str, Any]] = {
    "Rule": {"did": "Order Completed", "at_least": 2, "within": "30d"},
    "Value": {"avg": "total", "of": "Order Completed", "within": "365d"},
    "Reading": {"trait": "plan"},
}
"""Of the unions, which are no models that could carry one."""


def choose_operation_id(route: APIRoute) -> str:
    return route.name


def add_openapi(app: FastAPI) -> None:
    """The document is made when it is first asked for."""

    def get_document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _build_document(app)
        return app.openapi_schema

    app.openapi = get_document  # type: ignore[method-assign]  # FastAPI's documented way


def _build_document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    models: tuple[type[BaseModel], ...] = (*REQUEST_MODELS, Problem)
    _, definitions = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    schemas = document["components"]["schemas"]
    for name, schema in definitions["$defs"].items():
        schemas.setdefault(name, schema)
    _restore_nulls(schemas)
    for name, example in _EXAMPLES.items():
        schemas[name]["examples"] = [example]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    for path in document["paths"].values():
        for operation in path.values():
            _drop_default_responses(operation)
    return document


def _restore_nulls(schemas: dict[str, Any]) -> None:
    """FastAPI drops every null on its way, those of examples too."""
    for name, model in vars(shapes).items():
        if name in schemas and isinstance(model, type) and issubclass(model, BaseModel):
            extra = model.model_config.get("json_schema_extra")
            if isinstance(extra, dict):
                schemas[name].update(extra)


def _drop_default_responses(operation: dict[str, Any]) -> None:
    """FastAPI adds its own 422 to each route with parameters; ours has the shape of all failures."""
    responses = operation["responses"]
    for status, response in list(responses.items()):
        content = response.get("content", {})
        if content.get("application/json", {}).get("schema", {}).get("$ref", "").endswith("/HTTPValidationError"):
            del responses[status]
        elif "application/problem+json" in content:
            content.pop("application/json", None)
