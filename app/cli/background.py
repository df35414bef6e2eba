"""Entry point of the background process: ``python -m app.cli.background SOCKET [--no-worker]``.

:mod:`app.background.process` starts it with the settings of the serving process. It ends when the serving process ends,
or when it exceeds its memory limit.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog
import uvicorn
import uvloop

from app.background.process import MEMORY_STATUS
from app.config import Settings
from app.http.read_limits import ReadLimitsMiddleware
from app.main import create_app
from app.observability import logging

_NICENESS: Final = 10
"""Priority below the serving process: if CPUs are scarce, ingestion gets most of their time."""

_MEMORY_SECONDS: Final = 0.1
_LAST_RESPONSES_SECONDS: Final = 1.0

_log = structlog.get_logger(__name__)


def main() -> None:
    socket, *options = sys.argv[1:]
    settings = Settings()
    logging.configure(settings.log_level, process="background")
    # The serving process decides when this process stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(Path(socket),), name="parent-watch", daemon=True).start()
    os.nice(_NICENESS)
    uvloop.run(_serve(settings, socket, worker="--no-worker" not in options))


async def _serve(settings: Settings, socket: str, *, worker: bool) -> None:
    app = ReadLimitsMiddleware(
        create_app(settings, worker=worker, is_background=True, tune_gc=True), settings.heavy_read_seconds_max
    )
    loop = asyncio.get_running_loop()
    _watch_memory(settings.background_memory_bytes_max, lambda: loop.call_soon_threadsafe(app.refuse_for_memory))
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            uds=socket,
            http="httptools",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=1,
        )
    )
    await server.serve()


def _end_with_parent(socket: Path) -> None:
    """Exit when standard input ends: the serving process has died, and will not remove the socket either."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    with suppress(OSError):
        socket.unlink(missing_ok=True)
        socket.parent.rmdir()
    os._exit(0)


def _watch_memory(bytes_max: int, refuse_reads: Callable[[], object]) -> None:
    """Restart the process, by its exit, when its memory exceeds the limit. A thread also sees a busy event loop."""

    def watch() -> None:
        while read_memory_bytes() <= bytes_max:
            time.sleep(_MEMORY_SECONDS)
        _log.warning("background.memory_exceeded", bytes_max=bytes_max)
        refuse_reads()
        time.sleep(_LAST_RESPONSES_SECONDS)
        os._exit(MEMORY_STATUS)

    threading.Thread(target=watch, name="memory-watch", daemon=True).start()


def read_memory_bytes() -> int:
    """Return the resident memory of this process; its peak so far where the system does not report the current size."""
    try:
        resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return resident_pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
