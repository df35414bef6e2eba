"""Routes that find, show, correct and replay quarantined messages."""

from __future__ import annotations

from base64 import b64encode
from typing import Annotated, Any, Final

import msgspec
from fastapi import FastAPI, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from app.api.collect import encode_receipt
from app.api.schemas import (
    BatchItemIn,
    QuarantinedOut,
    QuarantineOut,
    QuarantineReplayIn,
    QuarantineReplayOut,
    ReceiptOut,
    describe_json_body,
)
from app.api.secret_routes import add_secret_route
from app.errors import BadRequest
from app.formats.timestamps import parse
from app.http.as_of import parse_page_as_of
from app.http.bodies import read_body, read_model
from app.http.dependencies import Services, get_services
from app.http.pagination import DEFAULT_ITEMS, Limit, PageCursor
from app.http.responses import JSON, format_instant, json_response, read_cursor, write_cursor
from app.http.schema_types import EXAMPLE_INSTANT
from app.quarantine.patch import Patch
from app.quarantine.replay import QuarantineReplayer, ReplayResult, count_outcomes
from app.quarantine.search import QuarantinedMessage, QuarantineQuery, QuarantineSearch

_BODY_BYTES_MAX: Final = 200_000
_NO_NUL: Final = r"^[^\x00]*$"

QuarantineId = Annotated[int, Path(ge=1, lt=1 << 63, description="`id` from the list of quarantined messages.")]
OfSource = Annotated[str | None, Query(max_length=64, pattern=_NO_NUL, description="Only messages of this source.")]
OfCode = Annotated[
    str | None, Query(max_length=64, pattern=_NO_NUL, description="Only messages with this rejection code.")
]
OfEvent = Annotated[
    str | None,
    Query(
        max_length=1_000,
        pattern=_NO_NUL,
        description="Only messages with this event name. For events from another vendor's SDK, this is the "
        "vendor's name.",
    ),
]
OfMessage = Annotated[
    str | None, Query(max_length=1_000, pattern=_NO_NUL, description="Only messages with this message id.")
]
From = Annotated[
    str | None,
    Query(alias="from", description="Only messages received at this instant or later.", examples=[EXAMPLE_INSTANT]),
]
To = Annotated[str | None, Query(description="Only messages received before this instant.", examples=[EXAMPLE_INSTANT])]
IsReplayed = Annotated[bool | None, Query(description="Only messages that were (or were not) replayed. Default: both.")]


def add_quarantine_routes(app: FastAPI) -> None:
    for path, method, endpoint, model, extra, failures, summary in (
        ("", "GET", list_quarantine, QuarantineOut, None, (400, 422), "List quarantined messages"),
        (
            "/replay", "POST", replay_many_quarantined, QuarantineReplayOut, describe_json_body(QuarantineReplayIn),
            (400,), "Correct and replay several messages",
        ),
        ("/{id}", "GET", get_quarantined, QuarantinedOut, None, (404, 422), "Get a quarantined message"),
        (
            "/{id}/replay", "POST", replay_quarantined, ReceiptOut, describe_json_body(BatchItemIn, required=False),
            (400, 404, 422, 503), "Replay a quarantined message",
        ),
    ):  # fmt: skip
        add_secret_route(
            app,
            method,
            f"/v1/quarantine{path}",
            endpoint,
            tag="quarantine",
            summary=summary,
            model=model,
            failures=failures,
            extra=extra,
        )


async def list_quarantine(
    request: Request,
    limit: Limit = DEFAULT_ITEMS,
    cursor: PageCursor = None,
    source: OfSource = None,
    code: OfCode = None,
    event: OfEvent = None,
    message_id: OfMessage = None,
    from_: From = None,
    to: To = None,
    replayed: IsReplayed = None,
) -> Response:
    """List messages, newest first. With `event` a page may be short or empty although a next page exists."""
    services = get_services(request)
    page_cursor = read_cursor(cursor, int)
    as_of, _ = parse_page_as_of(None, page_cursor, services.clock.now())
    items_max = min(limit, services.settings.limits.page_items_max)
    query = QuarantineQuery(
        source, code, event, message_id, _parse_instant(from_, "from"), _parse_instant(to, "to"), replayed
    )
    before = None if page_cursor is None else int(page_cursor.place[0])
    page = await QuarantineSearch(services.pool).list_newest(query, before, items_max)
    return json_response(
        {
            "items": [_render_quarantined(row) for row in page.rows],
            "next_cursor": None if page.next is None else write_cursor(as_of, page.next),
            "as_of": format_instant(as_of),
        }
    )


async def get_quarantined(request: Request, id: QuarantineId) -> Response:
    return json_response(_render_quarantined(await QuarantineSearch(get_services(request).pool).read_one(id)))


async def replay_quarantined(request: Request, id: QuarantineId) -> Response:
    """Replay the original message, or the corrected message in the body, for its original source.

    The message is stored at most once, even if it is replayed several times.
    """
    services = get_services(request)
    corrected = await read_body(request, services.settings.limits.body_bytes_max)
    receipt = await _create_replayer(services).replay_one(id, corrected)
    return Response(encode_receipt(receipt), media_type=JSON)


async def replay_many_quarantined(request: Request) -> Response:
    """Apply `patch` (JSON Patch, RFC 6902) to the originals and replay them, oldest first, each at most once.

    Messages that were replayed before are skipped, unless `ids` contains them. Messages that are rejected again stay
    in quarantine. With `dry_run` everything runs, projection included, and is rolled back.
    """
    services = get_services(request)
    body = await read_model(request, QuarantineReplayIn, _BODY_BYTES_MAX)
    row_filter = body.filter
    query = QuarantineQuery(
        row_filter.source,
        row_filter.code,
        row_filter.event,
        row_filter.message_id,
        _parse_instant(row_filter.from_, "/filter/from"),
        _parse_instant(row_filter.to, "/filter/to"),
        None if row_filter.ids is not None else False,
        row_filter.ids,
    )
    patch = Patch(body.patch) if body.patch else None
    results, next_after = await _create_replayer(services).replay_page(
        query, body.after, body.limit, patch, dry_run=body.dry_run
    )
    return json_response(
        {
            **count_outcomes(results),
            "dry_run": body.dry_run,
            "items": [_render_result(result, shows_body=body.dry_run) for result in results],
            "next_after": next_after,
        }
    )


def _create_replayer(services: Services) -> QuarantineReplayer:
    return QuarantineReplayer(services.pool, services.registry, services.ingest, services.settings, services.clock)


def _parse_instant(text: str | None, path: str) -> int | None:
    if text is None:
        return None
    instant = parse(text.replace(" ", "+"))  # an unencoded + arrives as a space
    if instant is None:
        raise BadRequest(f"{path} is not an instant; write one such as {EXAMPLE_INSTANT}.", path=path)
    return instant


def _render_quarantined(row: QuarantinedMessage) -> dict[str, Any]:
    original, encoding = _encode_original(row.original)
    return {
        **msgspec.structs.asdict(row),
        "received_at": format_instant(row.received_at),
        "original": original,
        "encoding": encoding,
        "replayed_at": format_instant(row.replayed_at),
    }


def _render_result(result: ReplayResult, *, shows_body: bool) -> dict[str, Any]:
    members = msgspec.structs.asdict(result)
    body = members.pop("body")
    return {**members, "patched": _encode_original(body)[0]} if shows_body and body else members


def _encode_original(original: bytes) -> tuple[str, str]:
    """Return the original as text and the name of its encoding."""
    try:
        return original.decode(), "utf-8"
    except UnicodeDecodeError:
        return b64encode(original).decode(), "base64"
