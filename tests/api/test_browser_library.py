"""Serving the browser library: ETags, compression, origins, and immutable versions."""

from __future__ import annotations

import gzip
from hashlib import sha256

import pytest

from app.browser import snippet
from tests.support.running_app import RunningApp, is_problem

PLAIN = {"Accept-Encoding": "identity"}


async def test_library_is_the_built_file_and_open_to_every_origin(service: RunningApp) -> None:
    for headers in (PLAIN, {**PLAIN, "Origin": "https://shop.example.com"}):
        answer = await service.client.get("/segue.js", headers=headers)
        assert answer.status_code == 200
        assert answer.content == snippet().content
        assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "public, max-age=3600"
        assert answer.headers["vary"] == "Accept-Encoding"


async def test_library_is_compressed_if_the_browser_accepts_gzip(service: RunningApp) -> None:
    async with service.client.stream("GET", "/segue.js", headers={"Accept-Encoding": "br, gzip"}) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        packed = b"".join([chunk async for chunk in answer.aiter_raw()])
    assert len(packed) < len(snippet().content)
    assert gzip.decompress(packed) == snippet().content


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [
        ("gzip;q=0", False),
        ("br, gzip; q=0.0, *", False),
        ("*;q=0", False),
        ("identity", False),
        ("GZIP;q=0.001", True),
        ("deflate, x-gzip", True),
        ("br;q=1.0, *;q=0.5", True),
    ],
)
async def test_accepts_gzip_follows_rfc_9110(service: RunningApp, accepted: str, packed: bool) -> None:
    async with service.client.stream("GET", "/segue.js", headers={"Accept-Encoding": accepted}) as answer:
        assert ("content-encoding" in answer.headers) is packed
        content = b"".join([chunk async for chunk in answer.aiter_raw()])
    assert (gzip.decompress(content) if packed else content) == snippet().content


async def test_library_answers_304_for_a_known_etag(service: RunningApp) -> None:
    plain = await service.client.get("/segue.js", headers=PLAIN)
    packed = await service.client.get("/segue.js", headers={"Accept-Encoding": "gzip"})
    assert plain.headers["etag"] != packed.headers["etag"]
    for first, accept in ((plain, PLAIN), (packed, {"Accept-Encoding": "gzip"})):
        again = await service.client.get("/segue.js", headers={**accept, "If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["cache-control"] == "public, max-age=3600"
    other = await service.client.get("/segue.js", headers={**PLAIN, "If-None-Match": packed.headers["etag"]})
    assert other.status_code == 200


async def test_versioned_library_is_cached_permanently(service: RunningApp) -> None:
    version = sha256(snippet().content).hexdigest()[:12]
    answer = await service.client.get(f"/segue-{version}.js", headers=PLAIN)
    assert answer.content == snippet().content
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    for other in ("0" * 12, version[:-1], version + "0", "latest"):
        refused = await service.client.get(f"/segue-{other}.js")
        assert is_problem(refused, 404, "not_found")
        assert "immutable" not in refused.headers.get("cache-control", "")


async def test_library_answers_head(service: RunningApp) -> None:
    answer = await service.client.head("/segue.js", headers=PLAIN)
    assert (answer.status_code, answer.headers["content-length"]) == (200, str(len(snippet().content)))
