"""Replays of customers whose stored state cannot be extended: from a checkpoint if possible, else of the whole log.

A long replay runs in steps from checkpoint to checkpoint. A step reads and folds without a lock, so live messages of
the customer do not wait. It locks the customer only to write, and discards its result if the log has changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec

from app.identity.bucketing_key import BucketingKey, bucketing_keys_of
from app.identity.customer_locks import CustomerRow, lock_customers
from app.identity.resolver import ResolvedCustomer
from app.postgres.pool import Connection
from app.projection.checkpoints import (
    CHECKPOINT_MESSAGES,
    Checkpoint,
    build_checkpoint,
    delete_checkpoints,
    find_checkpoints,
)
from app.projection.continuation import StateFolder, save_checkpoint
from app.projection.coverage import definition_refs_of
from app.projection.fold import EVALUATIONS_UNLIMITED
from app.projection.intervals import BEGINNING, Interval, IntervalWrites, continue_intervals, correct_intervals
from app.projection.log_replay import (
    ReplayedCustomer,
    count_messages_until,
    read_inputs_after,
    replay_log,
)
from app.projection.older_points import move_older_points
from app.projection.state import State, count_messages, is_truncated_state, read_state, write_state
from app.projection.state_limits import limit_replayed_state
from app.projection.stored_intervals import read_intervals, read_intervals_after
from app.projection.time_slices import TimeSlices
from app.projection.writes import SWEEP_NOW, ProjectedCustomer, write_customers
from app.rules.engine.point_series import SCANNED_POINTS_MAX
from app.rules.engine.ruleset import Ruleset

POINTS_PER_MESSAGE: Final = 25
"""Number of points whose scan by a rule takes about as long as the replay of one message without scans."""

_WAIT_PER_MESSAGE: Final = 5_000
"""Microseconds for each message of a customer whose whole log must be replayed, between two replays by the worker."""

LOCKED_MESSAGES_MAX: Final = CHECKPOINT_MESSAGES
"""Maximum number of messages that a worker replays while it holds the customer's lock."""

STEP_MESSAGES: Final = 4 * CHECKPOINT_MESSAGES
"""Approximate number of messages in one step of a long replay."""


class Replay(msgspec.Struct):
    """A customer that needs a replay under ``rules``, which results in a row of this revision.

    ``earliest`` is the instant of its earliest new message. ``is_continuable`` is False if the log before that has
    changed too, or if nothing stored about the customer is usable; then all its checkpoints are wrong.
    """

    customer: ResolvedCustomer
    rules: Ruleset
    revision: int
    new_messages: int = 0
    earliest: int | None = None
    is_continuable: bool = False
    checkpoint: Checkpoint | None = None

    @property
    def waits_for_worker(self) -> bool:
        """True for a live message of a long history that was already left to the worker.

        Each further attempt in a flush would probably fail too, and cost as much as the limits allow.
        """
        return (
            self.new_messages > 0
            and self.is_continuable
            and self.customer.origins[0].stale
            and self.messages_total >= CHECKPOINT_MESSAGES
        )

    @property
    def messages_total(self) -> int:
        """Approximate number of messages of the customer."""
        return self.new_messages + sum(count_messages(row.state) for row in self.customer.origins)

    @property
    def messages_read(self) -> int:
        """Approximate number of messages that the replay reads."""
        return self.messages_total - (0 if self.checkpoint is None else self.checkpoint.messages)

    @property
    def cost(self) -> int:
        """Estimated cost of the replay; the unit is one message for which no rule scans points."""
        length = self.messages_read
        return length + length * self.messages_total // POINTS_PER_MESSAGE if self.rules.scans_points else length


async def choose_checkpoints(
    connection: Connection, replays: Sequence[Replay], bucketing_keys: Mapping[bytes, BucketingKey]
) -> None:
    """Set the checkpoint from which each replay starts, and delete checkpoints that have become wrong."""
    long_replays = [replay for replay in replays if replay.messages_total >= CHECKPOINT_MESSAGES]
    await delete_checkpoints(
        connection,
        [
            (replay.customer.id, replay.earliest if replay.is_continuable else None)
            for replay in long_replays
            if replay.earliest is not None or not replay.is_continuable
        ],
    )
    continuable = [replay for replay in long_replays if replay.is_continuable]
    checkpoints = await find_checkpoints(
        connection, [(replay.customer.id, replay.earliest, replay.revision) for replay in continuable]
    )
    for replay in continuable:
        checkpoint = checkpoints.get(replay.customer.id)
        key = bucketing_keys.get(replay.customer.id)
        if checkpoint is None:
            continue
        if key is not None and read_state(checkpoint.state, replay.rules).bucketing_key != key:
            await delete_checkpoints(connection, [(replay.customer.id, None)])
        else:
            replay.checkpoint = checkpoint


def split_by_budget(replays: Sequence[Replay], messages_max: int) -> tuple[list[Replay], list[Replay]]:
    """Return the cheapest replays within the budget, and the others, which are left to the worker.

    Until the worker replays them, reads replay these customers themselves.
    """
    affordable: list[Replay] = []
    postponed: list[Replay] = []
    postponed += [replay for replay in replays if replay.waits_for_worker]
    candidates = [replay for replay in replays if not replay.waits_for_worker]
    for replay in sorted(candidates, key=lambda replay: replay.cost):
        messages_max -= replay.cost
        (affordable if messages_max >= 0 else postponed).append(replay)
    return affordable, postponed


async def replay_from_checkpoint(
    connection: Connection,
    replay: Replay,
    now: int,
    points_max: int,
    writes: IntervalWrites,
    evaluations_max: int = EVALUATIONS_UNLIMITED,
) -> ProjectedCustomer:
    """Replay one customer from its checkpoint, and return it ready to be written; add changed intervals to ``writes``.

    Raises:
        NeedsReplay: The checkpoint lacks points that the log contains.
        TooManyEvaluations: The replay evaluates more than ``evaluations_max`` rules.
    """
    customer, rules, checkpoint = replay.customer, replay.rules, replay.checkpoint
    assert checkpoint is not None
    folder = StateFolder(connection, rules, replay.revision, points_max, evaluations_max)
    continuation = await folder.continue_checkpoint(customer.id, checkpoint, now)
    state = continuation.state
    state.messages = replay.messages_total
    replayed = continue_intervals(customer.id, continuation.changes, definition_refs_of(rules))
    stored = await read_intervals_after(connection, customer.id, checkpoint.at)
    writes.extend(correct_intervals(stored, replayed, checkpoint.at))
    return ProjectedCustomer(customer, state, write_state(state, rules), False, replay.revision, continuation.moves)


async def replay_customers(
    connection: Connection,
    customers: Sequence[ResolvedCustomer],
    ruleset: Ruleset,
    now: int,
    points_max: int,
    writes: IntervalWrites,
    evaluations_max: int = EVALUATIONS_UNLIMITED,
) -> list[ProjectedCustomer]:
    """Replay the whole log of customers, and return them ready to be written; add changed intervals to ``writes``.

    A customer whose replay evaluates more than ``evaluations_max`` rules is missing from the result.
    """
    ids = [customer.id for customer in customers]
    replayed = await replay_log(connection, ids, ruleset, now, rewinds=True, evaluations_max=evaluations_max)
    return await _build_replayed(connection, customers, replayed, ruleset, points_max, writes)


async def _build_replayed(
    connection: Connection,
    customers: Sequence[ResolvedCustomer],
    replayed: Mapping[bytes, ReplayedCustomer],
    ruleset: Ruleset,
    points_max: int,
    writes: IntervalWrites,
) -> list[ProjectedCustomer]:
    complete = [customer for customer in customers if customer.id not in replayed or replayed[customer.id].is_complete]
    customer_ids = {row.id for customer in complete for row in customer.origins} | {one.id for one in complete}
    stored_intervals = await read_intervals(connection, customer_ids)
    refs = definition_refs_of(ruleset)
    replayed_intervals: list[Interval] = []
    projected = []
    slices = TimeSlices()
    for customer in complete:
        await slices.give_way_if_due()
        customer_replay = replayed.get(customer.id) or ReplayedCustomer(State(), [])
        replayed_intervals += continue_intervals(customer.id, customer_replay.changes, refs).begun
        state = customer_replay.state
        moves = limit_replayed_state(state, ruleset, points_max)
        moves.replaces_all = sum(count_messages(row.state) for row in customer.origins) > SCANNED_POINTS_MAX
        projected.append(ProjectedCustomer(customer, state, write_state(state, ruleset), False, ruleset.fill, moves))
    writes.extend(correct_intervals(stored_intervals, IntervalWrites(begun=replayed_intervals)))
    return projected


def mark_stale(customer: ResolvedCustomer, messages: int, ruleset: Ruleset, now: int) -> ProjectedCustomer:
    """Return the customer ready to be written as stale: reads replay it, and the worker replays it soon.

    If a checkpoint cannot hold the customer's state, a replay reads the whole log, and the worker waits in proportion.
    """
    state = State(born=now, messages=messages)
    origins = customer.origins
    waits_until = max((row.sweep_at for row in origins if row.stale and row.sweep_at is not None), default=0)
    if waits_until <= now and messages > LOCKED_MESSAGES_MAX:
        is_truncated = any(is_truncated_state(row.state) for row in origins if not row.stale)
        waits_until = now + messages * _WAIT_PER_MESSAGE if is_truncated or ruleset.scans_points else 0
    sweep_at = waits_until if waits_until > now else SWEEP_NOW
    return ProjectedCustomer(customer, state, write_state(state, ruleset), True, ruleset.fill, stale_sweep_at=sweep_at)


StepResult = Literal["advanced", "complete", "discarded"]
"""Result of one step of a long replay.

``complete`` means that the latest checkpoint contains the whole log. ``discarded`` means that another transaction has
locked the customer, or that the log has changed during the step.
"""


async def advance_long_replay(
    connection: Connection, row: CustomerRow, ruleset: Ruleset, now: int, points_max: int
) -> StepResult:
    """Run one step of a long replay: write the next checkpoint, and correct the intervals up to it.

    The first step marks the customer as stale, because it replaces the points outside the customer's state.
    """
    checkpoint = (await find_checkpoints(connection, [(row.id, None, ruleset.fill)])).get(row.id)
    after = None if checkpoint is None else checkpoint.at
    # A message that is stored after this count makes the counts differ in the end.
    messages_before = 0 if after is None else await count_messages_until(connection, row.id, after)
    inputs = await read_inputs_after(connection, row.id, ruleset, after, now, STEP_MESSAGES)
    if not inputs:
        return "complete"
    if checkpoint is None:
        keys = await bucketing_keys_of(connection, [row.id]) if ruleset.reads_bucketing_key else {}
        stored = write_state(State(bucketing_key=keys.get(row.id)), ruleset)
    else:
        stored = checkpoint.state
    until = inputs[-1].at
    folder = StateFolder(connection, ruleset, ruleset.fill, points_max)
    step = await folder.advance_checkpoint(row.id, stored, inputs, until)
    next_checkpoint = build_checkpoint(row.id, until, ruleset.fill, step.state, ruleset)
    if next_checkpoint is None:
        return await _replay_without_lock(connection, row, ruleset, now, points_max)
    locked = await lock_customers(connection, [row.id], wait=False)
    if not locked or await count_messages_until(connection, row.id, until) != messages_before + len(inputs):
        return "discarded"
    stale: list[ProjectedCustomer] = []
    if checkpoint is None:
        await delete_checkpoints(connection, [(row.id, None)])
        stale.append(mark_stale(as_resolved(locked[0]), count_messages(locked[0].state), ruleset, now))
    await move_older_points(connection, [(row.id, step.moves)])
    await save_checkpoint(connection, next_checkpoint)
    replayed = continue_intervals(row.id, step.changes, definition_refs_of(ruleset))
    stored_intervals = await read_intervals_after(connection, row.id, after)
    writes = correct_intervals(stored_intervals, replayed, BEGINNING if after is None else after, until)
    await write_customers(connection, stale, writes, now)
    return "advanced"


async def _replay_without_lock(
    connection: Connection, row: CustomerRow, ruleset: Ruleset, now: int, points_max: int
) -> StepResult:
    """Replay the whole log of a customer whose state is truncated, and lock the customer only to write."""
    messages_before = await count_messages_until(connection, row.id, None)
    replayed = await replay_log(connection, [row.id], ruleset, now, rewinds=True)
    locked = await lock_customers(connection, [row.id], wait=False)
    if not locked or await count_messages_until(connection, row.id, None) != messages_before:
        return "discarded"
    writes = IntervalWrites()
    projected = await _build_replayed(connection, [as_resolved(locked[0])], replayed, ruleset, points_max, writes)
    await delete_checkpoints(connection, [(row.id, None)])
    await write_customers(connection, projected, writes, now)
    return "advanced"


def as_resolved(row: CustomerRow) -> ResolvedCustomer:
    """Return a customer whose identities and links stay as they are."""
    return ResolvedCustomer(row.id, [row], True, row.contested, row.last_link)
