"""Tests of the quarantine: search, correction and replay, which stores each row only once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config import Settings
from app.errors import BadRequest
from app.formats.timestamps import rfc3339
from app.postgres.pool import FrozenClock
from app.quarantine.patch import PATCHED_BYTES_MAX, Patch, Unpatchable
from app.touchpoint import HOUR
from tests.support.running_app import NOON, RunningApp, track

PATH = "/v1/quarantine"
SCHEMA = {"type": "object", "required": ["total"], "properties": {"total": {"type": "number"}}}
RENAME_VALUE = [{"op": "move", "from": "/properties/value", "path": "/properties/total"}]
Start = Callable[..., AbstractAsyncContextManager[RunningApp]]


async def put_plan(service: RunningApp, mode: str = "quarantine") -> None:
    await service.tell("PUT", "/v1/tracking-plan/Order%20Completed", {"mode": mode, "schema": SCHEMA})


async def list_rows(service: RunningApp, **params: Any) -> list[Any]:
    return await service.all_of(PATH, **params)


async def replay(service: RunningApp, expected: int = 200, **body: Any) -> Any:
    return await service.tell("POST", f"{PATH}/replay", body, expected)


async def count_touchpoints(service: RunningApp) -> int:
    count: int = await service.app.state.services.pool.fetchval("SELECT count(*) FROM touchpoints")
    return count


async def test_list_filters(settings: Settings, start: Start) -> None:
    clock = FrozenClock(NOON)
    async with start(settings, clock) as service:
        await put_plan(service)
        await service.send(track("Order Completed", messageId="m-1"), expected=0)
        clock.instant += HOUR
        await service.send(track("", messageId="m-2"), {"type": "page", "messageId": "m-3"}, expected=0)
        for params, expected in (
            ({}, ["m-3", "m-2", "m-1"]),
            ({"code": "tracking_plan"}, ["m-1"]),
            ({"source": "default", "code": "missing_event"}, ["m-2"]),
            ({"source": "none"}, []),
            ({"event": "Order Completed"}, ["m-1"]),
            ({"event": "page_viewed"}, ["m-3"]),
            ({"message_id": "m-2"}, ["m-2"]),
            ({"from": rfc3339(NOON + HOUR)}, ["m-3", "m-2"]),
            ({"from": rfc3339(NOON + HOUR + 1)}, []),
            ({"to": rfc3339(NOON + HOUR)}, ["m-1"]),
            ({"to": rfc3339(NOON)}, []),
            ({"replayed": "false"}, ["m-3", "m-2", "m-1"]),
            ({"replayed": "true"}, []),
        ):
            rows = await list_rows(service, **params)
            assert [row["message_id"] for row in rows] == expected, params
            assert await list_rows(service, limit=1, **params) == rows
        assert await service.ask(f"{PATH}/{rows[0]['id'] if rows else 1}") == (await list_rows(service))[-1]
        await service.ask(f"{PATH}/99999", 404)
        for query in ("from=x", "to=", "source=%00", "replayed=x", "limit=0", "event=%00"):
            assert (await service.client.get(f"{PATH}?{query}", headers=service.secret)).status_code in (400, 422), (
                query
            )


async def test_event_filter_finds_a_rare_name(service: RunningApp) -> None:
    await service.send(track("Rare"), expected=1)
    pool = service.app.state.services.pool
    await pool.execute(
        """
        INSERT INTO quarantine (source, received_at, code, message, original)
        SELECT 'default', now(), 'c', 'm',
               convert_to(json_build_object('event', CASE WHEN n = 3 THEN 'Rare' ELSE 'Common' END)::text, 'UTF8')
        FROM generate_series(1, 12000) AS n
        """
    )
    page = await service.ask(f"{PATH}?{urlencode({'event': 'Rare'})}")
    assert (page["items"], page["next_cursor"] is None) == ([], False)
    assert len(await list_rows(service, event="Rare")) == 1
    items = (await replay(service, filter={"event": "Rare"}))["items"]
    assert [item["outcome"] for item in items] == ["rejected"]


async def test_bulk_replay_with_a_patch(service: RunningApp) -> None:
    await put_plan(service)
    wrong = [
        track(
            "Order Completed", f"u-{n}", properties={"value": n}, messageId=f"m-{n}", timestamp="2026-01-01T00:00:00Z"
        )
        for n in range(5)
    ]
    await service.send(*wrong, track("Order Completed", "u-9", messageId="m-9"), track("", messageId="m-x"), expected=0)
    request: dict[str, Any] = {"filter": {"code": "tracking_plan", "event": "Order Completed"}, "patch": RENAME_VALUE}

    dry_run_answer = await replay(service, **request, dry_run=True)
    assert (dry_run_answer["accepted"], dry_run_answer["unpatchable"], dry_run_answer["dry_run"]) == (5, 1, True)
    assert json.loads(dry_run_answer["items"][0]["patched"])["properties"] == {"total": 0}
    assert await count_touchpoints(service) == 0
    assert len(await list_rows(service, replayed="false")) == 7

    first = await replay(service, **request, limit=2)
    assert [(item["message_id"], item["outcome"]) for item in first["items"]] == [
        ("m-0", "accepted"),
        ("m-1", "accepted"),
    ]
    rest = await replay(service, **request, limit=100, after=first["next_after"])
    assert [item["outcome"] for item in rest["items"]] == ["accepted"] * 3 + ["unpatchable"]
    assert rest["next_after"] is None
    assert await count_touchpoints(service) == 5
    assert [item["message_id"] for item in await list_rows(service, replayed="false")] == ["m-x", "m-9"]
    (touchpoint,) = (await service.ask("/v1/customers/u-3/touchpoints"))["items"]
    assert (touchpoint["properties"], touchpoint["occurred_at"]) == ({"total": 3}, "2026-01-01T00:00:00.000000Z")

    # A bulk replay skips rows that were replayed before. A replay by id is a duplicate.
    assert (await replay(service, **request))["items"] == [rest["items"][-1]]
    again = await replay(service, filter={"ids": [first["items"][0]["id"]]}, patch=RENAME_VALUE)
    assert [item["outcome"] for item in again["items"]] == ["duplicate"]
    assert await count_touchpoints(service) == 5


async def test_rejected_replay_adds_no_row(service: RunningApp) -> None:
    await put_plan(service)
    await service.send(track("Order Completed", messageId="m-1"), track("", messageId="m-2"), expected=0)
    for _ in range(2):
        answer = await replay(service)
        assert [(item["outcome"], item["code"]) for item in answer["items"]] == [
            ("rejected", "tracking_plan"),
            ("rejected", "missing_event"),
        ]
    rows = await list_rows(service)
    single = await service.tell("POST", f"{PATH}/{rows[0]['id']}/replay")
    assert (single["rejected"], single["accepted"]) == (1, 0)
    assert len(await list_rows(service)) == 2
    # If the plan only warns, the replay is accepted, and its receipt contains one warning.
    await put_plan(service, "warn")
    receipt = await service.tell("POST", f"{PATH}/{rows[1]['id']}/replay")
    assert (receipt["accepted"], [item["code"] for item in receipt["warnings"]]) == (1, ["tracking_plan"])


async def test_concurrent_replays_of_a_message_without_id_store_it_once(settings: Settings, start: Start) -> None:
    """Two processes replay the same row with different corrections."""
    async with start(settings) as one, start(settings) as other:
        send = {"type": "track", "event": "", "userId": "u-1", "writeKey": one.keys.write_key}
        await asyncio.gather(*[one.client.post("/v1/batch", json={"batch": [{**send, "event": None}], **_key(one)})])
        ids = [item["id"] for item in await list_rows(one)]
        other.keys = one.keys
        answers = await asyncio.gather(
            *[
                replay(service, filter={"ids": ids}, patch=[{"op": "add", "path": "/event", "value": name}])
                for service, name in ((one, "A"), (other, "B"), (one, "C"), (other, "D"))
            ]
        )
        assert sorted(answer["items"][0]["outcome"] for answer in answers) == ["accepted", *["duplicate"] * 3]
        assert await count_touchpoints(one) == 1


def _key(service: RunningApp) -> dict[str, str]:
    return {"writeKey": service.keys.write_key}


@pytest.mark.parametrize("item", [{"type": "track", "userId": "u-1"}, {"userId": "u-1", "properties": {"a": 1}}, {}])
async def test_replay_after_a_crash_before_marking_is_a_duplicate(service: RunningApp, item: dict[str, Any]) -> None:
    """The row is not marked as replayed, so only the message id prevents a second copy in the log."""
    await service.send(item, expected=0)
    patch = [
        {"op": "add", "path": "/type", "value": "track"},
        {"op": "add", "path": "/userId", "value": "u-1"},
        {"op": "add", "path": "/event", "value": "A"},
    ]
    assert (await replay(service, patch=patch))["accepted"] == 1
    await service.app.state.services.pool.execute("UPDATE quarantine SET replayed_at = NULL")
    patch[-1]["value"] = "B"
    assert (await replay(service, patch=patch))["duplicate"] == 1
    assert await count_touchpoints(service) == 1
    # The second correction has different content, so it is quarantined as a conflicting twin.
    assert [row["code"] for row in await list_rows(service, replayed="false")] == ["conflicting_twin"]


async def test_corrected_message_keeps_its_id(service: RunningApp) -> None:
    await service.send({"type": "track", "userId": "u-1", "messageId": "m-1"}, expected=0)
    (row,) = await list_rows(service)
    for name in ("A", "B"):
        await service.tell("POST", f"{PATH}/{row['id']}/replay", {"type": "track", "userId": "u-1", "event": name})
    (touchpoint,) = (await service.ask("/v1/customers/u-1/touchpoints"))["items"]
    assert (touchpoint["message_id"], touchpoint["name"]) == ("m-1", "A")


async def test_vendor_event_is_corrected_in_its_own_format(service: RunningApp) -> None:
    await put_plan(service)
    body = [{"event": "", "properties": {"token": service.keys.write_key, "distinct_id": "u-1", "time": 1767225600}}]
    await service.client.post("/track", json=body)
    (row,) = await list_rows(service)
    assert json.loads(row["original"]) == body[0]
    for name in ("A", "B"):
        answer = await replay(
            service, filter={"ids": [row["id"]]}, patch=[{"op": "replace", "path": "/event", "value": name}]
        )
        assert answer["items"][0]["outcome"] == ("accepted" if name == "A" else "duplicate"), answer
    assert await count_touchpoints(service) == 1


async def test_unreplayable_rows_do_not_affect_others(service: RunningApp) -> None:
    pool = service.app.state.services.pool
    for source, original in (("gone", b'{"type":"track"}'), ("default", b"\xff"), ("default", b"[" * 5_000)):
        await pool.execute(
            "INSERT INTO quarantine (source, received_at, code, message, original) VALUES ($1, now(), 'c', 'm', $2)",
            source,
            original,
        )
    await service.send({"type": "track", "userId": "u-1", "messageId": "m-1"}, expected=0)
    patch = [{"op": "add", "path": "/event", "value": "A"}]
    answer = await replay(service, patch=patch)
    assert [item["outcome"] for item in answer["items"]] == ["failed", "unpatchable", "unpatchable", "accepted"]
    assert [item["outcome"] for item in (await replay(service))["items"]] == ["failed"] * 3


@pytest.mark.parametrize(
    "body",
    [
        {"patch": [{"op": "zap", "path": "/a"}]},
        {"patch": [{"op": "add", "path": "/a"}]},
        {"patch": [{"op": "move", "path": "/a"}]},
        {"patch": [{"op": "add", "path": "a", "value": 1}]},
        {"patch": ["x"]},
        {"patch": [{"op": "remove", "path": "/a"}] * 101},
        {"filter": {"x": 1}},
        {"filter": {"from": "x"}},
        {"filter": {"source": "\0"}},
        {"filter": {"ids": [0]}},
        {"limit": 0},
        {"limit": 1_001},
        {"dry_run": "yes"},
        {"after": -1},
        7,
    ],
)
async def test_invalid_replay_request_is_refused(service: RunningApp, body: Any) -> None:
    assert (await service.tell("POST", f"{PATH}/replay", body, 400))["code"] == "bad_request"


def test_patch_that_doubles_the_message_is_bounded() -> None:
    bomb = Patch([{"op": "copy", "from": "", "path": f"/k{place}"} for place in range(100)])
    with pytest.raises(Unpatchable, match=f"larger than {PATCHED_BYTES_MAX} bytes"):
        bomb.apply(json.dumps({"x": "y" * 1_000}).encode())


def test_patch_keeps_numbers_exact() -> None:
    patch = Patch([{"op": "add", "path": "/b", "value": 1}])
    assert patch.apply(b'{"a":12345678901234567890.123456789}') == b'{"a":12345678901234567890.123456789,"b":1}'


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab0"), inner, max_size=3),
    max_leaves=8,
)
POINTERS = st.lists(st.sampled_from(["a", "b", "0", "-", "~0", "9"]), max_size=3).map(
    lambda parts: "".join(f"/{item}" for item in parts)
)
OPERATIONS = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]), "path": POINTERS},
    optional={"from": POINTERS, "value": JSON},
)


@given(JSON, st.lists(OPERATIONS, max_size=6))
def test_any_patch_is_refused_or_returns_json(document: Any, operations: list[dict[str, Any]]) -> None:
    try:
        patch = Patch(operations)
    except BadRequest as refused:
        path = refused.extra["path"]
        assert path.startswith("/patch/")
        return
    try:
        json.loads(patch.apply(json.dumps(document).encode()))
    except Unpatchable:
        return
