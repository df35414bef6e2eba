"""The HTTP server of ``segue serve``."""

from __future__ import annotations

import socket
from contextlib import suppress

import uvicorn
from fastapi import FastAPI

from app import main
from app.background.process import BackgroundProcess
from app.config import Settings
from app.http.dependencies import Services
from app.http.server_protocol import create_protocol_class


class _Server(uvicorn.Server):
    """A server that gives up heavy reads at once when it stops, and then answers the other requests in flight."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app = self.config.app
        assert isinstance(app, FastAPI)
        services: Services = app.state.services
        if services.background_reads is not None:
            services.background_reads.cancel_all()
        await super().shutdown(sockets)


def run_server(
    settings: Settings, background: BackgroundProcess | None, listener: socket.socket, *, worker: bool
) -> bool:
    """Serve until SIGINT or SIGTERM; return False if the application could not start."""
    app = main.create_app(settings, worker=worker, tune_gc=True, background=background)
    server = _Server(
        uvicorn.Config(
            app,
            loop="uvloop",
            http=create_protocol_class(app),
            ws="none",  # Uvicorn would log the URL of each attempt to open a WebSocket, with the token in its query.
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=30,
            server_header=False,
        )
    )
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    return server.started
