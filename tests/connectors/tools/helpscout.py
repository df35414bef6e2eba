"""Fixture of the Help Scout connector: HMAC-SHA1 of the body in base64; the event name is in a header."""

from __future__ import annotations

import hmac
from base64 import b64encode
from typing import Any

from app.connectors.tools.helpscout import CONNECTOR
from tests.support.tool_fixture import Case, Fixture, SignedWith, Touchpoint, json_body

_AT = "2026-05-04T10:05:00Z"
_WHO = "helpscout_customer:77"


def sign(body: bytes, secret: str, now: int, url: str) -> SignedWith:
    del now, url
    return {"X-HelpScout-Signature": b64encode(hmac.digest(secret.encode(), body, "sha1")).decode()}, {}


def _conversation(**more: Any) -> dict[str, Any]:
    return {
        "id": 555,
        "number": 12,
        "type": "email",
        "status": "active",
        "subject": "Help",
        "createdAt": "2026-05-04T10:00:00Z",
        "userUpdatedAt": _AT,
        "primaryCustomer": {"id": 77, "email": "user@example.com"},
        "_embedded": {
            "threads": [
                {"id": 900, "type": "customer", "createdAt": "2026-05-04T10:00:00Z", "body": "first"},
                {"id": 901, "type": "message", "createdAt": "2026-05-04T10:05:00Z", "body": "<p>second</p>"},
            ]
        },
        **more,
    }


def _case(about: str, event: str, body: dict[str, Any], touchpoint: Touchpoint | None, **more: Any) -> Case:
    headers = {"content-type": "application/json", "X-HelpScout-Event": event}
    return Case(about, json_body(body), _WHO, () if touchpoint is None else (touchpoint,), headers=headers, **more)


def _one(about: str, event: str, name: str, at: str = _AT, **more: Any) -> Case:
    return _case(about, event, _conversation(**more), Touchpoint(name, "support", at, {"ticket_id": "555"}))


_RATING = {
    "id": 5434,
    "customer": {"id": 77, "firstName": "A", "emails": [{"id": 1, "value": "user@example.com"}]},
    "ticketId": 555,
    "threadId": 901,
    "rating": "Great",
    "comments": "helpful",
    "createdAt": "2026-05-04T09:00:00Z",
    "modifiedAt": _AT,
}

FIXTURE = Fixture(
    kind="helpscout",
    secret="up-to-forty-characters",
    sign=sign,
    sample=Case(
        "a reply",
        CONNECTOR.sample,
        _WHO,
        (
            Touchpoint(
                "ticket.replied_by_customer",
                "support",
                _AT,
                {"ticket_id": "555", "ticket_number": 12, "status": "active", "via": "email", "subject": None},
                {"private": {"subject": "Help", "body": "hi"}},
            ),
        ),
        identities=(_WHO, "email:user@example.com"),
        headers={"content-type": "application/json", "X-HelpScout-Event": "convo.customer.reply.created"},
    ),
    several=_case(
        "an agent's reply, the newest of two threads",
        "convo.agent.reply.created",
        _conversation(),
        Touchpoint("ticket.replied_by_agent", "support", _AT, {}, {"private": {"subject": "Help", "body": "second"}}),
    ),
    unknown=_one("an unknown event type", "convo.teleported", "helpscout.convo_teleported"),
    non_ascii=_case(
        "tags in Greek",
        "convo.tags",
        _conversation(tags=[{"id": 1, "tag": "καλημέρα"}], subject="Βοήθεια"),
        Touchpoint("helpscout.convo_tags", "support", _AT, {"tags": ["καλημέρα"]}, {"private": {"subject": "Βοήθεια"}}),
    ),
    times=(
        _one(
            "seven digits",
            "convo.status",
            "ticket.status_changed",
            "2026-05-04T10:05:00.123456Z",
            userUpdatedAt="2026-05-04T10:05:00.1234567Z",
        ),
        _one("an offset", "convo.status", "ticket.status_changed", userUpdatedAt="2026-05-04T12:05:00+02:00"),
        _one(
            "an invalid time",
            "convo.status",
            "ticket.status_changed",
            "2026-05-05T12:00:00Z",
            userUpdatedAt="yesterday",
        ),
        _one(
            "the creation time only",
            "convo.status",
            "ticket.status_changed",
            "2026-05-04T10:00:00Z",
            userUpdatedAt=None,
        ),
    ),
    malformed=Case("no event header", json_body(_conversation()), rejected=1),
    others=(
        _one("created", "convo.created", "ticket.created"),
        _one("assigned", "convo.assigned", "ticket.assigned"),
        _one("closed", "convo.status", "ticket.solved", status="closed"),
        _one("noted", "convo.note.created", "helpscout.convo_note_created"),
        _case(
            "deleted",
            "convo.deleted",
            _conversation(),
            Touchpoint("ticket.status_changed", "support", _AT, {"status": "deleted"}),
        ),
        _case(
            "rated",
            "satisfaction.ratings",
            _RATING,
            Touchpoint(
                "csat.submitted",
                "support",
                _AT,
                {"rating": 5, "scale": 5, "rated": "Great", "ticket_id": "555"},
                {"private": {"comment": "helpful"}},
            ),
            identities=("email:user@example.com",),
        ),
        _case(
            "a customer",
            "customer.created",
            {"id": 77, "firstName": "A", "lastName": "User", "_embedded": {"emails": [{"value": "user@example.com"}]}},
            None,
            traits={"first_name": "A", "last_name": "User"},
            identities=("email:user@example.com",),
            accepted=1,
        ),
        Case(
            "no id",
            json_body({"status": "active"}),
            rejected=1,
            headers={"content-type": "application/json", "X-HelpScout-Event": "convo.created"},
        ),
    ),
)
