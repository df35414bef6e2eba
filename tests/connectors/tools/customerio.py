"""Fixture of the Customer.io connector: HMAC-SHA256 of version, time and body, in hex."""

from __future__ import annotations

import hashlib
import hmac

from app.connectors.tools.customerio import CONNECTOR
from tests.support.tool_fixture import Case, Fixture, SignedWith, Touchpoint, json_body


def sign(body: bytes, secret: str, now: int, url: str) -> SignedWith:
    del url
    time = str(now // 1_000_000)
    mac = hmac.new(secret.encode(), b"v0:" + time.encode() + b":" + body, hashlib.sha256)
    return {"X-CIO-Timestamp": time, "X-CIO-Signature": mac.hexdigest()}, {}


_WHO = "email:user@example.com"
_AT = "2026-05-04T10:00:00Z"
_IDS = {"id": "user-1", "email": "user@example.com", "cio_id": "d9c106000001"}


def _body(kind: str, metric: str, timestamp: object = 1777888800, **data: object) -> bytes:
    members = {"customer_id": "user-1", "identifiers": _IDS, "delivery_id": "d-1", "recipient": "user@example.com"}
    event = {"event_id": f"e-{kind}-{metric}", "object_type": kind, "metric": metric, "timestamp": timestamp}
    return json_body(event | {"data": members | data})


def _one(
    about: str,
    name: str,
    body: bytes,
    properties: dict[str, object] | None = None,
    *,
    channel: str = "email",
    at: str = _AT,
    who: str = _WHO,
    identities: tuple[str, ...] = (),
) -> Case:
    return Case(about, body, who, (Touchpoint(name, channel, at, properties or {}),), identities=identities)


_METRICS = {
    "sent": "sent",
    "delivered": "delivered",
    "opened": "opened",
    "converted": "converted",
    "bounced": "bounced",
    "dropped": "dropped",
    "suppressed": "dropped",
    "undeliverable": "dropped",
    "deferred": "deferred",
    "failed": "failed",
    "spammed": "complained",
    "unsubscribed": "unsubscribed",
}

FIXTURE = Fixture(
    kind="customerio",
    secret="key-of-the-webhook",
    sign=sign,
    stale_seconds=8 * 86_400,
    sample=Case(
        "a click",
        CONNECTOR.sample,
        _WHO,
        (
            Touchpoint(
                "email.clicked",
                "email",
                _AT,
                {
                    "link": "https://example.com/p",
                    "campaign_id": 9,
                    "email_id": "RPILAgUBcRhIBqSfeiIwdIYJKxTY",
                    "subject": "Hi",
                    "machine": False,
                },
            ),
        ),
        identities=(_WHO, "user_id:user-1", "customerio_customer:d9c106000001"),
    ),
    several=_one(
        "an SMS to a phone number",
        "sms.delivered",
        _body("sms", "delivered", recipient="+493012345678", identifiers={"id": "user-1", "email": None}),
        {"delivery_id": "d-1", "email_id": None},
        channel="sms",
        who="user_id:user-1",
        identities=("phone:+493012345678", "user_id:user-1"),
    ),
    unknown=_one("an unknown metric", "customerio.email_teleported", _body("email", "teleported")),
    non_ascii=_one(
        "a subject in Greek", "email.sent", _body("email", "sent", subject="καλημέρα"), {"subject": "καλημέρα"}
    ),
    times=(
        _one("text", "email.sent", _body("email", "sent", "1777888800")),
        _one("milliseconds", "email.sent", _body("email", "sent", 1777888800250), at="2026-05-04T10:00:00.25Z"),
        _one("an invalid time", "email.sent", _body("email", "sent", "yesterday"), at="2026-05-05T12:00:00Z"),
    ),
    malformed=Case("no metric", json_body({"event_id": "e-1", "object_type": "email", "data": {}}), rejected=1),
    others=(
        Case("no data", json_body({"event_id": "e-1", "object_type": "email", "metric": "sent"}), rejected=1),
        *(_one(f"email {metric}", f"email.{verb}", _body("email", metric)) for metric, verb in _METRICS.items()),
        _one("a push message", "push.opened", _body("push", "opened", recipient="device-token"), channel="push"),
        _one("an in-app message", "in_app.clicked", _body("in_app", "clicked", action_name="buy"), channel="app"),
        _one("a WhatsApp message", "whatsapp.sent", _body("whatsapp", "sent", recipient=""), channel="whatsapp"),
        _one("a Slack message", "slack.sent", _body("slack", "sent", recipient="#shop"), channel="slack"),
        _one("an unsubscription from all messages", "email.unsubscribed", _body("customer", "unsubscribed")),
        _one("a metric of the sender", "customerio.email_attempted", _body("email", "attempted")),
        _one("an unknown object type", "customerio.hologram_sent", _body("hologram", "sent"), channel="server"),
        _one("a prefetched open", "email.opened", _body("email", "opened", prefetched=True), {"machine": True}),
        _one(
            "a payload of the first version",
            "email.clicked",
            json_body(
                {
                    "event_type": "email_clicked",
                    "event_id": "e-0",
                    "timestamp": 1777888800,
                    "data": {
                        "customer_id": "user-1",
                        "email_address": "user@example.com",
                        "email_id": "m-1",
                        "email_subject": "Spring",
                        "campaign_id": "9",
                        "campaign_name": "spring",
                        "href": "https://example.com/p",
                    },
                }
            ),
            {"campaign": "spring", "email_id": "m-1", "subject": "Spring", "link": "https://example.com/p"},
            identities=(_WHO, "user_id:user-1"),
        ),
    ),
)
