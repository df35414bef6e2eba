"""One person who uses a web shop, its e-mails and its help desk becomes one customer, in any order of arrival.

The person visits anonymously, follows a newsletter link that contains the user id, buys, opens a ticket, gives a bad
rating, receives an apology, and buys again.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.config import Settings
from app.formats.timestamps import rfc3339
from tests.connectors.tools.sendgrid import FIXTURE as SENDGRID
from tests.support.databases import TestDatabases
from tests.support.tool_fixture import Case, json_body
from tests.support.webhook_sender import WebhookSender, running_webhook_sender

WHO = "user_id:user-1"
DAY = 86_400
BEGIN = 1_777_888_800 - 40 * DAY
"""2026-03-25T10:00:00Z in seconds since 1970, which is 41 days and two hours before ``NOW``."""
ZENDESK_SECRET = "the signing secret"
STEPS = 10


@asynccontextmanager
async def another_database(databases: TestDatabases) -> AsyncIterator[str]:
    url = await databases.acquire()
    yield url
    await databases.release(url)


Send = Callable[[WebhookSender], Awaitable[None]]

UNHAPPY = {
    "key": "unhappy-now",
    "name": "Unhappy now",
    "rule": {
        "all": [
            {"did": "csat.submitted", "within": "90d"},
            {"trait": "last_rating", "lte": 2},
        ]
    },
}
LAST_RATING = {"key": "last_rating", "name": "Last rating", "value": {"last_value": "rating", "of": "csat.submitted"}}


def at(days: float) -> str:
    return rfc3339(int((BEGIN + days * DAY) * 1_000_000))


def web(days: float, **message: Any) -> Send:
    async def send(tools: WebhookSender) -> None:
        page = {"messageId": f"web-{days}", "timestamp": at(days), "context": {"library": {"name": "segue.js"}}}
        body = {"writeKey": tools.write_key, "batch": [{**page, **message}]}
        receipt = (await tools.client.post("/v1/batch", json=body)).json()
        assert receipt["accepted"] == 1, receipt

    return send


def mail(days: float, event: str, **more: Any) -> Send:
    async def send(tools: WebhookSender) -> None:
        members = {"email": "User@example.com", "event": event, "sg_event_id": f"mail-{days}", **more}
        case = Case(event, json_body([{**members, "timestamp": int(BEGIN + days * DAY)}]))
        receipt = (await tools.send(SENDGRID, case, SENDGRID.secret, source="mails")).json()
        assert receipt["accepted"] == 1, receipt

    return send


def ticket(days: float, event: str, **more: Any) -> Send:
    """Return a function that sends the body of a Zendesk trigger, signed as Zendesk does."""

    async def send(tools: WebhookSender) -> None:
        members = {"ticket_id": "77", "event": f"ticket.{event}", "email": "user@example.com", "requester_id": "9"}
        body = json.dumps({**members, "updated_at": at(days), **more}).encode()
        time = "2026-05-05T12:00:00Z"
        mac = hmac.new(ZENDESK_SECRET.encode(), time.encode() + body, hashlib.sha256).digest()
        headers = {
            "X-Zendesk-Webhook-Signature": base64.b64encode(mac).decode(),
            "X-Zendesk-Webhook-Signature-Timestamp": time,
        }
        receipt = (await tools.client.post(tools.url("desk"), content=body, headers=headers)).json()
        assert receipt["accepted"] == 1, receipt

    return send


def story() -> list[Send]:
    bought = {"type": "track", "event": "Order Completed", "userId": "user-1", "anonymousId": "device-1"}
    return [
        web(0, type="page", anonymousId="device-1", properties={"url": "https://shop.example.com/"}),
        web(0.01, type="page", anonymousId="device-1", properties={"url": "https://shop.example.com/tea"}),
        mail(5, "click", user_id="user-1", url="https://shop.example.com/tea?uid=user-1", category=["news"]),
        web(5.001, type="identify", userId="user-1", anonymousId="device-1", traits={"email": "user@example.com"}),
        web(5.01, **bought, properties={"order_id": "1", "total": 20}),
        ticket(12, "created", status="new", title="It came broken"),
        ticket(13, "solved", status="solved", previous_status="open"),
        ticket(13.5, "rated", rating=1, scale=5),
        mail(14, "delivered", category=["sorry"]),
        web(30, **bought, properties={"order_id": "2", "total": 30}),
    ]


async def _prepare(tools: WebhookSender) -> None:
    await tools.ask("POST", "/v1/traits", LAST_RATING, 201)
    await tools.ask("POST", "/v1/segments", UNHAPPY, 201)
    tools.write_key = (await tools.ask("POST", "/v1/sources", {"key": "web"}, 201))["write_key"]
    await tools.add(SENDGRID, "mails")
    await tools.ask("POST", "/v1/sources", {"key": "desk", "kind": "zendesk"}, 201)
    await tools.ask("POST", "/v1/sources/desk/secrets", {"secret": ZENDESK_SECRET}, 201)


async def _read_customer(tools: WebhookSender) -> dict[str, Any]:
    """Return the responses of all reads of the customer, without the times at which data was stored."""
    customer = await tools.ask("GET", f"/v1/customers/{WHO}")
    timeline = await tools.ask("GET", f"/v1/customers/{WHO}/touchpoints?limit=100")
    stages = await tools.ask("GET", f"/v1/customers/{WHO}/journey")
    stays = await tools.ask("GET", f"/v1/customers/{WHO}/segments?history=true")
    tickets = await tools.ask("GET", f"/v1/customers/{WHO}/tickets")
    reads = {"customer": customer, "timeline": timeline, "stages": stages, "stays": stays, "tickets": tickets}
    return _without(_without(reads, "recorded_at"), "received_at")


def _without(value: Any, suffix: str) -> Any:
    if isinstance(value, dict):
        return {name: _without(member, suffix) for name, member in value.items() if not name.endswith(suffix)}
    return [_without(item, suffix) for item in value] if isinstance(value, list) else value


async def test_events_in_order_build_one_customer(settings: Settings) -> None:
    async with running_webhook_sender(settings) as tools:
        await _prepare(tools)
        steps = story()
        assert len(steps) == STEPS
        unhappy = []
        for step in steps:
            await step(tools)
            if step not in steps[:3]:  # The customer has no user id before the click on the newsletter link.
                segments = (await tools.ask("GET", f"/v1/customers/{WHO}"))["segments"]
                unhappy.append("unhappy-now" in {segment["key"] for segment in segments})
        assert unhappy == [False, False, False, False, True, True, True]

        reads = await _read_customer(tools)
        names = [touchpoint["name"] for touchpoint in reads["timeline"]["items"] if touchpoint["name"]]
        assert sorted(names) == sorted(
            [
                *("page_viewed", "page_viewed", "email.clicked", "Order Completed", "ticket.created", "ticket.solved"),
                *("csat.submitted", "email.delivered", "Order Completed"),
            ]
        )
        identities = {f"{identity['kind']}:{identity['value']}" for identity in reads["customer"]["identities"]}
        assert identities == {WHO, "email:user@example.com", "anonymous_id:device-1", "zendesk_user:9"}
        assert reads["customer"]["stages"]["six-stage"]["stage"] == "loyalty"

        await ticket(35, "rated", rating=5, scale=5)(tools)
        segments = (await tools.ask("GET", f"/v1/customers/{WHO}"))["segments"]
        assert "unhappy-now" not in {segment["key"] for segment in segments}


@pytest.mark.parametrize("seed", range(4))
async def test_events_in_any_order_build_the_same_customer(
    seed: int, settings: Settings, databases: TestDatabases
) -> None:
    async def send_and_read(steps: list[Send], url: str) -> dict[str, Any]:
        async with running_webhook_sender(settings.model_copy(update={"database_url": url})) as tools:
            await _prepare(tools)
            for step in steps:
                await step(tools)
            return await _read_customer(tools)

    shuffled = story()
    random.Random(seed).shuffle(shuffled)
    assert settings.database_url is not None
    async with another_database(databases) as another:
        assert await send_and_read(shuffled, another) == await send_and_read(story(), settings.database_url)
