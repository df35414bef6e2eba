"""New and edited definitions over existing history: only what their rules read of the log is replayed.

A customer's row says by its revision which rules it holds. The others are folded from the touchpoints that their
leaves can match, and what comes out is put beside what the row holds already. One chunk of customers is one
transaction under their locks, so nothing of them can change meanwhile, and a process that dies loses one chunk at
most. The same partial reading answers questions about customers that are not filled yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

import msgspec

from app.config import Settings
from app.identity.bucketing_key import bucketing_keys_of
from app.identity.customer_locks import CustomerRow
from app.identity.resolver import ResolvedCustomer
from app.postgres.pool import Connection
from app.projection.coverage import BEFORE_NUMBERS, DefinitionRef, coverage_of, definition_refs_of
from app.projection.fold import POINTS_UNLIMITED, NeedsReplay, Transition, fold, truncate_pending, truncate_state
from app.projection.intervals import Interval, IntervalWrites, continue_intervals, correct_intervals
from app.projection.log_replay import ReplayedCustomer
from app.projection.project import replay_customers
from app.projection.state import Input, State, count_messages, read_state, write_state
from app.projection.writes import ProjectedCustomer, interval_from_row, write_customers
from app.rules.engine.ruleset import Ruleset
from app.rules.engine.touchpoint_view import TouchpointView

Position = tuple[int, bytes]
"""(revision, customer id) of the last row that was claimed."""

START: Final[Position] = (BEFORE_NUMBERS - 1, bytes(16))

_CUSTOMERS_PER_TURN: Final = 100
"""Customers folded before live requests, which share the event loop, get their turn."""


class FilledChunk(msgspec.Struct):
    """What one chunk did. ``position`` is None where nobody was left behind it."""

    customers: int
    touchpoints: int
    position: Position | None


_CLAIM = """
-- The next customers that do not hold every rule yet; index customers_to_fill, entered behind what is done already.
SELECT id, state, flips_at, sweep_at, revision, stale, contested, last_link_at
FROM customers
WHERE revision < $1 AND (revision, id) > ($2::bigint, $3::uuid) AND NOT stale
ORDER BY revision, id LIMIT $4
FOR NO KEY UPDATE SKIP LOCKED
"""

_INTERVALS_OF = """
-- What is stored already of meanings that these customers do not hold yet: a flush that knew an older set of
-- definitions may have taken a customer back. Index transitions_one_interval.
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
    """Add to what all workers together have done on the way to ``ruleset``."""
    await connection.execute(_RECORD_PROGRESS, ruleset.fill, begun_at, now, customers, touchpoints)


async def find_next_unfilled(connection: Connection, ruleset: Ruleset, after: Position) -> Position | None:
    """The row that the next chunk begins with, if there is one."""
    row = await connection.fetchrow(_CLAIM.replace("FOR NO KEY UPDATE SKIP LOCKED", ""), ruleset.fill, *after, 1)
    return None if row is None else (row["revision"], row["id"])


async def fill_chunk(
    connection: Connection, ruleset: Ruleset, after: Position, customers_max: int, now: int, settings: Settings
) -> FilledChunk:
    """Bring the next customers to all rules of ``ruleset``, in the caller's transaction."""
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
    """One chunk as it grows: rows to write, intervals to write, and customers that only the whole log can tell."""

    def __init__(self, ruleset: Ruleset, now: int, settings: Settings) -> None:
        self.ruleset = ruleset
        self.now = now
        self.settings = settings
        self.projected: list[ProjectedCustomer] = []
        self.writes = IntervalWrites()
        self.to_replay: list[CustomerRow] = []
        self.touchpoints = 0

    async def fill(self, connection: Connection, revision: int, rows: Sequence[CustomerRow]) -> None:
        """Rows of one revision, which all lack the same rules."""
        row_coverage = coverage_of(self.ruleset)
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
        for row, state, changes in states:
            replayed_part = replayed.get(row.id) or ReplayedCustomer(State(), [])
            self.writes.extend(continue_intervals(row.id, changes, definition_refs_of(self.ruleset)))
            missing_changes = [change for change in replayed_part.changes if change.definition in missing_refs]
            replayed_intervals += continue_intervals(row.id, missing_changes, missing_refs).begun
            self._add_projected(
                row, merge_states(state, replayed_part.state, missing_rules, self.settings.series_points_max)
            )
        self.writes.extend(
            correct_intervals(
                await self._read_stored_intervals(connection, states, missing_refs, revision), replayed_intervals
            )
        )

    def _advance_states(
        self, rows: Iterable[CustomerRow], known_rules: Ruleset
    ) -> list[tuple[CustomerRow, State, list[Transition]]]:
        """Each state as it stands now under the rules it knows, and what has changed by that."""
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
            if state.born is None:
                # All its messages lie in the future, and what waits of them knows only the old rules.
                self.to_replay.append(row)
            else:
                advanced.append((row, state, changes))
        return advanced

    async def _read_stored_intervals(
        self,
        connection: Connection,
        states: Sequence[tuple[CustomerRow, State, list[Transition]]],
        missing_refs: Mapping[str, DefinitionRef],
        revision: int,
    ) -> list[Interval]:
        definitions = list({ref.definition for ref in missing_refs.values()})
        ids = [row.id for row, _, _ in states]
        return [interval_from_row(row) for row in await connection.fetch(_INTERVALS_OF, ids, definitions, revision)]

    def _add_projected(self, row: CustomerRow, state: State) -> None:
        stored = write_state(state, self.ruleset)
        self.projected.append(ProjectedCustomer(_as_resolved(row), state, stored, False, self.ruleset.fill))

    async def replay_whole_log(self, connection: Connection) -> None:
        """From the whole log, within the budget of one step but one customer at least; the others come later."""
        messages_left = self.settings.replay_messages_max
        customers: list[ResolvedCustomer] = []
        for row in self.to_replay:
            messages_left -= count_messages(row.state)
            if customers and messages_left < 0:
                break
            customers.append(_as_resolved(row))
            self.touchpoints += count_messages(row.state)
        if customers:
            self.projected += await replay_customers(
                connection, customers, self.ruleset, self.now, self.settings, self.writes
            )


def _as_resolved(row: CustomerRow) -> ResolvedCustomer:
    return ResolvedCustomer(row.id, [row], True, row.contested, row.last_link_at)


def merge_states(state: State, filled: State, rules: Ruleset, points_max: int) -> State:
    """``state``, changed in place, with what ``filled`` knows of ``rules``. Both stand at the same instant."""
    truncate_state(filled, points_max)
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
        state.pending = _merge_pending(state.pending, filled.pending)
    return truncate_pending(state, points_max)


def _merge_pending(inputs: Iterable[Input], more_inputs: Iterable[Input]) -> list[Input]:
    """Messages of the future as both see them, in order."""
    merged: dict[tuple[int, str, str], Input] = {}
    for input in (*inputs, *more_inputs):
        key = (input.at, input.message_id, input.source)
        seen = merged.get(key)
        if seen is None:
            merged[key] = input
        else:
            leaves = tuple(dict.fromkeys((*seen.leaves, *input.leaves)))
            values = {**(seen.leaf_values or {}), **(input.leaf_values or {})}
            merged[key] = Input(*key, leaves, seen.traits or input.traits, values or None)
    return [merged[key] for key in sorted(merged)]


# ------------------------------------------------------------------------------------------- partial reading


class _LogSelection(msgspec.Struct, frozen=True):
    """What of the log a ruleset reads. ``names`` is None where any touchpoint may matter."""

    names: list[str] | None
    needs_documents: bool
    needs_identifies: bool
    needs_first_messages: bool
    leaves_by_name: dict[str, tuple[str, ...]] | None
    """Where the name alone decides: the leaves of each name."""


@lru_cache(maxsize=32)
def _select_log(rules: Ruleset) -> _LogSelection:
    leaves = list(rules.leaves.values())
    names: list[str] | None = sorted({name for leaf in leaves for name in leaf.event_names or ()})
    if any(leaf.event_names is None for leaf in leaves):
        names = None
    needs_only_names = all(leaf.predicate is None and leaf.extract_values is None for leaf in leaves)
    leaves_by_name = None
    if needs_only_names and names is not None:
        leaves_by_name = {name: rules.match_leaves(TouchpointView(name, "", "", 0)) for name in names}
    needs_first_messages = bool(rules.true_from_birth or rules.decided_at_birth or rules.stages_of)
    return _LogSelection(names, not needs_only_names, rules.reads_traits, needs_first_messages, leaves_by_name)


_TOUCHPOINTS = """
-- Touchpoints of these customers that rules can match; index touchpoints_of_identity. ``place`` is the customer's.
-- The instant is reckoned here, because a codec in Python costs more, millions of times.
SELECT c.place, (extract(epoch FROM t.occurred_at) * 1000000)::bigint, t.message_id, t.source, t.name, t.channel
       {documents}
FROM unnest($1::uuid[]) WITH ORDINALITY AS c (customer_id, place)
JOIN identities i ON i.customer_id = c.customer_id
JOIN touchpoints t ON t.identity_id = i.id
WHERE {names}
"""

_NAME_IN_LIST = "t.name = ANY($2::text[])"
_HAS_NAME = "t.name IS NOT NULL AND $2::text[] IS NULL"

_IDENTIFIES = """
-- What these customers were said to be; index touchpoints_of_identity.
SELECT c.place, t.occurred_at, t.message_id, t.source, t.traits
FROM unnest($1::uuid[]) WITH ORDINALITY AS c (customer_id, place)
JOIN identities i ON i.customer_id = c.customer_id
JOIN touchpoints t ON t.identity_id = i.id
WHERE t.name IS NULL AND t.type = 'identify' AND t.traits IS NOT NULL
"""

_FIRST_MESSAGES = """
-- The messages of each customer's first instant; index touchpoints_of_identity.
SELECT c.place, t.occurred_at, t.message_id, t.source
FROM unnest($1::uuid[], $2::timestamptz[]) WITH ORDINALITY AS c (customer_id, born, place)
JOIN identities i ON i.customer_id = c.customer_id
JOIN touchpoints t ON t.identity_id = i.id AND t.occurred_at = c.born
"""

_decode_traits = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode


async def replay_for_rules(
    connection: Connection, born: Mapping[bytes, int | None], rules: Ruleset, now: int
) -> tuple[dict[bytes, ReplayedCustomer], int]:
    """Fold for each customer only what ``rules`` read, up to ``now``; and how many messages that were.

    ``born`` is the instant of each customer's first message, as its state has it; nobody without one is answered.
    """
    ids = [id for id, instant in born.items() if instant is not None]
    if not ids:
        return {}, 0
    inputs_by_place, messages_read = await _read_inputs(connection, ids, born, rules)
    bucketing_keys = await bucketing_keys_of(connection, ids) if rules.reads_bucketing_key else {}
    replayed: dict[bytes, ReplayedCustomer] = {}
    for place, id in enumerate(ids):
        if place % _CUSTOMERS_PER_TURN == _CUSTOMERS_PER_TURN - 1:
            await asyncio.sleep(0)
        state = State(bucketing_key=bucketing_keys.get(id))
        replayed[id] = ReplayedCustomer(state, fold(state, rules, inputs_by_place[place], now, POINTS_UNLIMITED))
    return replayed, messages_read


async def _read_inputs(
    connection: Connection, ids: Sequence[bytes], born: Mapping[bytes, int | None], rules: Ruleset
) -> tuple[list[list[Input]], int]:
    """By the place of the customer in ``ids``; each begins with the customer's first instant."""
    selection = _select_log(rules)
    inputs_by_place: list[list[Input]] = [[] for _ in ids]
    messages_read = 0
    if rules.leaves:
        rows = await connection.fetch(_touchpoints_statement(selection), ids, selection.names)
        messages_read += len(rows)
        _add_touchpoints(inputs_by_place, rows, rules, selection)
    if selection.needs_identifies:
        rows = await connection.fetch(_IDENTIFIES, ids)
        messages_read += len(rows)
        for place, at, message_id, source, traits in rows:
            inputs_by_place[place - 1].append(Input(at, message_id, source, (), _decode_traits(traits) or None))
    if selection.needs_first_messages:
        rows = await connection.fetch(_FIRST_MESSAGES, ids, [born[id] for id in ids])
        messages_read += len(rows)
        for place, at, message_id, source in rows:
            inputs_by_place[place - 1].append(Input(at, message_id, source, (), None))
    else:
        # Nothing is decided by the birth itself, so its message need not be known.
        for customer_inputs, id in zip(inputs_by_place, ids, strict=True):
            instant = born[id]
            if instant is not None and all(input.at != instant for input in customer_inputs):
                customer_inputs.append(Input(instant, "", "", (), None))
    if selection.needs_first_messages or selection.needs_identifies:
        inputs_by_place = [_merge_pending((), customer_inputs) for customer_inputs in inputs_by_place]
    return inputs_by_place, messages_read


def _touchpoints_statement(selection: _LogSelection) -> str:
    return _TOUCHPOINTS.format(
        documents=", t.properties, t.context, t.traits" if selection.needs_documents else "",
        names=_HAS_NAME if selection.names is None else _NAME_IN_LIST,
    )


def _add_touchpoints(
    inputs_by_place: list[list[Input]], rows: Sequence[Any], rules: Ruleset, selection: _LogSelection
) -> None:
    leaves_by_name, match_touchpoint = selection.leaves_by_name, rules.match_touchpoint
    if leaves_by_name is not None:
        for place, at, message_id, source, name, _ in rows:
            inputs_by_place[place - 1].append(Input(at, message_id, source, leaves_by_name[name], None))
        return
    for place, at, message_id, source, name, channel, *documents in rows:
        properties, context, traits = documents or (b"{}", b"{}", None)
        leaves, leaf_values = match_touchpoint(
            TouchpointView(name, channel, source, at, properties, context, traits or b"{}")
        )
        if leaves:
            inputs_by_place[place - 1].append(Input(at, message_id, source, leaves, None, leaf_values))
