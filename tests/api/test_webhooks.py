"""Webhooks of every connector: probes of tools, secrets, dry runs, replays, and invalid bodies."""

from __future__ import annotations

import asyncio
import gzip
import hmac
import json
from base64 import b64encode
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from cryptography.fernet import Fernet

from app.config import Settings
from app.connectors.tools import CONNECTORS
from app.connectors.webhook_request import WebhookRequest
from tests.connectors.tools.sendgrid import FIXTURE as SENDGRID
from tests.support.tool_fixture import NOW, Case, json_body
from tests.support.webhook_sender import WebhookSender, running_webhook_sender

KIND = "sendgrid"


def event(n: int, **more: Any) -> dict[str, Any]:
    return {"email": "user@example.com", "timestamp": 1777888800, "event": "open", "sg_event_id": f"e-{n}", **more}


async def test_probes_store_nothing(tools: WebhookSender) -> None:
    await tools.add(SENDGRID)
    for method in ("HEAD", "GET", "OPTIONS"):
        response = await tools.client.request(method, tools.url())
        assert (response.status_code, response.content) == (200, b""), method
    assert (await tools.client.put(tools.url())).status_code == 405


async def test_source_without_webhooks_is_not_found(tools: WebhookSender) -> None:
    await tools.ask("POST", "/v1/sources", {"key": "plain"}, 201)
    for source in ("plain", "nobody", "%00", "a%2Fb"):
        for method in ("HEAD", "GET", "POST"):
            assert (await tools.client.request(method, tools.url(source))).status_code == 404, source
    await tools.ask("POST", "/v1/sources/plain/secrets", {}, 404)
    await tools.ask("POST", "/v1/sources/plain/test", expected=404)


async def test_source_without_a_secret_refuses_webhooks(tools: WebhookSender) -> None:
    await tools.ask("POST", "/v1/sources", {"key": "tool", "kind": KIND}, 201)
    response = await tools.send(SENDGRID, SENDGRID.sample, SENDGRID.secret)
    assert (response.status_code, response.json()["reason"]) == (401, "missing")


async def test_connectors_are_listed_with_setup_steps(tools: WebhookSender) -> None:
    listed = {item["key"]: item for item in (await tools.ask("GET", "/v1/connectors"))["items"]}
    assert set(listed) == {"sdk", *CONNECTORS}
    assert all(item["sample"] and item["steps"] for item in listed.values())
    assert all(any("{url}" in step for step in listed[key]["steps"]) for key in CONNECTORS)
    assert all({"url", "text"} <= set(listed[key]["options"]) for key in CONNECTORS)
    assert listed[KIND]["makes_token"] is False
    assert listed[KIND]["secret"]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"kind": "nothing"}, "/kind"),
        ({"kind": KIND, "options": {"colour": "red"}}, "/options/colour"),
        ({"kind": KIND, "options": {"text": "everywhere"}}, "/options/text"),
        ({"kind": "sdk", "options": {"text": "none"}}, "/options/text"),
        ({"kind": KIND, "options": {"url": 7}}, "/options/url"),
    ],
)
async def test_invalid_kinds_and_options_are_refused(body: dict[str, Any], path: str, tools: WebhookSender) -> None:
    problem = await tools.ask("POST", "/v1/sources", {"key": "tool", **body}, 400)
    assert problem["path"] == path


async def test_options_can_be_changed_but_not_the_kind(tools: WebhookSender) -> None:
    await tools.add(SENDGRID)
    changed = await tools.ask("PUT", "/v1/sources/tool", {"options": {"text": "none"}})
    assert (changed["kind"], changed["options"]) == (KIND, {"text": "none"})
    assert (await tools.ask("PUT", "/v1/sources/tool", {"name": "Mail"}))["options"] == {"text": "none"}
    await tools.ask("PUT", "/v1/sources/tool", {"kind": "sdk"}, 400)
    await tools.ask("PUT", "/v1/sources/tool", {"options": {"colour": "red"}}, 400)


async def test_secrets_are_never_shown(tools: WebhookSender) -> None:
    await tools.ask("POST", "/v1/sources", {"key": "tool", "kind": KIND}, 201)
    for secret in ("", "  ", "not a key", "QUJD"):
        problem = await tools.ask("POST", "/v1/sources/tool/secrets", {"secret": secret}, 400)
        assert problem["path"] == "/secret"
    created = await tools.ask("POST", "/v1/sources/tool/secrets", {"secret": SENDGRID.secret}, 201)
    assert set(created) == {"id", "created_at", "expires_at"}
    listed = await tools.ask("GET", "/v1/sources/tool/secrets")
    assert listed == {"items": [created]}
    assert SENDGRID.secret not in json.dumps(await tools.ask("GET", "/v1/sources"))
    await tools.ask("DELETE", f"/v1/sources/tool/secrets/{created['id']}", expected=204)
    await tools.ask("DELETE", f"/v1/sources/tool/secrets/{created['id']}", expected=404)
    assert (await tools.send(SENDGRID, SENDGRID.sample, SENDGRID.secret)).status_code == 401


async def test_short_token_is_refused(tools: WebhookSender) -> None:
    await tools.ask("POST", "/v1/sources", {"key": "mails", "kind": "postmark"}, 201)
    for token in (" ", "short", " " * 40):
        problem = await tools.ask("POST", "/v1/sources/mails/secrets", {"secret": token}, 400)
        assert problem["path"] == "/secret"
    await tools.ask("POST", "/v1/sources/mails/secrets", {"secret": "0123456789abcdef"}, 201)
    assert (await tools.client.post(tools.url("mails") + "?token=%20", content=b"{}")).status_code == 401


async def test_empty_secret_is_refused(tools: WebhookSender) -> None:
    await tools.ask("POST", "/v1/sources", {"key": "desk", "kind": "zendesk"}, 201)
    for secret in ("", " ", "\n\t "):
        await tools.ask("POST", "/v1/sources/desk/secrets", {"secret": secret}, 400)


async def test_secrets_are_encrypted_with_the_configured_key(settings: Settings, database_url: str) -> None:
    key, other = Fernet.generate_key().decode(), Fernet.generate_key().decode()

    async def answer(*keys: str) -> int:
        async with running_webhook_sender(settings.model_copy(update={"secrets_keys": keys}), first=False) as tools:
            return (await tools.send(SENDGRID, SENDGRID.sample, SENDGRID.secret)).status_code

    async with running_webhook_sender(settings.model_copy(update={"secrets_keys": (key,)})) as tools:
        await tools.add(SENDGRID)
    connection = await asyncpg.connect(database_url)
    (stored,) = await connection.fetch("SELECT secret FROM source_secrets")
    await connection.close()
    assert SENDGRID.secret.encode() not in stored["secret"]
    assert await answer(other, key) == 200
    assert await answer(other) == 401
    assert await answer() == 401


async def test_concurrent_equal_webhooks_are_stored_once(tools: WebhookSender) -> None:
    secret = await tools.add(SENDGRID)
    case = Case("many", json_body([event(n) for n in range(200)]))
    answers = await asyncio.gather(*(tools.send(SENDGRID, case, secret) for _ in range(5)))
    receipts = [answer.json() for answer in answers]
    assert sum(item["accepted"] for item in receipts) == 200
    assert sum(item["duplicate"] for item in receipts) == 800


async def test_token_is_generated_without_a_body(tools: WebhookSender) -> None:
    await tools.ask("POST", "/v1/sources", {"key": "register", "kind": "shop"}, 201)
    created = await tools.ask("POST", "/v1/sources/register/secrets", expected=201)
    response = await tools.client.post(f"/v1/sources/register/webhook?token={created['token']}", content=b"{}")
    assert response.status_code == 200


async def test_two_sources_may_use_the_same_ids(tools: WebhookSender) -> None:
    for source in ("one", "two"):
        secret = await tools.add(SENDGRID, source)
        response = await tools.send(SENDGRID, SENDGRID.sample, secret, source=source)
        assert response.json()["accepted"] == 1
    response = await tools.send(SENDGRID, SENDGRID.sample, secret, source="one")
    assert response.json()["duplicate"] == 1


async def test_unreadable_event_is_quarantined_corrected_and_replayed_once(tools: WebhookSender) -> None:
    secret = await tools.add(SENDGRID)
    case = Case("no type", json_body([event(1), {"email": "user@example.com", "sg_event_id": "e-2"}]))
    assert (await tools.send(SENDGRID, case, secret)).json()["rejected"] == 1
    (quarantined,) = (await tools.ask("GET", "/v1/quarantine"))["items"]
    assert (quarantined["code"], quarantined["source"]) == ("unreadable", "tool")
    mended = json.loads(quarantined["original"]) | {"event": "click", "timestamp": 1777888801}
    for accepted in (1, 0):
        receipt = await tools.ask("POST", f"/v1/quarantine/{quarantined['id']}/replay", mended)
        assert (receipt["accepted"], receipt["duplicate"]) == (accepted, 1 - accepted)
    touchpoints = (await tools.ask("GET", "/v1/customers/email:user@example.com/touchpoints"))["items"]
    assert sorted(item["name"] for item in touchpoints) == ["email.clicked", "email.opened"]


async def test_body_that_is_not_json_is_quarantined_whole(tools: WebhookSender) -> None:
    secret = await tools.add(SENDGRID)
    for n, body in enumerate((b"", b"{", b"\xff\xfe", b"[" * 100_000, b'"text"', b"7", b"[1e999999999999]"), 1):
        response = await tools.send(SENDGRID, Case("broken", body), secret)
        assert (response.status_code, response.json()["rejected"]) == (200, 1), body[:20]
        quarantined = (await tools.ask("GET", "/v1/quarantine"))["items"]
        assert len(quarantined) == n
    receipt = await tools.ask("POST", f"/v1/quarantine/{quarantined[1]['id']}/replay", [event(1)])
    assert receipt["accepted"] == 1


async def test_replayed_body_keeps_its_headers_without_signatures(tools: WebhookSender) -> None:
    await tools.ask("POST", "/v1/sources", {"key": "shop", "kind": "shopify"}, 201)
    await tools.ask("POST", "/v1/sources/shop/secrets", {"secret": "a secret of a shop"}, 201)
    body = b"{not json"
    mac = b64encode(hmac.digest(b"a secret of a shop", body, "sha256")).decode()
    headers = {"X-Shopify-Hmac-Sha256": mac, "X-Shopify-Topic": "orders/create", "X-Forwarded-Host": "elsewhere"}
    response = await tools.client.post(tools.url("shop"), content=body, headers=headers)
    assert (response.status_code, response.json()["rejected"]) == (200, 1)
    (quarantined,) = (await tools.ask("GET", "/v1/quarantine"))["items"]
    assert mac not in json.dumps(quarantined)
    receipt = await tools.ask(
        "POST", f"/v1/quarantine/{quarantined['id']}/replay", json.loads(CONNECTORS["shopify"].sample)
    )
    assert receipt["accepted"] >= 1, receipt


async def test_replayed_webhook_creates_erasure_requests(tools: WebhookSender) -> None:
    await tools.ask("POST", "/v1/sources", {"key": "crm", "kind": "hubspot"}, 201)
    await tools.ask("POST", "/v1/sources/crm/secrets", {"secret": "a client secret"}, 201)
    tool, url = CONNECTORS["hubspot"], tools.url("crm")
    assert tool.scheme.sign is not None
    event = {"portalId": 33, "objectId": 51, "occurredAt": 1777888800000}
    delivery = WebhookRequest(body=json_body([event]), url=url, received_at=NOW)
    signed = tool.scheme.sign(delivery, "a client secret")
    response = await tools.client.post(url, content=signed.body, headers=dict(signed.headers))
    assert response.json()["rejected"] == 1, response.text
    (quarantined,) = (await tools.ask("GET", "/v1/quarantine"))["items"]
    mended = {**event, "subscriptionType": "contact.privacyDeletion"}
    assert (await tools.ask("POST", f"/v1/quarantine/{quarantined['id']}/replay", mended))["accepted"] == 1
    (erasure,) = (await tools.ask("GET", "/v1/erasure-requests"))["items"]
    assert erasure["kind"] == "hubspot_contact"
    (quarantined,) = (await tools.ask("GET", "/v1/quarantine"))["items"]
    assert quarantined["replayed_at"] is not None


async def test_hostile_values_are_rejected_individually(tools: WebhookSender) -> None:
    secret = await tools.add(SENDGRID)
    body = (
        b'[{"email":"a\\u0000b@example.com","event":"open","sg_event_id":"1"},'
        b'{"email":"user@example.com","event":"open","sg_event_id":"n\\u0000"},'
        b'{"email":"user@example.com","event":"open","sg_event_id":"2","x":"\\ud800"},'
        b'{"email":"user@example.com","event":"open","sg_event_id":"3","x":1e999999},'
        b'{"email":"user@example.com","event":"open","sg_event_id":"4","timestamp":"infinity"},'
        b'{"email":"user@example.com","event":"open","sg_event_id":"5","x":' + b"[" * 38 + b"]" * 38 + b"},"
        b'{"email":"user@example.com","event":"open","sg_event_id":"6","x":"' + b"x" * 40_000 + b'"},'
        b'{"email":["user@example.com"],"event":"open","sg_event_id":"7"},'
        b'{"email":"user@example.com","event":{"a":1},"sg_event_id":"8"},'
        b'{"email":"user@example.com","event":"open","sg_event_id":"' + b"9" * 300 + b'"}]'
    )
    response = await tools.send(SENDGRID, Case("hostile", body), secret)
    assert response.status_code == 200
    receipt = response.json()
    assert (receipt["accepted"], receipt["rejected"]) == (3, 7)
    touchpoints = (await tools.ask("GET", "/v1/customers/email:user@example.com/touchpoints"))["items"]
    assert {item["message_id"][:5] for item in touchpoints} == {"2", "4", "hash-"}


async def test_unreadable_body_gets_the_status_that_stops_retries(tools: WebhookSender) -> None:
    secret = await tools.add(SENDGRID)
    response = await tools.send(SENDGRID, Case("large", b"[" + b" " * 1_000_001 + b"]"), secret)
    assert (response.status_code, response.json()["code"]) == (400, "body_too_large")
    bomb = gzip.compress(b" " * 50_000_000)
    assert (await tools.send(SENDGRID, Case("bomb", bomb), secret)).status_code == 400
    packed = Case("gzip", gzip.compress(SENDGRID.sample.body))
    assert (await tools.send(SENDGRID, packed, secret)).json()["accepted"] == 1


async def test_timeout_is_answered_with_503(
    tools: WebhookSender, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    """A lock on the customer's row delays the flush beyond the timeout. The retry of the webhook is a duplicate."""
    secret = await tools.add(SENDGRID)
    assert (await tools.send(SENDGRID, SENDGRID.sample, secret)).json()["accepted"] == 1
    monkeypatch.setitem(CONNECTORS, KIND, replace(CONNECTORS[KIND], timeout_seconds=1.0))
    case = Case("later", json_body([event(1)]))
    connection = await asyncpg.connect(database_url)
    async with connection.transaction():
        await connection.execute("LOCK TABLE customers IN ACCESS EXCLUSIVE MODE")
        response = await tools.send(SENDGRID, case, secret)
        assert (response.status_code, response.json()["code"]) == (503, "overloaded")
        assert int(response.headers["retry-after"]) >= 1
    await connection.close()
    assert (await tools.send(SENDGRID, case, secret)).json()["duplicate"] == 1


async def test_dry_run_accepts_a_body(tools: WebhookSender) -> None:
    await tools.add(SENDGRID)
    tried = await tools.ask("POST", "/v1/sources/tool/test", [event(1, event="click"), {"event": 7}, 7])
    assert tried["signature"] == "not_checked"
    (message,) = tried["messages"]
    assert (message["name"], message["channel"], message["identities"]) == (
        "email.clicked",
        "email",
        ["email:user@example.com"],
    )
    assert [item["code"] for item in tried["rejections"]] == ["unreadable", "unreadable"]
    assert tried["accepted"] == 1
    assert (await tools.ask("GET", "/v1/quarantine"))["items"] == []
    await tools.ask("GET", "/v1/customers/email:user@example.com", expected=404)
