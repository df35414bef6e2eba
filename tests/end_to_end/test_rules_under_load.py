"""Thirty random rules under load: member lists, counts, explanations and verification must agree.

Two servers receive late, duplicate and merging messages of the same customers while rules are defined, edited and
archived. Readers compare responses over HTTP, which must agree if no message arrived between them. They also compare
queries within one database snapshot, which must always agree. At the end all results are compared with the reference
evaluator.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from random import Random
from typing import Any, NamedTuple

import httpx
import pytest

from app.formats.identifiers import parse_customer_reference
from app.formats.timestamps import parse
from app.insight.verification import SegmentVerifier
from app.postgres.pool import Connection
from app.queries.customers import CustomerQueries
from app.queries.segment_members import SegmentMemberQueries
from app.touchpoint import DAY, HOUR, SECOND
from tests.projection.test_random_rules import item_of, plain
from tests.support.pipeline import Pipeline, running_pipeline
from tests.support.reference_model import (
    Definitions,
    SentMessage,
    current_values,
    customers,
    entries,
    intervals,
    of_customer,
    world_of,
)
from tests.support.reference_rules import Evaluator, World
from tests.support.rule_strategies import (
    CHANNELS,
    NAMES,
    SOURCES,
    START,
    documents,
    one_in,
    rules,
    traits,
    worlds,
)
from tests.support.server_process import Server

RULES = 30
DEFINED_BEFORE = 15
PEOPLE = 14
MESSAGES = 200
SENDERS_PER_SERVER = 2
READERS = 2
THINK_SECONDS_MAX = 0.5
"""Longest pause of a sender in seconds. Pauses let readers find moments without traffic."""

TWIN_SHARE = 0.15
CAPS = {"anonymous_id": 1_000, "email": 20}
SETTINGS = {"default_journey": "main", "series_points_max": 12, "fill_customers_max": 7}
SHARE_MIN, SHARE_MAX = 0.1, 0.9
"""Minimum and maximum share of customers for whom a rule must hold, because rules outside it test little."""

LOUD_ATTEMPTS = 1
"""Number of attempts of a reader under traffic. It then pauses the senders, but not the workers."""

HISTORIES = 3
"""Number of customers whose intervals are compared with the reference evaluator, which is slow."""

EXPLAINED = 1
"""Number of customers for whom each rule is explained at the end. All other comparisons cover all customers."""

SETTLED_SECONDS_MAX = 60.0


class Plan(NamedTuple):
    """All messages and definitions of the test. They depend only on the seed and the start time."""

    sent: list[SentMessage]
    first: Definitions
    edits: dict[str, Any]
    archived: str

    @property
    def last(self) -> Definitions:
        segments = {key: rule for key, rule in {**self.first.segments, **self.edits}.items() if key != self.archived}
        return Definitions(segments, self.first.journeys, "main", self.first.traits, self.first.timezone)


@pytest.mark.slow
def test_all_queries_agree_under_load(make_server: Callable[..., Server], empty_database_url: str) -> None:
    plan = plan_of(Random(5), time.time_ns() // 1_000)
    settings = {**SETTINGS, "timezone": plan.first.timezone}
    environment = {f"SEGUE_{name.upper()}": str(value) for name, value in settings.items()}
    servers = [make_server(empty_database_url, **environment) for _ in range(2)]
    for server in servers:
        server.start()
    servers[0].change_write_key(trust="server")
    asyncio.run(_live(servers, empty_database_url, settings, plan))
    assert [server.stop() for server in servers] == [0, 0]
    assert [event for server in servers for event in server.events() if event["level"] == "error"] == []


async def _live(servers: Sequence[Server], database_url: str, settings: Mapping[str, Any], plan: Plan) -> None:
    async with running_pipeline(database_url, time.time_ns() // 1_000, **settings) as inside:
        keys = {"default": servers[0].write_key}
        for source in SOURCES:
            _, key = await inside.registry.sources.create(source, source)
            await inside.registry.keys.change(key.id, trust="server")
            keys[source] = str(key.key)
        async with _talking(servers, servers[0].secret_key) as talk:
            await talk.define(plan, range(DEFINED_BEFORE))
            traffic = Traffic(talk, keys, plan.sent, Random(1))
            async with asyncio.TaskGroup() as group:
                group.create_task(traffic.run())
                group.create_task(change_definitions(talk, traffic, plan))
                readers = [group.create_task(read_on(talk, traffic, Random(seed))) for seed in range(READERS)]
                readers.append(group.create_task(look_on(inside, traffic, Random(READERS))))
                readers.append(group.create_task(verify_on(talk, traffic, Random(READERS + 1))))
            compared = sum((reader.result() for reader in readers), Counter[str]())
            await talk.until_settled(plan)
            await check_final_results(talk, inside, plan)
    assert compared["over HTTP"] >= 5, compared
    assert compared["in a snapshot"] >= RULES, compared
    assert compared["verified"] >= 20, compared


# ---------------------------------------------------------------------------------------------------- the plan


def plan_of(rng: Random, now: int) -> Plan:
    """Draw rules until enough rules hold for some customers but not for others."""
    days = (now - START) // DAY
    sent = [_message(rng, number, now, days) for number in range(MESSAGES)]
    world = _moved_world(worlds(rng), days)
    base = Definitions(world.segments, world.journeys, "main", world.traits, world.timezone)
    groups = rng.sample(sorted(customers(sent, CAPS), key=sorted), 12)
    evaluators = [
        Evaluator(entries(own), now, world_of(own, base)) for own in (of_customer(sent, group) for group in groups)
    ]

    def drawn(world: World) -> Any:
        while True:
            rule = _moved(rules(rng, 3, world), days)
            if SHARE_MIN <= sum(evaluator.holds(rule, now) for evaluator in evaluators) / len(evaluators) <= SHARE_MAX:
                return rule

    segments = {**world.segments, **{f"r{number:02}": drawn(world) for number in range(RULES - len(world.segments))}}
    # Other rules refer to the segment "one", so its new version must not refer to those rules.
    edits = {"one": drawn(World(traits=world.traits, timezone=world.timezone)), "r03": drawn(world)}
    return Plan(sent, Definitions(segments, base.journeys, "main", base.traits, base.timezone), edits, "r05")


def _moved_world(world: World, days: int) -> World:
    journeys = {key: [(stage, _moved(rule, days)) for stage, rule in stages] for key, stages in world.journeys.items()}
    return World(_moved(world.segments, days), journeys, _moved(world.traits, days), timezone=world.timezone)


def _moved(value: Any, days: int) -> Any:
    """Shift the dates of 1997 in rules and properties to the time of the test."""
    if isinstance(value, dict):
        return {name: _moved(entry, days) for name, entry in value.items()}
    if isinstance(value, list):
        return [_moved(entry, days) for entry in value]
    if isinstance(value, str) and re.match(r"19\d\d-\d\d-\d\d", value):
        try:
            return f"{date.fromisoformat(value[:10]) + timedelta(days)}{value[10:]}"
        except ValueError:
            return value  # The date does not exist, for example 30 February.
    return value


def _message(rng: Random, number: int, now: int, days: int) -> SentMessage:
    """Draw a message of one of a few customers, sometimes with a device or address of the next customer."""
    person = rng.randrange(PEOPLE)
    t, message_id, source = _instant(rng, now), f"m{number}", rng.choice([*SOURCES, "default"])
    beside = (person + 1) % PEOPLE
    user = {"user_id": f"u{person}"}
    device = {"anonymous_id": f"d{person if one_in(rng, 2) else rng.choice([person, person, beside])}-{number % 2}"}
    email = {"email": f"p{person if rng.randrange(4) else beside}@example.com"}
    if one_in(rng, 40):
        previous = rng.choice([f"u{beside}", f"d{person}-0"])
        return SentMessage(t, message_id, "alias", user, previous=previous, source=source)
    ids = rng.choice([device, device, user, user, device | user, email, email | user])
    if one_in(rng, 5):
        return SentMessage(t, message_id, "identify", ids, traits=_moved(traits(rng), days), source=source)
    name = rng.choice([*NAMES, "A", "A", "B"])
    channel, properties = rng.choice([*CHANNELS, "app"]), plain(_moved(documents(rng), days))
    return SentMessage(t, message_id, "track", ids, name, properties=properties, channel=channel, source=source)


def _instant(rng: Random, now: int) -> int:
    """Draw an instant: sometimes during the test or after it, mostly in the last hours and days, sometimes long ago."""
    match rng.randrange(10):
        case 0:
            return now + rng.randrange(30) * SECOND
        case 1:
            return now - rng.randrange(90) * SECOND
        case 2 | 3 | 4 | 5:
            return now - rng.randrange(72) * HOUR
        case 6 | 7 | 8:
            return now - rng.randrange(14) * DAY
    return now - rng.randrange(400) * DAY


# -------------------------------------------------------------------------------------------------- the traffic


@dataclass
class Talk:
    """Client of both servers. It sends each request to a random server, so both must return the same data."""

    clients: list[httpx.AsyncClient]
    rng: Random = field(default_factory=lambda: Random(0))

    async def ask(self, path: str, **parameters: Any) -> Any:
        answer = await self.rng.choice(self.clients).get(path, params=parameters)
        assert answer.status_code == httpx.codes.OK, answer.text
        return answer.json()

    async def post(self, path: str, content: Any) -> Any:
        answer = await self.rng.choice(self.clients).post(path, json=content)
        assert answer.is_success, answer.text
        return answer.json()

    async def define(self, plan: Plan, places: Sequence[int]) -> None:
        """Define the segments at these positions of the plan. The first call also defines their references."""
        keys = list(plan.first.segments)
        if 0 in places:
            for key, value in plan.first.traits.items():
                await self.post("/v1/traits", {"key": key, "name": key, "value": plain(value)})
            await self._segment("one", plan.first.segments["one"])
            for key, stages in plan.first.journeys.items():
                written = [{"key": stage, "name": stage, "rule": plain(rule)} for stage, rule in stages]
                await self.post("/v1/journeys", {"key": key, "name": key, "stages": written})
        for key in (keys[place] for place in places if keys[place] != "one"):
            await self._segment(key, plan.first.segments[key])

    async def _segment(self, key: str, rule: Any) -> None:
        await self.post("/v1/segments", {"key": key, "name": key, "rule": plain(rule)})

    async def edit(self, key: str, rule: Any) -> None:
        content = {"name": key, "rule": plain(rule)}
        answer = await self.rng.choice(self.clients).put(f"/v1/segments/{key}", json=content)
        assert answer.is_success, answer.text

    async def archive(self, key: str) -> None:
        answer = await self.rng.choice(self.clients).delete(f"/v1/segments/{key}")
        assert answer.is_success, answer.text

    async def versions(self) -> dict[str, int]:
        """Return the current versions of the segments of this test."""
        response = (await self.ask("/v1/segments"))["items"]
        return {entry["key"]: entry["version"] for entry in response if entry["key"] in _OURS}

    async def until_settled(self, plan: Plan) -> None:
        """Wait until the edits are current and all customers are backfilled."""
        async with asyncio.timeout(SETTLED_SECONDS_MAX):
            while True:
                response = [await self.ask(f"/v1/segments/{key}") for key in plan.last.segments]
                edited = {entry["key"] for entry in response if entry["version"] > 1}
                if edited == plan.edits.keys() and all(entry["fill"]["done"] for entry in response):
                    return
                await asyncio.sleep(0.1)


_KINDS = ("segment", "journey")
_OURS = {"one", "two", *(f"r{number:02}" for number in range(RULES))}


@asynccontextmanager
async def _talking(servers: Sequence[Server], secret_key: str) -> AsyncIterator[Talk]:
    headers = {"Authorization": f"Bearer {secret_key}"}
    clients = [httpx.AsyncClient(base_url=server.url, timeout=60, headers=headers) for server in servers]
    try:
        yield Talk(clients)
    finally:
        for client in clients:
            await client.aclose()


class Traffic:
    """Sends all messages, shuffled, in small batches, each to one server or both.

    ``version`` is increased with each request, so that readers notice new messages.
    """

    def __init__(self, talk: Talk, keys: Mapping[str, str], sent: Sequence[SentMessage], rng: Random) -> None:
        self.talk = talk
        self.keys = keys
        self.rng = rng
        self.over = False
        self.version = 0
        self.in_flight = 0
        self.queues: list[list[list[SentMessage]]] = [[] for _ in talk.clients]
        waiting = rng.sample(sent, len(sent))
        while waiting:
            batch, waiting = waiting[: (size := rng.randint(1, 5))], waiting[size:]
            for queue in self.queues if rng.random() < TWIN_SHARE else [rng.choice(self.queues)]:
                queue.append(batch)
        self.batches = sum(map(len, self.queues))
        self._open = asyncio.Event()
        self._open.set()

    @property
    def share_sent(self) -> float:
        return 1 - sum(map(len, self.queues)) / self.batches

    async def run(self) -> None:
        lanes = [*zip(self.talk.clients, self.queues, strict=True)] * SENDERS_PER_SERVER
        try:
            await asyncio.gather(*(self._send(client, queue) for client, queue in lanes))
        finally:
            self.over = True

    async def _send(self, client: httpx.AsyncClient, queue: list[list[SentMessage]]) -> None:
        while queue:
            await asyncio.sleep(self.rng.uniform(0, THINK_SECONDS_MAX))
            await self._open.wait()
            if queue:
                await self._send_batch(client, queue.pop(0))

    async def _send_batch(self, client: httpx.AsyncClient, batch: Sequence[SentMessage]) -> None:
        self.version += 1
        self.in_flight += 1
        try:
            for source in sorted({sent.source for sent in batch}):
                messages = [item_of(sent) for sent in batch if sent.source == source]
                body = {"writeKey": self.keys[source], "batch": messages}
                answer = await client.post("/v1/batch", json=body, headers={"Authorization": ""})
                assert answer.status_code == httpx.codes.OK, answer.text
                receipt = answer.json()
                assert (receipt["rejected"], receipt["projected"]) == (0, True), receipt
        finally:
            self.version += 1
            self.in_flight -= 1

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Pause the senders and wait until no request is in flight."""
        self._open.clear()
        try:
            while self.in_flight:
                await asyncio.sleep(0.005)
            yield
        finally:
            self._open.set()


async def change_definitions(talk: Talk, traffic: Traffic, plan: Plan) -> None:
    """Define, edit and archive rules during the traffic. Two edits overlap, and one edit affects most other rules."""

    async def after(share: float) -> None:
        while traffic.share_sent < share and not traffic.over:
            await asyncio.sleep(0.02)

    for place in range(DEFINED_BEFORE, RULES):
        await after(0.6 * (place - DEFINED_BEFORE) / (RULES - DEFINED_BEFORE))
        await talk.define(plan, [place])
    for share, (key, rule) in zip((0.6, 0.65), plan.edits.items(), strict=True):
        await after(share)
        await talk.edit(key, rule)
    await after(0.8)
    await talk.archive(plan.archived)


# ------------------------------------------------------------------------------------------------- over HTTP


async def read_on(talk: Talk, traffic: Traffic, rng: Random) -> Counter[str]:
    """Compare all queries about a random segment until the traffic ends."""
    compared: Counter[str] = Counter()
    while not traffic.over:
        key = rng.choice(sorted(await talk.versions()))
        for attempt in range(LOUD_ATTEMPTS + 1):
            if attempt < LOUD_ATTEMPTS:
                was_quiet = await ask_all_ways(talk, traffic, key, rng)
            else:
                async with traffic.paused():
                    was_quiet = await ask_all_ways(talk, traffic, key, rng)
            compared["over HTTP" if was_quiet else "too loud"] += 1
            if was_quiet:
                break
    return compared


async def ask_all_ways(talk: Talk, traffic: Traffic, key: str, rng: Random) -> bool:
    """Compare all queries about a segment. Return False if messages or definitions changed in the meantime."""
    before = (traffic.version, await talk.versions())
    if traffic.in_flight or key not in before[1]:
        return False
    listed, at = await _members(talk, key, rng)
    count = (await talk.ask(f"/v1/segments/{key}/count", as_of=at))["count"]
    answers = [
        *(f"id:{id}" for id in rng.sample(sorted(listed), min(1, len(listed)))),
        f"user_id:u{rng.randrange(PEOPLE)}",
    ]
    explained, own = [], []
    for customer in answers:
        explained.append(await _explained(talk, customer, key, at))
        own.append(await _own(talk, customer, key, at))
    if before != (traffic.version, await talk.versions()):
        return False
    assert count == len(listed), (key, at, count, listed)
    for why, other, customer in zip(explained, own, answers, strict=True):
        assert (why is None) == (other is None)
        if other is not None:
            id, *sent = other
            assert listed.get(id, _NO_MEMBER) == tuple(sent) == why, (key, at, customer)
    return True


_NO_MEMBER = (False, None, None)


async def _members(talk: Talk, key: str, rng: Random) -> tuple[dict[str, tuple[bool, str, str | None]], str]:
    """Return all members of a segment. All pages must show the same instant and must not repeat a customer."""
    limit = rng.choice([2, 7, 1_000])
    page = await talk.ask(f"/v1/segments/{key}/members", limit=limit)
    at, items = page["as_of"], page["items"]
    while page["next_cursor"] is not None:
        page = await talk.ask(f"/v1/segments/{key}/members", limit=limit, cursor=page["next_cursor"])
        assert page["as_of"] == at
        items += page["items"]
    ids = [entry["id"] for entry in items]
    assert ids == sorted(set(ids))
    return {entry["id"]: (True, entry["since"], entry["valid_until"]) for entry in items}, at


async def _explained(talk: Talk, customer: str, key: str, at: str) -> Any:
    response = await _found(talk, f"/v1/customers/{customer}/segments/{key}/explain", at)
    if response is None:
        return None
    assert response["explanation"]["truth"] == response["member"]
    return (True, response["since"], response["valid_until"]) if response["member"] else _NO_MEMBER


async def _own(talk: Talk, customer: str, key: str, at: str) -> Any:
    response = await _found(talk, f"/v1/customers/{customer}/segments", at)
    if response is None:
        return None
    for entry in response["items"]:
        if entry["key"] == key:
            return (response["id"], True, entry["since"], entry["valid_until"])
    return (response["id"], *_NO_MEMBER)


async def _found(talk: Talk, path: str, at: str) -> Any:
    """Return the response body, or None if the customer does not exist yet or has another id since a merge."""
    answer = await talk.rng.choice(talk.clients).get(path, params={"as_of": at})
    if answer.status_code == httpx.codes.NOT_FOUND:
        return None
    assert answer.status_code == httpx.codes.OK, answer.text
    return answer.json()


async def verify_on(talk: Talk, traffic: Traffic, rng: Random) -> Counter[str]:
    """Verify segments repeatedly. Each customer is compared within one snapshot, so no customer may differ."""
    compared: Counter[str] = Counter()
    while not traffic.over:
        for key in rng.sample(versions := sorted(await talk.versions()), len(versions)):
            answer = await rng.choice(talk.clients).post(f"/v1/segments/{key}/verify")
            if answer.status_code == httpx.codes.NOT_FOUND:
                assert key == "r05"  # The segment has been archived in the meantime.
                continue
            assert answer.status_code == httpx.codes.OK, answer.text
            assert answer.json()["differing"] == 0, answer.text
            compared["verified"] += 1
            await asyncio.sleep(0.3)
    return compared


# --------------------------------------------------------------------------------------------- in a snapshot


class Frozen:
    """Connection pool whose only connection keeps one snapshot for its whole transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.fetch = connection.fetch
        self.fetchrow = connection.fetchrow
        self.fetchval = connection.fetchval

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        yield self._connection


async def look_on(inside: Pipeline, traffic: Traffic, rng: Random) -> Counter[str]:
    """Compare all rules and customers within one snapshot after the other, with the query code of the API."""
    compared: Counter[str] = Counter()
    while not traffic.over:
        async with inside.pool.acquire() as connection, connection.transaction(isolation="repeatable_read"):
            inside.clock.instant = await connection.fetchval("SELECT clock_timestamp()")
            ruleset = await inside.registry.rules.read(connection)
            keys = sorted({entry.key for entry in ruleset.segments} & _OURS)
            compared["in a snapshot"] += await look(inside, connection, keys, rng)
        await asyncio.sleep(1.5)
    return compared


async def look(
    inside: Pipeline, connection: Connection, keys: Sequence[str], rng: Random, explained: float = 0.2
) -> int:
    """Compare all rules in one snapshot and return their number.

    Explain each rule for about ``explained`` customers.
    """
    pool: Any = Frozen(connection)
    now = inside.clock.now()
    members = SegmentMemberQueries(pool, inside.registry, inside.settings)
    single = CustomerQueries(pool, inside.registry, inside.settings)
    verify = SegmentVerifier(pool, inside.registry, inside.settings, inside.clock)
    rows = await connection.fetch("SELECT customer_id, min(id::text)::uuid AS id FROM identities GROUP BY 1")
    names = {row["customer_id"]: [row["id"]] for row in rows if row["customer_id"] is not None}
    documents = dict(zip(names, await single.customers(list(names.values()), now), strict=True))
    own = {id: {entry.key: entry for entry in customer.segments} for id, customer in documents.items() if customer}
    assert own.keys() == names.keys()
    for key in keys:
        page = await members.list_members(key, now, None, 1_000)
        assert page.after is None
        listed = {entry.id: (entry.since, entry.valid_until) for entry in page.items}
        assert len(listed) == len(page.items)
        assert listed == {id: (entry[key].since, entry[key].valid_until) for id, entry in own.items() if key in entry}
        assert await members.count_members(key, now) == len(listed)
        verified = await verify.verify_segment(key)
        assert (verified.differing, verified.members, verified.customers) == (0, len(listed), len(names)), verified
        for id in (id for id in sorted(names) if rng.random() * len(names) < explained):
            _, why = await single.explain_segment(names[id], key, now)
            assert why.holds == (id in listed), (key, names[id], now)
            assert not why.holds or (why.since, why.valid_until) == listed[id], (key, names[id], now)
    return len(keys)


# ---------------------------------------------------------------------------------------------- in the end


async def check_final_results(talk: Talk, inside: Pipeline, plan: Plan) -> None:
    """Compare every query for every rule and customer with the reference evaluator."""
    final = plan.last
    groups = sorted(customers(plan.sent, CAPS), key=sorted)
    async with inside.pool.acquire() as connection, connection.transaction(isolation="repeatable_read"):
        inside.clock.instant = await connection.fetchval("SELECT clock_timestamp()")
        assert await look(inside, connection, sorted(final.segments), Random(0), explained=EXPLAINED) == RULES - 1
    rng = Random(0)
    for key in final.segments:
        listed, at = await _members(talk, key, rng)
        assert (await talk.ask(f"/v1/segments/{key}/count", as_of=at))["count"] == len(listed)
        verified = await talk.post(f"/v1/segments/{key}/verify", {})
        assert (verified["differing"], verified["customers"]) == (0, len(groups)), verified
    answers = await talk.post("/v1/customers/lookup", {"customers": [sorted(group)[0] for group in groups]})
    as_of = parse(answers["as_of"])
    assert as_of is not None
    ids = set()
    for group, item in zip(groups, answers["items"], strict=True):
        customer = item["customer"]
        ids.add(customer["id"])
        assert {f"{entry['kind']}:{entry['value']}" for entry in customer["identities"]} == group
        now = {f"segment:{entry['key']}": "" for entry in customer["segments"] if entry["key"] in _OURS}
        now |= {f"journey:{key}": stage["stage"] for key, stage in customer["stages"].items() if key in final.journeys}
        expected = current_values(of_customer(plan.sent, group), as_of, final)
        assert {key: value for key, value in now.items() if value is not None} == expected, group
    assert len(ids) == len(groups)
    few = [group for group in groups if len(of_customer(plan.sent, group)) <= 30]
    views = CustomerQueries(inside.pool, inside.registry, inside.settings)
    for group in rng.sample(few, HISTORIES):
        ids_of = [entry.id for entry in parse_customer_reference(sorted(group)[0], inside.settings)]
        stays = [stay for kind in _KINDS for stay in (await views.list_stays(ids_of, kind, None, as_of, past=True))[1]]
        actual = {
            (stay.definition, stay.value, stay.entered_at, stay.left_at)
            for stay in stays
            if stay.definition.partition(":")[2] in final.segments.keys() | final.journeys.keys()
        }
        assert actual == intervals(of_customer(plan.sent, group), as_of, final), group
