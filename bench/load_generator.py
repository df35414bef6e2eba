"""Load generator: a separate process that sends prepared requests and keeps a fixed number of them in flight.

It sends HTTP/1.1 with keep-alive over asyncio protocols, because a client library would use more CPU than the server.
Each connection has one request in flight and sends the next after the response.
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from enum import Enum, auto
from multiprocessing import get_context
from types import TracebackType
from typing import Final, Self, cast
from urllib.parse import quote

import uvloop

from bench.sample_messages import VISIT_MESSAGES, batch_body, customer_of, single_body

RESPONSE_SECONDS_MAX: Final = 60.0


class RequestKind(Enum):
    """Kind of request that a plan sends."""

    BATCH = auto()
    SINGLE = auto()
    NOOP_POST = auto()
    NOOP_GET = auto()
    CUSTOMER = auto()


@dataclass(frozen=True)
class Plan:
    """Requests of one kind to prepare and send. Message numbers start at ``first``; a batch contains ``size`` messages.

    ``visit`` consecutive messages belong to one customer.
    """

    kind: RequestKind
    port: int
    key: str
    requests: int
    in_flight: int
    first: int = 0
    size: int = 1
    visit: int = VISIT_MESSAGES

    @property
    def messages(self) -> int:
        return self.requests * self.size


@dataclass(frozen=True)
class Request:
    """A prepared HTTP request and the number of messages that it contains."""

    raw: bytes
    messages: int


@dataclass(frozen=True)
class Load:
    """Measurements of one plan.

    ``cpu_seconds`` is the CPU time that the generator used to send requests. Preparing them is excluded.
    """

    messages: int
    seconds: float
    cpu_seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Messages per second, or requests per second if the requests contain no message."""
        return self.messages / self.seconds


class Generator:
    """Client of the generator process. ``cpu_seconds`` and ``seconds`` are totals over all plans."""

    def __init__(self) -> None:
        self._executor = ProcessPoolExecutor(1, get_context("spawn"))
        self.cpu_seconds = 0.0
        self.seconds = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._executor.shutdown(cancel_futures=True)

    def run(self, plan: Plan, meanwhile: Callable[[], object] = lambda: None) -> Load:
        """Send all requests of a plan and call ``meanwhile`` ten times a second until they are sent."""
        return self._wait_for(self._executor.submit(_run, plan), meanwhile)

    def send(self, port: int, requests: list[Request], in_flight: int, expected: bytes) -> Load:
        """Send prepared requests. Raise RuntimeError unless each response is 200 and contains ``expected``."""
        return self._wait_for(self._executor.submit(_send_prepared, port, requests, in_flight, expected))

    def _wait_for(self, running: Future[Load], meanwhile: Callable[[], object] = lambda: None) -> Load:
        while wait([running], timeout=0.1).not_done:
            meanwhile()
        load = running.result()
        self.cpu_seconds += load.cpu_seconds
        self.seconds += load.seconds
        return load


def _run(plan: Plan) -> Load:
    requests = [_request(plan, index) for index in range(plan.requests)]
    return uvloop.run(_send_all(plan.port, requests, plan.in_flight, _expected(plan), plan.messages))


def _send_prepared(port: int, requests: list[Request], in_flight: int, expected: bytes) -> Load:
    messages = sum(request.messages for request in requests)
    return uvloop.run(_send_all(port, [request.raw for request in requests], in_flight, expected, messages))


def _request(plan: Plan, index: int) -> bytes:
    number = plan.first + index * plan.size
    match plan.kind:
        case RequestKind.BATCH:
            return _post("/v1/batch", plan, batch_body(number, plan.size, plan.visit))
        case RequestKind.SINGLE:
            return _post("/v1/track", plan, single_body(number))
        case RequestKind.NOOP_POST:
            return _post("/noop", plan, single_body(number))
        case RequestKind.NOOP_GET:
            return _get("/noop", plan)
        case RequestKind.CUSTOMER:
            return _get(f"/v1/customers/user_id:{quote(customer_of(number), safe='')}", plan)


def _post(path: str, plan: Plan, body: bytes) -> bytes:
    credentials = b64encode(f"{plan.key}:".encode()).decode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{plan.port}\r\nAuthorization: Basic {credentials}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _get(path: str, plan: Plan) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{plan.port}\r\nAuthorization: Bearer {plan.key}\r\n\r\n".encode()


def _expected(plan: Plan) -> bytes:
    """Return text that each response must contain: all messages are new, stored and projected."""
    match plan.kind:
        case RequestKind.BATCH | RequestKind.SINGLE:
            return b'"accepted":%d,"duplicate":0,"rejected":0,"projected":true' % plan.size
        case RequestKind.NOOP_POST | RequestKind.NOOP_GET:
            return b"{}"
        case RequestKind.CUSTOMER:
            return b'"six-stage"'


async def _send_all(port: int, requests: list[bytes], in_flight: int, expected: bytes, messages: int) -> Load:
    """Send all requests. Raise RuntimeError at the first unexpected response."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    latencies: list[float] = []
    queue = iter(requests)

    def on_response(seconds: float) -> None:
        latencies.append(seconds)
        if len(latencies) == len(requests) and not ended.done():
            ended.set_result(None)

    connections = [_Connection(queue, expected, on_response, ended) for _ in range(in_flight)]
    for connection in connections:
        await loop.create_connection(lambda connection=connection: connection, "127.0.0.1", port)  # type: ignore[misc]  # bound in the loop
    cpu, start = time.process_time(), time.perf_counter()
    for connection in connections:
        connection.send_next()
    await asyncio.wait_for(ended, RESPONSE_SECONDS_MAX + len(requests) / 50)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    for connection in connections:
        connection.close()
    latencies.sort()
    return Load(messages, seconds, cpu, _percentile(latencies, 0.50), _percentile(latencies, 0.99))


def _percentile(sorted_seconds: list[float], share: float) -> float:
    return 1000 * sorted_seconds[min(len(sorted_seconds) - 1, int(share * len(sorted_seconds)))]


class _Connection(asyncio.Protocol):
    """One keep-alive connection. Responses must have Content-Length, which uvicorn sends for complete bodies."""

    def __init__(
        self, queue: Iterator[bytes], expected: bytes, on_response: Callable[[float], None], ended: asyncio.Future[None]
    ) -> None:
        self._queue = queue
        self._expected = expected
        self._on_response = on_response
        self._ended = ended
        self._received = b""
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send_next(self) -> None:
        request = next(self._queue, None)
        if request is not None and self._transport is not None:
            self._sent_at = time.perf_counter()
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not _is_complete(self._received):
            return
        response, self._received = self._received, b""
        if response.startswith(b"HTTP/1.1 200 ") and self._expected in response:
            self._on_response(time.perf_counter() - self._sent_at)
            self.send_next()
        else:
            self._fail(f"unexpected response: {response[:2_000].decode(errors='replace')}")

    def connection_lost(self, error: Exception | None) -> None:
        if self._transport is not None:
            self._fail(f"the connection was lost: {error}")

    def close(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def _fail(self, reason: str) -> None:
        if not self._ended.done():
            self._ended.set_exception(RuntimeError(reason))


def _is_complete(response: bytes) -> bool:
    head, blank, body = response.partition(b"\r\n\r\n")
    if not blank:
        return False
    _, _, rest = head.lower().partition(b"\r\ncontent-length:")
    return len(body) >= int(rest.partition(b"\r\n")[0])
