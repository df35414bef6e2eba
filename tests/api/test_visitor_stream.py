"""Visitor stream over a real socket: the first event, events after messages and over time, and shutdown."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.formats.timestamps import parse
from app.registry.visitor_tokens import derive_anonymous_id
from tests.support.server_process import Server

pytestmark = pytest.mark.server

VIP = {"key": "vip", "public": True, "rule": {"did": "Order Completed", "within": "1200ms"}}
LIFE_SECONDS = 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    environment = {"SEGUE_STREAMS_MAX": "3", "SEGUE_VISITOR_TOKEN_SECONDS": str(LIFE_SECONDS)}
    server = Server(tmp_path_factory.mktemp("stream"), **environment)
    try:
        server.start()
        secret = {"Authorization": f"Bearer {server.secret_key}"}
        assert httpx.post(f"{server.url}/v1/segments", json=VIP, headers=secret).status_code == 201
        yield server
    finally:
        server.clean_up()


class Stream:
    """Client that reads the events of a stream as a page's EventSource does."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def next(self, seconds: float = 10) -> tuple[str, Any]:
        """Return the next event as (name, data), skipping comments.

        Raise StopAsyncIteration at the end of the stream.
        """
        async with asyncio.timeout(seconds):
            name = ""
            while True:
                line = await anext(self._lines)
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    return name, json.loads(line.removeprefix("data: "))


class Visitor:
    def __init__(self, http: httpx.AsyncClient, write_key: str) -> None:
        self.http = http
        self.write_key = write_key
        self.proof = secrets.token_hex(16)
        self.id = derive_anonymous_id(self.proof)

    async def send(self, *events: str) -> str:
        """Send one event and return the visitor token from the receipt."""
        batch = [{"type": "track", "event": event, "anonymousId": self.id} for event in events]
        claim = {"id": self.id, "proof": self.proof}
        answer = await self.http.post("/v1/b", json={"writeKey": self.write_key, "batch": batch, "visitor": claim})
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["visitor"]["token"]
        return token

    @asynccontextmanager
    async def watch(self, token: str) -> AsyncIterator[Stream]:
        params = {"writeKey": self.write_key, "token": token}
        headers = {"Origin": "https://shop.example.com"}
        async with self.http.stream("GET", "/v1/me/stream", params=params, headers=headers) as response:
            yield Stream(response)


@asynccontextmanager
async def visiting(server: Server) -> AsyncIterator[Visitor]:
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
        yield Visitor(http, server.write_key)


def keys_of(answer: dict[str, Any]) -> list[str]:
    return [item["key"] for item in answer["segments"]]


async def test_stream_sends_the_profile_at_once_and_on_each_change(server: Server) -> None:
    async with visiting(server) as visitor:
        token = await visitor.send("Looked")
        async with visitor.watch(token) as stream:
            assert stream.response.status_code == 200
            assert stream.response.headers["content-type"].startswith("text/event-stream")
            assert stream.response.headers["access-control-allow-origin"] == "https://shop.example.com"
            name, first = await stream.next()
            assert (name, keys_of(first), first["anonymous_id"]) == ("me", [], visitor.id)
            await visitor.send("Looked")  # This message changes no profile, so the stream sends nothing.
            sent = time.monotonic()
            await visitor.send("Order Completed")
            name, member = await stream.next()
            assert (name, keys_of(member)) == ("me", ["vip"])
            assert time.monotonic() - sent < 1
            _, left = await stream.next()
            assert keys_of(left) == []
            assert member["valid_until"] <= left["as_of"], "not before its time"
            late = _seconds(left["as_of"]) - _seconds(member["valid_until"])
            assert late < 0.5, late


def _seconds(instant: str) -> float:
    parsed = parse(instant)
    assert parsed is not None
    return parsed / 1e6


async def test_stream_sees_changes_of_another_process_within_a_second(database_url: str, tmp_path: Path) -> None:
    servers = [Server(tmp_path / name, database_url) for name in ("one", "two")]
    try:
        for server in servers:
            server.directory.mkdir()
            await asyncio.to_thread(server.start)
        one, two = servers
        secret = {"Authorization": f"Bearer {one.secret_key}"}
        async with visiting(one) as visitor, httpx.AsyncClient(base_url=two.url, timeout=30) as elsewhere:
            assert (await visitor.http.post("/v1/segments", json=VIP, headers=secret)).status_code == 201
            token = await visitor.send("Looked")
            async with visitor.watch(token) as stream:
                await stream.next()
                body = {"type": "track", "event": "Order Completed", "anonymousId": visitor.id}
                sent = time.monotonic()
                answer = await elsewhere.post("/v1/track", json=body, auth=(one.write_key, ""))
                assert answer.status_code == 200
                assert keys_of((await stream.next())[1]) == ["vip"]
                assert time.monotonic() - sent < 1.5, "a second, and the time to store it"
    finally:
        for server in servers:
            server.clean_up()


async def test_stream_sees_new_definitions(server: Server) -> None:
    async with visiting(server) as visitor:
        token = await visitor.send("Looked")
        secret = {"Authorization": f"Bearer {server.secret_key}"}
        async with visitor.watch(token) as stream:
            await stream.next()
            body = {"key": "lookers", "public": True, "rule": {"did": "Looked"}}
            await visitor.http.post("/v1/segments", json=body, headers=secret)
            _, answer = await stream.next()
            assert keys_of(answer) == ["lookers"]
            await visitor.http.put("/v1/segments/lookers", json={**body, "public": False}, headers=secret)
            _, answer = await stream.next()
            assert keys_of(answer) == []


async def test_stream_renews_the_token(server: Server) -> None:
    async with visiting(server) as visitor:
        token = await visitor.send("Looked")
        async with visitor.watch(token) as stream:
            assert (await stream.next())[0] == "me"
            name, renewed = await stream.next(LIFE_SECONDS)
            assert name == "token"
        params = {"writeKey": visitor.write_key, "token": renewed["token"]}
        assert (await visitor.http.get("/v1/me", params=params)).status_code == 200


async def test_number_of_streams_is_limited_and_disconnects_free_them(server: Server) -> None:
    async with visiting(server) as visitor:
        token = await visitor.send("Looked")
        async with visitor.watch(token) as first, visitor.watch(token) as second, visitor.watch(token) as third:
            for stream in (first, second, third):
                await stream.next()
            async with visitor.watch(token) as refused:
                assert refused.response.status_code == 503
                assert refused.response.headers["retry-after"].isdecimal()
            assert "segue_streams_open 3.0" in (await visitor.http.get("/metrics")).text
        deadline = time.monotonic() + 5
        while "segue_streams_open 0.0" not in (await visitor.http.get("/metrics")).text:
            assert time.monotonic() < deadline, "streams that were hung up still count"
            await asyncio.sleep(0.05)
        async with visitor.watch(token) as stream:
            assert (await stream.next())[0] == "me"


async def test_forged_token_opens_no_stream(server: Server) -> None:
    async with visiting(server) as visitor, visitor.watch("forged") as stream:
        assert stream.response.status_code == 401


async def test_revoked_key_ends_its_streams(server: Server) -> None:
    async with visiting(server) as visitor:
        secret = {"Authorization": f"Bearer {server.secret_key}"}
        created = await visitor.http.post("/v1/keys", json={"kind": "write", "source": "default"}, headers=secret)
        visitor.write_key = created.json()["key"]
        token = await visitor.send("Looked")
        async with visitor.watch(token) as stream:
            await stream.next()
            await visitor.http.delete(f"/v1/keys/{created.json()['id']}", headers=secret)
            with pytest.raises(StopAsyncIteration):
                await stream.next()


async def test_removed_origin_ends_its_streams(server: Server) -> None:
    async with visiting(server) as visitor:
        secret = {"Authorization": f"Bearer {server.secret_key}"}
        created = await visitor.http.post("/v1/keys", json={"kind": "write", "source": "default"}, headers=secret)
        visitor.write_key = created.json()["key"]
        token = await visitor.send("Looked")
        async with visitor.watch(token) as stream:
            await stream.next()
            elsewhere = {"origins": ["https://elsewhere.example.com"]}
            await visitor.http.put(f"/v1/keys/{created.json()['id']}", json=elsewhere, headers=secret)
            with pytest.raises(StopAsyncIteration):
                await stream.next()


async def test_shutdown_ends_open_streams(tmp_path: Path) -> None:
    server = Server(tmp_path)
    try:
        server.start()
        async with visiting(server) as visitor:
            token = await visitor.send("Looked")
            async with visitor.watch(token) as stream:
                await stream.next()
                stopping = time.monotonic()
                server.interrupt()
                with pytest.raises((StopAsyncIteration, httpx.RemoteProtocolError)):
                    await stream.next()
            assert await asyncio.to_thread(server.wait) in (0, 130)
            assert time.monotonic() - stopping < 10, "not the grace of thirty seconds"
        assert not [event for event in server.events() if event.get("level") in ("error", "critical")], server.output
    finally:
        server.clean_up()
