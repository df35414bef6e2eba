"""Fixture of the Front connector: HMAC-SHA256 of time in milliseconds, colon and body, in base64."""

from __future__ import annotations

import hmac
from base64 import b64encode
from typing import Any

from app.connectors.tools.front import CONNECTOR
from tests.support.tool_fixture import Case, Fixture, SignedWith, Touchpoint, json_body

_AT = "2026-05-04T10:00:00Z"
_WHO = "email:user@example.com"


def sign(body: bytes, secret: str, now: int, url: str) -> SignedWith:
    del url
    time = str(now // 1_000)
    signature = b64encode(hmac.digest(secret.encode(), time.encode() + b":" + body, "sha256")).decode()
    return {"X-Front-Signature": signature, "X-Front-Request-Timestamp": time}, {}


def _event(kind: str, **more: Any) -> dict[str, Any]:
    return {
        "id": "evt_1",
        "type": kind,
        "emitted_at": 1777888800,
        "conversation": {
            "id": "cnv_1",
            "subject": "Help",
            "status": "assigned",
            "recipient": {"handle": "user@example.com", "role": "from"},
            "created_at": 1777880000.872,
        },
        "target": {"_meta": {"type": "message"}, "data": {"id": "msg_1", "type": "email", "text": "Hello"}},
        **more,
    }


def _one(about: str, event: dict[str, Any], name: str, properties: dict[str, Any] | None = None, at: str = _AT) -> Case:
    return Case(about, json_body(event), _WHO, (Touchpoint(name, "support", at, properties or {}),))


def _with(kind: str, **more: Any) -> dict[str, Any]:
    event = _event(kind)
    return event | {"conversation": event["conversation"] | more}


FIXTURE = Fixture(
    kind="front",
    secret="front-signing-key",
    sign=sign,
    stale_seconds=900,
    sample=Case(
        "a message in the envelope of an application webhook",
        CONNECTOR.sample,
        _WHO,
        (
            Touchpoint(
                "ticket.replied_by_customer",
                "support",
                _AT,
                {"ticket_id": "cnv_1", "status": "unassigned", "via": "email", "message_id": "msg_1", "subject": None},
                {"private": {"subject": "Help", "body": "Hello?"}},
            ),
        ),
        identities=(_WHO, "front_contact:crd_7"),
    ),
    several=_one("the first message, without an envelope", _with("inbound", created_at=1777888799.5), "ticket.created"),
    unknown=_one("an unknown event type", _event("teleport"), "front.teleport"),
    non_ascii=_one(
        "a tag in Greek", _with("tag", tags=[{"id": "tag_1", "name": "καλημέρα"}]), "front.tag", {"tags": ["καλημέρα"]}
    ),
    times=(
        _one(
            "a fraction",
            _event("inbound", emitted_at=1777888800.872),
            "ticket.replied_by_customer",
            at="2026-05-04T10:00:00.872Z",
        ),
        _one(
            "milliseconds",
            _event("inbound", emitted_at=1777888800123),
            "ticket.replied_by_customer",
            at="2026-05-04T10:00:00.123Z",
        ),
        _one(
            "an invalid time",
            _event("inbound", emitted_at="yesterday"),
            "ticket.replied_by_customer",
            at="2026-05-05T12:00:00Z",
        ),
    ),
    malformed=Case("no type", json_body({"id": "evt_1"}), rejected=1),
    others=(
        _one("an outbound message", _event("outbound"), "ticket.replied_by_agent"),
        _one("a reply", _event("out_reply"), "ticket.replied_by_agent"),
        _one("archived", _event("archive"), "ticket.solved", {"status": "archived"}),
        _one("reopened", _event("reopen"), "ticket.reopened", {"status": "open"}),
        _one("assigned", _event("assign"), "ticket.assigned"),
        _one("deleted", _event("trash"), "ticket.status_changed", {"status": "deleted"}),
        _one("an internal comment", _event("comment"), "front.comment"),
        Case(
            "a phone number as handle",
            json_body(_with("inbound", recipient={"handle": "+351 210 000 000"})),
            "phone:+351210000000",
            (Touchpoint("ticket.replied_by_customer", "support", _AT),),
        ),
        Case("a conversation without a recipient", json_body(_with("archive", recipient=None)), ignored=1),
    ),
)
