"""Fixture of the Freshdesk connector: a token in the header X-Segue-Token, which the automation rule sends."""

from __future__ import annotations

from typing import Any

from app.connectors.tools.freshdesk import CONNECTOR
from tests.support.tool_fixture import Case, Fixture, SignedWith, Touchpoint, json_body

_NOW = "2026-05-05T12:00:00Z"
_WHO = "email:user@example.com"


def sign(body: bytes, secret: str, now: int, url: str) -> SignedWith:
    del body, now, url
    return {"X-Segue-Token": secret}, {}


def _body(triggered: Any, **more: Any) -> bytes:
    ticket = {
        "triggered_event": triggered,
        "ticket_id": 11,
        "ticket_status": "Open",
        "requester_email": "user@example.com",
        **more,
    }
    return json_body({"freshdesk_webhook": ticket})


def _one(about: str, triggered: Any, name: str, properties: dict[str, Any] | None = None, **more: Any) -> Case:
    return Case(about, _body(triggered, **more), _WHO, (Touchpoint(name, "support", _NOW, properties or {}),))


FIXTURE = Fixture(
    kind="freshdesk",
    secret="",
    sign=sign,
    sample=Case(
        "a ticket",
        CONNECTOR.sample,
        _WHO,
        (
            Touchpoint(
                "ticket.created",
                "support",
                _NOW,
                {
                    "ticket_id": "11",
                    "status": "open",
                    "priority": "high",
                    "ticket_type": "Incident",
                    "link": "https://x.freshdesk.com/helpdesk/tickets/11",
                    "ticket_subject": None,
                },
                {"private": {"subject": "Help", "body": "It does not work"}},
            ),
        ),
        identities=(_WHO,),
    ),
    several=_one(
        "a status change with numeric statuses",
        "{status:{from:2,to:4}}",
        "ticket.solved",
        {"status": "resolved", "previous_status": "open"},
        ticket_status="Resolved",
    ),
    unknown=_one(
        "an unknown event type", "{teleported:{from:1,to:2}}", "freshdesk.teleported", {"change": "{from:1,to:2}"}
    ),
    non_ascii=_one(
        "a type in Greek", "{ticket_action:created}", "ticket.created", {"ticket_type": "Ζημιά"}, ticket_type="Ζημιά"
    ),
    times=(_one("no time: the time of arrival", "{reply_sent:sent}", "ticket.replied_by_agent"),),
    malformed=Case("no ticket", json_body({"freshdesk_webhook": {"triggered_event": "{a:b}"}}), rejected=1),
    others=(
        _one("reopened", "{status:{from:5,to:2}}", "ticket.reopened", {"previous_status": "closed"}),
        _one("pending", "{status:{from:2,to:3}}", "ticket.status_changed", ticket_status="Pending"),
        _one(
            "a status change without ticket_status",
            "{status:{from:2,to:4}}",
            "ticket.solved",
            {"status": "resolved"},
            ticket_status=None,
        ),
        _one("closed without the previous status", "{status:{to:5}}", "ticket.status_changed", ticket_status="Closed"),
        _one("a public note by an agent", "{note_type:public}", "ticket.replied_by_agent"),
        _one(
            "a public note by the requester",
            "{note_type:public}",
            "ticket.replied_by_customer",
            performed_by="requester",
        ),
        _one("a private note", "{note_type:private}", "freshdesk.note_added"),
        _one("assigned", "{responder_id:{from:,to:7}}", "ticket.assigned"),
        _one("deleted", "{ticket_action:deleted}", "ticket.status_changed", {"status": "deleted"}),
        _one("no triggered_event", None, "freshdesk.other"),
        _one("very unhappy", "{customer_feedback:-103}", "csat.submitted", {"rating": 1, "scale": 5, "rated": "-103"}),
        _one("a rating from the rule", "{x:y}", "csat.submitted", {"rating": 5, "rated": 103}, rating=103),
        _one("a neutral rating", "{x:y}", "csat.submitted", {"rating": 3}, rating="100"),
        Case(
            "no freshdesk_webhook wrapper, and contact members",
            json_body(
                {
                    "ticket_id": "12",
                    "triggered_event": "{customer_responded:true}",
                    "ticket_contact_email": "user@example.com",
                    "ticket_contact_unique_external_id": "user-1",
                    "ticket_latest_public_comment": "User : <div>Still broken</div>",
                }
            ),
            "user_id:user-1",
            (
                Touchpoint(
                    "ticket.replied_by_customer",
                    "support",
                    _NOW,
                    {"ticket_id": "12"},
                    {"private": {"body": "User :\nStill broken"}},
                ),
            ),
            identities=(_WHO,),
        ),
    ),
)
