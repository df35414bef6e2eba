"""Questions about single customers: who they are, where they stand, since when, until when and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from app.config import Settings
from app.db import Connection, Pool, snapshot
from app.errors import NotFound
from app.projection.fold import POINTS_UNLIMITED, Change, fold
from app.projection.intervals import Interval, continue_intervals
from app.projection.project import versions_of
from app.projection.replay import read_moves, replay
from app.projection.state import State, decided_at, read_state, write_state
from app.projection.write import interval_of
from app.registry import Registry
from app.rules.ruleset import Definition, Ruleset
from app.views.states import (
    Customer,
    Place,
    Stored,
    carried_to,
    is_current,
    place_of,
    present,
    states_at,
    truth_of,
    valid_until,
)


class Explanation(msgspec.Struct):
    """Why a rule holds for a customer or does not; ``tree`` as in :mod:`app.rules.explanation`."""

    holds: bool
    since: int | None
    valid_until: int | None
    tree: dict[str, Any]


class Explained(msgspec.Struct):
    """What an explanation works on: the whole log folded without limits, and the messages behind each leaf."""

    customer: bytes
    definition: Definition
    state: State
    ruleset: Ruleset
    messages: dict[str, list[tuple[int, str]]]
    as_of: int

    def rule(self, rule_id: str) -> Explanation:
        truth = truth_of(self.state, self.ruleset, rule_id)
        tree = self.ruleset.explain(rule_id, self.state, self.as_of, lambda leaf: self.messages.get(leaf, []))
        if self.state.born is None:
            _hold_nothing(tree)
        self._look_ahead(rule_id, tree)
        since = None if self.state.born is None else truth.since
        return Explanation(truth.holds, since, tree["valid_until"], tree)

    def _look_ahead(self, rule_id: str, tree: dict[str, Any]) -> None:
        """Messages of the future count from their instant on, which may come before time alone changes a truth."""
        if not self.state.pending:
            return
        ahead = read_state(write_state(self.state, self.ruleset), self.ruleset)
        for instant in sorted({move.at for move in self.state.pending}):
            fold(ahead, self.ruleset, (), instant, POINTS_UNLIMITED)
            _continue(tree, self.ruleset.explain(rule_id, ahead, instant), instant)

    def place(self, journey: str) -> Place:
        return place_of(self.state, journey, valid_until(self.state, self.ruleset, POINTS_UNLIMITED))


def _hold_nothing(node: dict[str, Any]) -> None:
    """Before its first message nothing holds for a customer, not even a ``not``."""
    node["truth"], node["valid_until"] = False, None
    for child in node["nodes"]:
        _hold_nothing(child)


def _continue(node: dict[str, Any], later: dict[str, Any], instant: int) -> None:
    """Correct until when each truth lasts by what is so at ``instant``, up to which it was right."""
    until = node["valid_until"]
    if until is None or until >= instant:
        node["valid_until"] = later["valid_until"] if node["truth"] == later["truth"] else instant
    for child, later_child in zip(node["nodes"], later["nodes"], strict=True):
        _continue(child, later_child, instant)


_CUSTOMER = """
-- One customer by any of its identities, likeliest first; with the revision of the definitions that hold now.
SELECT (SELECT value FROM revisions WHERE name = 'definitions') AS definitions,
       c.id, c.state, c.flips_at, c.revision, c.stale, m.kinds, m.values
FROM (SELECT customer_id
      FROM unnest($1::uuid[]) WITH ORDINALITY AS asked (id, place) JOIN identities USING (id)
      WHERE customer_id IS NOT NULL ORDER BY place LIMIT 1) AS found
JOIN customers c ON c.id = found.customer_id
CROSS JOIN LATERAL (SELECT array_agg(kind) AS kinds, array_agg(value) AS values
                    FROM identities WHERE customer_id = c.id) AS m
"""

_CUSTOMERS = """
-- The same for many at once; ``place`` is the number of the question.
SELECT DISTINCT ON (asked.place) asked.place,
       c.id, c.state, c.flips_at, c.revision, c.stale, m.kinds, m.values
FROM unnest($1::int[], $2::uuid[]) WITH ORDINALITY AS asked (place, id, rank)
JOIN identities i ON i.id = asked.id
JOIN customers c ON c.id = i.customer_id
CROSS JOIN LATERAL (SELECT array_agg(kind) AS kinds, array_agg(value) AS values
                    FROM identities WHERE customer_id = c.id) AS m
ORDER BY asked.place, asked.rank
"""

_INTERVALS = """
SELECT customer_id, definition, value, version, entered_at, entered_cause, left_at, left_cause
FROM transitions
WHERE customer_id = $1 AND retracted_at IS NULL AND definition = ANY($2::text[]) AND entered_at <= $3
ORDER BY entered_at, definition, value
"""


class CustomerViews:
    """Questions about single customers. ``now`` is an argument: it is read once a request."""

    def __init__(self, pool: Pool, registry: Registry, settings: Settings) -> None:
        self._pool = pool
        self._registry = registry
        self._points_max = settings.series_points_max

    async def customer(self, ids: Sequence[bytes], now: int) -> Customer:
        """By the ids of identities that may be meant. Raises :class:`NotFound`."""
        row = await self._pool.fetchrow(_CUSTOMER, ids)
        if row is None:
            raise NotFound("There is no such customer.")
        definitions, *stored, kinds, values = row
        ruleset = self._registry.ruleset
        if definitions == ruleset.revision:
            state = carried_to(Stored(*stored), ruleset, now, self._points_max)
            shown = None if state is None else present(stored[0], kinds, values, state, ruleset, now, self._points_max)
            if shown is not None:
                return shown
        return await self._customer_replayed(ids, now)

    async def _customer_replayed(self, ids: Sequence[bytes], now: int) -> Customer:
        """The slow way, in one snapshot: definitions, row and log belong together."""
        async with snapshot(self._pool) as connection:
            row = await connection.fetchrow(_CUSTOMER, ids)
            if row is None:
                raise NotFound("There is no such customer.")
            definitions, *stored, kinds, values = row
            ruleset = await self._registry.ruleset_at(connection, definitions)
            id = stored[0]
            replayed = await replay(connection, [id], ruleset, now)
        state = replayed[id].state if id in replayed else State()
        shown = present(id, kinds, values, state, ruleset, now, POINTS_UNLIMITED)
        assert shown is not None
        return shown

    async def customers(self, questions: Sequence[Sequence[bytes]], now: int) -> list[Customer | None]:
        """Many at once: for each question, the ids of identities that may be meant."""
        places = [place for place, ids in enumerate(questions) for _ in ids]
        asked = [id for ids in questions for id in ids]
        answers: list[Customer | None] = [None] * len(questions)
        async with snapshot(self._pool) as connection:
            ruleset = await self._registry.current_ruleset(connection)
            rows = await connection.fetch(_CUSTOMERS, places, asked)
            stored = {row["id"]: Stored(*row[1:6]) for row in rows}
            states = await states_at(connection, stored.values(), ruleset, now, self._points_max)
            for place, id, *_, kinds, values in rows:
                shown = present(id, kinds, values, states[id], ruleset, now, POINTS_UNLIMITED)
                answers[place] = shown
        return answers

    async def stays(
        self, ids: Sequence[bytes], kind: str, key: str | None, now: int
    ) -> tuple[bytes, list[Interval], int]:
        """Stays in stages (``kind`` journey) or segments, oldest first, with the customer and the instant.

        Raises :class:`NotFound` for a customer or definition that does not exist.
        """
        async with snapshot(self._pool) as connection:
            row, ruleset = await self._found(connection, ids)
            definitions = [
                f"{kind}:{each.key}" for each in ruleset.definitions if each.kind == kind and key in (None, each.key)
            ]
            if key is not None and not definitions:
                raise NotFound(f"There is no {kind} {key}.")
            if is_current(row, ruleset, now):
                as_of = max(now, decided_at(row.state))
                found = [interval_of(each) for each in await connection.fetch(_INTERVALS, row.id, definitions, as_of)]
                return row.id, found, as_of
            replayed = await replay(connection, [row.id], ruleset, now)
        changes: Iterable[Change] = replayed[row.id].changes if row.id in replayed else ()
        wanted = set(definitions)
        stays = continue_intervals(
            row.id, [change for change in changes if change.definition in wanted], versions_of(ruleset)
        ).begun
        stays.sort(key=lambda stay: (stay.entered_at, stay.definition, stay.value))
        return row.id, stays, now

    async def explained(self, ids: Sequence[bytes], kind: str, key: str, now: int) -> Explained:
        """Fold the whole log, keeping every point and which message stands behind it.

        Raises :class:`NotFound` for a customer or definition that does not exist.
        """
        async with snapshot(self._pool) as connection:
            row, ruleset = await self._found(connection, ids)
            definition = next((each for each in ruleset.definitions if (each.kind, each.key) == (kind, key)), None)
            if definition is None:
                raise NotFound(f"There is no {kind} {key}.")
            moves = await read_moves(connection, row.id, ruleset)
        state = State()
        fold(state, ruleset, moves, now, POINTS_UNLIMITED)
        messages: dict[str, list[tuple[int, str]]] = {}
        for move in moves:
            if move.at <= now:
                for leaf in move.leaves:
                    messages.setdefault(leaf, []).append((move.at, move.message_id))
        return Explained(row.id, definition, state, ruleset, messages, now)

    async def _found(self, connection: Connection, ids: Sequence[bytes]) -> tuple[Stored, Ruleset]:
        row = await connection.fetchrow(_CUSTOMER, ids)
        if row is None:
            raise NotFound("There is no such customer.")
        definitions, *stored, _, _ = row
        return Stored(*stored), await self._registry.ruleset_at(connection, definitions)
