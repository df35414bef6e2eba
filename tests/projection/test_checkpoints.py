"""Checkpoints: a late message of a long history is folded from a checkpoint, and the result equals a replay."""

from __future__ import annotations

import asyncio
import itertools
from random import Random
from typing import Any

import pytest

from app.errors import NotFound
from app.postgres.pool import Connection
from app.projection import backfill, checkpoints, log_replay, project, replays, state_limits
from app.projection.checkpoints import AGE_MAX, find_surplus
from app.queries.customers import CustomerQueries
from app.rules.engine import point_series
from app.touchpoint import HOUR, Identity
from tests.projection.test_regressions import T0, count_differing, run_scenario, stored_intervals, track
from tests.support.pipeline import Pipeline, item, running_pipeline
from tests.support.reference_model import Definitions, SentMessage, intervals

SCENARIOS = 12

DEFINITIONS = Definitions(
    segments={
        "lately": {"did": "A", "within": "5h"},
        "not-lately": {"not": {"did": "A", "within": "9h"}},
        "twice-long-ago": {"did": "A", "at_least": 2, "before": "10h"},
        "few": {"did": ["A", "B"], "exactly": 2, "within": "1d", "before": "2h"},
        "spends": {"sum": "v", "of": "A", "within": "12h", "gte": 4},
        "average": {"avg": "v", "of": "A", "within": "30h", "before": "1h", "gte": 2},
        "peak": {"max": "v", "of": "A", "within": "15h", "gte": 3},
        "colours": {"distinct": "v", "of": "A", "within": "20h", "gte": 3},
        "in-order": {"sequence": [{"did": "A"}, {"did": "B", "within": "7h"}, {"did": "C"}], "within": "3d"},
        "monthly": {"did": "A", "at_least": 5, "within": "1mo"},
        "often": {"regularly": "A", "at_least": 2, "of_last": 3, "period": "day"},
        "gold": {"trait": "plan", "eq": "gold"},
    },
    journeys={
        "main": [
            ("awareness", {"did": "*"}),
            ("decision", {"did": "B", "at_least": 2, "within": "1d"}),
            ("loyalty", {"did": "A", "at_least": 3, "within": "2d"}),
        ]
    },
)


@pytest.fixture
def short_histories_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every few messages make a checkpoint, a long series and a long replay."""
    for module in (checkpoints, project, replays):
        monkeypatch.setattr(module, "CHECKPOINT_MESSAGES", 3)
    for module in (project, replays, backfill):
        monkeypatch.setattr(module, "LOCKED_MESSAGES_MAX", 4, raising=False)
    monkeypatch.setattr(replays, "STEP_MESSAGES", 5)
    for module in (point_series, replays, backfill):
        monkeypatch.setattr(module, "SCANNED_POINTS_MAX", 4)
    monkeypatch.setattr(state_limits, "_MOVED_AT_ONCE", 4)


class Delivery:
    """Sends random messages of two customers, some of them late, while time passes."""

    def __init__(self, rng: Random, pipeline: Pipeline, prefix: str) -> None:
        self.rng = rng
        self.pipeline = pipeline
        self.prefix = prefix
        self.sent: list[SentMessage] = []
        self.t = T0

    async def send_batch(self) -> None:
        rng = self.rng
        batch = []
        for _ in range(rng.randint(1, 9)):
            self.t += rng.choice([0, 1, HOUR // 3, HOUR, 2 * HOUR])
            late = rng.choice([0, 0, 0, 0, 1, HOUR, 8 * HOUR, 40 * HOUR])
            batch.append(self.draw_message(self.t - late))
        if rng.random() < 0.05:
            alias = SentMessage(self.t, f"m{len(self.sent)}-alias", "alias", {"user_id": "u1"}, previous="d2")
            batch.append(alias)
        rng.shuffle(batch)
        self.sent += batch
        now = max(self.pipeline.clock.instant, self.t + rng.choice([0, 0, HOUR, 11 * HOUR]))
        self.pipeline.clock.instant = now
        await self.pipeline.send([item(message, self.prefix) for message in batch])

    def draw_message(self, t: int) -> SentMessage:
        rng, message_id = self.rng, f"m{len(self.sent)}-{self.rng.random()}"
        ids = rng.choice([{"user_id": "u1"}, {"user_id": "u1"}, {"anonymous_id": "d2"}])
        if rng.random() < 0.1:
            return SentMessage(t, message_id, "identify", ids, traits={"plan": rng.choice(["gold", "free"])})
        name, properties = rng.choice("AAABCD"), {"v": rng.choice([1, 2, 2, 3, 1.5])}
        return SentMessage(t, message_id, "track", ids, name=name, properties=properties)


async def deliver_and_compare(pipeline: Pipeline, seed: int) -> int:
    """Return the sum of the numbers of checkpoints after each batch."""
    rng, prefix = Random(seed), f"s{seed}-"
    delivery = Delivery(rng, pipeline, prefix)
    queries = CustomerQueries(pipeline.pool, pipeline.registry, pipeline.settings)
    checkpoint_count = 0
    for _ in range(rng.randint(6, 16)):
        await delivery.send_batch()
        checkpoint_count += await pipeline.pool.fetchval("SELECT count(*) FROM checkpoints")
        if rng.random() < 0.3:
            await pipeline.worker.sweep()
        if rng.random() < 0.1:
            await pipeline.segment(f"extra-{rng.randrange(10**9)}", {"did": "A", "at_least": 2, "within": "6h"})
        if rng.random() < 0.3:
            await pipeline.worker.fill()
        if rng.random() < 0.4:
            await compare_reads(queries, pipeline.clock.instant, prefix)
    pipeline.clock.instant += HOUR  # The worker waits before it replays a customer whose state is truncated.
    await pipeline.sweep_all()
    assert not await pipeline.pool.fetchval("SELECT count(*) FROM customers WHERE stale")
    before = await stored_intervals(pipeline)
    assert await count_differing(pipeline) == 0
    assert await stored_intervals(pipeline) == before
    if all(message.type != "alias" for message in delivery.sent):
        own_messages = [message for message in delivery.sent if "user_id" in message.ids]
        actual = await pipeline.intervals(f"user_id:{prefix}u1")
        expected = intervals(own_messages, pipeline.clock.instant, DEFINITIONS)
        assert {stay for stay in actual if not stay[0].startswith("segment:extra")} == expected
    return checkpoint_count


async def compare_reads(queries: CustomerQueries, now: int, prefix: str) -> None:
    """Compare the segments of a read with those that follow from the whole log."""
    ids = [Identity("user_id", f"{prefix}u1").id, Identity("anonymous_id", f"{prefix}d2").id]
    for instant in (now, now - 10 * HOUR):
        try:
            customer = await queries.customer(ids, instant, past=instant < now)
        except NotFound:
            continue
        _, stays, _ = await queries.list_stays(ids, "segment", None, instant, past=True)
        open_segments = {
            (stay.definition.removeprefix("segment:"), stay.entered_at) for stay in stays if stay.left_at is None
        }
        assert {(one.key, one.since) for one in customer.segments} == open_segments


@pytest.mark.parametrize(
    "limits",
    [{}, {"flush_evaluations_max": 60}, {"replay_messages_max": 6}, {"series_points_max": 2}],
    ids=str,
)
@pytest.mark.usefixtures("short_histories_are_long")
def test_late_messages_of_long_histories_equal_a_replay(database_url: str, limits: dict[str, int]) -> None:
    async def run() -> None:
        checkpoint_count = 0
        for seed in range(SCENARIOS):
            async with running_pipeline(database_url, T0, **limits) as pipeline:
                await pipeline.define(DEFINITIONS)
                try:
                    checkpoint_count += await deliver_and_compare(pipeline, seed)
                except AssertionError as error:
                    error.add_note(f"seed {seed}")
                    raise
                await pipeline.pool.execute(
                    "TRUNCATE ledger, touchpoints, identities, links, customers, transitions, checkpoints, older_points"
                )
        assert checkpoint_count > 0

    asyncio.run(run())


async def send_long_history(pipeline: Pipeline, numbers: range) -> None:
    await pipeline.send([item(track(number, T0 + number * HOUR, name="A")) for number in numbers])


def test_message_during_a_step_discards_the_step(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A live message does not wait for a step, and the step does not overwrite what follows from the message."""
    monkeypatch.setattr(project, "LOCKED_MESSAGES_MAX", 4)
    original = log_replay.read_inputs_after

    async def check(pipeline: Pipeline) -> None:
        await send_long_history(pipeline, range(0, 20, 2))
        await pipeline.pool.execute("UPDATE customers SET stale = true, sweep_at = 'epoch'")

        async def read_and_interrupt(connection: Connection, *args: Any, **options: Any) -> Any:
            inputs = await original(connection, *args, **options)
            monkeypatch.setattr(replays, "read_inputs_after", original)
            await asyncio.wait_for(send_long_history(pipeline, range(7, 8)), 10)
            return inputs

        monkeypatch.setattr(replays, "read_inputs_after", read_and_interrupt)
        await pipeline.worker.sweep()
        assert not await pipeline.pool.fetchval("SELECT count(*) FROM checkpoints"), "the step is discarded"
        await pipeline.sweep_all()
        before = await stored_intervals(pipeline)
        assert await count_differing(pipeline) == 0
        assert await stored_intervals(pipeline) == before

    run_scenario(database_url, check, DEFINITIONS)


def test_long_replay_continues_after_a_crash(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step is committed, so another worker continues from the last checkpoint."""
    monkeypatch.setattr(project, "LOCKED_MESSAGES_MAX", 4)
    monkeypatch.setattr(replays, "STEP_MESSAGES", 8)
    monkeypatch.setattr(checkpoints, "CHECKPOINT_MESSAGES", 4)
    for module in (project, replays):
        monkeypatch.setattr(module, "CHECKPOINT_MESSAGES", 4)
    lengths: list[int] = []
    original = log_replay.read_inputs_after

    async def read_and_count(*args: Any, **options: Any) -> Any:
        inputs = await original(*args, **options)
        lengths.append(len(inputs))
        return inputs

    async def check(pipeline: Pipeline) -> None:
        await send_long_history(pipeline, range(40))
        await pipeline.pool.execute("DELETE FROM checkpoints")
        await pipeline.pool.execute("UPDATE customers SET stale = true, sweep_at = 'epoch'")
        monkeypatch.setattr(replays, "read_inputs_after", read_and_count)
        for _ in range(3):
            await pipeline.worker.sweep()
        async with running_pipeline(database_url, pipeline.clock.instant) as other:
            await other.sweep_all()
            assert await count_differing(other) == 0
        assert lengths == [8, 8, 8, 8, 8]

    run_scenario(database_url, check, DEFINITIONS)


def test_surplus_checkpoints_leave_a_short_replay_for_any_age() -> None:
    numbers: list[int] = []
    for newest in range(1, 500):
        surplus = find_surplus(numbers, newest)
        numbers = [number for number in numbers if number not in surplus]
        ages = [newest - number for number in reversed(numbers)]
        for newer, older in itertools.pairwise([0, *ages]):
            assert older <= max(2 * newer, 1)
        assert len(ages) <= 10
        assert all(age < AGE_MAX for age in ages)
        assert newest < AGE_MAX or ages[-1] >= AGE_MAX // 2
        numbers.append(newest)
