"""The examples of ``docs/data-quality.md`` run, and its numbers match the constants of the code."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import get_args

import pytest

from app.config import Settings
from app.data_quality import volume_anomalies
from app.data_quality.source_health import EVENTS_PER_SOURCE
from app.ingest.source_stats import KEEP_DAYS, NAMES_MAX
from app.tracking_plan import event_schema
from tests.docs.markdown import ROOT, blocks, in_first_column, read
from tests.support.running_app import RunningApp, running_app, track

PAGE = ROOT / "docs" / "data-quality.md"
ENTRY, REPLAY = (json.loads(text) for language, text in blocks(PAGE) if language == "json")


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[RunningApp]:
    async with running_app(settings) as app:
        yield app


async def test_examples_of_the_page(service: RunningApp) -> None:
    good = {"total": 5, "currency": "EUR", "products": [{"sku": "a"}]}
    path = "/v1/tracking-plan/Order%20Completed"
    assert (await service.tell("PUT", path, ENTRY))["schema"] == ENTRY["schema"]
    receipt = await service.send(track("Order Completed", properties=good), track("Order Completed"))
    assert [warning["code"] for warning in receipt["warnings"]] == ["tracking_plan"]
    await service.tell("PUT", path, {**ENTRY, "mode": "quarantine"})
    await service.send(track("Order Completed", properties={"value": 7}), expected=0)
    trial = await service.tell("POST", "/v1/quarantine/replay", REPLAY)
    assert json.loads(trial["items"][0]["patched"])["properties"] == {"total": 7, "currency": "EUR"}
    replay = await service.tell("POST", "/v1/quarantine/replay", {**REPLAY, "dry_run": False})
    assert (trial["accepted"], replay["accepted"]) == (1, 1)


def test_anomaly_kinds_and_plan_modes_are_listed() -> None:
    listed = in_first_column(PAGE)
    assert {*get_args(volume_anomalies.AnomalyKind), *get_args(event_schema.Mode)} == listed


def test_numbers_are_those_of_the_code() -> None:
    text = read(PAGE)
    for number in (
        f"at most {event_schema.SAMPLE_BYTES_MAX:,} bytes",
        f"at most {event_schema.SCHEMA_BYTES_MAX:,} bytes and {event_schema.SCHEMA_LEVELS_MAX} levels",
        f"at most {event_schema.NODES_MAX:,} schemas",
        f"(at most {volume_anomalies.SILENT_HOURS_MAX}) {volume_anomalies.SILENCE_MESSAGES} messages or more",
        f"at least {volume_anomalies.JUMP_MESSAGES} messages more than expected, "
        f"at least {volume_anomalies.JUMP_FACTOR} times",
        f"more than {NAMES_MAX:,} pairs",
        f"its {EVENTS_PER_SOURCE} most frequent events",
        f"more than {KEEP_DAYS} days ago",
    ):
        assert number in text, number
