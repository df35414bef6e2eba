"""Expiry of time-based truths: windows are exact to the microsecond, and the sweeper stores each change."""

from __future__ import annotations

from app.touchpoint import DAY, HOUR, SECOND
from tests.support.pipeline import Pipeline, item, running_pipeline
from tests.support.reference_model import Definitions, SentMessage, intervals

T = 1_700_000_000_000_000

DEFINITIONS = Definitions(
    segments={
        "lately": {"did": "bought", "within": "7d"},
        "long-ago": {"did": "bought", "before": "2d"},
        "at-risk": {"all": [{"did": "bought"}, {"not": {"did": "bought", "within": "7d"}}]},
        "everyone": {"everyone": True},
    },
    journeys={"main": [("new", {"did": "*"}), ("active", {"did": "bought", "within": "7d"})]},
)

BOUGHT = SentMessage(T, "m1", "track", {"user_id": "u"}, name="bought")


async def at(pipeline: Pipeline, instant: int) -> set[str]:
    """Run the sweeper at ``instant`` and return the values of the customer's open intervals."""
    pipeline.clock.instant = instant
    await pipeline.sweep_all()
    return {
        definition.removeprefix("segment:") + value
        for definition, value, _, left in await pipeline.intervals("user_id:u")
        if left is None
    }


async def test_window_boundaries_are_exact_to_the_microsecond(database_url: str) -> None:
    async with running_pipeline(database_url, T + SECOND) as pipeline:
        await pipeline.define(DEFINITIONS)
        await pipeline.send([item(BOUGHT)])
        young = {"everyone", "lately", "journey:mainactive"}
        assert await at(pipeline, T + SECOND) == young
        assert await at(pipeline, T + 2 * DAY - 1) == young
        assert await at(pipeline, T + 2 * DAY) == young | {"long-ago"}
        assert await at(pipeline, T + 7 * DAY - 1) == young | {"long-ago"}
        assert await at(pipeline, T + 7 * DAY) == {"everyone", "long-ago", "at-risk", "journey:mainnew"}


async def test_late_sweep_stores_the_instant_of_the_change(database_url: str) -> None:
    async with running_pipeline(database_url, T + SECOND) as pipeline:
        await pipeline.define(DEFINITIONS)
        await pipeline.send([item(BOUGHT)])
        await at(pipeline, T + 30 * DAY)
        assert await pipeline.intervals("user_id:u") == {
            ("segment:everyone", "", T, None),
            ("segment:lately", "", T, T + 7 * DAY),
            ("segment:long-ago", "", T + 2 * DAY, None),
            ("segment:at-risk", "", T + 7 * DAY, None),
            ("journey:main", "active", T, T + 7 * DAY),
            ("journey:main", "new", T + 7 * DAY, None),
        }
        causes = await pipeline.pool.fetch("SELECT left_cause FROM transitions WHERE left_cause IS NOT NULL")
        assert {bytes(row["left_cause"]) for row in causes} == {b'{"kind": "time"}'}


async def test_sweeper_stops_when_nothing_is_due(database_url: str) -> None:
    """A message moves the customer's next change to a later time. The sweeper must then find nothing due and stop."""
    async with running_pipeline(database_url, T + SECOND) as pipeline:
        await pipeline.define(DEFINITIONS)
        await pipeline.send([item(BOUGHT)])
        again = SentMessage(T + 5 * DAY, "m2", "track", {"user_id": "u"}, name="bought")
        pipeline.clock.instant = T + 5 * DAY
        await pipeline.send([item(again)])
        pipeline.clock.instant = T + 8 * DAY
        visits = 0
        while await pipeline.worker.fill() or await pipeline.worker.sweep():
            visits += 1
            assert visits < 5
        row = await pipeline.pool.fetchrow("SELECT sweep_at, flips_at FROM customers")
        assert row is not None
        assert row["sweep_at"] == row["flips_at"] == T + 12 * DAY


async def test_future_message_counts_from_its_own_instant(database_url: str) -> None:
    async with running_pipeline(database_url, T - HOUR) as pipeline:
        await pipeline.define(DEFINITIONS)
        receipt = await pipeline.send([item(BOUGHT)])
        assert receipt.accepted == 1
        assert await at(pipeline, T - 1) == set()
        assert await at(pipeline, T) == {"everyone", "lately", "journey:mainactive"}


async def test_clock_moving_backwards_undoes_nothing(database_url: str) -> None:
    async with running_pipeline(database_url, T + 8 * DAY) as pipeline:
        await pipeline.define(DEFINITIONS)
        await pipeline.send([item(BOUGHT)])
        before = await at(pipeline, T + 8 * DAY)
        pipeline.clock.instant = T + DAY
        await pipeline.send([item(SentMessage(T + DAY, "m2", "track", {"user_id": "u"}, name="other"))])
        assert await at(pipeline, T + 8 * DAY) == before


async def test_results_are_exact_beyond_the_series_limit(database_url: str) -> None:
    """Beyond the limit, the log is replayed.

    The result is exact within one flush, over several flushes, and as time passes.
    """
    counting = Definitions(
        segments={
            "often": {"did": "bought", "at_least": 30, "within": "7d"},
            "some": {"did": "bought", "between": [3, 25], "within": "9d", "before": "1d"},
        },
        journeys={"main": [("new", {"did": "*"})]},
    )
    expected_order = [
        SentMessage(T + number * HOUR, f"m{number}", "track", {"user_id": "u"}, name="bought") for number in range(60)
    ]
    async with running_pipeline(database_url, T + 60 * HOUR, series_points_max=8) as pipeline:
        await pipeline.define(counting)
        await pipeline.send([item(message) for message in expected_order[:40]])
        assert await pipeline.intervals("user_id:u") == intervals(expected_order[:40], T + 60 * HOUR, counting)
        await pipeline.send([item(message) for message in expected_order[40:]])
        assert await pipeline.intervals("user_id:u") == intervals(expected_order, T + 60 * HOUR, counting)
        for later in (T + 8 * DAY, T + 20 * DAY):
            await at(pipeline, later)
            assert await pipeline.intervals("user_id:u") == intervals(expected_order, later, counting)
