"""CloudEvents: requests built by the vendor's SDK, and the OPTIONS handshake of the webhook specification."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.bindings import http
from cloudevents.core.v1.event import CloudEvent

from tests.connectors.tools.cloudevents import FIXTURE
from tests.support.webhook_sender import WebhookSender


def _event(n: int, data: Any, media: str = "application/json") -> CloudEvent:
    return CloudEvent(
        {
            "id": f"e {n}%/ü",
            "source": "https://example.com/läden#a",
            "type": "com.example.visited",
            "subject": 'kunde-ä"b 50%',
            "time": datetime(2026, 5, 4, 10, 0, n, tzinfo=UTC),
            "datacontenttype": media,
            "comexampleextension": "naïve",
        },
        data,
    )


async def _send(tools: WebhookSender, message: http.HTTPMessage, token: str) -> dict[str, Any]:
    response = await tools.client.post(
        tools.url(query={"access_token": token}), content=message.body, headers=message.headers
    )
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("write", [http.to_structured_event, http.to_binary_event])
async def test_cloudevents_sdk_requests_are_stored(tools: WebhookSender, write: Any) -> None:
    token = await tools.add(FIXTURE)
    events = [_event(0, {"shelf": "größer", "n": 1}), _event(1, {"tags": ["a"]}), _event(2, "text", "text/plain")]
    for event in events:
        receipt = await _send(tools, write(event), token)
        assert (receipt["accepted"], receipt["rejected"]) == (1, 0)
    repeated = await _send(tools, write(events[0]), token)
    assert (repeated["accepted"], repeated["duplicate"]) == (0, 1)
    touchpoints = (await tools.ask("GET", "/v1/customers/user_id:kunde-ä%22b%2050%25/touchpoints"))["items"]
    assert [touchpoint["properties"] for touchpoint in reversed(touchpoints)] == [
        {"shelf": "größer", "n": 1},
        {"tags": ["a"]},
        {"data": "text"},
    ]
    assert touchpoints[-1]["occurred_at"] == "2026-05-04T10:00:00.000000Z"
    assert touchpoints[-1]["context"]["cloudevent"] == {
        "source": "https://example.com/läden#a",
        "subject": 'kunde-ä"b 50%',
        "comexampleextension": "naïve",
    }


async def test_event_sent_in_all_modes_is_stored_once(tools: WebhookSender) -> None:
    token = await tools.add(FIXTURE)
    event = _event(1, {"n": 1})
    structured, binary = http.to_structured_event(event), http.to_binary_event(event)
    batch = http.HTTPMessage({"content-type": "application/cloudevents-batch+json"}, b"[" + structured.body + b"]")
    receipts = [await _send(tools, message, token) for message in (binary, structured, batch)]
    assert [(receipt["accepted"], receipt["duplicate"]) for receipt in receipts] == [(1, 0), (0, 1), (0, 1)]
    assert (await tools.ask("GET", "/v1/quarantine"))["items"] == []


async def test_unsupported_formats_return_415(tools: WebhookSender) -> None:
    token = await tools.add(FIXTURE)
    for media in (
        "application/cloudevents+avro",
        "application/cloudevents-batch+protobuf",
        "APPLICATION/CloudEvents+xml",
    ):
        headers = {"content-type": media, "authorization": f"Bearer {token}"}
        assert (await tools.client.post(tools.url(), content=b"\x01", headers=headers)).status_code == 415
        unsigned = await tools.client.post(tools.url(), content=b"\x01", headers={"content-type": media})
        assert unsigned.status_code == 401
    assert (await tools.ask("GET", "/v1/quarantine"))["items"] == []


async def test_options_handshake_allows_the_origin(tools: WebhookSender) -> None:
    await tools.add(FIXTURE)
    handshake = {"WebHook-Request-Origin": "eventemitter.example.com", "WebHook-Request-Rate": "120"}
    answer = await tools.client.options(tools.url(), headers=handshake)
    assert answer.status_code == 200
    assert answer.headers["webhook-allowed-origin"] == "eventemitter.example.com"
    assert answer.headers["webhook-allowed-rate"] == "120"
    assert answer.headers["allow"] == "POST"
    del handshake["WebHook-Request-Rate"]
    assert (await tools.client.options(tools.url(), headers=handshake)).headers["webhook-allowed-rate"] == "*"
    assert "webhook-allowed-origin" not in (await tools.client.options(tools.url())).headers


async def test_option_subject_sets_the_identity_kind(tools: WebhookSender) -> None:
    for source, kind, reference in (
        ("mails", "email", "email:user@example.com"),
        ("cards", "loyalty_card", "loyalty_card:User@example.com"),
        ("files", "none", None),
    ):
        await tools.ask(
            "POST", "/v1/sources", {"key": source, "kind": "cloudevents", "options": {"subject": kind}}, 201
        )
        token = (await tools.ask("POST", f"/v1/sources/{source}/secrets", {}, 201))["token"]
        event = CloudEvent({"id": "1", "source": "/s", "type": "t", "subject": "User@example.com"}, {})
        message = http.to_structured_event(event)
        response = await tools.client.post(
            tools.url(source, {"access_token": token}), content=message.body, headers=message.headers
        )
        assert response.json()["accepted"] == (reference is not None)
        if reference:
            assert len((await tools.ask("GET", f"/v1/customers/{reference}/touchpoints"))["items"]) == 1
