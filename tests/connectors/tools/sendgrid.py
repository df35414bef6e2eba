"""Fixture of the SendGrid connector: ECDSA of time and body with a generated key pair."""

from __future__ import annotations

from base64 import b64encode

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.connectors.tools.sendgrid import CONNECTOR
from tests.support.tool_fixture import Case, Fixture, SignedWith, Touchpoint, json_body


def _encode_public_key(key: ec.EllipticCurvePrivateKey) -> str:
    return b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


_KEYS = {_encode_public_key(key): key for key in (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))}
_SECRET, _OTHER = _KEYS


def sign(body: bytes, secret: str, now: int, url: str) -> SignedWith:
    del url
    time = str(now // 1_000_000)
    signature = b64encode(_KEYS[secret].sign(time.encode() + body, ec.ECDSA(SHA256()))).decode()
    headers = {
        "X-Twilio-Email-Event-Webhook-Signature": signature,
        "X-Twilio-Email-Event-Webhook-Timestamp": time,
    }
    return headers, {}


def _event(kind: str, n: int, **more: object) -> dict[str, object]:
    return {"email": "user@example.com", "timestamp": 1777888800 + n, "event": kind, "sg_event_id": f"e-{n}", **more}


_AT = "2026-05-04T10:00:00Z"
_FIREFOX = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Firefox/128.0"

FIXTURE = Fixture(
    kind="sendgrid",
    secret=_SECRET,
    other_secret=_OTHER,
    sign=sign,
    stale_seconds=2 * 86_400,
    sample=Case(
        "a click",
        CONNECTOR.sample,
        "email:user@example.com",
        (
            Touchpoint(
                "email.clicked",
                "email",
                _AT,
                {
                    "link": "https://example.com/p",
                    "tags": ["news"],
                    "machine": False,
                    "email_id": "abc.filter0001.1.2.0",
                },
            ),
        ),
        identities=("email:user@example.com", "user_id:user-1"),
    ),
    several=Case(
        "every event type, in one array",
        json_body(
            [
                _event("processed", 0),
                _event("delivered", 1),
                _event("deferred", 2),
                _event("bounce", 3),
                _event("bounce", 4, type="blocked"),
                _event("dropped", 5),
                _event("open", 6, sg_machine_open=True),
                _event("open", 7, useragent="Mozilla/5.0"),
                _event("spamreport", 8),
                _event("unsubscribe", 9),
                _event("group_unsubscribe", 10, asm_group_id=7),
                _event("group_resubscribe", 11, asm_group_id=7),
            ]
        ),
        "email:user@example.com",
        (
            Touchpoint("email.sent", "email", _AT),
            Touchpoint("email.delivered", "email", "2026-05-04T10:00:01Z"),
            Touchpoint("email.deferred", "email", "2026-05-04T10:00:02Z"),
            Touchpoint("email.bounced", "email", "2026-05-04T10:00:03Z"),
            Touchpoint("email.deferred", "email", "2026-05-04T10:00:04Z"),
            Touchpoint("email.dropped", "email", "2026-05-04T10:00:05Z"),
            Touchpoint("email.opened", "email", "2026-05-04T10:00:06Z", {"machine": True}),
            Touchpoint("email.opened", "email", "2026-05-04T10:00:07Z", {"machine": True}),
            Touchpoint("email.complained", "email", "2026-05-04T10:00:08Z"),
            Touchpoint("email.unsubscribed", "email", "2026-05-04T10:00:09Z"),
            Touchpoint("email.unsubscribed", "email", "2026-05-04T10:00:10Z", {"asm_group_id": 7}),
            Touchpoint("email.resubscribed", "email", "2026-05-04T10:00:11Z"),
        ),
    ),
    unknown=Case(
        "an unknown event type",
        json_body([_event("teleported", 0)]),
        "email:user@example.com",
        (Touchpoint("sendgrid.teleported", "email", _AT),),
    ),
    non_ascii=Case(
        "a category in Greek",
        json_body([_event("open", 0, category="καλημέρα", useragent="Mozilla/5.0 (Macintosh) Firefox/128.0")]),
        "email:user@example.com",
        (Touchpoint("email.opened", "email", _AT, {"tags": ["καλημέρα"], "machine": False}),),
    ),
    times=(
        Case(
            "milliseconds, a fraction, text and an invalid time",
            json_body(
                [
                    _event("open", 0) | {"timestamp": 1777888800123},
                    _event("open", 1) | {"timestamp": 1777888801.5},
                    _event("open", 2) | {"timestamp": "1777888802"},
                    _event("open", 3) | {"timestamp": "yesterday"},
                ]
            ),
            "email:user@example.com",
            (
                Touchpoint("email.opened", "email", "2026-05-04T10:00:00.123Z"),
                Touchpoint("email.opened", "email", "2026-05-04T10:00:01.5Z"),
                Touchpoint("email.opened", "email", "2026-05-04T10:00:02Z"),
                Touchpoint("email.opened", "email", "2026-05-05T12:00:00Z"),
            ),
        ),
    ),
    malformed=Case(
        "two invalid events and a valid one",
        json_body([_event("open", 0), {"email": "user@example.com"}, 7]),
        "email:user@example.com",
        (Touchpoint("email.opened", "email", _AT),),
        rejected=2,
    ),
    others=(
        Case(
            "custom arguments as members, and a single send",
            json_body(
                [
                    _event("click", 0, url="https://example.com/p", asm_group_id=7, useragent=_FIREFOX, orderNo="A 1")
                    | {"smtp-id": "<m-1@example.com>", "userId": 7, "singlesend_id": "s-1", "singlesend_name": "Spring"}
                ]
            ),
            "user_id:7",
            (
                Touchpoint(
                    "email.clicked",
                    "email",
                    _AT,
                    {
                        "link": "https://example.com/p",
                        "campaign": "Spring",
                        "campaign_id": "s-1",
                        "orderNo": "A 1",
                        "smtp_id": "<m-1@example.com>",
                        "user_agent": _FIREFOX,
                        "machine": False,
                        "asm_group_id": 7,
                        "ip": None,
                    },
                ),
            ),
            identities=("email:user@example.com", "user_id:7"),
        ),
        Case(
            "custom arguments in unique_args, and a legacy newsletter",
            json_body(
                [
                    _event(
                        "open",
                        0,
                        unique_args={"user_id": "user-1", "event": "the sender's own", "cohort": "b"},
                        newsletter={"newsletter_id": "10557865", "newsletter_user_list_id": "1"},
                    )
                ]
            ),
            "email:user@example.com",
            (Touchpoint("email.opened", "email", _AT, {"cohort": "b", "campaign_id": "10557865", "event": None}),),
            identities=("user_id:user-1",),
        ),
        Case(
            "an account event, which concerns no person",
            json_body([{"event": "account_status_change", "sg_event_id": "e-1", "timestamp": 1777888800, "type": "x"}]),
            ignored=1,
        ),
    ),
)
