"""Data quality routes: tracking plan, anomalies, health of sources, trait coverage."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg
import pytest

from app.config import Settings
from app.formats.timestamps import rfc3339
from app.ingest.source_stats import KEEP_DAYS, NAMES_MAX, OTHER
from app.postgres.pool import FrozenClock
from app.touchpoint import DAY, HOUR, WEEK
from tests.support.running_app import NOON, RunningApp, track

ORDER = {
    "type": "object",
    "required": ["total"],
    "properties": {"total": {"type": "number", "minimum": 0}, "note": {"type": "string"}},
}
PLAN = "/v1/tracking-plan"
Start = Callable[..., AbstractAsyncContextManager[RunningApp]]


async def plan(service: RunningApp, event: str, mode: str = "warn", schema: Any = None, source: str = "") -> Any:
    query = f"?source={source}" if source else ""
    body = {"mode": mode, "schema": ORDER if schema is None else schema}
    return await service.tell("PUT", f"{PLAN}/{event}{query}", body)


async def violations(service: RunningApp, **params: Any) -> list[Any]:
    return (await service.ask(f"{PLAN}/violations", params=params))["items"]


async def test_warn_mode_stores_the_message_and_warns(service: RunningApp) -> None:
    entry = await plan(service, "Order Completed")
    assert entry == {
        "source": None,
        "event": "Order Completed",
        "mode": "warn",
        "schema": ORDER,
        "updated_at": entry["updated_at"],
    }
    good = track("Order Completed", properties={"total": 5}, messageId="m-1")
    bad = track("Order Completed", properties={"total": -5}, messageId="m-2")
    receipt = await service.send(good, bad, track("Order Cancelled", messageId="m-3"))
    assert receipt["warnings"] == [
        {
            "index": 1,
            "messageId": "m-2",
            "code": "tracking_plan",
            "message": "properties.total: the value is less than the minimum of 0",
        }
    ]
    (violated,) = await violations(service)
    assert violated.pop("first_at") == violated.pop("last_at")
    assert violated == {
        "source": "default",
        "event": "Order Completed",
        "reason": "/properties/total/minimum",
        "messages": 1,
        "sample": {"total": -5},
    }
    # A retry is warned about again but not counted again. A new message is counted.
    receipt = await service.send(bad, expected=0)
    assert receipt["duplicate"] == 1
    assert len(receipt["warnings"]) == 1
    await service.send({**bad, "messageId": "m-4"})
    assert [item["messages"] for item in await violations(service)] == [2]


async def test_refused_statistics_do_not_block_other_statistics(
    service: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.tracking_plan.event_schema._REASON_CHARS_MAX", 100_000)
    unlike = "".join(f"{n:x}" for n in range(9_000))  # too random to be compressed into an index row
    await plan(service, "Order Completed", schema={"required": [unlike]})
    await service.send(track("Order Completed"))
    await service.app.state.services.ingest.source_stats.flush()
    rows = await service.app.state.services.pool.fetch("SELECT name FROM source_volumes")
    assert [row["name"] for row in rows] == ["Order Completed"]
    assert await violations(service) == []


async def test_health_waits_for_a_flush_that_is_still_writing(service: RunningApp) -> None:
    await service.send(track("Looked"))
    services = service.app.state.services
    async with services.pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE source_volumes IN EXCLUSIVE MODE")
        periodic_flush = asyncio.create_task(services.ingest.source_stats.flush())
        await asyncio.sleep(0)
        health = asyncio.create_task(service.ask("/v1/sources/default/health"))
        answered, _ = await asyncio.wait({health}, timeout=0.3)
        assert not answered
    await periodic_flush
    assert (await health)["counts"]["accepted"] == 1


async def test_segment_usage_waits_for_a_flush_that_is_still_writing(service: RunningApp) -> None:
    services = service.app.state.services
    services.segment_usage.count_read("new-visitors")
    async with services.pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE segment_reads IN EXCLUSIVE MODE")
        periodic_flush = asyncio.create_task(services.segment_usage.flush())
        await asyncio.sleep(0)
        second_flush = asyncio.create_task(services.segment_usage.flush())
        finished, _ = await asyncio.wait({second_flush}, timeout=0.3)
        assert not finished
    await asyncio.gather(periodic_flush, second_flush)
    assert await services.pool.fetchval("SELECT reads FROM segment_reads WHERE key = 'new-visitors'") == 1


async def test_failing_statistics_do_not_affect_receipts(service: RunningApp, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a fault of the tally")

    for name in ("count_accepted", "count_duplicates", "count_rejected"):
        monkeypatch.setattr(service.app.state.services.ingest.source_stats, name, fail)
    await service.send(track("Looked", messageId="m-1"))
    assert (await service.send(track("Looked", messageId="m-1"), expected=0))["duplicate"] == 1
    assert len((await service.ask("/v1/customers/user-1/touchpoints"))["items"]) == 1


async def test_quarantined_message_is_stored_after_the_plan_is_corrected(service: RunningApp) -> None:
    await plan(service, "Order Completed", "quarantine")
    body = {
        "sentAt": "2026-01-01T00:00:10Z",
        "context": {"traits": {"email": "user@example.com"}, "private": {"body": "I am ill"}},
        "batch": [
            track("Order Completed", properties={"total": "5"}, messageId="m-1", timestamp="2026-01-01T00:00:00Z"),
            track("Product Added", messageId="m-2"),
        ],
        "writeKey": service.keys.write_key,
    }
    response = await service.client.post("/v1/batch", json=body)
    receipt = response.json()
    assert (receipt["accepted"], receipt["rejected"]) == (1, 1)
    assert receipt["rejections"][0]["code"] == "tracking_plan"
    (violated,) = await violations(service)
    assert violated["sample"] == {"total": "5"}
    (quarantined,) = (await service.ask("/v1/quarantine"))["items"]
    assert quarantined["code"] == "tracking_plan"
    again = await service.tell("POST", f"/v1/quarantine/{quarantined['id']}/replay")
    assert again["rejections"][0]["code"] == "tracking_plan"
    await plan(service, "Order Completed", "quarantine", {"type": "object", "required": ["total"]})
    assert (await service.tell("POST", f"/v1/quarantine/{quarantined['id']}/replay"))["accepted"] == 1
    # A replay still uses sentAt and the identity from the envelope of the original message.
    answer = await service.ask("/v1/customers/email:user@example.com/touchpoints")
    order = next(item for item in answer["items"] if item["name"] == "Order Completed")
    received_at = next(item for item in answer["items"] if item["name"] == "Product Added")["received_at"]
    assert order["received_at"] == received_at
    assert order["occurred_at"] != "2026-01-01T00:00:00.000000Z"


async def test_plan_entry_of_a_source_overrides_the_general_one(service: RunningApp) -> None:
    await plan(service, "Order Completed", "quarantine")
    await plan(service, "Order Completed", "off", source="default")
    await service.send(track("Order Completed"))
    created = await service.tell("POST", "/v1/sources", {"key": "shop"}, 201)
    response = await service.client.post(
        "/v1/track", json={**track("Order Completed"), "writeKey": created["write_key"]}
    )
    assert response.json()["rejected"] == 1
    await service.tell("PUT", f"{PLAN}/x?source=none", {"schema": {}}, 404)
    listed = (await service.ask(PLAN))["items"]
    assert [(item["source"], item["mode"]) for item in listed] == [(None, "quarantine"), ("default", "off")]
    response = await service.client.delete(f"{PLAN}/Order%20Completed?source=default", headers=service.secret)
    assert response.status_code == 204
    await service.send(track("Order Completed"), expected=0)
    response = await service.client.delete(f"{PLAN}/Order%20Completed?source=default", headers=service.secret)
    assert response.status_code == 404


async def test_plan_accepts_page_views_and_unusual_event_names(service: RunningApp) -> None:
    await plan(service, "page_viewed", schema={"required": ["path"]})
    await plan(service, "checkout%2Fstep%201", schema={"required": ["step"]})
    receipt = await service.send(
        {"type": "page", "userId": "u", "messageId": "m-1"}, track("checkout/step 1", messageId="m-2")
    )
    assert [item["messageId"] for item in receipt["warnings"]] == ["m-1", "m-2"]
    for name in ("%00", "x" * 201):
        response = await service.client.put(f"{PLAN}/{name}", json={"schema": {}}, headers=service.secret)
        assert response.status_code == 400, response.text


async def test_invalid_schema_is_refused_with_its_path(service: RunningApp) -> None:
    for schema, path in (
        ({"properties": {"a": {"type": "text"}}}, "/schema/properties/a/type"),
        ({"$ref": "http://localhost:1/x"}, "/schema/$ref"),
        ({"properties": {"a": {"pattern": "(?=a)b"}}}, "/schema/properties/a/pattern"),
    ):
        refused = await service.tell("PUT", f"{PLAN}/e", {"schema": schema}, 422)
        assert (refused["code"], refused["path"]) == ("invalid_definition", path)
    body: Any
    for body in ({}, {"schema": []}, {"schema": {}, "mode": "on"}, {"schema": {}, "x": 1}, 7):
        assert (await service.tell("PUT", f"{PLAN}/e", body, 400))["code"] == "bad_request"
    assert (await service.ask(PLAN))["items"] == []


async def test_plan_changes_reach_other_processes_within_a_second(settings: Settings, start: Start) -> None:
    async with start(settings) as one, start(settings) as other:
        await plan(one, "Order Completed", "quarantine")
        for _ in range(20):
            await asyncio.sleep(0.1)
            message = {**track("Order Completed"), "writeKey": one.keys.write_key}
            if (await other.client.post("/v1/track", json=message)).json()["rejected"]:
                break
        else:
            raise AssertionError("the other process has not followed")


async def test_invented_event_names_do_not_fill_the_statistics(service: RunningApp) -> None:
    names = [track(f"e-{n}") for n in range(2_400)]
    await service.send(*names)
    await service.send(*[track(f"f-{n}") for n in range(500)])
    await service.app.state.services.ingest.source_stats.flush()
    rows = await service.app.state.services.pool.fetch("SELECT name, messages FROM source_volumes")
    assert len(rows) == NAMES_MAX + 1
    assert {row["name"]: row["messages"] for row in rows}[OTHER] == 2_900 - NAMES_MAX
    result = (await service.ask("/v1/data-quality/anomalies"))["items"]
    assert [(item["kind"], item["messages"]) for item in result] == [
        ("new_source", 2_900),
        ("too_many_names", 2_900 - NAMES_MAX),
    ]


async def fill(service: RunningApp, rows: list[tuple[str, int, str, str, int]]) -> None:
    await service.app.state.services.pool.executemany(
        "INSERT INTO source_volumes (source, hour, channel, name, messages) VALUES ($1, $2, $3, $4, $5)", rows
    )


async def test_anomalies_have_start_and_end(settings: Settings, start: Start) -> None:
    clock = FrozenClock(NOON + HOUR - 1)
    async with start(settings, clock) as service:
        weeks = [("shop", NOON - k * WEEK + h * HOUR, "web", "Order Completed", 30) for k in (1, 2) for h in (-1, 0)]
        await fill(service, [*weeks, ("shop", NOON - HOUR, "web", "Order Completed", 30)])
        assert (await service.ask("/v1/data-quality/anomalies"))["items"] == []
        clock.instant += 1
        (result,) = (await service.ask("/v1/data-quality/anomalies"))["items"]
        assert (result["kind"], result["source"], result["event"]) == ("silence", "shop", None)
        assert (result["since"], result["until"], result["expected"]) == ("2026-01-01T12:00:00.000000Z", None, 30.0)
        await service.send(track("Refund Asked", context={"channel": "chat"}))
        await fill(service, [("default", NOON - 9 * DAY, "server", "Order Completed", 1)])
        kinds = {(item["kind"], item["event"] or item["channel"]) for item in
                 (await service.ask("/v1/data-quality/anomalies?source=default"))["items"]}  # fmt: skip
        assert kinds == {("new_event", "Refund Asked"), ("new_channel", "chat")}
        await service.ask("/v1/data-quality/anomalies?hours=0", 422)
        await service.ask("/v1/data-quality/anomalies?source=%00", 422)


async def test_source_health_counts_the_last_24_hours(settings: Settings, start: Start) -> None:
    clock = FrozenClock(NOON)
    async with start(settings, clock) as service:
        await service.ask("/v1/sources/none/health", 404)
        assert (await service.ask("/v1/sources/default/health"))["last_seen_at"] is None
        clock.instant += HOUR
        message = track("Order Completed", messageId="m-1")
        await service.send(message)
        await service.send(
            message,
            track("", messageId="m-2"),
            track("x", messageId="m-3", context={"traits": {"email": "nobody"}}),
            expected=1,
        )
        service.app.state.services.ingest.source_stats.count_refused("default", "stale")
        service.app.state.services.ingest.source_stats.count_ignored("default", 3)
        health = await service.ask("/v1/sources/default/health")
        assert health["counts"] == {
            "accepted": 2, "duplicate": 1, "rejected": 1, "ignored": 3, "refused": 1, "warned": 1,
        }  # fmt: skip
        assert health["rejected"] == {"missing_event": 1}
        assert health["refused"] == {"stale": 1}
        assert health["warned"] == {"email_unusable:no_at": 1}
        assert health["last_seen_at"] == "2026-01-01T13:00:00.000000Z"
        assert health["quarantined"] == 1
        assert [item["messages"] for item in health["hours"]] == [0] * 23 + [2]
        assert health["per_hour"] == round(2 / 24, 2)
        # A refused webhook may come from a stranger, so it does not update the time of the last message.
        clock.instant += HOUR
        service.app.state.services.ingest.source_stats.count_refused("default", "wrong")
        assert (await service.ask("/v1/sources/default/health"))["last_seen_at"] == "2026-01-01T13:00:00.000000Z"
        text = (await service.client.get("/metrics")).text
        assert 'segue_source_outcomes_total{outcome="refused",source="default"} 2.0' in text
        assert 'segue_contacts_unusable_total{kind="email",reason="no_at"} 1.0' in text


async def test_warning_explains_why_an_address_is_unusable(service: RunningApp) -> None:
    receipt = await service.send(
        {
            "type": "identify",
            "userId": "u",
            "messageId": "m-1",
            "traits": {"email": "a b@example.com", "phone": "020 7946 0958"},
        },
        {"type": "identify", "userId": "u", "messageId": "m-2", "traits": {"email": "null", "phone": None}},
        {"type": "identify", "messageId": "m-3", "traits": {"email": "nobody"}},
        expected=2,
    )
    assert [(item["messageId"], item["code"]) for item in receipt["warnings"]] == [
        ("m-1", "email_unusable"),
        ("m-1", "phone_unusable"),
    ]
    assert receipt["warnings"][1]["message"].endswith("send it with + and the code, or set SEGUE_PHONE_COUNTRY")
    (rejection,) = receipt["rejections"]
    assert rejection["code"] == "missing_identity"
    assert rejection["message"].endswith("; the email address is unusable: it has no @")


async def test_trait_coverage_counts_customers(service: RunningApp) -> None:
    def identify(user: str, **traits: Any) -> dict[str, Any]:
        return {"type": "identify", "userId": user, "traits": traits}

    assert (await service.ask("/v1/data-quality/trait-coverage"))["items"] == []
    await service.send(
        identify("u-1", plan="pro", city="", age=3),
        identify("u-2", plan="free", tags=[]),
        identify("u-3", plan="free", city="Ghent"),
        track("Order Completed", "u-4"),
        {**identify("u-4", later=1), "timestamp": "2999-01-01T00:00:00Z"},
    )
    # A trait that was set slightly in the future is not counted yet. A removed trait is no longer counted.
    in_an_hour = service.clock.now() + HOUR
    await service.send({**identify("u-4", soon=1), "timestamp": rfc3339(in_an_hour)}, identify("u-1", age=None))
    await service.app.state.services.pool.execute(
        "UPDATE customers SET stale = true WHERE id IN (SELECT customer_id FROM identities WHERE value = 'u-3')"
    )
    result = await service.ask("/v1/data-quality/trait-coverage")
    assert result["customers"] == 4
    assert result["items"] == [
        {"trait": "plan", "customers": 3, "share": 0.75, "empty": 0},
        {"trait": "city", "customers": 2, "share": 0.5, "empty": 1},
        {"trait": "later", "customers": 1, "share": 0.25, "empty": 0},
        {"trait": "tags", "customers": 1, "share": 0.25, "empty": 1},
    ]
    assert result["traits_total"] == 4
    assert len((await service.ask("/v1/data-quality/trait-coverage?limit=1"))["items"]) == 1


async def test_statistics_survive_a_database_outage(service: RunningApp) -> None:
    """Each count is added to the database exactly once."""
    tally = service.app.state.services.ingest.source_stats
    pool = service.app.state.services.pool
    await plan(service, "e", schema={"required": ["total"]})
    await service.send(track("e", messageId="m-1"))
    await pool.execute("ALTER TABLE plan_violations RENAME TO away")
    with pytest.raises(asyncpg.UndefinedTableError):
        await tally.flush()
    await service.send(track("e", messageId="m-2"))
    await pool.execute("ALTER TABLE away RENAME TO plan_violations")
    await tally.flush()
    await service.send(track("e", messageId="m-3"))
    await tally.flush()
    assert await pool.fetchval("SELECT sum(messages) FROM source_volumes WHERE name = 'e'") == 3
    assert await pool.fetchval("SELECT sum(times) FROM source_outcomes WHERE outcome = 'accepted'") == 3
    assert [item["messages"] for item in await violations(service)] == [3]


async def test_statistics_are_flushed_on_shutdown(settings: Settings, start: Start) -> None:
    async with start(settings) as service:
        await service.send(track("e"))
    async with start(settings) as service:
        assert await service.app.state.services.pool.fetchval("SELECT messages FROM source_volumes") == 1


async def test_old_statistics_are_deleted(settings: Settings, start: Start) -> None:
    clock = FrozenClock(NOON)
    async with start(settings, clock) as service:
        await fill(service, [("default", NOON - KEEP_DAYS * DAY - age, "web", "x", 1) for age in (0, HOUR)])
        await service.app.state.services.ingest.source_stats.delete_expired()
        assert await service.app.state.services.pool.fetchval("SELECT count(*) FROM source_volumes") == 1
