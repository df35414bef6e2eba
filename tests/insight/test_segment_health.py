"""The report on all segments, against figures counted by hand."""

from __future__ import annotations

import asyncio
import random
import time
from itertools import combinations
from typing import Any

import pytest

import app.insight.segment_health
from app.config import Settings
from app.formats.timestamps import rfc3339
from app.postgres.pool import FrozenClock
from app.touchpoint import DAY
from tests.support.running_app import NOON, RunningApp, run_worker, running_app, track


async def only(service: RunningApp, **rules: Any) -> None:
    for each in (await service.ask("/v1/segments"))["items"]:
        await service.tell("DELETE", f"/v1/segments/{each['key']}")
    for key, rule in rules.items():
        await service.tell("POST", "/v1/segments", {"key": key.replace("_", "-"), "rule": rule}, 201)


async def grow_old(service: RunningApp) -> None:
    """As if all that is defined had been so for a year."""
    await service.app.state.services.pool.execute("UPDATE rule_numbers SET introduced_at = $1", NOON - 365 * DAY)


async def members(service: RunningApp, key: str) -> set[str]:
    return {each["id"] for each in await service.all_of(f"/v1/segments/{key}/members")}


async def test_overlaps(settings: Settings, frozen: FrozenClock) -> None:
    chance = random.Random(11)
    async with running_app(settings, frozen) as service:
        await only(
            service,
            a={"did": "a"},
            b={"did": "b"},
            a_or_b={"any": [{"did": "a"}, {"did": "b"}]},
            c={"did": "c"},
            none={"did": "never"},
            all={"everyone": True},
        )
        sent = [track(chance.choice("aabd"), f"user-{n % 50}", messageId=f"m-{n}") for n in range(120)]
        await service.send(*sent, track("c", "user-50"))
        await run_worker(service)
        report = await service.ask("/v1/segment-health")
        sets = {each["key"]: await members(service, each["key"]) for each in report["segments"]}
        assert sorted(sets) == ["a", "a-or-b", "all", "b", "c", "none"]
        assert {each["key"]: each["members"] for each in report["segments"]} == {k: len(v) for k, v in sets.items()}
        expected = {
            pair: (len(sets[pair[0]] & sets[pair[1]]), len(sets[pair[0]] | sets[pair[1]]))
            for pair in combinations(sorted(sets), 2)
            if sets[pair[0]] & sets[pair[1]]
        }
        assert {
            tuple(sorted(each["segments"])): (each["both"], each["either"]) for each in report["overlaps"]
        } == expected
        for each in report["overlaps"]:
            assert each["jaccard"] == pytest.approx(each["both"] / each["either"], abs=1e-4)
        assert report["overlaps_total"] == len(expected)
        order = [each["jaccard"] for each in report["overlaps"]]
        assert order == sorted(order, reverse=True)
        assert (report["customers_total"], report["customers_scanned"], report["sampled"]) == (51, 51, False)
        assert report["empty"] == ["none"]
        assert report["tiny"] == ["c"]


async def test_duplicates(settings: Settings, frozen: FrozenClock) -> None:
    async with running_app(settings, frozen) as service:
        await only(
            service,
            one={"did": "e", "where": {"a": 1, "b": 2}},
            same={"where": {"b": 2.0, "a": 1}, "did": "e"},
            near={"any": [{"did": "e"}, {"did": "f"}]},
            other={"did": "g"},
        )
        await service.send(*[track("e", f"user-{n}", properties={"a": 1, "b": 2}) for n in range(95)])
        await service.send(*[track("f", f"user-{n}") for n in range(95, 100)], track("g", "user-0"))
        await run_worker(service)
        report = await service.ask("/v1/segment-health")
        assert [sorted(pair) for pair in report["near_duplicates"]] == [
            ["one", "same"],
            ["near", "one"],
            ["near", "same"],
        ]
        assert [sorted(keys) for keys in report["same_meaning"]] == [["one", "same"]]


async def test_who_is_read(settings: Settings, frozen: FrozenClock) -> None:
    async with running_app(settings, frozen) as service:
        await only(service, listed={"did": "e"}, counted={"did": "e"}, unread={"did": "e"})
        await service.send(track("e"))
        await run_worker(service)
        await grow_old(service)
        assert (await service.ask("/v1/segment-health"))["never_read"] == ["counted", "listed", "unread"]
        await members(service, "listed")
        frozen.instant += 5
        await service.ask("/v1/segments/counted/count")
        await service.ask("/v1/segments/counted/count")
        await service.ask("/v1/segments/none/count", 404)
        report = await service.ask("/v1/segment-health")
        assert report["never_read"] == ["unread"]
        assert {each["key"]: (each["reads"], each["last_read_at"]) for each in report["segments"]} == {
            "counted": (2, rfc3339(NOON + 5)),
            "listed": (1, rfc3339(NOON)),
            "unread": (0, None),
        }
    async with running_app(settings, frozen) as again:
        again.keys = service.keys
        await again.ask("/v1/segments/counted/count")
        assert (
            await again.app.state.services.pool.fetchval("SELECT reads FROM segment_reads WHERE key = 'counted'")
        ) == 2
    async with running_app(settings, frozen) as third:
        third.keys = service.keys
        counted = next(each for each in (await third.ask("/v1/segment-health"))["segments"] if each["key"] == "counted")
        assert counted["reads"] == 3, "what was counted is written down at the end"


async def test_what_no_longer_moves(settings: Settings, frozen: FrozenClock) -> None:
    async with running_app(settings, frozen) as service:
        await only(service, old={"did": "e"}, left={"did": "e", "within": "30d"}, never={"did": "x"}, new={"did": "f"})
        await service.send(
            track("e", timestamp=rfc3339(NOON - 100 * DAY)), track("f", timestamp=rfc3339(NOON - 5 * DAY))
        )
        await run_worker(service)
        await grow_old(service)
        report = await service.ask("/v1/segment-health")
        moved = {each["key"]: each["last_changed_at"] for each in report["segments"]}
        assert moved == {
            "old": rfc3339(NOON - 100 * DAY),
            "left": rfc3339(NOON - 70 * DAY),
            "never": None,
            "new": rfc3339(NOON - 5 * DAY),
        }
        assert report["stale"] == ["never", "old"]
        frozen.instant += 20 * DAY
        assert (await service.ask("/v1/segment-health"))["stale"] == ["left", "never", "old"]


async def test_a_large_base_is_sampled(
    settings: Settings, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.insight.segment_health, "SAMPLE_CUSTOMERS", 100)
    async with running_app(settings, frozen) as service:
        await only(service, a={"did": "e"}, b={"not": {"did": "f"}})
        await service.send(*[track("e", f"user-{n}") for n in range(400)])
        await run_worker(service)
        report = await service.ask("/v1/segment-health")
        assert (report["sampled"], report["customers_total"]) == (True, 400)
        assert report["customers_scanned"] == 100
        (overlap,) = report["overlaps"]
        assert overlap["both"] == overlap["either"] == 100
        assert {each["members"] for each in report["segments"]} == {400}


async def test_nothing_is_held_against_what_is_filled_or_young(settings: Settings, frozen: FrozenClock) -> None:
    async with running_app(settings, frozen) as service:
        await service.send(track("e", timestamp=rfc3339(NOON - 100 * DAY)))
        await only(service, s={"did": "e"}, none={"did": "never"})

        async def flags() -> dict[str, tuple[bool, list[str]]]:
            report = await service.ask("/v1/segment-health")
            for flag in ("empty", "tiny", "never_read", "stale"):
                assert report[flag] == [each["key"] for each in report["segments"] if flag in each["flags"]]
            return {each["key"]: (each["filled"], each["flags"]) for each in report["segments"]}

        await grow_old(service)
        assert await flags() == {"s": (False, []), "none": (False, [])}
        await run_worker(service)
        old = {"s": (True, ["tiny", "never_read", "stale"]), "none": (True, ["empty", "never_read", "stale"])}
        assert await flags() == old
        pool = service.app.state.services.pool
        await pool.execute("UPDATE rule_numbers SET introduced_at = $1", NOON - 89 * DAY)
        assert await flags() == {"s": (True, ["tiny"]), "none": (True, ["empty"])}
        # A new one is filled while the others stay as they are.
        await grow_old(service)
        await service.tell("POST", "/v1/segments", {"key": "new", "rule": {"did": "g"}}, 201)
        assert await flags() == {**old, "new": (False, [])}


async def test_many_segments_leave_the_others_their_turn() -> None:
    """Half a million pairs: the most alike, as a slow count finds them, and no long pause of the loop on the way."""
    chance = random.Random(4)
    customers = range(app.insight.segment_health.SAMPLE_CUSTOMERS)
    sets = {f"s{n:03}": sum(1 << each for each in chance.sample(customers, 60)) for n in range(1_000)}
    pauses = []

    async def beat() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            pauses.append(now - last)
            last = now

    beating = asyncio.create_task(beat())
    began = time.process_time()
    overlaps, total = await app.insight.segment_health._find_overlaps(sets)
    took = time.process_time() - began
    beating.cancel()
    assert len(pauses) >= 900
    assert sorted(pauses)[-10] < 0.05, "ten may be pauses of the machine"
    assert took < 4, "it takes about half a second"
    expected = sorted(
        (-both / (one_more.bit_count() + other.bit_count() - both), (key, other_key))
        for (key, one_more), (other_key, other) in combinations(sets.items(), 2)
        if (both := (one_more & other).bit_count())
    )
    assert total == len(expected) > app.insight.segment_health.OVERLAPS_MAX
    assert [each.segments for each in overlaps] == [
        pair for _, pair in expected[: app.insight.segment_health.OVERLAPS_MAX]
    ]
    assert all(each.jaccard == round(each.both / each.either, 4) for each in overlaps)


async def test_no_overlaps() -> None:
    assert await app.insight.segment_health._find_overlaps({}) == ([], 0)
    assert await app.insight.segment_health._find_overlaps({"a": 0b0011, "b": 0b1100}) == ([], 0)


async def test_no_key_of_a_segment_is_in_the_way_of_the_report(service: RunningApp) -> None:
    for key in ("health", "hygiene", "segment-health"):
        await service.tell("POST", "/v1/segments", {"key": key, "rule": {"everyone": True}}, 201)
        assert (await service.ask(f"/v1/segments/{key}"))["key"] == key
    assert (await service.ask("/v1/segment-health"))["customers_total"] == 0
