"""A webhook token in the query of a URL appears in no log line of the server, also if the request is refused."""

from __future__ import annotations

import socket
from collections.abc import Callable

import httpx

from tests.support.server_process import Server

TOKEN = "tHis-Is-a-sEcret-token-of-a-tool"
WRONG_TOKEN = "tHis-Is-a-wr0ng-token-of-a-tool"


def exchange(server: Server, head: str, body: bytes = b"") -> bytes:
    """Send raw bytes and return the beginning of the response."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        return connection.recv(4_096)


def test_token_in_the_query_is_not_logged(make_server: Callable[..., Server], new_database_url: str) -> None:
    server = make_server(new_database_url, SEGUE_LOG_LEVEL="debug").start()
    secret = {"Authorization": f"Bearer {server.secret_key}"}
    with httpx.Client(base_url=server.url, headers=secret) as client:
        client.post("/v1/sources", json={"key": "tool", "kind": "shop"}).raise_for_status()
        client.post("/v1/sources/tool/secrets", json={"secret": TOKEN}).raise_for_status()
        path = f"/v1/sources/tool/webhook?token={TOKEN}"
        statuses = [
            client.post(path, content=b'{"type":"purchase","email":"user@example.com"}').status_code,
            client.post(path, content=b"no JSON").status_code,
            client.post(path, content=b"\x1f\x8bno gzip").status_code,
            client.post(path.replace(TOKEN, WRONG_TOKEN), content=b"{}").status_code,
            client.post(f"/v1/sources/none/webhook?access_token={TOKEN}").status_code,
            client.put(path).status_code,
        ]
        assert statuses == [200, 200, 400, 401, 404, 405]
    upgrade = f"GET {path} HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13"
    assert exchange(server, upgrade + "\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==").startswith(b"HTTP/1.1 ")
    assert b" 400 " in exchange(server, f"POST {path} HTTP/1.1\nHost: x\nContent-Length: no")
    assert b" 400 " in exchange(server, f"POST {path} NONSENSE\nHost: x")
    server.stop()
    assert server.events(), "the server must log something"
    assert TOKEN not in server.output
    assert WRONG_TOKEN not in server.output
