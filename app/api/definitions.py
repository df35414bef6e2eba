"""Routes that create, read, replace and archive segments, journeys and computed traits.

Handlers parse bodies themselves, because numbers in rules are exact decimals.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, assert_never

import msgspec
from fastapi import FastAPI, Path, Security
from starlette.requests import Request
from starlette.responses import Response

from app.api.schemas import (
    ETAG_RESPONSES,
    JourneyOut,
    JourneysOut,
    SegmentOut,
    SegmentsOut,
    SuccessOut,
    TraitOut,
    TraitsOut,
    VersionsOut,
    describe_json_body,
    describe_problems,
)
from app.errors import InvalidDefinition
from app.http.auth import SecretKey
from app.http.bodies import read_json
from app.http.dependencies import Services, get_services
from app.http.responses import etag_response, format_instant, json_response
from app.queries.definition_versions import Version, list_definition_versions
from app.queries.segment_members import SegmentMemberQueries
from app.registry.definition_rows import DefinitionVersion, Kind, body_to_json
from app.rules.language.definitions import JourneyIn, SegmentIn, TraitIn, parse_journey, parse_segment, parse_trait

_BODY_BYTES_MAX: Final = 500_000
_BODY_MEMBER: Final = {"segment": "rule", "journey": "stages", "trait": "value"}

DefinitionKey = Annotated[str, Path(description="Key of the definition.", examples=["repeat-buyers"])]


def add_definition_routes(app: FastAPI) -> None:
    _add_kind_routes(app, "segment", SegmentIn, SegmentOut, SegmentsOut)
    _add_kind_routes(app, "journey", JourneyIn, JourneyOut, JourneysOut)
    _add_kind_routes(app, "trait", TraitIn, TraitOut, TraitsOut)


def _add_kind_routes(app: FastAPI, kind: Kind, model_in: Any, model_out: Any, models_out: Any) -> None:
    """Add the six routes of one kind of definition."""

    async def create(request: Request) -> Response:
        """Create the definition. It takes effect at once; until its backfill is done, each read computes results."""
        definitions = get_services(request).registry.definitions
        version, _ = await definitions.define(await _read_definition(request, kind, None), replace=False)
        return json_response(render_definition(version), 201, {"location": f"/v1/{kind}s/{version.definition.key}"})

    async def replace(request: Request, key: DefinitionKey) -> Response:
        """Add a version. The current version stays in effect until the backfill of the new one is done."""
        definitions = get_services(request).registry.definitions
        version, _ = await definitions.define(await _read_definition(request, kind, key), replace=True)
        return json_response(render_definition(version))

    async def list_all(request: Request) -> Response:
        services = get_services(request)
        items = [render_definition(version) for version in await services.registry.definitions.list_current(kind)]
        return etag_response(request, {"items": items, "next_cursor": None}, services.clock.now())

    async def get(request: Request, key: DefinitionKey) -> Response:
        services = get_services(request)
        return etag_response(request, await _read_current(services, kind, key), services.clock.now())

    async def list_versions(request: Request, key: DefinitionKey) -> Response:
        services = get_services(request)
        items = [_render_version(version) for version in await list_definition_versions(services.pool, kind, key)]
        return etag_response(request, {"items": items, "next_cursor": None}, services.clock.now())

    async def archive(request: Request, key: DefinitionKey) -> Response:
        """Take the definition out of use. Its versions are kept."""
        await get_services(request).registry.definitions.archive(kind, key)
        return json_response({"success": True})

    collection, item = f"/v1/{kind}s", f"/v1/{kind}s/{{key}}"
    versions = f"{item}/versions"
    body = describe_json_body(model_in)
    for path, method, endpoint, name, summary, model, status, extra, failures in (
        (collection, "POST", create, f"create_{kind}", f"Create a {kind}", model_out, 201, body, (400, 409, 422)),
        (collection, "GET", list_all, f"list_{kind}s", f"List {kind}s", models_out, 200, None, ()),
        (item, "GET", get, f"get_{kind}", f"Get a {kind} and its backfill progress", model_out, 200, None, (404,)),
        (item, "PUT", replace, f"replace_{kind}", f"Replace a {kind}", model_out, 200, body, (400, 404, 422)),
        (
            versions,
            "GET",
            list_versions,
            f"list_{kind}_versions",
            f"List {kind} versions",
            VersionsOut,
            200,
            None,
            (404,),
        ),
        (item, "DELETE", archive, f"archive_{kind}", f"Archive a {kind}", SuccessOut, 200, None, (404, 409)),
    ):
        app.add_api_route(
            path,
            endpoint,
            methods=[method],
            tags=[f"{kind}s"],
            operation_id=name,
            summary=summary,
            response_model=model,
            status_code=status,
            responses={**describe_problems(401, 403, *failures), **(ETAG_RESPONSES if method == "GET" else {})},
            dependencies=[Security(SecretKey())],
            openapi_extra=extra,
        )


async def _read_definition(request: Request, kind: Kind, key: str | None) -> SegmentIn | JourneyIn | TraitIn:
    """Parse the definition in the body. Raise :class:`InvalidDefinition` if its key differs from the path."""
    data = await read_json(request, _BODY_BYTES_MAX)
    if key is not None and isinstance(data, dict):
        if data.get("key", key) != key:
            raise InvalidDefinition(
                "/key",
                "the key in the body differs from the one in the path",
                "Omit `key`, or make it equal to the key in the path.",
            )
        data = {**data, "key": key}
    limits = get_services(request).settings.limits
    match kind:
        case "journey":
            return parse_journey(data, limits)
        case "trait":
            return parse_trait(data, limits)
        case "segment":
            return parse_segment(data, limits)
        case _:
            assert_never(kind)


def render_definition(version: DefinitionVersion) -> dict[str, Any]:
    definition = version.definition
    return {
        "key": definition.key,
        "name": definition.name,
        "description": definition.description,
        "owner": definition.owner,
        "note": version.note,
        "public": definition.public,
        "version": definition.version,
        "status": "filling" if version.activated_at is None else "current",
        "created_at": format_instant(version.created_at),
        _BODY_MEMBER[definition.kind]: body_to_json(definition),
    }


def _render_version(version: Version) -> dict[str, Any]:
    return {
        **msgspec.structs.asdict(version),
        "created_at": format_instant(version.created_at),
        "activated_at": format_instant(version.activated_at),
        "superseded_at": format_instant(version.superseded_at),
        "body": msgspec.Raw(version.body),
    }


async def _read_current(services: Services, kind: Kind, key: str) -> dict[str, Any]:
    current, candidate = await services.registry.definitions.get(kind, key)
    fill = await _read_fill(services, kind, key)
    return {
        **render_definition(current),
        "status": "current" if candidate is None and fill["done"] else "filling",
        "upcoming_version": None if candidate is None else candidate.definition.version,
        "fill": fill,
    }


async def _read_fill(services: Services, kind: Kind, key: str) -> dict[str, Any]:
    progress = await SegmentMemberQueries(services.pool, services.registry, services.settings).read_fill_progress(
        kind, key
    )
    return {
        "customers_total": progress.customers_total,
        "customers_filled": progress.customers_filled,
        "touchpoints_per_second": progress.touchpoints_per_second,
        "eta_seconds": progress.eta_seconds,
        "since": format_instant(progress.since),
        "done": progress.customers_filled == progress.customers_total,
    }
