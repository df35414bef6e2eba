"""Fixture of the Zendesk connector: HMAC-SHA256 of time and body, in base64."""

from __future__ import annotations

import hmac
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

from app.connectors.tools.zendesk import CONNECTOR
from tests.support.tool_fixture import Case, Fixture, SignedWith, Touchpoint, json_body

_AT = "2026-05-04T10:00:00Z"
_WHO = "zendesk_user:123"


def sign(body: bytes, secret: str, now: int, url: str) -> SignedWith:
    del url
    time = datetime.fromtimestamp(now / 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    signature = b64encode(hmac.digest(secret.encode(), time.encode() + body, "sha256")).decode()
    return {"X-Zendesk-Webhook-Signature": signature, "X-Zendesk-Webhook-Signature-Timestamp": time}, {}


def _event(kind: str, n: int = 0, *, change: Any = None, **detail: Any) -> dict[str, Any]:
    return {
        "account_id": 12345,
        "id": f"event-{n}",
        "time": f"2026-05-04T10:00:{n:02}Z",
        "type": f"zen:event-type:{kind}",
        "zendesk_event_version": "2022-11-06",
        "subject": "zen:ticket:456",
        "detail": {"id": 456, "requester_id": 123, "status": "OPEN", "priority": "HIGH", **detail},
        "event": change or {},
    }


def _comment(n: int, author: int, *, staff: bool, public: bool = True) -> dict[str, Any]:
    comment = {
        "id": 900 + n,
        "body": "Hello",
        "is_public": public,
        "author": {"id": author, "is_staff": staff, "name": "A"},
    }
    return _event("ticket.comment_added", n, change={"comment": comment})


def _changed(n: int, previous: str, current: str) -> dict[str, Any]:
    return _event("ticket.status_changed", n, change={"previous": previous, "current": current}, status=current)


def _user(kind: str, n: int, *, change: Any = None, **detail: Any) -> dict[str, Any]:
    event = _event(kind, n, change=change)
    return event | {
        "subject": "zen:user:123",
        "detail": {"id": "123", "email": "user@example.com", "external_id": "user-1", "role": "end-user", **detail},
    }


def _trigger(**members: Any) -> dict[str, Any]:
    return {
        "ticket_id": "456",
        "event": "ticket.updated",
        "status": "Open",
        "email": "user@example.com",
        "requester_id": "123",
        "external_id": "user-1",
        "updated_at": "2026-05-04T10:00:00Z",
        "via": "Mail",
        "title": "Help",
        **members,
    }


def _at(second: int) -> str:
    return f"2026-05-04T10:00:{second:02}Z"


FIXTURE = Fixture(
    kind="zendesk",
    secret="zendesk-secret",
    sign=sign,
    stale_seconds=3_600,
    sample=Case(
        "a status change",
        CONNECTOR.sample,
        _WHO,
        (
            Touchpoint(
                "ticket.status_changed",
                "support",
                _AT,
                {
                    "ticket_id": "456",
                    "status": "open",
                    "previous_status": "new",
                    "priority": "normal",
                    "tags": ["a"],
                    "via": "email",
                    "subject": None,
                },
            ),
        ),
        identities=(_WHO,),
    ),
    several=Case(
        "every ticket event, in one array",
        json_body(
            [
                _event("ticket.created", 0, subject="Help", description="It broke", created_at=_AT),
                _event("ticket.agent_assignment_changed", 1, change={"current": "7", "previous": "0"}),
                _comment(2, 7, staff=True),
                _comment(3, 7, staff=True, public=False),
                _comment(4, 123, staff=False),
                _changed(5, "OPEN", "SOLVED"),
                _changed(6, "SOLVED", "OPEN"),
                _changed(7, "OPEN", "PENDING"),
                _changed(8, "PENDING", "SOLVED"),
                _changed(9, "SOLVED", "CLOSED"),
                _event("ticket.soft_deleted", 10),
            ]
        ),
        _WHO,
        (
            Touchpoint("ticket.created", "support", _AT, context={"private": {"subject": "Help", "body": "It broke"}}),
            Touchpoint("ticket.assigned", "support", _at(1), {"current": "7"}),
            Touchpoint("ticket.replied_by_agent", "support", _at(2), context={"private": {"body": "Hello"}}),
            Touchpoint("zendesk.note_added", "support", _at(3), context={"private": {"body": "Hello"}}),
            Touchpoint("ticket.replied_by_customer", "support", _at(4), {"comment_id": "904"}),
            Touchpoint("ticket.solved", "support", _at(5), {"status": "solved", "previous_status": "open"}),
            Touchpoint("ticket.reopened", "support", _at(6), {"status": "open", "previous_status": "solved"}),
            Touchpoint("ticket.status_changed", "support", _at(7), {"status": "pending"}),
            Touchpoint("ticket.solved", "support", _at(8)),
            Touchpoint("ticket.status_changed", "support", _at(9), {"status": "closed"}),
            Touchpoint("ticket.status_changed", "support", _at(10), {"status": "deleted", "how": "soft_deleted"}),
        ),
    ),
    unknown=Case(
        "an unknown event type",
        json_body(_event("ticket.teleported", change={"current": "here"})),
        _WHO,
        (Touchpoint("zendesk.ticket_teleported", "support", _AT, {"current": None}, {"private": {"current": "here"}}),),
    ),
    non_ascii=Case(
        "a Greek tag and subject",
        json_body(_event("ticket.created", tags=["καλημέρα"], subject="Βοήθεια")),
        _WHO,
        (Touchpoint("ticket.created", "support", _AT, {"tags": ["καλημέρα"]}, {"private": {"subject": "Βοήθεια"}}),),
    ),
    times=(
        Case(
            "seven digits, an offset and an invalid time",
            json_body(
                [
                    _comment(0, 123, staff=False) | {"time": "2026-05-04T10:00:00.1234567Z"},
                    _comment(1, 123, staff=False) | {"time": "2026-05-04T12:00:01+02:00"},
                    _comment(2, 123, staff=False) | {"time": "yesterday"},
                ]
            ),
            _WHO,
            (
                Touchpoint("ticket.replied_by_customer", "support", "2026-05-04T10:00:00.123456Z"),
                Touchpoint("ticket.replied_by_customer", "support", _at(1)),
                Touchpoint("ticket.replied_by_customer", "support", "2026-05-05T12:00:00Z"),
            ),
        ),
    ),
    malformed=Case(
        "two invalid events and a valid one",
        json_body([_comment(0, 123, staff=False), {"hello": 1}, 7]),
        _WHO,
        (Touchpoint("ticket.replied_by_customer", "support", _AT),),
        rejected=2,
    ),
    others=(
        Case(
            "changes: values from a list are properties, possible free text is private",
            json_body(
                [
                    _event("ticket.priority_changed", 0, change={"current": "HIGH", "previous": "LOW"}),
                    _event("ticket.tags_changed", 1, change={"tags_added": ["b"], "tags_removed": ["a"]}),
                    _event("ticket.custom_field_changed", 2, change={"current": "I am ill", "previous": "I am well"}),
                    _event("ticket.subject_changed", 3, change={"current": "Ill"}),
                ]
            ),
            _WHO,
            (
                Touchpoint("zendesk.ticket_priority_changed", "support", _AT, {"current": "HIGH", "previous": "LOW"}),
                Touchpoint("zendesk.ticket_tags_changed", "support", _at(1), {"tags_added": ["b"]}),
                Touchpoint(
                    "zendesk.ticket_custom_field_changed",
                    "support",
                    _at(2),
                    {"current": None, "previous": None},
                    {"private": {"current": "I am ill", "previous": "I am well"}},
                ),
                Touchpoint(
                    "zendesk.ticket_subject_changed",
                    "support",
                    _at(3),
                    {"current": None},
                    {"private": {"body": "Ill"}},
                ),
            ),
        ),
        Case(
            "a comment of a user in CC",
            json_body(_comment(0, 124, staff=False)),
            _WHO,
            (
                Touchpoint(
                    "zendesk.comment_by_other",
                    "support",
                    _AT,
                    {"comment_id": "900", "author_id": "124"},
                    {"private": {"body": "Hello"}},
                ),
            ),
        ),
        Case(
            "trigger bodies",
            json_body(
                [
                    _trigger(event="ticket.created", created_at=_AT),
                    _trigger(event="ticket.commented", author_id=123, comment="Still broken", updated_at=_at(1)),
                    _trigger(event="ticket.commented", author_id=7, updated_at=_at(2)),
                    _trigger(status="Solved", updated_at=_at(3)),
                    _trigger(status="Closed", updated_at=_at(4)),
                    _trigger(event="ticket.reopened", updated_at=_at(5)),
                    _trigger(event="ticket.rated", rating="Bad", rating_comment="Slow", updated_at=_at(6)),
                    _trigger(event="escalated", updated_at=_at(7)),
                ]
            ),
            "user_id:user-1",
            (
                Touchpoint("ticket.created", "support", _AT, {"ticket_id": "456"}, {"private": {"subject": "Help"}}),
                Touchpoint("ticket.replied_by_customer", "support", _at(1)),
                Touchpoint("ticket.replied_by_agent", "support", _at(2)),
                Touchpoint("ticket.solved", "support", _at(3), {"status": "solved"}),
                Touchpoint("ticket.status_changed", "support", _at(4), {"status": "closed"}),
                Touchpoint("ticket.reopened", "support", _at(5)),
                Touchpoint("csat.submitted", "support", _at(6), {"rating": 1, "scale": 5, "rated": "Bad"}),
                Touchpoint("zendesk.ticket_escalated", "support", _at(7)),
            ),
            identities=(_WHO, "email:user@example.com", "user_id:user-1"),
        ),
        Case(
            "a trigger body without a time, identified by the invocation id",
            json_body(_trigger(updated_at="")),
            "email:user@example.com",
            (Touchpoint("ticket.status_changed", "support", "2026-05-05T12:00:00Z"),),
            headers={"content-type": "application/json", "X-Zendesk-Webhook-Invocation-Id": "01INVOCATION"},
        ),
        Case(
            "user events",
            json_body(
                [
                    _user("user.created", 0),
                    _user("user.name_changed", 1, change={"current": "User One"}),
                    _user("user.deleted", 2),
                    _user("user.created", 3, id="9", role="agent", email="agent@example.com", external_id=""),
                ]
            ),
            "email:user@example.com",
            (Touchpoint("zendesk.user_deleted", "support", _at(2)),),
            traits={"name": "User One"},
            identities=(_WHO, "user_id:user-1"),
            accepted=3,
            ignored=1,
        ),
        Case(
            "an article event, which concerns no person",
            json_body(_event("article.published", requester_id=None)),
            ignored=1,
        ),
    ),
)
