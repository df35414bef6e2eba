"""Segments and journeys: definition, backfill, and exact members and counts meanwhile."""

from __future__ import annotations

import random
from typing import Any

import pytest

import app.queries.segment_members
from app.config import Settings
from app.formats.timestamps import rfc3339
from app.postgres.pool import FrozenClock, transact
from app.projection.project import refresh_customers
from app.touchpoint import DAY
from tests.support.running_app import NOON, RunningApp, run_worker, track

SEGMENT = {
    "key": "big",
    "name": "Big",
    "description": "d",
    "owner": "o",
    "rule": {"did": "Order Completed", "where": {"total": {"gte": 0.1}}},
}
JOURNEY = {
    "key": "trial",
    "stages": [
        {"key": "started", "rule": {"did": "Trial Started"}},
        {"key": "paid", "name": "Paid", "rule": {"did": "Order Completed"}},
    ],
}


async def test_segment_lifecycle(service: RunningApp) -> None:
    created = await service.tell("POST", "/v1/segments", SEGMENT, 201)
    version_fields = {
        "note": "",
        "public": False,
        "version": 1,
        "status": "current",
        "created_at": created["created_at"],
    }
    assert {**SEGMENT, **version_fields} == created
    assert (await service.tell("POST", "/v1/segments", SEGMENT, 409))["code"] == "conflict"
    assert (await service.tell("PUT", "/v1/segments/big", SEGMENT))["version"] == 1
    changed = {**SEGMENT, "rule": {"did": "Order Completed", "at_least": 2}}
    assert (await service.tell("PUT", "/v1/segments/big", changed))["version"] == 2
    read = await service.ask("/v1/segments/big")
    assert (read["version"], read["rule"]) == (2, changed["rule"])
    assert (read["status"], read["fill"]["customers_total"], read["fill"]["done"]) == ("current", 0, True)
    assert "big" in [item["key"] for item in (await service.ask("/v1/segments"))["items"]]
    assert await service.tell("DELETE", "/v1/segments/big") == {"success": True}
    for path in ("", "/members", "/count"):
        assert (await service.ask(f"/v1/segments/big{path}", 404))["code"] == "not_found"
    assert (await service.tell("DELETE", "/v1/segments/big", expected=404))["code"] == "not_found"
    assert (await service.tell("PUT", "/v1/segments/big", changed, 404))["code"] == "not_found"
    assert (await service.tell("POST", "/v1/segments", SEGMENT, 201))["version"] == 3


async def test_journey_lifecycle(service: RunningApp) -> None:
    created = await service.tell("POST", "/v1/journeys", JOURNEY, 201)
    assert [(item["key"], item["name"]) for item in created["stages"]] == [("started", "started"), ("paid", "Paid")]
    await service.send(track("Order Completed"))
    assert (await service.ask("/v1/customers/user-1"))["stages"]["trial"]["stage"] == "paid"
    without_key = {"stages": JOURNEY["stages"][:1]}
    changed = await service.tell("PUT", "/v1/journeys/trial", without_key)
    assert (changed["version"], changed["status"]) == (2, "filling")
    assert (await service.ask("/v1/customers/user-1"))["stages"]["trial"]["stage"] == "paid", "until it is filled"
    filling = await service.ask("/v1/journeys/trial")
    assert [filling[name] for name in ("version", "status", "upcoming_version")] == [1, "filling", 2]
    assert (filling["fill"]["customers_total"], filling["fill"]["done"]) == (1, False)
    await run_worker(service)
    filled = await service.ask("/v1/journeys/trial")
    assert [filled[name] for name in ("version", "status", "upcoming_version")] == [2, "current", None]
    assert filled["fill"]["done"] is True
    assert (await service.ask("/v1/customers/user-1"))["stages"]["trial"]["stage"] is None
    assert "trial" in [item["key"] for item in (await service.ask("/v1/journeys"))["items"]]
    await service.tell("DELETE", "/v1/journeys/trial")
    assert "trial" not in (await service.ask("/v1/customers/user-1"))["stages"]


@pytest.mark.parametrize("key", ["x", "none", "%00", "x%00", "X", "%FF", "%F0%9F%98%80", "a" * 9_000])
async def test_unknown_definition_is_not_found(service: RunningApp, key: str) -> None:
    for kind in ("segments", "journeys", "traits"):
        for path in (f"/v1/{kind}/{key}/versions", f"/v1/{kind}/{key}"):
            assert (await service.ask(path, 404))["code"] == "not_found"


async def test_numbers_in_rules_are_exact(service: RunningApp) -> None:
    body = b'{"key":"exact","rule":{"did":"e","where":{"a":0.1,"b":9007199254740993,"c":{"gt":1e3}}}}'
    response = await service.client.post("/v1/segments", content=body, headers=service.secret)
    assert response.status_code == 201, response.text
    again = await service.client.get("/v1/segments/exact", headers=service.secret)
    assert b'"a":0.1' in again.content
    assert b'"b":9007199254740993' in again.content
    await service.send(track("e", properties={"a": 0.1, "b": 9007199254740993, "c": 1001}))
    assert (await service.ask("/v1/segments/exact/count"))["count"] == 1


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ({"trait": "vip", "eq": 1}, {"trait": "vip", "eq": True}, False),
        ({"trait": "vip", "in": [0]}, {"trait": "vip", "in": [False]}, False),
        ({"did": "e", "where": {"vip": {"ne": 1}}}, {"did": "e", "where": {"vip": {"ne": True}}}, False),
        ({"trait": "vip", "eq": "1"}, {"trait": "vip", "eq": 1}, False),
        ({"trait": "vip", "eq": 1}, {"eq": 1.0, "trait": "vip"}, True),
        ({"did": "e", "where": {"a": 1, "b": 2}}, {"where": {"b": 2, "a": 1}, "did": "e"}, True),
    ],
)
async def test_replacement_with_a_change_is_a_new_version(service: RunningApp, old: Any, new: Any, same: bool) -> None:
    await service.tell("POST", "/v1/segments", {"key": "vip", "rule": old}, 201)
    replaced = await service.tell("PUT", "/v1/segments/vip", {"rule": new})
    assert replaced["version"] == (1 if same else 2)
    await service.tell("POST", "/v1/journeys", {"key": "vip", "stages": [{"key": "a", "rule": old}]}, 201)
    replaced = await service.tell("PUT", "/v1/journeys/vip", {"stages": [{"key": "a", "rule": new}]})
    assert replaced["version"] == (1 if same else 2)


async def test_definition_that_others_read_cannot_be_archived(service: RunningApp) -> None:
    await service.tell("POST", "/v1/segments", SEGMENT, 201)
    await service.tell("POST", "/v1/journeys", JOURNEY, 201)
    reader = {"key": "reader", "rule": {"all": [{"segment": "big"}, {"stage": "paid", "journey": "trial"}]}}
    await service.tell("POST", "/v1/segments", reader, 201)
    answer = await service.tell("DELETE", "/v1/segments/big", expected=409)
    assert answer["readers"] == ["segment reader"]
    assert (await service.tell("DELETE", "/v1/journeys/trial", expected=409))["readers"] == ["segment reader"]
    # A new version without the stage that another definition reads is refused too.
    bad = await service.tell("PUT", "/v1/journeys/trial", {"stages": JOURNEY["stages"][:1]}, 422)
    assert bad["code"] == "invalid_definition"
    await service.tell("DELETE", "/v1/segments/reader")
    await service.tell("DELETE", "/v1/segments/big")
    await service.tell("DELETE", "/v1/journeys/trial")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"key": "x", "rule": {"segment": "none"}}, "/rule/segment"),
        ({"key": "x", "rule": {"stage": "none"}}, "/rule/stage"),
        ({"key": "x", "rule": {"segment": "x"}}, "/rule"),
        ({"key": "x", "rule": {"did": "e", "within": "1000000d"}}, "/rule/within"),
        ({"key": "x", "rule": {"did": "e\0"}}, "/rule/did"),
        ({"key": "X y", "rule": {"everyone": True}}, "/key"),
        ({"rule": {"everyone": True}}, "/key"),
        ({"key": "x"}, "/rule"),
        ({"key": "x", "rule": {"everyone": True}, "more": 1}, "/more"),
        ([], ""),
        (7, ""),
    ],
)
async def test_invalid_definitions_report_path_and_remedy(service: RunningApp, body: Any, path: str) -> None:
    answer = await service.tell("POST", "/v1/segments", body, 422)
    assert answer["code"] == "invalid_definition"
    assert answer["path"].startswith(path), answer
    assert answer["remedy"]


async def test_cycles_are_refused(service: RunningApp) -> None:
    await service.tell("POST", "/v1/segments", {"key": "a", "rule": {"did": "e"}}, 201)
    await service.tell("POST", "/v1/segments", {"key": "b", "rule": {"segment": "a"}}, 201)
    answer = await service.tell("PUT", "/v1/segments/a", {"rule": {"not": {"segment": "b"}}}, 422)
    assert "cycle" in answer["message"]
    answer = await service.tell("PUT", "/v1/segments/a", {"key": "b", "rule": {"did": "e"}}, 422)
    assert answer["path"] == "/key"


HOSTILE = [
    b"",
    b"{",
    b"null",
    b"\xff",
    b'{"key":"x","rule":' + b'{"not":' * 100_000 + b'{"everyone":true}' + b"}" * 100_000 + b"}",
    b"[" * 200_000,
    b'{"key":"x","rule":{"any":[' + b",".join([b'{"everyone":true}'] * 20_000) + b"]}}",
    b'{"key":"x","rule":{"did":"e","where":{"n":1e999999999}}}',
    b'{"key":"x","rule":{"did":"e","at_least":' + b"9" * 5_000 + b"}}",
    b'{"key":"x","rule":{"did":"\\ud800"}}',
    b'{"key":"x","rule":{"did":"\\u0000"}}',
    b'{"key":"x","name":"\\u0000","rule":{"did":"e"}}',
    b'{"key":"x","description":"a\\u0000b","rule":{"did":"e"}}',
    b'{"key":"x","name":"' + b"n" * 5_000 + b'","rule":{"did":"e"}}',
    b'{"key":"x","rule":NaN}',
    b" " * 600_000,
]


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
async def test_hostile_definitions_are_refused(service: RunningApp, body: bytes) -> None:
    for method, path in (("POST", "/v1/segments"), ("PUT", "/v1/segments/engaged"), ("POST", "/v1/journeys")):
        response = await service.client.request(method, path, content=body, headers=service.secret)
        assert response.status_code in (400, 422), (method, path, response.text)
        assert response.json()["code"] in ("invalid_body", "body_too_large", "invalid_definition")


async def test_new_segment_applies_before_its_backfill(service: RunningApp) -> None:
    await service.send(*[track("e", f"user-{n}", properties={"n": n}) for n in range(30)])
    await service.tell("POST", "/v1/segments", {"key": "even", "rule": {"did": "e", "where": {"n": {"lt": 20}}}}, 201)
    fill = (await service.ask("/v1/segments/even"))["fill"]
    assert (fill["customers_total"], fill["customers_filled"], fill["done"]) == (30, 0, False)
    assert (await service.ask("/v1/segments/even/count"))["count"] == 20
    members = await service.all_of("/v1/segments/even/members", limit=7)
    assert len(members) == 20
    assert [item["id"] for item in members] == sorted(item["id"] for item in members)


async def test_member_count_equals_the_length_of_the_list(
    settings: Settings, start: Any, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list, the count and the cursor stay exact while customers are not backfilled, due, stale or changed."""
    monkeypatch.setattr(app.queries.segment_members, "_BATCH_CUSTOMERS", 4)
    monkeypatch.setattr(app.queries.segment_members, "_RECOMPUTED_PER_PAGE_MAX", 7)
    rng = random.Random(7)
    async with start(settings, clock) as service:
        services = service.app.state.services
        bought = {f"user-{n}": NOON - rng.randrange(20) * DAY for n in range(40)}
        await service.send(*[track("Order Completed", who, timestamp=rfc3339(at)) for who, at in bought.items()])
        rule = {"did": "Order Completed", "within": "10d"}
        await service.tell("POST", "/v1/segments", {"key": "recent", "rule": rule}, 201)

        async def compare(as_of: int) -> None:
            expected = {who for who, at in bought.items() if at <= as_of < at + 10 * DAY}
            assert (await service.ask("/v1/segments/recent/count"))["count"] == len(expected)
            for limit in (1, 3, 100):
                members = await service.all_of("/v1/segments/recent/members", limit=limit)
                assert sorted(item["identities"][0]["value"] for item in members) == sorted(expected), limit
                assert [item["id"] for item in members] == sorted({item["id"] for item in members})
                for item in members:
                    at = bought[item["identities"][0]["value"]]
                    assert (item["since"], item["valid_until"]) == (rfc3339(at), rfc3339(at + 10 * DAY))

        async def some(statement: str, *arguments: Any) -> list[bytes]:
            rows = await services.pool.fetch("SELECT id FROM customers ORDER BY id")
            chosen = [row["id"] for row in rows if rng.random() < 0.5]
            if statement:
                await services.pool.execute(statement, chosen, *arguments)
            return chosen

        await compare(NOON)
        filled = await some("")
        ruleset = services.registry.rules.current
        await transact(
            services.pool, lambda connection: refresh_customers(connection, filled, ruleset, NOON, services.settings)
        )
        await compare(NOON)
        clock.instant = NOON + 3 * DAY
        await compare(clock.instant)
        await some("UPDATE customers SET stale = true, sweep_at = $2 WHERE id = ANY($1::uuid[])", clock.instant + DAY)
        await compare(clock.instant)
        # All pages of a list show the state at the instant of the first page.
        page = await service.ask("/v1/segments/recent/members", params={"limit": 2})
        expected = {who for who, at in bought.items() if at <= clock.instant < at + 10 * DAY}
        clock.instant += 5 * DAY
        rows = [row["id"] for row in await services.pool.fetch("SELECT id FROM customers")]
        await transact(
            services.pool,
            lambda connection: refresh_customers(connection, rows, ruleset, clock.instant, services.settings),
        )
        rest = await service.all_of("/v1/segments/recent/members", cursor=page["next_cursor"])
        assert sorted(item["identities"][0]["value"] for item in [*page["items"], *rest]) == sorted(expected)
        await compare(clock.instant)


async def test_worker_backfills_definitions(settings: Settings, start: Any) -> None:
    import asyncio

    async with start(settings, worker=True) as service:
        await service.send(*[track("e", f"user-{n}") for n in range(5)])
        await service.tell("POST", "/v1/segments", {"key": "new", "rule": {"did": "e"}}, 201)
        async with asyncio.timeout(10):
            while not (await service.ask("/v1/segments/new"))["fill"]["done"]:
                await asyncio.sleep(0.05)
        assert (await service.ask("/v1/segments/new/count"))["count"] == 5
