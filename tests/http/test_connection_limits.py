"""Bounds of a connection before its request is complete, over raw sockets. ``make hostile`` has larger attacks."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

import httpx
import pytest
import uvicorn

from app.config import Settings
from app.http.connection_limits import ConnectionLimits, Phase
from app.http.server_protocol import create_protocol_class
from app.main import create_app
from app.observability.metrics import Metrics
from app.openapi import OPENAPI_FILE
from app.postgres.pool import open_pool
from app.registry.bootstrap import FirstKeys, bootstrap
from tests.support.server_process import Server

GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST /v1/track HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        code: str = json.loads(self.body)["code"]
        return code


@dataclass
class Peer:
    """A client with a raw socket."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, content: bytes) -> None:
        self.writer.write(content)
        await self.writer.drain()

    async def read_answer(self) -> Answer:
        """Return the next response. Raise IncompleteReadError at the end of the connection."""
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 20)).decode()
        status, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(int(status.split()[1]), headers, body)

    async def exchange(self, content: bytes) -> Answer:
        await self.send(content)
        return await self.read_answer()

    async def is_closed(self) -> bool:
        """Wait until the server closes the connection; return whether it sent nothing more."""
        try:
            return await asyncio.wait_for(self.reader.read(), 20) == b""
        except ConnectionResetError:
            return True


@dataclass
class Target:
    """A server, in the process of the test, and its clients."""

    port: int
    keys: FirstKeys
    peers: list[Peer] = field(default_factory=list)

    async def connect(self, address: str = "127.0.0.1") -> Peer:
        peer = Peer(*await asyncio.open_connection("127.0.0.1", self.port, local_addr=(address, 0)))
        self.peers.append(peer)
        return peer

    async def exchange(self, content: bytes) -> Answer:
        return await (await self.connect()).exchange(content)

    async def metric(self, name: str) -> float:
        text = (await self.exchange(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).body.decode()
        match = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(match[1]) if match else 0.0

    async def refusals(self, reason: str) -> float:
        return await self.metric(f'segue_clients_refused_total{{reason="{reason}"}}')


@pytest.fixture
def serve(settings: Settings) -> Callable[..., object]:
    """Return a context manager that runs a server with changed settings. 127.0.0.1 is a trusted proxy."""

    @asynccontextmanager
    async def run_server(**changes: object) -> AsyncIterator[Target]:
        changed = settings.model_copy(update=changes)
        assert changed.database_url is not None
        pool = await open_pool(changed.database_url, 1)
        async with pool.acquire() as connection:
            keys = await bootstrap(connection)
        await pool.close()
        assert keys is not None
        app = create_app(changed, worker=False)
        config = uvicorn.Config(app, port=0, http=create_protocol_class(app), log_config=None, access_log=False)
        server = uvicorn.Server(config)
        task = asyncio.create_task(server._serve())
        while not server.started:
            await asyncio.sleep(0.01)
        target = Target(server.servers[0].sockets[0].getsockname()[1], keys)
        try:
            yield target
        finally:
            for peer in target.peers:
                peer.writer.close()
            server.should_exit = True
            await task

    return run_server


# --------------------------------------------------------------------------------------------- size of a head


async def test_head_beyond_the_limit_is_refused_and_the_connection_closed(serve) -> None:
    async with serve() as target:
        peer = await target.connect()
        answer = await peer.exchange(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Filler: " + b"a" * 200_000)
        assert (answer.status, answer.code) == (431, "head_too_large")
        assert answer.headers["connection"] == "close"
        assert await peer.is_closed()
        assert await target.refusals("head_size") == 1


async def test_head_within_the_limit_is_served_in_any_pieces(serve) -> None:
    async with serve() as target:
        head = b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Filler: " + b"a" * 60_000 + b"\r\n\r\n"
        assert (await target.exchange(head)).status == 200
        peer = await target.connect()
        for start in range(0, len(GET), 5):
            await peer.send(GET[start : start + 5])
            await asyncio.sleep(0.002)
        assert (await peer.read_answer()).status == 200


async def test_too_long_url_is_refused(serve) -> None:
    async with serve() as target:
        answer = await target.exchange(b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (answer.status, answer.code) == (431, "head_too_large")


async def test_more_than_100_headers_are_refused(serve) -> None:
    async with serve() as target:
        head = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
        assert (await target.exchange(head + b"a: b\r\n" * 99 + b"\r\n")).status == 200
        answer = await target.exchange(head + b"a: b\r\n" * 100 + b"\r\n")
        assert (answer.status, answer.code) == (431, "head_too_large")


async def test_more_than_100_trailers_are_refused(serve) -> None:
    async with serve() as target:
        assert (await target.exchange(CHUNKED + b"a: b\r\n" * 100 + b"\r\n")).status == 401
        peer = await target.connect()
        answer = await peer.exchange(CHUNKED + b"a: b\r\n" * 101 + b"\r\n")
        assert (answer.status, answer.code) == (431, "head_too_large")
        assert await peer.is_closed()


async def test_large_trailer_is_refused(serve) -> None:
    async with serve() as target:
        answer = await target.exchange(CHUNKED + b"a: " + b"b" * 100_000)
        assert (answer.status, answer.code) == (431, "head_too_large")


async def test_trailer_cannot_add_a_key(serve) -> None:
    async with serve() as target:
        trailer = f"X-Write-Key: {target.keys.write_key}\r\n\r\n".encode()
        path = b"/api/s/track"
        assert (await target.exchange(CHUNKED.replace(b"/v1/track", path) + trailer)).status == 401


async def test_large_chunk_extension_is_refused(serve) -> None:
    async with serve() as target:
        head = b"POST /v1/track HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2;"
        answer = await target.exchange(head + b"a" * 100_000)
        assert (answer.status, answer.code) == (431, "head_too_large")


async def test_chunked_body_in_any_pieces_is_read(serve) -> None:
    async with serve() as target:
        text = json.dumps({"writeKey": target.keys.write_key, "userId": "u\r\n\r\n", "event": "e"}).encode()
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (text[:7], text[7:60], text[60:]))
        request = b"POST /v1/track HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
        peer = await target.connect()
        for size in (1, 3, 50, len(request)):
            for start in range(0, len(request), size):
                await peer.send(request[start : start + size])
            assert (await peer.read_answer()).status == 200, size


@pytest.mark.parametrize("chunk", [b"3a980\r\n" + b"\r\n\r\n" * 60_000 + b"\r\n", b"1\r\na\r\n" * 400_000])
async def test_expensive_chunked_body_gives_way_to_other_connections(serve, chunk: bytes) -> None:
    async with serve() as target:
        quiet = await target.connect()
        await quiet.exchange(GET)
        attacker = await target.connect()
        attack = asyncio.create_task(attacker.exchange(CHUNKED.partition(b"2\r\n")[0] + chunk + b"0\r\n\r\n"))
        answers = 0
        while not attack.done():
            assert (await quiet.exchange(GET)).status == 200
            answers += 1
        assert (await attack).status in (400, 401)
        assert answers >= 12


async def test_malformed_request_is_refused(serve) -> None:
    async with serve() as target:
        peer = await target.connect()
        answer = await peer.exchange(b"\0\1\2\r\n\r\n")
        assert (answer.status, answer.code) == (400, "malformed_request")
        assert await peer.is_closed()
        assert await target.refusals("malformed") == 1


async def test_malformed_chunk_is_refused(serve) -> None:
    async with serve() as target:
        answer = await target.exchange(CHUNKED.replace(b"2\r\n{}", b"zz\r\n"))
        assert (answer.status, answer.code) == (400, "malformed_request")


# ------------------------------------------------------------------------------------------------- pipelining


async def test_pipelined_requests_are_answered_in_order(serve) -> None:
    async with serve() as target:
        peer = await target.connect()
        body = json.dumps({"writeKey": target.keys.write_key, "userId": "u", "event": "e"}).encode()
        post = b"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        await peer.send((GET + post + GET.replace(b"livez", b"nothing")) * 20)
        statuses = [(await peer.read_answer()).status for _ in range(60)]
        assert statuses == [200, 200, 404] * 20


async def test_pipelined_requests_wait_unparsed(serve) -> None:
    """One packet can hold thousands of requests: only the one that is answered has a task and objects."""
    async with serve() as target:
        peer = await target.connect()
        await peer.send(GET * 5_000)
        most = 0
        for _ in range(50):
            await peer.read_answer()
            most = max(most, sum(task.get_name().startswith("Task") for task in asyncio.all_tasks()))
        assert most < 50


# --------------------------------------------------------------------------------------------------- timeouts


async def test_half_sent_head_times_out(serve) -> None:
    async with serve(head_seconds_max=0.3) as target:
        peer = await target.connect()
        answer = await peer.exchange(GET[:-2])
        assert (answer.status, answer.code) == (408, "head_too_slow")
        assert await peer.is_closed()
        assert await target.refusals("head_time") == 1


async def test_connection_without_a_request_is_closed(serve) -> None:
    async with serve(head_seconds_max=0.3) as target:
        assert await (await target.connect()).is_closed()


async def test_idle_connection_is_closed(serve) -> None:
    async with serve(idle_seconds_max=0.3) as target:
        peer = await target.connect()
        assert (await peer.exchange(GET)).status == 200
        assert await peer.is_closed()


async def test_body_that_does_not_end_times_out(serve) -> None:
    async with serve(body_seconds_max=0.3) as target:
        secret = f"Authorization: Bearer {target.keys.secret_key}\r\n".encode()
        for path, key in ((b"/v1/batch", b""), (b"/v1/segments", secret)):
            peer = await target.connect()
            answer = await peer.exchange(b"POST " + path + b" HTTP/1.1\r\n" + key + b"Content-Length: 100\r\n\r\n{")
            assert (answer.status, answer.code) == (408, "body_too_slow")
            assert answer.headers["connection"] == "close"
            assert await peer.is_closed()
        assert await target.refusals("body_time") == 2


async def test_body_behind_an_early_response_times_out(serve) -> None:
    async with serve(body_seconds_max=0.3) as target:
        peer = await target.connect()
        assert (await peer.exchange(b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")).status == 200
        assert await peer.is_closed()


async def test_body_behind_an_early_response_is_discarded_within_a_limit(serve) -> None:
    async with serve() as target:
        head = b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
        peer = await target.connect()
        for _ in range(2):
            assert (await peer.exchange(head % 500_000 + b"a" * 500_000)).status == 200
        assert (await peer.exchange(head % 5_000_000)).status == 200
        assert await peer.is_closed()


# ---------------------------------------------------------------------------------------- connections, memory


async def test_unfinished_bodies_share_a_bound_and_the_oldest_give_way(serve) -> None:
    async with serve(unfinished_bytes_max=1_000_000) as target:
        peers = [await target.connect() for _ in range(6)]
        for peer in peers:
            await peer.send(b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Length: 400001\r\n\r\n" + b"a" * 400_000)
            await asyncio.sleep(0.05)
        for peer in peers[:4]:
            answer = await peer.read_answer()
            assert (answer.status, answer.code) == (503, "overloaded")
            assert answer.headers["retry-after"] == "1"
            assert await peer.is_closed()
        assert await target.metric("segue_unfinished_bytes") <= 1_000_000
        assert await target.refusals("body_memory") == 4
        text = json.dumps({"writeKey": target.keys.write_key, "userId": "u", "event": "e"}).encode()
        head = b"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(text)
        assert (await target.exchange(head + text)).status == 200
        for peer in peers[4:]:
            assert (await peer.exchange(b"a")).status == 401


async def test_unfinished_heads_share_the_same_bound(serve) -> None:
    async with serve(unfinished_bytes_max=200_000) as target:
        peers = [await target.connect() for _ in range(5)]
        for peer in peers:
            await peer.send(b"GET /livez HTTP/1.1\r\nX-Filler: " + b"a" * 50_000)
        assert [(await peer.read_answer()).status for peer in peers[:2]] == [503, 503]
        assert (await peers[4].exchange(b"\r\n\r\n")).status == 200
        assert await target.refusals("body_memory") == 2


async def test_memory_of_a_disconnected_client_is_released(serve) -> None:
    async with serve() as target:
        peer = await target.connect()
        await peer.send(b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Length: 400001\r\n\r\n" + b"a" * 300_000)
        while await target.metric("segue_unfinished_bytes") < 300_000:
            await asyncio.sleep(0.01)
        peer.writer.close()
        while await target.metric("segue_unfinished_bytes") > 0:
            await asyncio.sleep(0.01)


async def test_new_connection_takes_the_place_of_an_idle_one(serve) -> None:
    async with serve(connections_max=3) as target:
        idle = await target.connect()
        assert (await idle.exchange(GET)).status == 200
        waiting = [await target.connect() for _ in range(2)]
        for peer in waiting:
            await peer.send(GET[:5])
        await asyncio.sleep(0.05)
        assert (await target.exchange(GET)).status == 200
        assert await idle.is_closed()
        assert (await waiting[1].exchange(GET[5:])).status == 200


async def test_half_sent_heads_do_not_keep_others_out(serve) -> None:
    async with serve(connections_max=3) as target:
        peers = [await target.connect() for _ in range(3)]
        for peer in peers:
            await peer.send(GET[:5])
        await asyncio.sleep(0.05)
        assert (await target.exchange(GET)).status == 200
        assert (await peers[0].read_answer()).status == 503
        assert await target.refusals("connections") >= 1


async def test_connections_of_one_address_are_limited(serve) -> None:
    """The idle connections of the address give way first. An address of a trusted proxy has no limit of its own."""
    async with serve(address_connections_max=2) as target:
        trusted = [await target.connect() for _ in range(5)]
        assert [(await peer.exchange(GET)).status for peer in trusted] == [200] * 5
        first, second, third = [await target.connect("127.0.0.2") for _ in range(3)]
        assert await first.is_closed()
        assert [(await peer.exchange(GET)).status for peer in (second, third)] == [200, 200]
        assert (await (await target.connect("127.0.0.3")).exchange(GET)).status == 200


async def test_upgrade_is_ignored(serve) -> None:
    async with serve() as target:
        answer = await target.exchange(GET[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert answer.status == 200


def test_the_command_serves_with_these_limits(server: Server) -> None:
    with httpx.Client(base_url=server.url) as client:
        assert client.get("/livez", headers={"x-filler": "a" * 70_000}).status_code == 431
        assert 'segue_clients_refused_total{reason="head_size"}' in client.get("/metrics").text


async def test_key_in_the_head_is_checked_before_the_body_arrives(serve) -> None:
    """A rate-limited key is refused although the body never comes; without a key the server must wait for it."""
    async with serve(key_rate="1/hour") as target:
        head = f"POST /v1/batch?writeKey={target.keys.write_key} HTTP/1.1\r\nHost: x\r\nContent-Length: ".encode()
        body = b'{"batch":[]}'
        assert (await target.exchange(head + b"%d\r\n\r\n" % len(body) + body)).status == 200
        assert (await target.exchange(head + b"100000\r\n\r\n")).status == 429


async def test_body_without_a_key_is_not_parsed(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("the body is parsed")

    async with serve() as target:
        monkeypatch.setattr("app.api.collect.read_in_steps", fail)
        body = b'{"batch":[' + b"{}," * 1_000 + b"{}]}"
        answer = await target.exchange(b"POST /v1/batch HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert (answer.status, answer.code) == (401, "unauthorized")


def test_connection_is_used_again_after_large_bodies(server: Server) -> None:
    """The last piece of a large body pauses reading. Then the next request must resume it."""
    message = {"type": "track", "event": "Seen", "userId": "user-1", "properties": {"text": "x" * 1_000}}
    body = json.dumps({"writeKey": server.write_key, "batch": [message] * 200}).encode()
    with httpx.Client(base_url=server.url, timeout=5) as client:
        for _ in range(20):
            assert client.post("/v1/batch", content=body).status_code == 200
            assert client.get("/livez").status_code == 200


# ---------------------------------------------------------------------------------- responses that no client reads

DOCUMENT = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
DOCUMENTS = 30
"""Requests of one client whose responses fill the buffers of both kernels, so that a response waits in the server."""


@asynccontextmanager
async def clients_that_read_nothing(target: Target, number: int) -> AsyncIterator[list[socket.socket]]:
    """Yield clients that have requested more than the kernels store; each has at least one complete response."""
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.socket()) for _ in range(number)]
        for client in clients:
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", target.port))
            await loop.sock_sendall(client, DOCUMENT * DOCUMENTS)
        while await count_documents(target) < number or await target.metric("segue_unread_bytes") == 0:
            await asyncio.sleep(0.02)
        yield clients


async def count_documents(target: Target) -> float:
    return await target.metric('segue_requests_total{method="GET",route="/openapi.json",status="200"}')


async def count_received(client: socket.socket) -> int:
    """Read until all responses have arrived or the server has cut the connection; return the number of bytes."""
    received, size = 0, DOCUMENTS * len(OPENAPI_FILE.read_bytes())
    with suppress(ConnectionResetError):
        while received < size:
            content = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 1_000_000), 5)
            if not content:
                break
            received += len(content)
    return received


async def test_unread_responses_share_a_bound_and_the_oldest_are_cut(serve) -> None:
    size = len(OPENAPI_FILE.read_bytes())
    async with serve(unread_bytes_max=100_000) as target, clients_that_read_nothing(target, 10) as clients:
        while await target.refusals("unread_memory") < 5:
            await asyncio.sleep(0.02)
        assert 0 < await target.metric("segue_unread_bytes") <= size
        assert await count_received(clients[0]) < DOCUMENTS * size
        assert await count_received(clients[-1]) >= DOCUMENTS * size
        assert await target.metric("segue_connections_open") < 10


async def test_next_request_waits_until_the_response_is_read(serve) -> None:
    async with serve() as target, clients_that_read_nothing(target, 1) as (client,):
        await asyncio.sleep(0.3)
        assert await count_documents(target) < DOCUMENTS
        assert await count_received(client) >= DOCUMENTS * len(OPENAPI_FILE.read_bytes())
        assert await count_documents(target) == DOCUMENTS
        assert await target.metric("segue_unread_bytes") == 0


async def test_idle_client_that_reads_nothing_is_cut(serve) -> None:
    """Closing waits for the client to read, so the connection is cut after a moment."""
    async with serve(idle_seconds_max=0.3) as target, clients_that_read_nothing(target, 5):
        while await target.metric("segue_connections_open") > 1:
            await asyncio.sleep(0.1)


async def test_clients_that_read_nothing_do_not_keep_others_out(serve) -> None:
    async with serve(connections_max=10) as target, clients_that_read_nothing(target, 9):
        newcomers = [await target.connect() for _ in range(5)]
        assert [(await peer.exchange(GET)).status for peer in newcomers] == [200] * 5


class RecordedConnection:
    """A connection that records how it was ended."""

    def __init__(self) -> None:
        self.address: str | None = "127.0.0.1"
        self.end = ""

    def end_phase(self, phase: Phase) -> None:
        self.end = f"late: {phase.name}"

    def give_way(self) -> None:
        self.end = "gave way"

    def cut(self) -> None:
        self.end = "cut"


async def test_stalled_response_gives_way_before_an_unfinished_request(settings: Settings) -> None:
    limits = ConnectionLimits(settings.model_copy(update={"connections_max": 3}), Metrics())
    working, stalled, unfinished, newcomer = (RecordedConnection() for _ in range(4))
    for connection in (unfinished, working, stalled):
        assert limits.admit(connection, ()) is None
    limits.enter(working, Phase.RESPONSE)
    limits.enter(stalled, Phase.RESPONSE)
    limits.stall(stalled, 100_000)
    assert limits.admit(newcomer, ()) is None
    assert [connection.end for connection in (working, stalled, unfinished)] == ["", "cut", ""]
    assert limits.admit(RecordedConnection(), ()) is None
    assert [connection.end for connection in (working, unfinished)] == ["", "gave way"]
