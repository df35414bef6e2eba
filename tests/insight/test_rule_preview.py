"""Rules that nobody saved: the count is that of the rule saved, and a change moves whom it says it would."""

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
from app.http.dependencies import HeavyReadSlots
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
    "nobody": {"did": "never"},
}


async def fill(service: RunningApp, customers: int = 40) -> None:
    chance = random.Random(5)
    await service.tell("POST", "/v1/segments", {"key": "viewers", "rule": {"did": "b", "within": "12h"}}, 201)
    stages = [{"key": "first", "rule": {"did": "a"}}, {"key": "second", "rule": {"did": "b"}}]
    await service.tell("POST", "/v1/journeys", {"key": "trip", "stages": stages}, 201)
    messages: list[dict[str, Any]] = []
    for n in range(customers):
        user, at = f"user-{n}", rfc3339(NOON - 20 * HOUR)
        messages.append({"type": "identify", "userId": user, "timestamp": at, 
                         "traits": {"plan": chance.choice(["pro", "free"])}})  # fmt: skip
        for _ in range(chance.randint(0, 4)):
            messages.append(track(chance.choice("abc"), user, timestamp=rfc3339(NOON - chance.randint(-2, 15) * HOUR)))
    await service.send(*[{**message, "messageId": f"m-{n}"} for n, message in enumerate(messages)])


@pytest.fixture
async def filled(settings: Settings, frozen: FrozenClock) -> AsyncIterator[RunningApp]:
    async with running_app(settings, frozen) as service:
        await fill(service)
        yield service


async def preview(service: RunningApp, rule: Any, expected: int = 200, **more: Any) -> Any:
    return await service.tell("POST", "/v1/segments/preview", {"rule": rule, **more}, expected)


@pytest.mark.parametrize("name", RULES)
async def test_the_count_is_that_of_the_rule_saved(filled: RunningApp, name: str) -> None:
    found = await preview(filled, RULES[name], sample=100)
    past = rfc3339(NOON - 6 * HOUR)
    found_before = await preview(filled, RULES[name], sample=0, as_of=past)
    await filled.tell("POST", "/v1/segments", {"key": "saved", "rule": RULES[name]}, 201)
    members = {each["id"]: each for each in await filled.all_of("/v1/segments/saved/members")}
    assert found["count"] == found["estimate"] == found["low"] == found["high"] == len(members)
    assert found["exact"] is True
    assert found["customers_scanned"] == found["customers_total"] == 40
    assert found["as_of"] == rfc3339(NOON)
    assert found["took_ms"] >= 0
    assert {each["id"] for each in found["sample"]} == members.keys()
    for each in found["sample"]:
        member = members[each["id"]]
        assert (each["since"], each["valid_until"]) == (member["since"], member["valid_until"])
        assert each["identities"] == member["identities"]
        assert each["explanation"]["truth"] is True
    saved_before = await filled.ask("/v1/segments/saved/count", params={"as_of": past})
    assert (found_before["count"], found_before["sample"]) == (saved_before["count"], [])


async def test_evidence_names_the_touchpoints(filled: RunningApp) -> None:
    await filled.send(track("rare", "user-7", messageId="rare-7", timestamp=rfc3339(NOON - HOUR)))
    found = await preview(filled, {"any": [{"did": "rare"}, {"did": "never"}]})
    (one,) = found["sample"]
    assert one["identities"] == [{"kind": "user_id", "value": "user-7"}]
    rare, never = one["explanation"]["nodes"]
    assert (rare["truth"], rare["counted"], rare["touchpoints"]) == (True, 1, ["rare-7"])
    assert (never["truth"], never["counted"], never["touchpoints"]) == (False, 0, [])


async def test_nothing_is_saved(filled: RunningApp) -> None:
    before = await filled.ask("/v1/segments")
    await preview(filled, RULES["count"])
    await filled.tell("POST", "/v1/segments/viewers/dry-run", {"rule": RULES["count"]})
    assert await filled.ask("/v1/segments") == before


async def test_an_estimate_looks_at_a_part(filled: RunningApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.insight.rule_preview, "_TIMED_CHUNK_CUSTOMERS", 10)
    # Time for the evidence, none left for counting.
    monkeypatch.setattr(app.insight.rule_preview, "_deadline", lambda within_ms: lambda: within_ms < 100)
    found = await preview(filled, RULES["count"], within_ms=100, sample=100)
    assert (found["exact"], found["count"]) == (False, None)
    looked_at, members = found["customers_scanned"], len(found["sample"])
    assert 1 <= looked_at <= 10
    assert members <= found["low"] <= found["estimate"] <= found["high"] <= 40 - looked_at + members
    begun = {tuple(each["id"] for each in (await preview(filled, {"everyone": True}, within_ms=100))["sample"])}
    for _ in range(8):
        begun.add(tuple(each["id"] for each in (await preview(filled, {"everyone": True}, within_ms=100))["sample"]))
    assert len(begun) > 1, "it always begins at the same customer"


async def test_when_the_time_is_over_no_more_evidence_is_sought(
    filled: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    explained = 0

    async def explain(*question: Any) -> Any:
        nonlocal explained
        explained += 1
        return await app.queries.explanations.explain_rule(*question)

    monkeypatch.setattr(app.insight.rule_preview, "explain_rule", explain)
    monkeypatch.setattr(
        app.insight.rule_preview, "_deadline", lambda within_ms: lambda: explained == 2 or within_ms < 100
    )
    found = await preview(filled, {"everyone": True}, within_ms=100, sample=10)
    assert (len(found["sample"]), found["estimate"]) == (2, 40)
    found = await preview(filled, {"everyone": True}, within_ms=100, sample=10)
    assert (len(found["sample"]), found["estimate"], explained) == (0, 40, 2)


async def test_with_time_enough_it_is_exact(filled: RunningApp) -> None:
    found = await preview(filled, RULES["count"], within_ms=60_000)
    assert found["exact"] is True
    assert found["count"] == (await preview(filled, RULES["count"]))["count"]


def test_the_interval_covers_what_it_should() -> None:
    """Of many samples about 95 % of the intervals hold the truth; with everybody seen there is nothing to guess."""
    chance = random.Random(3)
    total = 20_000
    for share in (0.003, 0.05, 0.5, 0.98):
        members = round(share * total)
        base = [True] * members + [False] * (total - members)
        hits = 0
        for _ in range(400):
            count = sum(chance.sample(base, 500))
            estimate, low, high = _estimate_total(count, 500, total)
            assert low <= estimate <= high
            hits += low <= members <= high
        assert 0.91 <= hits / 400 <= 0.995, share
    assert _estimate_total(7, 9, 9) == (7, 7, 7)
    assert _estimate_total(0, 0, 0) == (0, 0, 0)
    assert _estimate_total(10, 10, 11)[1:] == (10, 11)


async def test_an_empty_base(service: RunningApp) -> None:
    found = await preview(service, {"everyone": True}, within_ms=5)
    assert (found["count"], found["exact"], found["customers_total"]) == (0, True, 0)


BAD: list[tuple[Any, str]] = [
    ({"segment": "none"}, "/rule/segment"),
    ({"stage": "none"}, "/rule/stage"),
    ({"segment": "(unsaved)"}, "/rule/segment"),
    ({"did": "e", "within": "1000000d"}, "/rule/within"),
    ({"all": [{"everyone": True}, {"did": "e\0"}]}, "/rule/all/1/did"),
    ({}, "/rule"),
    (None, "/rule"),
    (7, "/rule"),
]


@pytest.mark.parametrize(("rule", "path"), BAD)
async def test_refused_rules_say_where_and_what_to_do(filled: RunningApp, rule: Any, path: str) -> None:
    for to in ("preview", "viewers/dry-run"):
        answer = await filled.tell("POST", f"/v1/segments/{to}", {"rule": rule}, 422)
        assert answer["code"] == "invalid_definition"
        assert answer["path"].startswith(path), answer
        assert answer["remedy"]
        assert "segment:(unsaved)" not in answer["message"]
        if rule == {"segment": "none"} and to == "preview":
            assert "the rule refers to the segment none, which does not exist" in answer["message"]


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
async def test_hostile_bodies(service: RunningApp, body: bytes) -> None:
    for path in ("preview", "engaged/dry-run"):
        response = await service.client.post(f"/v1/segments/{path}", content=body, headers=service.secret)
        assert response.status_code in (400, 422), (path, response.text)


@pytest.mark.parametrize(
    "more",
    [{"sample": -1}, {"sample": 101}, {"sample": "x"}, {"within_ms": 0}, {"within_ms": 60_001}, {"as_of": "x"},
     {"as_of": rfc3339(NOON + 1)}, {"more": 1}],
)  # fmt: skip
async def test_bodies_that_do_not_fit(filled: RunningApp, more: dict[str, Any]) -> None:
    assert (await preview(filled, {"everyone": True}, 400, **more))["code"] == "bad_request"


async def test_two_at_a_time(filled: RunningApp) -> None:
    slots = filled.app.state.services.heavy_read_slots
    with slots.acquire(), slots.acquire():
        for method, path, body in (
            ("POST", "segments/preview", {"rule": {"everyone": True}}),
            ("POST", "segments/viewers/dry-run", {"rule": {"everyone": True}}),
            ("POST", "segments/viewers/verify", None),
            ("GET", "segment-health", None),
        ):
            response = await filled.client.request(method, f"/v1/{path}", json=body, headers=filled.secret)
            assert (response.status_code, response.json()["code"]) == (503, "overloaded"), path
            assert response.headers["retry-after"].isdigit()
    await asyncio.gather(*(preview(filled, {"everyone": True}) for _ in range(2)))
    slots = HeavyReadSlots(1)
    with pytest.raises(ZeroDivisionError), slots.acquire():
        raise ZeroDivisionError
    with slots.acquire(), pytest.raises(Overloaded), slots.acquire():
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
async def test_a_caller_who_hangs_up_keeps_nothing(
    filled: RunningApp, monkeypatch: pytest.MonkeyPatch, method: str, path: str, slow: str, body: bytes
) -> None:
    at_work, gone, ended, statuses = asyncio.Event(), asyncio.Event(), asyncio.Event(), []

    async def for_ever() -> None:
        at_work.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def nobody_comes(*_: Any) -> AsyncIterator[list[bytes]]:
        await for_ever()
        yield []

    monkeypatch.setattr(slow, nobody_comes if "customers" in slow else lambda *_: for_ever())
    monkeypatch.setattr(app.http.disconnects, "POLL_SECONDS", 0.01)
    bodies = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if bodies:
            return bodies.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        statuses.append(message.get("status"))

    headers = [(b"authorization", filled.secret["Authorization"].encode())]
    at = f"/v1/{path}"
    scope = {"type": "http", "method": method, "path": at, "raw_path": at.encode(), "query_string": b"",
             "headers": headers, "http_version": "1.1", "scheme": "http", "root_path": ""}  # fmt: skip
    asked = asyncio.create_task(filled.app(scope, receive, send))
    async with asyncio.timeout(10):
        await at_work.wait()
        await asyncio.sleep(0.05)
        assert not asked.done(), "while the caller waits, the work goes on"
        gone.set()
        await asked
    assert ended.is_set()
    assert statuses[0] == 499
    served = filled.app.state.services
    assert served.pool.get_idle_size() == served.pool.get_size(), "a snapshot is still open"
    with served.heavy_read_slots.acquire(), served.heavy_read_slots.acquire():
        pass


CHANGES: list[tuple[Any, Any]] = [
    ({"did": "a"}, {"did": "a", "at_least": 2}),
    ({"did": "a", "within": "6h"}, {"did": "b", "within": "6h"}),
    ({"did": "a"}, {"did": "a"}),
    ({"did": "a"}, {"not": {"did": "a"}}),
    ({"segment": "viewers"}, {"all": [{"segment": "viewers"}, {"trait": "plan", "eq": "pro"}]}),
]


@pytest.mark.parametrize(("old", "new"), CHANGES)
async def test_a_change_moves_whom_its_dry_run_says(filled: RunningApp, old: Any, new: Any) -> None:
    async def members(key: str) -> set[str]:
        return {each["id"] for each in await filled.all_of(f"/v1/segments/{key}/members")}

    await filled.tell("POST", "/v1/segments", {"key": "x", "rule": old}, 201)
    found = await filled.tell("POST", "/v1/segments/x/dry-run", {"rule": new, "sample": 100})
    before = await members("x")
    await filled.tell("POST", "/v1/segments", {"key": "y", "rule": new}, 201)
    after = await members("y")
    for way, expected in (("enter", after - before), ("leave", before - after), ("stay", before & after)):
        assert found[way]["count"] == len(expected), way
        assert {each["id"] for each in found[way]["sample"]} == expected, way
        assert all(each["identities"] for each in found[way]["sample"])
    assert (found["segment"], found["customers_total"], found["changes"]) == ("x", 40, [])
    few = await filled.tell("POST", "/v1/segments/x/dry-run", {"rule": new, "sample": 1})
    assert all(len(few[way]["sample"]) == min(1, few[way]["count"]) for way in ("enter", "leave", "stay"))


async def test_a_dry_run_names_what_changes_with_it(filled: RunningApp) -> None:
    reader = {"key": "reader", "rule": {"not": {"segment": "viewers"}}}
    await filled.tell("POST", "/v1/segments", reader, 201)
    stages = [{"key": "in", "rule": {"segment": "reader"}}]
    await filled.tell("POST", "/v1/journeys", {"key": "far", "stages": stages}, 201)
    found = await filled.tell("POST", "/v1/segments/viewers/dry-run", {"rule": {"did": "c"}})
    assert sorted(found["changes"]) == ["journey far", "segment reader"]
    same = await filled.tell("POST", "/v1/segments/viewers/dry-run", {"rule": {"did": "b", "within": "12h"}})
    assert (same["changes"], same["enter"]["count"], same["leave"]["count"]) == ([], 0, 0)
    for rule in ({"segment": "viewers"}, {"segment": "reader"}):
        answer = await filled.tell("POST", "/v1/segments/viewers/dry-run", {"rule": rule}, 422)
        assert "cycle" in answer["message"]
    await filled.tell("POST", "/v1/segments/none/dry-run", {"rule": {"did": "c"}}, 404)
