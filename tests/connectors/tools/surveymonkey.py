"""Fixture of the SurveyMonkey connector: HMAC-SHA1 in base64, keyed by ``client_id&client_secret``.

The content type is not application/json.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from typing import Any

from app.connectors.tools.surveymonkey import CONNECTOR
from tests.support.tool_fixture import Case, Fixture, SignedWith, Touchpoint, json_body

_AT = "2026-05-04T10:00:00.182613Z"
_WHO = "surveymonkey_respondent:1001"
_TYPE = {"content-type": "application/vnd.surveymonkey.response.v1+json"}


def sign(body: bytes, secret: str, now: int, url: str) -> SignedWith:
    del now, url
    mac = hmac.new(secret.encode(), body, "sha1").digest()
    return {"Sm-Apikey": secret.partition("&")[0], "Sm-Signature": b64encode(mac).decode()}, {}


def _event(kind: str, n: int = 0, **more: object) -> dict[str, Any]:
    return {
        "name": "Responses",
        "event_type": kind,
        "event_id": str(99 + n),
        "object_type": "response",
        "object_id": "123456",
        "event_datetime": "2026-05-04T10:00:00.182613+00:00",
        "resources": {"respondent_id": "1001", "collector_id": "2", "survey_id": "123", "user_id": "7"},
        **more,
    }


FIXTURE = Fixture(
    kind="surveymonkey",
    secret="client-1&s3cr3t",
    sign=sign,
    sample=Case(
        "a complete response",
        CONNECTOR.sample,
        _WHO,
        (
            Touchpoint(
                "survey.completed",
                "survey",
                _AT,
                {"survey_id": "123", "collector_id": "2", "response_id": "123456", "webhook": "Responses"},
            ),
        ),
        identities=(_WHO,),
        headers=_TYPE,
    ),
    several=Case(
        "an updated response",
        json_body(_event("response_updated", 1)),
        _WHO,
        (Touchpoint("survey.answered", "survey", _AT),),
        headers=_TYPE,
    ),
    unknown=Case(
        "an unknown event type",
        json_body(_event("response_teleported", 2)),
        _WHO,
        (Touchpoint("surveymonkey.response_teleported", "survey", _AT),),
        headers=_TYPE,
    ),
    non_ascii=Case(
        "a Greek webhook name and a custom variable",
        json_body(_event("response_completed", 3, name="Απαντήσεις", custom_variables={"user_id": "χρήστης/7"})),
        "user_id:χρήστης%2F7",
        (Touchpoint("survey.completed", "survey", _AT, {"webhook": "Απαντήσεις"}),),
        identities=("user_id:χρήστης/7", _WHO),
        headers=_TYPE,
    ),
    times=(
        Case(
            "an offset",
            json_body(_event("response_completed", event_datetime="2026-05-04T12:00:00.5+02:00")),
            _WHO,
            (Touchpoint("survey.completed", "survey", "2026-05-04T10:00:00.5Z"),),
        ),
        Case(
            "an invalid time",
            json_body(_event("response_completed", event_datetime="soon")),
            _WHO,
            (Touchpoint("survey.completed", "survey", "2026-05-05T12:00:00Z"),),
        ),
    ),
    malformed=Case("two invalid events", json_body([{"event_id": "1"}, 7]), rejected=2),
    others=(
        Case(
            "survey, collector and app events, which concern no person",
            json_body([_event("survey_updated"), _event("collector_created"), _event("app_installed")]),
            ignored=3,
        ),
        Case(
            "a response without a respondent",
            json_body(_event("response_disqualified", resources={"survey_id": "123"}, event_id=None)),
            "surveymonkey_respondent:123456",
            (Touchpoint("surveymonkey.response_disqualified", "survey", _AT),),
        ),
        Case("a response without any id", json_body({"event_type": "response_deleted"}), rejected=1),
    ),
)
