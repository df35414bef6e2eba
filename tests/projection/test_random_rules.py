"""Random rules over the whole grammar, live: whatever was delivered, and defined when, ends in the naive state.

Definitions change every few customers, so they are filled over the customers there are as well as followed from the
first message on. Everything is drawn from a seed; SEGUE_TEST_CASES multiplies the number of seeds.
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
    chance,
    documents,
    instants,
    rules,
    traits,
    worlds,
)

SEEDS = case_count(4)
ROUNDS = 3
"""Sets of definitions in one database."""

CUSTOMERS_PER_ROUND = 9
"""Deliveries; each is of one to four customers."""

FILLED_CHECKED = 2
"""Deliveries of the round before that are compared again once the next definitions are filled."""

RULES = 5
EXPLAINED = 1
"""Segments of each customer that are explained."""

FUTURE = DAY
"""How far a message may lie ahead of its receipt."""


class Delivery(NamedTuple):
    """Messages whose ids all begin with ``prefix``, in batches: (instant of receipt, what is sent)."""

    prefix: str
    said: list[SentMessage]
    batches: list[tuple[int, list[SentMessage]]]
    end: int
    """The instant at which everything is compared."""


def deliveries(draw: Random, prefix: str) -> Delivery:
    """Shuffled, split, some sent twice, some before they happen."""
    at = calendar_instants if chance(draw, 4) else instants
    said = [_message(draw, prefix, number, at(draw)) for number in range(draw.randint(1, 8))]
    order = [*draw.sample(said, len(said)), *draw.choices(said, k=draw.randrange(3))]
    cuts = sorted(draw.sample(range(1, len(order)), min(len(order) - 1, draw.randrange(5))))
    batches = []
    now = 0
    for batch in (order[a:b] for a, b in itertools.pairwise([0, *cuts, len(order)])):
        ahead = draw.choice([0, 0, 1, HOUR, FUTURE])
        now = max(now, max(one.t for one in batch) - ahead) + draw.choice([0, 0, 1, HOUR, 3 * HOUR])
        batches.append((now, batch))
    return Delivery(prefix, said, batches, now + draw.choice([0, 1, HOUR, DAY, 40 * DAY]))


def _message(draw: Random, prefix: str, number: int, t: int) -> SentMessage:
    message_id = f"{prefix}m{draw.randrange(10)}-{number}"
    source = draw.choice([*SOURCES, "default"])
    ids = _ids(draw, prefix)
    if chance(draw, 12):
        previous = prefix + draw.choice(["u1", "u2", "d1", "d2"])
        return SentMessage(t, message_id, "alias", {"user_id": f"{prefix}u1"}, previous=previous, source=source)
    if chance(draw, 4):
        return SentMessage(t, message_id, "identify", ids, traits=traits(draw), source=source)
    name = draw.choice([*NAMES, "A", "A", "B"])
    channel = draw.choice([*CHANNELS, "app"])
    properties = plain(documents(draw))
    return SentMessage(t, message_id, "track", ids, name, properties=properties, channel=channel, source=source)


def _ids(draw: Random, prefix: str) -> dict[str, str]:
    """Mostly of one person, so that histories are long enough to mean something."""
    own = {
        "user_id": draw.choice(["u1", "u1", "u1", "u2"]),
        "anonymous_id": draw.choice(["d1", "d1", "d2", "d3"]),
        "email": draw.choice(["x@example.com", "x@example.com", "y@example.com"]),
    }
    kinds = draw.choice([["user_id"], ["anonymous_id"], ["user_id", "anonymous_id"], ["user_id", "email"], ["email"]])
    return {kind: prefix + own[kind] for kind in kinds}


def plain(value: Any) -> Any:
    """As the JSON module of the standard library writes it."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return float(value) if isinstance(value, Decimal) else value


def definitions_of(draw: Random) -> Definitions:
    world = worlds(draw)
    asked = {f"r{number}": rules(draw, 3, world) for number in range(RULES)}
    if chance(draw, 2):
        asked["r0"] = {"all": [{"bucket": [10, 70], "salt": "autumn"}, asked["r0"]]}
    return Definitions({**world.segments, **asked}, world.journeys, "main", world.traits, world.timezone)


# --------------------------------------------------------------------------------------------------- defining


async def define(one: Pipeline, wanted: Definitions, *, anew: bool) -> None:
    """Put these in the place of what is defined: as edits of what has the same key, or after all is archived."""
    if anew:
        await _archive(one, Definitions({}, {}))
    for kind, key, body in _in_order(wanted):
        await _put(one, kind, key, body)
    await one.sweep_all()
    await _archive(one, wanted)
    await one.sweep_all()


def _in_order(wanted: Definitions) -> list[tuple[str, str, Any]]:
    """What is read comes before its readers."""
    first = ("one",)
    return [
        *(("trait", key, value) for key, value in wanted.traits.items()),
        *(("segment", key, wanted.segments[key]) for key in first),
        *(("journey", key, stages) for key, stages in wanted.journeys.items()),
        *(("segment", key, rule) for key, rule in wanted.segments.items() if key not in first),
    ]


async def _put(one: Pipeline, kind: str, key: str, body: Any) -> None:
    exists = any((each.kind, each.key) == (kind, key) for each in one.registry.rules.current.definitions)
    if kind == "trait":
        parsed = parse_trait({"key": key, "name": key, "value": body}, one.settings.limits)
        await one.registry.definitions.define(parsed, replace=exists)
    else:
        await one.put(kind, key, body, replace=exists)


async def _archive(one: Pipeline, but: Definitions) -> None:
    """Readers before what they read."""
    kept = {
        "segment": but.segments.keys(),
        "journey": but.journeys.keys(),
        "trait": but.traits.keys(),
    }
    there = {
        (each.kind, each.key) for each in one.registry.rules.current.definitions if each.key not in kept[each.kind]
    }
    order = [
        *(("segment", f"r{number}") for number in range(RULES)),
        *(("journey", key) for key in ("other", "main", "six-stage")),
        *(("segment", key) for key in ("two", "one")),
        *(("trait", key) for key in COMPUTED),
    ]
    others = there.difference(order)
    for kind, key in [*(each for each in others), *(each for each in order if each in there)]:
        await one.registry.definitions.archive(kind, key)


# -------------------------------------------------------------------------------------------------- comparing


async def deliver(one: Pipeline, delivery: Delivery) -> None:
    seen: set[str] = set()
    for now, batch in delivery.batches:
        one.clock.instant = now
        for source in sorted({said.source for said in batch}):
            mine = [said for said in batch if said.source == source]
            fresh = {said.message_id for said in mine} - seen
            receipt = await one.send([item_of(said) for said in mine], source)
            assert (receipt.accepted, receipt.duplicate, receipt.rejected) == (len(fresh), len(mine) - len(fresh), 0)
            assert receipt.projected
            seen |= fresh
    one.clock.instant = delivery.end


def item_of(said: SentMessage) -> dict[str, Any]:
    written = item(replace(said, traits=None if said.traits is None else plain(said.traits)))
    written["context"]["channel"] = said.channel
    return written


async def check(one: Pipeline, delivery: Delivery, definitions: Definitions, draw: Random) -> None:
    """Who is who, every interval, why, and what is shown before and after the worker has written it down."""
    expected = customers(delivery.said, CAPS)
    prefix, now = delivery.prefix, one.clock.now()
    found = {frozenset(name.replace(":", f":{prefix}", 1) for name in group) for group in await one.groups(prefix)}
    assert found == expected
    stays = {group: intervals(of_customer(delivery.said, group), now, definitions) for group in expected}
    for group in expected:
        since = {definition: (value, entered) for definition, value, entered, left in stays[group] if left is None}
        assert await _shown(one, sorted(group)[0]) == since
        for definition in draw.sample(sorted(f"segment:{key}" for key in definitions.segments), EXPLAINED):
            assert await _explained(one, sorted(group)[0], definition) == since.get(definition)
    await one.sweep_all()
    for group in expected:
        assert await one.intervals(sorted(group)[0]) == stays[group]


async def _shown(one: Pipeline, name: str) -> Mapping[str, tuple[str, int]]:
    """What a reader is told now: definition -> (value, since)."""
    views = CustomerQueries(one.pool, one.registry, one.settings)
    customer = await views.customer(
        [identity.id for identity in parse_customer_reference(name, one.settings)], one.clock.now()
    )
    segments = {f"segment:{each.key}": ("", each.since) for each in customer.segments}
    stages = {
        f"journey:{journey}": (place.stage, place.since or 0)
        for journey, place in customer.stages.items()
        if place.stage is not None
    }
    return {**segments, **stages}


async def _explained(one: Pipeline, name: str, definition: str) -> tuple[str, int] | None:
    """(value, since) as the explanation has it."""
    views = CustomerQueries(one.pool, one.registry, one.settings)
    ids = [identity.id for identity in parse_customer_reference(name, one.settings)]
    _, why = await views.explain_segment(ids, definition.partition(":")[2], one.clock.now())
    assert why.tree["truth"] == why.holds
    return ("", why.since or 0) if why.holds else None


async def is_as_rebuilt(one: Pipeline, prefix: str) -> None:
    stored = await one.rows(prefix)
    await one.rebuild(prefix)
    assert await one.rows(prefix) == stored


async def live(database_url: str, seed: int) -> None:
    draw = Random(seed)
    known: list[Delivery] = []
    latest = START
    for place in range(ROUNDS):
        definitions = definitions_of(draw)
        changes = {"timezone": definitions.timezone, "fill_customers_max": draw.choice([2, 500])}
        async with running_pipeline(database_url, latest, **changes, **SMALL_CAPS) as one:
            if place == 0:
                for source in SOURCES:
                    await one.registry.sources.create(source, source)
            await define(one, definitions, anew=chance(draw, 2))
            assert one.registry.rules.current.upcoming == {}
            for delivery in known[-FILLED_CHECKED:]:
                await _noted(check(one, delivery, definitions, draw), delivery, definitions, "filled")
                await is_as_rebuilt(one, delivery.prefix)
            for _ in range(CUSTOMERS_PER_ROUND):
                delivery = deliveries(draw, f"e{len(known)}-")
                await _noted(_lived(one, delivery, definitions, draw), delivery, definitions, "live")
                known.append(delivery)
                latest = max(latest, delivery.end)
            one.clock.instant = latest
            await one.sweep_all()


async def _lived(one: Pipeline, delivery: Delivery, definitions: Definitions, draw: Random) -> None:
    await deliver(one, delivery)
    await check(one, delivery, definitions, draw)
    await is_as_rebuilt(one, delivery.prefix)


async def _noted(work: Any, delivery: Delivery, definitions: Definitions, how: str) -> None:
    try:
        await work
    except Exception as error:
        error.add_note(f"{how}\n{delivery}\n{definitions}")
        raise


@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_rules_end_in_the_naive_state(database_url: str, seed: int) -> None:
    asyncio.run(live(database_url, seed))


def test_there_are_many_examples() -> None:
    assert 100 * min(FACTOR, 1) <= SEEDS * ROUNDS * CUSTOMERS_PER_ROUND


@pytest.mark.parametrize(
    ("archived", "kept"),
    [
        ({"bucket": [0, 100]}, {"did": "A"}),
        ({"sum": "a", "of": "A", "gte": 1}, {"sum": "a", "of": "A", "within": "1d", "gte": 1}),
        ({"did": "A", "within": "1w", "at_least": 3}, {"did": "A"}),
    ],
    ids=["person", "totals", "points"],
)
async def test_archiving_leaves_nothing_that_a_rebuild_counts(database_url: str, archived: Any, kept: Any) -> None:
    async with running_pipeline(database_url, START) as one:
        await _archive(one, Definitions({}, {}))
        await one.segment("archived", archived)
        await one.segment("kept", kept)
        await one.send(
            [
                item(SentMessage(START - n * HOUR, f"m{n}", "track", {"user_id": "u1"}, "A", properties={"a": n}))
                for n in range(1, 4)
            ]
        )
        await one.sweep_all()
        await one.registry.definitions.archive("segment", "archived")
        await one.sweep_all()
        assert await rebuild_customers(one.pool, one.registry.rules.current, one.clock, one.settings) == 0
