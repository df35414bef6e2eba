"""Fixture of the Amazon SES connector: SNS notifications signed with a generated RSA key and its certificate."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from app.connectors.tools.ses import CONNECTOR
from tests.support.tool_fixture import Case, Fixture, SignedWith, Touchpoint

OTHER_SECRET = "another key"
CERTIFICATE_URL = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem"
SUBSCRIBE_URL = "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=ses&Token=t-1"
TOPIC = "arn:aws:sns:eu-west-1:123456789012:ses"

_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
_OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])


def certificate(
    valid_from: datetime,
    valid_until: datetime,
    names: Sequence[str] = ("sns.amazonaws.com",),
    issuer: tuple[x509.Certificate, rsa.RSAPrivateKey] | None = None,
) -> bytes:
    """Return a certificate of the key with which the notifications are signed, without a chain.

    ``issuer`` is the certificate and the key that sign it; if None, the certificate signs itself.
    """
    issuer_name, issuer_key = (_NAME, _KEY) if issuer is None else (issuer[0].subject, issuer[1])
    builder = x509.CertificateBuilder(issuer_name, _NAME, _KEY.public_key(), 1, valid_from, valid_until)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False)
    if issuer is not None:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        builder = builder.add_extension(identifier, False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
    return builder.sign(issuer_key, SHA256()).public_bytes(Encoding.PEM)


def authority(
    name: str,
    valid_from: datetime,
    valid_until: datetime,
    issuer: tuple[x509.Certificate, rsa.RSAPrivateKey] | None = None,
) -> tuple[x509.Certificate, rsa.RSAPrivateKey]:
    """Return a certificate authority: its certificate, signed by ``issuer`` or by itself, and its key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer_name, issuer_key = (subject, key) if issuer is None else (issuer[0].subject, issuer[1])
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    builder = (
        x509.CertificateBuilder(issuer_name, subject, key.public_key(), 2, valid_from, valid_until)
        .add_extension(x509.BasicConstraints(True, None), True)
        .add_extension(usage, True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False)
    )
    return builder.sign(issuer_key, SHA256()), key


CERTIFICATE = certificate(datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))


def seal(body: bytes, secret: str, now: int, url: str) -> bytes:
    """Return the notification, signed with SHA-1 (SignatureVersion 1) or SHA-256 (SignatureVersion 2)."""
    del url
    message = json.loads(body)
    message["Timestamp"] = datetime.fromtimestamp(now / 1_000_000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
    message.setdefault("SigningCertURL", CERTIFICATE_URL)
    names = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
    if message["Type"] != "Notification":
        names = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    text = "".join(f"{name}\n{message[name]}\n" for name in names if name in message)
    key = _OTHER_KEY if secret == OTHER_SECRET else _KEY
    digest = SHA256() if message["SignatureVersion"] == "2" else SHA1()
    message["Signature"] = b64encode(key.sign(text.encode(), PKCS1v15(), digest)).decode()
    return json.dumps(message).encode()


def sign(body: bytes, secret: str, now: int, url: str) -> SignedWith:
    del secret, now, url
    message = json.loads(body)
    return {"x-amz-sns-message-type": message["Type"], "x-amz-sns-message-id": message["MessageId"]}, {}


def notification(message: str, version: str = "2", **more: object) -> bytes:
    members = {"Type": "Notification", "MessageId": "n-1", "TopicArn": TOPIC, "Message": message}
    return json.dumps(members | {"SignatureVersion": version, "Subject": "Amazon SES"} | more).encode()


def _event(kind: str, member: str, detail: dict[str, object], name: str = "eventType", **mail: object) -> bytes:
    members = {
        "messageId": "m-1",
        "timestamp": "2026-05-04T09:59:00.000Z",
        "source": "shop@example.com",
        "destination": ["user@example.com"],
        "commonHeaders": {"subject": "Spring"},
        "tags": {"ses:configuration-set": ["news"], "campaign": ["spring"], "user_id": ["user-1"]},
    }
    return notification(json.dumps({name: kind, "mail": members | mail, member: detail}) + "\n")


_HEADERS = {"content-type": "text/plain; charset=UTF-8"}
_WHO = "email:user@example.com"
_AT = "2026-05-04T10:00:00Z"
_FIREFOX = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Firefox/128.0"


def _one(
    about: str,
    name: str,
    body: bytes,
    properties: dict[str, object] | None = None,
    at: str = _AT,
    accepted: int | None = None,
) -> Case:
    touchpoint = Touchpoint(name, "email", at, properties or {})
    return Case(about, body, _WHO, (touchpoint,), headers=_HEADERS, accepted=accepted)


_TIMED: dict[str, object] = {"timestamp": "2026-05-04T10:00:00.000Z"}
_THREE_RECIPIENTS = ["user@example.com", "two@example.com", "three@example.com"]

FIXTURE = Fixture(
    kind="ses",
    secret="",
    other_secret=OTHER_SECRET,
    sign=sign,
    seal=seal,
    options={"topics": f"arn:aws:sns:eu-west-1:123456789012:other, {TOPIC}"},
    certificates={CERTIFICATE_URL: CERTIFICATE, SUBSCRIBE_URL: b"<ConfirmSubscriptionResponse/>"},
    stale_seconds=86_400,
    sample=Case(
        "a click",
        CONNECTOR.sample,
        _WHO,
        (
            Touchpoint(
                "email.clicked",
                "email",
                _AT,
                {"link": "https://example.com/p", "campaign": "spring", "email_id": "m-1", "machine": False},
            ),
        ),
        headers=_HEADERS,
    ),
    several=_one(
        "a bounce of two of three recipients",
        "email.bounced",
        _event(
            "Bounce",
            "bounce",
            _TIMED
            | {
                "bounceType": "Permanent",
                "bounceSubType": "General",
                "bouncedRecipients": [
                    {"emailAddress": "user@example.com", "status": "5.1.1", "diagnosticCode": "smtp; 550 5.1.1"},
                    {"emailAddress": "two@example.com"},
                ],
            },
            "notificationType",
            destination=_THREE_RECIPIENTS,
        ),
        {"bounce_type": "Permanent", "reason": "General", "code": "5.1.1", "details": "smtp; 550 5.1.1"},
        accepted=2,
    ),
    unknown=_one("an unknown event type", "ses.teleported", _event("Teleported", "teleported", _TIMED)),
    non_ascii=_one(
        "a subject in Greek",
        "email.delivered",
        _event(
            "Delivery",
            "delivery",
            _TIMED | {"recipients": ["user@example.com"]},
            commonHeaders={"subject": "καλημέρα"},
        ),
        {"subject": "καλημέρα"},
    ),
    times=(
        _one(
            "an event without a time uses the notification's time",
            "email.sent",
            _event("Send", "send", {}),
            {"campaign": "spring", "subject": "Spring", "metadata": {"campaign": "spring", "user_id": "user-1"}},
            "2026-05-05T12:00:00Z",
        ),
        _one(
            "an invalid time",
            "email.delivered",
            _event("Delivery", "delivery", {"timestamp": "yesterday", "recipients": ["user@example.com"]}),
            at="2026-05-05T12:00:00Z",
        ),
    ),
    malformed=Case("no event", notification("{}"), headers=_HEADERS, rejected=1),
    others=(
        Case("a Message that is not JSON", notification("What a lovely day."), headers=_HEADERS, rejected=1),
        Case(
            "the validation message of a topic",
            notification("Successfully validated SNS topic for Amazon SES event publishing."),
            headers=_HEADERS,
        ),
        Case(
            "the confirmation of a subscription",
            notification('{"notificationType":"AmazonSnsSubscriptionSucceeded","message":"You have subscribed."}'),
            headers=_HEADERS,
            ignored=1,
        ),
        _one(
            "an open of an e-mail to several recipients",
            "email.opened",
            _event(
                "Open",
                "open",
                _TIMED | {"userAgent": _FIREFOX, "ipAddress": "192.0.2.1"},
                destination=_THREE_RECIPIENTS,
            ),
            {"machine": False},
            accepted=3,
        ),
        _one(
            "a click by a scanner",
            "email.clicked",
            _event("Click", "click", _TIMED | {"userAgent": "Barracuda Sentinel", "link": "https://example.com/p"}),
            {"machine": True},
        ),
        _one(
            "a temporary bounce",
            "email.deferred",
            _event(
                "Bounce",
                "bounce",
                _TIMED | {"bounceType": "Transient", "bouncedRecipients": [{"emailAddress": "user@example.com"}]},
            ),
        ),
        _one(
            "a complaint",
            "email.complained",
            _event(
                "Complaint",
                "complaint",
                _TIMED
                | {
                    "complainedRecipients": [{"emailAddress": "User <user@example.com>"}],
                    "complaintFeedbackType": "abuse",
                },
                destination=_THREE_RECIPIENTS,
            ),
            {"reason": "abuse"},
        ),
        _one(
            "a delay",
            "email.deferred",
            _event(
                "DeliveryDelay",
                "deliveryDelay",
                _TIMED | {"delayType": "MailboxFull", "delayedRecipients": [{"emailAddress": "user@example.com"}]},
            ),
            {"reason": "MailboxFull"},
        ),
        _one("rejected", "email.failed", _event("Reject", "reject", _TIMED | {"reason": "Bad content"})),
        _one(
            "a rendering failure",
            "email.failed",
            _event("Rendering Failure", "failure", _TIMED | {"errorMessage": "no attribute", "templateName": "t"}),
            {"reason": "no attribute"},
        ),
        _one(
            "unsubscribed",
            "email.unsubscribed",
            _event("Subscription", "subscription", _TIMED | {"newTopicPreferences": {"unsubscribeAll": True}}),
        ),
        _one(
            "signature version 1",
            "email.delivered",
            notification(
                json.dumps(
                    {"notificationType": "Delivery", "mail": {}, "delivery": _TIMED | {"recipients": _THREE_RECIPIENTS}}
                ),
                "1",
            ),
            accepted=3,
        ),
    ),
)
