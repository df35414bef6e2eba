"""A web page as a client: it sends messages with a visitor proof and reads the visitor's profile."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

import httpx

from app.registry.visitor_tokens import derive_anonymous_id
from tests.support.running_app import RunningApp

ORIGIN = "https://shop.example.com"


@dataclass
class WebPage:
    """Page of one visitor, with its own origin."""

    service: RunningApp
    write_key: str = ""
    origin: str | None = ORIGIN
    proof: str = field(default_factory=lambda: secrets.token_hex(16))
    me: str | None = ""
    token: str = ""

    @property
    def id(self) -> str:
        id = derive_anonymous_id(self.proof)
        assert id is not None
        return id

    @property
    def key(self) -> str:
        return self.write_key or self.service.keys.write_key

    async def post(self, *messages: dict[str, Any], **visitor: Any) -> httpx.Response:
        """Send messages as the browser library does. ``visitor`` replaces the visitor claim of the batch."""
        claim = visitor or {"id": self.id, "proof": self.proof, **({} if self.me is None else {"me": self.me})}
        return await self.service.client.post(
            "/v1/b",
            json={
                "writeKey": self.key,
                "batch": [{"anonymousId": self.id, **message} for message in messages],
                "visitor": claim,
            },
            headers={} if self.origin is None else {"Origin": self.origin},
        )

    async def send(self, *messages: dict[str, Any], **visitor: Any) -> dict[str, Any]:
        """Send messages, remember the visitor token of the receipt, and return the receipt."""
        response = await self.post(*messages, **visitor)
        assert response.status_code == 200, response.text
        receipt: dict[str, Any] = response.json()
        assert receipt["accepted"] + receipt["duplicate"] == len(messages), receipt
        self.token = receipt.get("visitor", {}).get("token", self.token)
        return receipt

    async def get(self, token: str | None = None, headers: dict[str, str] | None = None) -> httpx.Response:
        return await self.service.client.get(
            "/v1/me",
            params={"writeKey": self.key, "token": self.token if token is None else token},
            headers={**({} if self.origin is None else {"Origin": self.origin}), **(headers or {})},
        )

    async def ask_with_new_token(self) -> dict[str, Any]:
        """Renew the visitor token, then return the visitor's profile."""
        await self.send()
        return await self.ask()

    async def ask(self) -> dict[str, Any]:
        response = await self.get()
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer


def did(event: str, **more: Any) -> dict[str, Any]:
    return {"type": "track", "event": event, **more}


def is_member(answer: dict[str, Any], key: str) -> bool:
    return key in [segment["key"] for segment in answer["segments"]]
