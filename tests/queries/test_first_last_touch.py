"""First touch, last touch and rules over acquisition through the API, in any order of arrival."""

from __future__ import annotations

import random
from typing import Any

import pytest

from app.config import Settings
from app.formats.timestamps import rfc3339
from app.postgres.pool import FrozenClock
from app.touchpoint import DAY, HOUR
from tests.support.running_app import NOON, RunningApp, running_app

SHOP = "https://shop.example.com/"
VISITS = [
    # days ago, page, referrer
    (9, SHOP, ""),
    (8, SHOP, "https://www.google.com/"),
    (8, f"{SHOP}products", SHOP),
    (6, f"{SHOP}?utm_source=newsletter&utm_medium=email&utm_campaign=May", ""),
    (5, f"{SHOP}?utm_source=facebook&utm_medium=cpc&utm_campaign=Summer&fbclid=1", "https://l.facebook.com/"),
    (2, SHOP, ""),
]


def visits(user: str = "user-1") -> list[dict[str, Any]]:
    return [
        {
            "type": "page",
            "messageId": f"{user}-{number}",
            "userId": user,
            "timestamp": rfc3339(NOON - days * DAY + number * HOUR),
            "context": {"library": {"name": "segue.js"}, "page": {"url": url, "referrer": referrer}},
        }
        for number, (days, url, referrer) in enumerate(VISITS)
    ]


async def traits(service: RunningApp, user: str = "user-1", **params: Any) -> dict[str, Any]:
    values: dict[str, Any] = (await service.ask(f"/v1/customers/{user}", params=params or None))["traits"]
    return values


@pytest.mark.parametrize("seed", range(4))
async def test_touches_are_independent_of_arrival_order(settings: Settings, clock: FrozenClock, seed: int) -> None:
    async with running_app(settings, clock) as service:
        messages = visits()
        if seed:
            random.Random(seed).shuffle(messages)
        for visit in messages if seed % 2 else [messages]:
            await service.send(*(visit if isinstance(visit, list) else [visit]))
        assert await traits(service) == {"first_touch": "Direct", "last_touch": "Paid Social"}
        past = rfc3339(NOON - 5 * DAY)
        assert await traits(service, as_of=past) == {"first_touch": "Direct", "last_touch": "Email"}
        explanation = await service.ask("/v1/customers/user-1/traits/last_touch/explain")
        assert explanation["value"] == "Paid Social"
        channels = [
            touchpoint["channel"] for touchpoint in (await service.ask("/v1/customers/user-1/touchpoints"))["items"]
        ]
        assert channels == ["web", "ads", "email", "web", "search", "web"]


async def test_late_visit_becomes_the_first_touch(settings: Settings, clock: FrozenClock) -> None:
    async with running_app(settings, clock) as service:
        first, *rest = visits()
        await service.send(*rest)
        assert (await traits(service))["first_touch"] == "Organic Search"
        await service.send(first)
        assert (await traits(service))["first_touch"] == "Direct"


async def test_touches_of_merged_identities_are_joined(settings: Settings, clock: FrozenClock) -> None:
    async with running_app(settings, clock) as service:
        for visit in visits():
            visit["anonymousId"] = visit.pop("userId")
            await service.send(visit)
        await service.send(
            {"type": "identify", "userId": "user-2", "anonymousId": "user-1", "timestamp": rfc3339(NOON - DAY)}
        )
        assert await traits(service, "user-2") == {"first_touch": "Direct", "last_touch": "Paid Social"}


async def test_rules_read_acquisition(settings: Settings, clock: FrozenClock) -> None:
    async with running_app(settings, clock) as service:
        await service.send(*visits())
        rule: dict[str, Any] = {
            "did": "page_viewed",
            "where": {"context.acquisition.group": "Paid Social"},
            "within": "30d",
        }
        await service.tell("POST", "/v1/segments", {"key": "from-ads", "rule": rule}, 201)
        explanation = await service.ask("/v1/customers/user-1/segments/from-ads/explain")
        assert explanation["member"] is True
        assert explanation["explanation"]["touchpoints"] == ["user-1-4"]
        for where, count in (
            ({"context.acquisition.campaign": "Summer"}, 1),
            ({"context.acquisition.rule": {"starts_with": "referrer:search"}}, 1),
            ({"context.acquisition.click_id": "fbclid"}, 1),
            ({"context.acquisition.group": "SMS"}, 0),
        ):
            rule = {"did": "page_viewed", "where": where}
            assert (await service.tell("POST", "/v1/segments/preview", {"rule": rule}))["count"] == count, where
        for rule, count in (
            ({"trait": "last_touch", "eq": "Paid Social"}, 1),
            ({"did": "page_viewed", "channel": "ads"}, 1),
            ({"trait": "first_touch", "eq": "Paid Social"}, 0),
        ):
            assert (await service.tell("POST", "/v1/segments/preview", {"rule": rule}))["count"] == count, rule


async def test_computed_trait_of_the_last_campaign(settings: Settings, clock: FrozenClock) -> None:
    async with running_app(settings, clock) as service:
        await service.send(*visits())
        value = {"last_value": "context.acquisition.campaign", "of": "page_viewed"}
        await service.tell("POST", "/v1/traits", {"key": "last_touch_campaign", "value": value}, 201)
        assert (await traits(service))["last_touch_campaign"] == "Summer"
