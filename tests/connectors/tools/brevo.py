"""Fixture of the Brevo connector: a Bearer token, and payloads in which only epoch timestamps are in UTC."""

from __future__ import annotations

from app.connectors.tools.brevo import CONNECTOR
from tests.support.tool_fixture import Case, Fixture, SignedWith, Touchpoint, json_body


def sign(body: bytes, secret: str, now: int, url: str) -> SignedWith:
    del body, now, url
    return {"Authorization": f"Bearer {secret}"}, {}


_WHO = "email:user@example.com"


def _event(kind: str, n: int = 0, **more: object) -> dict[str, object]:
    """Return a transactional event. Its ``date`` is in the account's timezone."""
    return {
        "event": kind,
        "email": "user@example.com",
        "id": 26224,
        "message-id": "<m-1@smtp-relay.example.com>",
        "date": "2026-05-04 14:00:00",
        "ts": 1777888800 + n,
        "ts_event": 1777888800 + n,
        "ts_epoch": (1777888800 + n) * 1000,
        "sending_ip": "203.0.113.9",
        **more,
    }


def _marketing(kind: str, n: int = 0, **more: object) -> dict[str, object]:
    return {
        "event": kind,
        "email": "user@example.com",
        "id": 4,
        "camp_id": 12,
        "campaign name": "Spring",
        "date_event": "2026-05-04 14:00:00",
        "ts_event": 1777888800 + n,
        "ts": 1777892400 + n,
        "tag": "",
        **more,
    }


def _seconds(name: str, n: int, properties: dict[str, object] | None = None) -> Touchpoint:
    return Touchpoint(name, "email", f"2026-05-04T10:00:{n:02}Z", properties or {})


_KINDS = {
    "request": "sent",
    "sent": "sent",
    "delivered": "delivered",
    "deferred": "deferred",
    "hard_bounce": "bounced",
    "soft_bounce": "bounced",
    "invalid_email": "bounced",
    "blocked": "dropped",
    "error": "failed",
    "opened": "opened",
    "unique_opened": "opened",
    "spam": "complained",
    "complaint": "complained",
    "unsubscribed": "unsubscribed",
}
_INDEXED_KINDS = list(enumerate(_KINDS))

FIXTURE = Fixture(
    kind="brevo",
    secret="",
    sign=sign,
    covers_body=False,
    sample=Case(
        "a click",
        CONNECTOR.sample,
        _WHO,
        (
            Touchpoint(
                "email.clicked",
                "email",
                "2026-05-04T10:00:00.123Z",
                {
                    "link": "https://example.com/p",
                    "tags": ["news"],
                    "subject": "News",
                    "email_id": "<202605041000.1@smtp-relay.example.com>",
                    "metadata": {"user_id": "user-1"},
                    "machine": False,
                },
            ),
        ),
        identities=(_WHO, "user_id:user-1"),
    ),
    several=Case(
        "every transactional event, in one batch",
        json_body([_event(kind, n) for n, kind in _INDEXED_KINDS]),
        _WHO,
        tuple(_seconds(f"email.{_KINDS[kind]}", n) for n, kind in _INDEXED_KINDS),
    ),
    unknown=Case("an unknown event type", json_body(_event("teleported")), _WHO, (_seconds("brevo.teleported", 0),)),
    non_ascii=Case(
        "a Greek tag in a JSON list as text",
        json_body(_event("delivered", tag='["καλημέρα"]')),
        _WHO,
        (_seconds("email.delivered", 0, {"tags": ["καλημέρα"]}),),
    ),
    times=(
        Case(
            "text and an invalid time",
            json_body([_event("sent", ts_epoch="1777888800250"), _event("sent", ts_epoch="yesterday")]),
            _WHO,
            (
                Touchpoint("email.sent", "email", "2026-05-04T10:00:00.25Z"),
                Touchpoint("email.sent", "email", "2026-05-05T12:00:00Z"),
            ),
        ),
    ),
    malformed=Case(
        "two invalid events and a valid one",
        json_body([_event("sent"), {"email": "user@example.com"}, None]),
        _WHO,
        (_seconds("email.sent", 0),),
        rejected=2,
    ),
    others=(
        Case(
            "campaign events, whose ts is not in UTC",
            json_body(
                [
                    _marketing("delivered", 0),
                    _marketing("opened", 1),
                    _marketing("proxy_open", 2),
                    _marketing("click", 3, URL="https://example.com/p"),
                    _marketing("hardBounce", 4, reason="550"),
                    _marketing("unsubscribe", 5, list_id=[2]),
                ]
            ),
            _WHO,
            (
                _seconds("email.delivered", 0, {"campaign": "Spring", "campaign_id": 12}),
                _seconds("email.opened", 1, {"machine": False}),
                _seconds("email.opened", 2, {"machine": True}),
                _seconds("email.clicked", 3, {"link": "https://example.com/p"}),
                _seconds("email.bounced", 4, {"bounce_type": "hard", "reason": "550"}),
                _seconds("email.unsubscribed", 5, {"list_ids": [2]}),
            ),
        ),
        Case(
            "contact events, one with several addresses",
            json_body(
                [
                    {
                        "event": "list_addition",
                        "email": "user@example.com",
                        "id": 5,
                        "list_id": [8],
                        "ts": 1777888800,
                        "date": "2026-05-04 12:00:00",
                    },
                    {
                        "event": "contact_deleted",
                        "email": ["user@example.com", "two@example.com"],
                        "id": 6,
                        "list_id": [8],
                        "ts": 1777888801,
                    },
                ]
            ),
            _WHO,
            (_seconds("email.subscribed", 0, {"list_ids": [8]}), _seconds("brevo.contact_deleted", 1)),
            accepted=3,
        ),
    ),
)
