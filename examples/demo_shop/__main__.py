"""``python -m examples.demo_shop``: Segue and a shop beside it, until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

import uvicorn
from rich.console import Console

from bench.processes import ROOT, Server, free_port, serving
from examples.demo_shop.shop import create_shop
from examples.demo_shop.workspace import SETTINGS, prepare

HOST: Final = "127.0.0.1"
_STOP_SECONDS_MAX: Final = 5


def main() -> int:
    asked = _arguments()
    signal.signal(signal.SIGTERM, _interrupted)
    console = Console()
    _forget_settings()
    try:
        shop = socket.create_server((HOST, asked.shop_port))
    except OSError as error:
        console.print(f"The shop cannot have port {asked.shop_port}: {error.strerror}.")
        return 1
    try:
        with shop, tempfile.TemporaryDirectory(prefix="segue-demo-web-") as scratch:
            data, log = (asked.data or Path(scratch) / "data").resolve(), Path(scratch) / "serve.log"
            console.print("Starting Segue with its own PostgreSQL ...")
            command = ["app", "serve", "--data", str(data), "--port", str(asked.port)]
            with serving(command, asked.port, log, ready="/readyz", environment=SETTINGS) as server:
                _serve_shop(server, _secret_key(server, data), shop, console)
    except KeyboardInterrupt:
        pass  # the way to end it; by now all of it has been stopped
    console.print("Stopped; Segue and its PostgreSQL too.")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo_shop", description="A demo shop, and Segue beside it."
    )
    parser.add_argument("--data", type=Path, help="directory to keep the data in (default: forgotten at the end)")
    parser.add_argument("--port", type=int, default=free_port(), help="port of Segue (default: a free one)")
    parser.add_argument("--shop-port", type=int, default=0, help="port of the shop (default: a free one)")
    return parser.parse_args()


def _interrupted(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _forget_settings() -> None:
    """The demo makes definitions: it must not do so in a database that somebody's environment names."""
    for name in [name for name in os.environ if name.startswith("SEGUE_") or name == "DATABASE_URL"]:
        del os.environ[name]


def _secret_key(server: Server, data: Path) -> str:
    """The one that was printed; on data of an earlier run, where none was, a new one."""
    try:
        return server.printed_key("secret")
    except RuntimeError:
        command = [sys.executable, "-m", "app", "keys", "create", "secret", "--name", "demo-web", "--data", str(data)]
        made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return made.stdout.strip()


def _serve_shop(server: Server, secret_key: str, listening: socket.socket, console: Console) -> None:
    """``listening`` takes connections from before the address is shown, so that nobody comes too early."""
    origin = "http://{}:{}".format(*listening.getsockname())
    workspace = prepare(server.url, secret_key, origin)
    console.print(f"The shop is open:  [bold green]{origin}[/bold green]")
    console.print(f"Segue's own API:   {server.url}/docs")
    console.print("Ctrl-C stops both.")
    config = uvicorn.Config(
        create_shop(workspace, origin),
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=_STOP_SECONDS_MAX,
    )
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    sys.exit(main())
