"""Routes that set up a tool as a source: kinds of connectors, webhook secrets, dry runs."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Final

import msgspec
from fastapi import FastAPI, Path
from starlette.requests import Request
from starlette.responses import Response

from app.api.collect import render_rejection
from app.api.schemas import ConnectorsOut, DeliveryDryRunOut, SecretIn, SecretOut, SecretsOut, describe_json_body
from app.api.secret_routes import add_secret_route
from app.api.webhooks import build_submission, find_webhook_source
from app.connectors.adapter import TEXT_POLICIES, Connector
from app.connectors.signatures import SignatureRefused
from app.connectors.tools import CONNECTORS
from app.connectors.webhook_parser import parse
from app.connectors.webhook_request import WebhookRequest
from app.enrichment import sentiment
from app.enrichment.sentiment import ESTIMATED
from app.errors import BadRequest
from app.http.bodies import read_body, read_model
from app.http.dependencies import get_services
from app.http.responses import format_instant, json_response
from app.http.schema_types import KEY_PATTERN
from app.registry.webhook_secrets import SecretRow
from app.touchpoint import Message

SDK: Final = "sdk"
_COMMON_OPTIONS: Final = {
    "url": "The webhook's URL as the tool calls it. Set it if the tool signs the URL and a proxy changes it.",
    "text": "Where free text of customers is stored: private (default; rules cannot read it), property, or none.",
    "estimate": "on: estimate the sentiment of texts as properties.estimate; needs segue[estimates]. Default: off.",
}
_SDK_SAMPLE: Final = (
    '{"type":"track","event":"Order Completed","userId":"user-1","properties":{"total":42.5},"messageId":"m-1"}'
)
_TOKEN_BYTES: Final = 24
_DROPPED_HEADERS: Final = ("authorization", "cookie", "host", "content-length")

SourceKey = Annotated[
    str, Path(description="Key of a source whose kind is a connector.", pattern=KEY_PATTERN, max_length=64)
]


def add_connector_routes(app: FastAPI) -> None:
    secret = "/v1/sources/{key}/secrets"
    sample: dict[str, Any] = {
        "requestBody": {
            "required": False,
            "description": "A body as the tool would send it. Without a body the sample of the connector is used.",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    }
    for path, method, endpoint, model, status, extra, failures, summary in (
        (
            "/v1/connectors",
            "GET",
            list_connectors,
            ConnectorsOut,
            200,
            None,
            (),
            "List connectors",
        ),
        (secret, "GET", list_secrets, SecretsOut, 200, None, (404,), "List webhook secrets"),
        (
            secret,
            "POST",
            add_secret,
            SecretOut,
            201,
            describe_json_body(SecretIn, required=False),
            (400, 404),
            "Add or rotate a webhook secret",
        ),
        (secret + "/{id}", "DELETE", drop_secret, None, 204, None, (404,), "Delete a webhook secret"),
        (
            "/v1/sources/{key}/test",
            "POST",
            dry_run_delivery,
            DeliveryDryRunOut,
            200,
            sample,
            (400, 404, 503),
            "Test a connector without storing anything",
        ),
    ):
        add_secret_route(
            app,
            method,
            path,
            endpoint,
            tag="webhooks",
            summary=summary,
            model=model,
            status=status,
            failures=failures,
            extra=extra,
        )


def check_source_options(kind: str, options: dict[str, str]) -> None:
    """Raise :class:`BadRequest` if the kind, one of its options or the value of an option is unknown."""
    connector = CONNECTORS.get(kind)
    if connector is None and kind != SDK:
        raise BadRequest(f"Unknown kind {kind}; GET /v1/connectors lists all kinds.", path="/kind")
    connector_options = {} if connector is None else _COMMON_OPTIONS | dict(connector.options)
    for name in options:
        if name not in connector_options:
            option_names = ", ".join(connector_options) or "none"
            raise BadRequest(
                f"A source of kind {kind} has no option {name}; its options: {option_names}.", path=f"/options/{name}"
            )
    if options.get("text", "private") not in TEXT_POLICIES:
        raise BadRequest(f"`text` must be one of {', '.join(TEXT_POLICIES)}.", path="/options/text")
    if options.get("estimate", "off") not in (ESTIMATED, "off"):
        raise BadRequest("`estimate` must be on or off.", path="/options/estimate")
    if options.get("estimate") == ESTIMATED and not sentiment.is_installed():
        raise BadRequest("Estimates need the extra segue[estimates] to be installed.", path="/options/estimate")


async def list_connectors(request: Request) -> Response:
    """Return the kinds of sources and how to set up each."""
    del request
    sdk = {
        "key": SDK,
        "name": "SDKs and HTTP",
        "family": "any",
        "secret": "",
        "makes_token": False,
        "steps": ["Use the source's write key in any Segment-compatible SDK, in segue.js, or over HTTP."],
        "options": {},
        "sample": _SDK_SAMPLE,
        "sample_headers": {"content-type": "application/json"},
    }
    return json_response({"items": [sdk, *(_render_connector(connector) for connector in CONNECTORS.values())]})


async def list_secrets(request: Request, key: SourceKey) -> Response:
    """Return when each secret was added and when it expires, but not its value."""
    services = get_services(request)
    find_webhook_source(services, key)
    return json_response(
        {"items": [_render_secret(secret) for secret in await services.registry.webhook_secrets.list_for_source(key)]}
    )


async def add_secret(request: Request, key: SourceKey) -> Response:
    """Add a secret. Every process uses it within a second.

    Webhooks signed with an older secret are accepted for another `overlap_seconds`.
    """
    services = get_services(request)
    _, connector = find_webhook_source(services, key)
    body = await read_model(request, SecretIn, may_be_empty=True)
    secret, token = body.secret, None
    if not secret:
        if connector.scheme.secret_label:
            raise BadRequest(f"Enter a secret: {connector.scheme.secret_label}.", path="/secret")
        secret = token = "wh_" + secrets.token_urlsafe(_TOKEN_BYTES)
    try:
        value = connector.scheme.normalise_secret(secret)
        if not value:
            raise ValueError("an empty secret would accept any signature")
    except ValueError as error:
        raise BadRequest(f"/secret: {error}", path="/secret") from None
    row = await services.registry.webhook_secrets.add(key, value, body.overlap_seconds, services.clock.now())
    return json_response(_render_secret(row) | ({"token": token} if token else {}), 201)


async def drop_secret(
    request: Request,
    key: SourceKey,
    id: Annotated[int, Path(ge=1, lt=1 << 63, description="`id` from the list of secrets.")],
) -> Response:
    """Delete a secret. Every process stops accepting it within a second."""
    await get_services(request).registry.webhook_secrets.delete(key, id)
    return Response(None, 204)


async def dry_run_delivery(request: Request, key: SourceKey) -> Response:
    """Sign, verify, parse, store and project the body or the connector's sample, then roll everything back."""
    services = get_services(request)
    webhook_source, connector = find_webhook_source(services, key)
    now = services.clock.now()
    delivery = await _read_sample(
        request, connector, WebhookRequest(url=str(request.url), received_at=now, options=webhook_source.options)
    )
    is_verified = _is_sample_verified(connector, delivery, webhook_source.list_secrets_at(now))
    parsed = parse(connector, delivery)
    dry_run = await services.ingest.dry_run(build_submission(parsed, webhook_source, delivery))
    return json_response(
        {
            "signature": "verified" if is_verified else "not_checked",
            "messages": [_render_message(message) for message in dry_run.messages],
            "accepted": dry_run.receipt.accepted,
            "duplicate": dry_run.receipt.duplicate,
            "rejections": [render_rejection(rejection) for rejection in dry_run.receipt.rejections],
            "ignored": parsed.ignored,
            "erasures": [f"{kind}:{value}" for kind, value in parsed.envelope.erasures],
        }
    )


async def _read_sample(request: Request, connector: Connector, delivery: WebhookRequest) -> WebhookRequest:
    body = await read_body(request, get_services(request).settings.limits.webhook_bytes_max)
    if not body:
        return msgspec.structs.replace(delivery, body=connector.sample, headers=connector.sample_headers)
    headers = {name: value for name, value in request.headers.items() if name not in _DROPPED_HEADERS}
    return msgspec.structs.replace(delivery, body=body, headers=headers)


def _is_sample_verified(connector: Connector, delivery: WebhookRequest, secret_values: list[str]) -> bool:
    """Return whether the newest secret signs and verifies the sample.

    False for connectors with a token, because Segue stores only the hash of the token, which cannot sign.
    """
    if connector.scheme.sign is None or not connector.scheme.secret_label or not secret_values:
        return False
    try:
        connector.scheme.verify(connector.scheme.sign(delivery, secret_values[0]), secret_values[0])
    except SignatureRefused as error:
        raise BadRequest(f"The sample cannot be verified: {error.detail}.") from None
    return True


def _render_connector(connector: Connector) -> dict[str, Any]:
    return {
        "key": connector.key,
        "name": connector.name,
        "family": connector.family,
        "secret": connector.scheme.secret_label,
        "makes_token": connector.scheme.needs_secret and not connector.scheme.secret_label,
        "steps": list(connector.steps),
        "options": _COMMON_OPTIONS | dict(connector.options),
        "sample": connector.sample.decode(),
        "sample_headers": dict(connector.sample_headers),
    }


def _render_secret(row: SecretRow) -> dict[str, Any]:
    return {"id": row.id, "created_at": format_instant(row.created_at), "expires_at": format_instant(row.expires_at)}


def _render_message(message: Message) -> dict[str, Any]:
    return {
        "type": message.type,
        "message_id": message.message_id,
        "name": message.name,
        "channel": message.channel,
        "occurred_at": format_instant(message.occurred_at),
        "identities": [str(identity) for identity in message.identities],
        "previous_id": message.previous_id,
        "properties": msgspec.Raw(message.properties),
        "context": msgspec.Raw(message.context),
        "traits": None if message.traits is None else msgspec.Raw(message.traits),
    }
