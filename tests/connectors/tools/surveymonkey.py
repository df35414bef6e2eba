"""SurveyMonkey: HMAC-SHA1 in base64, keyed by ``client_id&client_secret``, over bodies that do not call themselves
JSON."""

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
        "a response is complete",
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
        "a page of the same response",
        json_body(_event("response_updated", 1)),
        _WHO,
        (Touchpoint("survey.answered", "survey", _AT),),
        headers=_TYPE,
    ),
    unknown=Case(
        "an event of next year",
        json_body(_event("response_teleported", 2)),
        _WHO,
        (Touchpoint("surveymonkey.response_teleported", "survey", _AT),),
        headers=_TYPE,
    ),
    non_ascii=Case(
        "a webhook named in Greek, and a custom variable",
        json_body(_event("response_completed", 3, name="Απαντήσεις", custom_variables={"user_id": "χρήστης/7"})),
        "user_id:χρήστης%2F7",
        (Touchpoint("survey.completed", "survey", _AT, {"webhook": "Απαντήσεις"}),),
        identities=("user_id:χρήστης/7", _WHO),
        headers=_TYPE,
    ),
    times=(
        Case(
            "with an offset",
            json_body(_event("response_completed", event_datetime="2026-05-04T12:00:00.5+02:00")),
            _WHO,
            (Touchpoint("survey.completed", "survey", "2026-05-04T10:00:00.5Z"),),
        ),
        Case(
            "nonsense",
            json_body(_event("response_completed", event_datetime="soon")),
            _WHO,
            (Touchpoint("survey.completed", "survey", "2026-05-05T12:00:00Z"),),
        ),
    ),
    malformed=Case("no type, and no object", json_body([{"event_id": "1"}, 7]), rejected=2),
    others=(
        Case(
            "what tells of surveys and collectors is of nobody",
            json_body([_event("survey_updated"), _event("collector_created"), _event("app_installed")]),
            ignored=3,
        ),
        Case(
            "a response without a respondent stands for one",
            json_body(_event("response_disqualified", resources={"survey_id": "123"}, event_id=None)),
            "surveymonkey_respondent:123456",
            (Touchpoint("surveymonkey.response_disqualified", "survey", _AT),),
        ),
        Case("a response of nobody at all", json_body({"event_type": "response_deleted"}), rejected=1),
    ),
)
