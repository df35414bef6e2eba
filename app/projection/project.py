"""Projection of messages: resolves identities, folds states, and writes stages and segments.

Live messages, deferred messages and repairs all take this path, in the caller's transaction.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from app.config import Settings
from app.identity import resolver
from app.identity.bucketing_key import BucketingKey, bucketing_keys_of
from app.identity.customer_locks import CustomerRow, lock_customers, read_customers
from app.identity.graph import Caps
from app.identity.graph_writes import mark_link_undone, write_graph
from app.identity.resolver import Resolution, ResolvedCustomer
from app.postgres.pool import Connection
from app.projection.checkpoints import (
    CHECKPOINT_MESSAGES,
    build_checkpoint,
    delete_checkpoints,
    find_checkpoints,
    number_of,
)
from app.projection.continuation import StateFolder, save_checkpoint
from app.projection.coverage import BEFORE_NUMBERS, Coverage, definition_refs_of
from app.projection.fold import EVALUATIONS_UNLIMITED, TooManyEvaluations
from app.projection.intervals import IntervalWrites, continue_intervals
from app.projection.log_replay import MESSAGES_UNLIMITED, input_from_message
from app.projection.replays import (
    LOCKED_MESSAGES_MAX,
    Replay,
    advance_long_replay,
    as_resolved,
    choose_checkpoints,
    mark_stale,
    replay_customers,
    replay_from_checkpoint,
    split_by_budget,
)
from app.projection.state import State, count_messages, read_state, write_state
from app.projection.state_limits import limit_pending, split_long_series
from app.projection.stored_intervals import read_intervals
from app.projection.time_slices import TimeSlices, fold_in_slices
from app.projection.writes import ProjectedCustomer, merge_customers, write_customers
from app.rules.engine.ruleset import Ruleset
from app.rules.engine.series import NeedsReplay
from app.touchpoint import Message


async def project_messages(
    connection: Connection, messages: Sequence[Message], ruleset: Ruleset, now: int, settings: Settings
) -> set[bytes]:
    """Project messages that are already in the log onto their customers.

    Return the keys of messages whose customers were left to the worker, because their projection would take too long.
    Raise NeighbourhoodTooLarge.
    """
    resolution = await resolver.resolve_identities(connection, messages, caps_of(settings), settings.neighbours_max)
    new_messages: dict[bytes, list[Message]] = {}
    for message in messages:
        new_messages.setdefault(resolution.customer_of[message.identities[0].id], []).append(message)
    projection = await _apply(connection, resolution, new_messages, ruleset, now, settings, replay_all=False)
    return {message.key for id in projection.postponed for message in new_messages.get(id, ())}


async def project_deferred(
    connection: Connection, messages: Sequence[Message], ruleset: Ruleset, now: int, settings: Settings
) -> None:
    """Project messages that were stored without projection, by replaying their customers.

    A replay may have included these messages already, so folding them into the stored states could count them twice.
    """
    resolution = await resolver.resolve_identities(connection, messages, caps_of(settings))
    await _apply(connection, resolution, {}, ruleset, now, settings, replay_all=True)


async def refresh_customers(
    connection: Connection, customer_ids: Sequence[bytes], ruleset: Ruleset, now: int, settings: Settings
) -> int:
    """Bring stored customers up to ``now``; return how many of them have advanced.

    Lock only the customers of one step (up to ``LOCKED_MESSAGES_MAX`` messages to replay), and skip customers that are
    locked elsewhere, so that live messages do not wait. A longer replay advances by one step without a lock. Repeat
    the call for the others.
    """
    rows = await read_customers(connection, customer_ids)
    lengths = await _count_messages_to_replay(connection, rows, ruleset)
    long_rows = [row for row in rows if lengths[row.id] > LOCKED_MESSAGES_MAX]
    ready = _limit_to_one_step([row for row in rows if lengths[row.id] <= LOCKED_MESSAGES_MAX], lengths)
    advanced = 0
    if long_rows:
        row = random.choice(long_rows)  # One that cannot advance must not stop the others.
        result = await advance_long_replay(connection, row, ruleset, now, settings.series_points_max)
        if result == "complete":
            ready.append(row.id)
        advanced = result == "advanced"
    locked_rows = await lock_customers(connection, ready, wait=False)
    await _refresh_rows(connection, locked_rows, ruleset, now, settings, replay_all=False)
    return len(locked_rows) + advanced


async def replay_whole_logs(
    connection: Connection, customer_ids: Sequence[bytes], ruleset: Ruleset, now: int, settings: Settings
) -> None:
    """Lock stored customers, replay their whole log under all definitions, and replace everything stored about them."""
    rows = await lock_customers(connection, customer_ids)
    await _refresh_rows(connection, rows, ruleset, now, settings, replay_all=True)


async def _refresh_rows(
    connection: Connection,
    rows: Sequence[CustomerRow],
    ruleset: Ruleset,
    now: int,
    settings: Settings,
    *,
    replay_all: bool,
) -> None:
    resolution = Resolution({row.id: as_resolved(row) for row in rows}, {}, [], [], [])
    unlimited = settings.model_copy(
        update={"replay_messages_max": MESSAGES_UNLIMITED, "flush_evaluations_max": EVALUATIONS_UNLIMITED}
    )
    await _apply(connection, resolution, {}, ruleset, now, unlimited, replay_all)


async def _count_messages_to_replay(
    connection: Connection, rows: Sequence[CustomerRow], ruleset: Ruleset
) -> dict[bytes, int]:
    """Return the approximate number of messages that each customer's refresh replays."""
    lengths = {row.id: count_messages(row.state) if row.stale or row.revision == BEFORE_NUMBERS else 0 for row in rows}
    long_ids = [id for id, length in lengths.items() if length >= CHECKPOINT_MESSAGES]
    if long_ids:
        checkpoints = await find_checkpoints(connection, [(id, None, ruleset.fill) for id in long_ids])
        for id, checkpoint in checkpoints.items():
            lengths[id] -= checkpoint.messages
    return lengths


def _limit_to_one_step(rows: Sequence[CustomerRow], lengths: Mapping[bytes, int]) -> list[bytes]:
    messages_left = LOCKED_MESSAGES_MAX
    step_ids: list[bytes] = []
    for row in rows:
        messages_left -= lengths[row.id]
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
) -> _Projection:
    await write_graph(connection, resolution.links, resolution.moved_identities)
    await merge_customers(connection, resolution)
    bucketing_keys = (
        await bucketing_keys_of(connection, list(resolution.customers))
        if ruleset.reads_bucketing_key and new_messages
        else {}
    )
    projection = _Projection(connection, ruleset, now, settings)
    slices = TimeSlices()
    for customer in resolution.customers.values():
        await slices.give_way_if_due()
        messages = new_messages.get(customer.id, [])
        extendable = None if replay_all else _find_extendable_state(customer, ruleset, bucketing_keys)
        if extendable is None:
            is_continuable = not replay_all and _is_only_stale(customer)
            projection.add_replay(customer, messages, ruleset, ruleset.fill, is_continuable=is_continuable)
        else:
            await projection.extend(customer, messages, *extendable, slices)
    await projection.replay(bucketing_keys)
    if projection.postponed and resolution.merged_customers:
        projection.writes.retracted += await read_intervals(connection, resolution.merged_customers)
    await write_customers(connection, projection.projected, projection.writes, now)
    return projection


class _Projection:
    """Results of one projection: customers and intervals to write, and customers that need a replay."""

    def __init__(self, connection: Connection, ruleset: Ruleset, now: int, settings: Settings) -> None:
        self.connection = connection
        self.ruleset = ruleset
        self.now = now
        self.points_max = settings.series_points_max
        self.messages_max = settings.replay_messages_max
        self.evaluations_max = settings.flush_evaluations_max
        self.projected: list[ProjectedCustomer] = []
        self.writes = IntervalWrites()
        self.replays: list[Replay] = []
        self.postponed: list[bytes] = []

    def add_replay(
        self,
        customer: ResolvedCustomer,
        messages: Sequence[Message],
        rules: Ruleset,
        revision: int,
        *,
        is_continuable: bool,
    ) -> None:
        earliest = min((message.occurred_at for message in messages), default=None)
        self.replays.append(Replay(customer, rules, revision, len(messages), earliest, is_continuable))

    async def extend(
        self,
        customer: ResolvedCustomer,
        messages: Sequence[Message],
        state: State,
        rules: Ruleset,
        revision: int,
        slices: TimeSlices,
    ) -> None:
        """Fold the customer's stored state over new messages; if that is impossible, add a replay."""
        if customer.origins and revision < customer.origins[0].revision:
            # Newer rules may read a message that these rules do not read, and that is earlier than a checkpoint.
            await delete_checkpoints(self.connection, [(customer.id, None)])
        inputs = [input_from_message(message, rules) for message in messages]
        messages_before = state.messages
        try:
            if state.windows or number_of(messages_before + len(inputs)) > number_of(messages_before):
                folder = StateFolder(self.connection, rules, revision, self.points_max, self.evaluations_max)
                stored = customer.origins[0].state if customer.origins else write_state(state, rules)
                continuation = await folder.continue_row(customer.id, stored, inputs, self.now)
                state, changes, moves = continuation.state, continuation.changes, continuation.moves
            else:
                changes = await fold_in_slices(
                    state,
                    rules,
                    inputs,
                    self.now,
                    slices,
                    self.points_max,
                    rewinds=True,
                    evaluations_max=self.evaluations_max,
                )
                moves = split_long_series(state, rules, self.points_max)
                limit_pending(state, self.points_max)
        except NeedsReplay:
            self.add_replay(customer, messages, rules, revision, is_continuable=_is_whole(customer))
            return
        except TooManyEvaluations:
            await self._save_row(customer, rules, revision)
            self._postpone(customer, len(messages))
            return
        self.writes.extend(continue_intervals(customer.id, changes, definition_refs_of(self.ruleset)))
        self.projected.append(ProjectedCustomer(customer, state, write_state(state, rules), False, revision, moves))

    async def replay(self, bucketing_keys: Mapping[bytes, BucketingKey]) -> None:
        """Run the replays within the budget, from checkpoints where possible; postpone the others."""
        await choose_checkpoints(self.connection, self.replays, bucketing_keys)
        affordable, too_long = split_by_budget(self.replays, self.messages_max)
        whole: list[Replay] = []
        for replay in affordable:
            if replay.checkpoint is None or not await self._replay_from_checkpoint(replay):
                whole.append(replay)
        replayed = await self._replay_whole(whole) if whole else set()
        for replay in (*too_long, *(replay for replay in whole if replay.customer.id not in replayed)):
            self._postpone(replay.customer, replay.new_messages)

    async def _replay_from_checkpoint(self, replay: Replay) -> bool:
        """Replay a customer from its checkpoint, or postpone it; return False if its whole log must be replayed."""
        try:
            projected = await replay_from_checkpoint(
                self.connection, replay, self.now, self.points_max, self.writes, self.evaluations_max
            )
        except NeedsReplay:
            await delete_checkpoints(self.connection, [(replay.customer.id, None)])
            return False
        except TooManyEvaluations:
            self._postpone(replay.customer, replay.new_messages)
        else:
            self.projected.append(projected)
        return True

    async def _replay_whole(self, replays: Sequence[Replay]) -> set[bytes]:
        """Replay whole logs; return the ids of the customers that did not reach the limit of evaluations."""
        projected = await replay_customers(
            self.connection,
            [replay.customer for replay in replays],
            self.ruleset,
            self.now,
            self.points_max,
            self.writes,
            self.evaluations_max,
        )
        self.projected += projected
        return {one.customer.id for one in projected}

    async def _save_row(self, customer: ResolvedCustomer, rules: Ruleset, revision: int) -> None:
        """Keep the state of a row that is about to become stale as a checkpoint, so that its replay is short."""
        if not customer.origins or count_messages(customer.origins[0].state) < CHECKPOINT_MESSAGES:
            return
        state = read_state(customer.origins[0].state, rules)
        checkpoint = build_checkpoint(customer.id, state.at, revision, state, rules)
        if checkpoint is not None:
            await save_checkpoint(self.connection, checkpoint)

    def _postpone(self, customer: ResolvedCustomer, new_messages: int) -> None:
        messages = new_messages + sum(count_messages(row.state) for row in customer.origins)
        self.projected.append(mark_stale(customer, messages, self.ruleset, self.now))
        self.postponed.append(customer.id)


def _is_whole(customer: ResolvedCustomer) -> bool:
    """Return True if the customer's stored row belongs to the same identities as the customer."""
    return customer.is_whole and len(customer.origins) == 1


def _is_only_stale(customer: ResolvedCustomer) -> bool:
    return _is_whole(customer) and customer.origins[0].stale


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
