"""``segue serve`` as a separate process that tests start, stop or kill."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import httpx

from app.postgres.embedded import EmbeddedPostgres

ROOT: Final = Path(__file__).parents[2]
START_SECONDS_MAX: Final = 60.0
STOP_SECONDS_MAX: Final = 60.0


class Server:
    """A ``segue serve`` process with its own embedded cluster, or with the database at ``database_url``.

    The keys are read from the output of the first start.
    """

    def __init__(self, directory: Path, database_url: str | None = None, **environment: str) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.database_url = database_url
        self.port = free_port()
        self.write_key = self.secret_key = ""
        # A second process for each server would cost the tests minutes. Tests of this process turn it on.
        defaults = {"SEGUE_BACKGROUND_PROCESS": "false"}
        self._environment = {"PYTHONPATH": str(ROOT), "SEGUE_DATA_DIR": str(self.data), **defaults, **environment}
        if database_url is not None:
            self._environment["DATABASE_URL"] = database_url
        self._process: subprocess.Popen[bytes] | None = None
        self._log = directory / f"serve-{self.port}.log"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None
        return self._process.pid

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def events(self) -> list[dict[str, Any]]:
        """Return all events that the server has logged since its first start."""
        return [json.loads(line) for line in self.output.splitlines() if line.startswith("{")]

    def environment(self) -> dict[str, str]:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("SEGUE_", "DATABASE_URL"))
        }
        if inherited.pop("PYTHONDONTWRITEBYTECODE", None):
            # Compile the application in advance. It takes longer than a start, and the tests start a hundred servers.
            inherited["PYTHONPYCACHEPREFIX"] = str(Path(tempfile.gettempdir()) / f"segue-tests-pycache-{os.getuid()}")
        return {**inherited, **self._environment}

    def spawn(self, *options: str) -> None:
        """Start the process without waiting for it."""
        assert self._process is None
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app", "serve", "--port", str(self.port), *options],
                cwd=ROOT,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def start(self, *options: str) -> Server:
        """Start the process and wait until it is ready. Raise RuntimeError with its output on failure."""
        self.spawn(*options)
        deadline = time.monotonic() + START_SECONDS_MAX
        with httpx.Client() as client:
            while not self._is_ready(client):
                self._check_starting(deadline)
                time.sleep(0.03)
        self._read_keys()
        return self

    async def wait_until_ready(self) -> None:
        """Wait until the started process is ready, without blocking the event loop."""
        deadline = time.monotonic() + START_SECONDS_MAX
        async with httpx.AsyncClient() as client:
            while True:
                with suppress(httpx.TransportError):
                    if (await client.get(self.url + "/readyz")).status_code == httpx.codes.OK:
                        break
                self._check_starting(deadline)
                await asyncio.sleep(0.03)
        self._read_keys()

    def _is_ready(self, client: httpx.Client) -> bool:
        try:
            return client.get(self.url + "/readyz").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def _check_starting(self, deadline: float) -> None:
        assert self._process is not None
        if self._process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"The server is not ready. Its output:\n{self.output[-8000:]}")

    def _read_keys(self) -> None:
        if not self.write_key and (keys := re.search(r"wk_\w{32}.*?sk_\w{32}", self.output, re.DOTALL)):
            self.write_key, self.secret_key = keys[0][:35], keys[0][-35:]

    def change_write_key(self, **options: object) -> None:
        """Change options of the first write key. Other servers of the same database apply them within a second."""
        headers = {"Authorization": f"Bearer {self.secret_key}"}
        with httpx.Client(base_url=self.url, headers=headers) as client:
            keys = client.get("/v1/keys").json()["items"]
            id = next(key["id"] for key in keys if key["kind"] == "write" and not key["revoked_at"])
            client.put(f"/v1/keys/{id}", json=options).raise_for_status()

    def interrupt(self, number: int = signal.SIGINT) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for the process to end and return its exit status."""
        assert self._process is not None
        status = self._process.wait(STOP_SECONDS_MAX)
        self._process = None
        return status

    def stop(self) -> int:
        self.interrupt()
        return self.wait()

    def kill(self) -> None:
        """Kill the process with SIGKILL and wait until it has ended."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def clean_up(self) -> None:
        """Stop the server and its cluster after a test, by force if necessary."""
        if self._process is not None:
            self.interrupt()
            with suppress(subprocess.TimeoutExpired):
                self.wait()
        if self._process is not None:
            self.kill()
        if (postmaster := self.postmaster) is not None:
            os.kill(postmaster, signal.SIGKILL)

    @property
    def postmaster(self) -> int | None:
        """Process id of the embedded PostgreSQL, or None if it does not run."""
        return EmbeddedPostgres(self.data).pid

    def command(self, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run another ``segue`` command on the same database."""
        return subprocess.run(
            [sys.executable, "-m", "app", *arguments],
            cwd=ROOT,
            env={**self.environment(), **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        async with httpx.AsyncClient(base_url=self.url, timeout=30) as http:
            yield Client(http, self.write_key, self.secret_key)


class Client:
    """API client that sends with the write key and queries with the secret key."""

    def __init__(self, http: httpx.AsyncClient, write_key: str, secret_key: str) -> None:
        self.http = http
        self.write = httpx.BasicAuth(write_key, "")
        self.secret = {"Authorization": f"Bearer {secret_key}"}

    async def send(self, *messages: dict[str, Any]) -> dict[str, Any]:
        """Send a batch and return its receipt. Raise AssertionError unless the status is 200."""
        answer = await self.http.post("/v1/batch", json={"batch": list(messages)}, auth=self.write)
        assert answer.status_code == 200, answer.text
        receipt: dict[str, Any] = answer.json()
        return receipt

    async def ask(self, path: str, **parameters: Any) -> Any:
        answer = await self.http.get(path, headers=self.secret, params=parameters or None)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def all_of(self, path: str) -> list[Any]:
        """Return all items of a paginated list."""
        items: list[Any] = []
        page = await self.ask(path)
        while page["next_cursor"] is not None:
            items += page["items"]
            page = await self.ask(path, cursor=page["next_cursor"])
        items += page["items"]
        return items


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
