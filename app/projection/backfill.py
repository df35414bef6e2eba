"""Backfill of new and edited definitions for existing customers.

The revision of a customer row determines which rules the row contains. The missing rules are folded from the
touchpoints that their leaves can match, and the result is merged into the row. One transaction locks and backfills one
chunk of customers. So no other process changes them meanwhile, and a crash loses at most one chunk. Reads use the same
partial replay for customers that are not backfilled yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from app.config import Settings
from app.identity.customer_locks import CustomerRow
from app.identity.resolver import ResolvedCustomer
from app.postgres.pool import Connection
from app.projection.coverage import BEFORE_NUMBERS, Coverage, DefinitionRef, definition_refs_of
from app.projection.fold import Transition, fold
from app.projection.intervals import Interval, IntervalWrites, continue_intervals, correct_intervals
from app.projection.log_replay import ReplayedCustomer
from app.projection.partial_replay import merge_inputs, replay_for_rules
from app.projection.replays import LOCKED_MESSAGES_MAX, as_resolved, mark_stale, replay_customers
from app.projection.state import State, count_messages, read_state, write_state
from app.projection.state_limits import limit_replayed_state
from app.projection.stored_intervals import interval_from_row
from app.projection.writes import ProjectedCustomer, write_customers
from app.rules.engine.point_series import SCANNED_POINTS_MAX
from app.rules.engine.ruleset import Ruleset
from app.rules.engine.series import NeedsReplay

Position = tuple[int, bytes]
"""(revision, customer id) of the last customer row that was claimed."""

START: Final[Position] = (BEFORE_NUMBERS - 1, bytes(16))


class FilledChunk(msgspec.Struct):
    """Counts of one chunk, and the position of its last customer row; None if no row was left to backfill."""

    customers: int
    touchpoints: int
    position: Position | None


_CLAIM = """
-- Locks the next customer rows that lack a rule, after the given position; index customers_to_fill.
SELECT id, state, flips_at, sweep_at, revision, stale, contested, last_link_at, last_link_rank
FROM customers
WHERE revision < $1 AND (revision, id) > ($2::bigint, $3::uuid) AND NOT stale
ORDER BY revision, id LIMIT $4
FOR NO KEY UPDATE SKIP LOCKED
"""

_INTERVALS_OF = """
-- Stored intervals of meanings that these rows do not contain. A flush that still used an older set of definitions may
-- have lowered a row's revision after its intervals were written. Index transitions_one_interval.
SELECT customer_id, definition, value, version, entered_at, entered_cause, left_at, left_cause, meaning
FROM transitions
WHERE customer_id = ANY($1::uuid[]) AND definition = ANY($2::text[]) AND meaning > $3 AND retracted_at IS NULL
"""


_RECORD_PROGRESS = """
INSERT INTO fills AS f (target, begun_at, updated_at, customers, touchpoints) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (target) DO UPDATE
SET updated_at = excluded.updated_at, customers = f.customers + excluded.customers,
    touchpoints = f.touchpoints + excluded.touchpoints
"""


async def record_progress(
    connection: Connection, ruleset: Ruleset, begun_at: int, now: int, customers: int, touchpoints: int
) -> None:
    """Add the counts of a chunk to the progress towards ``ruleset``, which all workers share."""
    await connection.execute(_RECORD_PROGRESS, ruleset.fill, begun_at, now, customers, touchpoints)


async def find_next_unfilled(connection: Connection, ruleset: Ruleset, after: Position) -> Position | None:
    """Return the position of the next customer row to backfill, or None."""
    row = await connection.fetchrow(_CLAIM.replace("FOR NO KEY UPDATE SKIP LOCKED", ""), ruleset.fill, *after, 1)
    return None if row is None else (row["revision"], row["id"])


async def fill_chunk(
    connection: Connection, ruleset: Ruleset, after: Position, customers_max: int, now: int, settings: Settings
) -> FilledChunk:
    """Backfill all missing rules of ``ruleset`` for the next customers, in the caller's transaction."""
    rows = [CustomerRow(*row) for row in await connection.fetch(_CLAIM, ruleset.fill, *after, customers_max)]
    if not rows:
        return FilledChunk(0, 0, None)
    chunk = _ChunkFill(ruleset, now, settings)
    by_revision: dict[int, list[CustomerRow]] = {}
    for row in rows:
        by_revision.setdefault(row.revision, []).append(row)
    for revision, revision_rows in by_revision.items():
        if revision == BEFORE_NUMBERS:
            chunk.to_replay += revision_rows
        else:
            await chunk.fill(connection, revision, revision_rows)
    await chunk.replay_whole_log(connection)
    await write_customers(connection, chunk.projected, chunk.writes, now)
    return FilledChunk(len(chunk.projected), chunk.touchpoints, (rows[-1].revision, rows[-1].id))


class _ChunkFill:
    """Results of one chunk: customer rows and intervals to write, and customers whose whole log must be replayed."""

    def __init__(self, ruleset: Ruleset, now: int, settings: Settings) -> None:
        self.ruleset = ruleset
        self.now = now
        self.settings = settings
        self.projected: list[ProjectedCustomer] = []
        self.writes = IntervalWrites()
        self.to_replay: list[CustomerRow] = []
        self.touchpoints = 0

    async def fill(self, connection: Connection, revision: int, rows: Sequence[CustomerRow]) -> None:
        """Backfill customer rows of one revision, which all lack the same rules."""
        row_coverage = Coverage(self.ruleset)
        known_rules, missing_rules = row_coverage.known_rules(revision), row_coverage.missing_rules(revision)
        missing_refs = {
            id: ref
            for id, ref in definition_refs_of(self.ruleset).items()
            if row_coverage.required_revision(id) > revision
        }
        states = self._advance_states(rows, known_rules)
        replayed, touchpoints_read = await replay_for_rules(
            connection, {row.id: state.born for row, state, _ in states}, missing_rules, self.now
        )
        self.touchpoints += touchpoints_read
        replayed_intervals: list[Interval] = []
        filled_rows: list[CustomerRow] = []
        for row, state, changes in states:
            replayed_part = replayed.get(row.id) or ReplayedCustomer(State(), [])
            merge_states(state, replayed_part.state, missing_rules)
            if not self._add_projected(row, state, missing_rules):
                continue
            filled_rows.append(row)
            self.writes.extend(continue_intervals(row.id, changes, definition_refs_of(self.ruleset)))
            missing_changes = [change for change in replayed_part.changes if change.definition in missing_refs]
            replayed_intervals += continue_intervals(row.id, missing_changes, missing_refs).begun
        self.writes.extend(
            correct_intervals(
                await self._read_stored_intervals(connection, filled_rows, missing_refs, revision),
                IntervalWrites(begun=replayed_intervals),
            )
        )

    def _advance_states(
        self, rows: Iterable[CustomerRow], known_rules: Ruleset
    ) -> list[tuple[CustomerRow, State, list[Transition]]]:
        """Fold each state to ``now`` under the rules that its row contains; return rows, states and changes.

        Rows that need a replay are added to ``to_replay`` instead.
        """
        advanced = []
        for row in rows:
            state = read_state(row.state, known_rules)
            changes: list[Transition] = []
            try:
                if row.flips_at is not None and row.flips_at <= self.now:
                    changes = fold(state, known_rules, (), self.now, self.settings.series_points_max)
            except NeedsReplay:
                self.to_replay.append(row)
                continue
            if state.windows:
                # The state may be older than now, and sliding windows cannot wait for the missing rules.
                self.to_replay.append(row)
            elif state.born is None:
                # All messages of this customer are in the future. The state contains them as matched with the leaves of
                # the old rules only, so the whole log must be replayed.
                self.to_replay.append(row)
            else:
                advanced.append((row, state, changes))
        return advanced

    async def _read_stored_intervals(
        self,
        connection: Connection,
        rows: Sequence[CustomerRow],
        missing_refs: Mapping[str, DefinitionRef],
        revision: int,
    ) -> list[Interval]:
        definitions = list({ref.definition for ref in missing_refs.values()})
        ids = [row.id for row in rows]
        return [interval_from_row(row) for row in await connection.fetch(_INTERVALS_OF, ids, definitions, revision)]

    def _add_projected(self, row: CustomerRow, state: State, missing_rules: Ruleset) -> bool:
        """Add the customer to the rows to write; return False if it must be replayed instead."""
        try:
            moves = limit_replayed_state(state, self.ruleset, self.settings.series_points_max)
        except NeedsReplay:
            self.to_replay.append(row)
            return False
        if count_messages(row.state) > SCANNED_POINTS_MAX:
            moves.replaced = dict.fromkeys(missing_rules.leaves, 0)
        stored = write_state(state, self.ruleset)
        self.projected.append(ProjectedCustomer(as_resolved(row), state, stored, False, self.ruleset.fill, moves))
        return True

    async def replay_whole_log(self, connection: Connection) -> None:
        """Replay customers of up to ``LOCKED_MESSAGES_MAX`` messages in total, but at least one customer.

        A customer with more messages becomes stale, so that the worker replays it in steps without a lock. The others
        keep their revision, so the worker claims them again later.
        """
        messages_left = LOCKED_MESSAGES_MAX
        customers: list[ResolvedCustomer] = []
        for row in self.to_replay:
            messages = count_messages(row.state)
            if messages > LOCKED_MESSAGES_MAX:
                self.projected.append(mark_stale(as_resolved(row), messages, self.ruleset, self.now))
                continue
            messages_left -= messages
            if customers and messages_left < 0:
                break
            customers.append(as_resolved(row))
            self.touchpoints += messages
        if customers:
            self.projected += await replay_customers(
                connection, customers, self.ruleset, self.now, self.settings.series_points_max, self.writes
            )


def merge_states(state: State, filled: State, rules: Ruleset) -> None:
    """Merge ``filled``, which was folded with ``rules``, into ``state`` in place. Both belong to the same instant."""
    for leaf in rules.leaves:
        state.series.pop(leaf, None)
    state.series |= filled.series
    state.truths |= filled.truths
    state.journeys |= filled.journeys
    state.at = max(state.at, filled.at)
    state.is_truncated = state.is_truncated or filled.is_truncated
    if rules.reads_bucketing_key:
        state.bucketing_key = filled.bucketing_key
    if filled.pending:
        state.pending = merge_inputs(state.pending, filled.pending)
