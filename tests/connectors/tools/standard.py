"""Fixture of the Standard Webhooks connector: signed by the specification's own library."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime
from hashlib import sha256

from standardwebhooks import Webhook

from app.connectors.tools.standard import CONNECTOR
from tests.support.tool_fixture import Case, Fixture, SignedWith, Touchpoint, json_body

_AT = "2026-05-04T10:00:00Z"
_WHO = "email:user@example.com"


def sign(body: bytes, secret: str, now: int, url: str) -> SignedWith:
    del url
    message_id, seconds = f"msg_{sha256(body).hexdigest()[:20]}", now // 1_000_000
    signature = Webhook(secret).sign(message_id, datetime.fromtimestamp(seconds, UTC), body.decode())
    return {"webhook-id": message_id, "webhook-timestamp": str(seconds), "webhook-signature": signature}, {}


def _event(**members: object) -> dict[str, object]:
    return {"type": "invoice.paid", "timestamp": _AT, "email": "user@example.com", **members}


FIXTURE = Fixture(
    kind="standard",
    secret="whsec_" + b64encode(b"a secret of twenty-four bytes").decode(),
    other_secret="whsec_" + b64encode(b"another of twenty-four bytes").decode(),
    sign=sign,
    stale_seconds=300,
    sample=Case(
        "Segue's flat format",
        CONNECTOR.sample,
        _WHO,
        (
            Touchpoint(
                "invoice.paid", "server", _AT, {"invoice_id": "in-7", "total": 42.5, "currency": "EUR", "email": None}
            ),
        ),
        identities=("email:user@example.com", "user_id:user-1"),
    ),
    several=Case(
        "an array with one webhook-id",
        json_body([_event(data={"n": 1}), _event(type="invoice.sent", timestamp="2026-05-04T10:00:01Z")]),
        _WHO,
        (
            Touchpoint("invoice.paid", "server", _AT, {"n": 1}),
            Touchpoint("invoice.sent", "server", "2026-05-04T10:00:01Z"),
        ),
    ),
    unknown=Case(
        "an unknown name is kept",
        json_body(_event(type="com.example/teleported")),
        _WHO,
        (Touchpoint("com.example/teleported", "server", _AT),),
    ),
    non_ascii=Case(
        "Greek data and a Chinese event name",
        json_body(_event(type="購買", data={"wort": "καλημέρα", "🙂": "größer"})),
        _WHO,
        (Touchpoint("購買", "server", _AT, {"wort": "καλημέρα", "🙂": "größer"}),),
    ),
    times=(
        Case(
            "seconds, milliseconds, seven digits with an offset, occurred_at and an invalid time",
            json_body(
                [
                    _event(timestamp=1777888800),
                    _event(timestamp=1777888801500),
                    _event(timestamp="2026-05-04T12:00:02.1234567+02:00"),
                    _event(timestamp=None, occurred_at="2026-05-04T10:00:03Z"),
                    _event(timestamp="soon"),
                ]
            ),
            _WHO,
            (
                Touchpoint("invoice.paid", "server", _AT),
                Touchpoint("invoice.paid", "server", "2026-05-04T10:00:01.5Z"),
                Touchpoint("invoice.paid", "server", "2026-05-04T10:00:02.123456Z"),
                Touchpoint("invoice.paid", "server", "2026-05-04T10:00:03Z"),
                Touchpoint("invoice.paid", "server", "2026-05-05T12:00:00Z"),
            ),
        ),
    ),
    malformed=Case(
        "three invalid events and a valid one",
        json_body([_event(), {"email": "user@example.com"}, 7, {"type": "cron.ran"}]),
        _WHO,
        (Touchpoint("invoice.paid", "server", _AT),),
        rejected=3,
    ),
    others=(
        Case(
            "the specification's format, with the identity in data",
            json_body(
                {
                    "type": "user.rated",
                    "timestamp": _AT,
                    "data": {"userId": 42, "email": "user@example.com", "channel": "App", "stars": 5, "list": [1]},
                }
            ),
            _WHO,
            (Touchpoint("user.rated", "app", _AT, {"stars": 5, "list": [1], "userId": None, "channel": None}),),
            identities=("user_id:42",),
        ),
        Case(
            "Segment messages: track, page and identify",
            json_body(
                [
                    {
                        "type": "track",
                        "event": "Signed Up",
                        "messageId": "m-1",
                        "userId": "user-1",
                        "timestamp": _AT,
                        "sentAt": _AT,
                        "context": {"campaign": {"name": "spring"}, "channel": "web"},
                        "properties": {"plan": "pro"},
                    },
                    {
                        "type": "page",
                        "name": "Home",
                        "messageId": "m-2",
                        "userId": "user-1",
                        "timestamp": "2026-05-04T10:00:01Z",
                        "properties": {"path": "/"},
                    },
                    {"type": "identify", "messageId": "m-3", "userId": "user-1", "traits": {"plan": "pro"}},
                ]
            ),
            "user_id:user-1",
            (
                Touchpoint("Signed Up", "web", _AT, {"plan": "pro"}, {"campaign": {"name": "spring"}}),
                Touchpoint("page_viewed", "server", "2026-05-04T10:00:01Z", {"name": "Home", "path": "/"}),
            ),
            traits={"plan": "pro"},
            accepted=3,
        ),
        Case(
            "an alias, vendor ids, and members next to data",
            json_body(
                [
                    {"type": "alias", "user_id": "user-1", "previous_id": "old-1"},
                    _event(user_id="old-1", ids={"loyalty_card": "LC-9"}, shelf=3, data=["a"]),
                ]
            ),
            "user_id:user-1",
            (Touchpoint("invoice.paid", "server", _AT, {"shelf": 3, "data": ["a"]}),),
            identities=("user_id:old-1", "loyalty_card:LC-9"),
            accepted=2,
        ),
    ),
)
