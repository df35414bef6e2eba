"""Routes for Segment's SDKs: keys, receipts, hostile bodies, CORS."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from app.api.collect import OPEN_PATHS
from tests.support.running_app import basic_auth, is_problem

MESSAGE = {"type": "track", "event": "Product Viewed", "userId": "user-1", "groupId": "g", "previousId": "user-0"}
SINGLE = [("track", "t"), ("identify", "i"), ("page", "p"), ("screen", "s"), ("group", "g"), ("alias", "a")]


@pytest.mark.parametrize("slash", ["", "/"])
async def test_every_route_answers_with_a_receipt(service: Any, slash: str) -> None:
    names = [name for pair in SINGLE for name in pair]
    for number, name in enumerate(names):
        body = {**MESSAGE, "messageId": f"m{slash}-{number}"}
        response = await service.client.post(
            f"/v1/{name}{slash}", json=body, headers=basic_auth(service.keys.write_key)
        )
        assert response.status_code == 200, response.text
        assert response.json() == {
            "success": True, "accepted": 1, "duplicate": 0, "rejected": 0, "projected": True, "rejections": [],
        }  # fmt: skip
    for name in ("batch", "b", "import"):
        batch = {"batch": [{**MESSAGE, "messageId": f"m{slash}-{name}"}]}
        response = await service.client.post(
            f"/v1/{name}{slash}", json=batch, headers=basic_auth(service.keys.write_key)
        )
        assert response.json()["accepted"] == 1
    assert (await service.client.post(f"/v1/m{slash}", content=b'{"series":[]}')).json() == {"success": True}


async def test_rejected_message_does_not_affect_the_rest_of_the_batch(service: Any) -> None:
    batch = [MESSAGE | {"messageId": "m-1"}, 7, {"type": "track", "userId": "user-1", "messageId": "m-2"}]
    response = await service.client.post("/v1/batch", json={"batch": batch, "writeKey": service.keys.write_key})
    receipt = response.json()
    assert (receipt["accepted"], receipt["duplicate"], receipt["rejected"]) == (1, 0, 2)
    assert [(item["index"], item["messageId"], item["code"]) for item in receipt["rejections"]] == [
        (1, None, "not_an_object"),
        (2, "m-2", "missing_event"),
    ]
    again = await service.client.post("/v1/batch", json={"batch": batch[:1], "writeKey": service.keys.write_key})
    assert again.json()["duplicate"] == 1


async def test_clamped_timestamp_causes_a_warning(service: Any) -> None:
    body = {**MESSAGE, "timestamp": "2999-01-01T00:00:00Z", "messageId": "m-1"}
    response = await service.client.post("/v1/track", json=body, headers=basic_auth(service.keys.write_key))
    (warning,) = response.json()["warnings"]
    assert (warning["index"], warning["messageId"], warning["code"]) == (0, "m-1", "timestamp_future")


async def test_write_key_is_read_from_header_body_and_query(service: Any) -> None:
    write = service.keys.write_key
    with_key = {**MESSAGE, "writeKey": write}
    for headers, body, query in (
        (basic_auth(write), MESSAGE, ""),
        (basic_auth(write, ""), MESSAGE, ""),
        ({"Authorization": f"Bearer {write}"}, MESSAGE, ""),
        ({"Authorization": "Bearer an-oauth-token"}, with_key, ""),
        (basic_auth("wk_unknown"), with_key, ""),
        ({"Authorization": "Basic %%%"}, with_key, ""),
        ({}, with_key, ""),
        ({}, MESSAGE, f"?writeKey={write}"),
    ):
        response = await service.client.post(f"/v1/track{query}", json=body, headers=headers)
        assert response.status_code == 200, (headers, response.text)


async def test_invalid_keys_cannot_send(service: Any) -> None:
    for headers in (
        {},
        basic_auth("wk_unknown"),
        basic_auth(""),
        {"Authorization": "Basic %%%"},
        {"Authorization": "Digest x"},
    ):
        response = await service.client.post("/v1/track", json=MESSAGE, headers=headers)
        assert is_problem(response, 401, "unauthorized"), headers
        assert response.headers["www-authenticate"] == 'Bearer realm="segue"'
    response = await service.client.post("/v1/track", json=MESSAGE, headers=basic_auth(service.keys.secret_key))
    assert is_problem(response, 403, "forbidden")
    response = await service.client.post("/v1/track", json={**MESSAGE, "writeKey": service.keys.secret_key})
    assert is_problem(response, 403, "forbidden")


BODIES: list[tuple[bytes, str]] = [
    (b"", "invalid_body"),
    (b"not json", "invalid_body"),
    (b"[]", "invalid_body"),
    (b"7", "invalid_body"),
    (b'{"userId":NaN}', "invalid_body"),
    (b'{"userId":"\xff"}', "invalid_body"),
    (b"\x1f\x8bnot gzip", "invalid_body"),
    (gzip.compress(b" " * 5_000_000), "body_too_large"),
    (b'"' + b"x" * 600_000 + b'"', "body_too_large"),
    (b"\x00" * 100, "invalid_body"),
]


@pytest.mark.parametrize(("body", "code"), BODIES)
async def test_unreadable_bodies_are_refused(service: Any, body: bytes, code: str) -> None:
    response = await service.client.post("/v1/batch", content=body, headers=basic_auth(service.keys.write_key))
    assert is_problem(response, 400, code), response.text


@pytest.mark.parametrize(
    "body",
    [
        b'{"userId":"u","event":"e","properties":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"userId":"u","event":"\\ud800"}',
        b'{"userId":"u\\u0000","event":"e"}',
        b'{"userId":"u","event":"e","properties":{"n":1e400}}',
        b'{"userId":"u","event":"e","properties":"no object"}',
        b'{"userId":"u","event":"' + b"x" * 40_000 + b'"}',
        b"{}",
        b'{"userId":"null"}',
    ],
    ids=["deep", "surrogate", "nul", "1e400", "text", "large", "empty", "junk"],
)
async def test_hostile_messages_are_rejected_under_a_200(service: Any, body: bytes) -> None:
    response = await service.client.post("/v1/track", content=body, headers=basic_auth(service.keys.write_key))
    assert response.status_code in (200, 400), response.text
    if response.status_code == 200:
        assert (response.json()["accepted"], response.json()["rejected"]) == (0, 1)
    page = await service.ask("/v1/quarantine")
    assert len(page["items"]) == (response.status_code == 200)


async def test_body_limit_applies_without_content_length(service: Any) -> None:
    read = 0

    async def endless() -> Any:
        nonlocal read
        while read < 100:
            read += 1
            yield b" " * 100_000

    response = await service.client.post("/v1/batch", content=endless(), headers=basic_auth(service.keys.write_key))
    assert is_problem(response, 400, "body_too_large")
    assert read < 10


async def test_gzip_and_unusual_content_types_are_accepted(service: Any) -> None:
    body = json.dumps({"batch": [MESSAGE], "writeKey": service.keys.write_key}).encode()
    for headers, content in (
        ({"content-type": "text/plain"}, body),
        ({"content-type": "application/x-www-form-urlencoded", "content-encoding": "gzip"}, gzip.compress(body)),
        ({"content-type": "multipart/form-data"}, gzip.compress(body)),
    ):
        response = await service.client.post("/v1/batch", content=content, headers=headers)
        assert response.status_code == 200, response.text


async def test_unknown_methods_and_paths_answer_problems(service: Any) -> None:
    assert is_problem(await service.client.get("/v1/track"), 405, "method_not_allowed")


async def test_refused_method_names_the_allowed_ones(service: Any) -> None:
    for path, expected in (("/v1/segments", {"GET", "POST"}), ("/v1/keys/abc", {"PUT", "DELETE"})):
        response = await service.client.patch(path)
        assert is_problem(response, 405, "method_not_allowed")
        allowed = response.headers["allow"]
        assert set(allowed.split(", ")) >= expected
        assert response.json()["message"] == f"PATCH is not allowed here; use {allowed}."
    assert is_problem(await service.client.post("/v1/nothing"), 404, "not_found")
    assert is_problem(await service.client.get("/nothing"), 404, "not_found")


# ------------------------------------------------------------------------------------------------ browsers

ORIGIN = "https://shop.example.com"


async def test_preflights_need_no_key(service: Any) -> None:
    request = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, rsa-retry-attempt",
    }
    for path in [*sorted(OPEN_PATHS), "/v1/projects/wk_any/settings"]:
        response = await service.client.options(path, headers=request)
        assert response.status_code == 204, path
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert response.headers["access-control-allow-credentials"] == "true"
        assert "rsa-retry-attempt" in response.headers["access-control-allow-headers"]
        assert "POST" in response.headers["access-control-allow-methods"]
        assert "Origin" in response.headers["vary"]


async def test_cors_headers_are_set_on_success_and_failure(service: Any) -> None:
    for headers, content in (
        (basic_auth(service.keys.write_key), json.dumps(MESSAGE).encode()),
        (basic_auth("wk_unknown"), json.dumps(MESSAGE).encode()),
        (basic_auth(service.keys.write_key), b"not json"),
    ):
        response = await service.client.post("/v1/t", content=content, headers={**headers, "Origin": ORIGIN})
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert response.headers["access-control-expose-headers"] == "Retry-After, ETag"
    await service.app.state.services.ingest.stop()
    response = await service.client.post(
        "/v1/t", json=MESSAGE, headers={**basic_auth(service.keys.write_key), "Origin": ORIGIN}
    )
    assert is_problem(response, 503, "overloaded")
    assert int(response.headers["retry-after"]) >= 1
    assert response.headers["access-control-allow-origin"] == ORIGIN


async def test_secret_routes_send_no_cors_headers(service: Any) -> None:
    await service.send(MESSAGE)
    for path in ("/v1/customers/user-1", "/v1/segments", "/v1/keys", "/livez", "/v1/quarantine"):
        response = await service.client.get(path, headers={**service.secret, "Origin": ORIGIN})
        assert response.status_code == 200
        assert not [name for name in response.headers if name.startswith("access-control")]
        response = await service.client.options(
            path, headers={"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
        )
        assert is_problem(response, 405, "method_not_allowed")
        assert not [name for name in response.headers if name.startswith("access-control")]


async def test_sdk_settings_name_this_host(service: Any) -> None:
    key = service.keys.write_key
    response = await service.client.get(f"/v1/projects/{key}/settings", headers={"Origin": ORIGIN})
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert response.json()["integrations"] == {
        "Segment.io": {"apiKey": key, "retryQueue": True, "apiHost": "segue.example.com/v1", "protocol": "http"}
    }
    assert is_problem(await service.client.get("/v1/projects/wk_unknown/settings"), 404, "not_found")


async def test_internal_error_reveals_no_details(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise RuntimeError("internals")

    monkeypatch.setattr(service.clock, "now", fail)
    response = await service.client.post("/v1/t", json=MESSAGE, headers={"Origin": ORIGIN})
    assert is_problem(response, 500, "internal_error")
    assert "internals" not in response.text
    assert response.headers["access-control-allow-origin"] == ORIGIN


async def test_receipt_reports_an_unfilled_template(service: Any) -> None:
    message = {"type": "track", "event": "Looked", "userId": "{{user.id}}", "messageId": "m-1"}
    receipt = await service.send({**message, "anonymousId": "a-1"})
    assert [(warning["code"], warning["messageId"]) for warning in receipt["warnings"]] == [("id_unusable", "m-1")]
    rejected = await service.send({**message, "messageId": "m-2"}, expected=0)
    assert rejected["rejections"][0]["code"] == "missing_identity"
    assert "placeholder" in rejected["rejections"][0]["message"]
