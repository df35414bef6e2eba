"""Reads of one customer agree with each other, and every ``valid_until`` is exact to the microsecond.

No worker runs in these tests, so the reads compute every answer.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from app.config import Settings
from app.formats.timestamps import parse, rfc3339
from app.postgres.pool import FrozenClock
from app.touchpoint import HOUR
from tests.support.running_app import NOON, RunningApp, running_app

CUSTOMERS = [f"user-{n}" for n in range(4)]
SEGMENTS = {
    "within": {"did": "a", "at_least": 2, "within": "6h"},
    "exactly": {"did": ["a", "b"], "exactly": 1, "within": "3h"},
    "before": {"did": "a", "before": "5h", "at_most": 1},
    "band": {"did": "*", "within": "10h", "before": "2h", "between": [1, 2]},
    "nested": {"all": [{"segment": "within"}, {"not": {"segment": "exactly"}}]},
    "twice-nested": {"any": [{"all": [{"segment": "nested"}, {"segment": "before"}]}, {"not": {"segment": "band"}}]},
    "staged": {"stage": ["second", "third"], "journey": "trip"},
    "dated": {"did": "a", "from": "2026-01-01", "to": "2026-01-02"},
    "trait": {"all": [{"not": {"trait": "plan", "in": ["pro", "team"]}}, {"did": "b", "within": "4h"}]},
}
STAGES = {
    "first": {"did": "*", "within": "8h"},
    "second": {"any": [{"did": "a", "within": "5h"}, {"trait": "plan", "eq": "pro"}]},
    "third": {"did": "b", "at_least": 2, "within": "7h", "before": "1h"},
}
TRAITS = [{"plan": "pro"}, {"plan": None}, {"plan": "team"}, {"timezone": "Asia/Tokyo"}, {"timezone": "Nowhere"}]


def a_life(rng: random.Random, user: str) -> list[dict[str, Any]]:
    """Draw messages of one day. Some are in the future, and many are at one instant or exactly one window later."""
    messages: list[dict[str, Any]] = []
    for n in range(rng.randint(1, 7)):
        at = NOON + rng.choice([rng.randint(-14 * HOUR, 10 * HOUR), rng.randint(-14, 10) * HOUR])
        message = {"userId": user, "messageId": f"{user}-{n}", "timestamp": rfc3339(at)}
        if rng.random() < 0.3:
            messages.append({**message, "type": "identify", "traits": rng.choice(TRAITS)})
        else:
            messages.append({**message, "type": "track", "event": rng.choice("abc")})
    return messages


class CustomerReader:
    """Reads one customer at chosen instants."""

    def __init__(self, service: RunningApp, clock: FrozenClock, user: str) -> None:
        self.service, self.clock, self.path = service, clock, f"/v1/customers/{user}"

    async def at(self, instant: int, path: str = "") -> Any:
        self.clock.instant = instant
        return await self.service.ask(self.path + path)

    async def segments(self, instant: int) -> dict[str, Any]:
        return {segment["key"]: segment for segment in (await self.at(instant))["segments"]}

    async def stage(self, instant: int) -> Any:
        return (await self.at(instant))["stages"]["trip"]["stage"]


@pytest.mark.parametrize("seed", [1, 2])
async def test_reads_agree_and_valid_until_is_exact(settings: Settings, seed: int) -> None:
    rng = random.Random(seed)
    clock = FrozenClock(NOON)
    async with running_app(settings, clock) as service:
        stages = [{"key": key, "rule": rule} for key, rule in STAGES.items()]
        await service.tell("POST", "/v1/journeys", {"key": "trip", "stages": stages}, 201)
        for key, rule in SEGMENTS.items():
            await service.tell("POST", "/v1/segments", {"key": key, "rule": rule}, 201)
        for user in CUSTOMERS:
            for message in a_life(rng, user):
                await service.send(message)
        for now in (NOON, NOON + 5 * HOUR):
            for user in CUSTOMERS:
                reader = CustomerReader(service, clock, user)
                for key in SEGMENTS:
                    await check_segment(reader, key, now, rng)
                await check_stage(reader, now, rng)
            await check_lists_and_counts(service, clock, now)


async def check_segment(reader: CustomerReader, key: str, now: int, rng: random.Random) -> None:
    member = (await reader.segments(now)).get(key)
    explanation = await reader.at(now, f"/segments/{key}/explain")
    tree = explanation["explanation"]
    context = (reader.path, key, rfc3339(now), explanation)
    assert explanation["member"] is tree["truth"] is (member is not None), context
    assert explanation["valid_until"] == tree["valid_until"], context
    if member is not None:
        assert (member["since"], member["valid_until"]) == (explanation["since"], explanation["valid_until"]), context
    for instant in sample_instants(now, explanation["valid_until"], rng):
        assert (key in await reader.segments(instant)) is explanation["member"], (*context, rfc3339(instant))
    if (end := parse(explanation["valid_until"] or "")) is not None:
        assert (key in await reader.segments(end)) is not explanation["member"], context


async def check_stage(reader: CustomerReader, now: int, rng: random.Random) -> None:
    place = (await reader.at(now))["stages"]["trip"]
    explanation = await reader.at(now, "/journeys/trip/explain")
    context = (reader.path, rfc3339(now), place, explanation)
    assert [explanation[name] for name in ("stage", "since", "valid_until")] == [
        place[name] for name in ("stage", "since", "valid_until")
    ], context
    history = (await reader.at(now, "/journey?journey=trip"))["items"]
    current = [interval["stage"] for interval in history if interval["left_at"] is None]
    assert current == ([place["stage"]] if place["stage"] else []), context
    for instant in sample_instants(now, place["valid_until"], rng):
        assert await reader.stage(instant) == place["stage"], (*context, rfc3339(instant))
    if (end := parse(place["valid_until"] or "")) is not None:
        assert await reader.stage(end) != place["stage"], context


def sample_instants(now: int, valid_until: str | None, rng: random.Random) -> list[int]:
    end = parse(valid_until or "")
    last = now + 40 * HOUR if end is None else end - 1
    return [rng.randint(now, last), last]


async def check_lists_and_counts(service: RunningApp, clock: FrozenClock, now: int) -> None:
    clock.instant = now
    customers = [await service.ask(f"/v1/customers/{user}") for user in CUSTOMERS]
    for key in SEGMENTS:
        members = await service.all_of(f"/v1/segments/{key}/members", limit=2)
        expected = [
            customer["id"] for customer in customers if key in {segment["key"] for segment in customer["segments"]}
        ]
        assert [member["id"] for member in members] == sorted(expected), key
        assert (await service.ask(f"/v1/segments/{key}/count"))["count"] == len(expected), key
