"""Fixture of the Intercom connector: HMAC-SHA1 of the body in hex, with the prefix ``sha1=``."""

from __future__ import annotations

import hmac
from typing import Any

from app.connectors.tools.intercom import CONNECTOR
from tests.support.tool_fixture import Case, Fixture, SignedWith, Touchpoint, json_body

_AT = "2026-05-04T10:00:00Z"
_WHO = "intercom_contact:c-1"
_CONTACT = {"type": "contact", "id": "c-1", "external_id": "user-1"}


def sign(body: bytes, secret: str, now: int, url: str) -> SignedWith:
    del now, url
    return {"X-Hub-Signature": "sha1=" + hmac.digest(secret.encode(), body, "sha1").hex()}, {}


def _notice(topic: str, item: dict[str, Any], n: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "type": "notification_event",
        "id": f"notif_{n}",
        "topic": topic,
        "app_id": "abc",
        "created_at": 1777888800 + n,
        "delivery_attempts": 1,
        "data": {"type": "notification_event_data", "item": item},
        **more,
    }


def _conversation(state: str = "open", **more: Any) -> dict[str, Any]:
    parts = {"conversation_parts": [{"part_type": "comment", "body": "<p>Thank&nbsp;you</p>"}]}
    return {
        "type": "conversation",
        "id": "213",
        "created_at": 1777888700,
        "state": state,
        "contacts": {"contacts": [_CONTACT]},
        "conversation_parts": parts,
        **more,
    }


def _ticket(category: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "ticket",
        "id": "31",
        "ticket_state": category,
        "contacts": {"contacts": [_CONTACT]},
        "ticket_attributes": {"_default_title_": "Help", "_default_description_": "It broke"},
        **more,
    }


def _one(
    about: str,
    topic: str,
    item: dict[str, Any],
    name: str,
    properties: dict[str, Any] | None = None,
    context: dict[str, Any] | None = None,
    channel: str = "support",
) -> Case:
    touchpoint = Touchpoint(name, channel, _AT, properties or {}, context or {})
    return Case(about, json_body(_notice(topic, item)), _WHO, (touchpoint,))


FIXTURE = Fixture(
    kind="intercom",
    secret="client-secret",
    sign=sign,
    sample=Case(
        "a reply",
        CONNECTOR.sample,
        "user_id:user-1",
        (
            Touchpoint(
                "ticket.replied_by_customer",
                "support",
                _AT,
                {"ticket_id": "213", "status": "open", "body": None},
                {"private": {"body": "Are you there?"}},
            ),
        ),
        identities=(_WHO, "email:user@example.com", "user_id:user-1"),
    ),
    several=_one(
        "a new conversation",
        "conversation.user.created",
        _conversation(source={"body": "<p>Hello</p><p>there</p>", "subject": "<p>Help</p>"}),
        "chat.started",
        {"ticket_id": "213", "opened_at": 1777888700},
        {"private": {"subject": "Help", "body": "Hello\nthere"}},
    ),
    unknown=_one(
        "an unknown topic",
        "conversation.user.teleported",
        _conversation(),
        "intercom.conversation_user_teleported",
    ),
    non_ascii=_one(
        "Greek tags, and a reply with an emoji",
        "conversation.admin.replied",
        _conversation(
            tags={"tags": [{"name": "καλημέρα"}]}, conversation_parts={"conversation_parts": [{"body": "👍 ευχαριστώ"}]}
        ),
        "ticket.replied_by_agent",
        {"tags": ["καλημέρα"]},
        {"private": {"body": "👍 ευχαριστώ"}},
    ),
    times=tuple(
        Case(
            about,
            json_body(_notice("conversation.user.replied", _conversation(), created_at=created_at)),
            _WHO,
            (Touchpoint("ticket.replied_by_customer", "support", occurred_at),),
        )
        for about, created_at, occurred_at in (
            ("milliseconds", 1777888800123, "2026-05-04T10:00:00.123Z"),
            ("a fraction", 1777888801.5, "2026-05-04T10:00:01.5Z"),
            ("an offset", "2026-05-04T12:00:02+02:00", "2026-05-04T10:00:02Z"),
            ("an invalid time", "yesterday", "2026-05-05T12:00:00Z"),
        )
    ),
    malformed=Case("no topic", json_body({"type": "notification_event", "id": "notif_1"}), rejected=1),
    others=(
        Case(
            "a ping",
            json_body(_notice("ping", {"type": "ping", "message": "hi"}) | {"id": None}),
            ignored=1,
        ),
        Case(
            "a conversation without a recipient", json_body(_notice("conversation.user.created", {"id": 1})), ignored=1
        ),
        _one(
            "an older payload with the member user",
            "conversation.user.replied",
            {
                "type": "conversation",
                "id": "213",
                "user": {"type": "user", "id": "c-1", "user_id": "user-1", "email": ""},
            },
            "ticket.replied_by_customer",
        ),
        _one("closed", "conversation.admin.closed", _conversation(), "ticket.solved", {"status": "closed"}),
        _one("opened", "conversation.admin.opened", _conversation("closed"), "ticket.reopened", {"status": "open"}),
        _one("snoozed", "conversation.admin.snoozed", _conversation(), "ticket.status_changed", {"status": "snoozed"}),
        _one(
            "assigned",
            "conversation.admin.assigned",
            _conversation(admin_assignee_id=7),
            "ticket.assigned",
            {"assignee_id": "7"},
        ),
        _one(
            "noted",
            "conversation.admin.noted",
            _conversation(),
            "intercom.conversation_admin_noted",
            context={"private": {"body": "Thank you"}},
        ),
        _one(
            "rated",
            "conversation.rating.added",
            _conversation(conversation_rating={"rating": 2, "remark": "Slow"}),
            "csat.submitted",
            {"rating": 2, "scale": 5, "ticket_id": "213"},
            {"private": {"body": "Thank you", "comment": "Slow"}},
        ),
        _one(
            "a rating without its conversation",
            "conversation.rating.added",
            {"type": "conversation_rating", "rating": 5, "conversation_id": 213, "contact": _CONTACT},
            "csat.submitted",
            {"rating": 5, "ticket_id": "213"},
        ),
        _one(
            "a ticket",
            "ticket.created",
            _ticket("submitted"),
            "ticket.created",
            {"ticket_id": "31", "status": "submitted"},
            {"private": {"subject": "Help", "body": "It broke"}},
        ),
        _one("a ticket's state", "ticket.state.updated", _ticket("in_progress"), "ticket.status_changed"),
        _one("a ticket resolved", "ticket.state.updated", _ticket("resolved"), "ticket.solved", {"status": "resolved"}),
        _one("a ticket closed", "ticket.closed", _ticket("resolved"), "ticket.solved", {"status": "closed"}),
        _one(
            "unsubscribed",
            "contact.unsubscribed",
            {"type": "contact", "id": "c-1", "email": "user@example.com"},
            "email.unsubscribed",
            channel="email",
        ),
        _one(
            "a tag on a contact",
            "contact.user.tag.created",
            {"type": "contact_tag", "contact": _CONTACT, "tag": {"type": "tag", "id": "5", "name": "vip"}},
            "intercom.contact_user_tag_created",
            {"tag": "vip"},
        ),
        Case(
            "a contact",
            json_body(
                _notice(
                    "contact.user.created",
                    _CONTACT | {"email": "user@example.com", "phone": "+351210000000", "name": "User One"},
                )
            ),
            "user_id:user-1",
            (),
            traits={"name": "User One"},
            identities=(_WHO, "email:user@example.com", "phone:+351210000000"),
            accepted=1,
        ),
    ),
)
