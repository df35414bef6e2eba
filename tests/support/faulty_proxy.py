"""HTTP proxy in front of Segue that injects faults, for tests of how SDKs retry."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from ssl import SSLContext, SSLSocket
from typing import Final, Literal

Fault = Literal["pass", "busy", "swallow"]
"""Fault of one request.

``pass`` forwards the request. ``busy`` responds with 503. ``swallow`` forwards the request, but closes the connection
before the response.
"""

_TLS_SHUTDOWN_SECONDS_MAX: Final = 1.0

_BUSY = (
    "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {retry_after}\r\nContent-Type: application/json\r\n"
    "Access-Control-Allow-Origin: {origin}\r\nAccess-Control-Allow-Credentials: true\r\n"
    "Access-Control-Expose-Headers: Retry-After\r\nContent-Length: 15\r\nConnection: close\r\n\r\n"
    '{{"code":"busy"}}'
)
"""Response to a request with the fault ``busy``. Its CORS headers let pages read it, like a 503 of Segue itself."""


class FaultyProxy:
    """Proxy to a local port. Each request takes the next fault of ``faults``; later requests pass.

    ``injected`` contains the fault of each request, and ``heads`` its request line and headers in lower case. GET and
    OPTIONS requests (scripts and preflights) always pass and are not recorded. With ``tls`` the proxy terminates TLS.
    """

    def __init__(self, upstream_port: int, faults: Sequence[Fault], tls: SSLContext | None = None) -> None:
        self.injected: list[Fault] = []
        self.heads: list[bytes] = []
        self.faults = list(faults)
        self.retry_after_seconds = 1
        self._upstream_port = upstream_port
        self._tls = tls
        self._open_sockets: set[socket.socket] = set()
        self._is_stopping = False
        self._server = ThreadingTCPServer(("127.0.0.1", 0), self._handler())

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    def serve(self) -> None:
        """Accept connections until :meth:`stop`. Each connection has a thread."""
        self._server.serve_forever(poll_interval=0.01)

    def stop(self) -> None:
        """Accept no more connections, shut down the open ones and wait for their threads."""
        self._server.shutdown()
        self._is_stopping = True
        for connection in list(self._open_sockets):
            _shut_down(connection)
        self._server.server_close()

    def _handler(self) -> type[BaseRequestHandler]:
        proxy = self

        class Handler(BaseRequestHandler):
            def handle(self) -> None:
                # Browsers open spare connections and drop them. Some are still open when the proxy stops.
                with suppress(OSError), proxy._until_closed(self.request) as connection:
                    if proxy._tls is None:
                        proxy._answer(connection)
                    else:
                        with proxy._tls.wrap_socket(connection, server_side=True) as tls_connection:
                            proxy._answer(tls_connection)
                            _shut_down_tls(tls_connection)

        return Handler

    @contextmanager
    def _until_closed(self, connection: socket.socket) -> Iterator[socket.socket]:
        """Let :meth:`stop` shut down the connection while the block uses it. Yields a duplicate of the socket.

        The duplicate survives that TLS detaches the original.
        """
        with connection.dup() as handle, connection:
            self._open_sockets.add(handle)
            if self._is_stopping:  # stop() may have shut down the other connections already.
                _shut_down(handle)
            try:
                yield connection
            finally:
                self._open_sockets.discard(handle)

    def _answer(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as reader:
            lines = []
            while (line := reader.readline()) not in {b"\r\n", b""}:
                lines.append(line)
            if not line:
                return
            head = b"".join(lines)
            fault: Fault = "pass"
            if has_body := not head.startswith((b"GET ", b"OPTIONS ")):
                fault = self.faults.pop(0) if self.faults else "pass"
                self.injected.append(fault)
                self.heads.append(head.lower())
            body = reader.read(_content_length(head)) if has_body else b""
        answer = self._busy(head) if fault == "busy" else self._forward(lines, body)
        if fault != "swallow":
            connection.sendall(answer)

    def _busy(self, head: bytes) -> bytes:
        origin = _header(head, b"origin") or b"*"
        return _BUSY.format(retry_after=self.retry_after_seconds, origin=origin.decode()).encode()

    def _forward(self, lines: list[bytes], body: bytes) -> bytes:
        upstream = socket.create_connection(("127.0.0.1", self._upstream_port))
        with self._until_closed(upstream), upstream.makefile("rb") as reader:
            forwarded = [line for line in lines if not line.lower().startswith(b"connection:")]
            upstream.sendall(b"".join([*forwarded, b"Connection: close\r\n\r\n", body]))
            return reader.read()


def _shut_down(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _shut_down_tls(connection: SSLSocket) -> None:
    connection.settimeout(_TLS_SHUTDOWN_SECONDS_MAX)
    with suppress(OSError):
        connection.unwrap().close()


@contextmanager
def running_proxy(port: int, *faults: Fault, tls: SSLContext | None = None) -> Iterator[FaultyProxy]:
    """Run a proxy in a separate thread, because most SDKs block. With ``tls`` the proxy terminates TLS."""
    proxy = FaultyProxy(port, faults, tls)
    thread = threading.Thread(target=proxy.serve, name="proxy", daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.stop()
        thread.join()


def _content_length(head: bytes) -> int:
    if (length := _header(head, b"content-length")) is None:
        raise ValueError("the request has a body and no Content-Length")
    return int(length)


def _header(head: bytes, lower_name: bytes) -> bytes | None:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == lower_name:
            return value.strip()
    return None
