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
from app.identity.resolver import CustomerRow, ResolvedCustomer
from app.postgres.pool import Connection
from app.projection.coverage import BEFORE_NUMBERS, Kept, coverage, kept_of
from app.projection.fold import POINTS_UNLIMITED, NeedsReplay, Transition, cut_pending, cut_short, fold
from app.projection.intervals import Interval, IntervalWrites, continue_intervals, correct_intervals
from app.projection.log_replay import ReplayedCustomer
from app.projection.project import replay_customers
from app.projection.state import Input, State, messages_of, read_state, write_state
from app.projection.writes import ProjectedCustomer, interval_of, write_customers
from app.rules.engine.ruleset import Occurrence, Ruleset

Position = tuple[int, bytes]
"""(revision, customer id) of the last row that was claimed."""

START: Final[Position] = (BEFORE_NUMBERS - 1, bytes(16))

_AT_A_TIME: Final = 100
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


_NOTE_PROGRESS = """
INSERT INTO fills AS f (target, begun_at, updated_at, customers, touchpoints) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (target) DO UPDATE
SET updated_at = excluded.updated_at, customers = f.customers + excluded.customers,
    touchpoints = f.touchpoints + excluded.touchpoints
"""


async def note_progress(
    connection: Connection, ruleset: Ruleset, begun_at: int, now: int, customers: int, touchpoints: int
) -> None:
    """Add to what all workers together have done on the way to ``ruleset``."""
    await connection.execute(_NOTE_PROGRESS, ruleset.fill, begun_at, now, customers, touchpoints)


async def next_unfilled(connection: Connection, ruleset: Ruleset, after: Position) -> Position | None:
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
    done = _Chunk(ruleset, now, settings)
    by_revision: dict[int, list[CustomerRow]] = {}
    for row in rows:
        by_revision.setdefault(row.revision, []).append(row)
    for revision, found in by_revision.items():
        if revision == BEFORE_NUMBERS:
            done.whole += found
        else:
            await done.fill(connection, revision, found)
    await done.replay(connection)
    await write_customers(connection, done.carried, done.writes, now)
    return FilledChunk(len(done.carried), done.touchpoints, (rows[-1].revision, rows[-1].id))


class _Chunk:
    """One chunk as it grows: rows to write, intervals to write, and customers that only the whole log can tell."""

    def __init__(self, ruleset: Ruleset, now: int, settings: Settings) -> None:
        self.ruleset = ruleset
        self.now = now
        self.settings = settings
        self.carried: list[ProjectedCustomer] = []
        self.writes = IntervalWrites()
        self.whole: list[CustomerRow] = []
        self.touchpoints = 0

    async def fill(self, connection: Connection, revision: int, rows: Sequence[CustomerRow]) -> None:
        """Rows of one revision, which all lack the same rules."""
        covered = coverage(self.ruleset)
        known, missing = covered.known(revision), covered.missing(revision)
        lacking = {id: kept for id, kept in kept_of(self.ruleset).items() if covered.needed(id) > revision}
        states = self._carried_on(rows, known)
        filled, read = await replay_for(connection, {row.id: state.born for row, state, _ in states}, missing, self.now)
        self.touchpoints += read
        wanted: list[Interval] = []
        for row, state, changes in states:
            news = filled.get(row.id) or ReplayedCustomer(State(), [])
            self.writes.extend(continue_intervals(row.id, changes, kept_of(self.ruleset)))
            entered = [change for change in news.changes if change.definition in lacking]
            wanted += continue_intervals(row.id, entered, lacking).begun
            self._put(row, merge_states(state, news.state, missing, self.settings.series_points_max))
        self.writes.extend(correct_intervals(await self._stored(connection, states, lacking, revision), wanted))

    def _carried_on(
        self, rows: Iterable[CustomerRow], known: Ruleset
    ) -> list[tuple[CustomerRow, State, list[Transition]]]:
        """Each state as it stands now under the rules it knows, and what has changed by that."""
        found = []
        for row in rows:
            state = read_state(row.state, known)
            changes: list[Transition] = []
            try:
                if row.flips_at is not None and row.flips_at <= self.now:
                    changes = fold(state, known, (), self.now, self.settings.series_points_max)
            except NeedsReplay:
                self.whole.append(row)
                continue
            if state.born is None:
                # All its messages lie in the future, and what waits of them knows only the old rules.
                self.whole.append(row)
            else:
                found.append((row, state, changes))
        return found

    async def _stored(
        self,
        connection: Connection,
        states: Sequence[tuple[CustomerRow, State, list[Transition]]],
        lacking: Mapping[str, Kept],
        revision: int,
    ) -> list[Interval]:
        definitions = list({kept.definition for kept in lacking.values()})
        ids = [row.id for row, _, _ in states]
        return [interval_of(row) for row in await connection.fetch(_INTERVALS_OF, ids, definitions, revision)]

    def _put(self, row: CustomerRow, state: State) -> None:
        stored = write_state(state, self.ruleset)
        self.carried.append(ProjectedCustomer(_alone(row), state, stored, False, self.ruleset.fill))

    async def replay(self, connection: Connection) -> None:
        """From the whole log, within the budget of one step but one customer at least; the others come later."""
        left = self.settings.replay_messages_max
        taken: list[ResolvedCustomer] = []
        for row in self.whole:
            left -= messages_of(row.state)
            if taken and left < 0:
                break
            taken.append(_alone(row))
            self.touchpoints += messages_of(row.state)
        if taken:
            self.carried += await replay_customers(
                connection, taken, self.ruleset, self.now, self.settings, self.writes
            )


def _alone(row: CustomerRow) -> ResolvedCustomer:
    return ResolvedCustomer(row.id, [row], True, row.contested, row.last_link_at)


def merge_states(state: State, filled: State, rules: Ruleset, points_max: int) -> State:
    """``state``, changed in place, with what ``filled`` knows of ``rules``. Both stand at the same instant."""
    cut_short(filled, points_max)
    for leaf in rules.leaves:
        state.series.pop(leaf, None)
    state.series |= filled.series
    state.truths |= filled.truths
    state.journeys |= filled.journeys
    state.at = max(state.at, filled.at)
    state.cut = state.cut or filled.cut
    if rules.reads_person:
        state.person = filled.person
    if filled.pending:
        state.pending = _both(state.pending, filled.pending)
    return cut_pending(state, points_max)


def _both(some: Iterable[Input], others: Iterable[Input]) -> list[Input]:
    """Messages of the future as both see them, in order."""
    found: dict[tuple[int, str, str], Input] = {}
    for move in (*some, *others):
        key = (move.at, move.message_id, move.source)
        known = found.get(key)
        if known is None:
            found[key] = move
        else:
            leaves = tuple(dict.fromkeys((*known.leaves, *move.leaves)))
            values = {**(known.kept or {}), **(move.kept or {})}
            found[key] = Input(*key, leaves, known.traits or move.traits, values or None)
    return [found[key] for key in sorted(found)]


# ------------------------------------------------------------------------------------------- partial reading


class _Reading(msgspec.Struct, frozen=True):
    """What of the log a ruleset reads. ``names`` is None where any touchpoint may matter."""

    names: list[str] | None
    documents: bool
    identifies: bool
    births: bool
    by_name: dict[str, tuple[str, ...]] | None
    """Where the name alone decides: the leaves of each name."""


@lru_cache(maxsize=32)
def _reading(rules: Ruleset) -> _Reading:
    leaves = list(rules.leaves.values())
    names: list[str] | None = sorted({name for leaf in leaves for name in leaf.names or ()})
    if any(leaf.names is None for leaf in leaves):
        names = None
    plain = all(leaf.matches is None and leaf.kept is None for leaf in leaves)
    by_name = None
    if plain and names is not None:
        by_name = {name: rules.match(Occurrence(name, "", "", 0)) for name in names}
    births = bool(rules.true_from_birth or rules.decided_at_birth or rules.stages_of)
    return _Reading(names, not plain, rules.reads_traits, births, by_name)


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

_OF_NAMES = "t.name = ANY($2::text[])"
_OF_ANY_NAME = "t.name IS NOT NULL AND $2::text[] IS NULL"

_IDENTIFIES = """
-- What these customers were said to be; index touchpoints_of_identity.
SELECT c.place, t.occurred_at, t.message_id, t.source, t.traits
FROM unnest($1::uuid[]) WITH ORDINALITY AS c (customer_id, place)
JOIN identities i ON i.customer_id = c.customer_id
JOIN touchpoints t ON t.identity_id = i.id
WHERE t.name IS NULL AND t.type = 'identify' AND t.traits IS NOT NULL
"""

_BIRTHS = """
-- The messages of each customer's first instant; index touchpoints_of_identity.
SELECT c.place, t.occurred_at, t.message_id, t.source
FROM unnest($1::uuid[], $2::timestamptz[]) WITH ORDINALITY AS c (customer_id, born, place)
JOIN identities i ON i.customer_id = c.customer_id
JOIN touchpoints t ON t.identity_id = i.id AND t.occurred_at = c.born
"""

_decode_traits = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode


async def replay_for(
    connection: Connection, born: Mapping[bytes, int | None], rules: Ruleset, now: int
) -> tuple[dict[bytes, ReplayedCustomer], int]:
    """Fold for each customer only what ``rules`` read, up to ``now``; and how many messages that were.

    ``born`` is the instant of each customer's first message, as its state has it; nobody without one is answered.
    """
    ids = [id for id, instant in born.items() if instant is not None]
    if not ids:
        return {}, 0
    moves, read = await _moves_for(connection, ids, born, rules)
    persons = await bucketing_keys_of(connection, ids) if rules.reads_person else {}
    found: dict[bytes, ReplayedCustomer] = {}
    for place, id in enumerate(ids):
        if place % _AT_A_TIME == _AT_A_TIME - 1:
            await asyncio.sleep(0)
        state = State(person=persons.get(id))
        found[id] = ReplayedCustomer(state, fold(state, rules, moves[place], now, POINTS_UNLIMITED))
    return found, read


async def _moves_for(
    connection: Connection, ids: Sequence[bytes], born: Mapping[bytes, int | None], rules: Ruleset
) -> tuple[list[list[Input]], int]:
    """By the place of the customer in ``ids``; each begins with the customer's first instant."""
    reading = _reading(rules)
    moves: list[list[Input]] = [[] for _ in ids]
    read = 0
    if rules.leaves:
        rows = await connection.fetch(_statement(reading), ids, reading.names)
        read += len(rows)
        _add_touchpoints(moves, rows, rules, reading)
    if reading.identifies:
        rows = await connection.fetch(_IDENTIFIES, ids)
        read += len(rows)
        for place, at, message_id, source, traits in rows:
            moves[place - 1].append(Input(at, message_id, source, (), _decode_traits(traits) or None))
    if reading.births:
        rows = await connection.fetch(_BIRTHS, ids, [born[id] for id in ids])
        read += len(rows)
        for place, at, message_id, source in rows:
            moves[place - 1].append(Input(at, message_id, source, (), None))
    else:
        # Nothing is decided by the birth itself, so its message need not be known.
        for found, id in zip(moves, ids, strict=True):
            instant = born[id]
            if instant is not None and all(move.at != instant for move in found):
                found.append(Input(instant, "", "", (), None))
    if reading.births or reading.identifies:
        moves = [_both((), found) for found in moves]
    return moves, read


def _statement(reading: _Reading) -> str:
    return _TOUCHPOINTS.format(
        documents=", t.properties, t.context, t.traits" if reading.documents else "",
        names=_OF_ANY_NAME if reading.names is None else _OF_NAMES,
    )


def _add_touchpoints(moves: list[list[Input]], rows: Sequence[Any], rules: Ruleset, reading: _Reading) -> None:
    by_name, meet = reading.by_name, rules.meet
    if by_name is not None:
        for place, at, message_id, source, name, _ in rows:
            moves[place - 1].append(Input(at, message_id, source, by_name[name], None))
        return
    for place, at, message_id, source, name, channel, *documents in rows:
        properties, context, traits = documents or (b"{}", b"{}", None)
        leaves, kept = meet(Occurrence(name, channel, source, at, properties, context, traits or b"{}"))
        if leaves:
            moves[place - 1].append(Input(at, message_id, source, leaves, None, kept))
