"""Mixpanel's routes: encodings of its SDKs, keys, responses, and stored messages."""

from __future__ import annotations

import gzip
import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus

import httpx
import pytest

from tests.support.running_app import RunningApp, post_json, touchpoints_of

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


def event(service: RunningApp, name: str, **props: Any) -> dict[str, Any]:
    return {"event": name, "properties": {"token": service.keys.write_key, "distinct_id": "user-1", **props}}


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_every_encoding_is_stored_once(service: RunningApp, encoding: str, slash: str) -> None:
    # The base64 text contains a plus sign. Form decoding turns it into a space if the client did not encode it.
    raw = json.dumps(
        [event(service, "Réad >>> ?", **{"$insert_id": "i-1", "time": 1.5e9})], ensure_ascii=False
    ).encode()
    assert b"+" in b64encode(raw)
    for _ in range(2):
        response = await service.client.post(f"/track{slash}?verbose=1&ip=1&_=1", **ENCODINGS[encoding](raw))
        assert (response.status_code, response.json()) == (200, {"status": 1, "error": None}), response.text
    [touchpoint] = await touchpoints_of(service)
    assert (touchpoint["name"], touchpoint["properties"]) == ("Réad >>> ?", {})


async def test_event_in_the_query_is_stored(service: RunningApp) -> None:
    raw = json.dumps(event(service, "Opened", time=1.5e9)).encode()
    for data in (b64encode(raw).decode(), raw.decode()):
        response = await service.client.get("/track/", params={"data": data, "ip": "0"})
        assert (response.status_code, response.text) == (200, "1")
    image = await service.client.get("/track", params={"data": b64encode(raw).decode(), "img": "1"})
    assert (image.headers["content-type"], image.content[:6]) == ("image/gif", b"GIF89a")
    assert [item["name"] for item in await touchpoints_of(service)] == ["Opened"]


async def test_identify_links_a_visitor_to_a_user(service: RunningApp) -> None:
    [key] = [key for key in (await service.ask("/v1/keys"))["items"] if key["kind"] == "write"]
    await service.tell("PUT", f"/v1/keys/{key['id']}", {"joins_users": True})
    device = {"distinct_id": "$device:d-1", "$device_id": "d-1", "mp_lib": "web"}
    user = {"$device_id": "d-1", "$user_id": "user-1", "mp_lib": "web"}
    batch = [
        event(service, "$mp_web_page_view", **device, time=1.5e9),
        event(service, "$identify", **user, **{"$anon_distinct_id": "$device:d-1"}, time=1.5e9 + 1),
        event(service, "Bought", **user, time=1.5e9 + 2),
        event(service, "$create_alias", alias="user-2", time=1.5e9 + 3),
    ]
    update = {"$token": service.keys.write_key, "$distinct_id": "user-1"}
    assert (await post_json(service, "/track/", batch)).text == "1"
    sets = [{**update, "$set": {"$email": "user@example.com", "plan": "gold"}}, {**update, "$set": {"plan": "silver"}}]
    assert (await post_json(service, "/engage/", [*sets, {**update, "$unset": ["nothing"]}])).text == "1"
    customer = await service.ask("/v1/customers/user-2")
    identities = {(item["kind"], item["value"]) for item in customer["identities"]}
    assert identities == {
        ("user_id", "user-1"), ("user_id", "user-2"), ("email", "user@example.com"), ("anonymous_id", "d-1"),
    }  # fmt: skip
    assert customer["traits"] == {"email": "user@example.com", "plan": "silver"}
    assert [item["name"] for item in await touchpoints_of(service)] == ["page_viewed", "Bought"]


async def test_refused_event_is_quarantined_and_can_be_replayed(service: RunningApp) -> None:
    bad = event(service, "")
    response = await post_json(service, "/track?verbose=1", [event(service, "A"), bad, 7, event(service, "B")])
    assert response.json() == {"status": 1, "error": None}
    assert [item["name"] for item in await touchpoints_of(service)] == ["A", "B"]
    quarantined = (await service.ask("/v1/quarantine"))["items"]
    assert {item["code"] for item in quarantined} == {"missing_event", "not_an_object"}
    [missing] = [item for item in quarantined if item["code"] == "missing_event"]
    assert json.loads(missing["original"]) == bad
    receipt = await service.tell("POST", f"/v1/quarantine/{missing['id']}/replay", event(service, "Mended"))
    assert (receipt["accepted"], receipt["rejected"]) == (1, 0)
    assert "Mended" in [item["name"] for item in await touchpoints_of(service)]


async def test_import_rejects_only_the_line_that_is_not_utf8(service: RunningApp) -> None:
    events = [event(service, name, time=1.5e9, **{"$insert_id": f"i-{name}"}) for name in "ABC"]
    body = b"\n".join(json.dumps(item).encode() for item in events).replace(b"i-B", b"i-\xff")
    for content in (body, gzip.compress(body)):
        response = await service.client.post("/import?strict=1", content=content)
        [failed] = response.json()["failed_records"]
        assert (response.status_code, failed["index"], failed["insert_id"]) == (400, 1, "")
    assert [item["name"] for item in await touchpoints_of(service)] == ["A", "C"]
    stored = (await service.ask("/v1/quarantine"))["items"][0]
    assert (stored["code"], stored["encoding"]) == ("invalid_utf8", "base64")
    assert b64decode(stored["original"]) == body.splitlines()[1]
    receipt = await service.tell("POST", f"/v1/quarantine/{stored['id']}/replay", events[1])
    assert (receipt["accepted"], receipt["rejected"]) == (1, 0)


async def test_invalid_keys_and_bodies_are_refused(service: RunningApp) -> None:
    unknown = {"event": "A", "properties": {"token": "wk_unknown", "distinct_id": "u"}}
    secret = {"event": "A", "properties": {"token": service.keys.secret_key, "distinct_id": "u"}}
    for body, status in (
        (unknown, 401), (secret, 403), ({"event": "A"}, 401), ([], 401), ("text", 400), (7, 400), (None, 400),
    ):  # fmt: skip
        for path in ("/track/", "/engage", "/groups"):
            response = await post_json(service, path, body)
            problem = response.json()
            assert (response.status_code, problem["status"]) == (status, status), (path, body)
            assert problem["error"] == problem["message"] == problem["detail"] != ""
    response = await service.client.get("/track")
    assert response.status_code == 400


async def test_batch_with_two_tokens(service: RunningApp) -> None:
    other = await service.tell("POST", "/v1/sources", {"key": "other"}, expected=201)
    theirs = {"event": "Theirs", "properties": {"token": other["write_key"], "distinct_id": "user-1"}}
    assert (await post_json(service, "/track", [event(service, "Ours"), theirs])).text == "1"
    assert [item["name"] for item in await touchpoints_of(service)] == ["Ours"]
    [quarantined] = (await service.ask("/v1/quarantine"))["items"]
    assert quarantined["code"] == "invalid_field"


async def test_preflight_allows_credentials(service: RunningApp) -> None:
    origin = {"Origin": "https://shop.example.com"}
    for path in ("/track/", "/engage/", "/groups/", "/track"):
        preflight_headers = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
        preflight = await service.client.options(path, headers={**origin, **preflight_headers})
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-headers"] == "content-type"
        response = await post_json(service, path, event(service, "A"), headers=origin)
        for item in (preflight, response):
            assert item.headers["access-control-allow-origin"] == "https://shop.example.com"
            assert item.headers["access-control-allow-credentials"] == "true"


async def test_origin_outside_the_key_is_refused(service: RunningApp) -> None:
    source = await service.tell("POST", "/v1/sources", {"key": "site"}, expected=201)
    pages = {"kind": "write", "source": "site", "origins": ["https://shop.example.com"]}
    key = (await service.tell("POST", "/v1/keys", pages, expected=201))["key"]
    touchpoint = {"event": "Seen", "properties": {"token": key, "distinct_id": "user-1"}}
    ours = await post_json(service, "/track/", touchpoint, headers={"Origin": "https://shop.example.com"})
    theirs = await post_json(service, "/track/", touchpoint, headers={"Origin": "https://evil.example.com"})
    assert (ours.status_code, ours.text, theirs.status_code) == (200, "1", 403)
    assert theirs.headers["access-control-allow-origin"] == "https://evil.example.com"  # The page may read the reason.
    assert (theirs.json()["code"], theirs.json()["error"]) == ("origin_not_allowed", theirs.json()["message"])
    assert source["write_key"] != key


@pytest.mark.parametrize(("ip_flag", "stored_address"), [("1", "127.0.0.0"), ("0", None)])
async def test_address_is_not_stored_if_the_sdk_disables_it(
    service: RunningApp, ip_flag: str, stored_address: str | None
) -> None:
    headers = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36"}
    response = await post_json(service, f"/track/?ip={ip_flag}", event(service, "Seen", mp_lib="web"), headers=headers)
    assert response.text == "1"
    [touchpoint] = await touchpoints_of(service)
    assert touchpoint["context"].get("ip") == stored_address


# -------------------------------------------------------------------------------------------------------- /import

LINE: dict[str, Send] = {
    "JSON": lambda raw: {"content": raw},
    "lines": lambda raw: {"content": b"\n".join(json.dumps(item).encode() for item in json.loads(raw))},
    "lines, gzip": lambda raw: {
        "content": gzip.compress(b"\r\n".join(json.dumps(item).encode() for item in json.loads(raw))),
        "headers": {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"},
    },
    "a form of base64": lambda raw: {"content": b"data=" + b64encode(raw)},
}


def past(name: str, number: int, **props: Any) -> dict[str, Any]:
    """Return an event for the import route, which reads the key from a header."""
    return {"event": name, "properties": {"distinct_id": "user-1", "$insert_id": f"i-{number}", "time": 8e8, **props}}


@pytest.mark.parametrize("encoding", LINE)
async def test_import_stores_events_once(service: RunningApp, encoding: str) -> None:
    raw = json.dumps([past("A", 1), past("B", 2)]).encode()
    for _ in range(2):
        response = await service.client.post(
            "/import?strict=1", auth=(service.keys.write_key, ""), **LINE[encoding](raw)
        )
        assert (response.status_code, response.json()) == (
            200,
            {"code": 200, "num_records_imported": 2, "status": "OK"},
        )
    stored = await touchpoints_of(service)
    assert [(item["name"], item["occurred_at"][:10]) for item in stored] == [("A", "1995-05-09"), ("B", "1995-05-09")]


@pytest.mark.parametrize("encoding", LINE)
async def test_import_reports_refused_events_and_stores_the_others(service: RunningApp, encoding: str) -> None:
    raw = json.dumps([past("A", 1), past("", 2), past("B", 3), past("C", 4, distinct_id="")]).encode()
    key = (service.keys.write_key, "")
    refused = await service.client.post("/import/", auth=key, **LINE[encoding](raw))
    answer = refused.json()
    assert (refused.status_code, answer["code"], answer["status"]) == (400, 400, "Bad Request")
    assert answer["num_records_imported"] == 2
    assert [(item["index"], item["insert_id"], item["field"]) for item in answer["failed_records"]] == [
        (1, "i-2", "event"), (3, "i-4", "properties.distinct_id"),
    ]  # fmt: skip
    lenient = await service.client.post("/import?strict=0", auth=key, **LINE[encoding](raw))
    assert (lenient.status_code, lenient.json()["num_records_imported"]) == (200, 2)
    verbose = await service.client.post("/import?verbose=1", auth=key, **LINE[encoding](raw))
    assert (verbose.status_code, verbose.json()) == (200, {"status": 1, "error": None})
    assert [item["name"] for item in await touchpoints_of(service)] == ["A", "B"]
    quarantined = (await service.ask("/v1/quarantine"))["items"]
    assert {item["code"] for item in quarantined} == {"missing_event", "missing_identity"}
    [replayed] = [item for item in quarantined if json.loads(item["original"])["event"] == ""][:1]
    receipt = await service.tell("POST", f"/v1/quarantine/{replayed['id']}/replay", past("Mended", 2))
    assert (receipt["accepted"], receipt["rejected"]) == (1, 0)


async def test_import_reads_the_key_from_token_or_project(service: RunningApp) -> None:
    key = service.keys.write_key
    for auth, query, token, status in (
        ((key, ""), "", None, 200), (("account", "secret"), f"?project_id={key}", None, 200),
        (("api-secret", ""), "", key, 200), (("account", "secret"), "?project_id=7", None, 401), (None, "", None, 401),
        ((service.keys.secret_key, ""), "", None, 403),
    ):  # fmt: skip
        body = [past("A", 1, **({"token": token} if token else {}))]
        sender = httpx.Auth() if auth is None else httpx.BasicAuth(*auth)
        response = await service.client.post(f"/import{query}", json=body, auth=sender)
        assert response.status_code == status, (auth, query, response.text)
        if status != 200:
            assert response.json()["error"] == response.json()["message"]


async def test_replayed_event_keeps_its_time(service: RunningApp) -> None:
    """The page's clock is a day ahead, and its events have no timestamp."""
    ahead = str((service.clock.now() + 86_400_000_000) // 1000)
    events = [event(service, "A"), event(service, "x" * 300), event(service, "C")]
    assert (await post_json(service, f"/track/?_={ahead}", events)).text == "1"
    [quarantined] = (await service.ask("/v1/quarantine"))["items"]
    assert quarantined["form"].startswith("mixpanel/track?sent=")
    for accepted in (1, 0):
        receipt = await service.tell("POST", f"/v1/quarantine/{quarantined['id']}/replay", event(service, "B"))
        assert receipt["accepted"] == accepted
    stored = await touchpoints_of(service)
    assert [item["name"] for item in stored] == ["A", "B", "C"]
    first, second, third = (item["occurred_at"] for item in stored)
    assert first < second < third
    assert first[:-4] == third[:-4]  # The difference is less than a tenth of a millisecond.
