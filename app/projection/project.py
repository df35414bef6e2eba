"""Projection of messages: resolves identities, folds states, and writes stages and segments.

Live messages, deferred messages and repairs all take this path, in the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from app.config import Settings
from app.identity import resolver
from app.identity.bucketing_key import BucketingKey, bucketing_keys_of
from app.identity.customer_locks import CustomerRow, lock_customers, read_customers
from app.identity.graph import Caps
from app.identity.graph_writes import mark_link_undone, write_graph
from app.identity.resolver import Resolution, ResolvedCustomer
from app.postgres.pool import Connection
from app.projection.coverage import BEFORE_NUMBERS, Coverage, definition_refs_of
from app.projection.intervals import Interval, IntervalWrites, continue_intervals, correct_intervals
from app.projection.log_replay import ReplayedCustomer, input_from_message, replay_log
from app.projection.older_points import fold_stored_state
from app.projection.state import State, count_messages, read_state, write_state
from app.projection.state_limits import limit_pending, limit_replayed_state, split_long_series
from app.projection.stored_intervals import read_intervals
from app.projection.time_slices import TimeSlices, fold_in_slices
from app.projection.writes import ProjectedCustomer, merge_customers, write_customers
from app.rules.engine.point_series import SCANNED_POINTS_MAX
from app.rules.engine.ruleset import Ruleset
from app.rules.engine.series import NeedsReplay
from app.touchpoint import Message

POINTS_PER_MESSAGE: Final = 25
"""Number of points whose scan by a rule takes about as long as the replay of one message without scans."""


class ProjectionCounts(msgspec.Struct):
    """Counts of one projection, for the metrics."""

    customers: int = 0
    replayed: int = 0
    left_stale: int = 0
    transitions: int = 0


async def project_messages(
    connection: Connection, messages: Sequence[Message], ruleset: Ruleset, now: int, settings: Settings
) -> ProjectionCounts:
    """Project messages that are already in the log onto their customers. Raise NeighbourhoodTooLarge."""
    resolution = await resolver.resolve_identities(connection, messages, caps_of(settings), settings.neighbours_max)
    new_messages: dict[bytes, list[Message]] = {}
    for message in messages:
        new_messages.setdefault(resolution.customer_of[message.identities[0].id], []).append(message)
    return await _apply(connection, resolution, new_messages, ruleset, now, settings, replay_all=False)


async def project_deferred(
    connection: Connection, messages: Sequence[Message], ruleset: Ruleset, now: int, settings: Settings
) -> ProjectionCounts:
    """Project messages that were stored without projection, by replaying their customers.

    A replay may have included these messages already, so folding them into the stored states could count them twice.
    """
    resolution = await resolver.resolve_identities(connection, messages, caps_of(settings))
    return await _apply(connection, resolution, {}, ruleset, now, settings, replay_all=True)


async def refresh_customers(
    connection: Connection,
    customer_ids: Sequence[bytes],
    ruleset: Ruleset,
    now: int,
    settings: Settings,
    replay_all: bool = False,
) -> ProjectionCounts:
    """Bring stored customers up to ``now``; with ``replay_all``, replay them from the log under all definitions.

    Lock only the customers of one step (up to ``replay_messages_max`` messages, but at least one customer), and skip
    customers that are locked elsewhere, so that live messages do not wait. Repeat the call for the others.
    """
    stored_rows = await read_customers(connection, customer_ids)
    rows = await lock_customers(connection, _limit_to_one_step(stored_rows, settings, replay_all), wait=False)
    customers = {row.id: ResolvedCustomer(row.id, [row], True, row.contested, row.last_link) for row in rows}
    resolution = Resolution(customers, {}, [], [], [])
    unbounded = settings.model_copy(update={"replay_messages_max": 10**12})
    return await _apply(connection, resolution, {}, ruleset, now, unbounded, replay_all)


def _limit_to_one_step(rows: list[CustomerRow], settings: Settings, replay_all: bool) -> list[bytes]:
    messages_left = settings.replay_messages_max
    step_ids: list[bytes] = []
    for row in rows:
        if replay_all or row.stale or row.revision == BEFORE_NUMBERS:
            messages_left -= count_messages(row.state)
        if step_ids and messages_left < 0:
            break
        step_ids.append(row.id)
    return step_ids


async def undo_link(
    connection: Connection,
    weaker: bytes,
    stronger: bytes,
    undone: bool,
    ruleset: Ruleset,
    now: int,
    settings: Settings,
) -> bool:
    """Undo or restore a link of the merge ledger, which splits or merges customers; return False if it is missing."""
    if not await mark_link_undone(connection, weaker, stronger, now if undone else None):
        return False
    resolution = await resolver.resolve_neighbourhood(connection, [weaker, stronger], caps_of(settings))
    await _apply(connection, resolution, {}, ruleset, now, settings, replay_all=False)
    return True


def caps_of(settings: Settings) -> Caps:
    return Caps(
        settings.user_ids_per_customer_max,
        settings.anonymous_ids_per_customer_max,
        settings.contact_ids_per_customer_max,
        settings.other_ids_per_customer_max,
        settings.identities_per_customer_max,
    )


async def _apply(
    connection: Connection,
    resolution: Resolution,
    new_messages: Mapping[bytes, list[Message]],
    ruleset: Ruleset,
    now: int,
    settings: Settings,
    replay_all: bool,
) -> ProjectionCounts:
    projected: list[ProjectedCustomer] = []
    writes = IntervalWrites()
    to_replay: list[tuple[int, ResolvedCustomer]] = []
    refs = definition_refs_of(ruleset)
    await write_graph(connection, resolution.links, resolution.moved_identities)
    await merge_customers(connection, resolution)
    bucketing_keys = (
        await bucketing_keys_of(connection, list(resolution.customers))
        if ruleset.reads_bucketing_key and new_messages
        else {}
    )
    slices = TimeSlices()
    for customer in resolution.customers.values():
        await slices.give_way_if_due()
        messages = new_messages.get(customer.id, [])
        extendable = None if replay_all else _find_extendable_state(customer, ruleset, bucketing_keys)
        if extendable is None:
            to_replay.append((_estimate_replay_cost(customer, len(messages), ruleset), customer))
            continue
        state, rules, revision = extendable
        inputs = [input_from_message(message, rules) for message in messages]
        try:
            if state.windows:
                state, changes = await fold_stored_state(
                    connection,
                    customer.id,
                    customer.origins[0].state,
                    rules,
                    inputs,
                    now,
                    settings.series_points_max,
                    slices,
                    rewinds=True,
                )
            else:
                changes = await fold_in_slices(
                    state, rules, inputs, now, slices, settings.series_points_max, rewinds=True
                )
            moves = split_long_series(state, rules, settings.series_points_max)
        except NeedsReplay:
            to_replay.append((_estimate_replay_cost(customer, len(messages), ruleset), customer))
            continue
        limit_pending(state, settings.series_points_max)
        writes.extend(continue_intervals(customer.id, changes, refs))
        projected.append(ProjectedCustomer(customer, state, write_state(state, rules), False, revision, moves))
    replayable, postponed = _split_by_budget(to_replay, settings.replay_messages_max)
    if replayable:
        projected += await replay_customers(connection, replayable, ruleset, now, settings, writes)
    for _, customer in postponed:
        projected.append(_mark_stale(customer, len(new_messages.get(customer.id, ())), ruleset, now))
    if postponed and resolution.merged_customers:
        writes.retracted += await read_intervals(connection, resolution.merged_customers)
    await write_customers(connection, projected, writes, now)
    return ProjectionCounts(len(projected), len(replayable), len(postponed), len(writes.begun) + len(writes.ended))


def _find_extendable_state(
    customer: ResolvedCustomer, ruleset: Ruleset, bucketing_keys: Mapping[bytes, BucketingKey]
) -> tuple[State, Ruleset, int] | None:
    """Return the state to extend, the rules that it contains and its revision; None if the customer needs a replay.

    A customer that is not backfilled yet is extended with the rules that the customer row contains. Reads compute the
    other rules until the worker backfills them, so a new definition never makes a live message replay a customer.
    """
    bucketing_key = bucketing_keys.get(customer.id)
    if not customer.origins:
        return State(bucketing_key=bucketing_key), ruleset, ruleset.fill
    row = customer.origins[0]
    if len(customer.origins) > 1 or not customer.is_whole or row.stale or row.revision == BEFORE_NUMBERS:
        return None
    rules = Coverage(ruleset).known_rules(row.revision)
    state = read_state(row.state, rules)
    if rules.reads_bucketing_key and bucketing_key is not None and state.bucketing_key != bucketing_key:
        return None
    return state, rules, min(row.revision, ruleset.fill)


def _count_replayed_messages(customer: ResolvedCustomer, new_messages: int) -> int:
    """Return the approximate number of messages that a replay reads."""
    return new_messages + sum(count_messages(row.state) for row in customer.origins)


def _estimate_replay_cost(customer: ResolvedCustomer, new_messages: int, ruleset: Ruleset) -> int:
    """Return the estimated cost of a replay; the unit is one message for which no rule scans points."""
    length = _count_replayed_messages(customer, new_messages)
    return length + length * length // POINTS_PER_MESSAGE if ruleset.scans_points else length


def _split_by_budget(
    candidates: Sequence[tuple[int, ResolvedCustomer]], messages_max: int
) -> tuple[list[ResolvedCustomer], list[tuple[int, ResolvedCustomer]]]:
    """Return the cheapest replays within the budget, and the others, which are left to the worker.

    Until the worker replays them, reads replay these customers themselves.
    """
    affordable: list[ResolvedCustomer] = []
    postponed: list[tuple[int, ResolvedCustomer]] = []
    for cost, customer in sorted(candidates, key=lambda pair: pair[0]):
        messages_max -= cost
        if messages_max >= 0:
            affordable.append(customer)
        else:
            postponed.append((cost, customer))
    return affordable, postponed


def _mark_stale(customer: ResolvedCustomer, new_messages: int, ruleset: Ruleset, now: int) -> ProjectedCustomer:
    state = State(born=now, messages=_count_replayed_messages(customer, new_messages))
    return ProjectedCustomer(customer, state, write_state(state, ruleset), True, ruleset.fill)


async def replay_customers(
    connection: Connection,
    customers: Sequence[ResolvedCustomer],
    ruleset: Ruleset,
    now: int,
    settings: Settings,
    writes: IntervalWrites,
) -> list[ProjectedCustomer]:
    """Replay customers and return them ready to be written; add changed intervals to ``writes``."""
    ids = [customer.id for customer in customers]
    replayed = await replay_log(connection, ids, ruleset, now, rewinds=True)
    customer_ids = {row.id for customer in customers for row in customer.origins} | set(ids)
    stored_intervals = await read_intervals(connection, customer_ids)
    refs = definition_refs_of(ruleset)
    replayed_intervals: list[Interval] = []
    projected = []
    slices = TimeSlices()
    for customer in customers:
        await slices.give_way_if_due()
        customer_replay = replayed.get(customer.id) or ReplayedCustomer(State(), [])
        replayed_intervals += continue_intervals(customer.id, customer_replay.changes, refs).begun
        state = customer_replay.state
        moves = limit_replayed_state(state, ruleset, settings.series_points_max)
        moves.replaces_all = _count_replayed_messages(customer, 0) > SCANNED_POINTS_MAX
        projected.append(ProjectedCustomer(customer, state, write_state(state, ruleset), False, ruleset.fill, moves))
    writes.extend(correct_intervals(stored_intervals, replayed_intervals))
    return projected
