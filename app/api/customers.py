"""One customer: who it is, where it stands, since when, until when and why. All with a secret key."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import FastAPI, Query, Security
from starlette.requests import Request
from starlette.responses import Response

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
from app.http.bodies import read_json
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
from app.projection.intervals import Interval
from app.projection.project import undo_link
from app.projection.state import Cause
from app.queries.customer_state import CurrentStage, Customer, Membership
from app.queries.customers import CustomerQueries
from app.queries.timeline import LedgerLink, TimelineEntry, TimelineQueries, cursor_at
from app.registry.definition_rows import body_to_json

_BODY_BYTES_MAX = 1_000_000
_Body = TypeVar("_Body")


def add_customer_routes(app: FastAPI) -> None:
    secret = [Security(SecretKey())]
    read = describe_problems(400, 401, 403, 404)
    app.router.routes.append(
        DirectRoute(
            "/v1/customers/{customer}",
            get_customer,
            methods=["GET"],
            tags=["customers"],
            operation_id="get_customer",
            summary="A customer: identities, traits, stages and segments",
            response_model=CustomerOut,
            responses={**ETAG_RESPONSES, **read},
            dependencies=secret,
            openapi_extra={"parameters": [CUSTOMER_PARAMETER, AS_OF_PARAMETER]},
        )
    )
    for path, endpoint, model, summary in (
        ("journey", get_customer_journey, HistoryOut, "History of stages"),
        ("segments", list_customer_segments, SegmentsOfCustomerOut, "Segments of a customer"),
        ("segments/{key}/explain", explain_segment, SegmentExplanationOut, "Why in a segment, or why not"),
        ("journeys/{key}/explain", explain_journey, JourneyExplanationOut, "Why at this stage of a journey"),
        ("traits/{key}/explain", explain_trait, TraitExplanationOut, "What a computed trait was worked out from"),
        ("touchpoints", list_touchpoints, TimelineOut, "Messages of all identities, newest first"),
        ("links", list_links, LinksOut, "Why these identities are one customer"),
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
                **describe_problems(400, 401, 403, 404, 422),
                **({} if path == "touchpoints" else ETAG_RESPONSES),
            },
            dependencies=secret,
            openapi_extra=_path(key="{key}" in path),
        )
    app.add_api_route(
        "/v1/customers/lookup",
        lookup_customers,
        methods=["POST"],
        tags=["customers"],
        operation_id="lookup_customers",
        summary="Up to 500 customers at once",
        response_model=LookupOut,
        responses=describe_problems(400, 401, 403),
        dependencies=secret,
        openapi_extra=describe_json_body(LookupIn),
    )
    for name, set_link, summary in (
        ("undo", undo_customer_link, "Take a link back: the customers part"),
        ("restore", restore_customer_link, "Make a link that was undone hold again"),
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


def _path(*, key: bool = False) -> dict[str, Any]:
    parameters = [CUSTOMER_PARAMETER]
    if key:
        parameters.append({"name": "key", "in": "path", "required": True, "schema": {"type": "string", "title": "Key"}})
    return {"parameters": parameters}


def _views(services: Services) -> CustomerQueries:
    return CustomerQueries(services.pool, services.registry, services.settings)


# ---------------------------------------------------------------------------------------------- standing


async def get_customer(request: Request) -> Response:
    await require_secret_key(request)
    services = get_services(request)
    ids = read_customer_ids(request)
    at, is_past = parse_as_of(request.query_params.get("as_of"), services.clock.now())
    customer = await _views(services).customer(ids, at, past=is_past)
    return etag_response(request, customer_json(customer), customer.as_of)


async def lookup_customers(request: Request) -> Response:
    services = get_services(request)
    asked = await _read(request, _Lookup)
    if len(asked.customers) > services.settings.limits.lookup_customers_max:
        raise BadRequest(f"At most {services.settings.limits.lookup_customers_max} customers can be looked up at once.")
    now, _ = parse_as_of(asked.as_of, services.clock.now())
    questions = [list_candidate_ids(text, services.settings) for text in asked.customers]
    found = await _views(services).customers(questions, now)
    items = [
        {"ref": text, "customer": customer and {**customer_json(customer), "as_of": format_instant(customer.as_of)}}
        for text, customer in zip(asked.customers, found, strict=True)
    ]
    return json_response({"items": items, "as_of": format_instant(now)})


def customer_json(customer: Customer) -> dict[str, Any]:
    return {
        "id": format_uuid(customer.id),
        "identities": customer.identities,
        "traits": customer.traits,
        "stages": {journey: _place_json(place) for journey, place in customer.stages.items()},
        "segments": [_membership_json(membership) for membership in customer.segments],
    }


def _place_json(place: CurrentStage) -> dict[str, Any]:
    return {
        "stage": place.stage,
        "since": format_instant(place.since),
        "valid_until": format_instant(place.valid_until),
        "cause": place.cause,
    }


def _membership_json(membership: Membership) -> dict[str, Any]:
    return {
        "key": membership.key,
        "since": format_instant(membership.since),
        "valid_until": format_instant(membership.valid_until),
    }


# ----------------------------------------------------------------------------------------------- history


async def get_customer_journey(
    request: Request,
    journey: Annotated[str | None, Query(max_length=64, description="Only this journey.")] = None,
    as_of: AsOf = None,
) -> Response:
    services = get_services(request)
    ids = read_customer_ids(request)
    at, is_past = parse_as_of(as_of, services.clock.now())
    customer, stays, until = await _views(services).list_stays(ids, "journey", journey, at, past=is_past)
    items = [
        {
            "journey": stay.definition.partition(":")[2],
            "stage": stay.value,
            "entered_at": format_instant(stay.entered_at),
            "left_at": format_instant(_left(stay, until)),
            "cause": stay.entered_cause,
            "left_cause": _left_cause(stay, until),
        }
        for stay in stays
    ]
    return etag_response(request, {"id": format_uuid(customer), "items": items}, until)


async def list_customer_segments(
    request: Request,
    history: Annotated[bool, Query(description="All stays, oldest first, instead of those of now.")] = False,
    as_of: AsOf = None,
) -> Response:
    services = get_services(request)
    ids = read_customer_ids(request)
    at, is_past = parse_as_of(as_of, services.clock.now())
    if not history:
        customer = await _views(services).customer(ids, at, past=is_past)
        items = [_membership_json(membership) for membership in customer.segments]
        return etag_response(request, {"id": format_uuid(customer.id), "items": items}, customer.as_of)
    id, stays, until = await _views(services).list_stays(ids, "segment", None, at, past=is_past)
    items = [
        {
            "key": stay.definition.partition(":")[2],
            "since": format_instant(stay.entered_at),
            "left_at": format_instant(_left(stay, until)),
            "cause": stay.entered_cause,
            "left_cause": _left_cause(stay, until),
        }
        for stay in stays
    ]
    return etag_response(request, {"id": format_uuid(id), "items": items}, until)


def _left(stay: Interval, as_of: int) -> int | None:
    return stay.left_at if stay.left_at is not None and stay.left_at <= as_of else None


def _left_cause(stay: Interval, as_of: int) -> Cause | None:
    return stay.left_cause if _left(stay, as_of) is not None else None


# ------------------------------------------------------------------------------------------- explanation


async def explain_segment(request: Request, as_of: AsOf = None) -> Response:
    services = get_services(request)
    ids = read_customer_ids(request)
    key = read_definition_key(request)
    at, _ = parse_as_of(as_of, services.clock.now())
    definition, why = await _views(services).explain_segment(ids, key, at)
    content = {
        "segment": key,
        "version": definition.version,
        "member": why.holds,
        "since": format_instant(why.since),
        "valid_until": format_instant(why.valid_until),
        "explanation": render_explanation(why.tree),
    }
    return etag_response(request, content, at)


async def explain_journey(request: Request, as_of: AsOf = None) -> Response:
    services = get_services(request)
    ids = read_customer_ids(request)
    key = read_definition_key(request)
    at, _ = parse_as_of(as_of, services.clock.now())
    definition, place, stages = await _views(services).explain_journey(ids, key, at)
    content = {
        "journey": key,
        "version": definition.version,
        "stage": place.stage,
        "since": format_instant(place.since),
        "valid_until": format_instant(place.valid_until),
        "stages": [{"stage": stage, "explanation": render_explanation(why.tree)} for stage, why in stages],
    }
    return etag_response(request, content, at)


async def explain_trait(request: Request, as_of: AsOf = None) -> Response:
    services = get_services(request)
    ids = read_customer_ids(request)
    key = read_definition_key(request)
    at, _ = parse_as_of(as_of, services.clock.now())
    definition, found = await _views(services).explain_trait(ids, key, at)
    value, valid_until = found.pop("value"), found.pop("valid_until")
    content = {
        "trait": key,
        "version": definition.version,
        "value": value,
        "valid_until": format_instant(valid_until),
        "explanation": {"rule": body_to_json(definition), **found},
    }
    return etag_response(request, content, at)


# ------------------------------------------------------------------------------------- messages and links


async def list_touchpoints(
    request: Request, limit: Limit = DEFAULT_ITEMS, cursor: PageCursor = None, as_of: AsOf = None
) -> Response:
    services = get_services(request)
    ids = read_customer_ids(request)
    begin = read_cursor(cursor, int, str, str)
    at, is_past = parse_page_as_of(as_of, begin, services.clock.now())
    items_max = min(limit, services.settings.limits.page_items_max)
    timeline = TimelineQueries(services.pool)
    place: Any = tuple(begin.place) if begin else cursor_at(at) if is_past else None
    found = await timeline.list_touchpoints(ids, place, items_max + 1)
    page, more = found[:items_max], len(found) > items_max
    last = page[-1] if more else None
    return json_response(
        {
            "items": [_entry_json(entry) for entry in page],
            "next_cursor": last and write_cursor(at, last.occurred_at, last.message_id, last.source),
            "as_of": format_instant(at),
        }
    )


def _entry_json(entry: TimelineEntry) -> dict[str, Any]:
    return {
        "message_id": entry.message_id,
        "source": entry.source,
        "type": entry.type,
        "name": entry.name,
        "channel": entry.channel,
        "occurred_at": format_instant(entry.occurred_at),
        "received_at": format_instant(entry.received_at),
        "sent_at": format_instant(entry.sent_at),
        "original_timestamp": entry.original_timestamp,
        "identities": entry.identities,
        "properties": msgspec.Raw(entry.properties),
        "context": msgspec.Raw(entry.context),
        "traits": None if entry.traits is None else msgspec.Raw(entry.traits),
    }


async def list_links(request: Request, as_of: AsOf = None) -> Response:
    """Identity has no time: these are the links as they hold today, with ``as_of`` those whose message had happened."""
    services = get_services(request)
    ids = read_customer_ids(request)
    at, is_past = parse_as_of(as_of, services.clock.now())
    customer, links = await TimelineQueries(services.pool).list_links(ids)
    items = [_link_json(link) for link in links if not is_past or link.occurred_at <= at]
    return etag_response(request, {"id": format_uuid(customer), "items": items}, at)


def _link_json(link: LedgerLink) -> dict[str, Any]:
    return {
        "weaker": link.weaker,
        "stronger": link.stronger,
        "kind": link.kind,
        "joined": link.joined and link.undone_at is None,
        "occurred_at": format_instant(link.occurred_at),
        "message_id": link.message_id,
        "source": link.source,
        "undone_at": format_instant(link.undone_at),
    }


async def undo_customer_link(request: Request) -> Response:
    return await _set_link(request, undone=True)


async def restore_customer_link(request: Request) -> Response:
    return await _set_link(request, undone=False)


async def _set_link(request: Request, *, undone: bool) -> Response:
    services = get_services(request)
    link = await _read(request, _Link)
    weaker, stronger = (_identity(text, services) for text in (link.weaker, link.stronger))
    now = services.clock.now()

    async def write(connection: Any) -> bool:
        ruleset = await services.registry.rules.read(connection)
        return await undo_link(connection, weaker, stronger, undone, ruleset, now, services.settings)

    if not await transact(services.pool, write):
        raise NotFound("There is no such link in the merge ledger.")
    return json_response({"success": True})


def _identity(text: str, services: Services) -> bytes:
    return resolve_customer_reference(text, services.settings)[0]


class _Lookup(msgspec.Struct, forbid_unknown_fields=True):
    customers: list[str]
    as_of: str | None = None


class _Link(msgspec.Struct, forbid_unknown_fields=True):
    weaker: str
    stronger: str


async def _read(request: Request, type: type[_Body]) -> _Body:
    data = await read_json(request, _BODY_BYTES_MAX)
    try:
        return msgspec.convert(data, type)
    except msgspec.ValidationError as error:
        raise BadRequest(f"The body does not fit: {error}.") from None
