"""Routes of RudderStack and Jitsu outside /v1, and tracking pixels."""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64encode
from typing import Any

import pytest

from tests.support.running_app import RunningApp, post_json, touchpoints_of


def basic(key: str) -> dict[str, str]:
    return {"Authorization": f"Basic {b64encode(f'{key}:'.encode()).decode()}"}


async def test_rudderstack_source_config(service: RunningApp) -> None:
    query = "p=npm&v=3.34.1&build=modern&lockIntegrationsVersion=true"
    for slash in ("", "/"):
        for headers, parameters in ((basic(service.keys.write_key), query), ({}, f"writeKey={service.keys.write_key}")):
            response = await service.client.get(f"/sourceConfig{slash}?{parameters}", headers=headers)
            source = response.json()["source"]
            assert (source["id"], source["enabled"], source["destinations"]) == ("default", True, [])
            assert source["config"]["statsCollection"]["errors"] == {"enabled": False}
    for key, status in (("wk_unknown", 401), (service.keys.secret_key, 403)):
        assert (await service.client.get("/sourceConfig/", headers=basic(key))).status_code == status
    asks = {"Origin": "https://shop.example.com", "Access-Control-Request-Headers": "authorization"}
    preflight = await service.client.options("/sourceConfig/", headers=asks)
    assert (preflight.status_code, preflight.headers["access-control-allow-headers"]) == (204, "authorization")


async def test_rudderstack_beacon(service: RunningApp) -> None:
    item = {"type": "track", "event": "Left", "anonymousId": "a-1", "messageId": "m-1"}
    beacon = {"batch": [item], "sentAt": "2026-05-04T10:00:00Z"}
    path = f"/beacon/v1/batch?writeKey={service.keys.write_key}"
    headers = {"Content-Type": "text/plain", "Origin": "https://shop.example.com"}
    receipts = [(await post_json(service, path, beacon, headers=headers)).json() for _ in range(2)]
    assert [(entry["accepted"], entry["duplicate"]) for entry in receipts] == [(1, 0), (0, 1)]
    assert [entry["name"] for entry in await touchpoints_of(service, "anonymous_id:a-1")] == ["Left"]


async def test_rudderstack_pixels(service: RunningApp) -> None:
    query = {"writeKey": service.keys.write_key, "anonymousId": "a-1", "properties.mail": "7", "theme": "dark"}
    for _ in range(2):
        image = await service.client.get("/pixel/v1/track", params={**query, "event": "Mail Opened"})
        assert (image.status_code, image.headers["content-type"]) == (200, "image/gif")
        assert "no-store" in image.headers["cache-control"]
        await service.client.get("/pixel/v1/page", params={**query, "name": "Mail", "messageId": "m-1"})
    opened = await touchpoints_of(service, "anonymous_id:a-1")
    assert sorted(entry["name"] for entry in opened) == ["Mail Opened", "Mail Opened", "page_viewed"]
    assert opened[0]["properties"] == {"mail": "7", "theme": "dark"} | (
        {"name": "Mail"} if opened[0]["name"] == "page_viewed" else {}
    )
    assert (await service.client.get("/pixel/v1/track", params={"event": "E"})).status_code == 401


@pytest.mark.parametrize("encode", [b64encode, urlsafe_b64encode, lambda raw: b64encode(raw).rstrip(b"=")])
async def test_segment_pixels(service: RunningApp, encode: Any) -> None:
    call = {"writeKey": service.keys.write_key, "userId": "user-1", "event": "Opened >>> ?", "messageId": "m-1"}
    data = encode(json.dumps(call).encode()).decode()
    for path in ("/v1/pixel/track", "/v1/pixel/track/", "/v1/pixel/t"):
        image = await service.client.get(path, params={"data": data})
        assert (image.status_code, image.headers["content-type"]) == (200, "image/gif"), image.text
    assert [entry["name"] for entry in await touchpoints_of(service)] == ["Opened >>> ?"]
    for params in ({}, {"data": "!"}, {"data": "W10"}, {"data": ""}):
        assert (await service.client.get("/v1/pixel/track", params=params)).status_code == 400
    assert (await service.client.get("/v1/pixel/nothing", params={"data": data})).status_code == 404
    assert (await service.client.get("/v1/pixel/batch", params={"data": data})).status_code == 404


async def test_jitsu_calls(service: RunningApp) -> None:
    key = service.keys.write_key
    call = {"type": "track", "event": "Bought", "userId": None, "anonymousId": "a-1", "messageId": "1vhjqq"}
    call["writeKey"] = f"{key}:***"
    for path in ("/api/s/track", "/api/s/s2s/track", "/api/s/track/"):
        for headers in (
            {"X-Write-Key": f"{service.keys.write_key}:secret"},
            {"X-Write-Key": service.keys.write_key},
            {},
        ):
            response = await post_json(service, path, call, headers={**headers, "Origin": "https://shop.example.com"})
            assert (response.status_code, response.json()) == (200, {"ok": True}), (path, headers)
            assert response.headers["access-control-allow-origin"] == "https://shop.example.com"
    assert [entry["name"] for entry in await touchpoints_of(service, "anonymous_id:a-1")] == ["Bought"]
    assert (await post_json(service, "/api/s/track", call, headers={"X-Write-Key": "wk_other:x"})).status_code == 401
    assert (await post_json(service, "/api/s/batch", call)).status_code == 404
