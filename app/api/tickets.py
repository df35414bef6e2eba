"""Routes for support tickets of a customer, and for redacting the text that customers wrote."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Security
from starlette.requests import Request
from starlette.responses import Response

from app.api.schemas import RedactionOut, TicketsOut, describe_problems
from app.http.as_of import AsOf, parse_page_as_of
from app.http.auth import SecretKey
from app.http.customer_refs import CUSTOMER_PARAMETER, read_customer_ids
from app.http.dependencies import get_services
from app.http.pagination import DEFAULT_ITEMS, Limit, PageCursor
from app.http.responses import format_instant, format_uuid, json_response, read_cursor, write_cursor
from app.insight.ticket_queries import TicketQueries
from app.insight.tickets import Ticket, TicketTotals
from app.postgres.pool import transact
from app.privacy.text_redaction import RedactionCounts, redact_text
from app.queries.timeline import find_customer_id


def add_ticket_routes(app: FastAPI) -> None:
    app.add_api_route(
        "/v1/customers/{customer}/tickets",
        list_tickets,
        methods=["GET"],
        tags=["customers"],
        operation_id="list_tickets",
        summary="List support tickets",
        response_model=TicketsOut,
        responses=describe_problems(400, 401, 403, 404, 422),
        dependencies=[Security(SecretKey())],
        openapi_extra={"parameters": [CUSTOMER_PARAMETER]},
    )
    app.add_api_route(
        "/v1/customers/{customer}/redact-text",
        redact_customer_text,
        methods=["POST"],
        tags=["customers"],
        operation_id="redact_customer_text",
        summary="Redact the text of a customer",
        response_model=RedactionOut,
        responses=describe_problems(400, 401, 403, 404),
        dependencies=[Security(SecretKey())],
        openapi_extra={"parameters": [CUSTOMER_PARAMETER]},
    )


async def list_tickets(
    request: Request, limit: Limit = DEFAULT_ITEMS, cursor: PageCursor = None, as_of: AsOf = None
) -> Response:
    """Return the tickets of all help desks, newest first."""
    services = get_services(request)
    ids = read_customer_ids(request)
    page_cursor = read_cursor(cursor, int, str, str)
    at, _ = parse_page_as_of(as_of, page_cursor, services.clock.now())
    items_max = min(limit, services.settings.limits.page_items_max)
    history = await TicketQueries(services.pool).list_tickets(ids, at)
    remaining = [ticket for ticket in history.tickets if page_cursor is None or ticket.first < tuple(page_cursor.place)]
    page, has_more = remaining[:items_max], len(remaining) > items_max
    return json_response(
        {
            "id": format_uuid(history.customer),
            "totals": _render_totals(history.totals),
            "items": [_render_ticket(ticket) for ticket in page],
            "since": format_instant(history.since),
            "next_cursor": write_cursor(at, *page[-1].first) if has_more else None,
            "as_of": format_instant(at),
        }
    )


def _render_ticket(ticket: Ticket) -> dict[str, Any]:
    return {
        "ticket_id": ticket.id,
        "source": ticket.source,
        "is_open": ticket.is_open,
        "status": ticket.tool_status,
        "opened_at": format_instant(ticket.opened_at),
        "first_seen_at": format_instant(ticket.first[0]),
        "last_seen_at": format_instant(ticket.last_at),
        "solved_at": format_instant(ticket.solved_at),
        "first_response_seconds": ticket.first_response_seconds,
        "resolution_seconds": ticket.resolution_seconds,
        "reopened": ticket.reopened,
        "rating": ticket.rating,
        "replies_by_customer": ticket.replies_by_customer,
        "replies_by_agent": ticket.replies_by_agent,
    }


def _render_totals(totals: TicketTotals) -> dict[str, Any]:
    return {
        "tickets": totals.tickets,
        "open": totals.open,
        "reopened": totals.reopened,
        "last_csat": totals.last_csat,
        "last_csat_at": format_instant(totals.last_csat_at),
        "median_first_response_seconds": totals.median_first_response_seconds,
    }


async def redact_customer_text(request: Request) -> Response:
    """Delete the text that the customer wrote and keep the record of the events."""
    services = get_services(request)
    ids = read_customer_ids(request)

    async def redact(connection: Any) -> RedactionCounts:
        return await redact_text(connection, await find_customer_id(connection, ids))

    counts = await transact(services.pool, redact)
    return json_response({"success": True, "messages": counts.messages, "quarantined": counts.quarantined})
