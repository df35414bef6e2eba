"""Computed traits: definition, values, explanations, and versions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.config import Settings
from app.formats.timestamps import rfc3339
from app.postgres.pool import FrozenClock
from app.registry.default_definitions import TRAITS
from app.touchpoint import DAY, HOUR
from tests.support.running_app import NOON, RunningApp, run_worker, running_app, track

TRAIT = {
    "key": "spent",
    "name": "Spent",
    "description": "In ten days",
    "owner": "crm@example.com",
    "note": "First",
    "value": {"sum": "total", "of": "Order Completed", "within": "10d"},
}


def order(total: Any, days: int, user: str = "user-1", **more: Any) -> dict[str, Any]:
    at = rfc3339(NOON - days * DAY)
    return track("Order Completed", user, properties={"total": total}, timestamp=at, messageId=f"{user}-{days}", **more)


async def traits(service: RunningApp, user: str = "user-1", **params: Any) -> dict[str, Any]:
    traits: dict[str, Any] = (await service.ask(f"/v1/customers/{user}", params=params or None))["traits"]
    return traits


async def test_computed_trait_lifecycle(settings: Settings, clock: FrozenClock) -> None:
    async with running_app(settings, clock) as service:
        created = await service.tell("POST", "/v1/traits", TRAIT, 201)
        assert {
            **TRAIT,
            "public": False,
            "version": 1,
            "status": "current",
            "created_at": created["created_at"],
        } == created
        assert (await service.tell("POST", "/v1/traits", TRAIT, 409))["code"] == "conflict"
        await service.send(order(10, 3), order(5.5, 2), order(100, 20))
        assert await traits(service) == {"spent": 15.5}
        listed = (await service.ask("/v1/traits"))["items"]
        assert [entry["key"] for entry in listed] == sorted(["spent", *(entry["key"] for entry in TRAITS)])
        read = await service.ask("/v1/traits/spent")
        assert (read["value"], read["version"]) == (TRAIT["value"], 1)
        value = {"count": "Order Completed"}
        assert (await service.tell("PUT", "/v1/traits/spent", {"value": value}))["version"] == 2
        await run_worker(service)
        assert await traits(service) == {"spent": 3}
        reader = {"key": "reader", "rule": {"trait": "spent", "gte": 3}}
        await service.tell("POST", "/v1/segments", reader, 201)
        assert (await service.ask("/v1/segments/reader/count"))["count"] == 1
        assert (await service.tell("DELETE", "/v1/traits/spent", expected=409))["readers"] == ["segment reader"]
        await service.tell("DELETE", "/v1/segments/reader")
        assert await service.tell("DELETE", "/v1/traits/spent") == {"success": True}
        assert await traits(service) == {}
        for path in ("", "/explain"):
            await service.ask(f"/v1/customers/user-1/traits/spent{path}", 404)


async def test_computed_trait_hides_a_declared_trait_of_the_same_name(settings: Settings, clock: FrozenClock) -> None:
    async with running_app(settings, clock) as service:
        declared = {"spent": "much", "plan": "pro"}
        await service.send(
            {"type": "identify", "userId": "user-1", "traits": declared, "timestamp": rfc3339(NOON - DAY)}
        )
        assert await traits(service) == declared
        await service.tell("POST", "/v1/traits", {**TRAIT, "value": {"avg": "total", "of": "Order Completed"}}, 201)
        assert await traits(service) == {"plan": "pro"}, "missing, and still it hides"
        await service.send(order(1, 0), order(2, 1), order(2, 2))
        assert (await traits(service))["spent"] == pytest.approx(5 / 3)
        lookup = await service.tell("POST", "/v1/customers/lookup", {"customers": ["user-1"]})
        assert lookup["items"][0]["customer"]["traits"] == await traits(service)
        response = await service.client.get("/v1/customers/user-1", headers=service.secret)
        assert b'"spent":1.666666666666666666666666666666667' in response.content


async def test_computed_trait_changes_as_time_passes(settings: Settings, clock: FrozenClock) -> None:
    async with running_app(settings, clock) as service:
        await service.tell("POST", "/v1/traits", TRAIT, 201)
        await service.send(order(10, 3), order(5, 1))
        for instant, expected in (
            (NOON, 15),
            (NOON + 7 * DAY - 1, 15),
            (NOON + 7 * DAY, 5),
            (NOON + 9 * DAY, 0),
        ):
            clock.instant = instant
            assert await traits(service) == {"spent": expected}
        for instant, node_states in (
            (NOON - 3 * DAY - 1, {}),
            (NOON - 3 * DAY, {"spent": 10}),
            (NOON - DAY, {"spent": 15}),
        ):
            assert await traits(service, as_of=rfc3339(instant)) == node_states


async def test_explanation_lists_the_evidence_of_a_computed_trait(settings: Settings, clock: FrozenClock) -> None:
    async with running_app(settings, clock) as service:
        await service.tell("POST", "/v1/traits", TRAIT, 201)
        future = track("Order Completed", properties={"total": 1}, timestamp=rfc3339(NOON + HOUR), messageId="f")
        await service.send(order(10, 3), order(5, 1), order(7, 20))
        path = "/v1/customers/user-1/traits/spent/explain"
        why = await service.ask(path)
        assert (why["trait"], why["version"], why["value"]) == ("spent", 1, 15)
        assert why["valid_until"] == rfc3339(NOON + 7 * DAY)
        assert why["explanation"]["rule"] == TRAIT["value"]
        assert why["explanation"]["touchpoints"] == ["user-1-3", "user-1-1"]
        assert why["explanation"]["counted"] == 2
        await service.send(future)
        why = await service.ask(path)
        assert (why["value"], why["valid_until"]) == (15, rfc3339(NOON + HOUR))
        before = await service.ask(path, params={"as_of": rfc3339(NOON - 2 * DAY)})
        assert (before["value"], before["valid_until"]) == (10, rfc3339(NOON - DAY))
        unborn = await service.ask(path, params={"as_of": rfc3339(NOON - 30 * DAY)})
        assert (unborn["value"], unborn["valid_until"]) == (None, rfc3339(NOON - 20 * DAY))
        await service.ask("/v1/customers/user-1/traits/none/explain", 404)
        await service.ask("/v1/customers/nobody/traits/spent/explain", 404)


async def test_explanation_nodes_have_since(settings: Settings, clock: FrozenClock) -> None:
    async with running_app(settings, clock) as service:
        rule = {
            "any": [
                {
                    "all": [
                        {"did": "Order Completed", "at_least": 2},
                        {"not": {"did": "Order Refunded", "within": "5d"}},
                    ]
                },
                {"trait": "plan", "eq": "pro"},
            ]
        }
        await service.tell("POST", "/v1/segments", {"key": "s", "rule": rule}, 201)
        refund = track("Order Refunded", timestamp=rfc3339(NOON - 6 * DAY))
        plan = {"type": "identify", "userId": "user-1", "traits": {"plan": "pro"}, "timestamp": rfc3339(NOON - DAY)}
        await service.send(order(1, 9), order(1, 8), refund, plan)
        why = await service.ask("/v1/customers/user-1/segments/s/explain")
        both, trait = why["explanation"]["nodes"]
        did, no_refund = both["nodes"]
        node_states = [(node["truth"], node["since"]) for node in (why["explanation"], both, trait, did, no_refund)]
        assert node_states == [
            (True, rfc3339(NOON - DAY)),
            (True, rfc3339(NOON - DAY)),
            (True, rfc3339(NOON - DAY)),
            (True, rfc3339(NOON - 8 * DAY)),
            (True, rfc3339(NOON - DAY)),
        ]
        (refunded,) = no_refund["nodes"]
        assert (refunded["truth"], refunded["since"], refunded["counted"]) == (False, rfc3339(NOON - DAY), 0)
        params = {"as_of": rfc3339(NOON - 7 * DAY)}
        earlier = (await service.ask("/v1/customers/user-1/segments/s/explain", params=params))["explanation"]
        assert (earlier["truth"], earlier["since"]) == (True, rfc3339(NOON - 8 * DAY))
        assert (earlier["nodes"][0]["valid_until"], earlier["nodes"][1]["since"]) == (
            rfc3339(NOON - 6 * DAY),
            rfc3339(NOON - 9 * DAY),
        )
        stages = await service.ask("/v1/customers/user-1/journeys/six-stage/explain")
        assert all(entry["explanation"]["since"] for entry in stages["stages"])


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("segment", {"rule": {"did": "a"}}, {"rule": {"did": "b"}}),
        ("trait", {"value": {"count": "a"}}, {"value": {"count": "b"}}),
        ("journey", {"stages": [{"key": "x", "name": "x", "rule": {"did": "a"}}]},
         {"stages": [{"key": "x", "name": "x", "rule": {"did": "b"}}]}),
    ],
)  # fmt: skip
async def test_trait_versions_are_listed(service: RunningApp, kind: str, one: Any, other: Any) -> None:
    path = f"/v1/{kind}s"
    (body,), (body_after,) = one.values(), other.values()

    async def log() -> list[tuple[Any, ...]]:
        items = (await service.ask(f"{path}/k/versions"))["items"]
        for item in items:
            assert (item["activated_at"] is None) == (item["status"] == "filling" or item["note"] == "withdrawn")
            assert (item["superseded_at"] is None) == (item["status"] in ("current", "filling"))
        return [(entry["version"], entry["status"], entry["owner"], entry["note"], entry["body"]) for entry in items]

    await service.ask(f"{path}/k/versions", 404)
    await service.tell("POST", path, {"key": "k", "owner": "o", "note": "first", **one}, 201)
    assert await log() == [(1, "current", "o", "first", body)]
    await service.send(track("a"), track("b"))
    await run_worker(service)
    await service.tell("PUT", f"{path}/k", {"owner": "p", "note": "other owner", **one})
    first = (1, "superseded", "o", "first", body)
    assert await log() == [(2, "current", "p", "other owner", body), first]
    await service.tell("PUT", f"{path}/k", {"owner": "p", "note": "withdrawn", **other})
    second = (2, "superseded", "p", "other owner", body)
    if kind != "trait":
        assert (await log())[:2] == [(3, "filling", "p", "withdrawn", body_after), (2, "current", *second[2:])]
    final = json.loads(json.dumps(other).replace('"b"', '"c"'))
    (body_final,) = final.values()
    await service.tell("PUT", f"{path}/k", {"owner": "p", "note": "final", **final})
    await run_worker(service)
    if kind != "trait":
        third = (3, "superseded", "p", "withdrawn", body_after)
        assert await log() == [(4, "current", "p", "final", body_final), third, second, first]
    await service.tell("DELETE", f"{path}/k")
    items = (await service.ask(f"{path}/k/versions"))["items"]
    assert [entry["status"] for entry in items] == ["archived", "superseded", "superseded", "superseded"]
    await service.tell("POST", path, {"key": "k", **one}, 201)
    items = (await service.ask(f"{path}/k/versions"))["items"]
    assert [entry["status"] for entry in items] == ["current", "archived", "superseded", "superseded", "superseded"]


async def test_points_beyond_the_state_limit_are_read_from_the_log(settings: Settings, clock: FrozenClock) -> None:
    few = settings.model_copy(update={"series_points_max": 20})
    async with running_app(few, clock) as service:
        await service.tell("POST", "/v1/traits", TRAIT, 201)
        for batch in range(5):
            at = [NOON - DAY + (batch * 10 + number) * 1000 for number in range(10)]
            await service.send(
                *(
                    track(
                        "Order Completed", properties={"total": 1}, timestamp=rfc3339(instant), messageId=str(instant)
                    )
                    for instant in at
                )
            )
            assert await traits(service) == {"spent": (batch + 1) * 10}
            (item,) = (await service.tell("POST", "/v1/customers/lookup", {"customers": ["user-1"]}))["items"]
            assert item["customer"]["traits"] == {"spent": (batch + 1) * 10}


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"key": "x"}, "/value"),
        ({"key": "x", "value": {"did": "e"}}, "/value"),
        ({"key": "x", "value": 7}, "/value"),
        ({"key": "x", "value": {"sum": "total"}}, "/value"),
        ({"key": "timezone", "value": {"count": "e"}}, "/key"),
        ({"key": "X", "value": {"count": "e"}}, "/key"),
        ({"key": "x", "value": {"count": "e"}, "rule": {"did": "e"}}, "/rule"),
        ({"key": "x", "note": "n" * 501, "value": {"count": "e"}}, "/note"),
    ],
)
async def test_invalid_traits_report_path_and_remedy(service: RunningApp, body: Any, path: str) -> None:
    answer = await service.tell("POST", "/v1/traits", body, 422)
    assert answer["code"] == "invalid_definition"
    assert answer["path"].startswith(path), answer
    assert answer["remedy"]
