"""E-mail connectors: nonces in bodies, certificates, older signature versions, URL probes, and opens by machines."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import certifi
import httpx
import hubspot.utils.signature as vendor
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import Store

from app.config import Settings
from app.connectors.shared import sns_certificate
from app.connectors.shared.email import (
    build_click_properties,
    extract_address,
    find_custom_ids,
    is_machine,
    parse_list,
    parse_object,
)
from app.connectors.shared.sns_certificate import find_valid_public_key
from app.connectors.signatures import SignatureRefused
from app.connectors.tools import CONNECTORS
from app.connectors.webhook_request import WebhookRequest
from app.http.outbound_client import OutboundClient
from tests.connectors.tools import brevo, hubspot, mailchimp, mailgun, ses
from tests.support.tool_fixture import NOW, Case, Fixture
from tests.support.webhook_sender import WebhookSender, running_webhook_sender

MAILGUN, SES, HUBSPOT, BREVO = mailgun.FIXTURE, ses.FIXTURE, hubspot.FIXTURE, brevo.FIXTURE
MAILCHIMP, MANDRILL = mailchimp.FIXTURES


async def _names(tools: WebhookSender, who: str = "email:user@example.com") -> list[str]:
    touchpoints = (await tools.ask("GET", f"/v1/customers/{who}/touchpoints"))["items"]
    return [touchpoint["name"] for touchpoint in touchpoints]


def _reason(response: httpx.Response) -> str:
    """Return the reason for which the webhook was refused. Fail if it was accepted."""
    assert response.status_code == 401, response.text
    reason: str = response.json()["reason"]
    return reason


# Mailgun: the signature covers a token, not the event.


async def test_mailgun_token_is_valid_for_one_body(tools: WebhookSender) -> None:
    secret = await tools.add(MAILGUN)
    sealed = mailgun.seal(MAILGUN.sample.body, secret, NOW, "")
    unsealed = replace(MAILGUN, seal=lambda body, *_: body)
    assert (await tools.send(unsealed, replace(MAILGUN.sample, body=sealed), secret)).json()["accepted"] == 1
    forged = json.loads(sealed)
    forged["event-data"]["event"] = "complained"
    assert _reason(await tools.send(unsealed, Case("forged", json.dumps(forged).encode()), secret)) == "replayed"
    assert (await tools.send(unsealed, replace(MAILGUN.sample, body=sealed), secret)).json()["duplicate"] == 1
    assert await _names(tools) == ["email.deferred"]


@pytest.mark.parametrize("digits", [3, 6])
async def test_mailgun_refuses_token_digits_moved_into_the_timestamp(digits: int, tools: WebhookSender) -> None:
    """Time and token are signed without a separator, so the signature stays valid if digits move into the time.

    The time would then be read as milliseconds and pass the age check.
    """
    secret = await tools.add(MAILGUN)
    time, token = str(NOW // 1_000_000), "123456" + 22 * "ab"
    signature = hmac.new(secret.encode(), f"{time}{token}".encode(), hashlib.sha256).hexdigest()
    event = {"event": "complained", "recipient": "user@example.com", "timestamp": 1777888800}
    unsealed = replace(MAILGUN, seal=lambda body, *_: body)

    async def send(shifted: int) -> httpx.Response:
        proof = {"timestamp": time + token[:shifted], "token": token[shifted:], "signature": signature}
        return await tools.send(
            unsealed, Case("shifted", json.dumps({"signature": proof, "event-data": event}).encode()), secret
        )

    assert _reason(await send(digits)) == "wrong"
    assert (await send(0)).json()["accepted"] == 1


async def test_mailgun_form_with_invalid_utf8_is_refused_without_a_signature(tools: WebhookSender) -> None:
    await tools.add(MAILGUN)
    for body in (b"=\x80", b"event=opened&signature=\xff&token=%ff"):
        headers = {"content-type": "application/x-www-form-urlencoded"}
        assert (await tools.client.post(tools.url(), content=body, headers=headers)).status_code == 401


async def test_mailgun_retry_with_a_new_token_is_a_duplicate(tools: WebhookSender) -> None:
    secret = await tools.add(MAILGUN)
    receipts = []
    for seconds in (0, 300, 900):
        tools.clock.instant = NOW + seconds * 1_000_000
        receipts.append((await tools.send(MAILGUN, MAILGUN.sample, secret)).json())
    assert [receipt["accepted"] for receipt in receipts] == [1, 0, 0]
    assert [receipt["duplicate"] for receipt in receipts] == [0, 1, 1]


@pytest.mark.parametrize("member", ["timestamp", "token", "signature"])
async def test_mailgun_signature_needs_every_field(member: str, tools: WebhookSender) -> None:
    secret = await tools.add(MAILGUN)
    sealed = json.loads(mailgun.seal(MAILGUN.sample.body, secret, NOW, ""))
    del sealed["signature"][member]
    unsealed = replace(MAILGUN, seal=lambda body, *_: body)
    assert _reason(await tools.send(unsealed, Case("less", json.dumps(sealed).encode()), secret)) == "missing"


# Amazon SES: certificates, topics and subscriptions of SNS.

_UNSEALED = replace(SES, seal=lambda body, *_: body)


async def _send_sns(tools: WebhookSender, change: Mapping[str, Any], *, seal_again: bool) -> httpx.Response:
    """Send a changed sample. It is signed before the change, or after the change if ``seal_again``."""
    body = SES.sample.body if seal_again else ses.seal(SES.sample.body, "", NOW, "")
    changed = json.dumps({**json.loads(body), **change}).encode()
    return await tools.send(SES if seal_again else _UNSEALED, replace(SES.sample, body=changed), "")


@pytest.mark.parametrize(
    ("change", "seal_again"),
    [
        ({"Message": '{"eventType":"Complaint"}'}, False),
        ({"MessageId": "another"}, False),
        ({"Subject": "another"}, False),
        ({"SignatureVersion": "2"}, False),
        ({"SignatureVersion": "3"}, False),
        ({"Signature": "no base64"}, False),
        ({"Type": "Hello"}, False),
        ({"TopicArn": "arn:aws:sns:eu-west-1:999999999999:ses"}, True),
        ({"SigningCertURL": "https://sns.eu-west-1.amazonaws.com.example.com/SimpleNotificationService-1.pem"}, True),
        ({"SigningCertURL": "https://example.com/sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem"}, True),
        ({"SigningCertURL": "https://bucket.s3.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem"}, True),
        ({"SigningCertURL": "https://sns.s3-eu-west-1.amazonaws.com/SimpleNotificationService-1.pem"}, True),
        ({"SigningCertURL": "https://sns.s3.amazonaws.com/SimpleNotificationService-1.pem"}, True),
        ({"SigningCertURL": "https://sns.s3-website-us-east-1.amazonaws.com/SimpleNotificationService-1.pem"}, True),
        ({"SigningCertURL": "https://user@sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem"}, True),
        ({"SigningCertURL": "https://sns.eu-west-1.amazonaws.com:8443/SimpleNotificationService-1.pem"}, True),
        ({"SigningCertURL": "https://sns.eu-west-1.amazonaws.com:no/SimpleNotificationService-1.pem"}, True),
        ({"SigningCertURL": "http://sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem"}, True),
        ({"SigningCertURL": "https://sns.eu-west-1.amazonaws.com/?/SimpleNotificationService-1.pem"}, True),
        ({"SigningCertURL": "https://sns.eu-west-1.amazonaws.com/another.pem"}, True),
        ({"SigningCertURL": "https://sns.eu-west-1.amazonaws.com/a/SimpleNotificationService-1.pem"}, True),
        ({"SigningCertURL": f"{ses.CERTIFICATE_URL}?Action=Publish"}, True),
        ({"SigningCertURL": f"{ses.CERTIFICATE_URL}?"}, True),
        ({"SigningCertURL": f"{ses.CERTIFICATE_URL}#another"}, True),
        ({"SigningCertURL": f"{ses.CERTIFICATE_URL}\n"}, True),
        ({"SigningCertURL": 7}, True),
    ],
)
async def test_sns_notification_with_a_changed_field_is_refused(
    change: Mapping[str, Any], seal_again: bool, settings: Settings
) -> None:
    async with running_webhook_sender(settings, SES.certificates) as tools:
        await tools.add(SES)
        assert _reason(await _send_sns(tools, change, seal_again=seal_again)) == "wrong"
        assert set(tools.visited) <= {ses.CERTIFICATE_URL}, "Segue must not send requests to other hosts"
        await tools.ask("GET", "/v1/customers/email:user@example.com", expected=404)


async def test_unknown_topic_or_missing_signature_causes_no_request(settings: Settings) -> None:
    async with running_webhook_sender(settings, SES.certificates) as tools:
        await tools.add(SES)
        unknown_topic = {"TopicArn": "arn:aws:sns:eu-west-1:999999999999:ses"}
        assert _reason(await _send_sns(tools, {"Signature": ""}, seal_again=False)) == "missing"
        assert _reason(await _send_sns(tools, unknown_topic, seal_again=True)) == "wrong"
        assert _reason(await _send_sns(tools, {**unknown_topic, "Signature": ""}, seal_again=False)) == "missing"
        assert tools.visited == []


def _chain(*links: x509.Certificate) -> bytes:
    return b"".join(link.public_bytes(Encoding.PEM) for link in links)


def test_chain_of_an_sns_certificate_must_lead_to_a_trusted_root(monkeypatch: pytest.MonkeyPatch) -> None:
    times = (_YEAR_BEFORE, _YEAR_AFTER)
    root, other_root = ses.authority("Root", *times), ses.authority("Other root", *times)
    issuer, other_issuer = ses.authority("Issuer", *times, root), ses.authority("Issuer", *times, other_root)
    monkeypatch.setattr(sns_certificate, "_load_roots", lambda: Store([root[0]]))

    def reason(document: bytes) -> str:
        try:
            find_valid_public_key(document, NOW)
        except SignatureRefused as refused:
            return refused.detail
        return ""

    assert reason(ses.certificate(*times, issuer=issuer) + _chain(issuer[0])) == ""
    assert reason(ses.certificate(*times, issuer=issuer) + _chain(issuer[0], root[0])) == ""
    assert "trusted root" in reason(ses.certificate(*times, issuer=other_issuer) + _chain(other_issuer[0]))
    assert "trusted root" in reason(ses.certificate(*times, issuer=issuer) + _chain(other_issuer[0]))
    expired = ses.authority("Issuer", _YEAR_BEFORE, _DAY_BEFORE, root)
    assert "trusted root" in reason(ses.certificate(*times, issuer=expired) + _chain(expired[0]))


@pytest.mark.parametrize(
    ("name", "is_accepted"),
    [
        ("sns.amazonaws.com", True),
        ("sns.us-gov-west-1.amazonaws.com", True),
        ("sns.cn-north-1.amazonaws.com.cn", True),
        ("sns.s3-eu-west-1.amazonaws.com", False),
        ("sqs.amazonaws.com", False),
        ("sns.example.com", False),
    ],
)
def test_name_of_an_sns_certificate(name: str, is_accepted: bool) -> None:
    document = ses.certificate(_YEAR_BEFORE, _YEAR_AFTER, [name])
    with nullcontext() if is_accepted else pytest.raises(SignatureRefused, match="not a certificate of SNS"):
        find_valid_public_key(document, NOW)


def test_chain_of_a_forged_root_of_amazon_is_refused() -> None:
    """Only the name of the root is the same as that of a public root."""
    assert "Amazon Root CA 1" in certifi.contents()
    own = ses.authority("Amazon Root CA 1", _YEAR_BEFORE, _YEAR_AFTER)
    document = ses.certificate(_YEAR_BEFORE, _YEAR_AFTER, issuer=own) + _chain(own[0])
    with pytest.raises(SignatureRefused, match="trusted root"):
        find_valid_public_key(document, NOW)


async def test_sns_notification_of_another_key_is_refused(settings: Settings) -> None:
    async with running_webhook_sender(settings, SES.certificates) as tools:
        await tools.add(SES)
        assert _reason(await tools.send(SES, SES.sample, ses.OTHER_SECRET)) == "wrong"
        assert (await tools.send(SES, SES.sample, "")).status_code == 200
        assert tools.visited == [ses.CERTIFICATE_URL], "the certificate is cached"


async def test_sns_headers_must_match_the_body(settings: Settings) -> None:
    async with running_webhook_sender(settings, SES.certificates) as tools:
        await tools.add(SES)
        mismatched = replace(SES, sign=lambda *_: ({"x-amz-sns-message-type": "SubscriptionConfirmation"}, {}))
        assert _reason(await tools.send(mismatched, SES.sample, "")) == "wrong"


async def test_sns_raw_delivery_is_refused(settings: Settings) -> None:
    async with running_webhook_sender(settings, SES.certificates) as tools:
        await tools.add(SES)
        raw = json.loads(SES.sample.body)["Message"].encode()
        response = await tools.client.post(tools.url(), content=raw, headers={"x-amz-sns-rawdelivery": "true"})
        assert _reason(response) == "missing"
        assert "raw message delivery" in response.json()["detail"]


@pytest.mark.parametrize("options", [{}, {"topics": ""}, {"topics": " , "}, {"topics": f"{ses.TOPIC},"}])
async def test_sns_topic_outside_the_option_topics_is_refused(options: dict[str, str], settings: Settings) -> None:
    async with running_webhook_sender(settings, SES.certificates) as tools:
        await tools.add(replace(SES, options=options))
        if not options.get("topics", "").startswith("arn"):
            assert _reason(await tools.send(SES, SES.sample, "")) == "wrong"
        for topic in ("", None, ","):
            assert _reason(await _send_sns(tools, {"TopicArn": topic}, seal_again=True)) == "wrong"
        assert tools.visited == []


_YEAR_BEFORE, _DAY_BEFORE = datetime(2025, 5, 5, tzinfo=UTC), datetime(2026, 5, 4, tzinfo=UTC)
_DAY_AFTER, _YEAR_AFTER = datetime(2026, 5, 6, tzinfo=UTC), datetime(2027, 5, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("document", "status"),
    [
        (b"hello", 401),
        (b"-----BEGIN CERTIFICATE-----\nhello", 401),
        (b"Text before the certificate.\n" + ses.CERTIFICATE, 401),
        (ses.certificate(_YEAR_BEFORE, _DAY_BEFORE), 401),
        (ses.certificate(_DAY_AFTER, _YEAR_AFTER), 401),
        (ses.certificate(_DAY_BEFORE, _DAY_AFTER), 200),
    ],
    ids=["no-pem", "no-der", "text-before", "expired", "not-yet-valid", "valid"],
)
async def test_sns_certificate_must_be_valid(document: bytes, status: int, settings: Settings) -> None:
    async with running_webhook_sender(settings, {ses.CERTIFICATE_URL: document}) as tools:
        await tools.add(SES)
        response = await tools.send(SES, SES.sample, "")
        assert response.status_code == status
        if status == 401:
            assert _reason(response) == "wrong"


async def test_outbound_cache_keeps_urls_in_use() -> None:
    paths: list[str] = []

    def respond(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        return httpx.Response(200, content=request.url.path.encode())

    client = OutboundClient(httpx.MockTransport(respond))
    for n in range(100):
        assert await client.get_cached(f"https://example.com/{n}") == f"/{n}".encode()
        assert await client.get_cached("https://example.com/in-use") == b"/in-use"
    await client.get_cached("https://example.com/0")
    await client.close()
    assert paths.count("/in-use") == 1
    assert paths.count("/0") == 2, "an unused entry must be evicted"


def _confirmation(**more: Any) -> Case:
    message = {
        "Type": "SubscriptionConfirmation",
        "MessageId": "c-1",
        "Token": "t-1",
        "TopicArn": ses.TOPIC,
        "Message": "You have chosen to subscribe to the topic.",
        "SubscribeURL": ses.SUBSCRIBE_URL,
        "SignatureVersion": "1",
    }
    return Case("a confirmation", json.dumps(message | more).encode(), headers=SES.sample.headers)


async def test_sns_subscription_is_confirmed(settings: Settings) -> None:
    async with running_webhook_sender(settings, SES.certificates) as tools:
        await tools.add(SES)
        assert (await tools.send(SES, _confirmation(), "")).status_code == 200
        assert tools.visited == [ses.CERTIFICATE_URL, ses.SUBSCRIBE_URL]


@pytest.mark.parametrize(
    "change",
    [
        {"SubscribeURL": "https://example.com/?Action=ConfirmSubscription"},
        {"SubscribeURL": "https://sns.eu-west-1.amazonaws.com/?Action=DeleteTopic"},
        {"SubscribeURL": None},
        {"TopicArn": "arn:aws:sns:eu-west-1:999999999999:ses"},
    ],
)
async def test_sns_confirmation_of_another_url_or_topic_is_refused(
    change: Mapping[str, Any], settings: Settings
) -> None:
    async with running_webhook_sender(settings, SES.certificates) as tools:
        await tools.add(SES)
        assert _reason(await tools.send(SES, _confirmation(**change), "")) == "wrong"
        assert set(tools.visited) <= {ses.CERTIFICATE_URL}


async def test_sns_unsubscription_is_not_reverted(settings: Settings) -> None:
    async with running_webhook_sender(settings, SES.certificates) as tools:
        await tools.add(SES)
        assert (await tools.send(SES, _confirmation(Type="UnsubscribeConfirmation"), "")).status_code == 200
        assert tools.visited == [ses.CERTIFICATE_URL]


# Mailchimp and Mailchimp Transactional: probes before the secret exists, and the signed URL.


@pytest.mark.parametrize(("fixture", "method"), [(MAILCHIMP, "GET"), (MANDRILL, "HEAD")])
async def test_mailchimp_probe_needs_no_secret(fixture: Fixture, method: str, tools: WebhookSender) -> None:
    await tools.ask("POST", "/v1/sources", {"key": "tool", "kind": fixture.kind}, 201)
    response = await tools.client.request(method, tools.url())
    assert (response.status_code, response.content) == (200, b"")


async def test_mandrill_events_need_a_secret(tools: WebhookSender) -> None:
    await tools.ask("POST", "/v1/sources", {"key": "tool", "kind": "mandrill"}, 201)
    headers = {"content-type": "application/x-www-form-urlencoded", "x-mandrill-signature": "x"}
    response = await tools.client.post(tools.url(), content=b"mandrill_events=%5B%5D", headers=headers)
    assert response.status_code == 200
    response = await tools.client.post(tools.url(), content=MANDRILL.sample.body, headers=headers)
    assert response.status_code == 401


async def test_mandrill_signature_covers_the_option_url(tools: WebhookSender) -> None:
    url = "https://user:word@shop.example.com/hooks?list=1"
    secret = await tools.add(replace(MANDRILL, options={"url": url}))
    assert _reason(await tools.send(MANDRILL, MANDRILL.sample, secret)) == "wrong"
    behind = replace(MANDRILL, sign=lambda body, key, now, _: MANDRILL.sign(body, key, now, url))
    assert (await tools.send(behind, MANDRILL.sample, secret)).json()["accepted"] == 1


@pytest.mark.parametrize("fixture", [MANDRILL, HUBSPOT], ids=["mandrill", "hubspot"])
async def test_signed_url_behind_a_proxy_includes_the_query(fixture: Fixture, tools: WebhookSender) -> None:
    url, case = "https://shop.example.com/hooks", replace(fixture.sample, query={"list": "1"})
    secret = await tools.add(replace(fixture, options={"url": url}))

    def sign_url(signed_url: str) -> Fixture:
        return replace(fixture, sign=lambda body, key, now, _: fixture.sign(body, key, now, signed_url))

    assert _reason(await tools.send(sign_url(url), case, secret)) == "wrong"
    assert _reason(await tools.send(sign_url(f"{url}?list=2"), case, secret)) == "wrong"
    assert (await tools.send(sign_url(f"{url}?list=1"), case, secret)).json()["accepted"] > 0


# Brevo: an open that is reported under several event names.


async def test_brevo_open_under_several_names_is_stored_once(tools: WebhookSender) -> None:
    secret = await tools.add(BREVO)

    async def send(kind: str, second: int) -> tuple[int, int]:
        event = {"event": kind, "email": "user@example.com", "message-id": "<m-1@example.com>"}
        body = json.dumps(event | {"ts_epoch": (1777888800 + second) * 1000}).encode()
        receipt = (await tools.send(BREVO, Case(kind, body), secret)).json()
        return receipt["accepted"], receipt["duplicate"]

    opened = [await send(kind, 0) for kind in ("unique_opened", "opened", "uniqueOpened", "first_opening")]
    assert opened == [(1, 0), (0, 1), (0, 1), (0, 1)]
    proxy_opens = [await send(kind, 0) for kind in ("proxy_open", "unique_proxy_open")]
    assert proxy_opens == [(1, 0), (0, 1)]
    assert await send("opened", 1) == (1, 0), "an open at another time is stored"
    assert await _names(tools) == ["email.opened"] * 3


# HubSpot: signature versions 1 to 3 by HubSpot's own helper, erasure requests, and portals.


def _sign_hubspot(version: str, body: bytes, url: str, secret: str = "client-secret") -> dict[str, str]:
    """Return the headers that HubSpot's helper creates."""
    time = str(NOW // 1_000)
    signature = vendor.Signature.get_signature(secret, body.decode(), version, url, "POST", time)
    if version == "v3":
        return {"x-hubspot-signature-v3": signature, "x-hubspot-request-timestamp": time}
    return {"x-hubspot-signature": signature, "x-hubspot-signature-version": version}


def _verify(headers: dict[str, str], options: dict[str, str], url: str, body: bytes, at: int = NOW) -> None:
    delivery = WebhookRequest(body=body, headers=headers, url=url, received_at=at, options=options)
    CONNECTORS["hubspot"].scheme.verify(delivery, "client-secret")


_URL = "https://shop.example.com/v1/sources/crm/webhook?a=b c".replace(" ", "%20")
_BODY = '[{"propertyValue":"Ελένη"}]'.encode()


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_hubspot_signature_needs_an_accepted_version(version: str) -> None:
    _verify(_sign_hubspot(version, _BODY, _URL), {"signatures": "v1, v2 v3"}, _URL, _BODY)
    other = {"v1": "v2,v3", "v2": "v1 v3", "v3": "v1,v2"}[version]
    for options, body, url in (
        ({"signatures": other}, _BODY, _URL),
        ({"signatures": version}, _BODY + b" ", _URL),
        ({"signatures": version}, _BODY, _URL + "&c=d") if version != "v1" else ({"signatures": "v3"}, _BODY, _URL),
    ):
        with pytest.raises(SignatureRefused):
            _verify(_sign_hubspot(version, _BODY, _URL), options, url, body)
    with pytest.raises(SignatureRefused):
        _verify(_sign_hubspot(version, _BODY, _URL, "another"), {"signatures": version}, _URL, _BODY)


def test_hubspot_accepts_only_v3_by_default() -> None:
    for version in ("v1", "v2"):
        with pytest.raises(SignatureRefused) as refused:
            _verify(_sign_hubspot(version, _BODY, _URL), {}, _URL, _BODY)
        assert refused.value.reason == "missing"


@pytest.mark.parametrize(("seconds", "reason"), [(300, None), (301, "stale"), (-301, "stale")])
def test_hubspot_signature_expires_after_five_minutes(seconds: int, reason: str | None) -> None:
    at, headers = NOW + seconds * 1_000_000, _sign_hubspot("v3", _BODY, _URL)
    if reason is None:
        _verify(headers, {}, _URL, _BODY, at)
        return
    with pytest.raises(SignatureRefused) as refused:
        _verify(headers, {}, _URL, _BODY, at)
    assert refused.value.reason == reason


def test_hubspot_signature_covers_the_timestamp() -> None:
    headers = _sign_hubspot("v3", _BODY, _URL) | {"x-hubspot-request-timestamp": str(NOW // 1_000 + 1)}
    with pytest.raises(SignatureRefused) as refused:
        _verify(headers, {}, _URL, _BODY)
    assert refused.value.reason == "wrong"
    del headers["x-hubspot-request-timestamp"]
    with pytest.raises(SignatureRefused) as refused:
        _verify(headers, {}, _URL, _BODY)
    assert refused.value.reason == "missing"


def test_hubspot_library_accepts_segue_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    sign = CONNECTORS["hubspot"].scheme.sign
    assert sign is not None
    headers = sign(WebhookRequest(body=_BODY, url=_URL, received_at=NOW), "client-secret").headers

    class FixedDatetime(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]  # only the helper's clock is fixed
            return datetime.fromtimestamp(NOW / 1_000_000, tz or UTC)

    monkeypatch.setattr(vendor, "datetime", FixedDatetime)
    assert vendor.Signature.is_valid(
        headers["x-hubspot-signature-v3"],
        "client-secret",
        _BODY.decode(),
        _URL,
        "POST",
        "v3",
        headers["x-hubspot-request-timestamp"],
    )


def test_hubspot_url_is_decoded_before_signing() -> None:
    """HubSpot documents that URLs are decoded before signing; its helper expects the caller to decode them."""
    sent, signed = "https://shop.example.com/a%2Fb%3fc?d=%40e&f=%20g", "https://shop.example.com/a/b?c?d=@e&f=%20g"
    _verify(_sign_hubspot("v3", _BODY, signed), {}, sent, _BODY)


def test_hubspot_v1_signature_is_case_insensitive() -> None:
    signature = hashlib.sha256(b"client-secret" + _BODY).hexdigest().upper()
    _verify({"x-hubspot-signature": signature}, {"signatures": "v1"}, _URL, _BODY)


async def test_hubspot_privacy_deletion_queues_an_erasure(tools: WebhookSender) -> None:
    secret = await tools.add(HUBSPOT)
    assert (await tools.send(HUBSPOT, HUBSPOT.sample, secret)).json()["accepted"] == 2
    deletion = json.loads(HUBSPOT.sample.body)[0] | {"subscriptionType": "contact.privacyDeletion"}
    receipt = (await tools.send(HUBSPOT, Case("a privacy deletion", json.dumps([deletion]).encode()), secret)).json()
    assert (receipt["accepted"], receipt["ignored"], receipt["rejected"]) == (0, 0, 0)
    requests = (await tools.ask("GET", "/v1/erasure-requests"))["items"]
    assert [(request["kind"], request["value"]) for request in requests] == [("hubspot_contact", "33:1246965")]


async def test_hubspot_contact_ids_are_scoped_to_the_portal(tools: WebhookSender) -> None:
    secret = await tools.add(HUBSPOT)
    change = {"subscriptionType": "contact.propertyChange", "objectId": 51, "propertyName": "email"}
    changes = [change | {"portalId": portal, "propertyValue": f"of-{portal}@example.com"} for portal in (1, 2)]
    workflow = {"vid": "51", "portal-id": 1, "properties": {"firstname": {"value": "User"}}}
    for events in (changes, [workflow]):
        assert (await tools.send(HUBSPOT, Case("contacts", json.dumps(events).encode()), secret)).json()[
            "rejected"
        ] == 0
    one, two = [await tools.ask("GET", f"/v1/customers/email:of-{portal}@example.com") for portal in (1, 2)]
    assert one["id"] != two["id"]
    assert [customer["traits"].get("first_name") for customer in (one, two)] == ["User", None]
    assert (await tools.ask("GET", "/v1/customers/hubspot_contact:1:51"))["id"] == one["id"]
    await tools.ask("GET", "/v1/customers/hubspot_contact:51", expected=404)


# Opens and clicks by machines.


@pytest.mark.parametrize(
    ("user_agent", "machine"),
    [
        ("Mozilla/5.0", True),
        ("Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)", True),
        ("YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html", True),
        ("Microsoft Office Existence Discovery", True),
        ("Mozilla/4.0 (compatible; ms-office; MSOffice rmj)", True),
        ("Mozilla/5.0 (compatible; Proofpoint URL Defense)", True),
        ("Googlebot/2.1 (+http://www.google.com/bot.html)", True),
        ("Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 10.0; Win64; x64; ms-office; MSOffice 16)", False),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148", False),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Gecko/20100101 Firefox/128.0", False),
        ("", False),
        (None, False),
    ],
)
def test_is_machine_detects_proxies_and_scanners(user_agent: str | None, machine: bool) -> None:
    assert is_machine(user_agent) is machine
    assert build_click_properties("email.opened", user_agent)["machine"] is machine
    assert build_click_properties("email.clicked", user_agent, machine=True)["machine"] is True
    assert build_click_properties("email.delivered", user_agent, machine=True) == {}


def test_payload_readers_accept_several_types() -> None:
    assert extract_address("A Name <user@example.com>") == "user@example.com"
    assert extract_address("user@example.com") == "user@example.com"
    assert extract_address(None) is None
    assert parse_object('{"a": 1}') == {"a": 1} == parse_object({"a": 1})
    assert parse_object("{") == {} == parse_object([1]) == parse_object(None)
    assert parse_list('["a"]') == ["a"] == parse_list("a") == parse_list(["a"])
    assert parse_list("") == [] == parse_list(None)
    assert find_custom_ids({"userId": 7, "anonymous_id": ""}) == {"user_id": 7}
    assert find_custom_ids("user_id") == {}
