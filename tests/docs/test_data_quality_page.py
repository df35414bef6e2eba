"""The page on data quality does what it shows, and says the figures of the code."""

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
    async with running_app(settings) as one:
        yield one


async def test_the_examples(service: RunningApp) -> None:
    good = {"total": 5, "currency": "EUR", "products": [{"sku": "a"}]}
    path = "/v1/tracking-plan/Order%20Completed"
    assert (await service.tell("PUT", path, ENTRY))["schema"] == ENTRY["schema"]
    receipt = await service.send(track("Order Completed", properties=good), track("Order Completed"))
    assert [each["code"] for each in receipt["warnings"]] == ["tracking_plan"]
    await service.tell("PUT", path, {**ENTRY, "mode": "quarantine"})
    await service.send(track("Order Completed", properties={"value": 7}), expected=0)
    tried = await service.tell("POST", "/v1/quarantine/replay", REPLAY)
    assert json.loads(tried["items"][0]["patched"])["properties"] == {"total": 7, "currency": "EUR"}
    done = await service.tell("POST", "/v1/quarantine/replay", {**REPLAY, "dry_run": False})
    assert (tried["accepted"], done["accepted"]) == (1, 1)


def test_kinds_and_modes() -> None:
    told = in_first_column(PAGE)
    assert {*get_args(volume_anomalies.AnomalyKind), *get_args(event_schema.Mode)} == told


def test_figures() -> None:
    text = read(PAGE)
    for figure in (
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
        assert figure in text, figure
