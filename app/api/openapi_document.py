"""OpenAPI document: FastAPI's document of the routes, with additions that FastAPI cannot derive.

FastAPI knows neither the bodies that handlers read by hand nor the failures that every authenticated route shares.
``/openapi.json`` serves the full document; :func:`build_page_document` derives the one that ``/docs`` renders.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.api import schemas as shapes
from app.api.rule_schemas import REF_PREFIX, iterate_nodes, publish_rule_schemas, replace_by_shallow_rules
from app.api.schemas import REQUEST_MODELS, Problem, describe_problems

DESCRIPTION: Final = """\
Send customer touchpoints and read journey stages and segments.

- **Keys.** Send messages with a write key (`wk_...`), as Segment's SDKs do. Read and configure with a secret key
  (`sk_...`) as `Authorization: Bearer`.
- **Consistency.** Segue answers a message after COMMIT. Customers, stages and segments already reflect it, unless the
  receipt has `projected: false`.
- **Instants** are RFC 3339 in UTC with microseconds.
- **Errors** are RFC 9457 problem details with `code` and `message` at top level. Compare `code`; it is stable.
  Status 500 means a fault in Segue and is not listed for each operation.
"""

TAGS: Final[list[dict[str, Any]]] = [
    {"name": "collect", "description": "Send messages with a write key."},
    {"name": "customers", "description": "Read one customer: identities, stages, segments and the reasons."},
    {"name": "segments", "description": "Define segments, read their members and counts."},
    {"name": "journeys", "description": "Define journeys and their stages."},
    {"name": "traits", "description": "Define computed traits."},
    {"name": "pages", "description": "Personalize web pages: browser library and visitor profile."},
    {"name": "access", "description": "Manage sources and keys, create visitor tokens."},
    {"name": "webhooks", "description": "Connect tools that send webhooks."},
    {"name": "data-quality", "description": "Tracking plan, volume anomalies and health of sources."},
    {"name": "quarantine", "description": "Find, correct and replay messages that were not stored."},
    {"name": "erasure-requests", "description": "Erasure requests that tools have sent."},
    {"name": "channel-metrics", "description": "Daily metrics of channels, such as impressions and spend."},
    {"name": "operations", "description": "Health checks and metrics, without a key."},
    {"name": "customerio", "description": "Routes that Customer.io's SDKs call (Track API v1 and v2)."},
    {"name": "google-analytics", "description": "Routes of Google Analytics 4's Measurement Protocol."},
    {"name": "jitsu", "description": "Routes that Jitsu's SDKs call."},
    {"name": "mixpanel", "description": "Routes that Mixpanel's SDKs call."},
    {"name": "posthog", "description": "Routes that PostHog's SDKs call."},
    {"name": "rudderstack", "description": "Routes that RudderStack's SDKs call."},
]
VENDOR_TAGS: Final = ("customerio", "google-analytics", "jitsu", "mixpanel", "posthog", "rudderstack")
"""Tags of routes that exist for SDKs of other vendors: the documentation page lists them last and closed."""

_RESPONSE_NAMES: Final = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    408: "BodyTooSlow",
    409: "Conflict",
    422: "Unprocessable",
    429: "RateLimited",
    503: "Overloaded",
}
_RESPONSE_HEADERS: Final[dict[int, dict[str, Any]]] = {
    401: {"WWW-Authenticate": {"description": "Authentication scheme to use.", "schema": {"type": "string"}}},
    429: {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}},
    503: {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}},
}
_PROBLEM_CONTENT: Final = {"application/problem+json"}
_SECRET_KEY_STATUSES: Final = (401, 403, 503)
"""Statuses of every route with a secret key: the key is looked up in PostgreSQL, which may be unreachable."""
_BODY_STATUSES: Final = (400, 408)
_SUCCESS_DESCRIPTIONS: Final = {"200": "Success.", "201": "Created.", "204": "Success, without a body."}
_CONSTRAINTS: Final = frozenset(("pattern", "minLength", "maxLength", "enum", "const", "format"))


def choose_operation_id(route: APIRoute) -> str:
    return route.name


def add_openapi(app: FastAPI) -> None:
    """Build the document when it is first requested."""

    def get_document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _build_document(app)
        return app.openapi_schema

    app.openapi = get_document  # type: ignore[method-assign]  # FastAPI's documented way


def build_page_document(document: dict[str, Any]) -> dict[str, Any]:
    """Return a copy for the documentation page: rules are plain objects, and unused schemas are left out.

    The copy is OpenAPI 3.0. Swagger UI normalizes a document of version 3.1 as a whole each time an operation is
    opened, which took up to a second.
    """
    page_document = deepcopy(document)
    schemas = page_document["components"]["schemas"]
    replace_by_shallow_rules(schemas)
    pending = _list_references([page_document["paths"], page_document["components"]["responses"]])
    used: set[str] = set()
    while pending:
        name = pending.pop()
        if name not in used:
            used.add(name)
            pending |= _list_references(schemas[name])
    page_document["components"]["schemas"] = {name: schema for name, schema in schemas.items() if name in used}
    page_document["openapi"] = "3.0.3"
    page_document["info"]["license"].pop("identifier")
    for node in iterate_nodes([page_document["paths"], page_document["components"]]):
        _convert_to_openapi_3_0(node)
    return page_document


def _convert_to_openapi_3_0(node: dict[str, Any]) -> None:
    """Replace the schema keywords that OpenAPI 3.0 does not have. Changes the schema in place."""
    options = node.get("anyOf")
    if isinstance(options, list) and {"type": "null"} in options:
        options = [option for option in options if option != {"type": "null"}]
        if len(options) > 1 or "$ref" in options[0]:
            node.update({"anyOf": options, "nullable": True})
        else:
            del node["anyOf"]
            node.update({**options[0], **node, "nullable": True})
    elif node.get("type") == "null":
        node.update({"type": "string", "nullable": True, "enum": [None]})
    if isinstance(node.get("examples"), list):
        node["example"] = node.pop("examples")[0]
    if "const" in node:
        node["enum"] = [node.pop("const")]
    for exclusive, inclusive in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if exclusive in node:
            node.update({inclusive: node[exclusive], exclusive: True})
    node.pop("propertyNames", None)
    if "patternProperties" in node:
        node["additionalProperties"] = next(iter(node.pop("patternProperties").values()))


def _build_document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    components = document["components"]
    components["schemas"] = _complete_schemas(components["schemas"])
    for route in app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            for method in route.methods or ():
                _complete_operation(document["paths"][route.path_format][method.lower()], route)
    components["responses"] = _build_shared_responses()
    return document


# ------------------------------------------------------------------------------------------------------ schemas


def _complete_schemas(schemas: dict[str, Any]) -> dict[str, Any]:
    models: tuple[type[BaseModel], ...] = (*REQUEST_MODELS, Problem)
    _, definitions = models_json_schema(
        [(model, "validation") for model in models], ref_template=REF_PREFIX + "{model}"
    )
    for name, schema in definitions["$defs"].items():
        schemas.setdefault(name, schema)
    _restore_nulls(schemas)
    publish_rule_schemas(schemas)
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for name, schema in schemas.items():
        for field in schema.get("properties", {}).values():
            _move_default_to_description(field, is_optional_change=name.endswith("ChangeIn"))
    return dict(sorted(schemas.items()))


def _restore_nulls(schemas: dict[str, Any]) -> None:
    """Restore the examples of the models, because FastAPI removes nulls from them."""
    for name, model in vars(shapes).items():
        if name in schemas and isinstance(model, type) and issubclass(model, BaseModel):
            extra = model.model_config.get("json_schema_extra")
            if isinstance(extra, dict):
                schemas[name].update(extra)


def _move_default_to_description(field: dict[str, Any], *, is_optional_change: bool) -> None:
    """Move the default into the description, because client generators make a property with a ``default`` mandatory.

    With ``is_optional_change`` only drop the default: a field that such a request omits keeps its value. Defaults of
    objects and lists are described by hand.
    """
    default = field.pop("default", None)
    if is_optional_change or default == "" or not isinstance(default, str | int | float):
        return
    text = str(default).lower() if isinstance(default, bool) else default
    field["description"] = f"{field.get('description', '')} Default: `{text}`.".strip()


def _list_references(value: Any) -> set[str]:
    references = (node.get("$ref") for node in iterate_nodes(value))
    return {
        reference.removeprefix(REF_PREFIX)
        for reference in references
        if isinstance(reference, str) and reference.startswith(REF_PREFIX)
    }


# ----------------------------------------------------------------------------------------------------- operations


def _complete_operation(operation: dict[str, Any], route: APIRoute) -> None:
    for parameter in operation.get("parameters", []):
        _drop_null(parameter)
    _drop_default_responses(operation)
    responses = operation["responses"]
    for success, description in _SUCCESS_DESCRIPTIONS.items():
        if responses.get(success, {}).get("description") == "Successful Response":
            responses[success]["description"] = description
    for status in _list_implied_statuses(operation, route):
        responses.setdefault(str(status), describe_problems(status)[status])
    for status, name in _RESPONSE_NAMES.items():
        if responses.get(str(status)) == describe_problems(status)[status]:
            responses[str(status)] = {"$ref": f"#/components/responses/{name}"}
    operation["responses"] = dict(sorted(responses.items()))


def _list_implied_statuses(operation: dict[str, Any], route: APIRoute) -> tuple[int, ...]:
    """Return the error statuses that follow from the declared security, body and parameters of the operation."""
    has_secret_key = any("secretKey" in scheme for scheme in operation.get("security", []))
    return (
        *(_SECRET_KEY_STATUSES if has_secret_key else ()),
        *(_BODY_STATUSES if has_secret_key and "requestBody" in operation else ()),
        *((422,) if _has_validated_parameter(operation, route) else ()),
    )


def _has_validated_parameter(operation: dict[str, Any], route: APIRoute) -> bool:
    """Return whether FastAPI can refuse a parameter. An unbounded string is always valid."""
    fields = {field.alias for field in (*route.dependant.path_params, *route.dependant.query_params)}
    return any(
        parameter["schema"].get("type") != "string" or _CONSTRAINTS & set(parameter["schema"])
        for parameter in operation.get("parameters", [])
        if parameter["name"] in fields
    )


def _drop_null(parameter: dict[str, Any]) -> None:
    """Remove the type null from an optional parameter, because a URL cannot contain null."""
    schema = parameter["schema"]
    options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    if len(options) == 1:
        del schema["anyOf"]
        parameter["schema"] = options[0] | schema


def _drop_default_responses(operation: dict[str, Any]) -> None:
    """Remove FastAPI's 422 response, because Segue returns problem details, which have a different schema."""
    responses = operation["responses"]
    for status, response in list(responses.items()):
        content = response.get("content", {})
        if content.get("application/json", {}).get("schema", {}).get("$ref", "").endswith("/HTTPValidationError"):
            del responses[status]
        elif set(content) >= {"application/json", *_PROBLEM_CONTENT} and not content["application/json"].get("schema"):
            del content["application/json"]


def _build_shared_responses() -> dict[str, Any]:
    problems = describe_problems(*_RESPONSE_NAMES)
    return {
        name: {**problems[status], **({"headers": headers} if (headers := _RESPONSE_HEADERS.get(status)) else {})}
        for status, name in sorted(_RESPONSE_NAMES.items(), key=lambda item: item[1])
    }
