"""Fixtures of the generic survey connectors: a Bearer token, and signatures of the Standard Webhooks library."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from standardwebhooks import Webhook

from app.connectors.tools.survey import CONNECTORS
from tests.support.tool_fixture import Case, Fixture, SignedWith, Touchpoint, json_body

_AT = "2026-05-04T10:00:00Z"
_WHO = "user_id:user-1"


def with_token(body: bytes, secret: str, now: int, url: str) -> SignedWith:
    del body, now, url
    return ({"Authorization": f"Bearer {secret}"} if secret else {}), {}


def signed(body: bytes, secret: str, now: int, url: str) -> SignedWith:
    del url
    at = datetime.fromtimestamp(now // 1_000_000, UTC)
    signature = Webhook(secret).sign("msg_1", at, body.decode())
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(now // 1_000_000),
        "webhook-signature": signature,
    }
    return headers, {}


def _score(kind: str, id: str, **more: object) -> dict[str, Any]:
    return {"type": kind, "id": id, "user_id": "user-1", "timestamp": _AT, **more}


def _at(second: int) -> str:
    return f"2026-05-04T10:00:{second:02d}Z"


_BY_TOKEN = Fixture(
    kind="survey",
    secret="",
    sign=with_token,
    sample=Case(
        "an NPS",
        CONNECTORS[0].sample,
        _WHO,
        (
            Touchpoint(
                "nps.submitted",
                "survey",
                _AT,
                {"rating": 9, "scale": 10, "group": "promoter", "survey": "After delivery"},
                {"private": {"comment": "Fast, thank you."}},
            ),
        ),
        identities=("email:user@example.com",),
    ),
    several=Case(
        "every type, and every NPS group",
        json_body(
            [
                _score("nps", "0", rating=10, timestamp=_at(0)),
                _score("nps", "1", rating=9, timestamp=_at(1)),
                _score("nps", "2", rating=8, timestamp=_at(2)),
                _score("nps", "3", rating=7, timestamp=_at(3)),
                _score("NPS", "4", rating="6", timestamp=_at(4)),
                _score("nps", "5", rating=0, timestamp=_at(5)),
                _score("csat", "6", rating=2, timestamp=_at(6)),
                _score("ces", "7", rating=6.5, timestamp=_at(7)),
                _score("ces", "8", rating=3, scale=5, timestamp=_at(8)),
                _score("review", "9", rating=4, link="https://example.com/r/1", title="Good", timestamp=_at(9)),
                _score("survey", "10", answers={"again": True}, properties={"plan": "pro"}, timestamp=_at(10)),
            ]
        ),
        _WHO,
        (
            Touchpoint("nps.submitted", "survey", _at(0), {"rating": 10, "group": "promoter"}),
            Touchpoint("nps.submitted", "survey", _at(1), {"rating": 9, "group": "promoter"}),
            Touchpoint("nps.submitted", "survey", _at(2), {"rating": 8, "group": "passive"}),
            Touchpoint("nps.submitted", "survey", _at(3), {"rating": 7, "group": "passive"}),
            Touchpoint("nps.submitted", "survey", _at(4), {"rating": 6, "group": "detractor"}),
            Touchpoint("nps.submitted", "survey", _at(5), {"rating": 0, "group": "detractor"}),
            Touchpoint("csat.submitted", "survey", _at(6), {"rating": 2, "scale": 5, "group": None}),
            Touchpoint("ces.submitted", "survey", _at(7), {"rating": 6.5, "scale": 7}),
            Touchpoint("ces.submitted", "survey", _at(8), {"rating": 3, "scale": 5}),
            Touchpoint(
                "review.submitted",
                "review",
                _at(9),
                {"rating": 4, "scale": 5, "link": "https://example.com/r/1", "title": None},
                {"private": {"title": "Good"}},
            ),
            Touchpoint("survey.completed", "survey", _at(10), {"answers": {"again": True}, "plan": "pro"}),
        ),
    ),
    unknown=Case(
        "an unknown type",
        json_body(_score("pmf", "p-1", rating=2, scale=3)),
        _WHO,
        (Touchpoint("survey.pmf", "survey", _AT, {"rating": 2, "scale": 3}),),
    ),
    non_ascii=Case(
        "an Arabic comment, and another channel",
        json_body(_score("csat", "c-1", rating=5, comment="شكرا جزيلا", channel="in store")),
        _WHO,
        (Touchpoint("csat.submitted", "in_store", _AT, {"rating": 5}, {"private": {"comment": "شكرا جزيلا"}}),),
    ),
    times=(
        Case(
            "seconds, milliseconds, a fraction, an offset and an invalid time",
            json_body(
                [
                    _score("csat", "t-0", rating=1, timestamp=1777888800),
                    _score("csat", "t-1", rating=1, timestamp=1777888801123),
                    _score("csat", "t-2", rating=1, timestamp="1777888802.5"),
                    _score("csat", "t-3", rating=1, timestamp="2026-05-04T12:00:03.1234567+02:00"),
                    _score("csat", "t-4", rating=1, timestamp="yesterday"),
                ]
            ),
            _WHO,
            (
                Touchpoint("csat.submitted", "survey", "2026-05-04T10:00:00Z"),
                Touchpoint("csat.submitted", "survey", "2026-05-04T10:00:01.123Z"),
                Touchpoint("csat.submitted", "survey", "2026-05-04T10:00:02.5Z"),
                Touchpoint("csat.submitted", "survey", "2026-05-04T10:00:03.123456Z"),
                Touchpoint("csat.submitted", "survey", "2026-05-05T12:00:00Z"),
            ),
        ),
    ),
    malformed=Case(
        "seven invalid events",
        json_body(
            [
                {"user_id": "user-1", "rating": 1},
                _score("nps", "m-1"),
                _score("nps", "m-2", rating=11),
                _score("csat", "m-3", rating=-1),
                _score("ces", "m-4", rating=True),
                _score("ces", "m-5", rating="easy"),
                7,
            ]
        ),
        rejected=7,
    ),
    others=(
        Case(
            "a vendor identity, and no event id",
            json_body({"type": "nps", "rating": 3, "ids": {"delighted_person": 7}, "timestamp": _AT}),
            "delighted_person:7",
            (Touchpoint("nps.submitted", "survey", _AT, {"group": "detractor"}),),
        ),
        Case("a score without an identity", json_body({"type": "nps", "id": "n-1", "rating": 3}), rejected=1),
    ),
)

FIXTURES = (
    _BY_TOKEN,
    replace(
        _BY_TOKEN,
        kind="survey_signed",
        secret="whsec_" + b64encode(b"0123456789abcdef01234567").decode(),
        other_secret="whsec_" + b64encode(b"76543210fedcba9876543210").decode(),
        sign=signed,
        stale_seconds=300,
    ),
)
