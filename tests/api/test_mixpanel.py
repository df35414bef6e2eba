"""Mixpanel's routes: every encoding its SDKs use, keys, answers, and what is stored in the end."""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus

import httpx
import pytest

from tests.api.conftest import Service

Send = Callable[[bytes], dict[str, Any]]

ENCODINGS: dict[str, Send] = {
    "a form of JSON, as Python's": lambda raw: {"content": b"data=" + quote_plus(raw).encode() + b"&verbose=1"},
    "a form of base64, not percent-encoded, as Node's": lambda raw: {"content": b"data=" + b64encode(raw)},
    "a form of base64, as browsers'": lambda raw: {
        "content": b"data=" + quote(b64encode(raw), safe="").encode(),
        "headers": {"Content-Type": "application/x-www-form-urlencoded"},
    },
    "a beacon of that form": lambda raw: {
        "content": b"data=" + quote(b64encode(raw), safe="").encode(),
        "headers": {"Content-Type": "text/plain;charset=UTF-8"},
    },
    "JSON": lambda raw: {"content": raw, "headers": {"Content-Type": "application/json"}},
    "gzip": lambda raw: {"content": gzip.compress(raw)},
}


def event(service: Service, name: str, **props: Any) -> dict[str, Any]:
    return {"event": name, "properties": {"token": service.keys.write_key, "distinct_id": "user-1", **props}}


async def send(service: Service, path: str, body: Any, **options: Any) -> httpx.Response:
    return await service.client.post(path, content=json.dumps(body).encode(), **options)


async def touchpoints(service: Service, customer: str = "user-1") -> list[dict[str, Any]]:
    """Oldest first; without messages that are none, such as identify."""
    timeline = await service.all_of(f"/v1/customers/{customer}/touchpoints")
    return [each for each in timeline[::-1] if each["name"] is not None]


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_every_encoding_is_stored_once(service: Service, encoding: str, slash: str) -> None:
    # Base64 of it holds a +, which a form that nobody encoded turns into a space.
    raw = json.dumps(
        [event(service, "Réad >>> ?", **{"$insert_id": "i-1", "time": 1.5e9})], ensure_ascii=False
    ).encode()
    assert b"+" in b64encode(raw)
    for _ in range(2):
        response = await service.client.post(f"/track{slash}?verbose=1&ip=1&_=1", **ENCODINGS[encoding](raw))
        assert (response.status_code, response.json()) == (200, {"status": 1, "error": None}), response.text
    [touchpoint] = await touchpoints(service)
    assert (touchpoint["name"], touchpoint["properties"]) == ("Réad >>> ?", {})


async def test_a_query_is_enough(service: Service) -> None:
    raw = json.dumps(event(service, "Opened", time=1.5e9)).encode()
    for data in (b64encode(raw).decode(), raw.decode()):
        response = await service.client.get("/track/", params={"data": data, "ip": "0"})
        assert (response.status_code, response.text) == (200, "1")
    image = await service.client.get("/track", params={"data": b64encode(raw).decode(), "img": "1"})
    assert (image.headers["content-type"], image.content[:6]) == ("image/gif", b"GIF89a")
    assert [each["name"] for each in await touchpoints(service)] == ["Opened"]


async def test_a_visitor_becomes_a_user(service: Service) -> None:
    device = {"distinct_id": "$device:d-1", "$device_id": "d-1", "mp_lib": "web"}
    user = {"$device_id": "d-1", "$user_id": "user-1", "mp_lib": "web"}
    batch = [
        event(service, "$mp_web_page_view", **device, time=1.5e9),
        event(service, "$identify", **user, **{"$anon_distinct_id": "$device:d-1"}, time=1.5e9 + 1),
        event(service, "Bought", **user, time=1.5e9 + 2),
        event(service, "$create_alias", alias="user-2", time=1.5e9 + 3),
    ]
    update = {"$token": service.keys.write_key, "$distinct_id": "user-1"}
    assert (await send(service, "/track/", batch)).text == "1"
    sets = [{**update, "$set": {"$email": "user@example.com", "plan": "gold"}}, {**update, "$set": {"plan": "silver"}}]
    assert (await send(service, "/engage/", [*sets, {**update, "$unset": ["nothing"]}])).text == "1"
    customer = await service.ask("/v1/customers/user-2")
    found = {(each["kind"], each["value"]) for each in customer["identities"]}
    assert found == {
        ("user_id", "user-1"), ("user_id", "user-2"), ("email", "user@example.com"), ("anonymous_id", "d-1"),
    }  # fmt: skip
    assert customer["traits"] == {"email": "user@example.com", "plan": "silver"}
    assert [each["name"] for each in await touchpoints(service)] == ["page_viewed", "Bought"]


async def test_a_bad_event_stops_no_other_and_can_be_replayed(service: Service) -> None:
    bad = event(service, "")
    response = await send(service, "/track?verbose=1", [event(service, "A"), bad, 7, event(service, "B")])
    assert response.json() == {"status": 1, "error": None}
    assert [each["name"] for each in await touchpoints(service)] == ["A", "B"]
    kept = (await service.ask("/v1/quarantine"))["items"]
    assert {each["code"] for each in kept} == {"missing_event", "not_an_object"}
    [missing] = [each for each in kept if each["code"] == "missing_event"]
    assert json.loads(missing["original"]) == bad
    receipt = await service.tell("POST", f"/v1/quarantine/{missing['id']}/replay", event(service, "Mended"))
    assert (receipt["accepted"], receipt["rejected"]) == (1, 0)
    assert "Mended" in [each["name"] for each in await touchpoints(service)]


async def test_keys_and_bodies_that_are_refused(service: Service) -> None:
    unknown = {"event": "A", "properties": {"token": "wk_unknown", "distinct_id": "u"}}
    secret = {"event": "A", "properties": {"token": service.keys.secret_key, "distinct_id": "u"}}
    for body, status in (
        (unknown, 401), (secret, 403), ({"event": "A"}, 401), ([], 401), ("text", 400), (7, 400), (None, 400),
    ):  # fmt: skip
        for path in ("/track/", "/engage", "/groups"):
            response = await send(service, path, body)
            problem = response.json()
            assert (response.status_code, problem["status"]) == (status, status), (path, body)
            assert problem["error"] == problem["message"] == problem["detail"] != ""
    response = await service.client.get("/track")
    assert response.status_code == 400


async def test_two_keys_in_one_batch(service: Service) -> None:
    other = await service.tell("POST", "/v1/sources", {"key": "other"}, expected=201)
    theirs = {"event": "Theirs", "properties": {"token": other["write_key"], "distinct_id": "user-1"}}
    assert (await send(service, "/track", [event(service, "Ours"), theirs])).text == "1"
    assert [each["name"] for each in await touchpoints(service)] == ["Ours"]
    [kept] = (await service.ask("/v1/quarantine"))["items"]
    assert kept["code"] == "invalid_field"


async def test_a_preflight_and_credentials(service: Service) -> None:
    origin = {"Origin": "https://shop.example.com"}
    for path in ("/track/", "/engage/", "/groups/", "/track"):
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
        preflight = await service.client.options(path, headers={**origin, **asked})
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-headers"] == "content-type"
        response = await send(service, path, event(service, "A"), headers=origin)
        for each in (preflight, response):
            assert each.headers["access-control-allow-origin"] == "https://shop.example.com"
            assert each.headers["access-control-allow-credentials"] == "true"


async def test_an_origin_that_the_key_is_not_for(service: Service) -> None:
    source = await service.tell("POST", "/v1/sources", {"key": "site"}, expected=201)
    pages = {"kind": "write", "source": "site", "origins": ["https://shop.example.com"]}
    key = (await service.tell("POST", "/v1/keys", pages, expected=201))["key"]
    seen = {"event": "Seen", "properties": {"token": key, "distinct_id": "user-1"}}
    ours = await send(service, "/track/", seen, headers={"Origin": "https://shop.example.com"})
    theirs = await send(service, "/track/", seen, headers={"Origin": "https://evil.example.com"})
    assert (ours.status_code, ours.text, theirs.status_code) == (200, "1", 403)
    assert theirs.headers["access-control-allow-origin"] == "https://evil.example.com"  # the page may read why
    assert (theirs.json()["code"], theirs.json()["error"]) == ("origin_not_allowed", theirs.json()["message"])
    assert source["write_key"] != key


@pytest.mark.parametrize(("asked", "kept"), [("1", "127.0.0.0"), ("0", None)])
async def test_no_address_is_kept_where_the_sdk_says_so(service: Service, asked: str, kept: str | None) -> None:
    headers = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36"}
    response = await send(service, f"/track/?ip={asked}", event(service, "Seen", mp_lib="web"), headers=headers)
    assert response.text == "1"
    [seen] = await touchpoints(service)
    assert seen["context"].get("ip") == kept
