"""Fixture of the Hotjar connector: a token in the URL."""

from __future__ import annotations

from typing import Any

from app.connectors.tools.hotjar import CONNECTOR
from tests.support.tool_fixture import Case, Fixture, SignedWith, Touchpoint, json_body

_AT = "2026-05-04T10:00:00Z"
_RECORDING = "https://insights.hotjar.com/r?site=345&recording=1"
_USER = "hotjar_user:3f0e7c1a"


def sign(body: bytes, secret: str, now: int, url: str) -> SignedWith:
    del body, now, url
    return ({}, {"token": secret}) if secret else ({}, {})


def _event(kind: str = "survey_response", **data: object) -> dict[str, Any]:
    members = {"id": 987, "hotjar_user_id": "3f0e7c1a", "created_timestamp": 1777888800, **data}
    return {"event": kind, "version": 1, "data": members}


def _question(id: int, kind: str, *answers: object) -> dict[str, object]:
    return {"question_id": id, "question_type": kind, "answers": [{"answer": answer} for answer in answers]}


FIXTURE = Fixture(
    kind="hotjar",
    secret="",
    sign=sign,
    sample=Case(
        "an NPS answer with a comment and a recording",
        CONNECTOR.sample,
        "email:user@example.com",
        (
            Touchpoint(
                "nps.submitted", "survey", _AT, {"rating": 9, "scale": 10, "group": "promoter", "question": "1"}
            ),
            Touchpoint(
                "survey.completed",
                "survey",
                _AT,
                {
                    "survey": "Checkout",
                    "survey_id": 12,
                    "device": "desktop",
                    "link": "https://example.com/thanks",
                    "recording_url": _RECORDING,
                    "answers": {"1": 9},
                    "rating": 9,
                    "scale": 10,
                },
                {"attachments": [{"type": "recording", "url": _RECORDING}], "private": {"2": "The map was slow."}},
            ),
        ),
        identities=("email:user@example.com", _USER),
    ),
    several=Case(
        "a partial response, a recording and a test message",
        json_body(
            [
                _event(id=1, is_complete=False),
                _event("recording", id=2, recording_url=_RECORDING, duration=61, created_timestamp=1777888801),
                {"event": "test_message", "version": 1, "data": {}},
            ]
        ),
        _USER,
        (
            Touchpoint("survey.answered", "survey", _AT, {"is_complete": False}),
            Touchpoint(
                "session.recorded",
                "ux",
                "2026-05-04T10:00:01Z",
                {"recording_url": _RECORDING, "duration": 61},
                {"attachments": [{"type": "recording", "url": _RECORDING}]},
            ),
        ),
        ignored=1,
    ),
    unknown=Case(
        "an unknown event type", json_body(_event("teleported")), _USER, (Touchpoint("hotjar.teleported", "ux", _AT),)
    ),
    non_ascii=Case(
        "an answer in Czech",
        json_body(_event(questions=[_question(1, "long-text", "Příliš žluťoučký")], survey_name="Košík")),
        _USER,
        (Touchpoint("survey.completed", "survey", _AT, {"survey": "Košík"}, {"private": {"1": "Příliš žluťoučký"}}),),
    ),
    times=(
        Case(
            "seconds, milliseconds, text and an invalid time",
            json_body(
                [
                    _event(id=1, created_timestamp=1777888800.25),
                    _event(id=2, created_timestamp=1777888801123),
                    _event(id=3, created_timestamp=None, created_time="2026-05-04T12:00:02.5+02:00"),
                    _event(id=4, created_timestamp="just now"),
                ]
            ),
            _USER,
            (
                Touchpoint("survey.completed", "survey", "2026-05-04T10:00:00.25Z"),
                Touchpoint("survey.completed", "survey", "2026-05-04T10:00:01.123Z"),
                Touchpoint("survey.completed", "survey", "2026-05-04T10:00:02.5Z"),
                Touchpoint("survey.completed", "survey", "2026-05-05T12:00:00Z"),
            ),
        ),
    ),
    malformed=Case(
        "three invalid events",
        json_body([{"event": "recording"}, _event(questions=[{"answers": []}]), 7]),
        rejected=3,
    ),
    others=(
        Case(
            "a partial response and the complete one",
            json_body(
                [
                    _event(id=1, is_complete=False, questions=[_question(1, "net-promoter-score", "9")]),
                    _event(
                        id=1,
                        is_complete=True,
                        created_timestamp=1777888801,
                        questions=[_question(2, "rating-scale-5", "4")],
                    ),
                ]
            ),
            _USER,
            (
                Touchpoint("nps.submitted", "survey", _AT, {"rating": 9}),
                Touchpoint("survey.answered", "survey", _AT, {"answers": {"1": 9}}),
                Touchpoint("survey.completed", "survey", "2026-05-04T10:00:01Z", {"answers": {"2": 4}}),
            ),
        ),
        Case(
            "free text of several question types",
            json_body(
                _event(
                    questions=[
                        _question(1, "email", "second@example.com"),
                        _question(2, "textarea", "It is broken"),
                        _question(3, "open-question", "4915112345678"),
                        _question(4, "teleport", "7"),
                        _question(5, "radio-button", "Yes"),
                    ]
                )
            ),
            _USER,
            (
                Touchpoint(
                    "survey.completed",
                    "survey",
                    _AT,
                    {"answers": {"5": "Yes"}},
                    {
                        "private": {
                            "1": "second@example.com",
                            "2": "It is broken",
                            "3": "4915112345678",
                            "4": "7",
                        }
                    },
                ),
            ),
        ),
        Case(
            "ratings, choices, comments and a list of user attributes",
            json_body(
                _event(
                    user_attributes=[
                        {"name": "user_id", "value": "user-1"},
                        {"name": "phone", "value": "+4915112345678"},
                    ],
                    questions=[
                        _question(1, "rating-scale-7", "5"),
                        _question(2, "single-close-ended", "Price"),
                        _question(3, "multiple-close-ended", "Mail", "Chat"),
                        {"id": 4, "type": "short-text", "answer": "Hm", "comment": "and more"},
                        _question(5, "long-text"),
                    ],
                )
            ),
            "user_id:user-1",
            (
                Touchpoint(
                    "survey.completed",
                    "survey",
                    _AT,
                    {"rating": 5, "scale": 7, "answers": {"1": 5, "2": "Price", "3": ["Mail", "Chat"]}},
                    {"private": {"4": "Hm", "4.comment": "and more"}},
                ),
            ),
            identities=("phone:+4915112345678", _USER),
        ),
        Case(
            "a feedback response of an old account",
            json_body(_event("feedback_response", emotion=2, message="Where is it?")),
            _USER,
            (
                Touchpoint(
                    "hotjar.feedback_response",
                    "ux",
                    _AT,
                    {"rating": 2, "scale": 5},
                    {"private": {"message": "Where is it?"}},
                ),
            ),
        ),
        Case(
            "a Contentsquare replay without an id",
            json_body(_event("replay", id=None, replay_url=_RECORDING)),
            _USER,
            (Touchpoint("session.recorded", "ux", _AT, {"recording_url": _RECORDING}),),
        ),
    ),
)
