"""Server processes: start them as a user would, wait until they are ready, stop them with SIGINT."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

ROOT: Final = Path(__file__).parent.parent
START_SECONDS_MAX: Final = 90.0
STOP_SECONDS_MAX: Final = 90.0
_PLAIN: Final = {"COLUMNS": "200", "NO_COLOR": "1"}
"""Environment for output that a program reads: without colours, and without wrapping a key over two lines."""


@dataclass(frozen=True)
class Server:
    """A server on ``127.0.0.1:port`` that writes its output to the file ``log``."""

    port: int
    pid: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def printed_key(self, kind: str) -> str:
        """Return the ``write`` or ``secret`` key that ``segue serve`` printed at its first start."""
        printed = self.log.read_text()
        match = re.search(rf"{kind} key\s+(\S+)", printed)
        if match is None:
            raise RuntimeError(f"The server printed no {kind} key:\n{printed}")
        return match[1]


@contextmanager
def serving(
    command: Sequence[str], port: int, log: Path, *, ready: str, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run ``python -m COMMAND`` in the checkout while the context is open.

    The block starts when the path ``ready`` returns 200. Raise RuntimeError with the server's output if it does not
    start or stop in time.
    """
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env={**os.environ, **_PLAIN, "PYTHONPATH": str(ROOT), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches only this process, which then stops the server.
        )
    try:
        server = Server(port, process.pid, log)
        _wait_until_ready(process, server, ready)
        yield server
    finally:
        _stop(process, log)


def _wait_until_ready(process: subprocess.Popen[bytes], server: Server, path: str) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(server.url + path).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise RuntimeError(f"The server did not start. Its output:\n{server.log.read_text()}")


def _stop(process: subprocess.Popen[bytes], log: Path) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise RuntimeError(f"The server did not stop. Its output:\n{log.read_text()}") from None


def free_port() -> int:
    """Return an unused TCP port. Another process may take it first; the server then fails to start."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
