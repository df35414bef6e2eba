"""Hostile requests to the routes of pages and vendor SDKs: the response is never a server error."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from tests.support.running_app import RunningApp

POST_PATHS = (
    "/e/", "/capture/", "/batch/", "/i/v0/e/", "/track/", "/track", "/engage/", "/groups/", "/flags/", "/decide/",
    "/mp/collect", "/debug/mp/collect", "/beacon/v1/batch", "/v1/b", "/api/s/track", "/api/s/s2s/page",
)  # fmt: skip

BODIES = (
    b"",
    b"{",
    b"[]",
    b"null",
    b"1e400",
    b'"text"',
    b'{"batch":[null,1,"x",[],{}]}',
    b"\0" * 50,
    b"\x1f\x8b" + b"\0" * 30,
    b"data=%7B",
    b"data=" + b64encode(b'{"event":"x","properties":{"token":1}}'),
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"events":[{"name":1,"params":[]}],"client_id":{}}',
    b'{"client_id":"\\u0000","events":[{"name":"x","timestamp_micros":1e400}]}',
    b'{"api_key":5,"batch":{"x":1}}',
    b'{"event":"$identify","api_key":"KEY","distinct_id":"\\ud800","properties":{"$anon_distinct_id":["x"]}}',
    b"\xff\xfe{}",
)

GET_URLS = (
    "/v1/pixel/track?data=%00",
    "/v1/pixel/track?data=e30=",
    "/pixel/v1/track?writeKey=%00",
    "/pixel/v1/page?writeKey=x&anonymousId=%F0",
    "/sourceConfig/?writeKey=%00",
    "/array/%00/config",
    "/v1/me?writeKey=%00&token=%F0%9F",
    f"/v1/me?writeKey=KEY&token={'x' * 5000}",
    "/v1/me?writeKey=KEY&token=%C3%A9",
    "/v1/me/stream",
    "/segue-0123456789ab.js",
    "/track?data=%7B&img=1",
)


@pytest.mark.parametrize("path", POST_PATHS)
@pytest.mark.parametrize("query", ["", "?writeKey=KEY&api_secret=KEY&measurement_id=G-1&verbose=1"])
async def test_hostile_bodies_cause_no_server_error(service: RunningApp, path: str, query: str) -> None:
    key = service.keys.write_key
    for body in BODIES:
        for content_type in ("application/json", "application/x-www-form-urlencoded", "text/plain"):
            response = await service.client.post(
                path + query.replace("KEY", key),
                content=body.replace(b"KEY", key.encode()),
                headers={"content-type": content_type, "x-write-key": key},
            )
            assert response.status_code < 500, (body[:60], content_type, response.text)


@pytest.mark.parametrize("url", GET_URLS)
async def test_hostile_queries_cause_no_server_error(service: RunningApp, url: str) -> None:
    response = await service.client.get(url.replace("KEY", service.keys.write_key))
    assert response.status_code < 500, response.text


@pytest.mark.parametrize(
    "query", ["cursor=x", "cursor=%00", "limit=0", "limit=-1", "limit=99999999999999999999", "as_of=x"]
)
async def test_hostile_session_queries_are_client_errors(service: RunningApp, query: str) -> None:
    await service.send({"type": "page", "userId": "user-1"})
    response = await service.client.get(f"/v1/customers/user-1/sessions?{query}", headers=service.secret)
    assert 400 <= response.status_code < 500, response.text


@pytest.mark.parametrize("path", ["/v1/keys/zz", f"/v1/keys/{'a' * 64}", "/v1/sources/default", "/v1/visitor-tokens"])
@pytest.mark.parametrize(
    "body",
    [{"origins": ["x"]}, {"origins": ["https://\0"]}, {"bots": 1}, {"trusts_identify": "x"}, {"name": "\0"}, [], None],
)
async def test_hostile_updates_are_client_errors(service: RunningApp, path: str, body: Any) -> None:
    method = "POST" if path.endswith("tokens") else "PUT"
    response = await service.client.request(method, path, json=body, headers=service.secret)
    assert 400 <= response.status_code < 500, response.text
