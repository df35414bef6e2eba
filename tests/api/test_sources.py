"""Sources, keys and their permissions, and quarantine."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import Any

import pytest
from fastapi.routing import APIRoute

from app.api.openapi_document import VENDOR_TAGS
from app.config import Settings
from app.formats.timestamps import rfc3339
from app.postgres.pool import FrozenClock, open_pool
from app.registry.bootstrap import bootstrap
from app.touchpoint import DAY, HOUR, SECOND
from tests.support.running_app import NOON, RunningApp, basic_auth, is_problem, running_app, track

OPEN = {"/livez", "/readyz", "/metrics", "/docs", "/openapi.json"}


def secret_routes(service: RunningApp) -> list[tuple[str, str]]:
    return [
        (method, route.path)
        for route in service.app.routes
        if isinstance(route, APIRoute)
        and not {"collect", "pages", *VENDOR_TAGS} & set(route.tags)
        and route.path != "/"
        and not route.path.startswith(tuple(OPEN))
        and not route.path.endswith("/webhook")  # tests/api/test_webhooks.py covers webhooks
        for method in route.methods or ()
    ]


async def test_every_private_route_needs_a_secret_key(service: RunningApp) -> None:
    routes = secret_routes(service)
    assert len(routes) > 25
    for method, path in routes:
        path = path.replace("{customer}", "user-1").replace("{key}", "engaged").replace("{id}", "1")
        for headers, status, code in (
            ({}, 401, "unauthorized"),
            ({"Authorization": "Bearer sk_unknown"}, 401, "unauthorized"),
            ({"Authorization": "Bearer "}, 401, "unauthorized"),
            (basic_auth(service.keys.secret_key), 401, "unauthorized"),
            ({"Authorization": f"Bearer {service.keys.write_key}"}, 403, "forbidden"),
        ):
            response = await service.client.request(method, path, headers=headers)
            assert is_problem(response, status, code), (method, path, headers, response.text)


async def test_secret_keys_are_shown_once_and_stored_hashed(service: RunningApp) -> None:
    created = await service.tell("POST", "/v1/keys", {"kind": "secret", "name": "Reports"}, 201)
    assert created["key"].startswith("sk_")
    assert len(created["key"]) == 35
    listed = (await service.ask("/v1/keys"))["items"]
    assert [item["kind"] for item in listed] == ["write", "secret", "secret"]
    assert all("key" not in item for item in listed)
    assert listed[-1]["hint"] == created["key"][:7]
    assert listed[0]["hint"] == service.keys.write_key
    for body in (
        {"kind": "other"},
        {"kind": "write"},
        {"kind": "secret", "source": "default"},
        {},
        7,
        {"kind": "secret", "x": 1},
    ):
        assert (await service.tell("POST", "/v1/keys", body, 400))["code"] == "bad_request"
    assert (await service.tell("POST", "/v1/keys", {"kind": "write", "source": "none"}, 404))["code"] == "not_found"


async def test_new_key_works_and_revoked_key_does_not(service: RunningApp) -> None:
    created = await service.tell("POST", "/v1/keys", {"kind": "secret"}, 201)
    bearer = {"Authorization": f"Bearer {created['key']}"}
    assert (await service.client.get("/v1/keys", headers=bearer)).status_code == 200
    revoked = await service.tell("DELETE", f"/v1/keys/{created['id']}")
    assert revoked["revoked_at"] is not None
    assert is_problem(await service.client.get("/v1/keys", headers=bearer), 401, "unauthorized")
    assert (await service.tell("DELETE", f"/v1/keys/{created['id']}"))["revoked_at"] == revoked["revoked_at"]
    for id in ("00", "zz", "wk_unknown"):
        assert (await service.tell("DELETE", f"/v1/keys/{id}", expected=404))["code"] == "not_found"


async def test_last_secret_key_cannot_be_revoked(service: RunningApp) -> None:
    async def revoke(id: str) -> int:
        return (await service.client.delete(f"/v1/keys/{id}", headers=service.secret)).status_code

    [own] = [item for item in (await service.ask("/v1/keys"))["items"] if item["kind"] == "secret"]
    refused = await service.client.delete(f"/v1/keys/{own['id']}", headers=service.secret)
    assert is_problem(refused, 409, "last_secret_key")
    other = await service.tell("POST", "/v1/keys", {"kind": "secret"}, 201)
    assert sorted(await asyncio.gather(revoke(own["id"]), revoke(other["id"]))) in ([200, 401], [200, 409])
    pool = service.app.state.services.pool
    assert await pool.fetchval("SELECT count(*) FROM keys WHERE kind = 'secret' AND revoked_at IS NULL") == 1


async def test_keys_show_their_last_use(settings: Settings, clock: FrozenClock) -> None:
    async def last_uses() -> dict[str, str | None]:
        return {item["kind"]: item["last_used_at"] for item in (await service.ask("/v1/keys"))["items"]}

    async with running_app(settings, clock) as service:
        assert await last_uses() == {"write": None, "secret": "2026-01-01T12:00:00.000000Z"}
        await service.send(track("e"))
        clock.instant += HOUR
        assert await last_uses() == dict.fromkeys(("write", "secret"), "2026-01-01T13:00:00.000000Z")
        clock.instant += HOUR
        assert await last_uses() == {"write": "2026-01-01T13:00:00.000000Z", "secret": "2026-01-01T14:00:00.000000Z"}


async def test_key_changes_reach_other_processes(settings: Settings, start: Any) -> None:
    async with start(settings) as one, start(settings) as other:
        source = await one.tell("POST", "/v1/sources", {"key": "shop", "default_channel": "web"}, 201)
        write = basic_auth(source["write_key"])
        # A process that does not know a key loads it at once.
        response = await other.client.post("/v1/track", json=track("e", messageId="m-1"), headers=write)
        assert response.status_code == 200, response.text
        (key,) = (item for item in (await one.ask("/v1/keys"))["items"] if item["hint"] == source["write_key"])
        await one.tell("DELETE", f"/v1/keys/{key['id']}")
        await asyncio.sleep(1)
        response = await other.client.post("/v1/track", json=track("e"), headers=write)
        assert is_problem(response, 401, "unauthorized")


async def test_forged_keys_cost_no_query(service: RunningApp, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = 0
    registry = service.app.state.services.registry
    reload = registry.access._refresh_for_unknown_key

    async def count() -> bool:
        nonlocal reads
        before = registry.access._checked_at
        answer: bool = await reload()
        reads += registry.access._checked_at != before
        return answer

    monkeypatch.setattr(registry.access, "_refresh_for_unknown_key", count)
    for n in range(20):
        await service.client.post("/v1/track", json=track("e"), headers=basic_auth(f"wk_{n}"))
    assert reads <= 2


async def test_sources_are_created_changed_and_listed(service: RunningApp) -> None:
    body = {"key": "shop", "name": "Shop", "default_channel": "web", "identity_properties": {"customer.ref": "crm_id"}}
    created = await service.tell("POST", "/v1/sources", body, 201)
    made_besides = {name: created[name] for name in ("created_at", "write_key")}
    assert {**body, "bots": "quarantine", "kind": "sdk", "options": {}, **made_besides} == created
    assert (await service.tell("POST", "/v1/sources", body, 409))["code"] == "conflict"
    assert [item["key"] for item in (await service.ask("/v1/sources"))["items"]] == ["default", "shop"]
    message = track("e", properties={"customer": {"ref": "c-7"}})
    response = await service.client.post("/v1/track", json=message, headers=basic_auth(created["write_key"]))
    assert response.status_code == 200
    customer = await service.ask("/v1/customers/crm_id:c-7")
    assert {"kind": "user_id", "value": "user-1"} in customer["identities"]
    (touchpoint,) = (await service.ask("/v1/customers/user-1/touchpoints"))["items"]
    assert (touchpoint["source"], touchpoint["channel"]) == ("shop", "web")
    bad: Any
    for bad in ({"key": "A b"}, {"key": "x", "default_channel": "Web"}, {"key": "x", "name": "\0"}, {}, []):
        assert (await service.tell("POST", "/v1/sources", bad, 400))["code"] == "bad_request"


async def test_bootstrap_runs_once(settings: Settings) -> None:
    assert settings.database_url is not None
    pool = await open_pool(settings.database_url, 2)

    async def first() -> Any:
        async with pool.acquire() as connection:
            return await bootstrap(connection)  # type: ignore[arg-type]

    created = [item for item in await asyncio.gather(first(), first()) if item is not None]
    await pool.close()
    assert len(created) == 1


# ---------------------------------------------------------------------------------------------- quarantine


async def test_rejected_message_is_quarantined_corrected_and_replayed(service: RunningApp) -> None:
    bad = {"type": "track", "userId": "user-1", "messageId": "m-1"}
    await service.send(bad, expected=0)
    await service.send({"type": "track", "userId": "user-1", "messageId": "m-2"}, expected=0)
    await service.client.post(
        "/v1/batch", content=b'{"batch":["\\ud800"],"writeKey":"' + service.keys.write_key.encode() + b'"}'
    )
    page = await service.ask("/v1/quarantine")
    assert [item["code"] for item in page["items"]] == ["not_an_object", "missing_event", "missing_event"]
    assert await service.all_of("/v1/quarantine", limit=1) == page["items"]
    quarantined = page["items"][-1]
    assert (quarantined["message_id"], quarantined["source"], quarantined["encoding"], quarantined["replayed_at"]) == (
        "m-1",
        "default",
        "utf-8",
        None,
    )
    path = f"/v1/quarantine/{quarantined['id']}/replay"
    again = await service.client.post(path, headers=service.secret)
    assert (again.json()["accepted"], again.json()["rejected"]) == (0, 1)
    right = await service.tell("POST", path, {**bad, "event": "Order Completed"})
    assert right["accepted"] == 1
    assert (await service.ask("/v1/customers/user-1"))["stages"]["six-stage"]["stage"] == "purchase"
    items = await service.all_of("/v1/quarantine")
    assert next(item for item in items if item["id"] == quarantined["id"])["replayed_at"] is not None
    assert (await service.client.post("/v1/quarantine/99999/replay", headers=service.secret)).status_code == 404
    assert (await service.client.post("/v1/quarantine/x/replay", headers=service.secret)).status_code == 422
    response = await service.client.post(path, headers=service.secret, content=b"{")
    assert is_problem(response, 400, "invalid_body")
    response = await service.client.post(path, headers=service.secret, content=b'{"a":1},{"b":2}')
    assert response.status_code == 400, response.text


async def test_replayed_message_keeps_its_time(settings: Settings, clock: FrozenClock) -> None:
    """``sentAt`` shows how wrong the client's clock was at arrival. A replay a week later must not change that."""
    async with running_app(settings, clock) as service:
        message = {"userId": "user-1", "sentAt": rfc3339(NOON - HOUR), "timestamp": rfc3339(NOON - HOUR - SECOND)}
        await service.client.post("/v1/track", json={**message, "writeKey": service.keys.write_key})
        (quarantined,) = (await service.ask("/v1/quarantine"))["items"]
        clock.instant = NOON + 7 * DAY
        right = {**message, "type": "track", "event": "Order Completed"}
        await service.tell("POST", f"/v1/quarantine/{quarantined['id']}/replay", right)
        (entry,) = (await service.ask("/v1/customers/user-1/touchpoints"))["items"]
        assert (entry["occurred_at"], entry["received_at"]) == (rfc3339(NOON - SECOND), rfc3339(NOON))


async def test_binary_originals_are_base64(service: RunningApp) -> None:
    await service.app.state.services.pool.execute(
        "INSERT INTO quarantine (source, received_at, code, message, original) VALUES ('default', now(), 'c', 'm', $1)",
        b"\xff\xfe",
    )
    (quarantined,) = (await service.ask("/v1/quarantine"))["items"]
    assert (quarantined["encoding"], quarantined["original"]) == ("base64", b64encode(b"\xff\xfe").decode())
