"""Tests over a real socket, with requests that no HTTP client library has normalised."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import uvicorn

from app.config import Settings
from app.http.server_protocol import create_protocol_class
from app.main import create_app
from app.postgres.pool import open_pool
from app.registry.bootstrap import FirstKeys, bootstrap


@asynccontextmanager
async def running_server(settings: Settings) -> AsyncIterator[tuple[int, FirstKeys]]:
    assert settings.database_url is not None
    pool = await open_pool(settings.database_url, 1)
    async with pool.acquire() as connection:
        keys = await bootstrap(connection)  # type: ignore[arg-type]
    await pool.close()
    assert keys is not None
    app = create_app(settings, worker=False)
    config = uvicorn.Config(app, port=0, http=create_protocol_class(app), log_config=None, access_log=False)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())  # Do not call serve(), which would install signal handlers.
    while not server.started:
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1], keys
    server.should_exit = True
    await task


async def exchange(port: int, request: bytes) -> tuple[int, bytes]:
    """Send raw bytes and return the status and the body of the response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    await writer.drain()
    status = int((await reader.readline()).split()[1])
    length = 0
    while (line := await reader.readline()).strip():
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    body = await reader.readexactly(length)
    writer.close()
    await writer.wait_closed()
    return status, body


async def test_encoded_paths_and_large_bodies_over_a_socket(settings: Settings) -> None:
    async with running_server(settings) as (port, keys):
        ids = ["a/b", "a%2Fb", "..", "ü", "a:b?c#d", "x//y", "@"]
        batch = {"writeKey": keys.write_key, "batch": [{"type": "track", "event": "e", "userId": id} for id in ids]}
        body = json.dumps(batch).encode()
        head = f"POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        status, answer = await exchange(port, head + body)
        assert (status, json.loads(answer)["accepted"]) == (200, len(ids))
        for id in ids:
            path = f"/v1/customers/user_id:{quote(id, safe='')}"
            get = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {keys.secret_key}\r\n\r\n"
            status, answer = await exchange(port, get.encode())
            assert (status, json.loads(answer)["identities"]) == (200, [{"kind": "user_id", "value": id}]), id
        status, answer = await exchange(port, b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")
        assert (status, json.loads(answer)["code"]) == (400, "body_too_large")
        status, _ = await exchange(port, b"GET /v1/customers/%ff HTTP/1.1\r\nHost: x\r\n\r\n")
        assert status == 401
