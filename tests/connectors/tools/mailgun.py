"""Fixture of the Mailgun connector: the body contains a signature of its time and of a token.

Every attempt has a new token.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from urllib.parse import parse_qsl, urlencode

from app.connectors.tools.mailgun import CONNECTOR
from tests.support.tool_fixture import Case, Fixture, SignedWith, Touchpoint, json_body

_FORM = {"content-type": "application/x-www-form-urlencoded"}


def seal(body: bytes, secret: str, now: int, url: str) -> bytes:
    del url
    time, token = str(now // 1_000_000), secrets.token_hex(25)
    signature = hmac.new(secret.encode(), f"{time}{token}".encode(), hashlib.sha256).hexdigest()
    proof = {"timestamp": time, "token": token, "signature": signature}
    if not body.startswith(b"{"):
        return urlencode([*parse_qsl(body.decode(), keep_blank_values=True), *proof.items()]).encode()
    return json.dumps({**json.loads(body), "signature": proof}, ensure_ascii=False).encode()


def sign(body: bytes, secret: str, now: int, url: str) -> SignedWith:
    del body, secret, now, url
    return {}, {}


def _body(event: str, **more: object) -> bytes:
    headers = {"message-id": "m1@example.com", "subject": "Spring", "to": "user@example.com"}
    members = {
        "event": event,
        "id": f"id-{event}",
        "timestamp": 1777888800.153125,
        "recipient": "user@example.com",
        "message": {"headers": headers, "size": 809},
        "tags": [],
        "campaigns": [],
        "user-variables": {},
        "flags": {"is-test-mode": False},
    }
    return json_body({"event-data": members | more})


_WHO = "email:user@example.com"
_AT = "2026-05-04T10:00:00.153125Z"
_FIREFOX = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Firefox/128.0"


def _one(about: str, name: str, event: str, properties: dict[str, object] | None = None, **more: object) -> Case:
    return Case(about, _body(event, **more), _WHO, (Touchpoint(name, "email", _AT, properties or {}),))


FIXTURE = Fixture(
    kind="mailgun",
    secret="key-signing",
    sign=sign,
    seal=seal,
    covers_body=False,
    stale_seconds=12 * 3_600,
    sample=Case(
        "a deferred delivery",
        CONNECTOR.sample,
        _WHO,
        (
            Touchpoint(
                "email.deferred",
                "email",
                "2026-05-04T10:00:00.153Z",
                {
                    "email_id": "m1@example.com",
                    "tags": ["news"],
                    "reason": "generic",
                    "code": 452,
                    "details": "try later",
                    "metadata": {"user_id": "user-1"},
                },
            ),
        ),
        identities=(_WHO, "user_id:user-1"),
    ),
    several=_one(
        "a click with campaign and user variables",
        "email.clicked",
        "clicked",
        {"link": "https://example.com/p", "machine": False, "campaign": "Spring", "campaign_id": "c1"},
        **{
            "url": "https://example.com/p",
            "client-info": {"client-type": "browser", "user-agent": _FIREFOX, "bot": ""},
            "campaigns": [{"id": "c1", "name": "Spring"}],
            "ip": "203.0.113.9",
            "geolocation": {"country": "DE"},
        },
    ),
    unknown=_one("an unknown event type", "mailgun.teleported", "teleported"),
    non_ascii=_one("a tag in Greek", "email.opened", "opened", {"tags": ["καλημέρα"]}, tags=["καλημέρα"]),
    times=(
        Case(
            "whole seconds",
            _body("delivered", timestamp=1777888800),
            _WHO,
            (Touchpoint("email.delivered", "email", "2026-05-04T10:00:00Z"),),
        ),
        Case(
            "text",
            _body("delivered", timestamp="1777888800.5"),
            _WHO,
            (Touchpoint("email.delivered", "email", "2026-05-04T10:00:00.5Z"),),
        ),
        Case(
            "an invalid time",
            _body("delivered", timestamp="yesterday"),
            _WHO,
            (Touchpoint("email.delivered", "email", "2026-05-05T12:00:00Z"),),
        ),
    ),
    malformed=Case("no event", json_body({"event-data": {"recipient": "user@example.com"}}), rejected=1),
    others=(
        Case("no event-data object", json_body({"event-data": []}), rejected=1),
        _one("accepted", "email.sent", "accepted"),
        _one("rejected", "email.dropped", "rejected", {"reason": "old"}, reason="old"),
        _one("a permanent failure", "email.bounced", "failed", {"severity": "permanent"}, severity="permanent"),
        _one("a failure without delivery-status", "email.bounced", "failed", **{"delivery-status": None}),
        _one("unsubscribed", "email.unsubscribed", "unsubscribed"),
        _one("complained", "email.complained", "complained"),
        _one(
            "an open that Mailgun reports as Apple's privacy proxy",
            "email.opened",
            "opened",
            {"machine": True},
            **{"client-info": {"bot": "apple", "user-agent": _FIREFOX}},
        ),
        _one(
            "an open by Gmail's proxy",
            "email.opened",
            "opened",
            {"machine": True},
            **{"client-info": {"user-agent": "Mozilla/5.0 (Windows NT 5.1) GoogleImageProxy"}},
        ),
        Case(
            "form fields of an old account, with a variable of the sender that has the same name",
            urlencode(
                [
                    ("event", "dropped"),
                    ("recipient", "user@example.com"),
                    ("domain", "example.com"),
                    ("code", "605"),
                    ("reason", "hardfail"),
                    ("description", "Not delivering to previously bounced address"),
                    ("message-headers", '[["Subject", "Spring"], ["To", "user@example.com"]]'),
                    ("Message-Id", "<m2@example.com>"),
                    ("user_id", "user-1"),
                    ("token", "the sender's own"),
                    ("event", "the sender's own"),
                ]
            ).encode(),
            _WHO,
            (
                Touchpoint(
                    "email.dropped",
                    "email",
                    "2026-05-05T12:00:00Z",
                    {
                        "email_id": "m2@example.com",
                        "subject": "Spring",
                        "reason": "hardfail",
                        "code": "605",
                        "details": "Not delivering to previously bounced address",
                    },
                ),
            ),
            identities=(_WHO, "user_id:user-1"),
            headers=_FORM,
        ),
    ),
)
