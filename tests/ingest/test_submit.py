"""Tests of the ingestion pipeline with a database: erasures, hooks, tracking plan and counts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest

from app.errors import Overloaded
from app.formats import segment
from app.ingest import group_commit, submit
from app.ingest.erasure_queue import queue_erasures
from app.ingest.event_log import append_messages
from app.ingest.pending_request import Receipt
from app.ingest.submit import Submission
from app.postgres.pool import transact
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
"""Steps of the transaction: name in :mod:`app.ingest.group_commit` -> function"""


class Poison(Exception):
    """Simulated bug that a message triggers."""


def viewed(number: int, **members: Any) -> dict[str, Any]:
    message = item(SentMessage(NOW - SECOND, f"m{number}", "track", {"user_id": f"u{number}"}, name="viewed"))
    return message | members


@pytest.fixture
async def pipeline(database_url: str) -> AsyncIterator[Pipeline]:
    async with running_pipeline(database_url, NOW) as pipeline:
        yield pipeline


async def send(
    pipeline: Pipeline, messages: Sequence[dict[str, Any]], erased: Sequence[str] = (), **options: Any
) -> Receipt:
    """Submit messages, and requests to erase the users in ``erased``."""
    body = json.dumps({"batch": list(messages)}).encode()
    envelope = segment.read(body, "batch", pipeline.settings.limits)
    envelope.erasures = [("user_id", user) for user in erased]
    source = pipeline.registry.access.current.sources["default"]
    return await pipeline.ingest.submit(
        Submission(source=source, envelope=envelope, received_at=NOW, size_bytes=len(body), **options)
    )


async def list_queued(pipeline: Pipeline) -> list[str]:
    rows = await pipeline.pool.fetch("SELECT value FROM erasure_requests ORDER BY value")
    return [row["value"] for row in rows]


async def count(pipeline: Pipeline, table: str) -> int:
    number: int = await pipeline.pool.fetchval(f"SELECT count(*) FROM {table}")
    return number


def fail_after(step: Callable[..., Awaitable[Any]], error: Exception) -> Callable[..., Awaitable[Any]]:
    """Return a step that runs as usual and then raises ``error``, so that the transaction fails after it."""

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


# ------------------------------------------------------------------------------------------ erasures


async def test_erasure_is_queued_with_the_messages_of_its_request(pipeline: Pipeline) -> None:
    receipt = await send(pipeline, [viewed(1)], ["u9", "u8", "u9"])
    assert (receipt.accepted, receipt.erasures) == (1, 2)
    assert await list_queued(pipeline) == ["u8", "u9"]
    assert (await send(pipeline, [], ["u7"])).erasures == 1
    assert await list_queued(pipeline) == ["u7", "u8", "u9"]


@pytest.mark.parametrize("step", STEPS)
async def test_erasure_is_not_queued_if_the_transaction_fails(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    with monkeypatch.context() as patched:
        lost = ConnectionResetError("the database went away")
        patched.setattr(group_commit, step, fail_after(STEPS[step], lost))
        with pytest.raises(Overloaded):
            await send(pipeline, [viewed(1)], ["u9"])
    assert await list_queued(pipeline) == []
    assert await count(pipeline, "touchpoints") == 0
    assert (await send(pipeline, [viewed(1)], ["u9"])).accepted == 1
    assert await list_queued(pipeline) == ["u9"]


async def test_erasure_is_queued_once_if_a_message_fails_alone(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flush is bisected. The failing message is deferred; the other messages and the erasure request are stored."""

    async def fail_on_m3(connection: Any, messages: Any, *rest: Any) -> Any:
        if any(message.message_id == "m3" for message in messages):
            raise Poison
        return await project_messages(connection, messages, *rest)

    monkeypatch.setattr(group_commit, "project_messages", fail_on_m3)
    receipt = await send(pipeline, [viewed(number) for number in range(8)], ["u9"])
    assert (receipt.accepted, receipt.projected, receipt.erasures) == (8, False, 1)
    assert await list_queued(pipeline) == ["u9"]
    assert await count(pipeline, "deferred") == 1


@pytest.mark.parametrize("retry_fails", [True, False])
async def test_erasure_is_not_queued_if_the_second_attempt_fails(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, retry_fails: bool
) -> None:
    """A bug makes the flush repeat in smaller transactions. During these, the database becomes unreachable."""
    errors = iter([Poison(), ConnectionResetError("the database went away")] if retry_fails else [Poison()])

    async def fail(*arguments: Any) -> Any:
        if (error := next(errors, None)) is not None:
            raise error
        return await project_messages(*arguments)

    monkeypatch.setattr(group_commit, "project_messages", fail)
    rejected = viewed(2, event="")
    if retry_fails:
        with pytest.raises(Overloaded):
            await send(pipeline, [viewed(1), rejected], ["u9"])
        assert (await list_queued(pipeline), await count(pipeline, "quarantine")) == ([], 0)
    receipt = await send(pipeline, [viewed(1), rejected], ["u9"])
    assert (receipt.accepted, receipt.rejected, receipt.erasures) == (1, 1, 1)
    assert (await list_queued(pipeline), await count(pipeline, "quarantine")) == (["u9"], 1)


async def test_dry_run_queues_and_stores_nothing(pipeline: Pipeline) -> None:
    body = json.dumps({"batch": [viewed(1), viewed(2, event="")]}).encode()
    envelope = segment.read(body, "batch", pipeline.settings.limits)
    envelope.erasures = [("user_id", "u9")]
    source = pipeline.registry.access.current.sources["default"]
    dry_run = await pipeline.ingest.dry_run(
        Submission(source=source, envelope=envelope, received_at=NOW, size_bytes=len(body))
    )
    assert (dry_run.receipt.accepted, dry_run.receipt.rejected, dry_run.receipt.erasures) == (1, 1, 1)
    assert [message.message_id for message in dry_run.messages] == ["m1"]
    await pipeline.ingest.source_stats.flush()
    for table in ("touchpoints", "ledger", "quarantine", "erasure_requests", "source_outcomes", "source_volumes"):
        assert await count(pipeline, table) == 0, table
    assert counters(pipeline) == {}


# ------------------------------------------------------------------------------------------ hooks


@pytest.fixture
def steps(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Append ``commit`` to a list at each COMMIT of a flush, and ``hook`` at each call of the hook."""
    happened: list[str] = []

    async def observed(*arguments: Any) -> Any:
        result = await transact(*arguments)
        happened.append("commit")
        return result

    monkeypatch.setattr(group_commit, "transact", observed)
    pipeline.ingest.after_commit.append(lambda: happened.append("hook"))
    return happened


async def test_hook_runs_once_after_the_commit_of_a_flush(pipeline: Pipeline, steps: list[str]) -> None:
    await send(pipeline, [viewed(number) for number in range(5)], ["u9"])
    assert steps == ["commit", "hook"]


async def test_hook_runs_once_for_requests_that_share_a_flush(pipeline: Pipeline, steps: list[str]) -> None:
    await asyncio.gather(*(send(pipeline, [viewed(number)]) for number in range(50)))
    assert steps == ["commit", "hook"] * (len(steps) // 2)
    assert len(steps) <= 4


async def test_hook_runs_before_the_response(pipeline: Pipeline, steps: list[str]) -> None:
    await send(pipeline, [viewed(1)])
    steps.append("answer")
    assert steps == ["commit", "hook", "answer"]


@pytest.mark.parametrize(
    ("messages", "erased"),
    [([viewed(1)], []), ([viewed(2, event="")], []), ([], ["u9"]), ([], [])],
    ids=["duplicate", "rejected", "erasure", "nothing"],
)
async def test_hook_does_not_run_if_no_message_is_stored(
    pipeline: Pipeline, steps: list[str], messages: list[dict[str, Any]], erased: list[str]
) -> None:
    await send(pipeline, [viewed(1)])
    steps.clear()
    await send(pipeline, messages, erased)
    assert "hook" not in steps


@pytest.mark.parametrize("step", STEPS)
async def test_hook_does_not_run_if_the_transaction_fails(
    pipeline: Pipeline, steps: list[str], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(group_commit, step, fail_after(STEPS[step], OSError("the database went away")))
    with pytest.raises(Overloaded):
        await send(pipeline, [viewed(1)], ["u9"])
    assert steps == []


async def test_hook_runs_once_for_a_bisected_flush(
    pipeline: Pipeline, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail_on_m3(connection: Any, messages: Any, *rest: Any) -> Any:
        if any(message.message_id == "m3" for message in messages):
            raise Poison
        return await project_messages(connection, messages, *rest)

    monkeypatch.setattr(group_commit, "project_messages", fail_on_m3)
    assert (await send(pipeline, [viewed(number) for number in range(8)])).accepted == 8
    assert steps[0] == "commit"
    assert (steps.count("hook"), steps[-1]) == (1, "hook")


async def test_hook_runs_if_a_part_of_the_flush_is_committed(
    pipeline: Pipeline, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first half of a bisected flush is committed before the database becomes unreachable.

    Readers must learn of it.
    """
    errors = iter([Poison(), None, OSError("the database went away")])

    async def fail(*arguments: Any) -> Any:
        if (error := next(errors)) is not None:
            raise error
        return await project_messages(*arguments)

    monkeypatch.setattr(group_commit, "project_messages", fail)
    with pytest.raises(Overloaded):
        await send(pipeline, [viewed(1), viewed(2)])
    assert steps == ["commit", "hook"]
    assert await count(pipeline, "touchpoints") == 1
    assert counters(pipeline) == {
        "segue_messages_total{'outcome': 'accepted'}": 1,
        "segue_source_outcomes_total{'source': 'default', 'outcome': 'accepted'}": 1,
    }


async def test_failed_counting_does_not_stop_hook_or_response(
    pipeline: Pipeline, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise Poison

    monkeypatch.setattr(pipeline.ingest.source_stats, "count_accepted", fail)
    assert (await send(pipeline, [viewed(1)])).accepted == 1
    assert steps == ["commit", "hook"]


async def test_failing_hook_stops_neither_the_request_nor_the_other_hooks(pipeline: Pipeline) -> None:
    called: list[str] = []

    def fail() -> None:
        raise Poison

    pipeline.ingest.after_commit += [fail, lambda: called.append("next hook")]
    assert (await send(pipeline, [viewed(1)])).accepted == 1
    assert called == ["next hook"]
    assert counters(pipeline)["segue_messages_total{'outcome': 'accepted'}"] == 1


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
    assert counters(pipeline)["segue_plan_violations_total{'mode': 'warn'}"] == 2, (
        "a duplicate is not counted as a violation again"
    )


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
