"""Running services. Most tests share one; those that kill or stop it get their own.

They live in directories of their own, not in pytest's: under root PostgreSQL runs as another user, and each start of
pytest takes the right to enter its directory away from others.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.server import Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One running service for all tests that only send and ask; each takes ids of its own."""
    with tempfile.TemporaryDirectory(prefix="segue-") as directory:
        server = Server(Path(directory))
        try:
            yield server.start()
        finally:
            server.clean_up()


@pytest.fixture
def make_server() -> Iterator[Callable[..., Server]]:
    """Makes services that are not started yet, and ends them after the test."""
    made: list[Server] = []
    with tempfile.TemporaryDirectory(prefix="segue-") as directory:

        def make(database_url: str | None = None, **environment: str) -> Server:
            made.append(Server(Path(directory), database_url, **environment))
            return made[-1]

        yield make
        for server in made:
            server.clean_up()
