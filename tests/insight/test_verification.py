"""Verification of segments: it reports no differences for intact data, and finds corrupted data."""

from __future__ import annotations

import random
from typing import Any

import pytest

from app.config import Settings
from app.formats.timestamps import rfc3339
from app.postgres.pool import FrozenClock
from app.touchpoint import DAY, HOUR
from tests.queries.test_valid_until import SEGMENTS, STAGES, a_life
from tests.support.running_app import NOON, RunningApp, run_worker, running_app, track


async def verify(service: RunningApp, key: str, body: Any = None, expected: int = 200) -> Any:
    return await service.tell("POST", f"/v1/segments/{key}/verify", body, expected)


@pytest.mark.parametrize("seed", [1, 2])
async def test_intact_data_has_no_differences(settings: Settings, clock: FrozenClock, seed: int) -> None:
    """Verify before and after the backfill, with customers that are due, and with future and late messages."""
    rng = random.Random(seed)
    async with running_app(settings, clock) as service:
        for n in range(6):
            for message in a_life(rng, f"user-{n}"):
                await service.send(message)
        stages = [{"key": key, "rule": rule} for key, rule in STAGES.items()]
        await service.tell("POST", "/v1/journeys", {"key": "trip", "stages": stages}, 201)
        for key, rule in SEGMENTS.items():
            await service.tell("POST", "/v1/segments", {"key": key, "rule": rule}, 201)

        async def compare() -> set[int]:
            stored = set()
            for key in SEGMENTS:
                result = await verify(service, key)
                assert (result["customers"], result["differing"], result["differences"]) == (6, 0, []), result
                assert result["members"] == (await service.ask(f"/v1/segments/{key}/count"))["count"]
                assert result["as_of"] == rfc3339(clock.instant)
                stored.add(result["stored"])
            return stored

        await compare()
        await run_worker(service)
        assert await compare() == {6}
        clock.instant += 2 * HOUR
        await compare()
        for message in a_life(rng, "user-9"):
            await service.send({**message, "userId": "user-1"})
        await compare()
        clock.instant += 2 * DAY
        await compare()


async def send_purchases(service: RunningApp, customers: int) -> None:
    await service.send(
        *[track("Order Completed", f"user-{n}", timestamp=rfc3339(NOON - n * HOUR)) for n in range(customers)]
    )
    await service.tell("POST", "/v1/segments", {"key": "s", "rule": {"did": "Order Completed", "within": "20d"}}, 201)
    await run_worker(service)
    assert (await verify(service, "s"))["stored"] >= customers


CORRUPTIONS = [
    "UPDATE transitions SET entered_at = entered_at - interval '1 second' WHERE customer_id = $1 AND definition = $2",
    "UPDATE transitions SET left_at = entered_at + interval '1 second', left_cause = entered_cause"
    " WHERE customer_id = $1 AND definition = $2",
    "UPDATE transitions SET retracted_at = now() WHERE customer_id = $1 AND definition = $2",
    "DELETE FROM transitions WHERE customer_id = $1 AND definition = $2",
]


@pytest.mark.parametrize("statement", CORRUPTIONS)
async def test_corrupted_interval_is_found(settings: Settings, clock: FrozenClock, statement: str) -> None:
    async with running_app(settings, clock) as service:
        await send_purchases(service, 30)
        pool = service.app.state.services.pool
        for corrupted in (1, 2):
            id = await pool.fetchval("SELECT id FROM customers ORDER BY id OFFSET $1 LIMIT 1", corrupted)
            await pool.execute(statement, id, "segment:s")
            result = await verify(service, "s")
            assert (result["customers"], result["differing"]) == (30, corrupted)
            assert len(result["differences"]) == corrupted
            assert id.hex() in [difference["customer"].replace("-", "") for difference in result["differences"]]
            assert all(
                difference["stored"]["stays"] != difference["recomputed"]["stays"]
                for difference in result["differences"]
            )


async def test_corrupted_state_is_found(settings: Settings, clock: FrozenClock) -> None:
    """The state of one customer, who bought, is replaced by the state of another, who did not."""
    async with running_app(settings, clock) as service:
        await service.send(track("Product Viewed", "nobody"))
        await send_purchases(service, 5)
        pool = service.app.state.services.pool
        await pool.execute(
            """
            UPDATE customers SET state = (
                SELECT c.state FROM customers c JOIN identities i ON i.customer_id = c.id WHERE i.value = 'nobody'
            ) WHERE id = (SELECT customer_id FROM identities WHERE value = 'user-3')
            """
        )
        result = await verify(service, "s")
        assert result["differing"] == 1
        (difference,) = result["differences"]
        assert (difference["stored"]["member"], difference["recomputed"]["member"]) == (False, True)
        assert difference["recomputed"]["since"] == rfc3339(NOON - 3 * HOUR)


async def test_at_most_twenty_differences_are_listed(settings: Settings, clock: FrozenClock) -> None:
    async with running_app(settings, clock) as service:
        await send_purchases(service, 25)
        await service.app.state.services.pool.execute("DELETE FROM transitions WHERE definition = 'segment:s'")
        result = await verify(service, "s")
        assert (result["differing"], len(result["differences"])) == (25, 20)


async def test_intervals_without_a_customer_are_found(settings: Settings, clock: FrozenClock) -> None:
    async with running_app(settings, clock) as service:
        await send_purchases(service, 5)
        pool = service.app.state.services.pool
        for id, left_at in ((b"\0" * 15 + b"\1", None), (b"\0" * 15 + b"\2", NOON - HOUR)):
            await pool.execute(
                """
                INSERT INTO transitions (customer_id, definition, value, version, meaning, entered_at, entered_cause,
                                         entered_recorded_at, left_at)
                SELECT $1, definition, value, version, meaning, $2, entered_cause, entered_recorded_at, $3
                FROM transitions WHERE definition = 'segment:s' LIMIT 1
                """,
                id,
                NOON - 2 * HOUR,
                left_at,
            )
        result = await verify(service, "s")
        assert (result["customers"], result["differing"]) == (5, 2)
        first, second = sorted(result["differences"], key=lambda difference: difference["customer"])
        since, left = rfc3339(NOON - 2 * HOUR), rfc3339(NOON - HOUR)
        assert first["customer"] == "00000000-0000-0000-0000-000000000001"
        assert first["stored"] == {"member": True, "since": since, "stays": [{"since": since, "left_at": None}]}
        assert second["stored"] == {"member": False, "since": left, "stays": [{"since": since, "left_at": left}]}
        assert all(
            not difference["recomputed"]["member"] and difference["recomputed"]["stays"] == []
            for difference in (first, second)
        )
        assert (await verify(service, "s", {"sample": 5}))["differing"] == 0
        await pool.execute("DELETE FROM customers")
        result = await verify(service, "s")
        assert (result["customers"], result["differing"], len(result["differences"])) == (0, 7, 7)


async def test_sample_has_the_requested_size_and_is_random(settings: Settings, clock: FrozenClock) -> None:
    async with running_app(settings, clock) as service:
        await send_purchases(service, 25)
        assert (await verify(service, "s", {"sample": 7}))["customers"] == 7
        assert (await verify(service, "s", {"sample": 700}))["customers"] == 25
        await service.app.state.services.pool.execute("DELETE FROM transitions WHERE definition = 'segment:s'")
        customers = set()
        for _ in range(12):
            (difference,) = (await verify(service, "s", {"sample": 1}))["differences"]
            customers.add(difference["customer"])
        assert len(customers) > 2


async def test_invalid_requests_are_refused(service: RunningApp) -> None:
    assert (await verify(service, "none", expected=404))["code"] == "not_found"
    assert (await verify(service, "engaged"))["customers"] == 0
    body: Any
    for body in ({"sample": 0}, {"sample": "x"}, {"sampel": 1}, [], 7):
        assert (await verify(service, "engaged", body, 400))["code"] == "bad_request"
