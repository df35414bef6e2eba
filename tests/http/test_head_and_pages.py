"""HEAD requests, and the security headers of HTML pages."""

from __future__ import annotations

import httpx
import pytest
from fastapi.routing import APIRoute

from tests.support.running_app import RunningApp
from tests.support.server_process import Server

_VALUES = {"customer": "user-1", "name": "architecture", "key": "none", "source": "default"}
PAGES = ("/", "/docs", "/docs/guides", "/docs/guides/architecture")


async def test_head_answers_wherever_get_does(service: RunningApp) -> None:
    """The status and the content type are those of GET, and there is no body."""
    paths = {
        route.path for route in service.app.routes if isinstance(route, APIRoute) and "GET" in (route.methods or ())
    }
    assert len(paths) > 50
    for path in sorted(paths - {"/v1/me/stream", "/v1/segments/{key}/stream", "/metrics"}):
        url = path
        for name in {part.strip("{}").partition(":")[0] for part in path.split("/") if part.startswith("{")}:
            url = url.replace(f"{{{name}}}", _VALUES.get(name, "none")).replace(f"{{{name}:path}}", "architecture")
        read = await service.client.get(url, headers=service.secret)
        head = await service.client.head(url, headers=service.secret)
        assert (head.status_code, head.content) == (read.status_code, b""), path
        assert head.headers.get("content-type") == read.headers.get("content-type"), path


async def test_head_of_an_unknown_path_and_of_another_method(service: RunningApp) -> None:
    assert (await service.client.head("/none")).status_code == 404
    assert (await service.client.head("/v1/track")).status_code == 405


def test_head_keeps_the_length_and_the_connection(server: Server) -> None:
    with httpx.Client(base_url=server.url) as client:
        read = client.get("/docs/site.css", headers={"accept-encoding": "identity"})
        head = client.head("/docs/site.css", headers={"accept-encoding": "identity"})
        assert head.headers["content-length"] == read.headers["content-length"] == str(len(read.content))
        assert client.get("/livez").status_code == 200
        key = {"writeKey": server.write_key}
        assert client.head("/v1/me/stream", params=key).status_code == 401
        text = client.get("/metrics").text
        assert 'segue_requests_total{method="HEAD",route="/docs/site.css",status="200"}' in text


@pytest.mark.parametrize("path", PAGES)
async def test_pages_have_security_headers(service: RunningApp, path: str) -> None:
    response = await service.client.get(path)
    assert response.headers["content-type"].startswith("text/html")
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-frame-options"] == "DENY"
    assert response.headers["referrer-policy"] == "same-origin"
    policy = response.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "'unsafe-inline'" not in policy.partition("style-src")[0]
    assert "<script>" not in response.text


async def test_other_responses_have_no_policy(service: RunningApp) -> None:
    assert "content-security-policy" not in (await service.client.get("/livez")).headers
