"""The HTTP server of ``segue serve``."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import uvicorn

from app import main
from app.background.process import BackgroundProcess
from app.cli.open_files import raise_open_files_limit
from app.config import Settings
from app.http.server_protocol import create_protocol_class


class _Server(uvicorn.Server):
    """A server that gives up heavy reads at once when it stops, and then answers the other requests in flight."""

    def __init__(self, config: uvicorn.Config, cancel_heavy_reads: Callable[[], None]) -> None:
        super().__init__(config)
        self._cancel_heavy_reads = cancel_heavy_reads

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._cancel_heavy_reads()
        await super().shutdown(sockets)


def run_server(
    settings: Settings, background: BackgroundProcess | None, listener: socket.socket, *, worker: bool
) -> bool:
    """Serve until SIGINT or SIGTERM; return False if the application could not start."""
    raise_open_files_limit(settings)
    app = main.create_app(settings, worker=worker, tune_gc=True, background=background)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=create_protocol_class(app),
        ws="none",  # Uvicorn would log the URL of each attempt to open a WebSocket, with the token in its query.
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=30,
        server_header=False,
    )
    server = _Server(config, partial(main.cancel_heavy_reads, app))
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    return server.started
