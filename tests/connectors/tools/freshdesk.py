"""Freshdesk: nothing is signed; the token stands in a header that the rule sends."""

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
    said = {
        "triggered_event": triggered,
        "ticket_id": 11,
        "ticket_status": "Open",
        "requester_email": "user@example.com",
        **more,
    }
    return json_body({"freshdesk_webhook": said})


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
        "a status, by the numbers of Freshdesk",
        "{status:{from:2,to:4}}",
        "ticket.solved",
        {"status": "resolved", "previous_status": "open"},
        ticket_status="Resolved",
    ),
    unknown=_one(
        "an event of next year", "{teleported:{from:1,to:2}}", "freshdesk.teleported", {"change": "{from:1,to:2}"}
    ),
    non_ascii=_one(
        "a type in Greek", "{ticket_action:created}", "ticket.created", {"ticket_type": "Ζημιά"}, ticket_type="Ζημιά"
    ),
    times=(_one("there is none: the time is that of arrival", "{reply_sent:sent}", "ticket.replied_by_agent"),),
    malformed=Case("no ticket", json_body({"freshdesk_webhook": {"triggered_event": "{a:b}"}}), rejected=1),
    others=(
        _one("opened again", "{status:{from:5,to:2}}", "ticket.reopened", {"previous_status": "closed"}),
        _one("waiting", "{status:{from:2,to:3}}", "ticket.status_changed", ticket_status="Pending"),
        _one(
            "a status without its word",
            "{status:{from:2,to:4}}",
            "ticket.solved",
            {"status": "resolved"},
            ticket_status=None,
        ),
        _one("closed, from nobody knows what", "{status:{to:5}}", "ticket.status_changed", ticket_status="Closed"),
        _one("a public note is an agent's", "{note_type:public}", "ticket.replied_by_agent"),
        _one(
            "unless the rule says otherwise",
            "{note_type:public}",
            "ticket.replied_by_customer",
            performed_by="requester",
        ),
        _one("a private note", "{note_type:private}", "freshdesk.note_added"),
        _one("assigned", "{responder_id:{from:,to:7}}", "ticket.assigned"),
        _one("deleted", "{ticket_action:deleted}", "ticket.status_changed", {"status": "deleted"}),
        _one("no event at all", None, "freshdesk.other"),
        _one("very unhappy", "{customer_feedback:-103}", "csat.submitted", {"rating": 1, "scale": 5, "rated": "-103"}),
        _one("happy, said by the rule", "{x:y}", "csat.submitted", {"rating": 5, "rated": 103}, rating=103),
        _one("a neutral face", "{x:y}", "csat.submitted", {"rating": 3}, rating="100"),
        Case(
            "without the wrapper, with names of contacts",
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
