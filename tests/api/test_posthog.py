"""PostHog's routes: bodies, routes shared with Mixpanel, and the settings of posthog-js."""

from __future__ import annotations

import gzip
import json
import zlib
from base64 import b64encode
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_plus

import pytest

from app.formats.timestamps import rfc3339
from tests.support.running_app import RunningApp, post_json, touchpoints_of

PATHS = ("/e", "/capture", "/batch", "/i/v0/e", "/track", "/engage")


def event(name: str, uuid: str = "e-1", **more: Any) -> dict[str, Any]:
    props = {"$device_id": "d-1", "$lib": "web", "$is_identified": True}
    return {"event": name, "uuid": uuid, "distinct_id": "user-1", "properties": props, **more}


def batch(service: RunningApp, *events: Any, **around: Any) -> dict[str, Any]:
    return {"api_key": service.keys.write_key, "batch": list(events), **around}


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("path", PATHS)
async def test_every_route_accepts_single_events_and_batches(service: RunningApp, path: str, slash: str) -> None:
    single = {**event("One"), "api_key": service.keys.write_key}
    for body in (single, batch(service, event("One"), event("Two", "e-2"))):
        response = await post_json(service, path + slash, body)
        assert (response.status_code, response.json()) == (200, {"status": 1}), response.text
    assert [item["name"] for item in await touchpoints_of(service)] == ["One", "Two"]


async def test_every_encoding_of_the_browser_sdk_is_accepted(service: RunningApp) -> None:
    raw = json.dumps(batch(service, event("Seen"))).encode()
    for options in (
        {"content": gzip.compress(raw), "headers": {"Content-Type": "text/plain"}},
        {"content": gzip.compress(raw), "headers": {"Content-Encoding": "gzip", "Content-Type": "application/json"}},
        {"content": b"data=" + quote_plus(b64encode(raw)).encode(), "params": {"compression": "base64"}},
        {"content": raw, "params": {"ip": "1", "_": "1777888800000", "ver": "1.449.2"}},
    ):
        response = await service.client.post("/e/", **options)  # type: ignore[arg-type]
        assert response.json() == {"status": 1}
    assert (await service.client.get("/e/", params={"data": b64encode(raw).decode()})).status_code == 405
    assert [item["name"] for item in await touchpoints_of(service)] == ["Seen"]


async def test_set_updates_traits_of_the_person(service: RunningApp) -> None:
    anonymous = {"properties": {"$device_id": "d-1", "$is_identified": False, "distinct_id": "d-1", "$lib": "web"}}
    identify = event("$identify", "e-2", **{"$set": {"email": "user@example.com"}})
    identify["properties"]["$anon_distinct_id"] = "d-1"
    plan = event("Upgraded", "e-3")
    plan["properties"]["$set"] = {"plan": "gold"}
    events = [{"event": "$pageview", "uuid": "e-1", **anonymous}, identify, plan]
    for _ in range(2):
        await post_json(service, "/e/", batch(service, *events, sent_at="2026-05-04T10:00:00Z"))
    customer = await service.ask("/v1/customers/user-1")
    assert customer["traits"] == {"email": "user@example.com", "plan": "gold"}
    assert {str(item["kind"]) for item in customer["identities"]} == {"user_id", "email", "anonymous_id"}
    assert [item["name"] for item in await touchpoints_of(service)] == ["page_viewed", "Upgraded"]


async def test_refused_event_is_quarantined_and_can_be_replayed(service: RunningApp) -> None:
    bad = {**event("x" * 300), "timestamp": "2026-05-04T10:00:00Z"}
    assert (await post_json(service, "/e/", batch(service, bad, event("Good", "e-2")))).json() == {"status": 1}
    [quarantined] = (await service.ask("/v1/quarantine"))["items"]
    assert (quarantined["code"], json.loads(quarantined["original"])) == ("event_too_long", bad)
    again = await service.tell("POST", f"/v1/quarantine/{quarantined['id']}/replay")
    assert [item["code"] for item in again["rejections"]] == ["event_too_long"]
    mended = await service.tell("POST", f"/v1/quarantine/{quarantined['id']}/replay", event("Short"))
    assert mended["accepted"] == 1
    assert {item["name"] for item in await touchpoints_of(service)} == {"Good", "Short"}


async def test_invalid_keys_and_bodies_are_refused(service: RunningApp) -> None:
    for body, status in (
        ({**event("A"), "api_key": "wk_unknown"}, 401),
        ({**event("A"), "api_key": service.keys.secret_key}, 403),
        (event("A"), 401),
        ({"api_key": service.keys.write_key, "batch": 7}, 400),
        ({"api_key": service.keys.write_key, "batch": {}}, 400),
        ("text", 400),
    ):
        response = await post_json(service, "/e/", body)
        assert (response.status_code, response.json()["status"]) == (status, status), (body, response.text)
    assert (await service.client.post("/e/", content=gzip.compress(b" " * 5_000_000))).status_code == 400


async def test_flags_and_remote_config_of_the_browser_sdk(service: RunningApp) -> None:
    key = service.keys.write_key
    config = (await service.client.get(f"/array/{key}/config")).json()
    assert (config["token"], config["hasFeatureFlags"], config["sessionRecording"]) == (key, False, False)
    assert "gzip-js" in config["supportedCompression"]
    script = await service.client.get(f"/array/{key}/config.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert script.headers["x-content-type-options"] == "nosniff"
    before, _, after = script.text.partition("]=")
    assert before == f'(window._POSTHOG_REMOTE_CONFIG=window._POSTHOG_REMOTE_CONFIG||{{}})["{key}"'
    assert json.loads(after.rstrip(";")) == {"config": config, "siteApps": []}
    for path in ("/array/wk_unknown/config", "/array/wk_unknown/config.js", '/array/"+alert(1)+"/config.js'):
        assert (await service.client.get(path)).status_code == 404
    for path in ("/flags/?v=2", "/decide/?v=3", "/flags"):
        flags = await post_json(service, path, {"token": key, "distinct_id": "user-1"})
        assert (flags.status_code, flags.json()["featureFlags"]) == (200, {})


async def test_preflights(service: RunningApp) -> None:
    for path in ("/e/", "/batch/", "/i/v0/e/", "/flags/", f"/array/{service.keys.write_key}/config"):
        preflight = {"Origin": "https://shop.example.com", "Access-Control-Request-Headers": "content-type"}
        response = await service.client.options(path, headers=preflight)
        assert (response.status_code, response.headers["access-control-allow-headers"]) == (204, "content-type"), path


# ------------------------------------------------------------------------------------------------------ version 1

V1 = "/i/v1/analytics/events"


def v1(service: RunningApp, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {service.keys.write_key}", "PostHog-Sdk-Info": "posthog-node/5.0.0", **more}


@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate"])
async def test_version_1_returns_a_result_for_each_event(service: RunningApp, encoding: str) -> None:
    bodies: dict[str, Callable[[bytes], bytes]] = {"identity": bytes, "gzip": gzip.compress, "deflate": zlib.compress}
    events = [event("Seen"), event("", "e-2"), {**event("Bought", "e-3"), "options": {"process_person_profile": False}}]
    raw = json.dumps({"created_at": "2026-05-04T10:00:00Z", "batch": events, "historical_migration": True}).encode()
    for slash in ("", "/"):
        response = await service.client.post(
            V1 + slash, content=bodies[encoding](raw), headers=v1(service, **{"Content-Encoding": encoding})
        )
        assert response.status_code == 200
        results = response.json()["results"]
        assert {uuid: item["result"] for uuid, item in results.items()} == {"e-1": "ok", "e-2": "drop", "e-3": "ok"}
        assert "event name" in results["e-2"]["details"]
    viewed, bought = await touchpoints_of(service)
    assert (viewed["name"], bought["name"], bought["properties"]) == (
        "Seen", "Bought", {"$is_identified": True, "$process_person_profile": False},
    )  # fmt: skip
    assert viewed["context"]["library"]["name"] == "web"  # The context of the event takes precedence.


async def test_version_1_corrects_the_client_clock(service: RunningApp) -> None:
    hour = 3_600_000_000
    now = service.clock.now()
    sent, claimed = rfc3339(now + hour), rfc3339(now + hour - 60_000_000)
    events = [{**event("A"), "timestamp": claimed}, {**event("x" * 300, "e-2"), "timestamp": claimed}]
    headers = v1(service, **{"PostHog-Request-Timestamp": sent})
    await service.client.post(V1, json={"batch": events}, headers=headers)
    [quarantined] = (await service.ask("/v1/quarantine"))["items"]
    mended = {**events[1], "event": "B"}
    assert (await service.tell("POST", f"/v1/quarantine/{quarantined['id']}/replay", mended))["accepted"] == 1
    one, other = (item["occurred_at"] for item in await touchpoints_of(service))
    assert one == other
    assert rfc3339(now - 60_000_000) <= one < rfc3339(now - 50_000_000)


async def test_version_1_refuses_invalid_keys_and_bodies(service: RunningApp) -> None:
    for headers, body, status in (
        ({"Authorization": "Bearer wk_unknown"}, {"batch": []}, 401),
        ({"Authorization": f"Bearer {service.keys.secret_key}"}, {"batch": []}, 403),
        ({}, {"batch": []}, 401),
        (v1(service), {"batch": 7}, 400),
        (v1(service), {"batch": []}, 200),
    ):
        response = await service.client.post(V1, json=body, headers=headers)
        assert response.status_code == status, (headers, body)
    many = [
        event("E", f"e-{number}") for number in range(service.app.state.services.settings.limits.batch_messages_max + 1)
    ]
    results = (await service.client.post(V1, json={"batch": many}, headers=v1(service))).json()["results"]
    assert [uuid for uuid, item in results.items() if item["result"] == "retry"] == [many[-1]["uuid"]]
