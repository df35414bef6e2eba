"""Routes that list and count the members of a segment."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Path, Security
from starlette.requests import Request
from starlette.responses import Response

from app.api.schemas import CountOut, MembersOut, describe_problems
from app.errors import BadRequest
from app.http.as_of import AsOf, parse_as_of, parse_page_as_of
from app.http.auth import SecretKey
from app.http.dependencies import Services, get_services
from app.http.pagination import DEFAULT_ITEMS, Limit, PageCursor
from app.http.responses import format_instant, format_uuid, json_response, read_cursor, write_cursor
from app.queries.segment_members import Member, SegmentMemberQueries

SegmentKey = Annotated[str, Path(description="Key of the segment.", examples=["repeat-buyers"])]


def add_segment_routes(app: FastAPI) -> None:
    for path, endpoint, model, summary in (
        ("members", list_segment_members, MembersOut, "List the members of a segment"),
        ("count", count_segment_members, CountOut, "Count the members of a segment"),
    ):
        app.add_api_route(
            f"/v1/segments/{{key}}/{path}",
            endpoint,
            methods=["GET"],
            tags=["segments"],
            operation_id=endpoint.__name__,
            summary=summary,
            response_model=model,
            responses=describe_problems(400, 401, 403, 404, 422, 503, 504),
            dependencies=[Security(SecretKey())],
        )


def _create_queries(services: Services) -> SegmentMemberQueries:
    return SegmentMemberQueries(services.pool, services.registry, services.settings)


async def list_segment_members(
    request: Request, key: SegmentKey, limit: Limit = DEFAULT_ITEMS, cursor: PageCursor = None, as_of: AsOf = None
) -> Response:
    services = get_services(request)
    page_cursor = read_cursor(cursor, str)
    at, _ = parse_page_as_of(as_of, page_cursor, services.clock.now())
    after = None if page_cursor is None else _parse_customer_id(str(page_cursor.place[0]))
    async with services.member_list_slots:
        page = await _create_queries(services).list_members(
            key, at, after, min(limit, services.settings.limits.page_items_max)
        )
    services.segment_usage.count_read(key)
    return json_response(
        {
            "items": [_render_member(member) for member in page.items],
            "next_cursor": None if page.after is None else write_cursor(at, page.after.hex()),
            "as_of": format_instant(at),
        }
    )


async def count_segment_members(request: Request, key: SegmentKey, as_of: AsOf = None) -> Response:
    services = get_services(request)
    at, _ = parse_as_of(as_of, services.clock.now())
    async with services.member_list_slots:
        count = await _create_queries(services).count_members(key, at)
    services.segment_usage.count_read(key)
    return json_response({"count": count, "as_of": format_instant(at)})


def _parse_customer_id(text: str) -> bytes:
    try:
        id = bytes.fromhex(text)
    except ValueError:
        id = b""
    if len(id) != 16:
        raise BadRequest("The cursor belongs to another list.")
    return id


def _render_member(member: Member) -> dict[str, Any]:
    return {
        "id": format_uuid(member.id),
        "identities": member.identities,
        "since": format_instant(member.since),
        "valid_until": format_instant(member.valid_until),
    }
