"""The report on all segments, against figures counted by hand."""

from __future__ import annotations

import random
from itertools import combinations
from typing import Any

import pytest

import app.views.hygiene
from app.config import Settings
from app.db import FrozenClock
from app.touchpoint import DAY
from app.wire.instants import rfc3339
from tests.api.conftest import NOON, Service, running, track
from tests.api.test_definitions import work


async def only(service: Service, **rules: Any) -> None:
    for each in (await service.ask("/v1/segments"))["items"]:
        await service.tell("DELETE", f"/v1/segments/{each['key']}")
    for key, rule in rules.items():
        await service.tell("POST", "/v1/segments", {"key": key.replace("_", "-"), "rule": rule}, 201)


async def members(service: Service, key: str) -> set[str]:
    return {each["id"] for each in await service.all_of(f"/v1/segments/{key}/members")}


async def test_overlaps(settings: Settings, frozen: FrozenClock) -> None:
    chance = random.Random(11)
    async with running(settings, frozen) as service:
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
        await work(service)
        report = await service.ask("/v1/segments/hygiene")
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
        order = [each["jaccard"] for each in report["overlaps"]]
        assert order == sorted(order, reverse=True)
        assert (report["customers_total"], report["customers_looked_at"], report["sampled"]) == (51, 51, False)
        assert report["empty"] == ["none"]
        assert report["tiny"] == ["c"]


async def test_duplicates(settings: Settings, frozen: FrozenClock) -> None:
    async with running(settings, frozen) as service:
        await only(
            service,
            one={"did": "e", "where": {"a": 1, "b": 2}},
            same={"where": {"b": 2.0, "a": 1}, "did": "e"},
            near={"any": [{"did": "e"}, {"did": "f"}]},
            other={"did": "g"},
        )
        await service.send(*[track("e", f"user-{n}", properties={"a": 1, "b": 2}) for n in range(95)])
        await service.send(*[track("f", f"user-{n}") for n in range(95, 100)], track("g", "user-0"))
        await work(service)
        report = await service.ask("/v1/segments/hygiene")
        assert [sorted(pair) for pair in report["near_duplicates"]] == [
            ["one", "same"],
            ["near", "one"],
            ["near", "same"],
        ]
        assert [sorted(keys) for keys in report["same_meaning"]] == [["one", "same"]]


async def test_who_is_read(settings: Settings, frozen: FrozenClock) -> None:
    async with running(settings, frozen) as service:
        await only(service, listed={"did": "e"}, counted={"did": "e"}, unread={"did": "e"})
        await service.send(track("e"))
        assert (await service.ask("/v1/segments/hygiene"))["never_read"] == ["counted", "listed", "unread"]
        await members(service, "listed")
        frozen.instant += 5
        await service.ask("/v1/segments/counted/count")
        await service.ask("/v1/segments/counted/count")
        await service.ask("/v1/segments/none/count", 404)
        report = await service.ask("/v1/segments/hygiene")
        assert report["never_read"] == ["unread"]
        assert {each["key"]: (each["reads"], each["last_read_at"]) for each in report["segments"]} == {
            "counted": (2, rfc3339(NOON + 5)),
            "listed": (1, rfc3339(NOON)),
            "unread": (0, None),
        }
    async with running(settings, frozen) as again:
        again.keys = service.keys
        await again.ask("/v1/segments/counted/count")
        assert (
            await again.app.state.services.pool.fetchval("SELECT reads FROM segment_reads WHERE key = 'counted'")
        ) == 2
    async with running(settings, frozen) as third:
        third.keys = service.keys
        counted = next(
            each for each in (await third.ask("/v1/segments/hygiene"))["segments"] if each["key"] == "counted"
        )
        assert counted["reads"] == 3, "what was counted is written down at the end"


async def test_what_no_longer_moves(settings: Settings, frozen: FrozenClock) -> None:
    async with running(settings, frozen) as service:
        await only(service, old={"did": "e"}, left={"did": "e", "within": "30d"}, never={"did": "x"}, new={"did": "f"})
        await service.send(
            track("e", timestamp=rfc3339(NOON - 100 * DAY)), track("f", timestamp=rfc3339(NOON - 5 * DAY))
        )
        await work(service)
        report = await service.ask("/v1/segments/hygiene")
        moved = {each["key"]: each["last_moved_at"] for each in report["segments"]}
        assert moved == {
            "old": rfc3339(NOON - 100 * DAY),
            "left": rfc3339(NOON - 70 * DAY),
            "never": None,
            "new": rfc3339(NOON - 5 * DAY),
        }
        assert report["stale"] == ["never", "old"]
        frozen.instant += 20 * DAY
        assert (await service.ask("/v1/segments/hygiene"))["stale"] == ["left", "never", "old"]


async def test_a_large_base_is_sampled(
    settings: Settings, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.views.hygiene, "SAMPLE_CUSTOMERS", 100)
    async with running(settings, frozen) as service:
        await only(service, a={"did": "e"}, b={"not": {"did": "f"}})
        await service.send(*[track("e", f"user-{n}") for n in range(400)])
        await work(service)
        report = await service.ask("/v1/segments/hygiene")
        assert (report["sampled"], report["customers_total"]) == (True, 400)
        assert 50 < report["customers_looked_at"] < 150
        (overlap,) = report["overlaps"]
        assert overlap["both"] == overlap["either"] == report["customers_looked_at"]
        assert {each["members"] for each in report["segments"]} == {400}


async def test_the_word_is_no_key(service: Service) -> None:
    answer = await service.tell("POST", "/v1/segments", {"key": "hygiene", "rule": {"everyone": True}}, 422)
    assert (answer["path"], answer["code"]) == ("/key", "invalid_definition")
    assert (await service.ask("/v1/segments/hygiene"))["customers_total"] == 0
