"""SurveyMonkey connector: webhooks of API v3 that report a response, without its answers.

Requests carry an HMAC-SHA1 of the body, keyed by ``client_id&client_secret`` of the app. The answers can be imported
from an export of the survey.

Source: https://api.surveymonkey.com/v3/docs#webhooks
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from app.connectors.adapter import Call, Connector, Erasure, Event, HandshakeReply, derive_event_id
from app.connectors.shared.email import find_custom_ids
from app.connectors.shared.surveys import ANSWERED, CHANNEL, COMPLETED
from app.connectors.signatures import hmac_scheme
from app.connectors.webhook_request import Unreadable, WebhookRequest
from app.formats.event_names import vendor_event_name

_NAMES: Final = {"response_completed": COMPLETED, "response_updated": ANSWERED}
_IMPERSONAL_PREFIXES: Final = ("collector_", "survey_", "app_")
"""Prefixes of event types about surveys, collectors and apps, which do not concern a person."""


def normalise_secret(secret: str) -> str:
    """Return the signature's key ``client_id&client_secret``; raise ValueError if a part is missing."""
    normalised = secret.strip()
    client_id, _, client_secret = normalised.partition("&")
    if not client_id or not client_secret:
        raise ValueError("Enter the app's client id and client secret, joined by an &: client_id&client_secret.")
    return normalised


def handshake(delivery: WebhookRequest, secrets: Sequence[str]) -> HandshakeReply | None:
    """Answer the HEAD request with which SurveyMonkey checks the URL."""
    del secrets
    return HandshakeReply() if delivery.method == "HEAD" else None


def map_event(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    kind = event.get("event_type")
    if not isinstance(kind, str) or not kind:
        raise Unreadable("an event needs the field `event_type`")
    if kind.startswith(_IMPERSONAL_PREFIXES):
        return
    resources = event.get("resources")
    members: dict[str, Any] = resources if isinstance(resources, dict) else {}
    response = event.get("object_id")
    respondent = members.get("respondent_id") or response
    if respondent in (None, ""):
        raise Unreadable("a response event needs the field `resources.respondent_id` or `object_id`")
    own_id = event.get("event_id")
    yield Call(
        id=f"{own_id}:{response}" if own_id not in (None, "") else derive_event_id(event),
        occurred_at=event.get("event_datetime"),
        event=_NAMES.get(kind) or vendor_event_name("surveymonkey", kind),
        channel=CHANNEL,
        ids={"surveymonkey_respondent": respondent},
        **find_custom_ids(event.get("custom_variables") or members.get("custom_variables")),
        properties={
            "survey_id": members.get("survey_id"),
            "collector_id": members.get("collector_id"),
            "response_id": response,
            "webhook": event.get("name"),
        },
    )


CONNECTOR: Final = Connector(
    key="surveymonkey",
    name="SurveyMonkey",
    family="survey",
    scheme=replace(
        hmac_scheme(
            "Client id and client secret of the app (client_id&client_secret)",
            signature_header="sm-signature",
            digest="sha1",
            encoding="base64",
        ),
        normalise_secret=normalise_secret,
    ),
    map_event=map_event,
    handshake=handshake,
    steps=(
        "In SurveyMonkey's developer portal create a private app, and copy its client id and client secret.",
        "Enter both as the secret of this source: client_id&client_secret.",
        "Create a webhook for response_completed with SurveyMonkey's API (POST /v3/webhooks) and the subscription_url "
        "{url}.",
        "The webhook does not contain answers. To load answers and respondents' addresses, import an export of the "
        "survey.",
    ),
    sample_headers={"content-type": "application/vnd.surveymonkey.response.v1+json"},
    sample=b'{"name":"Responses","filter_type":"survey","filter_id":"123","event_type":"response_completed",'
    b'"event_id":"99","object_type":"response","object_id":"123456",'
    b'"event_datetime":"2026-05-04T10:00:00.182613+00:00","resources":{"respondent_id":"1001","recipient_id":"0",'
    b'"collector_id":"2","survey_id":"123","user_id":"7"}}',
)
