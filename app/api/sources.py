"""Routes that manage sources and keys."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import FastAPI, Path
from starlette.requests import Request
from starlette.responses import Response

from app.api.connectors import SDK, check_source_options
from app.api.schemas import (
    KeyChangeIn,
    KeyIn,
    KeyOut,
    KeysOut,
    SourceChangeIn,
    SourceIn,
    SourceOut,
    SourcesOut,
    describe_json_body,
)
from app.api.secret_routes import add_secret_route
from app.http.bodies import read_model
from app.http.dependencies import get_services
from app.http.responses import format_instant, json_response
from app.http.schema_types import KEY_PATTERN
from app.registry.key_store import Key, WriteKeyOptions
from app.registry.source_store import Source


def add_source_routes(app: FastAPI) -> None:
    for path, method, endpoint, model, status, extra, failures, summary in (
        ("/v1/sources", "GET", list_sources, SourcesOut, 200, None, (), "List sources"),
        (
            "/v1/sources",
            "POST",
            create_source,
            SourceOut,
            201,
            describe_json_body(SourceIn),
            (400, 409),
            "Create a source",
        ),
        (
            "/v1/sources/{key}",
            "PUT",
            change_source,
            SourceOut,
            200,
            describe_json_body(SourceChangeIn),
            (400, 404),
            "Change a source",
        ),
        ("/v1/keys", "GET", list_keys, KeysOut, 200, None, (), "List keys"),
        ("/v1/keys", "POST", create_key, KeyOut, 201, describe_json_body(KeyIn), (400, 404), "Create a key"),
        (
            "/v1/keys/{id}",
            "PUT",
            change_key,
            KeyOut,
            200,
            describe_json_body(KeyChangeIn),
            (400, 404),
            "Change a key",
        ),
        ("/v1/keys/{id}", "DELETE", revoke_key, KeyOut, 200, None, (404, 409), "Revoke a key"),
    ):
        add_secret_route(
            app,
            method,
            path,
            endpoint,
            tag="access",
            summary=summary,
            model=model,
            status=status,
            failures=failures,
            extra=extra,
        )


async def list_sources(request: Request) -> Response:
    return json_response(
        {"items": [_render_source(source) for source in await get_services(request).registry.sources.list_all()]}
    )


async def create_source(request: Request) -> Response:
    """Create a source and its first write key."""
    body = await read_model(request, SourceIn)
    check_source_options(body.kind, body.options)
    source, key = await get_services(request).registry.sources.create(
        body.key,
        body.name or body.key,
        body.default_channel,
        body.identity_properties,
        body.bots,
        body.origins,
        body.kind,
        body.options,
    )
    return json_response({**_render_source(source), "write_key": key.key}, 201)


async def change_source(
    request: Request, key: Annotated[str, Path(description="Key of the source.", pattern=KEY_PATTERN, max_length=64)]
) -> Response:
    """Change the fields that the body contains. Every process applies the change within a second."""
    body = await read_model(request, SourceChangeIn)
    changes = body.model_dump(include=body.model_fields_set)
    if "default_channel" in changes:
        changes["default_channel"] = changes["default_channel"] or ""
    if body.options:
        webhook_source = get_services(request).registry.access.current.webhook_sources.get(key)
        check_source_options(SDK if webhook_source is None else webhook_source.kind, body.options)
    return json_response(_render_source(await get_services(request).registry.sources.change(key, **changes)))


async def list_keys(request: Request) -> Response:
    """Return all keys, including revoked ones. Secret keys show their first characters only."""
    await get_services(request).key_usage.flush()
    return json_response({"items": [_render_key(key) for key in await get_services(request).registry.keys.list_all()]})


async def create_key(request: Request) -> Response:
    """Create a write key or a secret key. The response is the only place that shows a secret key."""
    body = await read_model(request, KeyIn)
    key = await get_services(request).registry.keys.create(
        body.kind,
        body.source,
        body.name,
        WriteKeyOptions(tuple(body.origins), body.trusts_identify, body.trust, body.joins_users),
    )
    return json_response(_render_key(key), 201)


async def change_key(
    request: Request, id: Annotated[str, Path(description="`id` from the list of keys.", max_length=100)]
) -> Response:
    """Change the fields that the body contains. Every process applies the change within a second."""
    body = await read_model(request, KeyChangeIn)
    changes = body.model_dump(include=body.model_fields_set)
    return json_response(_render_key(await get_services(request).registry.keys.change(id, **changes)))


async def revoke_key(
    request: Request, id: Annotated[str, Path(description="`id` from the list of keys.", max_length=100)]
) -> Response:
    """Revoke a key. Every process refuses it within a second. The last valid secret key cannot be revoked."""
    return json_response(_render_key(await get_services(request).registry.keys.revoke(id)))


def _render_source(source: Source) -> dict[str, Any]:
    return {**msgspec.structs.asdict(source), "created_at": format_instant(source.created_at)}


def _render_key(key: Key) -> dict[str, Any]:
    content = {
        **msgspec.structs.asdict(key),
        "created_at": format_instant(key.created_at),
        "revoked_at": format_instant(key.revoked_at),
        "last_used_at": format_instant(key.last_used_at),
    }
    if key.key is None:
        del content["key"]
    return content
