"""Segments and journeys as data: create, list, read, replace, archive.

Bodies are parsed by hand, because numbers in rules are exact decimals.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import FastAPI, Path, Security
from starlette.requests import Request
from starlette.responses import Response

from app.api.answers import instant, json_answer, tagged_answer
from app.api.auth import SecretKey
from app.api.bodies import read_json
from app.api.schemas import JourneyOut, JourneysOut, SegmentOut, SegmentsOut, SuccessOut, json_body, problems
from app.api.services import Services, services
from app.errors import InvalidDefinition
from app.registry import Defined, Kind, body_of
from app.rules.language import JourneyIn, SegmentIn, parse_journey, parse_segment
from app.views.members import MemberViews

_BODY_BYTES_MAX: Final = 500_000

DefinitionKey = Annotated[str, Path(description="Its key.", examples=["repeat-buyers"])]


def add_definition_routes(app: FastAPI) -> None:
    _add(app, "segment", SegmentIn, SegmentOut, SegmentsOut)
    _add(app, "journey", JourneyIn, JourneyOut, JourneysOut)


def _add(app: FastAPI, kind: Kind, model_in: Any, model_out: Any, models_out: Any) -> None:
    """Five routes of one kind."""

    async def create(request: Request) -> Response:
        defined, _ = await services(request).registry.define(await _read(request, kind, None), replace=False)
        return json_answer(definition_json(defined), 201, {"location": f"/v1/{kind}s/{defined.definition.key}"})

    async def replace(request: Request, key: DefinitionKey) -> Response:
        defined, _ = await services(request).registry.define(await _read(request, kind, key), replace=True)
        return json_answer(definition_json(defined))

    async def list_all(request: Request) -> Response:
        served = services(request)
        items = [definition_json(each) for each in await served.registry.definitions(kind)]
        return tagged_answer(request, {"items": items, "next_cursor": None}, served.clock.now())

    async def get(request: Request, key: DefinitionKey) -> Response:
        served = services(request)
        defined = await served.registry.definition(kind, key)
        answer = {**definition_json(defined), "fill": await _fill(served)}
        return tagged_answer(request, answer, served.clock.now())

    async def archive(request: Request, key: DefinitionKey) -> Response:
        await services(request).registry.archive(kind, key)
        return json_answer({"success": True})

    at, one = f"/v1/{kind}s", f"/v1/{kind}s/{{key}}"
    body = json_body(model_in)
    for path, method, endpoint, name, summary, model, status, extra, failures in (
        (at, "POST", create, f"create_{kind}", f"Create a {kind}", model_out, 201, body, (400, 409, 422)),
        (at, "GET", list_all, f"list_{kind}s", f"All {kind}s", models_out, 200, None, ()),
        (one, "GET", get, f"get_{kind}", f"One {kind}, and how far it is filled", model_out, 200, None, (404,)),
        (one, "PUT", replace, f"replace_{kind}", f"A new version of a {kind}", model_out, 200, body, (400, 404, 422)),
        (one, "DELETE", archive, f"archive_{kind}", f"Take a {kind} out of use", SuccessOut, 200, None, (404, 409)),
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
            responses=problems(401, 403, *failures),
            dependencies=[Security(SecretKey())],
            openapi_extra=extra,
        )


async def _read(request: Request, kind: Kind, key: str | None) -> SegmentIn | JourneyIn:
    """The definition in the body. On its own path the key may be left out; another one is refused."""
    data = await read_json(request, _BODY_BYTES_MAX)
    if key is not None and isinstance(data, dict):
        if data.get("key", key) != key:
            raise InvalidDefinition("/key", "it differs from the key in the path", "Leave it out, or make them equal.")
        data = {**data, "key": key}
    limits = services(request).settings.limits
    return parse_segment(data, limits) if kind == "segment" else parse_journey(data, limits)


def definition_json(defined: Defined) -> dict[str, Any]:
    definition = defined.definition
    return {
        "key": definition.key,
        "name": definition.name,
        "description": definition.description,
        "owner": definition.owner,
        "version": definition.version,
        "created_at": instant(defined.created_at),
        "rule" if definition.kind == "segment" else "stages": body_of(definition),
    }


async def _fill(served: Services) -> dict[str, Any]:
    fill = await MemberViews(served.pool, served.registry, served.settings).fill()
    return {
        "customers_total": fill.customers_total,
        "customers_filled": fill.customers_filled,
        "done": fill.customers_filled == fill.customers_total,
    }
