"""Tests of write key origins, and of CORS: the pages that may use a key, and the routes that no page can read."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.routing import APIRoute

from app.api.schemas import KeyIn
from tests.api.test_sources import secret_routes
from tests.support.running_app import RunningApp, is_problem
from tests.support.web_page import ORIGIN, WebPage, did

ALLOWED = ["https://shop.example.com", "https://*.example.org", "http://localhost:3000"]


async def create_key(service: RunningApp, *origins: str) -> str:
    created = await service.tell("POST", "/v1/keys", {"kind": "write", "source": "default", "origins": origins}, 201)
    assert created["origins"] == list(origins)
    key: str = created["key"]
    return key


@pytest.mark.parametrize("origin", [*(pattern.replace("*", "a.b") for pattern in ALLOWED), None])
async def test_allowed_origins_and_servers_can_send_messages(service: RunningApp, origin: str | None) -> None:
    page = WebPage(service, await create_key(service, *ALLOWED), origin=origin)
    assert (await page.send(did("Looked")))["accepted"] == 1
    assert (await page.get()).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example.com",
        "http://shop.example.com",
        "https://shop.example.com:8443",
        "https://shop.example.com.evil.example",
        "https://example.org",
        "https://.example.org",
        "https://evil-example.org",
        "http://localhost",
        "null",
        "",
    ],
)
async def test_other_origins_are_refused_with_a_readable_error(service: RunningApp, origin: str) -> None:
    page = WebPage(service, await create_key(service, *ALLOWED), origin=None)
    await page.send(did("Looked"))
    page.origin = origin
    for response in (await page.post(did("Looked")), await page.get()):
        assert is_problem(response, 403, "origin_not_allowed"), origin
        assert response.headers["access-control-allow-origin"] == origin
    stream = await service.client.get(
        "/v1/me/stream", params={"writeKey": page.key, "token": page.token}, headers={"Origin": origin}
    )
    assert is_problem(stream, 403, "origin_not_allowed")
    preflight = await service.client.options(
        "/v1/b", headers={"Origin": origin, "Access-Control-Request-Method": "POST"}
    )
    assert preflight.status_code == 204, "a preflight has no key, so it is always accepted"
    assert await service.app.state.services.pool.fetchval("SELECT count(*) FROM touchpoints") == 1


async def test_key_without_origins_accepts_any_page(service: RunningApp) -> None:
    assert (await WebPage(service, origin="https://anywhere.example").send(did("Looked")))["accepted"] == 1


async def test_changed_origins_of_a_key_apply_at_once(service: RunningApp) -> None:
    (write,) = [key for key in (await service.ask("/v1/keys"))["items"] if key["kind"] == "write"]
    assert (write["origins"], write["trusts_identify"]) == ([], False)
    changed = await service.tell("PUT", f"/v1/keys/{write['id']}", {"origins": ["https://other.example.com/"]})
    assert changed == {**write, "origins": ["https://other.example.com"]}
    page = WebPage(service)
    assert is_problem(await page.post(did("Looked")), 403, "origin_not_allowed")
    await service.tell("PUT", f"/v1/keys/{write['id']}", {"name": "Web"})
    assert is_problem(await page.post(did("Looked")), 403, "origin_not_allowed")
    assert (await service.tell("PUT", f"/v1/keys/{write['id']}", {"origins": []}))["name"] == "Web"
    assert (await page.send(did("Looked")))["accepted"] == 1


@pytest.mark.parametrize(
    ("origin", "stored"),
    [
        ("HTTPS://Shop.Example.com", "https://shop.example.com"),
        ("https://shop.example.com:443", "https://shop.example.com"),
        ("http://shop.example.com:80/", "http://shop.example.com"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("https://*.example.com", "https://*.example.com"),
    ],
)
def test_origins_are_normalised_as_browsers_send_them(origin: str, stored: str) -> None:
    assert KeyIn.model_validate({"kind": "write", "origins": [origin]}).origins == [stored]


@pytest.mark.parametrize(
    "body",
    [
        *(
            {"origins": [item]}
            for item in (
                "*",
                "shop.example.com",
                "https://shop.example.com/path",
                "https://*",
                "https://a.*.b",
                "null",
                "",
            )
        ),
        {"origins": "https://shop.example.com"},
        {"origins": ["https://shop.example.com"] * 101},
        {"trusts_identify": "yes"},
        {"trusts_identify": 1},
        {"source": "other"},
        [],
    ],
)
async def test_invalid_origins_are_refused(service: RunningApp, body: Any) -> None:
    (write,) = [item for item in (await service.ask("/v1/keys"))["items"] if item["kind"] == "write"]
    await service.tell("PUT", f"/v1/keys/{write['id']}", body, 400)
    if isinstance(body, dict) and "source" not in body:
        await service.tell("POST", "/v1/keys", {"kind": "write", "source": "default", **body}, 400)


async def test_secret_key_cannot_have_origins(service: RunningApp) -> None:
    for origin in ({"origins": ["https://shop.example.com"]}, {"trusts_identify": True}):
        await service.tell("POST", "/v1/keys", {"kind": "secret", **origin}, 400)
        (secret,) = [key for key in (await service.ask("/v1/keys"))["items"] if key["kind"] == "secret"]
        await service.tell("PUT", f"/v1/keys/{secret['id']}", origin, 400)
    await service.tell("PUT", "/v1/keys/00", {"name": "x"}, 404)


async def test_source_settings_can_be_changed(service: RunningApp) -> None:
    body = {"key": "shop", "default_channel": "web", "identity_properties": {"crm": "crm_id"}, "origins": [ORIGIN]}
    created = await service.tell("POST", "/v1/sources", body, 201)
    assert created["bots"] == "quarantine"
    assert is_problem(
        await WebPage(service, created["write_key"], "https://x.example").post(), 403, "origin_not_allowed"
    )
    (source,) = [item for item in (await service.ask("/v1/sources"))["items"] if item["key"] == "shop"]
    for change, field, value in (
        ({"bots": "drop"}, "bots", "drop"),
        ({"name": "Web shop"}, "name", "Web shop"),
        ({"default_channel": None}, "default_channel", None),
        ({"default_channel": "store"}, "default_channel", "store"),
        ({"identity_properties": {}}, "identity_properties", {}),
        ({}, "bots", "drop"),
    ):
        changed = await service.tell("PUT", "/v1/sources/shop", change)
        source = {**source, field: value}
        assert changed == source
    view = await service.app.state.services.registry.access.find_source(created["write_key"])
    assert (view.bots, view.default_channel, view.identity_properties) == ("drop", "store", {})
    bad: tuple[Any, ...] = ({"bots": "burn"}, {"bots": None}, {"key": "other"}, {"default_channel": "Not So"}, [])
    for refused in bad:
        await service.tell("PUT", "/v1/sources/shop", refused, 400)
    await service.tell("PUT", "/v1/sources/none", {"bots": "drop"}, 404)


async def test_secret_routes_send_no_cors_headers(service: RunningApp) -> None:
    """A page of another origin cannot read any response, even with a secret key, because none has CORS headers."""
    await service.send({"type": "track", "event": "Looked", "userId": "user-1"})
    routes = secret_routes(service)
    assert len(routes) > 30
    for method, path in routes:
        path = path.replace("{customer}", "private-user").replace("{key}", "engaged").replace("{id}", "1")
        crossed = {**service.secret, "Origin": "https://evil.example.com"}
        for response in (
            await service.client.request(method, path, headers=crossed),
            await service.client.options(path, headers={**crossed, "Access-Control-Request-Method": method}),
        ):
            assert not [name for name in response.headers if name.startswith("access-control")], (method, path)


async def test_write_key_reads_only_the_public_profile(service: RunningApp) -> None:
    """Call every GET route with the write key in every place where a request may contain a key."""
    await service.send({"type": "track", "event": "Looked", "userId": "private-user"})
    page = WebPage(service)
    opened = {"/v1/me", "/v1/me/stream"}
    for route in service.app.routes:
        if not isinstance(route, APIRoute) or "GET" not in (route.methods or ()) or route.path in opened:
            continue
        path = (
            route.path.replace("{customer}", "private-user")
            .replace("{key}", "engaged")
            .replace("{write_key}", page.key)
        )
        for headers in ({"Authorization": f"Bearer {page.key}"}, {"X-Write-Key": page.key}, {}):
            response = await service.client.get(path, params={"writeKey": page.key}, headers=headers)
            assert "private-user" not in response.text, path
    for path in opened:
        assert (await service.client.get(path, params={"writeKey": page.key})).status_code == 401


async def test_secret_key_is_refused_on_page_routes(service: RunningApp) -> None:
    page = WebPage(service)
    await page.send(did("Looked"))
    page.write_key = service.keys.secret_key
    assert is_problem(await page.get(), 403, "forbidden")
    assert is_problem(await page.post(did("Looked")), 403, "forbidden")
