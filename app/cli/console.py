"""Shared parts of all commands: consoles, options, settings and a migrated database."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, NoReturn

import asyncpg
import typer
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from app.cli.runtime import bootstrap_if_empty, run_database
from app.config import Settings
from app.errors import SegueError
from app.observability import logging
from app.postgres.embedded import EmbeddedPostgresError
from app.postgres.migrate import MigrationFailed
from app.registry.bootstrap import FirstKeys

_SEND_BUFFER_BYTES: Final = 131_072
"""Memory of the kernel for responses of one connection. By default, a client that reads nothing occupies 4 MB."""

out = Console()
err = Console(stderr=True)

DataDir = Annotated[
    Path | None, typer.Option("--data", help="Directory of the embedded PostgreSQL. [dim]env SEGUE_DATA_DIR[/dim]")
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option("--database-url", help="A PostgreSQL 16+ instead of the embedded one. [dim]env DATABASE_URL[/dim]"),
]


def load_settings(
    data: Path | None, database_url: str | None, host: str | None = None, port: int | None = None
) -> Settings:
    """Read the settings from the environment; options of the command line take precedence."""
    options = {"data_dir": data, "database_url": database_url, "host": host, "port": port}
    try:
        settings = Settings().model_copy(update={name: value for name, value in options.items() if value is not None})
        logging.configure(settings.log_level)
    except ValueError as error:
        fail(str(error))
    return settings


def bind_port(settings: Settings) -> socket.socket:
    """Bind the address of the server; if that fails, print the reason and exit with status 1.

    Until the server listens, connections are refused.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)  # Connections inherit it.
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        fail(f"Cannot listen on {settings.host}:{settings.port}: {(error.strerror or str(error)).lower()}")
    return listener


@contextmanager
def open_migrated_database(settings: Settings) -> Iterator[Settings]:
    """Yield settings with the URL of a running, migrated database.

    If the database cannot be used, print one line instead of a traceback and exit with status 1.
    """
    try:
        with run_database(settings) as ready:
            yield ready
    except (EmbeddedPostgresError, MigrationFailed, SegueError) as error:
        fail(str(error))
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        is_file_error = isinstance(error, OSError) and error.filename is not None
        fail(str(error) if is_file_error else f"Database not usable: {error}")


def fail(reason: str) -> NoReturn:
    """Print the reason in red on stderr and exit with status 1."""
    err.print(f"[red]{escape(reason)}[/red]", soft_wrap=True)
    raise typer.Exit(1)


def ensure_workspace(settings: Settings, console: Console) -> None:
    """Create the default definitions, source and keys in an empty database, and print the keys."""
    first_keys = asyncio.run(bootstrap_if_empty(settings))
    if first_keys is not None:
        _print_first_keys(first_keys, console)


def _print_first_keys(first_keys: FirstKeys, console: Console) -> None:
    console.print(
        Panel(
            f"write key   [bold]{first_keys.write_key}[/bold]\n"
            f"secret key  [bold]{first_keys.secret_key}[/bold]\n\n"
            "Store the secret key now: it is shown only once. The write key may be used in web pages.",
            title="Your first keys",
            expand=False,
        )
    )
