"""Fixture of the Gainsight PX connector: a token as the password of Basic auth."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from app.connectors.tools.gainsight import CONNECTOR
from tests.support.tool_fixture import Case, Fixture, SignedWith, Touchpoint, json_body

_AT = "2026-05-04T10:00:00Z"
_WHO = "user_id:user-1"
_USER = {"aptrinsicId": "apt-1", "identifyId": "user-1", "email": "user@example.com"}


def sign(body: bytes, secret: str, now: int, url: str) -> SignedWith:
    del body, now, url
    return ({"Authorization": f"Basic {b64encode(f'px:{secret}'.encode()).decode()}"} if secret else {}), {}


def _event(kind: str, n: int = 0, user: dict[str, Any] = _USER, **more: object) -> dict[str, Any]:
    members = {"eventId": f"ev-{n}", "eventType": kind, "date": 1777888800000 + n * 1000, **more}
    return {"user": user, "account": {"id": "acme"}, "event": members}


def _at(second: int) -> str:
    return f"2026-05-04T10:00:{second:02d}Z"


FIXTURE = Fixture(
    kind="gainsight",
    secret="",
    sign=sign,
    sample=Case(
        "a feature event",
        CONNECTOR.sample,
        _WHO,
        (Touchpoint("gainsight.feature_match", "app", _AT, {"feature_name": "Export", "account_id": "acme"}),),
        identities=("email:user@example.com", "gainsight_user:apt-1"),
    ),
    several=Case(
        "surveys, engagements and feedback",
        json_body(
            [
                _event("SURVEY", 0, score=3, comment="Slow"),
                _event("SURVEY", 1, surveyName="Exit"),
                _event("ENGAGEMENT", 2, contentType="slider"),
                _event("FEEDBACK", 3, feedback="Idea"),
            ]
        ),
        _WHO,
        (
            Touchpoint(
                "nps.submitted",
                "survey",
                _at(0),
                {"rating": 3, "scale": 10, "group": "detractor", "comment": None},
                {"private": {"body": "Slow"}},
            ),
            Touchpoint("survey.answered", "survey", _at(1), {"survey_name": "Exit"}),
            Touchpoint("gainsight.engagement", "app", _at(2), {"content_type": "slider"}),
            Touchpoint("gainsight.feedback", "survey", _at(3), {}, {"private": {"body": "Idea"}}),
        ),
    ),
    unknown=Case(
        "an unknown event type",
        json_body(_event("TELEPORTED")),
        _WHO,
        (Touchpoint("gainsight.teleported", "app", _AT),),
    ),
    non_ascii=Case(
        "a Greek feature name",
        json_body(_event("CUSTOM", featureName="Εξαγωγή")),
        _WHO,
        (Touchpoint("gainsight.custom", "app", _AT, {"feature_name": "Εξαγωγή"}),),
    ),
    times=(
        Case(
            "milliseconds, seconds, ISO 8601 and an invalid time",
            json_body(
                [
                    _event("CUSTOM", 0, date=1777888800123),
                    _event("CUSTOM", 1, date=1777888801),
                    _event("CUSTOM", 2, date="2026-05-04T12:00:02+02:00"),
                    _event("CUSTOM", 3, date="now"),
                ]
            ),
            _WHO,
            (
                Touchpoint("gainsight.custom", "app", "2026-05-04T10:00:00.123Z"),
                Touchpoint("gainsight.custom", "app", _at(1)),
                Touchpoint("gainsight.custom", "app", _at(2)),
                Touchpoint("gainsight.custom", "app", "2026-05-05T12:00:00Z"),
            ),
        ),
    ),
    malformed=Case("three invalid events", json_body([{"event": {}}, {"user": {}, "event": {}}, 7]), rejected=3),
    others=(
        Case(
            "an identify event",
            json_body(_event("IDENTIFY", user={**_USER, "firstName": "User", "role": "admin"})),
            _WHO,
            (Touchpoint("gainsight.identify", "app", _AT),),
            traits={"first_name": "User", "role": "admin"},
            accepted=2,
        ),
        Case(
            "an anonymous visitor, and an event without an id",
            json_body(_event("CUSTOM", user={"aptrinsicId": "apt-9"}, eventId=None)),
            "gainsight_user:apt-9",
            (Touchpoint("gainsight.custom", "app", _AT),),
        ),
    ),
)
