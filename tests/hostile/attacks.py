"""Attacks of one client, with raw sockets. Each function runs in a process of its own (:mod:`tests.hostile.support`).

Each function takes the port of the server and returns after the attack; its sockets then close.
"""

from __future__ import annotations

import gzip
import json
import random
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

ADDRESS: Final = "127.0.0.1"
_SEND_SECONDS_MAX: Final = 60.0
_PIECE_BYTES: Final = 1_000_000


def connect(port: int) -> socket.socket:
    return socket.create_connection((ADDRESS, port), timeout=_SEND_SECONDS_MAX)


def send_until_refused(port: int, head: bytes, piece: bytes, bytes_total: int) -> None:
    """Send ``head`` and then ``piece`` again and again, until the server closes the connection."""
    with connect(port) as client, suppress(OSError):
        client.sendall(head)
        for _ in range(bytes_total // len(piece)):
            client.sendall(piece)
        time.sleep(1)


def send_huge_header(port: int, bytes_total: int = 100_000_000) -> None:
    send_until_refused(port, b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Filler: ", b"a" * _PIECE_BYTES, bytes_total)


def send_many_headers(port: int, bytes_total: int = 60_000_000) -> None:
    send_until_refused(port, b"GET /livez HTTP/1.1\r\nHost: x\r\n", b"a: b\r\n" * 50_000, bytes_total)


def send_many_trailers(port: int, bytes_total: int = 60_000_000) -> None:
    head = b"POST /v1/track HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    send_until_refused(port, head, b"a: b\r\n" * 50_000, bytes_total)


def pipeline_requests(port: int, requests: int = 1_000_000) -> None:
    """Send small requests without reading a response before the last request is sent, or 20 seconds have passed."""
    with connect(port) as client, suppress(OSError):
        piece = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n" * 10_000
        reader = threading.Thread(target=_discard_responses, args=(client, 20.0))
        reader.start()
        client.settimeout(1.0)
        end = time.monotonic() + 20.0
        for _ in range(requests // 10_000):
            _send_until(client, piece, end)
        reader.join()


def _send_until(client: socket.socket, content: bytes, end: float) -> None:
    """Send the content, or as much as the server accepts until ``end``."""
    view = memoryview(content)
    while view and time.monotonic() < end:
        with suppress(TimeoutError):
            view = view[client.send(view) :]


def _discard_responses(client: socket.socket, seconds: float) -> None:
    end = time.monotonic() + seconds
    with suppress(OSError):
        while time.monotonic() < end and client.recv(1_000_000):
            pass


def hold_half_sent_heads(port: int, connections: int = 1_000, seconds: float = 15.0) -> None:
    _hold_connections(port, connections, b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Filler: " + b"a" * 1_000, seconds)


def hold_large_heads(port: int, connections: int = 1_000, seconds: float = 5.0) -> None:
    _hold_connections(port, connections, b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Filler: " + b"a" * 60_000, seconds)


def hold_unfinished_bodies(port: int, connections: int = 300, seconds: float = 5.0) -> None:
    head = b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Length: 499999\r\n\r\n"
    _hold_connections(port, connections, head + b"a" * 499_000, seconds)


def hold_idle_connections(port: int, connections: int = 1_000, seconds: float = 5.0) -> None:
    """Complete a request with a large head on each connection, and keep the connections open."""
    head = b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Filler: " + b"a" * 60_000 + b"\r\n\r\n"
    _hold_connections(port, connections, head, seconds)


def _hold_connections(port: int, connections: int, content: bytes, seconds: float) -> None:
    clients = []
    for _ in range(connections):
        with suppress(OSError):
            client = connect(port)
            clients.append(client)
            client.settimeout(2.0)
            client.sendall(content)
    time.sleep(seconds)
    for client in clients:
        client.close()


def read_nothing(port: int, path: str = "/openapi.json", connections: int = 200, seconds: float = 7.0) -> None:
    """Request a large document on each connection, and read nothing of it."""
    _hold_connections(port, connections, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * 30, seconds)


def request_all_pages(port: int, connections: int = 20, seconds: float = 7.0) -> None:
    """Request the pages and documents of the site again and again, and discard the responses."""
    paths = ("/", "/docs", "/docs/guides", "/docs/guides/rules", "/docs/guides/reference/http", "/docs/openapi.json")
    content = b"".join(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in paths)
    _run_in_threads(connections, _repeat_requests, port, content * 10, seconds)


def _repeat_requests(port: int, content: bytes, seconds: float) -> None:
    end = time.monotonic() + seconds
    with connect(port) as client, suppress(OSError):
        reader = threading.Thread(target=_discard_responses, args=(client, seconds))
        reader.start()
        client.settimeout(1.0)
        while time.monotonic() < end:
            _send_until(client, content, end)
        client.shutdown(socket.SHUT_RDWR)
        reader.join()


def _run_in_threads(number: int, function: Callable[..., None], *arguments: Any) -> None:
    threads = [threading.Thread(target=function, args=arguments) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def build_batch(items: list[bytes], **members: str) -> bytes:
    """Return a compressed batch; ``members`` are further fields of the envelope."""
    fields = "".join(f"{json.dumps(name)}:{json.dumps(value)}," for name, value in members.items())
    return gzip.compress(b"{" + fields.encode() + b'"batch":[' + b",".join(items) + b"]}")


def send_batches(port: int, body: bytes, write_key: str = "", connections: int = 8, seconds: float = 7.0) -> None:
    """Send a body on several connections at once, again and again; without a key if the body contains it."""
    headers = "Content-Encoding: gzip\r\n"
    if write_key:
        headers += f"Authorization: Basic {b64encode(f'{write_key}:'.encode()).decode()}\r\n"
    _run_in_threads(connections, _post_repeatedly, port, body, headers, seconds)


def build_long_addresses() -> bytes:
    """Return a batch of 2,500 identify calls, each with another email address whose domain costs most."""
    rng = random.Random(7)
    messages = (
        {"type": "identify", "userId": f"u-{n}", "traits": {"email": _build_long_address(rng)}} for n in range(2_500)
    )
    return build_batch([json.dumps(message, ensure_ascii=False).encode() for message in messages])


def _build_long_address(rng: random.Random) -> str:
    labels = ("".join(chr(0x4E00 + rng.randrange(5_000)) for _ in range(19)) for _ in range(3))
    return f"{'ö' * 30}@{'.'.join(labels)}.com"


def _post_repeatedly(port: int, body: bytes, headers: str, seconds: float) -> None:
    head = f"POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with connect(port) as client, suppress(OSError):
            client.sendall(head + body)
            client.recv(65_536)
