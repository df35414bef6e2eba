"""Fixtures of the Typeform connector: HMAC-SHA256 in base64, with and without the option answers_identify."""

from __future__ import annotations

import hmac
from base64 import b64encode
from dataclasses import replace
from typing import Any

from app.connectors.tools.typeform import CONNECTOR
from tests.support.tool_fixture import Case, Fixture, SignedWith, Touchpoint, json_body

_AT = "2026-05-04T10:00:00Z"
_HEADERS = {"content-type": "application/json"}


def sign(body: bytes, secret: str, now: int, url: str) -> SignedWith:
    del now, url
    mac = b64encode(hmac.new(secret.encode(), body, "sha256").digest()).decode()
    return {"Typeform-Signature": f"sha256={mac}"}, {}


def _answer(ref: str, field_type: str, kind: str, value: object) -> dict[str, object]:
    return {"type": kind, kind: value, "field": {"id": f"id-{ref}", "ref": ref, "type": field_type}}


def _event(*answers: dict[str, object], kind: str = "form_response", **response: object) -> dict[str, Any]:
    return {
        "event_id": "ev-1",
        "event_type": kind,
        "form_response": {
            "form_id": "lT4Z3j",
            "token": "tok-1",
            "submitted_at": _AT,
            "hidden": {"user_id": "user-1"},
            "answers": list(answers),
            **response,
        },
    }


_ALL_ANSWER_TYPES = _event(
    _answer("plan", "multiple_choice", "choice", {"label": "Pro", "other": "or so"}),
    _answer("uses", "multiple_choice", "choices", {"labels": ["mail", "chat"]}),
    _answer("country", "dropdown", "text", "Norway"),
    _answer("again", "yes_no", "boolean", False),
    _answer("since", "date", "date", "2026-01-31"),
    _answer("mail", "email", "email", "second@example.com"),
    _answer("site", "website", "url", "https://example.com/me"),
    _answer("call", "phone_number", "phone_number", "+4915112345678"),
    _answer("effort", "opinion_scale", "number", 0),
    _answer("stars", "rating", "number", 4),
    _answer("name", "short_text", "text", "Somebody"),
    definition={
        "title": "All about you",
        "fields": [
            {"id": "id-effort", "type": "opinion_scale", "properties": {"steps": 11}},
            {"id": "id-stars", "type": "rating", "properties": {"steps": 5}},
        ],
    },
    calculated={"score": 7},
)

FIXTURE = Fixture(
    kind="typeform",
    secret="a secret of the form",
    sign=sign,
    sample=Case(
        "an NPS answer with a comment",
        CONNECTOR.sample,
        "user_id:user-1",
        (
            Touchpoint(
                "nps.submitted",
                "survey",
                _AT,
                {"rating": 9, "scale": 10, "group": "promoter", "question": "recommend"},
                {"private": None},
            ),
            Touchpoint(
                "survey.completed",
                "survey",
                _AT,
                {
                    "survey": "After your order",
                    "survey_id": "lT4Z3j",
                    "rating": 9,
                    "scale": 10,
                    "answers": {"recommend": 9},
                    "hidden": {"campaign": "spring"},
                    "why": None,
                },
                {"private": {"why": "It arrived on time."}},
            ),
        ),
    ),
    several=Case(
        "every answer type: choices are properties, free text is private, answers do not identify",
        json_body(_ALL_ANSWER_TYPES),
        "user_id:user-1",
        (
            Touchpoint(
                "survey.completed",
                "survey",
                _AT,
                {
                    "answers": {
                        "plan": "Pro",
                        "uses": ["mail", "chat"],
                        "country": "Norway",
                        "again": False,
                        "since": "2026-01-31",
                        "effort": 0,
                        "stars": 4,
                    },
                    "rating": 0,
                    "scale": 10,
                    "score": 7,
                },
                {
                    "private": {
                        "plan.other": "or so",
                        "mail": "second@example.com",
                        "site": "https://example.com/me",
                        "call": "+4915112345678",
                        "name": "Somebody",
                    }
                },
            ),
        ),
    ),
    unknown=Case(
        "an unknown event type",
        json_body(_event(kind="form_teleported")),
        "user_id:user-1",
        (Touchpoint("typeform.form_teleported", "survey", _AT),),
    ),
    non_ascii=Case(
        "an answer in Japanese",
        json_body(
            _event(_answer("city", "dropdown", "text", "東京"), _answer("why", "long_text", "text", "とても良い"))
        ),
        "user_id:user-1",
        (
            Touchpoint(
                "survey.completed", "survey", _AT, {"answers": {"city": "東京"}}, {"private": {"why": "とても良い"}}
            ),
        ),
    ),
    times=(
        Case(
            "an offset",
            json_body(_event(submitted_at="2026-05-04T12:00:00.1234567+02:00")),
            "user_id:user-1",
            (Touchpoint("survey.completed", "survey", "2026-05-04T10:00:00.123456Z"),),
        ),
        Case(
            "landed_at, and an invalid time",
            json_body(
                [
                    _event(submitted_at=None, landed_at="2026-05-04T09:00:00Z") | {"event_id": "a"},
                    _event(submitted_at="soon") | {"event_id": "b"},
                ]
            ),
            "user_id:user-1",
            (
                Touchpoint("survey.completed", "survey", "2026-05-04T09:00:00Z"),
                Touchpoint("survey.completed", "survey", "2026-05-05T12:00:00Z"),
            ),
        ),
    ),
    malformed=Case(
        "three invalid events",
        json_body([{"event_type": "form_response"}, _event({"type": "text", "text": "x"}), 7]),
        rejected=3,
    ),
    others=(
        Case(
            "a partial response without an identity",
            json_body(_event(kind="form_response_partial", hidden=None)),
            "typeform_response:tok-1",
            (Touchpoint("survey.answered", "survey", _AT),),
        ),
        Case(
            "hidden fields identify",
            json_body(_event(hidden={"email": "user@example.com", "anonymous_id": "visitor-1"})),
            "email:user@example.com",
            (Touchpoint("survey.completed", "survey", _AT, {"hidden": None}),),
            identities=("anonymous_id:visitor-1",),
        ),
        Case(
            "an opinion scale that starts at one, and an invalid NPS rating",
            json_body(
                _event(
                    _answer("ease", "opinion_scale", "number", 7),
                    _answer("nps", "nps", "number", 11),
                    definition={
                        "fields": [
                            {
                                "id": "id-ease",
                                "type": "opinion_scale",
                                "properties": {"steps": 7, "start_at_one": True},
                            }
                        ]
                    },
                )
            ),
            "user_id:user-1",
            (
                Touchpoint(
                    "survey.completed", "survey", _AT, {"rating": 7, "scale": 7, "answers": {"ease": 7, "nps": 11}}
                ),
            ),
        ),
    ),
)

IDENTIFYING = replace(FIXTURE, options={"answers_identify": "on"})
"""A source whose option makes survey answers identify the respondent. test_survey_and_social_tools.py uses it."""

WITHOUT_HIDDEN_FIELDS = _ALL_ANSWER_TYPES | {"form_response": {**_ALL_ANSWER_TYPES["form_response"], "hidden": None}}
