"""Segment health report, compared with figures from member lists."""

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


async def define_only(service: RunningApp, **rules: Any) -> None:
    for segment in (await service.ask("/v1/segments"))["items"]:
        await service.tell("DELETE", f"/v1/segments/{segment['key']}")
    for key, rule in rules.items():
        await service.tell("POST", "/v1/segments", {"key": key.replace("_", "-"), "rule": rule}, 201)


async def age_definitions(service: RunningApp) -> None:
    """Set the introduction of all definitions to a year ago."""
    await service.app.state.services.pool.execute("UPDATE rule_numbers SET introduced_at = $1", NOON - 365 * DAY)


async def members(service: RunningApp, key: str) -> set[str]:
    return {member["id"] for member in await service.all_of(f"/v1/segments/{key}/members")}


async def test_overlaps_match_the_member_lists(settings: Settings, clock: FrozenClock) -> None:
    rng = random.Random(11)
    async with running_app(settings, clock) as service:
        await define_only(
            service,
            a={"did": "a"},
            b={"did": "b"},
            a_or_b={"any": [{"did": "a"}, {"did": "b"}]},
            c={"did": "c"},
            none={"did": "never"},
            all={"everyone": True},
        )
        messages = [track(rng.choice("aabd"), f"user-{n % 50}", messageId=f"m-{n}") for n in range(120)]
        await service.send(*messages, track("c", "user-50"))
        await run_worker(service)
        report = await service.ask("/v1/segment-health")
        sets = {segment["key"]: await members(service, segment["key"]) for segment in report["segments"]}
        assert sorted(sets) == ["a", "a-or-b", "all", "b", "c", "none"]
        assert {segment["key"]: segment["members"] for segment in report["segments"]} == {
            k: len(v) for k, v in sets.items()
        }
        expected = {
            pair: (len(sets[pair[0]] & sets[pair[1]]), len(sets[pair[0]] | sets[pair[1]]))
            for pair in combinations(sorted(sets), 2)
            if sets[pair[0]] & sets[pair[1]]
        }
        assert {
            tuple(sorted(overlap["segments"])): (overlap["both"], overlap["either"]) for overlap in report["overlaps"]
        } == expected
        for overlap in report["overlaps"]:
            assert overlap["jaccard"] == pytest.approx(overlap["both"] / overlap["either"], abs=1e-4)
        assert report["overlaps_total"] == len(expected)
        order = [overlap["jaccard"] for overlap in report["overlaps"]]
        assert order == sorted(order, reverse=True)
        assert (report["customers_total"], report["customers_scanned"], report["sampled"]) == (51, 51, False)
        assert report["empty"] == ["none"]
        assert report["tiny"] == ["c"]


async def test_near_duplicates_and_same_meaning(settings: Settings, clock: FrozenClock) -> None:
    async with running_app(settings, clock) as service:
        await define_only(
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


async def test_reads_of_segments_are_counted(settings: Settings, clock: FrozenClock) -> None:
    async with running_app(settings, clock) as service:
        await define_only(service, listed={"did": "e"}, counted={"did": "e"}, unread={"did": "e"})
        await service.send(track("e"))
        await run_worker(service)
        await age_definitions(service)
        assert (await service.ask("/v1/segment-health"))["never_read"] == ["counted", "listed", "unread"]
        await members(service, "listed")
        clock.instant += 5
        await service.ask("/v1/segments/counted/count")
        await service.ask("/v1/segments/counted/count")
        await service.ask("/v1/segments/none/count", 404)
        report = await service.ask("/v1/segment-health")
        assert report["never_read"] == ["unread"]
        assert {segment["key"]: (segment["reads"], segment["last_read_at"]) for segment in report["segments"]} == {
            "counted": (2, rfc3339(NOON + 5)),
            "listed": (1, rfc3339(NOON)),
            "unread": (0, None),
        }
    async with running_app(settings, clock) as second:
        second.keys = service.keys
        await second.ask("/v1/segments/counted/count")
        assert (
            await second.app.state.services.pool.fetchval("SELECT reads FROM segment_reads WHERE key = 'counted'")
        ) == 2
    async with running_app(settings, clock) as third:
        third.keys = service.keys
        segment = next(
            segment for segment in (await third.ask("/v1/segment-health"))["segments"] if segment["key"] == "counted"
        )
        assert segment["reads"] == 3, "a stopping service stores its counts"


async def test_stale_segments(settings: Settings, clock: FrozenClock) -> None:
    async with running_app(settings, clock) as service:
        await define_only(
            service, old={"did": "e"}, left={"did": "e", "within": "30d"}, never={"did": "x"}, new={"did": "f"}
        )
        await service.send(
            track("e", timestamp=rfc3339(NOON - 100 * DAY)), track("f", timestamp=rfc3339(NOON - 5 * DAY))
        )
        await run_worker(service)
        await age_definitions(service)
        report = await service.ask("/v1/segment-health")
        last_changed = {segment["key"]: segment["last_changed_at"] for segment in report["segments"]}
        assert last_changed == {
            "old": rfc3339(NOON - 100 * DAY),
            "left": rfc3339(NOON - 70 * DAY),
            "never": None,
            "new": rfc3339(NOON - 5 * DAY),
        }
        assert report["stale"] == ["never", "old"]
        clock.instant += 20 * DAY
        assert (await service.ask("/v1/segment-health"))["stale"] == ["left", "never", "old"]


async def test_many_customers_are_sampled(
    settings: Settings, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.insight.segment_health, "SAMPLE_CUSTOMERS", 100)
    async with running_app(settings, clock) as service:
        await define_only(service, a={"did": "e"}, b={"not": {"did": "f"}})
        await service.send(*[track("e", f"user-{n}") for n in range(400)])
        await run_worker(service)
        report = await service.ask("/v1/segment-health")
        assert (report["sampled"], report["customers_total"]) == (True, 400)
        assert report["customers_scanned"] == 100
        (overlap,) = report["overlaps"]
        assert overlap["both"] == overlap["either"] == 100
        assert {segment["members"] for segment in report["segments"]} == {400}


async def test_flags_require_a_backfilled_and_old_definition(settings: Settings, clock: FrozenClock) -> None:
    async with running_app(settings, clock) as service:
        await service.send(track("e", timestamp=rfc3339(NOON - 100 * DAY)))
        await define_only(service, s={"did": "e"}, none={"did": "never"})

        async def flags() -> dict[str, tuple[bool, list[str]]]:
            report = await service.ask("/v1/segment-health")
            for flag in ("empty", "tiny", "never_read", "stale"):
                assert report[flag] == [segment["key"] for segment in report["segments"] if flag in segment["flags"]]
            return {segment["key"]: (segment["filled"], segment["flags"]) for segment in report["segments"]}

        await age_definitions(service)
        assert await flags() == {"s": (False, []), "none": (False, [])}
        await run_worker(service)
        expected = {"s": (True, ["tiny", "never_read", "stale"]), "none": (True, ["empty", "never_read", "stale"])}
        assert await flags() == expected
        pool = service.app.state.services.pool
        await pool.execute("UPDATE rule_numbers SET introduced_at = $1", NOON - 89 * DAY)
        assert await flags() == {"s": (True, ["tiny"]), "none": (True, ["empty"])}
        # During the backfill of a new segment, the other segments keep their flags.
        await age_definitions(service)
        await service.tell("POST", "/v1/segments", {"key": "new", "rule": {"did": "g"}}, 201)
        assert await flags() == {**expected, "new": (False, [])}


async def test_overlap_search_does_not_block_the_event_loop() -> None:
    """Half a million pairs of segments have the same overlaps as a slow count. The event loop never pauses for long."""
    rng = random.Random(4)
    customers = range(app.insight.segment_health.SAMPLE_CUSTOMERS)
    sets = {f"s{n:03}": sum(1 << place for place in rng.sample(customers, 60)) for n in range(1_000)}
    pauses = []

    async def measure_pauses() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            pauses.append(now - last)
            last = now

    heartbeat = asyncio.create_task(measure_pauses())
    start = time.process_time()
    overlaps, total = await app.insight.segment_health._find_overlaps(sets)
    seconds = time.process_time() - start
    heartbeat.cancel()
    assert len(pauses) >= 900
    assert sorted(pauses)[-10] < 0.05, "up to nine pauses may be caused by the machine"
    assert seconds < 4, "it takes about half a second"
    expected = sorted(
        (-both / (bits.bit_count() + other_bits.bit_count() - both), (key, other_key))
        for (key, bits), (other_key, other_bits) in combinations(sets.items(), 2)
        if (both := (bits & other_bits).bit_count())
    )
    assert total == len(expected) > app.insight.segment_health.OVERLAPS_MAX
    assert [overlap.segments for overlap in overlaps] == [
        pair for _, pair in expected[: app.insight.segment_health.OVERLAPS_MAX]
    ]
    assert all(overlap.jaccard == round(overlap.both / overlap.either, 4) for overlap in overlaps)


async def test_disjoint_segments_have_no_overlaps() -> None:
    assert await app.insight.segment_health._find_overlaps({}) == ([], 0)
    assert await app.insight.segment_health._find_overlaps({"a": 0b0011, "b": 0b1100}) == ([], 0)


async def test_segment_keys_do_not_collide_with_the_report(service: RunningApp) -> None:
    for key in ("health", "hygiene", "segment-health"):
        await service.tell("POST", "/v1/segments", {"key": key, "rule": {"everyone": True}}, 201)
        assert (await service.ask(f"/v1/segments/{key}"))["key"] == key
    assert (await service.ask("/v1/segment-health"))["customers_total"] == 0
