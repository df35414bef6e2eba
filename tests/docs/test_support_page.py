"""The definitions of ``docs/support.md`` are valid, and select the customers that the page describes."""

from __future__ import annotations

import json
from typing import Any

from app.enrichment.sentiment import estimate_sentiment
from app.formats.timestamps import rfc3339
from app.postgres.pool import FrozenClock
from app.touchpoint import DAY
from tests.docs.markdown import ROOT, blocks
from tests.support.running_app import NOON, RunningApp, running_app

PAGE = ROOT / "docs" / "support.md"


def _blocks() -> list[dict[str, Any]]:
    return [json.loads(block.text) for block in blocks(PAGE) if block.language == "json"]


def _track(days: float, event: str, **properties: Any) -> dict[str, Any]:
    at = rfc3339(NOON + int(days * DAY))
    return {"type": "track", "event": event, "userId": "user-1", "timestamp": at, "properties": properties}


async def _segments_of_customer(service: RunningApp) -> set[str]:
    return {segment["key"] for segment in (await service.ask("/v1/customers/user-1"))["segments"]}


async def test_definitions_of_the_page_select_customers(settings: Any) -> None:
    clock = FrozenClock(NOON + 100 * DAY)
    async with running_app(settings, clock) as service:
        for definition in _blocks():
            if "value" in definition:
                await service.tell("POST", "/v1/traits", definition, 201)
            elif "rule" in definition:
                await service.tell("POST", "/v1/segments", definition, 201)
        await service.send(
            _track(99.05, "ticket.created", ticket_id="1"), _track(99.1, "csat.submitted", rating=1, scale=5)
        )
        assert {"unhappy-now"} <= await _segments_of_customer(service)
        assert "kept-waiting" not in await _segments_of_customer(service)
        clock.instant += int(0.1 * DAY)
        assert {"unhappy-now", "kept-waiting"} <= await _segments_of_customer(service)
        await service.send(
            _track(100.05, "ticket.replied_by_agent", ticket_id="1"),
            _track(100.06, "csat.submitted", rating=5, scale=5),
        )
        assert not {"unhappy-now", "kept-waiting"} & await _segments_of_customer(service)


def test_shown_estimate_has_the_fields_of_an_estimate() -> None:
    (block_of_page,) = (block for block in _blocks() if "sentiment" in block)
    estimate = estimate_sentiment("I am furious, this is the worst shop and I am afraid my money is gone.")
    assert estimate is not None
    assert set(block_of_page) == set(estimate)
    assert block_of_page["note"] == estimate["note"]
