"""Daily channel metrics over HTTP: rows are stored once, read in pages, and never part of a customer."""

from __future__ import annotations

import gzip
from typing import Any

import asyncpg
import pytest

from app.channel_metrics.parsers import METRIC_FORMATS
from app.config import Settings
from tests.support.running_app import RunningApp

FILE = (
    "day,channel,metric,value,subject\n"
    "2026-05-04,ads,spend,120.50,spring\n2026-05-04,ads,spend,79.5,summer\n"
    "2026-05-05,ads,spend,98,spring\n2026-05-05,ads,clicks,many,spring\n"
)


async def put(service: RunningApp, body: str | bytes, expected: int = 200, **params: str) -> Any:
    query = {"kind": "generic", "source": "default", **params}
    response = await service.client.post("/v1/channel-metrics", params=query, content=body, headers=service.secret)
    assert response.status_code == expected, response.text
    return response.json()


async def test_importing_a_file_twice_changes_nothing(service: RunningApp) -> None:
    first = await put(service, FILE)
    assert first == {
        "added": 3,
        "changed": 0,
        "unchanged": 0,
        "bad": 1,
        "bad_rows": [{"line": 5, "reason": "value is not a readable number: 'many'"}],
        "first": "2026-05-04",
        "last": "2026-05-05",
    }
    before = await service.ask("/v1/channel-metrics")
    again = await put(service, gzip.compress(FILE.encode()))
    assert (again["added"], again["changed"], again["unchanged"]) == (0, 0, 3)
    corrected = await put(service, FILE.replace("98", "99"))
    assert (corrected["added"], corrected["changed"], corrected["unchanged"]) == (0, 1, 2)
    after = await service.ask("/v1/channel-metrics")
    assert [item["value"] for item in before["items"]] == [120.5, 79.5, 98]
    assert [item["value"] for item in after["items"]] == [120.5, 79.5, 99]


async def test_metrics_create_no_customer_and_no_touchpoint(service: RunningApp, settings: Settings) -> None:
    for kind in METRIC_FORMATS.values():
        stored = await put(service, kind.sample, kind=kind.key, day="2026-05-04", subject="example.com")
        assert (stored["added"] > 0, stored["bad"]) == (True, 0)
    assert settings.database_url is not None
    connection = await asyncpg.connect(settings.database_url)
    try:
        for table in ("customers", "identities", "touchpoints", "ledger", "quarantine", "transitions"):
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0, table
        assert await connection.fetchval("SELECT count(*) FROM channel_metrics") > 0
    finally:
        await connection.close()


async def test_metrics_of_two_formats_of_one_source_are_separate(service: RunningApp) -> None:
    for kind, title in (("facebook_insights", "Facebook reach"), ("instagram_insights", "Instagram reach")):
        await put(service, f'sep=,\n"{title}"\n"Date","Primary"\n"2026-05-04T00:00:00","{len(kind)}"\n', kind=kind)
    answer = await service.ask("/v1/channel-metrics", params={"metric": "reach"})
    assert [(item["kind"], item["value"]) for item in answer["items"]] == [
        ("facebook_insights", 17),
        ("instagram_insights", 18),
    ]
    assert answer["totals"] == [
        {"day": "2026-05-04", "channel": "social", "metric": "reach", "sum": 35, "mean": 17.5, "values": 2}
    ]


async def test_pages_have_every_row_once_and_totals_of_whole_days(service: RunningApp) -> None:
    days = [f"2026-05-{day:02d}" for day in range(1, 8)]
    rows = [
        f"{day},ads,{metric},{n},{of}" for n, day in enumerate(days) for metric in ("a", "b") for of in ("x", "", "é")
    ]
    await put(service, "day,channel,metric,value,subject\n" + "\n".join(reversed(rows)))
    for size in (1, 4, 100):
        cursor, keys = None, []
        totals: dict[tuple[str, str], tuple[float, int]] = {}
        while True:
            params = {"limit": size, **({"cursor": cursor} if cursor else {})}
            page = await service.ask("/v1/channel-metrics", params=params)
            keys += [(item["day"], item["metric"], item["subject"]) for item in page["items"]]
            totals |= {(total["day"], total["metric"]): (total["sum"], total["values"]) for total in page["totals"]}
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert len(keys) == len(set(keys)) == len(rows)
        assert keys == sorted(keys, key=lambda item: item[:2])
        assert totals == {(day, metric): (3 * n, 3) for n, day in enumerate(days) for metric in ("a", "b")}


@pytest.mark.parametrize(
    ("params", "values"),
    [
        ({"from": "2026-05-05"}, [98]),
        ({"to": "2026-05-04"}, [120.5, 79.5]),
        ({"from": "2026-05-04", "to": "2026-05-04", "subject": "summer"}, [79.5]),
        ({"subject": ""}, []),
        ({"channel": "ads", "metric": "spend", "source": "default"}, [120.5, 79.5, 98]),
        ({"channel": "social"}, []),
        ({"source": "another"}, []),
    ],
)
async def test_metric_filters(service: RunningApp, params: dict[str, str], values: list[float]) -> None:
    await put(service, FILE)
    answer = await service.ask("/v1/channel-metrics", params=params)
    assert [item["value"] for item in answer["items"]] == values
    assert sum(total["sum"] for total in answer["totals"]) == sum(values)


async def test_invalid_metric_requests_are_refused(service: RunningApp) -> None:
    assert (await put(service, FILE, 404, source="nobody"))["code"] == "not_found"
    assert (await put(service, FILE, 422, kind="horoscope"))["code"]
    assert (await put(service, "nothing\n", 400))["code"] == "invalid_body"
    assert (await put(service, b"\x00\x01", 400))["code"] == "invalid_body"
    assert "day=" in (await put(service, "Keyword;Position\nshoes;1\n", 400, kind="semrush"))["message"]
    response = await service.client.post(
        "/v1/channel-metrics", params={"kind": "generic", "source": "default"}, content=FILE
    )
    assert response.status_code == 401
    for cursor in ("nonsense", "eyJhc19vZiI6MCwicGxhY2UiOlsieCIsIiIsIiIsIiIsIiIsIiJdfQ"):
        await service.ask("/v1/channel-metrics", 400, params={"cursor": cursor})
    for params in ({"from": "soon"}, {"metric": "a\0b"}):
        await service.ask("/v1/channel-metrics", 422, params=params)


async def test_formats_list_their_export_steps(service: RunningApp) -> None:
    answer = (await service.ask("/v1/channel-metrics/formats"))["items"]
    assert {item["key"] for item in answer} == set(METRIC_FORMATS)
    assert all(item["steps"] and item["sample"] for item in answer)
