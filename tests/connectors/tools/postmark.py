"""Fixture of the Postmark connector: a token in the URL, and times with seven digits and an offset."""

from __future__ import annotations

from app.connectors.tools.postmark import CONNECTOR
from tests.support.tool_fixture import Case, Fixture, SignedWith, Touchpoint, json_body


def sign(body: bytes, secret: str, now: int, url: str) -> SignedWith:
    del body, now, url
    return {}, {"token": secret}


_WHO = "email:user@example.com"
_FIREFOX = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Firefox/128.0"
_COMMON = {"MessageID": "m-1", "ServerID": 23, "MessageStream": "outbound", "Tag": "welcome"}


def _one(
    about: str, name: str, record: dict[str, object], at: str, properties: dict[str, object] | None = None
) -> Case:
    return Case(about, json_body(_COMMON | record), _WHO, (Touchpoint(name, "email", at, properties or {}),))


def _change(about: str, name: str, **more: object) -> Case:
    record = {"RecordType": "SubscriptionChange", "Recipient": "user@example.com", "ChangedAt": "2026-05-04T10:00:00Z"}
    return _one(about, name, record | more, "2026-05-04T10:00:00Z")


def _bounce(kind: str, **more: object) -> dict[str, object]:
    return {
        "RecordType": "Bounce",
        "ID": 901542550,
        "Type": kind,
        "Email": "user@example.com",
        "From": "shop@example.com",
        "BouncedAt": "2026-05-04T06:00:00.3963933-04:00",
        "Description": "The server was unable to deliver your message.",
        "Details": "smtp;550 5.1.1",
        "Subject": "Spring",
        **more,
    }


_DELIVERY: dict[str, object] = {"RecordType": "Delivery", "Recipient": "user@example.com", "Details": "250 OK"}
_OPEN = {"RecordType": "Open", "Recipient": "user@example.com", "FirstOpen": True, "ReceivedAt": "2026-05-04T10:00:00Z"}
_BOUNCED_AT = "2026-05-04T10:00:00.396393Z"

FIXTURE = Fixture(
    kind="postmark",
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
                "2026-05-04T10:00:00.906561Z",
                {
                    "link": "https://example.com/p",
                    "tags": ["welcome"],
                    "email_id": "f4830d10-9c35-4f0c-bca3-3d9b459821f8",
                    "metadata": {"user_id": "user-1"},
                    "machine": False,
                    "message_stream": "outbound",
                },
            ),
        ),
        identities=(_WHO, "user_id:user-1"),
    ),
    several=_one(
        "a bounce, whose recipient is the member Email",
        "email.bounced",
        _bounce("HardBounce"),
        _BOUNCED_AT,
        {"bounce_type": "HardBounce", "subject": "Spring", "details": "smtp;550 5.1.1"},
    ),
    unknown=_one(
        "an unknown event type",
        "postmark.teleported",
        {"RecordType": "Teleported", "Recipient": "user@example.com", "ReceivedAt": "2026-05-04T10:00:00Z"},
        "2026-05-04T10:00:00Z",
    ),
    non_ascii=_one(
        "a tag in Greek", "email.opened", _OPEN | {"Tag": "καλημέρα"}, "2026-05-04T10:00:00Z", {"tags": ["καλημέρα"]}
    ),
    times=(
        _one(
            "seven digits and an offset",
            "email.delivered",
            _DELIVERY | {"DeliveredAt": "2026-05-04T06:00:00.2735393-04:00"},
            "2026-05-04T10:00:00.273539Z",
        ),
        _one(
            "no fraction",
            "email.delivered",
            _DELIVERY | {"DeliveredAt": "2026-05-04T10:00:00Z"},
            "2026-05-04T10:00:00Z",
        ),
        _one("an invalid time", "email.delivered", _DELIVERY | {"DeliveredAt": "yesterday"}, "2026-05-05T12:00:00Z"),
    ),
    malformed=Case("no RecordType", json_body({"Recipient": "user@example.com"}), rejected=1),
    others=(
        Case("not JSON", b"RecordType=Open", rejected=1),
        _one("a temporary bounce", "email.deferred", _bounce("Transient"), _BOUNCED_AT),
        _one(
            "a complaint",
            "email.complained",
            _bounce("SpamComplaint") | {"RecordType": "SpamComplaint"},
            _BOUNCED_AT,
        ),
        _one(
            "an open by a person",
            "email.opened",
            _OPEN | {"UserAgent": _FIREFOX},
            "2026-05-04T10:00:00Z",
            {"machine": False, "first_open": True},
        ),
        _one(
            "an open by Apple's privacy proxy",
            "email.opened",
            _OPEN | {"UserAgent": "Mozilla/5.0"},
            "2026-05-04T10:00:00Z",
            {"machine": True},
        ),
        _change("unsubscribed", "email.unsubscribed", SuppressSending=True, SuppressionReason="ManualSuppression"),
        _change("suppressed after a bounce", "email.bounced", SuppressSending=True, SuppressionReason="HardBounce"),
        _change(
            "suppressed after a complaint", "email.complained", SuppressSending=True, SuppressionReason="SpamComplaint"
        ),
        _change("resubscribed", "email.resubscribed", SuppressSending=False, SuppressionReason=None),
        Case(
            "an inbound e-mail",
            json_body(
                {
                    "FromName": "User",
                    "From": "user@example.com",
                    "FromFull": {"Email": "user@example.com", "Name": "User", "MailboxHash": ""},
                    "To": "shop@example.com",
                    "Subject": "Where is it?",
                    "MessageID": "m-9",
                    "Date": "Mon, 4 May 2026 12:00:00 +0200",
                    "TextBody": "I have waited for a week.\n\n> Your order",
                    "StrippedTextReply": "I have waited for a week.",
                    "Attachments": [{"Name": "photo.png"}],
                }
            ),
            _WHO,
            (
                Touchpoint(
                    "email.received",
                    "email",
                    "2026-05-04T10:00:00Z",
                    {"email_id": "m-9", "attachments": 1, "subject": None},
                    {"private": {"subject": "Where is it?", "body": "I have waited for a week."}},
                ),
            ),
        ),
    ),
)
