"""Segue accepts the signatures of the vendors' libraries, and these libraries accept Segue's signatures."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import standardwebhooks
import svix
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hubspot.utils.signature import Signature  # type: ignore[import-untyped]  # it ships no types
from sendgrid.helpers.eventwebhook import EventWebhook, EventWebhookHeader  # type: ignore[import-untyped]  # it ships no types

from app.connectors.signatures import STANDARD, SignatureRefused
from app.connectors.tools import CONNECTORS
from app.connectors.webhook_request import WebhookRequest

SENDGRID, HUBSPOT = CONNECTORS["sendgrid"], CONNECTORS["hubspot"]
KEY = b64encode(bytes(range(32))).decode()
SECRET = f"whsec_{KEY}"
OTHER = f"whsec_{b64encode(bytes(range(1, 33))).decode()}"
BODY = '{"type":"invoice.paid","data":{"note":"größer"}}'
NOW = datetime(2026, 5, 5, 12, tzinfo=UTC)
MICROSECONDS = int(NOW.timestamp()) * 1_000_000


def _delivery(signature: str, *, names: str = "webhook", body: str = BODY, at: datetime = NOW) -> WebhookRequest:
    headers = {
        f"{names}-id": "msg_1",
        f"{names}-timestamp": str(int(at.timestamp())),
        f"{names}-signature": signature,
    }
    return WebhookRequest(body=body.encode(), headers=headers, received_at=MICROSECONDS)


def _reason(delivery: WebhookRequest, secret: str = SECRET) -> str:
    with pytest.raises(SignatureRefused) as refused:
        STANDARD.verify(delivery, STANDARD.normalise_secret(secret))
    return refused.value.reason


@pytest.mark.parametrize("library", [standardwebhooks.Webhook, svix.Webhook])
@pytest.mark.parametrize("names", ["webhook", "svix"])
@pytest.mark.parametrize("secret", [SECRET, f"  {SECRET} ", KEY, SECRET.rstrip("=")])
def test_standard_webhooks_accepts_library_signatures(library: type, names: str, secret: str) -> None:
    signature = library(SECRET).sign("msg_1", NOW, BODY)
    STANDARD.verify(_delivery(signature, names=names), STANDARD.normalise_secret(secret))


@pytest.mark.parametrize("library", [standardwebhooks.Webhook, svix.Webhook])
def test_libraries_accept_segue_standard_webhooks_signature(library: type) -> None:
    now = datetime.now(UTC)  # The libraries read the system clock.
    assert STANDARD.sign is not None
    signed = STANDARD.sign(WebhookRequest(body=BODY.encode(), received_at=int(now.timestamp() * 1_000_000)), SECRET)
    library(SECRET).verify(BODY, dict(signed.headers))
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        library(OTHER).verify(BODY, dict(signed.headers))
    STANDARD.verify(signed, SECRET)


def test_standard_webhooks_accepts_one_of_several_signatures() -> None:
    right, wrong = (standardwebhooks.Webhook(secret).sign("msg_1", NOW, BODY) for secret in (SECRET, OTHER))
    STANDARD.verify(_delivery(f"v1a,AAAA v7,{right[3:]} {wrong} {right}"), SECRET)
    assert _reason(_delivery(f"v1a,AAAA {wrong} v2,{right[3:]}")) == "wrong"


def test_standard_webhooks_signature_covers_body_id_and_time() -> None:
    signed = _delivery(standardwebhooks.Webhook(SECRET).sign("msg_1", NOW, BODY))
    assert _reason(signed, OTHER) == "wrong"
    assert _reason(msgspec.structs.replace(signed, body=signed.body + b" ")) == "wrong"
    for name, value in (("webhook-id", "msg_2"), ("webhook-timestamp", str(int(NOW.timestamp()) + 1))):
        assert _reason(msgspec.structs.replace(signed, headers={**signed.headers, name: value})) == "wrong"
    for name in signed.headers:
        remaining = {header: value for header, value in signed.headers.items() if header != name}
        assert _reason(msgspec.structs.replace(signed, headers=remaining)) == "missing"


@pytest.mark.parametrize(("seconds", "holds"), [(-301, False), (-300, True), (300, True), (301, False)])
def test_standard_webhooks_tolerates_five_minutes(seconds: int, holds: bool) -> None:
    at = NOW + timedelta(seconds=seconds)
    delivery = _delivery(standardwebhooks.Webhook(SECRET).sign("msg_1", at, BODY), at=at)
    if holds:
        STANDARD.verify(delivery, SECRET)
    else:
        assert _reason(delivery) == "stale"


def test_standard_webhooks_verifies_ed25519() -> None:
    private, stranger = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    public = "whpk_" + b64encode(private.public_key().public_bytes_raw()).decode()
    text = f"msg_1.{int(NOW.timestamp())}.{BODY}".encode()
    right, wrong = (f"v1a,{b64encode(key.sign(text)).decode()}" for key in (private, stranger))
    STANDARD.verify(_delivery(f"{wrong} {right}"), STANDARD.normalise_secret(public))
    assert _reason(_delivery(wrong), public) == "wrong"
    assert _reason(_delivery("v1a,no base64"), public) == "wrong"
    assert _reason(_delivery(standardwebhooks.Webhook(SECRET).sign("msg_1", NOW, BODY)), public) == "wrong"
    assert _reason(_delivery(right), SECRET) == "wrong"


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        ("whsk_" + KEY, "private"),
        ("whpk_AAAA", "32 bytes"),
        ("whsec_", "empty"),
        ("", "empty"),
        ("whsec_no base64", "base64"),
    ],
)
def test_standard_webhooks_invalid_secret_is_refused(secret: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        STANDARD.normalise_secret(secret)


# ------------------------------------------------------------------------------------------------------ SendGrid


def _create_sendgrid_key() -> tuple[EllipticCurvePrivateKey, str]:
    private = generate_private_key(SECP256R1())
    public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return private, b64encode(public).decode()


def test_sendgrid_helper_and_connector_agree() -> None:
    """SendGrid's helper and the connector read the same headers, and agree on which signatures are valid."""
    (private, public), (stranger, _) = _create_sendgrid_key(), _create_sendgrid_key()
    helper = EventWebhook(public)
    time = str(int(NOW.timestamp()))
    for body, signer, signed, holds in (
        (BODY, private, BODY, True),
        ("[]\r\n", private, "[]\r\n", True),
        (BODY, private, BODY + " ", False),
        (BODY, stranger, BODY, False),
    ):
        signature = b64encode(signer.sign((time + signed).encode(), ECDSA(SHA256()))).decode()
        headers = {EventWebhookHeader.SIGNATURE.lower(): signature, EventWebhookHeader.TIMESTAMP.lower(): time}
        delivery = WebhookRequest(body=body.encode(), headers=headers, received_at=MICROSECONDS)
        assert helper.verify_signature(body, signature, time) is holds
        if holds:
            SENDGRID.scheme.verify(delivery, SENDGRID.scheme.normalise_secret(public))
            continue
        with pytest.raises(SignatureRefused) as refused:
            SENDGRID.scheme.verify(delivery, SENDGRID.scheme.normalise_secret(public))
        assert refused.value.reason == "wrong"


# ------------------------------------------------------------------------------------------------------- HubSpot

URL = "https://segue.example.com/v1/sources/hubspot/webhook"
CLIENT_SECRET = "hubspot-secret"


def _verify_hubspot(body: str, version: str, at: datetime, headers: dict[str, str], **options: str) -> None:
    """Verify a HubSpot request. Raise SignatureRefused if the signature is invalid."""
    received_at = int(at.timestamp() * 1_000_000)
    delivery = WebhookRequest(
        body=body.encode(),
        headers=headers,
        url=URL,
        received_at=received_at,
        options={"signatures": version, **options},
    )
    HUBSPOT.scheme.verify(delivery, HUBSPOT.scheme.normalise_secret(CLIENT_SECRET))


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_hubspot_helper_signatures_are_accepted(version: str) -> None:
    time = str(int(NOW.timestamp() * 1000))
    signature = Signature.get_signature(CLIENT_SECRET, BODY, version, URL, "POST", time)
    headers = (
        {"x-hubspot-signature-v3": signature, "x-hubspot-request-timestamp": time}
        if version == "v3"
        else {"x-hubspot-signature": signature, "x-hubspot-signature-version": version}
    )
    _verify_hubspot(BODY, version, NOW, headers)
    _verify_hubspot(BODY, version, NOW, headers, url=URL)
    for body, other in ((BODY + " ", headers), (BODY, {**headers, next(iter(headers)): signature[::-1]})):
        with pytest.raises(SignatureRefused) as refused:
            _verify_hubspot(body, version, NOW, other)
        assert refused.value.reason == "wrong"


def test_hubspot_helper_accepts_segue_signature() -> None:
    now = datetime.now(UTC)  # The helper reads the system clock.
    assert HUBSPOT.scheme.sign is not None
    signed = HUBSPOT.scheme.sign(
        WebhookRequest(body=BODY.encode(), url=URL, received_at=int(now.timestamp() * 1_000_000)), CLIENT_SECRET
    )
    time, signature = (signed.headers[f"x-hubspot-{name}"] for name in ("request-timestamp", "signature-v3"))
    assert Signature.is_valid(signature, CLIENT_SECRET, BODY, URL, "POST", "v3", time)
    assert not Signature.is_valid(signature, "another", BODY, URL, "POST", "v3", time)
    assert not Signature.is_valid(signature, CLIENT_SECRET, BODY + " ", URL, "POST", "v3", time)
