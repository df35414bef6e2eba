"""Routes of Mixpanel's and PostHog's SDKs and of Google Analytics 4's Measurement Protocol.

A Segue write key takes the place of the vendor's key. Refused events go to quarantine, and the response still reports
success: on a failure these clients would resend or drop the accepted events of the same body too.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from app.api.collect import authenticate, authenticate_and_submit, submit_envelope
from app.api.schemas import (
    FlagsOut,
    MeasurementIn,
    MixpanelEventIn,
    MixpanelImportErrorOut,
    MixpanelImportOut,
    MixpanelOut,
    PosthogBatchIn,
    PosthogOut,
    PosthogResultsOut,
    RemoteConfigOut,
    ValidationOut,
    describe_json_body,
    describe_problems,
)
from app.api.vendor_routes import (
    COLLECT_STATUSES,
    add_error_member,
    add_vendor_route,
    describe_json_400,
    is_flag_set,
    list_slash_variants,
    pixel_response,
    read_payload,
)
from app.errors import BadRequest, Forbidden, NotFound, OriginNotAllowed, Unauthorized
from app.formats import ga4, mixpanel, posthog
from app.formats.encodings import Payload
from app.formats.segment import normalise_in_steps
from app.http.bodies import read_body
from app.http.body_turns import parse_in_turn
from app.http.dependencies import get_services
from app.http.direct_route import Handler
from app.http.responses import JSON, encode_json, json_response
from app.http.write_keys import authenticate_write_key
from app.touchpoint import SourceView

_MIXPANEL_PATHS: Final = {
    "/track": ("Record events", "Old PostHog SDKs send events here too."),
    "/engage": ("Update profiles", "Old PostHog SDKs send profiles here too."),
    "/groups": ("Update group profiles", "Group profiles do not identify a person, so they go to quarantine."),
}
_MIXPANEL_RESPONSE: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The text `1`, JSON with `verbose=1`, or a transparent pixel with `img=1`.",
        "content": {
            "text/plain": {"schema": {"type": "string", "const": "1"}},
            "image/gif": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
_POSTHOG_PATHS: Final = ("/e", "/capture", "/batch", "/i/v0/e")
_POSTHOG_V1_PATH: Final = "/i/v1/analytics/events"
_FLAG_PATHS: Final = ("/flags", "/decide")
_MEASUREMENT_PATHS: Final = ("/mp/collect", "/debug/mp/collect")

OPEN_PATHS: Final = list_slash_variants(
    *_MIXPANEL_PATHS, *_POSTHOG_PATHS, _POSTHOG_V1_PATH, *_FLAG_PATHS, *_MEASUREMENT_PATHS
)
OPEN_PREFIXES: Final = ("/array/",)

_FALSE: Final = ("0", "false")
_SDK_CHARS_MAX: Final = 100
_POSTHOG_ACCEPTED: Final = b'{"status":1}'
_NO_FLAGS: Final = {"flags": {}, "featureFlags": {}, "featureFlagPayloads": {}, "errorsWhileComputingFlags": False}
_CAPTURE_CONFIG: Final = {"supportedCompression": ["gzip", "gzip-js"], "analytics": {"endpoint": "/e/"}}
_DISABLED_FEATURES: Final = dict.fromkeys(
    (
        *("hasFeatureFlags", "sessionRecording", "surveys", "heatmaps", "captureDeadClicks", "capturePerformance"),
        *("autocaptureExceptions", "autocapture_opt_out", "productTours", "conversations", "logs"),
    ),
    False,
)


def add_vendor_sdk_routes(app: FastAPI) -> None:
    for path, (summary, description) in _MIXPANEL_PATHS.items():
        name = path[1:]
        add_vendor_route(
            app,
            path,
            _create_mixpanel_handler(name),
            tag="mixpanel",
            operation_id=f"mixpanel_{name}",
            summary=summary,
            description=description,
            response_model=MixpanelOut,
            responses={**_MIXPANEL_RESPONSE, **describe_problems(*COLLECT_STATUSES)},
            openapi_extra=describe_json_body(MixpanelEventIn),
        )
        add_vendor_route(app, path, _create_mixpanel_handler(name), tag="mixpanel", method="GET", documented=False)
    add_vendor_route(
        app,
        "/import",
        import_mixpanel_events,
        tag="mixpanel",
        operation_id="mixpanel_import",
        summary="Import historical events",
        description="If events are refused, the status is 400 and the body lists them. The others are stored.",
        response_model=MixpanelImportOut | MixpanelOut,
        responses={**describe_problems(*COLLECT_STATUSES), **describe_json_400(MixpanelImportErrorOut)},
        openapi_extra=describe_json_body(MixpanelEventIn),
    )
    for path in _POSTHOG_PATHS:
        add_vendor_route(
            app,
            path,
            collect_posthog_events,
            tag="posthog",
            operation_id=f"posthog{path.replace('/', '_')}",
            summary="Record events",
            response_model=PosthogOut,
            openapi_extra=describe_json_body(PosthogBatchIn),
        )
    add_vendor_route(
        app,
        _POSTHOG_V1_PATH,
        collect_posthog_events_v1,
        tag="posthog",
        operation_id="posthog_i_v1_analytics_events",
        summary="Record events with a result for each",
        response_model=PosthogResultsOut,
        openapi_extra=describe_json_body(PosthogBatchIn),
    )
    for path in _FLAG_PATHS:
        add_vendor_route(
            app,
            path,
            get_flags,
            tag="posthog",
            keyless=True,
            failures=(400, 408, 429),
            operation_id=f"posthog_{path[1:]}",
            summary="Get feature flags",
            description="Segue has no feature flags: the response is always empty.",
            response_model=FlagsOut,
            openapi_extra={"security": []},
        )
    _add_remote_config_routes(app)
    _add_measurement_routes(app)


def _add_measurement_routes(app: FastAPI) -> None:
    add_vendor_route(
        app,
        "/mp/collect",
        collect_measurement,
        tag="google-analytics",
        operation_id="ga4_collect",
        summary="Record events",
        description="A write key takes the place of `api_secret`.",
        status_code=204,
        openapi_extra=_describe_measurement(),
    )
    add_vendor_route(
        app,
        "/debug/mp/collect",
        validate_measurement,
        tag="google-analytics",
        operation_id="ga4_debug_collect",
        summary="Validate events without storing them",
        response_model=ValidationOut,
        failures=(403, 408, 429, 503),
        openapi_extra=_describe_measurement(),
    )


def _add_remote_config_routes(app: FastAPI) -> None:
    token = {
        "name": "token",
        "in": "path",
        "required": True,
        "description": "A write key.",
        "schema": {"type": "string", "title": "Token"},
        "example": "wk_demo",
    }
    for path, handler, documented in (
        ("/array/{token}/config", get_remote_config, True),
        ("/array/{token}/config.js", get_remote_config_script, False),
    ):
        add_vendor_route(
            app,
            path,
            handler,
            tag="posthog",
            method="GET",
            documented=documented,
            keyless=True,
            failures=(404, 429, 503),
            operation_id="posthog_remote_config" if documented else None,
            summary="Get the settings of posthog-js",
            response_model=RemoteConfigOut,
            openapi_extra={"security": [], "parameters": [token]},
        )


def _describe_measurement() -> dict[str, Any]:
    secret = {
        "name": "api_secret",
        "in": "query",
        "required": True,
        "description": "A write key.",
        "schema": {"type": "string", "title": "Api secret"},
        "example": "wk_demo",
    }
    return {**describe_json_body(MeasurementIn), "parameters": [secret]}


def _create_mixpanel_handler(route: str) -> Handler:
    async def collect(request: Request) -> Response:
        with add_error_member():
            payload = await read_payload(request)
            services = get_services(request)
            limits = services.settings.limits
            size = len(payload.body)
            if route != "groups" and await parse_in_turn(
                request, posthog.is_posthog_in_steps(payload.body, limits), size
            ):
                return await _submit_posthog_events(request, payload)
            now = services.clock.now()
            query = request.query_params
            with_address = query.get("ip") != "0"
            steps = mixpanel.read_in_steps(payload.body, route, now, limits, query.get("_"), with_address=with_address)
            await authenticate_and_submit(request, await parse_in_turn(request, steps, size), size, now)
        if is_flag_set(request, payload, "img"):
            return pixel_response()
        if is_flag_set(request, payload, "verbose"):
            return json_response({"status": 1, "error": None})
        return PlainTextResponse("1")

    return collect


async def import_mixpanel_events(request: Request) -> Response:
    """Import events. With ``verbose=1`` the response is that of ``/track``; otherwise it lists the refused events."""
    with add_error_member():
        payload = await read_payload(request)
        services = get_services(request)
        now = services.clock.now()
        steps = mixpanel.read_in_steps(payload.body, "import", now, services.settings.limits)
        envelope = await parse_in_turn(request, steps, len(payload.body))
        # With a service account, the events do not contain a token; the project id is the write key.
        envelope.write_key = envelope.write_key or request.query_params.get("project_id")
        receipt = await authenticate_and_submit(request, envelope, len(payload.body), now)
    if is_flag_set(request, payload, "verbose"):
        return json_response({"status": 1, "error": None})
    failed = mixpanel.describe_failed_records(receipt.rejections)
    imported = {"num_records_imported": mixpanel.count_events(envelope) - len(failed)}
    if not failed or request.query_params.get("strict") in _FALSE:
        return json_response({"code": 200, **imported, "status": "OK"})
    refused = {"code": 400, "error": "some data points in the request failed validation", "status": "Bad Request"}
    return json_response({**refused, **imported, "failed_records": failed}, 400)


async def collect_posthog_events(request: Request) -> Response:
    return await _submit_posthog_events(request, await read_payload(request))


async def _submit_posthog_events(request: Request, payload: Payload) -> Response:
    services = get_services(request)
    now = services.clock.now()
    sent_at_parameter = request.query_params.get("_")
    steps = posthog.read_in_steps(payload.body, now, services.settings.limits, sent_at_parameter)
    envelope = await parse_in_turn(request, steps, len(payload.body))
    await authenticate_and_submit(request, envelope, len(payload.body), now)
    return Response(_POSTHOG_ACCEPTED, media_type=JSON)


async def collect_posthog_events_v1(request: Request) -> Response:
    """Collect events of PostHog's protocol version 1, which has a result for each event."""
    payload = await read_payload(request)
    services = get_services(request)
    now = services.clock.now()
    headers = request.headers
    steps = posthog.read_in_steps(
        payload.body,
        now,
        services.settings.limits,
        sdk=headers.get("posthog-sdk-info", "")[:_SDK_CHARS_MAX],
        sent_at_header=headers.get("posthog-request-timestamp"),
    )
    envelope = await parse_in_turn(request, steps, len(payload.body))
    receipt = await authenticate_and_submit(request, envelope, len(payload.body), now)
    return json_response({"results": posthog.describe_results(envelope, receipt.rejections)})


async def get_flags(request: Request) -> Response:
    await read_body(request, get_services(request).settings.limits.body_bytes_max)
    return json_response(_NO_FLAGS)


async def get_remote_config(request: Request) -> Response:
    return json_response(await _build_remote_config(request))


async def get_remote_config_script(request: Request) -> Response:
    """Return the settings as JavaScript. The key in the script is one that Segue generated, so it needs no escaping."""
    config = await _build_remote_config(request)
    holder = b"window._POSTHOG_REMOTE_CONFIG"
    site = encode_json({"config": config, "siteApps": []})
    script = b"(%b=%b||{})[%b]=%b;" % (holder, holder, encode_json(config["token"]), site)
    return Response(script, headers={"X-Content-Type-Options": "nosniff"}, media_type="text/javascript")


async def _build_remote_config(request: Request) -> dict[str, Any]:
    token = request.path_params["token"]
    if await get_services(request).registry.access.find_source(token) is None:
        raise NotFound("The write key does not exist.")
    return {"token": token, **_CAPTURE_CONFIG, **_DISABLED_FEATURES, "siteApps": []}


async def collect_measurement(request: Request) -> Response:
    services = get_services(request)
    secret = request.query_params.get("api_secret")
    source = (await authenticate(request, secret)).source
    payload = await read_payload(request, is_known=True)
    now = services.clock.now()
    steps = ga4.read_in_steps(payload.body, secret, now, services.settings.limits)
    envelope = await parse_in_turn(request, steps, len(payload.body))
    await submit_envelope(request, source, envelope, len(payload.body), now)
    return Response(None, 204)


async def validate_measurement(request: Request) -> Response:
    services = get_services(request)
    secret = request.query_params.get("api_secret", "")
    source, messages = SourceView("debug"), []
    try:
        source = (await authenticate_write_key(request, services, secret))[1].source
    except OriginNotAllowed:
        raise
    except (Forbidden, Unauthorized):
        messages.append(_build_validation_message("api_secret", "This is not a valid write key."))
    try:
        payload = await read_payload(request)
        now = services.clock.now()
        steps = ga4.read_in_steps(payload.body, secret, now, services.settings.limits)
        envelope = await parse_in_turn(request, steps, len(payload.body))
    except BadRequest as error:
        return json_response({"validationMessages": [*messages, _build_validation_message("", error.message)]})
    events = ga4.count_events(envelope)
    parsed = await parse_in_turn(
        request, normalise_in_steps(envelope, source, now, services.settings), len(payload.body)
    )
    messages += [ga4.build_validation_message(rejection, events) for rejection in parsed.rejections]
    return json_response({"validationMessages": messages})


def _build_validation_message(path: str, description: str) -> dict[str, Any]:
    return {"fieldPath": path, "description": description, "validationCode": "VALUE_INVALID"}
