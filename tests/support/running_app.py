"""The application in the process of the test, with a separate database."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI

from app.background.worker import Worker
from app.config import Settings
from app.main import create_app
from app.observability.metrics import Metrics
from app.postgres.pool import Clock, open_pool
from app.registry.bootstrap import FirstKeys, bootstrap

NOON = 1_767_268_800_000_000
"""2026-01-01T12:00:00Z"""


class RunningApp:
    """A running application with its keys and a client."""

    def __init__(self, app: FastAPI, keys: FirstKeys, clock: Clock) -> None:
        self.app = app
        self.keys = keys
        self.clock = clock
        self.transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
        self.client = httpx.AsyncClient(transport=self.transport, base_url="http://segue.example.com")

    @property
    def secret(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys.secret_key}"}

    async def send(self, *messages: dict[str, Any], expected: int | None = None) -> dict[str, Any]:
        response = await self.client.post("/v1/batch", json={"batch": list(messages), "writeKey": self.keys.write_key})
        assert response.status_code == 200, response.text
        receipt: dict[str, Any] = response.json()
        assert receipt["accepted"] == (len(messages) if expected is None else expected), receipt
        return receipt

    async def ask(self, path: str, expected: int = 200, **options: Any) -> Any:
        response = await self.client.get(path, headers=self.secret, **options)
        assert response.status_code == expected, response.text
        return response.json()

    async def tell(self, method: str, path: str, json: Any = None, expected: int = 200) -> Any:
        response = await self.client.request(method, path, headers=self.secret, json=json)
        assert response.status_code == expected, response.text
        return response.json()

    async def trust_write_key(self) -> None:
        """Make the first write key a key of servers, which vouches for identities."""
        keys = (await self.ask("/v1/keys"))["items"]
        id = next(key["id"] for key in keys if key["kind"] == "write")
        await self.tell("PUT", f"/v1/keys/{id}", {"trust": "server"})

    async def all_of(self, path: str, cursor: str | None = None, **params: Any) -> list[Any]:
        """Return all items of a paginated list."""
        items: list[Any] = []
        while True:
            page = await self.ask(path, params={**params, **({"cursor": cursor} if cursor else {})})
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return items


def track(event: str, user: str = "user-1", **more: Any) -> dict[str, Any]:
    return {"type": "track", "event": event, "userId": user, **more}


@asynccontextmanager
async def running_app(
    settings: Settings, clock: Clock | None = None, worker: bool = False
) -> AsyncIterator[RunningApp]:
    assert settings.database_url is not None
    pool = await open_pool(settings.database_url, 1)
    async with pool.acquire() as connection:
        keys = await bootstrap(connection)  # type: ignore[arg-type]
    await pool.close()
    clock = clock or Clock()
    app = create_app(settings, clock=clock, worker=worker)
    async with app.router.lifespan_context(app):
        service = RunningApp(app, keys or FirstKeys("default", "", ""), clock)
        async with service.client:
            yield service


def basic_auth(key: str, colon: str = ":") -> dict[str, str]:
    return {"Authorization": f"Basic {b64encode((key + colon).encode()).decode()}"}


def is_problem(response: Any, status: int, code: str) -> bool:
    body = response.json()
    return (
        response.status_code == status == body["status"]
        and response.headers["content-type"] == "application/problem+json"
        and body["code"] == code
        and body["message"] == body["detail"] != ""
        and body["type"] == f"urn:segue:error:{code}"
    )


async def run_worker(service: RunningApp) -> None:
    """Run the background worker until all its work is done."""
    services = service.app.state.services
    worker = Worker(services.pool, services.registry, services.settings, services.clock, Metrics())
    while await worker.fill() or await worker.sweep():
        pass


async def post_json(service: RunningApp, path: str, body: Any, **options: Any) -> httpx.Response:
    return await service.client.post(path, content=json.dumps(body).encode(), **options)


async def touchpoints_of(service: RunningApp, customer: str = "user-1") -> list[dict[str, Any]]:
    """Return the customer's touchpoints, oldest first. Other messages, such as identify, are excluded."""
    timeline = await service.all_of(f"/v1/customers/{customer}/touchpoints")
    return [message for message in timeline[::-1] if message["name"] is not None]
