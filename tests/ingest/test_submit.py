"""The one way in against a database: when erasures are queued, hooks run, the plan is checked and receipts count."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest

from app.errors import Overloaded
from app.formats import segment
from app.ingest import group_commit, submit
from app.ingest.erasure_queue import queue_erasures
from app.ingest.event_log import append_messages
from app.ingest.group_commit import Receipt
from app.ingest.submit import Submission
from app.projection.project import project_messages
from app.touchpoint import SECOND
from app.tracking_plan.check import check_plan
from tests.support.pipeline import Pipeline, item, running_pipeline
from tests.support.reference_model import SentMessage

NOW = 1_760_000_000_000_000
PLANNED = b'{"type": "object", "required": ["total"]}'

STEPS: dict[str, Callable[..., Awaitable[Any]]] = {
    "append_messages": append_messages,
    "queue_erasures": queue_erasures,
    "project_messages": project_messages,
}
"""Steps of the transaction, by their names in :mod:`app.ingest.group_commit`."""


class Poison(Exception):
    """Stands for a bug that a message sets off."""


def viewed(number: int, **members: Any) -> dict[str, Any]:
    message = item(SentMessage(NOW - SECOND, f"m{number}", "track", {"user_id": f"u{number}"}, name="viewed"))
    return message | members


@pytest.fixture
async def pipeline(database_url: str) -> AsyncIterator[Pipeline]:
    async with running_pipeline(database_url, NOW) as one:
        yield one


async def send(
    pipeline: Pipeline, messages: Sequence[dict[str, Any]], erased: Sequence[str] = (), **options: Any
) -> Receipt:
    """Submit messages together with requests to erase those users."""
    body = json.dumps({"batch": list(messages)}).encode()
    envelope = segment.read(body, "batch", pipeline.settings.limits)
    envelope.erasures = [("user_id", user) for user in erased]
    source = pipeline.registry.access.current.sources["default"]
    return await pipeline.ingest.submit(
        Submission(source=source, envelope=envelope, received_at=NOW, size_bytes=len(body), **options)
    )


async def queued(pipeline: Pipeline) -> list[str]:
    rows = await pipeline.pool.fetch("SELECT value FROM erasure_requests ORDER BY value")
    return [row["value"] for row in rows]


async def count(pipeline: Pipeline, table: str) -> int:
    number: int = await pipeline.pool.fetchval(f"SELECT count(*) FROM {table}")
    return number


def fail_after(step: Callable[..., Awaitable[Any]], error: Exception) -> Callable[..., Awaitable[Any]]:
    """Do the step, and fail before the transaction goes on."""

    async def fail(*arguments: Any) -> Any:
        await step(*arguments)
        raise error

    return fail


def counters(pipeline: Pipeline) -> dict[str, int]:
    return {
        f"{sample.name}{sample.labels}": int(sample.value)
        for family in pipeline.metrics._registry.collect()
        for sample in family.samples
        if sample.name.endswith("_total") and sample.value
    }


# ------------------------------------------------------------------------------------------ plan and counts


async def test_plan_is_checked_once_per_message(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []

    def observed(plan: Any, parsed: Any) -> Any:
        checked.extend(message.message_id for _, message in parsed.messages)
        return check_plan(plan, parsed)

    monkeypatch.setattr(submit, "check_plan", observed)
    await pipeline.registry.plans.put("", "viewed", "warn", json.loads(PLANNED))
    receipt = await send(pipeline, [viewed(1), viewed(2, properties={"total": 1}), viewed(1), viewed(3)])
    assert checked == ["m1", "m2", "m1", "m3"]
    assert [warning.message_id for warning in receipt.warnings] == ["m1", "m1", "m3"]
    assert counters(pipeline)["segue_plan_violations_total{'mode': 'warn'}"] == 2, "a duplicate violates no second time"


async def test_violation_is_counted_once_if_its_flush_is_bisected(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> Any:
        raise Poison

    monkeypatch.setattr(group_commit, "project_messages", fail)
    await pipeline.registry.plans.put("", "viewed", "warn", json.loads(PLANNED))
    receipt = await send(pipeline, [viewed(1), viewed(2), viewed(3)])
    assert (receipt.accepted, len(receipt.warnings)) == (3, 3)
    assert counters(pipeline)["segue_plan_violations_total{'mode': 'warn'}"] == 3
    assert counters(pipeline)["segue_messages_total{'outcome': 'accepted'}"] == 3


async def test_replay_that_is_rejected_again_counts_and_is_not_quarantined(pipeline: Pipeline) -> None:
    receipt = await send(pipeline, [viewed(1, event="")], is_replay=True)
    assert receipt.rejected == 1
    assert counters(pipeline) == {
        "segue_messages_total{'outcome': 'rejected'}": 1,
        "segue_rejections_total{'code': 'missing_event'}": 1,
        "segue_source_outcomes_total{'source': 'default', 'outcome': 'rejected'}": 1,
    }
    assert await count(pipeline, "quarantine") == 0


async def test_ignored_events_count_once_their_request_is_stored(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    ignored = "segue_source_outcomes_total{'source': 'default', 'outcome': 'ignored'}"
    with monkeypatch.context() as patched:
        patched.setattr(group_commit, "append_messages", fail_after(append_messages, OSError("the database went away")))
        with pytest.raises(Overloaded):
            await send(pipeline, [viewed(1)], ignored=3)
        assert counters(pipeline) == {}
    await send(pipeline, [viewed(1)], ignored=3)
    assert counters(pipeline)[ignored] == 3
    await send(pipeline, [], ignored=1)
    assert counters(pipeline)[ignored] == 4
