"""Two servers on one database receive messages of the same ten customers concurrently.

The messages contain merges, aliases, shared devices and addresses, late events, and duplicates sent to both servers.
Every request returns 200, and the stored customers match the reference model.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence

import httpx
import pytest

from app.touchpoint import DAY, HOUR
from tests.projection.test_project_against_reference import DEFINITIONS
from tests.support.crash_load import check_customers, check_rebuild
from tests.support.pipeline import item, running_pipeline
from tests.support.reference_model import SentMessage, current_values, customers, intervals, of_customer
from tests.support.server_process import Server

T0 = 1_700_000_000_000_000
NOW = T0 + 300 * DAY
PEOPLE = 10
MESSAGES = 240
SENDERS_PER_SERVER = 6
TWIN_SHARE = 0.25
CAPS = {"anonymous_id": 1_000, "email": 20}


@pytest.mark.slow
def test_ten_customers_through_two_servers(make_server: Callable[..., Server], empty_database_url: str) -> None:
    """Both servers start on an empty database: one migrates it, and one creates the built-in definitions."""
    servers = [make_server(empty_database_url, SEGUE_DEFAULT_JOURNEY="main") for _ in range(2)]
    for server in servers:
        server.spawn()
    asyncio.run(_all_ready(servers))
    keys = [server.write_key for server in servers if server.write_key]
    assert len(keys) == 1
    next(server for server in servers if server.write_key).change_write_key(trust="server")
    time.sleep(1)

    for seed in range(2):
        messages = _messages(random.Random(seed), f"round{seed}-")
        asyncio.run(_hammer(servers, keys[0], messages, random.Random(seed)))
    assert [server.stop() for server in servers] == [0, 0]
    assert [event for server in servers for event in server.events() if event["level"] == "error"] == []

    everything = [message for seed in range(2) for message in _messages(random.Random(seed), f"round{seed}-")]
    asyncio.run(check_customers(servers[0], everything))
    asyncio.run(_check_histories(empty_database_url, everything))
    check_rebuild(servers[0])


async def _all_ready(servers: Sequence[Server]) -> None:
    await asyncio.gather(*(server.wait_until_ready() for server in servers))
    # A third process creates definitions. Both servers must load them before they evaluate messages.
    async with running_pipeline(servers[0].database_url or "", NOW) as third:
        await third.define(DEFINITIONS)


def _messages(rng: random.Random, prefix: str) -> list[SentMessage]:
    return [_message(rng, f"{prefix}m{number}", prefix) for number in range(MESSAGES)]


def _message(rng: random.Random, message_id: str, prefix: str) -> SentMessage:
    """Draw a message of one of ten customers, sometimes with a device or address of the next customer."""
    person = rng.randrange(PEOPLE)
    t = T0 + rng.randrange(60 * DAY // HOUR) * HOUR
    beside = (person + 1) % PEOPLE
    user, device = f"{prefix}u{person}", f"{prefix}d{rng.choice([person, person, person, beside])}"
    email = f"{prefix}p{rng.choice([person, person, person, beside])}@example.com"
    if rng.random() < 0.03:
        previous = rng.choice([f"{prefix}u{beside}", f"{prefix}d{person}"])
        return SentMessage(t, message_id, "alias", {"user_id": user}, previous=previous)
    kinds = rng.choice([("anonymous_id",), ("user_id", "anonymous_id"), ("user_id",), ("email",), ("email", "user_id")])
    own = {"user_id": user, "email": email, "anonymous_id": device}
    ids = {kind: own[kind] for kind in kinds}
    if rng.random() < 0.1:
        return SentMessage(t, message_id, "identify", ids, traits={"plan": rng.choice(["gold", "free", None])})
    name = rng.choice(["bought", "viewed", "other"])
    return SentMessage(t, message_id, "track", ids, name=name, properties={"total": rng.randint(0, 9)})


async def _hammer(servers: Sequence[Server], key: str, messages: Sequence[SentMessage], rng: random.Random) -> None:
    """Send all messages, shuffled, in small batches over many connections, each to one server or both."""
    outcomes: Counter[str] = Counter()
    queues: list[list[list[SentMessage]]] = [[] for _ in servers]
    waiting = rng.sample(messages, len(messages))
    while waiting:
        size = rng.randint(1, 6)
        batch, waiting = waiting[:size], waiting[size:]
        for queue in queues if rng.random() < TWIN_SHARE else [rng.choice(queues)]:
            queue.append(batch)
    sent = sum(len(batch) for queue in queues for batch in queue)

    async def send(server: Server, queue: list[list[SentMessage]]) -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            while queue:
                messages = [item(message) for message in queue.pop(0)]
                answer = await http.post("/v1/batch", json={"writeKey": key, "batch": messages})
                assert answer.status_code == 200, answer.text
                receipt = answer.json()
                assert receipt["projected"]
                outcomes.update({name: receipt[name] for name in ("accepted", "duplicate", "rejected")})

    lanes = [zip(servers, queues, strict=True) for _ in range(SENDERS_PER_SERVER)]
    await asyncio.gather(*(send(server, queue) for server, queue in itertools.chain(*lanes)))
    assert outcomes == {"accepted": len(messages), "duplicate": sent - len(messages), "rejected": 0}


async def _check_histories(database_url: str, messages: Sequence[SentMessage]) -> None:
    async with running_pipeline(database_url, NOW) as pipeline:
        groups = customers(messages, CAPS)
        assert len(groups) >= PEOPLE
        for group in groups:
            own = of_customer(messages, group)
            stored = await pipeline.intervals(sorted(group)[0])
            assert stored == intervals(own, NOW, DEFINITIONS)
            now = {definition: value for definition, value, _, left in stored if left is None}
            assert now == current_values(own, NOW, DEFINITIONS)
