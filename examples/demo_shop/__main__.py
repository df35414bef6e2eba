"""Command line of the demo shop: runs Segue and the shop until Ctrl-C."""

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
from examples.demo_shop.workspace import SETTINGS, prepare_workspace

HOST: Final = "127.0.0.1"
_STOP_SECONDS_MAX: Final = 5


def main() -> int:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _interrupt)
    console = Console()
    _clear_settings()
    try:
        shop = socket.create_server((HOST, arguments.shop_port))
    except OSError as error:
        console.print(f"Cannot open port {arguments.shop_port} for the shop: {error.strerror}.")
        return 1
    try:
        with shop, tempfile.TemporaryDirectory(prefix="segue-demo-web-") as scratch:
            data, log = (arguments.data or Path(scratch) / "data").resolve(), Path(scratch) / "serve.log"
            console.print("Starting Segue with its own PostgreSQL ...")
            command = ["app", "serve", "--data", str(data), "--port", str(arguments.port)]
            with serving(command, arguments.port, log, ready="/readyz", environment=SETTINGS) as server:
                _serve_shop(server, _secret_key(server, data), shop, console)
    except KeyboardInterrupt:
        pass  # The context managers have stopped both servers.
    console.print("Stopped the shop, Segue and its PostgreSQL.")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo_shop", description="A demo shop, and Segue beside it."
    )
    parser.add_argument("--data", type=Path, help="data directory (default: a temporary one)")
    parser.add_argument("--port", type=int, default=free_port(), help="port of Segue (default: an unused one)")
    parser.add_argument("--shop-port", type=int, default=0, help="port of the shop (default: an unused one)")
    return parser.parse_args()


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _clear_settings() -> None:
    """Remove Segue's environment variables, so that the demo never creates definitions in another database."""
    for name in [name for name in os.environ if name.startswith("SEGUE_") or name == "DATABASE_URL"]:
        del os.environ[name]


def _secret_key(server: Server, data: Path) -> str:
    """Return the printed key. Create a key if the data is from an earlier run, because Segue prints keys only once."""
    try:
        return server.printed_key("secret")
    except RuntimeError:
        command = [sys.executable, "-m", "app", "keys", "create", "secret", "--name", "demo-shop", "--data", str(data)]
        process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return process.stdout.strip()


def _serve_shop(server: Server, secret_key: str, listening: socket.socket, console: Console) -> None:
    """Serve the shop on a socket that already listens, so that its printed address works at once."""
    origin = "http://{}:{}".format(*listening.getsockname())
    workspace = prepare_workspace(server.url, secret_key, origin)
    console.print(f"Shop:   [bold green]{origin}[/bold green]")
    console.print(f"Segue:  {server.url}/docs")
    console.print("Press Ctrl-C to stop both.")
    config = uvicorn.Config(
        create_shop(workspace, origin),
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=_STOP_SECONDS_MAX,
    )
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    sys.exit(main())
