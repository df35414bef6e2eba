"""Google Analytics 4's Measurement Protocol: collection, and the debug route."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.config import Settings
from app.postgres.pool import FrozenClock
from tests.support.running_app import RunningApp, post_json, running_app, touchpoints_of


def body(*events: Any, **around: Any) -> dict[str, Any]:
    return {"client_id": "123.456", "user_id": "user-1", "events": list(events), **around}


def path(service: RunningApp, of: str = "/mp/collect") -> str:
    return f"{of}?measurement_id=G-1&api_secret={service.keys.write_key}"


async def test_events_and_user_properties_are_stored(service: RunningApp) -> None:
    view = {"name": "page_view", "params": {"page_location": "https://shop.example.com/", "page_title": "Shop"}}
    buy = {"name": "purchase", "params": {"value": 42.5, "currency": "EUR"}}
    hit = body(view, buy, timestamp_micros=1777888800000000, user_properties={"plan": {"value": "gold"}})
    for _ in range(2):
        response = await post_json(service, path(service), hit)
        assert (response.status_code, response.content) == (204, b"")
    properties_by_name = {item["name"]: item["properties"] for item in await touchpoints_of(service)}
    assert properties_by_name["page_viewed"]["url"] == "https://shop.example.com/"
    assert properties_by_name["purchase"] == {"value": 42.5, "currency": "EUR"}
    customer = await service.ask("/v1/customers/anonymous_id:123.456")
    assert customer["traits"] == {"plan": "gold", "first_touch": "Direct"}


async def test_refused_event_is_quarantined_whole_and_can_be_replayed(service: RunningApp) -> None:
    hit = body({"name": "ok"}, {"name": "x" * 201}, {"params": {}})
    assert (await post_json(service, path(service), hit)).status_code == 204
    assert [item["name"] for item in await touchpoints_of(service)] == ["ok"]
    quarantined = (await service.ask("/v1/quarantine"))["items"]
    assert {item["code"] for item in quarantined} == {"event_too_long", "missing_event"}
    original = json.loads(next(item["original"] for item in quarantined if item["code"] == "missing_event"))
    assert original == {"client_id": "123.456", "user_id": "user-1", "events": [{"params": {}}]}
    original["events"][0]["name"] = "mended"
    receipt = await service.tell("POST", f"/v1/quarantine/{quarantined[0]['id']}/replay", original)
    assert receipt["accepted"] == 1


async def test_invalid_keys_and_bodies_are_refused(service: RunningApp) -> None:
    for secret, content, status in (
        ("wk_unknown", body({"name": "a"}), 401),
        ("", body({"name": "a"}), 401),
        (service.keys.secret_key, body({"name": "a"}), 403),
        (service.keys.write_key, [], 400),
        (service.keys.write_key, {"events": 7}, 400),
        (service.keys.write_key, "text", 400),
    ):
        response = await post_json(service, f"/mp/collect?api_secret={secret}", content)
        assert response.status_code == status, (secret, content)


async def test_debug_route_validates_and_stores_nothing(service: RunningApp) -> None:
    debug = path(service, "/debug/mp/collect")
    assert (await post_json(service, debug, body({"name": "purchase"}))).json() == {"validationMessages": []}
    cases: list[tuple[Any, list[tuple[str, str]]]] = [
        ({"events": [{"name": "a"}]}, [("client_id", "VALUE_REQUIRED")]),
        (body({"name": "a"}, {"name": "x" * 201}), [("events[1]", "NAME_INVALID")]),
        (body(7, {"params": 7}), [("events[0]", "VALUE_INVALID"), ("events[1]", "VALUE_INVALID")]),
        (body({"params": {}}), [("events[0]", "VALUE_REQUIRED")]),
        (body({"name": "a", "params": 7}), [("events[0]", "VALUE_INVALID")]),
        ("no object", [("", "VALUE_INVALID")]),
        ([], [("", "VALUE_INVALID")]),
    ]
    for content, expected in cases:
        response = await post_json(service, debug, content)
        messages = response.json()["validationMessages"]
        assert (response.status_code, [(item["fieldPath"], item["validationCode"]) for item in messages]) == (
            200, expected,
        )  # fmt: skip
        assert all(item["description"] for item in messages)
    unknown = (await post_json(service, "/debug/mp/collect?api_secret=wk_unknown", body({"name": "a"}))).json()
    assert [item["fieldPath"] for item in unknown["validationMessages"]] == ["api_secret"]
    await service.ask("/v1/customers/user-1", expected=404)
    assert (await service.ask("/v1/quarantine"))["items"] == []


async def test_equal_events_of_one_body_are_stored_and_retries_are_not(service: RunningApp) -> None:
    hit = body({"name": "scroll"}, {"name": "scroll"}, {"name": "click"}, timestamp_micros=1777888800000000)
    for _ in range(2):
        assert (await post_json(service, path(service), hit)).status_code == 204
    assert sorted(item["name"] for item in await touchpoints_of(service)) == ["click", "scroll", "scroll"]


async def test_rebatched_events_are_duplicates(service: RunningApp) -> None:
    """The client resends events whose response was lost, in another batch and another order."""
    first, second, third = ({"name": name, "params": {"n": 1}} for name in ("a", "b", "c"))
    for events in ((first, second), (second, third, first), (third,)):
        hit = body(*events, timestamp_micros=1777888800000000)
        assert (await post_json(service, path(service), hit)).status_code == 204
    assert sorted(item["name"] for item in await touchpoints_of(service)) == ["a", "b", "c"]
    other = body(first, timestamp_micros=1777888800000000, client_id="123.457")
    assert (await post_json(service, path(service), other)).status_code == 204
    assert len(await touchpoints_of(service)) == 4, "the same of another device is another event"


@pytest.mark.parametrize("time", ["soon", "", -1, 0, None, True, [], {"a": 1}], ids=repr)
async def test_invalid_timestamp_does_not_defeat_deduplication(service: RunningApp, time: Any) -> None:
    """Two events with the same unreadable timestamp are stored as two events."""
    for around, event in (({"timestamp_micros": time}, {}), ({}, {"timestamp_micros": time})):
        for _ in range(2):
            await post_json(service, path(service), body({"name": "a", **event}, **around))
    rows = await touchpoints_of(service)
    assert len(rows) == 4
    assert len({item["occurred_at"] for item in rows}) == 4
    assert (await service.ask("/v1/quarantine"))["items"] == []


@pytest.mark.parametrize("nothing", [{}, {"app_instance_id": None}, {"app_instance_id": ""}], ids=repr)
async def test_any_present_id_identifies_the_visitor(service: RunningApp, nothing: dict[str, Any]) -> None:
    web = {"client_id": "web.1", **nothing, "events": [{"name": "a"}]}
    app = {"client_id": None, "app_instance_id": "app-1", "events": [{"name": "b"}]}
    for hit in (web, app):
        assert (await post_json(service, path(service), hit)).status_code == 204
    for id, name in (("web.1", "a"), ("app-1", "b")):
        assert [item["name"] for item in await touchpoints_of(service, f"anonymous_id:{id}")] == [name]


async def test_quarantined_events_stay_small(service: RunningApp) -> None:
    """Quarantine copies the ids of the body to each event, but no other field: that would be 100 times 100 KB."""
    hit = body(*[{"params": {"n": n}} for n in range(100)], user_id="x" * 100_000)
    assert (await post_json(service, path(service), hit)).status_code == 204
    quarantined = await service.all_of("/v1/quarantine")
    assert len(quarantined) == 100
    assert max(len(item["original"]) for item in quarantined) < 400
    assert json.loads(quarantined[0]["original"])["client_id"] == "123.456"


async def test_debug_route_checks_the_origin_of_the_key(service: RunningApp) -> None:
    expected_body = {"kind": "write", "source": "default", "origins": ["https://shop.example.com"]}
    key = (await service.tell("POST", "/v1/keys", expected_body, 201))["key"]
    debug = f"/debug/mp/collect?api_secret={key}"
    for origin, status in (("https://shop.example.com", 200), ("https://evil.example.com", 403)):
        response = await post_json(service, debug, body({"name": "a"}), headers={"Origin": origin})
        assert response.status_code == status
        assert response.json().get("code") == (None if status == 200 else "origin_not_allowed")


async def test_debug_route_counts_against_the_key_rate_limit(settings: Settings, clock: FrozenClock) -> None:
    async with running_app(settings.model_copy(update={"key_rate": "2/minute"}), clock) as service:
        debug = path(service, "/debug/mp/collect")
        answers = [await post_json(service, debug, body({"name": "a"})) for _ in range(3)]
        assert [item.status_code for item in answers] == [200, 200, 429]
