"""Customer.io's Track API: ids in paths, keys, responses, erasure requests, and stored messages."""

from __future__ import annotations

import gzip
import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.support.running_app import RunningApp, touchpoints_of

IDS = ("a/b c", "100%", "a+b", "ünï/日本", "a%2Fb", "../..", "?x=1#y", "a;b=c,d", " padded ", "'\"<>\\")


async def ask(service: RunningApp, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
    options.setdefault("auth", ("site-1", service.keys.write_key))
    return await service.client.request(method, path, json=body, **options)


def of_customer(id: str, rest: str = "") -> str:
    return f"/api/v1/customers/{quote(id, safe='')}{rest}"


async def tracked(service: RunningApp, reference: str) -> list[str]:
    return [item["name"] for item in await touchpoints_of(service, reference)]


@pytest.mark.parametrize("id", IDS)
async def test_ids_stay_whole_in_paths(service: RunningApp, id: str) -> None:
    for method, rest, body in (
        ("PUT", "", {"plan": "gold"}),
        ("POST", "/events", {"name": "purchased", "data": {"price": 19.99}}),
        ("POST", "/events/", {"name": "returned"}),
        ("PUT", "/devices", {"device": {"id": "tok", "platform": "ios"}}),
        ("DELETE", "/devices/to%2Fk", None),
    ):
        response = await ask(service, method, of_customer(id, rest), body)
        assert (response.status_code, response.json()) == (200, {}), (rest, response.text)
    customer = await service.ask("/v1/customers/" + quote(f"user_id:{id}", safe=""))
    assert customer["traits"] == {"plan": "gold"}
    assert ("customerio_device", "to/k") in {(item["kind"], item["value"]) for item in customer["identities"]}
    assert await tracked(service, quote(f"user_id:{id}", safe="")) == [
        "purchased", "returned", "push.device_added", "push.device_removed",
    ]  # fmt: skip
    assert (await service.ask("/v1/quarantine"))["items"] == []


async def test_encoded_path_prefix_is_decoded_once(service: RunningApp) -> None:
    response = await ask(service, "POST", "/api/v1/custom%65rs/100%25/events", {"name": "E"})
    assert (response.status_code, await tracked(service, quote("user_id:100%", safe=""))) == (200, ["E"])
    response = await ask(service, "PUT", "/api/v1/customers/%FF", {})
    assert (response.status_code, response.json()["code"]) == (400, "bad_request")


async def test_site_id_or_api_key_may_be_the_write_key(service: RunningApp) -> None:
    key = service.keys.write_key
    for auth, status in (
        ((key, ""), 200), ((key, "secret"), 200), (("site", key), 200), (("", key), 200),
        (("site", "wk_unknown"), 401), (("site", service.keys.secret_key), 403), ((service.keys.secret_key, "x"), 403),
    ):  # fmt: skip
        response = await ask(service, "PUT", "/api/v1/customers/user-1", {"plan": "gold"}, auth=auth)
        assert response.status_code == status, auth
    bare = await service.client.put("/api/v1/customers/user-1", json={})
    assert bare.status_code == 401


async def test_remaining_calls_are_stored(service: RunningApp) -> None:
    for path, body in (
        ("/api/v1/events", {"name": "seen", "anonymous_id": "a-1", "data": {}}),
        ("/api/v1/merge_customers", {"primary": {"id": "user-1"}, "secondary": {"email": "user@example.com"}}),
        ("/api/v1/push/events", {"delivery_id": "d-1", "event": "opened", "device_id": "tok", "timestamp": 1700000001}),
        ("/api/v1/metrics", {"delivery_id": "d-2", "metric": "clicked", "recipient": "user@example.com"}),
    ):
        for slash in ("", "/"):
            response = await ask(service, "POST", path + slash, body)
            assert (response.status_code, response.json()) == (200, {}), (path, response.text)
    # A report without id and time counts each time.
    assert await tracked(service, "anonymous_id:a-1") == ["seen", "seen"]
    # With a time, the second report is a duplicate.
    assert await tracked(service, "customerio_device:tok") == ["push.opened"]
    assert await tracked(service, "user-1") == ["email.clicked", "email.clicked"]


async def test_write_key_requests_erasure_but_erases_nothing(service: RunningApp) -> None:
    await ask(service, "PUT", "/api/v1/customers/user-1", {"email": "user@example.com", "plan": "gold"})
    for method, path in (
        ("DELETE", of_customer("user@example.com")),
        ("DELETE", of_customer("user@example.com", "/")),
        ("POST", of_customer("user-1", "/suppress")),
        ("DELETE", of_customer("no/body")),
    ):
        response = await ask(service, method, path)
        assert (response.status_code, response.json()) == (200, {}), response.text
    customer = await service.ask("/v1/customers/user-1")
    assert customer["traits"] == {"email": "user@example.com", "plan": "gold", "suppressed": True}
    requests = (await service.ask("/v1/erasure-requests"))["items"]
    assert {(item["source"], item["kind"], item["value"], item["customer"]) for item in requests} == {
        ("default", "email", "user@example.com", customer["id"]),
        ("default", "user_id", "user-1", customer["id"]),
        ("default", "user_id", "no/body", None),
    }
    for auth in (("site", "wk_unknown"), ("site", service.keys.secret_key)):
        assert (await ask(service, "DELETE", of_customer("user-2"), auth=auth)).status_code in (401, 403)
    assert len((await service.ask("/v1/erasure-requests"))["items"]) == 3


async def test_batch_stores_valid_operations_and_reports_the_others(service: RunningApp) -> None:
    event = {"type": "person", "action": "event", "identifiers": {"id": "user-1"}, "timestamp": 1700000001}
    operations = [{**event, "name": "A"}, {**event}, {**event, "name": "B"}, {**event, "action": "delete"}]
    raw = json.dumps({"batch": operations}).encode()
    for content, headers in ((raw, {}), (gzip.compress(raw), {"Content-Encoding": "gzip"})):
        response = await service.client.post(
            "/api/v2/batch", content=content, headers=headers, auth=("site", service.keys.write_key)
        )
        assert response.status_code == 207
        [error] = response.json()["errors"]
        assert (error["batch_index"], error["reason"], error["field"]) == (1, "required", "name")
    assert await tracked(service, "user-1") == ["A", "B"]
    assert [item["value"] for item in (await service.ask("/v1/erasure-requests"))["items"]] == ["user-1"]
    whole = await ask(service, "POST", "/api/v2/batch/", {"batch": operations[:1]})
    assert (whole.status_code, whole.json()) == (200, {})


async def test_entity_stores_one_operation(service: RunningApp) -> None:
    event = {"type": "person", "action": "event", "identifiers": {"email": "user@example.com"}, "name": "A"}
    receipt = await ask(service, "POST", "/api/v2/entity", event)
    assert (receipt.status_code, receipt.json()) == (200, {})
    refused = await ask(service, "POST", "/api/v2/entity/", {**event, "name": ""})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (400, "name")
    [quarantined] = (await service.ask("/v1/quarantine"))["items"]
    assert json.loads(quarantined["original"]) == {**event, "name": ""}


async def test_refused_call_can_be_replayed_once(service: RunningApp) -> None:
    refused = await ask(service, "POST", of_customer("a/b", "/events"), {"name": "", "data": {"price": 1}})
    assert (refused.status_code, refused.json()) == (200, {})
    [quarantined] = (await service.ask("/v1/quarantine"))["items"]
    corrected = {**json.loads(quarantined["original"]), "name": "Mended"}
    for accepted, duplicate in ((1, 0), (0, 1)):
        receipt = await service.tell("POST", f"/v1/quarantine/{quarantined['id']}/replay", corrected)
        assert (receipt["accepted"], receipt["duplicate"]) == (accepted, duplicate)
    [touchpoint] = await touchpoints_of(service, quote("user_id:a/b", safe=""))
    assert (touchpoint["name"], touchpoint["occurred_at"]) == ("Mended", quarantined["received_at"])


@pytest.mark.parametrize("body", [b"no", b"7", b"[]", b'{"a":', b"\xff"])
async def test_unreadable_bodies_are_refused(service: RunningApp, body: bytes) -> None:
    for method, path in (
        ("PUT", "/api/v1/customers/user-1"),
        ("POST", "/api/v1/customers/user-1/events"),
        ("POST", "/api/v2/batch"),
    ):
        response = await service.client.request(method, path, content=body, auth=("site", service.keys.write_key))
        assert (response.status_code, response.json()["code"]) == (400, "invalid_body"), (path, body)


async def test_track_api_sends_no_cors_headers(service: RunningApp) -> None:
    response = await service.client.options(
        "/api/v1/customers/user-1",
        headers={"Origin": "https://shop.example.com", "Access-Control-Request-Method": "DELETE"},
    )
    assert "access-control-allow-origin" not in response.headers


def related(people: int, **more: Any) -> dict[str, Any]:
    who = [{"identifiers": {"id": f"user-{n}"}} for n in range(people)]
    company = {"object_type_id": "1", "object_id": "acme"}
    return {"type": "object", "action": "identify", "identifiers": company, "cio_relationships": who, **more}


async def test_operation_about_many_people_is_limited_before_parsing(service: RunningApp) -> None:
    """One operation about many people creates a message for each person."""
    for operation in (related(1_000, attributes={"note": "x" * 2_000}), related(1, attributes={"note": "x" * 40_000})):
        response = await ask(service, "POST", "/api/v2/batch", {"batch": [operation]})
        assert response.status_code == 207
        quarantined = (await service.ask("/v1/quarantine"))["items"]
        assert {item["code"] for item in quarantined} == {"message_too_large"}
    many = [related(300, attributes={"name": "Acme"}, id=f"o-{n}") for n in range(12)]
    response = await ask(service, "POST", "/api/v2/batch", {"batch": many})
    assert response.status_code == 207
    assert len(response.json()["errors"]) == 4, "8 times 300 messages are within the limit of a batch"


async def test_body_is_not_read_without_a_valid_key(service: RunningApp) -> None:
    for path in ("/api/v2/batch", "/api/v2/entity", "/api/v1/events", "/api/v1/customers/1/events"):
        response = await ask(service, "POST", path, None, content=b"{no json", auth=("site", "unknown"))
        assert (response.status_code, response.json()["code"]) == (401, "unauthorized"), path


async def test_deleted_relationships_are_recorded_as_such(service: RunningApp) -> None:
    person = {"type": "person", "identifiers": {"id": "user-0"}}
    relation = [{"identifiers": {"object_type_id": "1", "object_id": "acme"}}]
    for operation in (
        {**person, "action": "delete_relationships", "cio_relationships": relation, "timestamp": 1777888800},
        related(1, action="delete_relationships", timestamp=1777888801),
    ):
        assert (await ask(service, "POST", "/api/v2/entity", operation)).status_code == 200
    v1 = {"cio_relationships": {"action": "delete_relationships", "relationships": relation}}
    assert (await ask(service, "PUT", of_customer("user-0"), v1)).status_code == 200
    rows = await service.app.state.services.pool.fetch("SELECT type, name FROM touchpoints ORDER BY occurred_at")
    messages = [(row["type"], row["name"]) for row in rows]
    assert messages.count(("track", "customerio.relationship_deleted")) == 3
    assert "group" not in {type for type, _ in messages}


async def test_top_level_relationships_and_phone_identities(service: RunningApp) -> None:
    relation = [{"identifiers": {"object_type_id": "1", "object_id": "acme"}}]
    who = {"id": "user-1", "phone": "+49 30 123456"}
    operation = {"type": "person", "action": "identify", "identifiers": who, "cio_relationships": relation}
    assert (await ask(service, "POST", "/api/v2/entity", operation)).status_code == 200
    customer = await service.ask("/v1/customers/user-1")
    assert {"kind": "phone", "value": "+4930123456"} in customer["identities"]
    rows = await service.app.state.services.pool.fetch("SELECT type FROM touchpoints")
    assert sorted(row["type"] for row in rows) == ["group", "identify"]


async def test_refused_operation_about_many_people_is_quarantined_once(service: RunningApp) -> None:
    operation = {**related(0), "cio_relationships": [{}] * 200}
    response = await ask(service, "POST", "/api/v2/batch", {"batch": [operation]})
    assert [item["batch_index"] for item in response.json()["errors"]] == [0]
    [quarantined] = (await service.ask("/v1/quarantine"))["items"]
    assert json.loads(quarantined["original"]) == operation
