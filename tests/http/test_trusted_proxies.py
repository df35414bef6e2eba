"""Tests of trusted proxies: X-Forwarded-For is used only if the proxy is trusted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.support.server_process import Server

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
)


def stored_address(server: Server, user: str) -> Any:
    headers = {"X-Forwarded-For": "203.0.113.77", "User-Agent": CHROME}
    page = {"type": "page", "userId": user, "context": {"library": {"name": "segue.js"}}, "writeKey": server.write_key}
    with httpx.Client(base_url=server.url) as client:
        assert client.post("/v1/p", json=page, headers=headers).json()["accepted"] == 1
        secret = {"Authorization": f"Bearer {server.secret_key}"}
        [touchpoint] = client.get(f"/v1/customers/{user}/touchpoints", headers=secret).json()["items"]
    return touchpoint["context"]["ip"]


def test_local_proxy_is_trusted(server: Server) -> None:
    assert stored_address(server, "behind-a-proxy") == "203.0.113.0"


@pytest.mark.slow
def test_unlisted_proxy_is_not_trusted(make_server: Callable[..., Server]) -> None:
    server = make_server(FORWARDED_ALLOW_IPS="198.51.100.1").start()
    assert stored_address(server, "no-proxy") == "127.0.0.0"
