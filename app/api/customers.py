"""Routes that read one customer: state, history, explanations, touchpoints and identity links."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

import msgspec
from fastapi import FastAPI, Query, Security
from starlette.requests import Request
from starlette.responses import Response

from app.api.customer_rendering import (
    render_customer,
    render_link,
    render_membership,
    render_segment_stay,
    render_stage_stay,
    render_touchpoint,
)
from app.api.schemas import (
    ETAG_RESPONSES,
    CustomerOut,
    HistoryOut,
    JourneyExplanationOut,
    LinkIn,
    LinksOut,
    LookupIn,
    LookupOut,
    SegmentExplanationOut,
    SegmentsOfCustomerOut,
    SuccessOut,
    TimelineOut,
    TraitExplanationOut,
    describe_json_body,
    describe_problems,
)
from app.errors import BadRequest, NotFound
from app.http.as_of import AS_OF_PARAMETER, AsOf, parse_as_of, parse_page_as_of
from app.http.auth import SecretKey, require_secret_key
from app.http.bodies import read_struct
from app.http.customer_refs import (
    CUSTOMER_PARAMETER,
    list_candidate_ids,
    read_customer_ids,
    read_definition_key,
    resolve_customer_reference,
)
from app.http.dependencies import Services, get_services
from app.http.direct_route import DirectRoute
from app.http.pagination import DEFAULT_ITEMS, Limit, PageCursor
from app.http.responses import (
    etag_response,
    format_instant,
    format_uuid,
    json_response,
    read_cursor,
    render_explanation,
    write_cursor,
)
from app.postgres.pool import transact
from app.projection.project import undo_link
from app.queries.customers import CustomerQueries
from app.queries.timeline import LATEST_INSTANT, LedgerLink, LinkPlace, TimelineQueries, cursor_at
from app.registry.definition_rows import body_to_json

_BODY_BYTES_MAX = 1_000_000


def add_customer_routes(app: FastAPI) -> None:
    secret = [Security(SecretKey())]
    read_problems = describe_problems(400, 401, 403, 404, 503, 504)
    app.router.routes.append(
        DirectRoute(
            "/v1/customers/{customer}",
            get_customer,
            methods=["GET"],
            tags=["customers"],
            operation_id="get_customer",
            summary="Get a customer",
            response_model=CustomerOut,
            responses={**ETAG_RESPONSES, **read_problems},
            dependencies=secret,
            openapi_extra={"parameters": [CUSTOMER_PARAMETER, AS_OF_PARAMETER]},
        )
    )
    for path, endpoint, model, summary in (
        ("journey", get_customer_journey, HistoryOut, "List the stage history of a customer"),
        ("segments", list_customer_segments, SegmentsOfCustomerOut, "List the segments of a customer"),
        ("segments/{key}/explain", explain_segment, SegmentExplanationOut, "Explain segment membership"),
        ("journeys/{key}/explain", explain_journey, JourneyExplanationOut, "Explain a journey stage"),
        ("traits/{key}/explain", explain_trait, TraitExplanationOut, "Explain a computed trait"),
        ("touchpoints", list_touchpoints, TimelineOut, "List touchpoints"),
        ("links", list_links, LinksOut, "List identity links"),
    ):
        app.add_api_route(
            f"/v1/customers/{{customer}}/{path}",
            endpoint,
            methods=["GET"],
            tags=["customers"],
            operation_id=endpoint.__name__,
            summary=summary,
            response_model=model,
            responses={
                **describe_problems(400, 401, 403, 404, 422, 503, 504),
                **({} if path == "touchpoints" else ETAG_RESPONSES),
            },
            dependencies=secret,
            openapi_extra=_describe_path_parameters(key="{key}" in path),
        )
    app.add_api_route(
        "/v1/customers/lookup",
        lookup_customers,
        methods=["POST"],
        tags=["customers"],
        operation_id="lookup_customers",
        summary="Look up several customers",
        response_model=LookupOut,
        responses=describe_problems(400, 401, 403, 503, 504),
        dependencies=secret,
        openapi_extra=describe_json_body(LookupIn),
    )
    for name, set_link, summary in (
        ("undo", undo_customer_link, "Undo an identity link"),
        ("restore", restore_customer_link, "Restore an undone identity link"),
    ):
        app.add_api_route(
            f"/v1/customers/links/{name}",
            set_link,
            methods=["POST"],
            tags=["customers"],
            operation_id=set_link.__name__,
            summary=summary,
            response_model=SuccessOut,
            responses=describe_problems(400, 401, 403, 404),
            dependencies=secret,
            openapi_extra=describe_json_body(LinkIn),
        )


def _describe_path_parameters(*, key: bool = False) -> dict[str, Any]:
    parameters = [CUSTOMER_PARAMETER]
    if key:
        parameters.append({"name": "key", "in": "path", "required": True, "schema": {"type": "string", "title": "Key"}})
    return {"parameters": parameters}


def _create_queries(services: Services) -> CustomerQueries:
    return CustomerQueries(services.pool, services.registry, services.settings)


# ------------------------------------------------------------------------------------------------- state


async def get_customer(request: Request) -> Response:
    """Return identities, traits, stages and segments.

    Stages and segments contain the instant at which they change if no message arrives.

    With If-None-Match the response is 304 if nothing changed.
    """
    await require_secret_key(request)
    services = get_services(request)
    ids = read_customer_ids(request)
    at, is_past = parse_as_of(request.query_params.get("as_of"), services.clock.now())
    customer = await _create_queries(services).customer(ids, at, past=is_past)
    return etag_response(request, render_customer(customer), customer.as_of)


async def lookup_customers(request: Request) -> Response:
    """Return up to 500 customers in the order of the request; an unknown one is null."""
    services = get_services(request)
    body = await read_struct(request, _LookupBody, _BODY_BYTES_MAX)
    if len(body.customers) > services.settings.limits.lookup_customers_max:
        raise BadRequest(f"At most {services.settings.limits.lookup_customers_max} customers can be looked up at once.")
    now, _ = parse_as_of(body.as_of, services.clock.now())
    candidate_ids = [list_candidate_ids(text, services.settings) for text in body.customers]
    customers = await _create_queries(services).customers(candidate_ids, now)
    items = [
        {"ref": text, "customer": customer and {**render_customer(customer), "as_of": format_instant(customer.as_of)}}
        for text, customer in zip(body.customers, customers, strict=True)
    ]
    return json_response({"items": items, "as_of": format_instant(now)})


# ----------------------------------------------------------------------------------------------- history


async def get_customer_journey(
    request: Request,
    journey: Annotated[str | None, Query(max_length=64, description="Return only the history of this journey.")] = None,
    as_of: AsOf = None,
) -> Response:
    """Return all intervals in stages, oldest first, with their causes."""
    services = get_services(request)
    ids = read_customer_ids(request)
    at, is_past = parse_as_of(as_of, services.clock.now())
    customer, stays, until = await _create_queries(services).list_stays(ids, "journey", journey, at, past=is_past)
    items = [render_stage_stay(stay, until) for stay in stays]
    return etag_response(request, {"id": format_uuid(customer), "items": items}, until)


async def list_customer_segments(
    request: Request,
    history: Annotated[
        bool, Query(description="Return all intervals in segments, oldest first, instead of the current segments.")
    ] = False,
    as_of: AsOf = None,
) -> Response:
    services = get_services(request)
    ids = read_customer_ids(request)
    at, is_past = parse_as_of(as_of, services.clock.now())
    if not history:
        customer = await _create_queries(services).customer(ids, at, past=is_past)
        items = [render_membership(membership) for membership in customer.segments]
        return etag_response(request, {"id": format_uuid(customer.id), "items": items}, customer.as_of)
    id, stays, until = await _create_queries(services).list_stays(ids, "segment", None, at, past=is_past)
    items = [render_segment_stay(stay, until) for stay in stays]
    return etag_response(request, {"id": format_uuid(id), "items": items}, until)


# ------------------------------------------------------------------------------------------- explanation


async def explain_segment(request: Request, as_of: AsOf = None) -> Response:
    """Return the truth of each node of the rule, and the messages that count.

    `valid_until` is the instant at which the membership changes if no message arrives.
    """
    services = get_services(request)
    ids = read_customer_ids(request)
    key = read_definition_key(request)
    at, _ = parse_as_of(as_of, services.clock.now())
    definition, explanation = await _create_queries(services).explain_segment(ids, key, at)
    content = {
        "segment": key,
        "version": definition.version,
        "member": explanation.holds,
        "since": format_instant(explanation.since),
        "valid_until": format_instant(explanation.valid_until),
        "explanation": render_explanation(explanation.tree),
    }
    return etag_response(request, content, at)


async def explain_journey(request: Request, as_of: AsOf = None) -> Response:
    """Return the rule of every stage with the truth of its nodes.

    The customer is in the last stage whose rule is true.
    """
    services = get_services(request)
    ids = read_customer_ids(request)
    key = read_definition_key(request)
    at, _ = parse_as_of(as_of, services.clock.now())
    definition, current, stages = await _create_queries(services).explain_journey(ids, key, at)
    content = {
        "journey": key,
        "version": definition.version,
        "stage": current.stage,
        "since": format_instant(current.since),
        "valid_until": format_instant(current.valid_until),
        "stages": [
            {"stage": stage, "explanation": render_explanation(explanation.tree)} for stage, explanation in stages
        ],
    }
    return etag_response(request, content, at)


async def explain_trait(request: Request, as_of: AsOf = None) -> Response:
    """Return the value of the trait and the messages from which it was computed."""
    services = get_services(request)
    ids = read_customer_ids(request)
    key = read_definition_key(request)
    at, _ = parse_as_of(as_of, services.clock.now())
    definition, explanation = await _create_queries(services).explain_trait(ids, key, at)
    value, valid_until = explanation.pop("value"), explanation.pop("valid_until")
    content = {
        "trait": key,
        "version": definition.version,
        "value": value,
        "valid_until": format_instant(valid_until),
        "explanation": {"rule": body_to_json(definition), **explanation},
    }
    return etag_response(request, content, at)


# ------------------------------------------------------------------------------------- messages and links


async def list_touchpoints(
    request: Request, limit: Limit = DEFAULT_ITEMS, cursor: PageCursor = None, as_of: AsOf = None
) -> Response:
    """Return the stored messages of all identities of the customer, newest first."""
    services = get_services(request)
    ids = read_customer_ids(request)
    page_cursor = read_cursor(cursor, int, str, str)
    at, is_past = parse_page_as_of(as_of, page_cursor, services.clock.now())
    items_max = min(limit, services.settings.limits.page_items_max)
    timeline = TimelineQueries(services.pool)
    start: Any = tuple(page_cursor.place) if page_cursor else cursor_at(at) if is_past else None
    entries = await timeline.list_touchpoints(ids, start, items_max + 1)
    page, has_more = entries[:items_max], len(entries) > items_max
    last = page[-1] if has_more else None
    return json_response(
        {
            "items": [render_touchpoint(entry) for entry in page],
            "next_cursor": last and write_cursor(at, last.occurred_at, last.message_id, last.source),
            "as_of": format_instant(at),
        }
    )


async def list_links(
    request: Request, limit: Limit = DEFAULT_ITEMS, cursor: PageCursor = None, as_of: AsOf = None
) -> Response:
    """Return the links that explain why these identities are one customer, oldest first.

    Links have no history: `as_of` selects the current links whose message happened at that instant or earlier.
    """
    services = get_services(request)
    ids = read_customer_ids(request)
    page_cursor = read_cursor(cursor, int, int, str, str, str, str)
    at, is_past = parse_page_as_of(as_of, page_cursor, services.clock.now())
    until, after = (at if is_past else LATEST_INSTANT), None
    if page_cursor is not None:
        until, after = _decode_link_place(page_cursor.place)
    items_max = min(limit, services.settings.limits.page_items_max)
    customer, links = await TimelineQueries(services.pool).list_links(ids, until, after, items_max + 1)
    page, has_more = links[:items_max], len(links) > items_max
    content = {
        "id": format_uuid(customer),
        "items": [render_link(link) for link in page],
        "next_cursor": _write_link_cursor(at, until, page[-1]) if has_more else None,
    }
    return etag_response(request, content, at)


def _write_link_cursor(at: int, until: int, link: LedgerLink) -> str:
    """Return the cursor after a link. It keeps ``until``, because a link of a fast clock may be later than ``at``."""
    occurred_at, message_id, source, weaker, stronger = link.place
    return write_cursor(at, until, occurred_at, message_id, source, weaker.hex(), stronger.hex())


def _decode_link_place(place: Sequence[Any]) -> tuple[int, LinkPlace]:
    """Return ``until`` and the place of a cursor. Raise BadRequest if its ids are invalid."""
    until, occurred_at, message_id, source, *ids = place
    try:
        weaker, stronger = (UUID(id).bytes for id in ids)
    except ValueError:
        raise BadRequest("The cursor is invalid; use next_cursor of the previous page.") from None
    return until, (occurred_at, message_id, source, weaker, stronger)


async def undo_customer_link(request: Request) -> Response:
    """Undo a link between two identities, which become separate customers again."""
    return await _set_link(request, undone=True)


async def restore_customer_link(request: Request) -> Response:
    """Restore a link that was undone. The two identities become one customer again."""
    return await _set_link(request, undone=False)


async def _set_link(request: Request, *, undone: bool) -> Response:
    services = get_services(request)
    body = await read_struct(request, _LinkBody, _BODY_BYTES_MAX)
    weaker, stronger = (resolve_customer_reference(text, services.settings)[0] for text in (body.weaker, body.stronger))
    now = services.clock.now()

    async def set_link(connection: Any) -> bool:
        ruleset = await services.registry.rules.read(connection)
        return await undo_link(connection, weaker, stronger, undone, ruleset, now, services.settings)

    if not await transact(services.pool, set_link):
        raise NotFound("This link does not exist.")
    return json_response({"success": True})


class _LookupBody(msgspec.Struct, forbid_unknown_fields=True):
    customers: list[str]
    as_of: str | None = None


class _LinkBody(msgspec.Struct, forbid_unknown_fields=True):
    weaker: str
    stronger: str
