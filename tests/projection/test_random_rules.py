"""Random rules over the whole grammar in a running pipeline, compared with the reference model.

Definitions change every few customers. They are therefore backfilled for existing customers, and evaluated from the
first message of new ones. Everything is drawn from a seed; SEGUE_TEST_CASES multiplies the number of seeds.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from random import Random
from typing import Any, NamedTuple

import pytest

from app.formats.identifiers import parse_customer_reference
from app.projection.rebuild import rebuild_customers
from app.queries.customers import CustomerQueries
from app.rules.language.definitions import parse_trait
from app.touchpoint import DAY, HOUR
from tests.projection.test_project_against_reference import CAPS, SMALL_CAPS
from tests.support.case_count import FACTOR, case_count
from tests.support.pipeline import Pipeline, item, running_pipeline
from tests.support.reference_model import Definitions, SentMessage, customers, intervals, of_customer
from tests.support.rule_strategies import (
    CHANNELS,
    COMPUTED,
    NAMES,
    SOURCES,
    START,
    calendar_instants,
    documents,
    instants,
    one_in,
    rules,
    traits,
    worlds,
)

SEEDS = case_count(4)
ROUNDS = 3
"""Number of sets of definitions that follow each other in one database."""

CUSTOMERS_PER_ROUND = 9
"""Number of deliveries under each set of definitions. A delivery contains messages of one to four customers."""

BACKFILLED_CHECKED = 2
"""Number of earlier deliveries that are compared again after the next backfill."""

RULES = 5
EXPLAINED = 1
"""Number of segments whose explanation is compared for each customer."""

FUTURE = DAY
"""Maximum time by which a message may be ahead of its receipt, in microseconds."""


class Delivery(NamedTuple):
    """Messages whose ids all begin with ``prefix``. A batch is (instant of receipt, messages)."""

    prefix: str
    messages: list[SentMessage]
    batches: list[tuple[int, list[SentMessage]]]
    end: int
    """Instant at which customers are compared with the reference."""


def deliveries(rng: Random, prefix: str) -> Delivery:
    """Draw a delivery. Messages are shuffled and split; some are sent twice, and some arrive before they happen."""
    at = calendar_instants if one_in(rng, 4) else instants
    messages = [_message(rng, prefix, number, at(rng)) for number in range(rng.randint(1, 8))]
    order = [*rng.sample(messages, len(messages)), *rng.choices(messages, k=rng.randrange(3))]
    cuts = sorted(rng.sample(range(1, len(order)), min(len(order) - 1, rng.randrange(5))))
    batches = []
    now = 0
    for batch in (order[a:b] for a, b in itertools.pairwise([0, *cuts, len(order)])):
        ahead = rng.choice([0, 0, 1, HOUR, FUTURE])
        now = max(now, max(message.t for message in batch) - ahead) + rng.choice([0, 0, 1, HOUR, 3 * HOUR])
        batches.append((now, batch))
    return Delivery(prefix, messages, batches, now + rng.choice([0, 1, HOUR, DAY, 40 * DAY]))


def _message(rng: Random, prefix: str, number: int, t: int) -> SentMessage:
    message_id = f"{prefix}m{rng.randrange(10)}-{number}"
    source = rng.choice([*SOURCES, "default"])
    ids = _ids(rng, prefix)
    if one_in(rng, 12):
        previous = prefix + rng.choice(["u1", "u2", "d1", "d2"])
        return SentMessage(t, message_id, "alias", {"user_id": f"{prefix}u1"}, previous=previous, source=source)
    if one_in(rng, 4):
        return SentMessage(t, message_id, "identify", ids, traits=traits(rng), source=source)
    name = rng.choice([*NAMES, "A", "A", "B"])
    channel = rng.choice([*CHANNELS, "app"])
    properties = plain(documents(rng))
    return SentMessage(t, message_id, "track", ids, name, properties=properties, channel=channel, source=source)


def _ids(rng: Random, prefix: str) -> dict[str, str]:
    """Draw identities, mostly of one person, so that histories are long."""
    own = {
        "user_id": rng.choice(["u1", "u1", "u1", "u2"]),
        "anonymous_id": rng.choice(["d1", "d1", "d2", "d3"]),
        "email": rng.choice(["x@example.com", "x@example.com", "y@example.com"]),
    }
    kinds = rng.choice([["user_id"], ["anonymous_id"], ["user_id", "anonymous_id"], ["user_id", "email"], ["email"]])
    return {kind: prefix + own[kind] for kind in kinds}


def plain(value: Any) -> Any:
    """Convert decimals to floats, which the JSON module of the standard library can write."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return float(value) if isinstance(value, Decimal) else value


def random_definitions(rng: Random) -> Definitions:
    world = worlds(rng)
    segments = {f"r{number}": rules(rng, 3, world) for number in range(RULES)}
    if one_in(rng, 2):
        segments["r0"] = {"all": [{"bucket": [10, 70], "salt": "autumn"}, segments["r0"]]}
    return Definitions({**world.segments, **segments}, world.journeys, "main", world.traits, world.timezone)


# --------------------------------------------------------------------------------------------------- defining


async def define(pipeline: Pipeline, definitions: Definitions, *, archive_first: bool) -> None:
    """Replace all definitions.

    Those whose key exists are edited, unless ``archive_first`` archives all of them before.
    """
    if archive_first:
        await _archive(pipeline, Definitions({}, {}))
    for kind, key, body in _in_order(definitions):
        await _put(pipeline, kind, key, body)
    await pipeline.sweep_all()
    await _archive(pipeline, definitions)
    await pipeline.sweep_all()


def _in_order(definitions: Definitions) -> list[tuple[str, str, Any]]:
    """Return the definitions in an order in which each definition follows those that it reads."""
    first = ("one",)
    return [
        *(("trait", key, value) for key, value in definitions.traits.items()),
        *(("segment", key, definitions.segments[key]) for key in first),
        *(("journey", key, stages) for key, stages in definitions.journeys.items()),
        *(("segment", key, rule) for key, rule in definitions.segments.items() if key not in first),
    ]


async def _put(pipeline: Pipeline, kind: str, key: str, body: Any) -> None:
    exists = any(
        (definition.kind, definition.key) == (kind, key) for definition in pipeline.registry.rules.current.definitions
    )
    if kind == "trait":
        parsed = parse_trait({"key": key, "name": key, "value": body}, pipeline.settings.limits)
        await pipeline.registry.definitions.define(parsed, replace=exists)
    else:
        await pipeline.put(kind, key, body, replace=exists)


async def _archive(pipeline: Pipeline, keep: Definitions) -> None:
    """Archive all definitions except ``keep``. Each definition is archived before those that it reads."""
    kept_keys = {
        "segment": keep.segments.keys(),
        "journey": keep.journeys.keys(),
        "trait": keep.traits.keys(),
    }
    existing = {
        (definition.kind, definition.key)
        for definition in pipeline.registry.rules.current.definitions
        if definition.key not in kept_keys[definition.kind]
    }
    order = [
        *(("segment", f"r{number}") for number in range(RULES)),
        *(("journey", key) for key in ("other", "main", "six-stage")),
        *(("segment", key) for key in ("two", "one")),
        *(("trait", key) for key in COMPUTED),
    ]
    others = existing.difference(order)
    for kind, key in [
        *others,
        *(definition for definition in order if definition in existing),
    ]:
        await pipeline.registry.definitions.archive(kind, key)


# -------------------------------------------------------------------------------------------------- comparing


async def deliver(pipeline: Pipeline, delivery: Delivery) -> None:
    stored_ids: set[str] = set()
    for now, batch in delivery.batches:
        pipeline.clock.instant = now
        for source in sorted({message.source for message in batch}):
            messages = [message for message in batch if message.source == source]
            new_ids = {message.message_id for message in messages} - stored_ids
            receipt = await pipeline.send([item_of(message) for message in messages], source)
            assert (receipt.accepted, receipt.duplicate, receipt.rejected) == (
                len(new_ids),
                len(messages) - len(new_ids),
                0,
            )
            assert receipt.projected
            stored_ids |= new_ids
    pipeline.clock.instant = delivery.end


def item_of(message: SentMessage) -> dict[str, Any]:
    body = item(replace(message, traits=None if message.traits is None else plain(message.traits)))
    body["context"]["channel"] = message.channel
    return body


async def check(pipeline: Pipeline, delivery: Delivery, definitions: Definitions, rng: Random) -> None:
    """Compare customers, reads and explanations before the worker runs. Compare stored intervals after it has run."""
    expected = customers(delivery.messages, CAPS)
    prefix, now = delivery.prefix, pipeline.clock.now()
    groups = {
        frozenset(name.replace(":", f":{prefix}", 1) for name in group) for group in await pipeline.groups(prefix)
    }
    assert groups == expected
    expected_intervals = {
        group: intervals(of_customer(delivery.messages, group), now, definitions) for group in expected
    }
    for group in expected:
        since = {
            definition: (value, entered)
            for definition, value, entered, left in expected_intervals[group]
            if left is None
        }
        assert await _read_current(pipeline, sorted(group)[0]) == since
        for definition in rng.sample(sorted(f"segment:{key}" for key in definitions.segments), EXPLAINED):
            assert await _read_explanation(pipeline, sorted(group)[0], definition) == since.get(definition)
    await pipeline.sweep_all()
    for group in expected:
        assert await pipeline.intervals(sorted(group)[0]) == expected_intervals[group]


async def _read_current(pipeline: Pipeline, name: str) -> Mapping[str, tuple[str, int]]:
    """Return the current (value, since) of each definition, as a read reports it."""
    queries = CustomerQueries(pipeline.pool, pipeline.registry, pipeline.settings)
    customer = await queries.customer(
        [identity.id for identity in parse_customer_reference(name, pipeline.settings)], pipeline.clock.now()
    )
    segments = {f"segment:{segment.key}": ("", segment.since) for segment in customer.segments}
    stages = {
        f"journey:{journey}": (place.stage, place.since or 0)
        for journey, place in customer.stages.items()
        if place.stage is not None
    }
    return {**segments, **stages}


async def _read_explanation(pipeline: Pipeline, name: str, definition: str) -> tuple[str, int] | None:
    """Return (value, since) as the explanation reports it, or None if the rule does not hold."""
    queries = CustomerQueries(pipeline.pool, pipeline.registry, pipeline.settings)
    ids = [identity.id for identity in parse_customer_reference(name, pipeline.settings)]
    _, explanation = await queries.explain_segment(ids, definition.partition(":")[2], pipeline.clock.now())
    assert explanation.tree["truth"] == explanation.holds
    return ("", explanation.since or 0) if explanation.holds else None


async def check_rebuild_changes_nothing(pipeline: Pipeline, prefix: str) -> None:
    stored = await pipeline.rows(prefix)
    await pipeline.rebuild(prefix)
    assert await pipeline.rows(prefix) == stored


async def run_seed(database_url: str, seed: int) -> None:
    rng = Random(seed)
    delivered: list[Delivery] = []
    latest = START
    for round_number in range(ROUNDS):
        definitions = random_definitions(rng)
        changes = {"timezone": definitions.timezone, "fill_customers_max": rng.choice([2, 500])}
        async with running_pipeline(database_url, latest, **changes, **SMALL_CAPS) as pipeline:
            if round_number == 0:
                for source in SOURCES:
                    await pipeline.registry.sources.create(source, source)
            await define(pipeline, definitions, archive_first=one_in(rng, 2))
            assert pipeline.registry.rules.current.upcoming == {}
            for delivery in delivered[-BACKFILLED_CHECKED:]:
                await _with_note(check(pipeline, delivery, definitions, rng), delivery, definitions, "filled")
                await check_rebuild_changes_nothing(pipeline, delivery.prefix)
            for _ in range(CUSTOMERS_PER_ROUND):
                delivery = deliveries(rng, f"e{len(delivered)}-")
                await _with_note(
                    _deliver_and_check(pipeline, delivery, definitions, rng), delivery, definitions, "live"
                )
                delivered.append(delivery)
                latest = max(latest, delivery.end)
            pipeline.clock.instant = latest
            await pipeline.sweep_all()


async def _deliver_and_check(pipeline: Pipeline, delivery: Delivery, definitions: Definitions, rng: Random) -> None:
    await deliver(pipeline, delivery)
    await check(pipeline, delivery, definitions, rng)
    await check_rebuild_changes_nothing(pipeline, delivery.prefix)


async def _with_note(work: Any, delivery: Delivery, definitions: Definitions, how: str) -> None:
    try:
        await work
    except Exception as error:
        error.add_note(f"{how}\n{delivery}\n{definitions}")
        raise


@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_rules_match_the_reference(database_url: str, seed: int) -> None:
    asyncio.run(run_seed(database_url, seed))


def test_number_of_random_examples_is_large() -> None:
    assert 100 * min(FACTOR, 1) <= SEEDS * ROUNDS * CUSTOMERS_PER_ROUND


@pytest.mark.parametrize(
    ("archived", "remaining"),
    [
        ({"bucket": [0, 100]}, {"did": "A"}),
        ({"sum": "a", "of": "A", "gte": 1}, {"sum": "a", "of": "A", "within": "1d", "gte": 1}),
        ({"did": "A", "within": "1w", "at_least": 3}, {"did": "A"}),
    ],
    ids=["person", "totals", "points"],
)
async def test_rebuild_after_archiving_counts_no_difference(database_url: str, archived: Any, remaining: Any) -> None:
    async with running_pipeline(database_url, START) as pipeline:
        await _archive(pipeline, Definitions({}, {}))
        await pipeline.segment("archived", archived)
        await pipeline.segment("remaining", remaining)
        await pipeline.send(
            [
                item(SentMessage(START - n * HOUR, f"m{n}", "track", {"user_id": "u1"}, "A", properties={"a": n}))
                for n in range(1, 4)
            ]
        )
        await pipeline.sweep_all()
        await pipeline.registry.definitions.archive("segment", "archived")
        await pipeline.sweep_all()
        assert (
            await rebuild_customers(pipeline.pool, pipeline.registry.rules.current, pipeline.clock, pipeline.settings)
            == 0
        )
