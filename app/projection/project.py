"""Messages into customers: identity, then state, then stages and segments, all in the caller's transaction.

The one path for live messages, deferred ones and repairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from app.config import Settings
from app.identity import resolver
from app.identity.bucketing_key import Person, bucketing_keys_of
from app.identity.graph import Caps
from app.identity.graph_writes import mark_link_undone, write_graph
from app.identity.resolver import CustomerRow, Resolution, ResolvedCustomer
from app.postgres.pool import Connection
from app.projection.coverage import BEFORE_NUMBERS, coverage, kept_of
from app.projection.fold import NeedsReplay, cut_pending, cut_short, fold
from app.projection.intervals import Interval, IntervalWrites, continue_intervals, correct_intervals
from app.projection.log_replay import ReplayedCustomer, input_of_message, replay
from app.projection.state import State, messages_of, read_state, write_state
from app.projection.writes import ProjectedCustomer, merge_customers, stored_intervals, write_customers
from app.rules.engine.ruleset import Ruleset
from app.touchpoint import Message

POINTS_PER_MESSAGE: Final = 25
"""Looking at so many touchpoints costs about what a message costs otherwise."""


class Projected(msgspec.Struct):
    """Counts of one projection, for the metrics."""

    customers: int = 0
    replayed: int = 0
    left_stale: int = 0
    transitions: int = 0


async def project(
    connection: Connection, messages: Sequence[Message], ruleset: Ruleset, now: int, settings: Settings
) -> Projected:
    """Take messages that are in the log already into the customers they belong to."""
    resolution = await resolver.resolve(connection, messages, caps_of(settings))
    news: dict[bytes, list[Message]] = {}
    for message in messages:
        news.setdefault(resolution.customer_of[message.identities[0].id], []).append(message)
    return await _apply(connection, resolution, news, ruleset, now, settings, replay_all=False)


async def project_deferred(
    connection: Connection, messages: Sequence[Message], ruleset: Ruleset, now: int, settings: Settings
) -> Projected:
    """The same for messages that waited in the log: a replay may have met them there already, so replay again."""
    resolution = await resolver.resolve(connection, messages, caps_of(settings))
    return await _apply(connection, resolution, {}, ruleset, now, settings, replay_all=True)


async def refresh(
    connection: Connection,
    customer_ids: Sequence[bytes],
    ruleset: Ruleset,
    now: int,
    settings: Settings,
    replay_all: bool = False,
) -> Projected:
    """Bring stored customers up to ``now``; with ``replay_all`` from the log, and then to all definitions.

    Only what one step replays (``replay_messages_max``, but at least one customer) is locked, and only what nobody
    else has locked: live messages of other customers are not kept waiting. The rest is left for another call.
    """
    seen = await resolver.peek(connection, customer_ids)
    rows = await resolver.lock(connection, _within_one_step(seen, settings, replay_all), wait=False)
    customers = {row.id: ResolvedCustomer(row.id, [row], True, row.contested, row.last_link_at) for row in rows}
    resolution = Resolution(customers, {}, [], [], [])
    unbounded = settings.model_copy(update={"replay_messages_max": 10**12})
    return await _apply(connection, resolution, {}, ruleset, now, unbounded, replay_all)


def _within_one_step(rows: list[CustomerRow], settings: Settings, replay_all: bool) -> list[bytes]:
    left = settings.replay_messages_max
    step: list[bytes] = []
    for row in rows:
        if replay_all or row.stale or row.revision == BEFORE_NUMBERS:
            left -= messages_of(row.state)
        if step and left < 0:
            break
        step.append(row.id)
    return step


async def undo_link(
    connection: Connection,
    weaker: bytes,
    stronger: bytes,
    undone: bool,
    ruleset: Ruleset,
    now: int,
    settings: Settings,
) -> bool:
    """Take a link of the merge ledger back, or restore it; customers part or join accordingly. False: no such link."""
    if not await mark_link_undone(connection, weaker, stronger, now if undone else None):
        return False
    resolution = await resolver.redivide(connection, [weaker, stronger], caps_of(settings))
    await _apply(connection, resolution, {}, ruleset, now, settings, replay_all=False)
    return True


def caps_of(settings: Settings) -> Caps:
    return Caps(
        settings.anonymous_ids_per_customer_max,
        settings.contact_ids_per_customer_max,
        settings.other_ids_per_customer_max,
    )


async def _apply(
    connection: Connection,
    resolution: Resolution,
    news: Mapping[bytes, list[Message]],
    ruleset: Ruleset,
    now: int,
    settings: Settings,
    replay_all: bool,
) -> Projected:
    carried: list[ProjectedCustomer] = []
    writes = IntervalWrites()
    to_replay: list[tuple[int, ResolvedCustomer]] = []
    kept = kept_of(ruleset)
    await write_graph(connection, resolution.links, resolution.moved)
    await merge_customers(connection, resolution)
    persons = await bucketing_keys_of(connection, list(resolution.customers)) if ruleset.reads_person and news else {}
    for customer in resolution.customers.values():
        told = news.get(customer.id, [])
        going = None if replay_all else _extendable(customer, ruleset, persons)
        if going is None:
            to_replay.append((_cost(customer, len(told), ruleset), customer))
            continue
        state, rules, revision = going
        moves = [input_of_message(message, rules) for message in told]
        try:
            changes = fold(state, rules, moves, now, settings.series_points_max)
        except NeedsReplay:
            to_replay.append((_cost(customer, len(told), ruleset), customer))
            continue
        writes.extend(continue_intervals(customer.id, changes, kept))
        stored = write_state(cut_pending(state, settings.series_points_max), rules)
        carried.append(ProjectedCustomer(customer, state, stored, False, revision))
    now_replayed, left = _within_budget(to_replay, settings.replay_messages_max)
    if now_replayed:
        carried += await replay_customers(connection, now_replayed, ruleset, now, settings, writes)
    for _, customer in left:
        carried.append(_leave_stale(customer, len(news.get(customer.id, ())), ruleset, now))
    if left and resolution.gone:
        writes.retracted += await stored_intervals(connection, resolution.gone)
    await write_customers(connection, carried, writes, now)
    return Projected(len(carried), len(now_replayed), len(left), len(writes.begun) + len(writes.ended))


def _extendable(
    customer: ResolvedCustomer, ruleset: Ruleset, persons: Mapping[bytes, Person]
) -> tuple[State, Ruleset, int] | None:
    """The state to extend, the rules that it knows, and its revision; None where only the log can tell.

    A customer that is not filled yet goes on under the rules that its row knows. The others wait for the worker:
    until then reads work them out, so a new definition never costs live work a replay.
    """
    person = persons.get(customer.id)
    if not customer.origins:
        return State(person=person), ruleset, ruleset.fill
    row = customer.origins[0]
    if len(customer.origins) > 1 or not customer.whole or row.stale or row.revision == BEFORE_NUMBERS:
        return None
    rules = coverage(ruleset).known(row.revision)
    state = read_state(row.state, rules)
    if rules.reads_person and person is not None and state.person != person:
        return None
    return state, rules, min(row.revision, ruleset.fill)


def _length(customer: ResolvedCustomer, news: int) -> int:
    """How many messages a replay will read, about."""
    return news + sum(messages_of(row.state) for row in customer.origins)


def _cost(customer: ResolvedCustomer, news: int, ruleset: Ruleset) -> int:
    """What a replay costs, in messages that look at nothing but themselves."""
    length = _length(customer, news)
    return length + length * length // POINTS_PER_MESSAGE if ruleset.looks_at_points else length


def _within_budget(
    wanted: Sequence[tuple[int, ResolvedCustomer]], messages_max: int
) -> tuple[list[ResolvedCustomer], list[tuple[int, ResolvedCustomer]]]:
    """The short replays are done here, the long ones are left to the worker; until then reads replay by themselves."""
    done: list[ResolvedCustomer] = []
    left: list[tuple[int, ResolvedCustomer]] = []
    for length, customer in sorted(wanted, key=lambda pair: pair[0]):
        messages_max -= length
        if messages_max >= 0:
            done.append(customer)
        else:
            left.append((length, customer))
    return done, left


def _leave_stale(customer: ResolvedCustomer, news: int, ruleset: Ruleset, now: int) -> ProjectedCustomer:
    state = State(born=now, messages=_length(customer, news))
    return ProjectedCustomer(customer, state, write_state(state, ruleset), True, ruleset.fill)


async def replay_customers(
    connection: Connection,
    customers: Sequence[ResolvedCustomer],
    ruleset: Ruleset,
    now: int,
    settings: Settings,
    writes: IntervalWrites,
) -> list[ProjectedCustomer]:
    """All of them from the log, ready to be written; what differs from the stored intervals is added to ``writes``."""
    ids = [customer.id for customer in customers]
    replayed = await replay(connection, ids, ruleset, now)
    before = {row.id for customer in customers for row in customer.origins} | set(ids)
    intervals = await stored_intervals(connection, before)
    kept = kept_of(ruleset)
    wanted: list[Interval] = []
    carried = []
    for customer in customers:
        known = replayed.get(customer.id) or ReplayedCustomer(State(), [])
        wanted += continue_intervals(customer.id, known.changes, kept).begun
        stored = write_state(cut_short(known.state, settings.series_points_max), ruleset)
        carried.append(ProjectedCustomer(customer, known.state, stored, False, ruleset.fill))
    writes.extend(correct_intervals(intervals, wanted))
    return carried
