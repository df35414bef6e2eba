"""Projection compared with the reference model: all orders, batches and workers result in the same customers."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from app.ingest.pending_request import Receipt
from app.touchpoint import DAY, HOUR, Trust, VouchedVisitor
from tests.support.pipeline import Pipeline, item, running_pipeline
from tests.support.reference_model import Definitions, SentMessage, current_values, customers, intervals, of_customer

T0 = 1_700_000_000_000_000
NOW = T0 + 40 * DAY

CAPS = {"user_id": 2, "anonymous_id": 3, "email": 2, "phone": 2, "tool": 2, "total": 6}
SMALL_CAPS = {
    "user_ids_per_customer_max": CAPS["user_id"],
    "identities_per_customer_max": CAPS["total"],
    "anonymous_ids_per_customer_max": CAPS["anonymous_id"],
    "contact_ids_per_customer_max": CAPS["email"],
    "other_ids_per_customer_max": CAPS["tool"],
}

DEFINITIONS = Definitions(
    segments={
        "bought-lately": {"did": "bought", "within": "5d"},
        "not-lately": {"not": {"did": "bought", "within": "5d"}},
        "at-risk": {"all": [{"did": "bought"}, {"not": {"did": "bought", "within": "9d"}}]},
        "twice-long-ago": {"did": "bought", "at_least": 2, "before": "10d"},
        "exactly-one-between": {"did": ["bought", "viewed"], "exactly": 1, "within": "20d", "before": "2d"},
        "big": {"did": "bought", "where": {"total": {"gte": 5}}},
        "gold": {"trait": "plan", "eq": "gold"},
        "gold-buyer": {"all": [{"segment": "gold"}, {"segment": "bought-lately"}]},
        "deciding": {"stage": ["decision", "loyalty"]},
    },
    journeys={
        "main": [
            ("awareness", {"did": "*"}),
            ("decision", {"did": "viewed", "at_least": 2, "within": "7d"}),
            ("purchase", {"did": "bought"}),
            ("loyalty", {"did": "bought", "at_least": 2, "within": "15d"}),
        ]
    },
)

USERS = st.sampled_from(["u1", "u2", "u3"])
DEVICES = st.sampled_from(["d1", "d2", "d3", "d4", "d5"])
MAILS = st.sampled_from(["x@example.com", "y@example.com", "z@example.com"])
TOOLS = st.sampled_from(["t1", "t2", "t3"])


@st.composite
def ids(draw: st.DrawFn) -> dict[str, str]:
    kinds = {"user_id": USERS, "anonymous_id": DEVICES, "email": MAILS, "tool": TOOLS}
    chosen = draw(st.sets(st.sampled_from(list(kinds)), min_size=1, max_size=3))
    return {kind: draw(kinds[kind]) for kind in sorted(chosen)}


@st.composite
def message_lists(draw: st.DrawFn) -> list[SentMessage]:
    messages = []
    for number in range(draw(st.integers(1, 14))):
        t = T0 + draw(st.integers(0, 30)) * DAY + draw(st.sampled_from([0, 0, 1, HOUR]))
        message_id = f"m{draw(st.integers(0, 9))}-{number}"
        kind = draw(st.sampled_from(["track", "track", "track", "identify", "alias"]))
        if kind == "alias":
            previous = draw(st.one_of(USERS, DEVICES))
            messages.append(SentMessage(t, message_id, "alias", {"user_id": draw(USERS)}, previous=previous))
        elif kind == "identify":
            plan = draw(st.sampled_from(["gold", "free", None]))
            messages.append(SentMessage(t, message_id, "identify", draw(ids()), traits={"plan": plan}))
        else:
            name = draw(st.sampled_from(["bought", "viewed", "other"]))
            total = {"total": draw(st.integers(0, 10))}
            messages.append(SentMessage(t, message_id, "track", draw(ids()), name=name, properties=total))
    return [draw_trust(draw, message) for message in messages]


def draw_trust(draw: st.DrawFn, message: SentMessage) -> SentMessage:
    """Draw the trust of the sender. The clock of the test is later than every message: see :data:`NOW`."""
    trust = draw(st.sampled_from(["public", "alias", "server", "server"]))
    is_vouched = trust != "server" and {"user_id", "anonymous_id"} <= message.ids.keys() and draw(st.booleans())
    return replace(message, trust=trust, received=NOW, is_vouched_visitor=is_vouched)


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[SentMessage], list[list[int]]]:
    """Draw messages, and batches of indexes into them. Messages are shuffled and split, and some are sent twice."""
    messages = draw(message_lists())
    order = draw(st.permutations(range(len(messages))))
    repeated = draw(st.lists(st.integers(0, len(messages) - 1), max_size=4))
    order = [*order, *repeated]
    cuts = sorted(draw(st.sets(st.integers(1, len(order)), max_size=4)))
    batches = [order[a:b] for a, b in itertools.pairwise([0, *cuts, len(order)]) if a < b]
    return messages, batches


example_numbers = itertools.count()


async def send_as_claimed(pipeline: Pipeline, messages: Sequence[SentMessage], prefix: str) -> list[Receipt]:
    """Send the messages at the same time, in one request for each trust and visitor."""
    batches: dict[tuple[Trust, VouchedVisitor | None], list[dict[str, Any]]] = {}
    for message in messages:
        visitor = None
        if message.is_vouched_visitor:
            visitor = VouchedVisitor(prefix + message.ids["user_id"], prefix + message.ids["anonymous_id"])
        batches.setdefault((cast(Trust, message.trust), visitor), []).append(item(message, prefix))
    sends = [pipeline.send(items, trust=trust, visitor=visitor) for (trust, visitor), items in batches.items()]
    return await asyncio.gather(*sends)


async def check(pipeline: Pipeline, messages: Sequence[SentMessage], prefix: str) -> None:
    """Compare customers, intervals and current values with the reference model."""
    expected = customers(messages, CAPS)
    assert await pipeline.groups(prefix) == expected
    for group in expected:
        own = of_customer(messages, group)
        name = sorted(group)[0]
        kind, _, value = name.partition(":")
        stored = await pipeline.intervals(f"{kind}:{prefix}{value}")
        assert stored == intervals(own, pipeline.clock.now(), DEFINITIONS)
        now = {definition: value for definition, value, _, left in stored if left is None}
        assert now == current_values(own, pipeline.clock.now(), DEFINITIONS)


def test_any_delivery_matches_the_reference(database_url: str) -> None:
    """Order, batches and duplicates do not change the result. A replay of the log creates the same rows and causes."""

    async def deliver(delivery: tuple[list[SentMessage], list[list[int]]]) -> None:
        messages, batches = delivery
        prefix = f"e{next(example_numbers)}-"
        async with running_pipeline(database_url, NOW, **SMALL_CAPS) as pipeline:
            stored_indexes: set[int] = set()
            for number, batch in enumerate(batches):
                pipeline.clock.instant = NOW + number * HOUR
                for index in set(batch) - stored_indexes:
                    messages[index] = replace(messages[index], received=pipeline.clock.instant)
                receipts = await send_as_claimed(pipeline, [messages[index] for index in batch], prefix)
                new_indexes = set(batch) - stored_indexes
                assert sum(receipt.accepted for receipt in receipts) == len(new_indexes)
                assert sum(receipt.duplicate for receipt in receipts) == len(batch) - len(new_indexes)
                assert not any(receipt.rejected for receipt in receipts)
                assert all(receipt.projected for receipt in receipts)
                stored_indexes |= new_indexes
            await pipeline.sweep_all()
            await check(pipeline, messages, prefix)
            stored = await pipeline.rows(prefix)
            await pipeline.rebuild(prefix)
            assert await pipeline.rows(prefix) == stored

    async def prepare() -> None:
        async with running_pipeline(database_url, NOW, **SMALL_CAPS) as pipeline:
            await pipeline.define(DEFINITIONS)

    asyncio.run(prepare())

    @settings(max_examples=150)
    @given(deliveries())
    def run(delivery: tuple[list[SentMessage], list[list[int]]]) -> None:
        asyncio.run(deliver(delivery))

    run()


def test_concurrent_workers_match_the_reference(database_url: str) -> None:
    """Two pipelines, each with its own pool and snapshots, ingest messages of the same few customers."""

    async def deliver_concurrently(delivery: tuple[list[SentMessage], list[list[int]]]) -> None:
        messages, batches = delivery
        prefix = f"w{next(example_numbers)}-"
        async with (
            running_pipeline(database_url, NOW, **SMALL_CAPS) as pipeline,
            running_pipeline(database_url, NOW, **SMALL_CAPS) as second,
        ):

            async def send_batches(worker: Pipeline, own_batches: list[list[int]]) -> None:
                for batch in own_batches:
                    await send_as_claimed(worker, [messages[index] for index in batch], prefix)

            await asyncio.gather(send_batches(pipeline, batches[::2]), send_batches(second, batches[1::2]))
            await check(pipeline, messages, prefix)

    async def prepare() -> None:
        async with running_pipeline(database_url, NOW, **SMALL_CAPS) as pipeline:
            await pipeline.define(DEFINITIONS)

    asyncio.run(prepare())

    @settings(max_examples=30)
    @given(deliveries())
    def run(delivery: tuple[list[SentMessage], list[list[int]]]) -> None:
        asyncio.run(deliver_concurrently(delivery))

    run()
    for seed in range(6):
        asyncio.run(deliver_concurrently(random_delivery(random.Random(seed))))


def random_delivery(rng: random.Random) -> tuple[list[SentMessage], list[list[int]]]:
    """Return 60 messages in small batches, some of them sent twice. Hypothesis cannot draw such a large example."""
    trusts = ["public", "alias", "server", "server"]
    messages = [replace(_random_message(rng, number), trust=rng.choice(trusts), received=NOW) for number in range(60)]
    order = rng.sample(range(60), 60) + rng.sample(range(60), 12)
    cuts = sorted(rng.sample(range(1, len(order)), 24))
    return messages, [order[a:b] for a, b in itertools.pairwise([0, *cuts, len(order)])]


def _random_message(rng: random.Random, number: int) -> SentMessage:
    t = T0 + rng.randrange(30) * DAY
    kinds = {"user_id": ["u1", "u2"], "anonymous_id": ["d1", "d2", "d3"], "email": ["x@example.com", "y@example.com"]}
    chosen = rng.sample(sorted(kinds), rng.randint(1, 3))
    own = {kind: rng.choice(kinds[kind]) for kind in chosen}
    if rng.random() < 0.15:
        previous = rng.choice(["u1", "u2", "d1", "d2"])
        return SentMessage(t, f"m{number}", "alias", {"user_id": rng.choice(["u1", "u2"])}, previous=previous)
    name = rng.choice(["bought", "viewed"])
    return SentMessage(t, f"m{number}", "track", own, name=name, properties={"total": rng.randint(0, 9)})
