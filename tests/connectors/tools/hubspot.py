"""Fixture of the HubSpot connector: signature v3; test_email_tools.py covers v1, v2 and HubSpot's own helper."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode

from app.connectors.tools.hubspot import CONNECTOR
from tests.support.tool_fixture import Case, Fixture, SignedWith, Touchpoint, json_body


def sign(body: bytes, secret: str, now: int, url: str) -> SignedWith:
    time = str(now // 1_000)
    mac = hmac.new(secret.encode(), b"POST" + url.encode() + body + time.encode(), hashlib.sha256).digest()
    return {"X-HubSpot-Request-Timestamp": time, "X-HubSpot-Signature-v3": b64encode(mac).decode()}, {}


_CONTACT = "hubspot_contact:33:1246965"
_EMAIL = "email:user@example.com"
_AT = "2026-05-04T10:00:00Z"
_FIREFOX = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Firefox/128.0"


def _event(kind: str, n: int = 0, **more: object) -> dict[str, object]:
    members = {"eventId": 100 + n, "subscriptionId": 25, "portalId": 33, "appId": 1160452, "attemptNumber": 0}
    return members | {"occurredAt": 1777888800000 + n * 1000, "subscriptionType": kind, "objectId": 1246965} | more


def _changed(name: str, value: str, n: int = 0, **more: object) -> dict[str, object]:
    return _event("contact.propertyChange", n, propertyName=name, propertyValue=value, changeSource="CRM", **more)


def _mail(kind: str, n: int = 0, **more: object) -> dict[str, object]:
    members = {"id": f"m-{n}", "created": 1777888800000 + n * 1000, "type": kind, "recipient": "user@example.com"}
    return members | {"emailCampaignId": 12, "portalId": 33} | more


def _seconds(name: str, n: int, properties: dict[str, object] | None = None) -> Touchpoint:
    return Touchpoint(name, "email", f"2026-05-04T10:00:{n:02}Z", properties or {})


def _one(
    about: str,
    name: str,
    event: dict[str, object],
    channel: str = "server",
    properties: dict[str, object] | None = None,
    at: str = _AT,
) -> Case:
    return Case(about, json_body([event]), _CONTACT, (Touchpoint(name, channel, at, properties or {}),))


FIXTURE = Fixture(
    kind="hubspot",
    secret="client-secret",
    sign=sign,
    stale_seconds=300,
    sample=Case(
        "a contact becomes a customer",
        CONNECTOR.sample,
        _CONTACT,
        (Touchpoint("lifecycle_stage.changed", "server", _AT, {"stage": "customer", "change_source": "CRM"}),),
        traits={"lifecycle_stage": "customer"},
        identities=(_CONTACT,),
        accepted=2,
    ),
    several=Case(
        "changes of one contact, two with the same event id",
        json_body(
            [
                _event("contact.creation", 0, changeFlag="CREATED"),
                _changed("email", "user@example.com", 1, eventId=100),
                _changed("firstname", "User", 2),
                _changed("favourite_colour", "red", 3),
                _changed("favourite_colour", "", 4),
                _changed("lifecyclestage", "lead", 6),
                _changed("lifecyclestage", "opportunity", 5),
                _event("company.creation", 7, objectId=1),
                _event("deal.propertyChange", 8, objectId=2, propertyName="dealstage", propertyValue="won"),
            ]
        ),
        _EMAIL,
        (
            Touchpoint("contact.created", "server", _AT),
            Touchpoint("lifecycle_stage.changed", "server", "2026-05-04T10:00:05Z", {"stage": "opportunity"}),
            Touchpoint("lifecycle_stage.changed", "server", "2026-05-04T10:00:06Z", {"stage": "lead"}),
        ),
        traits={"first_name": "User", "lifecycle_stage": "lead", "favourite_colour": None},
        identities=(_CONTACT, _EMAIL),
        accepted=9,
        ignored=2,
    ),
    unknown=_one("an unknown event type", "hubspot.contact_teleported", _event("contact.teleported")),
    non_ascii=Case(
        "a name in Greek",
        json_body([_changed("firstname", "Ελένη")]),
        _CONTACT,
        traits={"first_name": "Ελένη"},
        accepted=1,
    ),
    times=(
        _one("seconds", "contact.created", _event("contact.creation", occurredAt=1777888800)),
        _one("text", "contact.created", _event("contact.creation", occurredAt="2026-05-04T10:00:00.000Z")),
        _one(
            "an invalid time", "contact.created", _event("contact.creation", occurredAt="-"), at="2026-05-05T12:00:00Z"
        ),
    ),
    malformed=Case(
        "two invalid events and a valid one",
        json_body([_event("contact.creation"), {"eventId": 1, "objectId": 1246965}, "contact.creation"]),
        _CONTACT,
        (Touchpoint("contact.created", "server", _AT),),
        rejected=2,
    ),
    others=(
        Case("a property change without a name", json_body([_event("contact.propertyChange")]), rejected=1),
        _one("the member eventType", "contact.created", _event("", eventType="contact.creation")),
        _one("a generic object of the type contact", "contact.created", _event("object.creation", objectTypeId="0-1")),
        Case(
            "a generic object of the type company",
            json_body([_event("object.creation", objectTypeId="0-2")]),
            ignored=1,
        ),
        _one("deleted", "hubspot.contact_deletion", _event("contact.deletion")),
        Case("a privacy deletion", json_body([_event("contact.privacyDeletion")]), accepted=0),
        Case(
            "a privacy deletion without a contact",
            json_body([_event("contact.privacyDeletion", objectId=None)]),
            rejected=1,
        ),
        Case(
            "a merge of contacts",
            json_body([_event("contact.merge", primaryObjectId=1246965, mergedObjectIds=[7, 8], newObjectId=1246965)]),
            _CONTACT,
            identities=(_CONTACT, "hubspot_contact:33:7", "hubspot_contact:33:8"),
            accepted=1,
        ),
        _one(
            "an association with a company",
            "hubspot.contact_association_change",
            _event(
                "contact.associationChange",
                associationType="CONTACT_TO_COMPANY",
                objectId=None,
                fromObjectId=1246965,
                toObjectId=5,
                associationRemoved=False,
            ),
            properties={"company_id": "5"},
        ),
        _one(
            "an association of a ticket",
            "ticket.created",
            _event(
                "ticket.associationChange",
                associationType="TICKET_TO_CONTACT",
                objectId=None,
                fromObjectId=77,
                toObjectId=1246965,
                associationRemoved=False,
            ),
            "support",
            {"ticket_id": "77"},
        ),
        _one(
            "a ticket change with a contact from a workflow",
            "ticket.status_changed",
            _event(
                "ticket.propertyChange",
                objectId=77,
                contactId=1246965,
                propertyName="hs_pipeline_stage",
                propertyValue="Waiting",
            ),
            "support",
            {"ticket_id": "77", "status": "waiting"},
        ),
        Case(
            "tickets and conversations without a contact",
            json_body([_event("ticket.creation", 0), _event("conversation.newMessage", 1, messageId="x")]),
            ignored=2,
        ),
        Case(
            "e-mail events",
            json_body(
                [
                    _mail("SENT", 0, emailCampaignName="spring", subject="Spring"),
                    _mail("DELIVERED", 1),
                    _mail("DEFERRED", 2),
                    _mail("DROPPED", 3, dropReason="PREVIOUSLY_BOUNCED"),
                    _mail("BOUNCE", 4, category="UNKNOWN_USER", response="550 5.1.1"),
                    _mail("OPEN", 5, userAgent=_FIREFOX),
                    _mail("OPEN", 6, userAgent=_FIREFOX, filteredEvent=True),
                    _mail("CLICK", 7, userAgent=_FIREFOX, url="https://example.com/p"),
                    _mail("SPAMREPORT", 8),
                    _mail("STATUSCHANGE", 9, subscriptions=[{"id": 1, "status": "UNSUBSCRIBED"}]),
                    _mail("STATUSCHANGE", 10, subscriptions=[{"id": 1, "status": "SUBSCRIBED"}]),
                    _mail("PRINT", 11),
                ]
            ),
            _EMAIL,
            (
                _seconds("email.sent", 0, {"campaign": "spring", "campaign_id": 12, "subject": "Spring"}),
                _seconds("email.delivered", 1),
                _seconds("email.deferred", 2),
                _seconds("email.dropped", 3, {"reason": "PREVIOUSLY_BOUNCED"}),
                _seconds("email.bounced", 4, {"reason": "UNKNOWN_USER", "details": "550 5.1.1"}),
                _seconds("email.opened", 5, {"machine": False}),
                _seconds("email.opened", 6, {"machine": True}),
                _seconds("email.clicked", 7, {"link": "https://example.com/p"}),
                _seconds("email.complained", 8),
                _seconds("email.unsubscribed", 9),
                _seconds("email.resubscribed", 10),
                _seconds("hubspot.print", 11),
            ),
        ),
        Case(
            "a contact from a workflow",
            json_body(
                {
                    "vid": 1246965,
                    "portal-id": 33,
                    "properties": {
                        "email": {"value": "user@example.com"},
                        "firstname": {"value": "User"},
                        "lifecyclestage": {"value": "customer"},
                        "lastmodifieddate": {"value": "1777888800000"},
                    },
                }
            ),
            _EMAIL,
            traits={"first_name": "User", "lifecycle_stage": "customer"},
            identities=(_CONTACT, _EMAIL),
            accepted=1,
        ),
    ),
)
