"""The definitions of docs/support.md are taken as they stand, and say of customers what the page says."""

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


def _said(days: float, event: str, **properties: Any) -> dict[str, Any]:
    at = rfc3339(NOON + int(days * DAY))
    return {"type": "track", "event": event, "userId": "user-1", "timestamp": at, "properties": properties}


async def _in(service: RunningApp) -> set[str]:
    return {each["key"] for each in (await service.ask("/v1/customers/user-1"))["segments"]}


async def test_the_definitions(settings: Any) -> None:
    clock = FrozenClock(NOON + 100 * DAY)
    async with running_app(settings, clock) as service:
        for each in _blocks():
            if "value" in each:
                await service.tell("POST", "/v1/traits", each, 201)
            elif "rule" in each:
                await service.tell("POST", "/v1/segments", each, 201)
        await service.send(
            _said(99.05, "ticket.created", ticket_id="1"), _said(99.1, "csat.submitted", rating=1, scale=5)
        )
        assert {"unhappy-now"} <= await _in(service)
        assert "kept-waiting" not in await _in(service)
        clock.instant += int(0.1 * DAY)
        assert {"unhappy-now", "kept-waiting"} <= await _in(service)
        await service.send(
            _said(100.05, "ticket.replied_by_agent", ticket_id="1"), _said(100.06, "csat.submitted", rating=5, scale=5)
        )
        assert not {"unhappy-now", "kept-waiting"} & await _in(service)


def test_the_estimate_that_is_shown_has_the_shape_of_one() -> None:
    (shown,) = (each for each in _blocks() if "sentiment" in each)
    found = estimate_sentiment("I am furious, this is the worst shop and I am afraid my money is gone.")
    assert found is not None
    assert set(shown) == set(found)
    assert shown["note"] == found["note"]
