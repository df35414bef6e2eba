"""Survey and social connectors: handshakes, older signature versions, source options and NPS groups."""

from __future__ import annotations

import hmac
import json
from base64 import b64encode
from dataclasses import replace

import pytest

from app.connectors.shared.surveys import build_nps_properties
from tests.connectors.tools import hotjar, meta, surveymonkey, typeform, x
from tests.support.tool_fixture import Case, json_body
from tests.support.webhook_sender import WebhookSender


async def test_surveymonkey_head_probe_is_answered(tools: WebhookSender) -> None:
    await tools.add(surveymonkey.FIXTURE)
    response = await tools.client.head("/v1/sources/tool/webhook")
    assert (response.status_code, response.content) == (200, b"")


async def test_surveymonkey_secret_needs_two_parts(tools: WebhookSender) -> None:
    await tools.ask("POST", "/v1/sources", {"key": "tool", "kind": "surveymonkey"}, 201)
    for wrong in ("only-a-secret", "&secret", "id&"):
        refused = await tools.ask("POST", "/v1/sources/tool/secrets", {"secret": wrong}, 400)
        assert "client_id&client_secret" in refused["message"]


async def test_meta_challenge_needs_the_verify_token(tools: WebhookSender) -> None:
    await tools.add(meta.FIXTURE)
    query = {"hub.mode": "subscribe", "hub.challenge": "1158201444", "hub.verify_token": "a verify token"}
    response = await tools.client.get("/v1/sources/tool/webhook", params=query)
    assert (response.status_code, response.text) == (200, "1158201444")
    assert response.headers["content-type"].startswith("text/plain")
    for wrong in ({"hub.verify_token": "guessed"}, {"hub.verify_token": ""}, {"hub.mode": "unsubscribe"}):
        response = await tools.client.get("/v1/sources/tool/webhook", params={**query, **wrong})
        assert (response.status_code, response.content) == (403, b"")


async def test_meta_challenge_is_refused_without_a_verify_token(tools: WebhookSender) -> None:
    await tools.add(replace(meta.FIXTURE, options={}))
    query = {"hub.mode": "subscribe", "hub.challenge": "1", "hub.verify_token": ""}
    assert (await tools.client.get("/v1/sources/tool/webhook", params=query)).status_code == 403


async def test_meta_sha256_signature_takes_precedence(tools: WebhookSender) -> None:
    secret = await tools.add(meta.FIXTURE)
    headers, _ = meta.sign(meta.FIXTURE.sample.body, secret, 0, "")
    old, new = "X-Hub-Signature", "X-Hub-Signature-256"

    async def status(signatures: dict[str, str]) -> int:
        body = meta.FIXTURE.sample.body
        return (await tools.client.post("/v1/sources/tool/webhook", content=body, headers=signatures)).status_code

    assert await status({old: headers[old]}) == 200
    assert await status({old: headers[old].upper().replace("SHA1=", "sha1=")}) == 200
    assert await status({old: headers[old], new: "sha256=" + "0" * 64}) == 401
    assert await status({old: "sha1=" + "0" * 40}) == 401


async def test_x_challenge_is_signed(tools: WebhookSender) -> None:
    secret = await tools.add(x.FIXTURE)
    response = await tools.client.get("/v1/sources/tool/webhook", params={"crc_token": "challenge"})
    mac = b64encode(hmac.new(secret.encode(), b"challenge", "sha256").digest()).decode()
    assert (response.status_code, response.json()) == (200, {"response_token": f"sha256={mac}"})
    assert response.headers["content-type"] == "application/json"


async def test_x_challenge_uses_the_newest_secret(tools: WebhookSender) -> None:
    await tools.add(x.FIXTURE)
    await tools.ask("POST", "/v1/sources/tool/secrets", {"secret": "renewed", "overlap_seconds": 3600}, 201)
    response = await tools.client.get("/v1/sources/tool/webhook", params={"crc_token": "c"})
    mac = b64encode(hmac.new(b"renewed", b"c", "sha256").digest()).decode()
    assert response.json() == {"response_token": f"sha256={mac}"}


@pytest.mark.parametrize(
    "token",
    ['{"for_user_id":"1"}', "[]", "", "a b", "a" * 1_001, "\u00e9", "a\n{}", "12", "1e9", "-0.5", "true", "null"],
)
async def test_x_challenge_that_could_be_a_body_is_refused(token: str, tools: WebhookSender) -> None:
    await tools.add(x.FIXTURE)
    response = await tools.client.get(tools.url(query={"crc_token": token}))
    assert response.status_code == (403 if token else 200)
    assert response.content == b""


async def test_x_challenge_without_a_secret_is_refused(tools: WebhookSender) -> None:
    await tools.ask("POST", "/v1/sources", {"key": "tool", "kind": "x"}, 201)
    assert (await tools.client.get("/v1/sources/tool/webhook", params={"crc_token": "c"})).status_code == 403


async def test_typeform_answers_identify_only_with_the_option(tools: WebhookSender) -> None:
    case = Case("answers", json_body(typeform.WITHOUT_HIDDEN_FIELDS))
    for fixture, source in ((typeform.FIXTURE, "by-default"), (typeform.IDENTIFYING, "identifying")):
        secret = await tools.add(fixture, source)
        assert (await tools.send(fixture, case, secret, source=source)).json()["accepted"] == 1
        status = 404 if source == "by-default" else 200
        await tools.ask("GET", "/v1/customers/email:second@example.com", expected=status)


async def test_typeform_replay_keeps_the_option(tools: WebhookSender) -> None:
    """The connector stores the option in the event, because a replay has no request from which to read it."""
    secret = await tools.add(typeform.IDENTIFYING)
    response = dict(typeform.WITHOUT_HIDDEN_FIELDS["form_response"])
    case = Case("one without its type", json_body({"event_id": "ev-1", "form_response": response}))
    assert (await tools.send(typeform.IDENTIFYING, case, secret)).json()["rejected"] == 1
    [row] = (await tools.ask("GET", "/v1/quarantine"))["items"]
    fixed = json.loads(row["original"]) | {"event_type": "form_response"}
    replayed = await tools.ask("POST", f"/v1/quarantine/{row['id']}/replay", fixed)
    assert replayed["accepted"] == 1
    await tools.ask("GET", "/v1/customers/email:second@example.com")


async def test_hotjar_free_text_is_not_readable_by_rules(tools: WebhookSender) -> None:
    secret = await tools.add(hotjar.FIXTURE)
    await tools.send(hotjar.FIXTURE, hotjar.FIXTURE.sample, secret)
    rules = {
        "promoters": {"did": "nps.submitted", "where": {"group": "promoter"}},
        "gave-nine": {"did": "survey.completed", "where": {"answers.1": 9}},
        "recorded": {"did": "survey.completed", "where": {"recording_url": {"exists": True}}},
        "written": {"did": "survey.completed", "where": {"answers.2": {"exists": True}}},
    }
    for key, rule in rules.items():
        await tools.ask("POST", "/v1/segments", {"key": key, "rule": rule}, 201)
    customer = await tools.ask("GET", "/v1/customers/email:user@example.com")
    assert {segment["key"] for segment in customer["segments"]} & set(rules) == {"promoters", "gave-nine", "recorded"}
    private = {"did": "survey.completed", "where": {"context.private.2": {"contains": "slow"}}}
    await tools.ask("POST", "/v1/segments", {"key": "private", "rule": private}, 422)


@pytest.mark.parametrize("rating", ["", None, True, -1, 11, "eleven", "10.5", [9], {"rating": 9}])
def test_invalid_nps_rating_is_ignored(rating: object) -> None:
    assert build_nps_properties(rating) == {}


@pytest.mark.parametrize(
    ("rating", "group"),
    [
        (0, "detractor"),
        (6, "detractor"),
        ("6", "detractor"),
        (7, "passive"),
        (8, "passive"),
        (9, "promoter"),
        ("10", "promoter"),
    ],
)
def test_nps_rating_sets_the_group(rating: object, group: str) -> None:
    assert build_nps_properties(rating) == {"rating": int(str(rating)), "scale": 10, "group": group}
