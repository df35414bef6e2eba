"""Route that lists the sessions of a customer."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Security
from starlette.requests import Request
from starlette.responses import Response

from app.api.schemas import SessionsOut, describe_problems
from app.http.as_of import AsOf, parse_page_as_of
from app.http.auth import SecretKey
from app.http.customer_refs import CUSTOMER_PARAMETER, read_customer_ids
from app.http.dependencies import get_services
from app.http.pagination import DEFAULT_ITEMS, Limit, PageCursor
from app.http.responses import format_instant, format_uuid, json_response, read_cursor, write_cursor
from app.insight.session_queries import SessionQueries
from app.insight.sessions import Session, SessionTotals


def add_session_routes(app: FastAPI) -> None:
    app.add_api_route(
        "/v1/customers/{customer}/sessions",
        list_sessions,
        methods=["GET"],
        tags=["customers"],
        operation_id="list_sessions",
        summary="List sessions",
        response_model=SessionsOut,
        responses=describe_problems(400, 401, 403, 404, 422),
        dependencies=[Security(SecretKey())],
        openapi_extra={"parameters": [CUSTOMER_PARAMETER]},
    )


async def list_sessions(
    request: Request, limit: Limit = DEFAULT_ITEMS, cursor: PageCursor = None, as_of: AsOf = None
) -> Response:
    """Return sessions across all tabs and devices, newest first."""
    services = get_services(request)
    ids = read_customer_ids(request)
    page_cursor = read_cursor(cursor, int, str, str)
    at, _ = parse_page_as_of(as_of, page_cursor, services.clock.now())
    items_max = min(limit, services.settings.limits.page_items_max)
    before: Any = tuple(page_cursor.place) if page_cursor else None
    history = await SessionQueries(services.pool).list_sessions(ids, at, before, items_max + 1)
    page, has_more = history.sessions[:items_max], len(history.sessions) > items_max
    return json_response(
        {
            "id": format_uuid(history.customer),
            "totals": _render_totals(history.totals),
            "items": [_render_session(session, at) for session in page],
            "since": format_instant(history.since),
            "next_cursor": write_cursor(at, *page[-1].first) if has_more else None,
            "as_of": format_instant(at),
        }
    )


def _render_session(session: Session, now: int) -> dict[str, Any]:
    _, message_id, source = session.first
    return {
        "started_at": format_instant(session.started_at),
        "ended_at": format_instant(session.ended_at),
        "duration_seconds": session.duration_seconds,
        "open": session.is_open(now),
        "begun_by": session.begun_by,
        "message_id": message_id,
        "source": source,
        "pages": session.pages,
        "touchpoints": session.touchpoints,
        "bounced": session.bounced,
        "channel": session.channel,
        "acquisition": session.acquisition,
        "entry_page": session.entry_page,
        "exit_page": session.exit_page,
        "devices": list(session.devices),
        "session_ids": list(session.session_ids),
    }


def _render_totals(totals: SessionTotals) -> dict[str, Any]:
    return {
        "count": totals.count,
        "bounce_rate": totals.bounce_rate,
        "average_duration_seconds": totals.average_duration_seconds,
        "pages_per_session": totals.pages_per_session,
    }
