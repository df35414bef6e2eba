"""Customers with more touchpoints than a state holds: messages, reads, backfills and merges use the table."""

from __future__ import annotations

from typing import Any

from app.projection.rebuild import rebuild_customers
from app.queries.customers import CustomerQueries
from app.touchpoint import HOUR, Identity
from tests.projection.test_regressions import NOW, count_differing, run_scenario, stored_intervals, track
from tests.support.pipeline import Pipeline, item
from tests.support.reference_model import Definitions

MINUTE = HOUR // 60
MESSAGES = 1_500
RULES: dict[str, Any] = {
    "twice-an-hour": {"did": "bought", "between": [2, 40], "within": "12h", "before": "1h"},
    "spends": {"sum": "n", "of": "bought", "within": "18h", "gte": 1_000_000},
    "peak": {"max": "n", "of": "bought", "within": "15h", "gte": 1_200},
}
DEFINITIONS = Definitions(segments=RULES, journeys={})


def bought(number: int, t: int, **ids: str) -> dict[str, Any]:
    sent = item(track(number, t, **ids))
    sent["properties"] = {"n": number}
    return sent


async def send_all(pipeline: Pipeline, numbers: range, size: int) -> None:
    for start in range(numbers.start, numbers.stop, size):
        batch = range(start, min(start + size, numbers.stop))
        receipt = await pipeline.send([bought(number, NOW - (MESSAGES - number) * MINUTE) for number in batch])
        assert receipt.accepted == len(batch)


async def count_older_points(pipeline: Pipeline) -> int:
    count: int = await pipeline.pool.fetchval("SELECT coalesce(sum(end_position - position), 0) FROM older_points")
    return count


async def assert_equal_to_replay(pipeline: Pipeline) -> None:
    """Rebuild the customers from the log: neither states nor intervals differ."""
    await pipeline.sweep_all()
    before = await stored_intervals(pipeline)
    assert await count_differing(pipeline) == 0
    assert await stored_intervals(pipeline) == before


def test_messages_in_batches_equal_a_replay(database_url: str) -> None:
    async def check(pipeline: Pipeline) -> None:
        await send_all(pipeline, range(MESSAGES), 100)
        stored = await count_older_points(pipeline)
        assert 200 < stored < 2 * MESSAGES, "points that no window needs are deleted, the others are kept"
        await assert_equal_to_replay(pipeline)
        await send_all(pipeline, range(MESSAGES, MESSAGES + 200), 1)
        await assert_equal_to_replay(pipeline)

    run_scenario(database_url, check, DEFINITIONS, NOW + 4 * HOUR)


def test_reads_expire_older_points(database_url: str) -> None:
    async def check(pipeline: Pipeline) -> None:
        await send_all(pipeline, range(MESSAGES), 500)
        queries = CustomerQueries(pipeline.pool, pipeline.registry, pipeline.settings)
        for hours in (0, 3, 10, 16, 19, 30):
            now = NOW + hours * HOUR
            customer = await queries.customer([Identity("user_id", "u1").id], now)
            replayed = await queries.customer([Identity("user_id", "u1").id], now, past=True)
            assert [(one.key, one.since) for one in customer.segments] == [
                (one.key, one.since) for one in replayed.segments
            ]

    run_scenario(database_url, check, DEFINITIONS, read_messages_max=10**6)


def test_new_definition_over_a_long_series_is_backfilled(database_url: str) -> None:
    async def check(pipeline: Pipeline) -> None:
        await send_all(pipeline, range(MESSAGES), 500)
        await pipeline.segment("spends-more", {"sum": "n", "of": "bought", "within": "20h", "gte": 1_100_000})
        await pipeline.segment("average", {"avg": "n", "of": "bought", "within": "2d", "gte": 700})
        await assert_equal_to_replay(pipeline)
        await send_all(pipeline, range(MESSAGES, MESSAGES + 300), 50)
        await assert_equal_to_replay(pipeline)

    run_scenario(database_url, check, DEFINITIONS, NOW + 12 * HOUR)


def test_merged_customer_has_the_points_of_both(database_url: str) -> None:
    async def check(pipeline: Pipeline) -> None:
        await send_all(pipeline, range(MESSAGES), 500)
        other = [bought(MESSAGES + n, NOW - n * MINUTE, user="u2") for n in range(700)]
        await pipeline.send(other)
        assert len(await pipeline.pool.fetch("SELECT DISTINCT customer_id FROM older_points")) == 2
        await pipeline.send([{"type": "alias", "messageId": "a1", "previousId": "u2", "userId": "u1"}])
        await pipeline.sweep_all()
        assert len(await pipeline.pool.fetch("SELECT DISTINCT customer_id FROM older_points")) == 1
        await assert_equal_to_replay(pipeline)

    run_scenario(database_url, check, DEFINITIONS, NOW + HOUR)


def test_late_message_replays_a_long_series(database_url: str) -> None:
    async def check(pipeline: Pipeline) -> None:
        await send_all(pipeline, range(MESSAGES), 500)
        await pipeline.send([bought(MESSAGES, NOW - 20 * HOUR)])
        await assert_equal_to_replay(pipeline)
        assert (
            await rebuild_customers(pipeline.pool, pipeline.registry.rules.current, pipeline.clock, pipeline.settings)
            == 0
        )

    run_scenario(database_url, check, DEFINITIONS, NOW + HOUR)
