"""Route that receives webhooks: ``/v1/sources/{source}/webhook``.

Every request takes the same steps: answer a handshake, verify the signature over the raw bytes, parse the events,
submit their messages, and respond before the tool's timeout. Unreadable events go to quarantine, and the response
reports success: most tools would resend them for days, and some would hold back all later events.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from app.api.schemas import WebhookReceiptOut, describe_problems
from app.connectors.adapter import Connector, HandshakeReply
from app.connectors.signatures import MISSING, REPLAYED, SignatureRefused
from app.connectors.tools import CONNECTORS
from app.connectors.webhook_parser import ParsedWebhook, parse_in_steps
from app.connectors.webhook_request import WebhookRequest
from app.errors import BadRequest, InvalidSignature, NotFound, Overloaded
from app.http.bodies import read_body
from app.http.body_turns import inflate_body
from app.http.dependencies import Services, get_services
from app.http.direct_route import DirectRoute
from app.http.middleware import IS_HEAD
from app.http.responses import json_response
from app.http.schema_types import KEY_PATTERN
from app.ingest.pending_request import Receipt
from app.ingest.submit import Submission
from app.ingest.used_tokens import claim_token
from app.registry.webhook_secrets import WebhookSource

_GZIP: Final = b"\x1f\x8b"
_METHODS: Final = ("POST", "GET", "OPTIONS")
_SPARE_SECONDS: Final = 0.5
"""Seconds before the tool's timeout at which Segue responds at the latest, so that the response arrives in time."""

_TOO_SLOW: Final = "Processing took longer than the tool waits; send the webhook again."

_ANY_CONTENT: Final = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
"""OpenAPI ``content`` of a body that may have any content type."""
_SOURCE_PARAMETER: Final = {
    "name": "source",
    "in": "path",
    "required": True,
    "description": "Key of a source whose kind is a connector.",
    "schema": {"type": "string", "title": "Source", "pattern": KEY_PATTERN, "maxLength": 64},
    "example": "newsletter",
}


_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    **describe_problems(400, 401, 404, 408, 503),
    **{
        status: {**describe_problems(400)[400], "description": f"Returned to {tool} instead of 400."}
        for status, tool in ((403, "Postmark"), (406, "Mailgun"))
    },
    415: {
        "description": "CloudEvents in a format other than JSON.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    },
}


def add_webhook_routes(app: FastAPI) -> None:
    for method in _METHODS:
        is_delivery = method == "POST"
        app.router.routes.append(
            DirectRoute(
                "/v1/sources/{source}/webhook",
                receive_webhook,
                methods=[method],
                tags=["webhooks"],
                include_in_schema=is_delivery,
                operation_id="receive_webhook" if is_delivery else None,
                summary="Receive a webhook",
                description="The body and its signature are those of the tool; `GET /v1/connectors` contains a "
                "sample of each tool. GET, HEAD and OPTIONS answer handshakes.",
                response_model=WebhookReceiptOut,
                responses=_RESPONSES,
                openapi_extra={
                    "security": [],
                    "parameters": [_SOURCE_PARAMETER],
                    "requestBody": {"required": True, "content": _ANY_CONTENT},
                },
            )
        )


async def receive_webhook(request: Request) -> Response:
    services = get_services(request)
    webhook_source, connector = find_webhook_source(services, request.path_params["source"])
    try:
        async with asyncio.timeout(connector.timeout_seconds - _SPARE_SECONDS):
            return await _process_request(request, services, webhook_source, connector)
    except TimeoutError:
        # The tool retries. If the messages are stored in the meantime, the retry counts as a duplicate.
        raise Overloaded(_TOO_SLOW) from None
    except SignatureRefused as refused:
        services.metrics.count_refused_webhook(connector.key, refused.reason)
        services.ingest.source_stats.count_refused(webhook_source.source.key, refused.reason)
        raise InvalidSignature(f"{refused.detail[:1].upper()}{refused.detail[1:]}.", reason=refused.reason) from None
    except BadRequest as error:
        # Use the status that stops this tool from retrying.
        error.status = connector.refused_status
        services.ingest.source_stats.count_refused(webhook_source.source.key, error.code)
        raise


def find_webhook_source(services: Services, source: str) -> tuple[WebhookSource, Connector]:
    """Return the source and its connector. Raise :class:`NotFound` if no such source accepts webhooks."""
    webhook_source = services.registry.access.current.webhook_sources.get(source)
    connector = None if webhook_source is None else CONNECTORS.get(webhook_source.kind)
    if webhook_source is None or connector is None:
        raise NotFound("No source with this key accepts webhooks.")
    return webhook_source, connector


async def _process_request(
    request: Request, services: Services, webhook_source: WebhookSource, connector: Connector
) -> Response:
    secrets = webhook_source.list_secrets_at(services.clock.now())
    delivery = await _read_delivery(request, services, webhook_source)
    if (reply := connector.handshake(delivery, secrets)) is not None:
        return await _send_handshake_reply(services, reply)
    if request.method != "POST":
        return Response(None, 200, {"Allow": ", ".join((*_METHODS, "HEAD"))})
    delivery = await verify_delivery(services, connector, delivery, secrets)
    if (reply := connector.handshake_signed(delivery)) is not None:
        return await _send_handshake_reply(services, reply)
    await _refuse_replay(services, webhook_source, connector, delivery)
    if delivery.body.startswith(_GZIP):
        body = await inflate_body(request, delivery.body, is_known=True)
        delivery = msgspec.structs.replace(delivery, body=body)
    receipt, parsed = await _submit_delivery(services, webhook_source, connector, delivery)
    return json_response(
        {
            "success": True,
            "accepted": receipt.accepted,
            "duplicate": receipt.duplicate,
            "rejected": receipt.rejected,
            "ignored": parsed.ignored,
            "projected": receipt.projected,
        }
    )


async def _read_delivery(request: Request, services: Services, webhook_source: WebhookSource) -> WebhookRequest:
    body = b""
    if request.method == "POST":
        body = await read_body(request, services.settings.limits.webhook_bytes_max)
    return WebhookRequest(
        body=body,
        headers=dict(request.headers.items()),
        query=dict(request.query_params),
        method="HEAD" if request.scope.get(IS_HEAD) else request.method,
        url=_reconstruct_url(request, webhook_source.options.get("url", "")),
        received_at=services.clock.now(),
        options=webhook_source.options,
    )


def _reconstruct_url(request: Request, configured_url: str) -> str:
    """Return the URL that the tool called: the configured one, if any, with the query of this request."""
    query = request.url.query
    if not configured_url:
        return str(request.url)
    return f"{configured_url}?{query}" if query and "?" not in configured_url else configured_url


async def verify_delivery(
    services: Services, connector: Connector, delivery: WebhookRequest, secrets: list[str]
) -> WebhookRequest:
    """Return the delivery if one of the secrets verifies it. Raise SignatureRefused otherwise."""
    if (address := connector.certificate_url(delivery)) is not None:
        delivery = msgspec.structs.replace(delivery, certificate_pem=await services.outbound.get_cached(address))
    if not connector.scheme.needs_secret:
        connector.scheme.verify(delivery, "")
        return delivery
    refused = SignatureRefused(MISSING, "the source has no secret yet; add one with POST /v1/sources/{key}/secrets")
    for secret in secrets:
        try:
            connector.scheme.verify(delivery, secret)
        except SignatureRefused as error:
            refused = error
        else:
            return delivery
    raise refused


async def _refuse_replay(
    services: Services, webhook_source: WebhookSource, connector: Connector, delivery: WebhookRequest
) -> None:
    token = connector.single_use_token(delivery)
    if token is not None and not await claim_token(
        services.pool, webhook_source.source.key, token, delivery.body, delivery.received_at
    ):
        raise SignatureRefused(REPLAYED, "its token was already used with a different body")


async def _submit_delivery(
    services: Services, webhook_source: WebhookSource, connector: Connector, delivery: WebhookRequest
) -> tuple[Receipt, ParsedWebhook]:
    """Submit what the delivery contains; the submission completes even if the tool stops waiting."""
    turns = services.ingest.parsing_turns
    parsed = await turns.run(parse_in_steps(connector, delivery), len(delivery.body), has_begun=True)
    submission = asyncio.ensure_future(services.ingest.submit(build_submission(parsed, webhook_source, delivery)))
    submission.add_done_callback(_consume_exception)
    return await asyncio.shield(submission), parsed


def build_submission(parsed: ParsedWebhook, webhook_source: WebhookSource, delivery: WebhookRequest) -> Submission:
    """Return the messages of a verified webhook in the form that ingestion accepts."""
    return Submission(
        source=webhook_source.source,
        envelope=parsed.envelope,
        received_at=delivery.received_at,
        size_bytes=len(delivery.body),
        ignored=parsed.ignored,
    )


def _consume_exception(submission: asyncio.Future[Receipt]) -> None:
    """Mark the exception of an abandoned submission as handled, because the flush has already logged it."""
    if not submission.cancelled():
        submission.exception()


async def _send_handshake_reply(services: Services, reply: HandshakeReply) -> Response:
    if reply.fetch_url:
        await services.outbound.get(reply.fetch_url)
    return Response(reply.body, reply.status, dict(reply.headers), reply.content_type)
