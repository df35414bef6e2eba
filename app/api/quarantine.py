"""Rejected messages: read them, correct them, send them again."""

from __future__ import annotations

from base64 import b64encode
from typing import Annotated, Any

import msgspec
from fastapi import FastAPI, Path, Security
from starlette.requests import Request
from starlette.responses import Response

from app.api.answers import JSON, instant, json_answer, read_cursor, write_cursor
from app.api.as_of import moment_of_page
from app.api.auth import SecretKey
from app.api.bodies import read_body
from app.api.collect import receipt_json
from app.api.paging import DEFAULT_ITEMS, Limit, PageCursor
from app.api.schemas import BatchItemIn, QuarantineOut, ReceiptOut, json_body, problems
from app.api.services import services
from app.errors import NotFound
from app.views.quarantine import Quarantined, QuarantineViews
from app.wire import again
from app.wire.arrival import KEEP_BOTS
from app.wire.segment import normalise

QuarantineId = Annotated[int, Path(ge=1, lt=1 << 63, description="Of the list.")]


def add_quarantine_routes(app: FastAPI) -> None:
    secret = [Security(SecretKey())]
    app.add_api_route(
        "/v1/quarantine",
        list_quarantine,
        methods=["GET"],
        tags=["quarantine"],
        operation_id="list_quarantine",
        summary="Rejected messages, newest first",
        response_model=QuarantineOut,
        responses=problems(400, 401, 403, 422),
        dependencies=secret,
    )
    app.add_api_route(
        "/v1/quarantine/{id}/replay",
        replay_quarantined,
        methods=["POST"],
        tags=["quarantine"],
        operation_id="replay_quarantined",
        summary="Send a rejected message again",
        response_model=ReceiptOut,
        responses=problems(400, 401, 403, 404, 422, 503),
        dependencies=secret,
        openapi_extra=json_body(BatchItemIn, required=False),
    )


async def list_quarantine(request: Request, limit: Limit = DEFAULT_ITEMS, cursor: PageCursor = None) -> Response:
    served = services(request)
    begin = read_cursor(cursor, int)
    as_of, _ = moment_of_page(None, begin, served.clock.now())
    items_max = min(limit, served.settings.limits.page_items_max)
    found = await QuarantineViews(served.pool).page(None if begin is None else int(begin.place[0]), items_max + 1)
    more = len(found) > items_max
    return json_answer(
        {
            "items": [_quarantined_json(each) for each in found[:items_max]],
            "next_cursor": write_cursor(as_of, found[items_max - 1].id) if more else None,
            "as_of": instant(as_of),
        }
    )


async def replay_quarantined(request: Request, id: QuarantineId) -> Response:
    """As it was, or as the body corrects it; with its type, and as a message of its own source."""
    served = services(request)
    limits = served.settings.limits
    corrected = await read_body(request, limits.body_bytes_max)
    views = QuarantineViews(served.pool)
    kept = await views.one(id)
    source = served.registry.access.sources.get(kept.source)
    if source is None:
        raise NotFound(f"Its source {kept.source} is no more.")
    now = served.clock.now()
    body = corrected or kept.original
    envelope = again.read(body, kept.form, kept.received_at, limits, {})
    # Read as of its own arrival: by the clock of the replay it would have happened later than it did. And who lets a
    # bot's message in is not asked again.
    source = msgspec.structs.replace(source, bots=KEEP_BOTS)
    parsed = normalise(envelope, source, kept.received_at, served.settings)
    receipt = await served.ingest.accept(source.key, parsed, len(body))
    if receipt.accepted:
        await views.mark_replayed(id, now)
    return Response(receipt_json(receipt), media_type=JSON)


def _quarantined_json(each: Quarantined) -> dict[str, Any]:
    try:
        original, encoding = each.original.decode(), "utf-8"
    except UnicodeDecodeError:
        original, encoding = b64encode(each.original).decode(), "base64"
    return {
        **msgspec.structs.asdict(each),
        "received_at": instant(each.received_at),
        "original": original,
        "encoding": encoding,
        "replayed_at": instant(each.replayed_at),
    }
