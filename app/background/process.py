"""The background process of ``segue serve``: its start, its restart after a failure, and its end.

The process runs the worker and answers heavy reads, so that neither holds the event loop that serves ingestion
(:mod:`app.http.background_reads`). It is a process group of its own, so Ctrl-C reaches only the serving process, which
stops it. It reads its standard input, which ends when the serving process dies.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import structlog

from app.config import Settings

MODULE: Final = "app.cli.background"
"""Module that runs as the background process."""

MEMORY_STATUS: Final = 70
"""Exit status of a background process that reached its memory limit."""

_STOP_SECONDS: Final = 1.0
_BACKOFF_SECONDS: Final = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
_STEADY_SECONDS: Final = 30.0
"""Time after which a process counts as started well, so that the next restart follows at once."""

_log = structlog.get_logger(__name__)


class BackgroundProcess:
    """Supervises the process in a thread. All its changes are in memory and in transactions, so it may be killed."""

    def __init__(self, socket: Path, database_url: str, *, worker: bool) -> None:
        self.socket = socket
        self._command = [sys.executable, "-m", MODULE, str(socket), *([] if worker else ["--no-worker"])]
        self._environment = {**os.environ, "DATABASE_URL": database_url}
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._supervise, name="background-watch", daemon=True)
        self.restarts = 0

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        self._spawn()
        self._thread.start()

    def stop(self) -> None:
        """Ask the process to stop; kill it if it does not stop soon."""
        with self._lock:
            self._stopping.set()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._thread.join()

    def _supervise(self) -> None:
        failures = 0
        while True:
            assert self._process is not None
            started_at = time.monotonic()
            status = self._process.wait()
            if self._stopping.is_set():
                return
            failures = 0 if time.monotonic() - started_at > _STEADY_SECONDS else failures + 1
            reason = "memory" if status == MEMORY_STATUS else None
            _log.warning("background.died", status=status, reason=reason)
            self._stopping.wait(_BACKOFF_SECONDS[min(failures, len(_BACKOFF_SECONDS) - 1)])
            with self._lock:
                if self._stopping.is_set():
                    return
                self._spawn()
                self.restarts += 1

    def _spawn(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.PIPE,
            process_group=0,
        )


@contextmanager
def run_background_process(settings: Settings, *, worker: bool) -> Iterator[BackgroundProcess]:
    """Run the background process on a Unix socket that only this user can open."""
    assert settings.database_url is not None
    with tempfile.TemporaryDirectory(prefix="segue-", ignore_cleanup_errors=True) as directory:
        process = BackgroundProcess(Path(directory) / "background", settings.database_url, worker=worker)
        process.start()
        try:
            yield process
        finally:
            process.stop()
            with suppress(OSError):
                process.socket.unlink()
