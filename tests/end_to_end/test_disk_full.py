"""A full disk: ingestion and readiness report it, and both recover when there is space again."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.server_process import Server

pytestmark = pytest.mark.server

SIZE = "400m"


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """Return a directory on a small file system of its own, which only root can mount."""
    with tempfile.TemporaryDirectory(prefix="segue-") as directory:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=755", "tmpfs", directory], capture_output=True, text=True
        )
        if mounted.returncode:
            # Without root, nothing else fills a disk without filling that of the machine.
            pytest.skip(f"cannot mount a small disk: {mounted.stderr.strip()}")
        try:
            yield Path(directory)
        finally:
            subprocess.run(["umount", "-l", directory], check=True)


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="needs root to mount a small disk")
def test_readyz_reports_a_full_disk_and_recovers(small_disk: Path) -> None:
    server = Server(small_disk)
    try:
        server.start()
        filler = fill(small_disk)
        answer = wait_for(server, 503)
        assert (answer["ready"], answer["database"], answer["reason"]) == (False, True, "disk_full")
        filler.unlink()
        assert wait_for(server, 200)["writable"] is True
        receipt = httpx.post(
            server.url + "/v1/track", json={"event": "E", "userId": "user-1"}, auth=(server.write_key, "")
        )
        assert receipt.json()["accepted"] == 1
    finally:
        server.clean_up()


def fill(directory: Path) -> Path:
    """Write a file that takes all free space."""
    filler = directory / "filler"
    with filler.open("wb") as file:
        free = os.statvfs(directory).f_bavail * os.statvfs(directory).f_frsize
        os.posix_fallocate(file.fileno(), 0, free)
    return filler


def wait_for(server: Server, status: int) -> dict[str, object]:
    """Ask for readiness until it has this status; the result of a check is reused for a few seconds."""
    deadline = time.monotonic() + 30
    while True:
        response = httpx.get(server.url + "/readyz")
        if response.status_code == status:
            answer: dict[str, object] = response.json()
            return answer
        assert time.monotonic() < deadline, response.text
        time.sleep(0.2)
