"""Tests of previews of unsaved rules, and of dry runs of changes: counts, samples, estimates, limits, disconnects."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

import app.http.disconnects
import app.insight.rule_preview
import app.queries.explanations
from app.config import Settings
from app.errors import Overloaded
from app.formats.timestamps import rfc3339
from app.http.heavy_reads import HeavyReads
from app.insight.rule_preview import _estimate_total
from app.postgres.pool import FrozenClock
from app.touchpoint import HOUR
from tests.api.test_definitions import HOSTILE
from tests.support.running_app import NOON, RunningApp, running_app, track

RULES: dict[str, Any] = {
    "count": {"did": "a", "at_least": 2},
    "window": {"did": "a", "within": "3h"},
    "not": {"not": {"did": "b"}},
    "trait": {"trait": "plan", "eq": "pro"},
    "reads": {"all": [{"segment": "viewers"}, {"not": {"stage": "second", "journey": "trip"}}]},
    "everyone": {"everyone": True},
    "no customer": {"did": "never"},
}


async def send_customers(service: RunningApp, customers: int = 40) -> None:
    rng = random.Random(5)
    await service.tell("POST", "/v1/segments", {"key": "viewers", "rule": {"did": "b", "within": "12h"}}, 201)
    stages = [{"key": "first", "rule": {"did": "a"}}, {"key": "second", "rule": {"did": "b"}}]
    await service.tell("POST", "/v1/journeys", {"key": "trip", "stages": stages}, 201)
    messages: list[dict[str, Any]] = []
    for n in range(customers):
        user, at = f"user-{n}", rfc3339(NOON - 20 * HOUR)
        messages.append({"type": "identify", "userId": user, "timestamp": at, 
                         "traits": {"plan": rng.choice(["pro", "free"])}})  # fmt: skip
        for _ in range(rng.randint(0, 4)):
            messages.append(track(rng.choice("abc"), user, timestamp=rfc3339(NOON - rng.randint(-2, 15) * HOUR)))
    await service.send(*[{**message, "messageId": f"m-{n}"} for n, message in enumerate(messages)])


@pytest.fixture
async def populated_app(settings: Settings, clock: FrozenClock) -> AsyncIterator[RunningApp]:
    async with running_app(settings, clock) as service:
        await send_customers(service)
        yield service


async def preview(service: RunningApp, rule: Any, expected: int = 200, **options: Any) -> Any:
    return await service.tell("POST", "/v1/segments/preview", {"rule": rule, **options}, expected)


@pytest.mark.parametrize("name", RULES)
async def test_preview_count_equals_count_of_saved_segment(populated_app: RunningApp, name: str) -> None:
    result = await preview(populated_app, RULES[name], sample=100)
    past = rfc3339(NOON - 6 * HOUR)
    result_before = await preview(populated_app, RULES[name], sample=0, as_of=past)
    await populated_app.tell("POST", "/v1/segments", {"key": "saved", "rule": RULES[name]}, 201)
    members = {customer["id"]: customer for customer in await populated_app.all_of("/v1/segments/saved/members")}
    assert result["count"] == result["estimate"] == result["low"] == result["high"] == len(members)
    assert result["exact"] is True
    assert result["customers_scanned"] == result["customers_total"] == 40
    assert result["as_of"] == rfc3339(NOON)
    assert result["took_ms"] >= 0
    assert {customer["id"] for customer in result["sample"]} == members.keys()
    for customer in result["sample"]:
        member = members[customer["id"]]
        assert (customer["since"], customer["valid_until"]) == (member["since"], member["valid_until"])
        assert customer["identities"] == member["identities"]
        assert customer["explanation"]["truth"] is True
    saved_before = await populated_app.ask("/v1/segments/saved/count", params={"as_of": past})
    assert (result_before["count"], result_before["sample"]) == (saved_before["count"], [])


async def test_preview_sample_lists_touchpoints(populated_app: RunningApp) -> None:
    await populated_app.send(track("rare", "user-7", messageId="rare-7", timestamp=rfc3339(NOON - HOUR)))
    result = await preview(populated_app, {"any": [{"did": "rare"}, {"did": "never"}]})
    (customer,) = result["sample"]
    assert customer["identities"] == [{"kind": "user_id", "value": "user-7"}]
    rare, never = customer["explanation"]["nodes"]
    assert (rare["truth"], rare["counted"], rare["touchpoints"]) == (True, 1, ["rare-7"])
    assert (never["truth"], never["counted"], never["touchpoints"]) == (False, 0, [])


async def test_preview_and_dry_run_save_nothing(populated_app: RunningApp) -> None:
    before = await populated_app.ask("/v1/segments")
    await preview(populated_app, RULES["count"])
    await populated_app.tell("POST", "/v1/segments/viewers/dry-run", {"rule": RULES["count"]})
    assert await populated_app.ask("/v1/segments") == before


async def test_preview_estimates_from_part_of_customers(
    populated_app: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.insight.rule_preview, "_TIMED_CHUNK_CUSTOMERS", 10)
    # The deadline leaves time to explain the sample, but no time to count.
    monkeypatch.setattr(app.insight.rule_preview, "_deadline", lambda within_ms: lambda: within_ms < 100)
    result = await preview(populated_app, RULES["count"], within_ms=100, sample=100)
    assert (result["exact"], result["count"]) == (False, None)
    scanned, members = result["customers_scanned"], len(result["sample"])
    assert 1 <= scanned <= 10
    assert members <= result["low"] <= result["estimate"] <= result["high"] <= 40 - scanned + members
    samples = {
        tuple(
            customer["id"] for customer in (await preview(populated_app, {"everyone": True}, within_ms=100))["sample"]
        )
    }
    for _ in range(8):
        samples.add(
            tuple(
                customer["id"]
                for customer in (await preview(populated_app, {"everyone": True}, within_ms=100))["sample"]
            )
        )
    assert len(samples) > 1, "every preview started at the same customer"


async def test_preview_stops_explaining_at_deadline(populated_app: RunningApp, monkeypatch: pytest.MonkeyPatch) -> None:
    explained = 0

    async def explain(*question: Any) -> Any:
        nonlocal explained
        explained += 1
        return await app.queries.explanations.explain_rule(*question)

    monkeypatch.setattr(app.insight.rule_preview, "explain_rule", explain)
    monkeypatch.setattr(
        app.insight.rule_preview, "_deadline", lambda within_ms: lambda: explained == 2 or within_ms < 100
    )
    result = await preview(populated_app, {"everyone": True}, within_ms=100, sample=10)
    assert (len(result["sample"]), result["estimate"]) == (2, 40)
    result = await preview(populated_app, {"everyone": True}, within_ms=100, sample=10)
    assert (len(result["sample"]), result["estimate"], explained) == (0, 40, 2)


async def test_preview_with_enough_time_is_exact(populated_app: RunningApp) -> None:
    result = await preview(populated_app, RULES["count"], within_ms=60_000)
    assert result["exact"] is True
    assert result["count"] == (await preview(populated_app, RULES["count"]))["count"]


def test_estimate_interval_has_95_percent_coverage() -> None:
    """About 95 % of the intervals contain the true count. If all customers were scanned, the count is exact."""
    rng = random.Random(3)
    total = 20_000
    for share in (0.003, 0.05, 0.5, 0.98):
        members = round(share * total)
        base = [True] * members + [False] * (total - members)
        hits = 0
        for _ in range(400):
            count = sum(rng.sample(base, 500))
            estimate, low, high = _estimate_total(count, 500, total)
            assert low <= estimate <= high
            hits += low <= members <= high
        assert 0.91 <= hits / 400 <= 0.995, share
    assert _estimate_total(7, 9, 9) == (7, 7, 7)
    assert _estimate_total(0, 0, 0) == (0, 0, 0)
    assert _estimate_total(10, 10, 11)[1:] == (10, 11)


async def test_preview_without_customers(service: RunningApp) -> None:
    result = await preview(service, {"everyone": True}, within_ms=5)
    assert (result["count"], result["exact"], result["customers_total"]) == (0, True, 0)


INVALID_RULES: list[tuple[Any, str]] = [
    ({"segment": "none"}, "/rule/segment"),
    ({"stage": "none"}, "/rule/stage"),
    ({"segment": "(unsaved)"}, "/rule/segment"),
    ({"did": "e", "within": "1000000d"}, "/rule/within"),
    ({"all": [{"everyone": True}, {"did": "e\0"}]}, "/rule/all/1/did"),
    ({}, "/rule"),
    (None, "/rule"),
    (7, "/rule"),
]


@pytest.mark.parametrize(("rule", "path"), INVALID_RULES)
async def test_invalid_rule_is_refused_with_path_and_remedy(populated_app: RunningApp, rule: Any, path: str) -> None:
    for to in ("preview", "viewers/dry-run"):
        answer = await populated_app.tell("POST", f"/v1/segments/{to}", {"rule": rule}, 422)
        assert answer["code"] == "invalid_definition"
        assert answer["path"].startswith(path), answer
        assert answer["remedy"]
        assert "segment:(unsaved)" not in answer["message"]
        if rule == {"segment": "none"} and to == "preview":
            assert "the rule refers to the segment `none`, which does not exist" in answer["message"]


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
async def test_preview_refuses_hostile_body(service: RunningApp, body: bytes) -> None:
    for path in ("preview", "engaged/dry-run"):
        response = await service.client.post(f"/v1/segments/{path}", content=body, headers=service.secret)
        assert response.status_code in (400, 422), (path, response.text)


@pytest.mark.parametrize(
    "options",
    [{"sample": -1}, {"sample": 101}, {"sample": "x"}, {"within_ms": 0}, {"within_ms": 60_001}, {"as_of": "x"},
     {"as_of": rfc3339(NOON + 1)}, {"more": 1}],
)  # fmt: skip
async def test_preview_refuses_invalid_options(populated_app: RunningApp, options: dict[str, Any]) -> None:
    assert (await preview(populated_app, {"everyone": True}, 400, **options))["code"] == "bad_request"


async def test_heavy_reads_are_limited_to_two(populated_app: RunningApp) -> None:
    slots = populated_app.app.state.services.heavy_reads
    with slots.acquire_slot(), slots.acquire_slot():
        for method, path, body in (
            ("POST", "segments/preview", {"rule": {"everyone": True}}),
            ("POST", "segments/viewers/dry-run", {"rule": {"everyone": True}}),
            ("POST", "segments/viewers/verify", None),
            ("GET", "segment-health", None),
        ):
            response = await populated_app.client.request(
                method, f"/v1/{path}", json=body, headers=populated_app.secret
            )
            assert (response.status_code, response.json()["code"]) == (503, "overloaded"), path
            assert response.headers["retry-after"].isdigit()
    await asyncio.gather(*(preview(populated_app, {"everyone": True}) for _ in range(2)))
    reads = HeavyReads(runs_here=True, slots=1)
    with pytest.raises(ZeroDivisionError), reads.acquire_slot():
        raise ZeroDivisionError
    with reads.acquire_slot(), pytest.raises(Overloaded), reads.acquire_slot():
        pass


@pytest.mark.parametrize(
    ("method", "path", "slow", "body"),
    [
        ("POST", "segments/preview", "app.insight.rule_preview.scan_customers", b'{"rule":{"everyone":true}}'),
        ("POST", "segments/viewers/dry-run", "app.insight.rule_preview.scan_customers", b'{"rule":{"everyone":true}}'),
        ("POST", "segments/viewers/verify", "app.insight.verification.scan_customers", b""),
        ("GET", "segment-health", "app.insight.segment_health._read_member_sets", b""),
    ],
)
async def test_disconnect_cancels_scan_and_frees_resources(
    populated_app: RunningApp, monkeypatch: pytest.MonkeyPatch, method: str, path: str, slow: str, body: bytes
) -> None:
    scan_started, disconnected, scan_ended, statuses = asyncio.Event(), asyncio.Event(), asyncio.Event(), []

    async def wait_until_cancelled() -> None:
        scan_started.set()
        try:
            await asyncio.Event().wait()
        finally:
            scan_ended.set()

    async def scan_nothing(*_: Any) -> AsyncIterator[list[bytes]]:
        await wait_until_cancelled()
        yield []

    monkeypatch.setattr(slow, scan_nothing if "customers" in slow else lambda *_: wait_until_cancelled())
    monkeypatch.setattr(app.http.disconnects, "POLL_SECONDS", 0.01)
    bodies = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if bodies:
            return bodies.pop()
        await disconnected.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        statuses.append(message.get("status"))

    headers = [(b"authorization", populated_app.secret["Authorization"].encode())]
    at = f"/v1/{path}"
    scope = {"type": "http", "method": method, "path": at, "raw_path": at.encode(), "query_string": b"",
             "headers": headers, "http_version": "1.1", "scheme": "http", "root_path": ""}  # fmt: skip
    request_task = asyncio.create_task(populated_app.app(scope, receive, send))
    async with asyncio.timeout(10):
        await scan_started.wait()
        await asyncio.sleep(0.05)
        assert not request_task.done(), "the scan stopped although the client was connected"
        disconnected.set()
        await request_task
    assert scan_ended.is_set()
    assert statuses[0] == 499
    services = populated_app.app.state.services
    assert services.pool.get_idle_size() == services.pool.get_size(), "a database connection is still in use"
    with services.heavy_reads.acquire_slot(), services.heavy_reads.acquire_slot():
        pass


RULE_CHANGES: list[tuple[Any, Any]] = [
    ({"did": "a"}, {"did": "a", "at_least": 2}),
    ({"did": "a", "within": "6h"}, {"did": "b", "within": "6h"}),
    ({"did": "a"}, {"did": "a"}),
    ({"did": "a"}, {"not": {"did": "a"}}),
    ({"segment": "viewers"}, {"all": [{"segment": "viewers"}, {"trait": "plan", "eq": "pro"}]}),
]


@pytest.mark.parametrize(("old", "new"), RULE_CHANGES)
async def test_dry_run_predicts_effect_of_change(populated_app: RunningApp, old: Any, new: Any) -> None:
    async def members(key: str) -> set[str]:
        return {customer["id"] for customer in await populated_app.all_of(f"/v1/segments/{key}/members")}

    await populated_app.tell("POST", "/v1/segments", {"key": "x", "rule": old}, 201)
    result = await populated_app.tell("POST", "/v1/segments/x/dry-run", {"rule": new, "sample": 100})
    before = await members("x")
    await populated_app.tell("POST", "/v1/segments", {"key": "y", "rule": new}, 201)
    after = await members("y")
    for group, expected in (("enter", after - before), ("leave", before - after), ("stay", before & after)):
        assert result[group]["count"] == len(expected), group
        assert {customer["id"] for customer in result[group]["sample"]} == expected, group
        assert all(customer["identities"] for customer in result[group]["sample"])
    assert (result["segment"], result["customers_total"], result["changes"]) == ("x", 40, [])
    short_result = await populated_app.tell("POST", "/v1/segments/x/dry-run", {"rule": new, "sample": 1})
    assert all(
        len(short_result[group]["sample"]) == min(1, short_result[group]["count"])
        for group in ("enter", "leave", "stay")
    )


async def test_dry_run_lists_dependent_definitions(populated_app: RunningApp) -> None:
    reader = {"key": "reader", "rule": {"not": {"segment": "viewers"}}}
    await populated_app.tell("POST", "/v1/segments", reader, 201)
    stages = [{"key": "in", "rule": {"segment": "reader"}}]
    await populated_app.tell("POST", "/v1/journeys", {"key": "far", "stages": stages}, 201)
    result = await populated_app.tell("POST", "/v1/segments/viewers/dry-run", {"rule": {"did": "c"}})
    assert sorted(result["changes"]) == ["journey far", "segment reader"]
    same = await populated_app.tell("POST", "/v1/segments/viewers/dry-run", {"rule": {"did": "b", "within": "12h"}})
    assert (same["changes"], same["enter"]["count"], same["leave"]["count"]) == ([], 0, 0)
    for rule in ({"segment": "viewers"}, {"segment": "reader"}):
        answer = await populated_app.tell("POST", "/v1/segments/viewers/dry-run", {"rule": rule}, 422)
        assert "cycle" in answer["message"]
    await populated_app.tell("POST", "/v1/segments/none/dry-run", {"rule": {"did": "c"}}, 404)
