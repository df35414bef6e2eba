"""Resources of connections in the operating system: open files and send buffers."""

from __future__ import annotations

import json
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.cli.console import bind_port
from app.config import Settings
from tests.support.databases import TestDatabases, run
from tests.support.server_process import Server

_SCRIPT = """
import json, resource, sys
from structlog.testing import capture_logs
from app.cli.open_files import raise_open_files_limit
from app.config import Settings
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
with capture_logs() as logs:
    raise_open_files_limit(Settings(connections_max=500, pool_connections_max=8))
print(json.dumps([*resource.getrlimit(resource.RLIMIT_NOFILE), [log["event"] for log in logs]]))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [
        (256, 1_000, [608, 1_000, []]),
        (256, 300, [300, 300, ["open_files.limited"]]),
        (900, 1_000, [900, 1_000, []]),
    ],
)
def test_limit_is_raised_as_far_as_connections_need_it(soft: int, hard: int, expected: list[object]) -> None:
    command = [sys.executable, "-c", _SCRIPT, str(soft), str(hard)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(output) == expected


@pytest.mark.server
def test_connections_have_a_small_send_buffer() -> None:
    """By default, Linux enlarges it to 4 MB. The kernel doubles the value that is set."""
    with bind_port(Settings(port=0)) as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as connection:
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * 131_072


def test_serve_raises_the_limit(databases: TestDatabases, make_server: Callable[..., Server]) -> None:
    server = make_server(run(databases.create()))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1_024, limits[1]))
    try:
        server.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    [line] = [line for line in Path(f"/proc/{server.pid}/limits").read_text().splitlines() if "open files" in line]
    assert int(line.split()[3]) == 2_000 + 8 + 100
