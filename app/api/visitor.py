"""Routes that give a web page the profile of its visitor, once or as a stream, and that create visitor tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Final

import anyio
import msgspec
from fastapi import FastAPI, Security
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response

from app.api.schemas import (
    ETAG_RESPONSES,
    MeOut,
    VisitorTokenIn,
    VisitorTokenOut,
    describe_json_body,
    describe_problems,
)
from app.api.visitor_claims import build_counter_name, encode_public_profile, read_public_profile, render_token
from app.errors import BadRequest, InvalidToken, NotFound
from app.formats.identifiers import canonical
from app.http.auth import SecretKey
from app.http.bodies import read_struct
from app.http.dependencies import Services, get_services
from app.http.direct_route import DirectRoute
from app.http.responses import JSON, encode_json, is_etag_match, json_response
from app.http.write_keys import authenticate_write_key
from app.queries.live_updates import VisitorStream
from app.queries.replay_limit import HeavyPageRead, HeavyRead
from app.registry import visitor_tokens
from app.registry.access import WriteKeyGrant
from app.registry.visitor_tokens import Visitor
from app.touchpoint import SECOND

OPEN_PATHS: Final = frozenset({"/v1/me", "/v1/me/stream"})

_BODY_BYTES_MAX: Final = 10_000
_SEND_SECONDS_MAX: Final = 20.0
"""Seconds after which a page that does not read from its stream is disconnected."""
_PING_SECONDS: Final = 15
_SHUTDOWN_SECONDS_MAX: Final = 5.0


def add_visitor_routes(app: FastAPI) -> None:
    query = [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": description,
            "schema": {"type": "string", "title": title},
        }
        for name, title, description in (
            ("writeKey", "Write key", "A write key of the source. The header X-Write-Key is an alternative."),
            ("token", "Token", "A visitor token. The header Authorization: Bearer is an alternative."),
        )
    ]
    for path, endpoint, summary, extra in (
        ("/v1/me", get_me, "Get the visitor of a page", {"response_model": MeOut}),
        (
            "/v1/me/stream",
            stream_me,
            "Stream the visitor of a page",
            {"response_class": Response},
        ),
    ):
        responses = describe_problems(401, 403, 429, 503)
        app.router.routes.append(
            DirectRoute(
                path,
                endpoint,
                methods=["GET"],
                tags=["pages"],
                operation_id=endpoint.__name__,
                summary=summary,
                responses={**responses, **(ETAG_RESPONSES if endpoint is get_me else _STREAM_RESPONSES)},
                openapi_extra={"security": [], "parameters": query},
                **extra,
            )
        )
    app.add_api_route(
        "/v1/visitor-tokens",
        create_visitor_token,
        methods=["POST"],
        tags=["access"],
        operation_id="create_visitor_token",
        summary="Create a visitor token",
        response_model=VisitorTokenOut,
        status_code=201,
        responses=describe_problems(400, 401, 403, 404),
        dependencies=[Security(SecretKey())],
        openapi_extra=describe_json_body(VisitorTokenIn),
    )


_STREAM_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Server-sent events. `event: me` has the body of /v1/me, at once and after each change. "
        "`event: token` has a new token before the current one expires. Comments are pings.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


# ------------------------------------------------------------------------------------------------ reading


async def get_me(request: Request) -> Response:
    """Return the public journeys, segments and traits of the visitor whom the token identifies."""
    services = get_services(request)
    _, grant, visitor = await _authenticate_visitor(request, services)
    try:
        profile = await read_public_profile(services, grant, visitor)
    except HeavyRead:
        raise HeavyPageRead from None
    tag, body = encode_public_profile(profile)
    headers = {"etag": f'W/"{tag}"', "cache-control": "private, no-cache"}
    if is_etag_match(request.headers.get("if-none-match"), headers["etag"]):
        return Response(None, 304, headers)
    return Response(body, 200, headers, JSON)


async def stream_me(request: Request) -> Response:
    """Send the body of /v1/me as server-sent events: at once, and after each change."""
    services = get_services(request)
    write_key, _, visitor = await _authenticate_visitor(request, services)
    services.live_updates.refuse_if_full(visitor)
    shutdown = anyio.Event()
    return EventSourceResponse(
        _stream_events(services, write_key, visitor, request.headers.get("origin"), shutdown),
        ping=_PING_SECONDS,
        send_timeout=_SEND_SECONDS_MAX,
        sep="\n",
        shutdown_event=shutdown,
        shutdown_grace_period=_SHUTDOWN_SECONDS_MAX,
    )


async def _stream_events(
    services: Services, write_key: str, visitor: Visitor, origin: str | None, shutdown: anyio.Event
) -> AsyncIterator[ServerSentEvent]:
    """Yield events until the page disconnects or loses access, the process stops, or the token expires."""
    life = services.settings.visitor_token_seconds
    sent_tag = ""
    with services.live_updates.open_stream(visitor, write_key, origin) as stream, _close_on_shutdown(stream, shutdown):
        while not stream.is_closed:
            now = services.clock.now()
            renewable = visitor.anonymous_id is not None
            end = visitor.expires_at - (life * SECOND // 2 if renewable else 0)
            if end <= now:
                if not renewable:
                    return
                visitor = visitor_tokens.renew(visitor, now, life)
                yield ServerSentEvent(encode_json(render_token(services, visitor)).decode(), event="token", sep="\n")
                continue
            profile = await stream.wait_for_profile((end - now) / SECOND)
            if profile is None:
                continue
            tag, body = encode_public_profile(profile)
            if tag != sent_tag:
                sent_tag = tag
                yield ServerSentEvent(body.decode(), event="me", sep="\n")


@contextmanager
def _close_on_shutdown(stream: VisitorStream, shutdown: anyio.Event) -> Iterator[None]:
    """End the stream when the server shuts down; an aborted connection would look like a failure to server and page."""
    shutdown_wait = asyncio.ensure_future(shutdown.wait())
    shutdown_wait.add_done_callback(lambda _: stream.close())
    try:
        yield
    finally:
        shutdown_wait.cancel()


async def _authenticate_visitor(request: Request, services: Services) -> tuple[str, WriteKeyGrant, Visitor]:
    """Return the write key, its grant and the visitor.

    Raise :class:`InvalidToken` or an error of :func:`authenticate_write_key`.
    """
    write_key, grant = await authenticate_write_key(
        request, services, request.headers.get("x-write-key"), request.query_params.get("writeKey")
    )
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip() if scheme.lower() == "bearer" else request.query_params.get("token", "")
    if not token:
        raise InvalidToken("Send a visitor token: Authorization: Bearer, or ?token=.")
    visitor = visitor_tokens.verify_token(
        token, services.registry.access.current.signing_keys, grant.source.key, services.clock.now()
    )
    await services.rate_limits.count_visitor(visitor.source, build_counter_name(visitor))
    return write_key, grant, visitor


# ---------------------------------------------------------------------------------------------- vouching


class _TokenBody(msgspec.Struct, forbid_unknown_fields=True):
    source: str
    anonymous_id: str | None = None
    user_id: str | None = None


async def create_visitor_token(request: Request) -> Response:
    """Create a token with which the site's server vouches for the ids of its visitor.

    Pass the token to the page, which sends it with identify. A renewal of the token does not extend the time for which
    the server vouches.
    """
    services = get_services(request)
    body = await read_struct(request, _TokenBody, _BODY_BYTES_MAX)
    ids = [(kind, id) for kind in ("anonymous_id", "user_id") if (id := getattr(body, kind)) is not None]
    if not ids:
        raise BadRequest("Send anonymous_id, user_id, or both.")
    for kind, id in ids:
        if canonical(kind, id, services.settings) is None:
            raise BadRequest(f"The {kind} is not usable: it is empty, too long, or a placeholder.")
    if body.source not in services.registry.access.current.sources:
        raise NotFound(f"The source {body.source} does not exist.")
    visitor = visitor_tokens.vouch_for(
        body.source,
        body.anonymous_id,
        body.user_id,
        services.clock.now(),
        services.settings.visitor_token_seconds,
    )
    return json_response(render_token(services, visitor), 201)
