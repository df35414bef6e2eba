"""Webhooks of tools: ``/v1/sources/{source}/webhook``.

Each delivery goes the same way: is it a handshake, is it the tool's (over the raw bytes), its events, their messages,
one flush, and an answer before the tool gives up waiting. What cannot be read is kept in quarantine and answered like
success, because most tools would send it again for days, and some would hold back all that follows it.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from app.api.schemas import WebhookReceiptOut, problems
from app.connectors.adapter import Connector, HandshakeReply
from app.connectors.delivery import Delivery
from app.connectors.delivery_parser import ParsedDelivery, parse
from app.connectors.signatures import MISSING, REPLAYED, SignatureRefused
from app.connectors.tools import CONNECTORS
from app.errors import BadRequest, InvalidSignature, NotFound, Overloaded
from app.formats.decompression import inflate
from app.formats.segment import normalise
from app.http.bodies import read_body
from app.http.dependencies import Services, get_services
from app.http.direct_route import DirectRoute
from app.http.responses import json_response
from app.http.schema_types import KEY_PATTERN
from app.ingest import Receipt
from app.ingest.used_tokens import claim_token
from app.privacy.erasure_requests import request_erasures
from app.registry import WebhookSource

_GZIP: Final = b"\x1f\x8b"
_METHODS: Final = ("POST", "GET", "HEAD", "OPTIONS")
_SPARE_SECONDS: Final = 0.5
"""Of the time that a tool waits: for the way back."""

_ANYTHING: Final = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
"""Of any content type."""
_SOURCE: Final = {
    "name": "source",
    "in": "path",
    "required": True,
    "description": "Key of a source whose kind is a tool.",
    "schema": {"type": "string", "title": "Source", "pattern": KEY_PATTERN, "maxLength": 64},
    "example": "newsletter",
}


def add_webhook_routes(app: FastAPI) -> None:
    for method in _METHODS:
        delivers = method == "POST"
        app.router.routes.append(
            DirectRoute(
                "/v1/sources/{source}/webhook",
                receive,
                methods=[method],
                tags=["webhooks"],
                include_in_schema=delivers,
                operation_id="receive_webhook" if delivers else None,
                summary="A delivery of the source's tool, signed as the tool signs",
                description="The body is whatever the tool sends; `GET /v1/sources/kinds` has a sample of each. GET, "
                "HEAD and OPTIONS answer the handshakes of tools.",
                response_model=WebhookReceiptOut,
                responses=problems(400, 401, 404, 408, 503),
                openapi_extra={
                    "security": [],
                    "parameters": [_SOURCE],
                    "requestBody": {"required": True, "content": _ANYTHING},
                },
            )
        )


async def receive(request: Request) -> Response:
    services = get_services(request)
    hook, tool = webhook_source_of(services, request.path_params["source"])
    try:
        async with asyncio.timeout(tool.seconds - _SPARE_SECONDS):
            return await _receive(request, services, hook, tool)
    except TimeoutError:
        # Sent again it is a duplicate, if it was stored by now.
        raise Overloaded from None
    except SignatureRefused as refused:
        services.metrics.webhook_refused(tool.key, refused.reason)
        services.ingest.source_stats.refused(hook.source.key, refused.reason)
        services.source_stats.refused(hook.source.key, refused.reason)
        raise InvalidSignature(f"{refused.detail[:1].upper()}{refused.detail[1:]}.", reason=refused.reason) from None
    except BadRequest as error:
        # Which is the status that this tool takes for an end of it: on others it would try for days.
        error.status = tool.refused_status
        services.source_stats.refused(hook.source.key, error.code)
        raise


def webhook_source_of(services: Services, source: str) -> tuple[WebhookSource, Connector]:
    """Raises :class:`NotFound` for a source that is none, or no tool's."""
    hook = services.registry.access.hooks.get(source)
    tool = None if hook is None else CONNECTORS.get(hook.kind)
    if hook is None or tool is None:
        raise NotFound("There is no such source with webhooks.")
    return hook, tool


async def _receive(request: Request, services: Services, hook: WebhookSource, tool: Connector) -> Response:
    secrets = hook.secrets_at(services.clock.now())
    delivery = await _delivery(request, services, hook)
    if (greeted := tool.handshake(delivery, secrets)) is not None:
        return await _reply(services, greeted)
    if request.method != "POST":
        return Response(None, 200, {"Allow": ", ".join(_METHODS)})
    delivery = await verify_delivery(services, tool, delivery, secrets)
    if (greeted := tool.handshake_signed(delivery)) is not None:
        return await _reply(services, greeted)
    await _refuse_replay(services, hook, tool, delivery)
    delivery = _inflated(services, request, delivery)
    receipt, intake = await _store(services, hook, tool, delivery)
    return json_response(
        {
            "success": True,
            "accepted": receipt.accepted,
            "duplicate": receipt.duplicate,
            "rejected": receipt.rejected,
            "ignored": intake.ignored,
            "projected": receipt.projected,
        }
    )


async def _delivery(request: Request, services: Services, hook: WebhookSource) -> Delivery:
    body = b""
    if request.method == "POST":
        body = await read_body(request, services.settings.limits.webhook_bytes_max)
    return Delivery(
        body=body,
        headers=dict(request.headers.items()),
        query=dict(request.query_params),
        method=request.method,
        url=_as_called(request, hook.options.get("url", "")),
        received_at=services.clock.now(),
        options=hook.options,
    )


def _as_called(request: Request, told: str) -> str:
    """The address as the tool called it: what the operator says it is, with the query of this request."""
    query = request.url.query
    if not told:
        return str(request.url)
    return f"{told}?{query}" if query and "?" not in told else told


async def verify_delivery(services: Services, tool: Connector, delivery: Delivery, secrets: list[str]) -> Delivery:
    """The delivery, shown to be the tool's by one of the secrets. Raises SignatureRefused."""
    if (address := tool.certificate(delivery)) is not None:
        delivery = msgspec.structs.replace(delivery, fetched=await services.outbound.get_cached(address))
    if not tool.scheme.needs_secret:
        tool.scheme.verify(delivery, "")
        return delivery
    refused = SignatureRefused(MISSING, "the source has no secret yet: POST one to its /secrets")
    for secret in secrets:
        try:
            tool.scheme.verify(delivery, secret)
        except SignatureRefused as error:
            refused = error
        else:
            return delivery
    raise refused


async def _refuse_replay(services: Services, hook: WebhookSource, tool: Connector, delivery: Delivery) -> None:
    token = tool.single_use_token(delivery)
    if token is not None and not await claim_token(
        services.pool, hook.source.key, token, delivery.body, delivery.received_at
    ):
        raise SignatureRefused(REPLAYED, "its token has signed another body before")


def _inflated(services: Services, request: Request, delivery: Delivery) -> Delivery:
    if not delivery.body.startswith(_GZIP):
        return delivery
    body = inflate(delivery.body, request.headers.get("content-encoding"), services.settings.limits)
    return msgspec.structs.replace(delivery, body=body)


async def _store(
    services: Services, hook: WebhookSource, tool: Connector, delivery: Delivery
) -> tuple[Receipt, ParsedDelivery]:
    """Goes on although the tool stops waiting: what a flush has begun it ends."""
    intake = parse(tool, delivery)
    source = hook.source
    parsed = normalise(intake.envelope, source, delivery.received_at, services.settings)
    if intake.erasures:
        wanted = [(each.kind, each.value) for each in intake.erasures]
        await request_erasures(services.pool, source.key, wanted, delivery.received_at, services.settings)
    storing = asyncio.ensure_future(services.ingest.accept(source.key, parsed, len(delivery.body)))
    storing.add_done_callback(_forget)
    receipt = await asyncio.shield(storing)
    services.source_stats.ignored(source.key, intake.ignored)
    services.ingest.source_stats.ignored(source.key, intake.ignored)
    services.streams.nudge()
    return receipt, intake


def _forget(storing: asyncio.Future[Receipt]) -> None:
    """Where nobody waits for it any more its failure is told by the flush."""
    if not storing.cancelled():
        storing.exception()


async def _reply(services: Services, reply: HandshakeReply) -> Response:
    if reply.fetch_url:
        await services.outbound.get(reply.fetch_url)
    return Response(reply.body, reply.status, dict(reply.headers), reply.content_type)
