"""Static site on a different origin from Segue: serves pages from strings and records requests."""

from __future__ import annotations

import mimetypes
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

_HTML = "text/html; charset=utf-8"


class Page(NamedTuple):
    body: bytes
    headers: Mapping[str, str]


class Site:
    """A site that responds under every host name.

    The test browser resolves ``*.localhost`` and ``*.example.com`` to it.
    """

    def __init__(self) -> None:
        self.port = 0
        self.requests: list[tuple[str, str]] = []
        """(host name, path with query) of all requests, in order."""
        self._pages: dict[str, Page] = {}
        self._directories: dict[str, Path] = {}

    @property
    def url(self) -> str:
        return self.at("localhost")

    def at(self, host: str) -> str:
        return f"http://{host}:{self.port}"

    def page(self, path: str, body: str | bytes, headers: Mapping[str, str] | None = None) -> str:
        """Add a page and return its URL on localhost. The page is HTML unless a header sets another type."""
        content = body.encode() if isinstance(body, str) else body
        self._pages[path] = Page(content, {"Content-Type": _HTML, **(headers or {})})
        return self.url + path

    def directory(self, prefix: str, root: Path) -> str:
        """Serve the files below a directory and return the URL of its root."""
        self._directories[prefix.rstrip("/") + "/"] = root
        return self.url + prefix.rstrip("/")

    def find(self, path: str) -> Page | None:
        if (page := self._pages.get(path)) is not None:
            return page
        for prefix, root in self._directories.items():
            file = (root / path.removeprefix(prefix)).resolve()
            if path.startswith(prefix) and file.is_relative_to(root.resolve()) and file.is_file():
                kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
                return Page(file.read_bytes(), {"Content-Type": kind, "Access-Control-Allow-Origin": "*"})
        return None


class _Server(ThreadingHTTPServer):
    """HTTP server that closes its idle browser connections when it stops, and waits for their threads."""

    daemon_threads = False

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self._connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        for connection in list(self._connections):
            with suppress(OSError):  # The thread of the connection has already closed it.
                connection.shutdown(socket.SHUT_RDWR)
        super().server_close()


@contextmanager
def running_site() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            site.requests.append((self.headers.get("Host", "").partition(":")[0], self.path))
            page = site.find(self.path.partition("?")[0])
            self.send_response(200 if page else 404)
            body = page.body if page else b""
            for name, value in (page.headers if page else {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            del format, args

        def handle(self) -> None:
            with suppress(ConnectionError):  # The browser has closed the connection.
                super().handle()

    server = _Server(Handler)
    site.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="site", daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
