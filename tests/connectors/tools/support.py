"""Fixture of the generic help desk connector: signed by the library of Standard Webhooks."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from standardwebhooks.webhooks import Webhook

from app.connectors.tools.support import CONNECTOR
from tests.support.tool_fixture import Case, Fixture, SignedWith, Touchpoint, json_body

_AT = "2026-05-04T10:00:00Z"
_WHO = "user_id:user-1"


def sign(body: bytes, secret: str, now: int, url: str) -> SignedWith:
    del url
    id = "msg_" + sha256(body).hexdigest()[:20]
    at = datetime.fromtimestamp(now / 1_000_000, UTC)
    signature = Webhook(secret).sign(id, at, body.decode())
    return {"webhook-id": id, "webhook-timestamp": str(now // 1_000_000), "webhook-signature": signature}, {}


def _event(event: str, n: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "id": f"evt-{n}",
        "event": event,
        "occurred_at": f"2026-05-04T10:00:{n:02}Z",
        "ticket_id": 77,
        "customer": {"user_id": "user-1"},
        **more,
    }


def _at(second: int) -> str:
    return f"2026-05-04T10:00:{second:02}Z"


FIXTURE = Fixture(
    kind="support",
    secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    other_secret="whsec_" + "A" * 32,
    sign=sign,
    stale_seconds=300,
    sample=Case(
        "a reply",
        CONNECTOR.sample,
        _WHO,
        (
            Touchpoint(
                "ticket.replied_by_customer",
                "support",
                _AT,
                {"ticket_id": "77", "status": "open", "priority": "high", "order_id": "o-1", "message": None},
                {"private": {"subject": "Late", "body": "Where is my parcel?"}},
            ),
        ),
        identities=(_WHO, "email:user@example.com", "support_customer:c-9"),
    ),
    several=Case(
        "every ticket event",
        json_body(
            [
                _event("ticket.created", 0),
                _event("ticket.assigned", 1),
                _event("ticket.replied", 2, by="agent", message="<b>Hello</b>"),
                _event("ticket.status_changed", 3, status="Solved", previous_status="open"),
                _event("ticket.status_changed", 4, status="open", previous_status="solved"),
                _event("ticket.solved", 5),
                _event("ticket.reopened", 6),
                _event("csat.submitted", 7, rating=9, scale=10, comment="Fine"),
                _event("chat.started", 8),
            ]
        ),
        _WHO,
        (
            Touchpoint("ticket.created", "support", _at(0)),
            Touchpoint("ticket.assigned", "support", _at(1)),
            Touchpoint("ticket.replied_by_agent", "support", _at(2), {}, {"private": {"body": "Hello"}}),
            Touchpoint("ticket.solved", "support", _at(3), {"status": "solved", "previous_status": "open"}),
            Touchpoint("ticket.reopened", "support", _at(4)),
            Touchpoint("ticket.solved", "support", _at(5)),
            Touchpoint("ticket.reopened", "support", _at(6)),
            Touchpoint(
                "csat.submitted",
                "support",
                _at(7),
                {"rating": 4.56, "scale": 5, "rated": 9},
                {"private": {"comment": "Fine"}},
            ),
            Touchpoint("chat.started", "support", _at(8)),
        ),
    ),
    unknown=Case(
        "an unknown event",
        json_body(_event("Ticket Escalated")),
        _WHO,
        (Touchpoint("support.ticket_escalated", "support", _AT),),
    ),
    non_ascii=Case(
        "a tag in Greek",
        json_body(_event("ticket.created", tags=["καλημέρα"])),
        _WHO,
        (Touchpoint("ticket.created", "support", _AT, {"tags": ["καλημέρα"]}),),
    ),
    times=(
        Case(
            "milliseconds, a fraction, an offset and an invalid time",
            json_body(
                [
                    _event("ticket.created", 0, occurred_at=1777888800123),
                    _event("ticket.created", 1, occurred_at=1777888801.5),
                    _event("ticket.created", 2, occurred_at="2026-05-04T12:00:02+02:00"),
                    _event("ticket.created", 3, occurred_at="yesterday"),
                ]
            ),
            _WHO,
            (
                Touchpoint("ticket.created", "support", "2026-05-04T10:00:00.123Z"),
                Touchpoint("ticket.created", "support", "2026-05-04T10:00:01.5Z"),
                Touchpoint("ticket.created", "support", _at(2)),
                Touchpoint("ticket.created", "support", "2026-05-05T12:00:00Z"),
            ),
        ),
    ),
    malformed=Case(
        "two invalid events and a valid one",
        json_body([{"id": "evt-1"}, _event("ticket.created", 2, customer={}), _event("ticket.created")]),
        _WHO,
        (Touchpoint("ticket.created", "support", _AT),),
        rejected=2,
    ),
    others=(
        Case(
            "several events without ids",
            json_body([_event("ticket.created") | {"id": None}, _event("ticket.created") | {"id": None}]),
            _WHO,
            (Touchpoint("ticket.created", "support", _AT), Touchpoint("ticket.created", "support", _AT)),
        ),
    ),
)
