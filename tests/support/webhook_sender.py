"""The application behind a real socket, at the time of the fixtures, and a client that delivers webhooks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import asyncpg
import httpx
import uvicorn

from app.config import Settings
from app.connectors.tools import CONNECTORS
from app.main import create_app
from app.postgres.pool import FrozenClock, open_pool
from app.registry.bootstrap import bootstrap
from tests.support.tool_fixture import NOW, Case, Fixture

WRITTEN_BY_MESSAGES = (
    *("ledger", "touchpoints", "identities", "links", "customers", "transitions", "deferred", "quarantine"),
    *("used_tokens", "erasure_requests", "object_owners", "older_points", "checkpoints"),
)


class WebhookSender:
    """Delivers events to a running application as a tool does, and queries its API."""

    def __init__(
        self, address: str, database_url: str, secret_key: str, clock: FrozenClock, visited: list[str]
    ) -> None:
        self._database_url = database_url
        self.address = address
        self.clock = clock
        self.visited = visited
        """URLs that the application has requested."""
        self.source = "tool"
        """Key of the source that methods use unless the test passes another key."""
        self.write_key = ""
        """Write key of a source for SDKs. Empty unless the test creates such a source."""
        self.client = httpx.AsyncClient(base_url=address, timeout=30)
        self._secret = {"Authorization": f"Bearer {secret_key}"}

    async def forget_all_messages(self) -> None:
        """Delete all rows that messages have caused. Sources and secrets stay."""
        connection = await asyncpg.connect(self._database_url)
        # TRUNCATE would create new files for each partition of the log.
        await connection.execute("; ".join(f"DELETE FROM {table}" for table in WRITTEN_BY_MESSAGES))
        await connection.close()

    async def ask(self, method: str, path: str, json: Any = None, expected: int = 200, **more: Any) -> Any:
        response = await self.client.request(method, path, headers=self._secret, json=json, **more)
        assert response.status_code == expected, response.text
        return response.json() if response.content else None

    async def add(self, fixture: Fixture, source: str | None = None) -> str:
        """Create a source of the fixture's kind.

        Return the secret for signing, or an empty string if the kind has no secret.
        """
        source = source or self.source
        body = {"key": source, "kind": fixture.kind, "options": dict(fixture.options)}
        await self.ask("POST", "/v1/sources", body, 201)
        if not CONNECTORS[fixture.kind].scheme.needs_secret:
            return ""
        secret = {"secret": fixture.secret} if fixture.secret else {}
        created = await self.ask("POST", f"/v1/sources/{source}/secrets", secret, 201)
        return fixture.secret or created["token"]

    def url(self, source: str | None = None, query: Mapping[str, str] | None = None) -> str:
        path = f"{self.address}/v1/sources/{source or self.source}/webhook"
        return f"{path}?{urlencode(query)}" if query else path

    async def send(
        self, fixture: Fixture, case: Case, secret: str, *, source: str | None = None, at: int | None = None
    ) -> httpx.Response:
        """Deliver the case, signed at the instant ``at``. The default is the current time of the application."""
        url = self.url(source, case.query)
        proof = secret, self.clock.now() if at is None else at, url
        body = fixture.seal(case.body, *proof)
        headers, query = fixture.sign(body, *proof)
        return await self.client.post(
            self.url(source, {**case.query, **query}), content=body, headers={**case.headers, **headers}
        )


@asynccontextmanager
async def running_webhook_sender(
    settings: Settings, certificates: Mapping[str, bytes] | None = None, *, first: bool = True
) -> AsyncIterator[WebhookSender]:
    """Run the application. If ``first`` is false, the database already has keys, so only webhooks can be sent.

    ``certificates`` maps URLs to the content that the application receives from them instead of the internet.
    """
    assert settings.database_url is not None
    pool = await open_pool(settings.database_url, 1)
    async with pool.acquire() as connection:
        keys = await bootstrap(connection)  # type: ignore[arg-type]  # a pool's proxy of a connection
    await pool.close()
    assert (keys is not None) == first
    clock = FrozenClock(NOW)
    visited: list[str] = []

    def network(request: httpx.Request) -> httpx.Response:
        visited.append(str(request.url))
        certificate = (certificates or {}).get(str(request.url))
        return httpx.Response(404) if certificate is None else httpx.Response(200, content=certificate)

    app = create_app(settings, clock=clock, worker=False, network=httpx.MockTransport(network))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
        serving = asyncio.create_task(server.serve([listening]))
        while not server.started:
            assert not serving.done()
            await asyncio.sleep(0.005)
        tools = WebhookSender(
            f"http://127.0.0.1:{listening.getsockname()[1]}",
            settings.database_url,
            "" if keys is None else keys.secret_key,
            clock,
            visited,
        )
        try:
            async with tools.client:
                yield tools
        finally:
            server.should_exit = True
            await serving
