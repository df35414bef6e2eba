"""Queries about single customers: identities, traits, stages and segments, their history and explanations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from app.config import Settings
from app.errors import NotFound
from app.postgres.pool import Connection, Pool, snapshot
from app.projection.coverage import definition_refs_of
from app.projection.fold import POINTS_UNLIMITED, Transition
from app.projection.intervals import Interval, continue_intervals
from app.projection.log_replay import replay_log
from app.projection.state import last_decided_at
from app.projection.stored_intervals import interval_from_row
from app.projection.time_slices import TimeSlices
from app.queries.customer_state import (
    CurrentStage,
    Customer,
    StoredState,
    advance_to,
    build_customer,
    is_current,
    replay_state,
    states_at,
)
from app.queries.explanations import Explanation, explain_rule, replay_for_explanation
from app.queries.replay_limit import check_replay_length
from app.registry.registry import Registry
from app.rules.engine.ruleset import Ruleset
from app.rules.language.references import Definition

_CUSTOMER = """
-- One customer by any of its identities, likeliest first, and the current revision of the definitions.
SELECT (SELECT value FROM revisions WHERE name = 'definitions') AS definitions,
       c.id, c.state, c.flips_at, c.revision, c.stale, m.kinds, m.values
FROM (SELECT customer_id
      FROM unnest($1::uuid[]) WITH ORDINALITY AS requested (id, place) JOIN identities USING (id)
      WHERE customer_id IS NOT NULL ORDER BY place LIMIT 1) AS owner
JOIN customers c ON c.id = owner.customer_id
CROSS JOIN LATERAL (SELECT array_agg(kind) AS kinds, array_agg(value) AS values
                    FROM identities WHERE customer_id = c.id) AS m
"""

_CUSTOMERS = """
-- Many customers, each by any of its identities; ``place`` is the position of the customer in the request.
SELECT DISTINCT ON (requested.place) requested.place,
       c.id, c.state, c.flips_at, c.revision, c.stale, m.kinds, m.values
FROM unnest($1::int[], $2::uuid[]) WITH ORDINALITY AS requested (place, id, rank)
JOIN identities i ON i.id = requested.id
JOIN customers c ON c.id = i.customer_id
CROSS JOIN LATERAL (SELECT array_agg(kind) AS kinds, array_agg(value) AS values
                    FROM identities WHERE customer_id = c.id) AS m
ORDER BY requested.place, requested.rank
"""

_INTERVALS = """
SELECT customer_id, definition, value, version, entered_at, entered_cause, left_at, left_cause, meaning
FROM transitions JOIN unnest($2::text[], $4::bigint[]) AS requested (definition, meaning) USING (definition, meaning)
WHERE customer_id = $1 AND retracted_at IS NULL AND entered_at <= $3
ORDER BY entered_at, definition, value
"""


class CustomerQueries:
    """Queries about single customers. ``ids`` are the identities to which a request may refer, likeliest first.

    ``now`` is an argument because a request reads the clock once. With ``past``, ``now`` is an instant of the past: the
    log is replayed up to it, and ``valid_until`` treats later messages as future messages.

    Every method raises :class:`app.queries.replay_limit.HeavyRead` if it would replay more than ``read_messages_max``
    messages.
    """

    def __init__(self, pool: Pool, registry: Registry, settings: Settings) -> None:
        self._pool = pool
        self._registry = registry
        self._points_max = settings.series_points_max
        self._messages_max = settings.read_messages_max

    async def customer(self, ids: Sequence[bytes], now: int, *, past: bool = False) -> Customer:
        """Return the customer of the first identity that has one. Raise :class:`NotFound` if no identity has one."""
        if past:
            return await self._replay_customer(ids, now)
        row = await self._pool.fetchrow(_CUSTOMER, ids)
        if row is None:
            raise NotFound("No customer has this identity.")
        definitions, *stored, kinds, values = row
        ruleset = self._registry.rules.current
        if definitions == ruleset.revision:
            state = await advance_to(self._pool, StoredState(*stored), ruleset, now, self._points_max)
            customer = (
                None
                if state is None
                else build_customer(stored[0], kinds, values, state, ruleset, now, self._points_max)
            )
            if customer is not None:
                return customer
        return await self._replay_customer(ids, now)

    async def _replay_customer(self, ids: Sequence[bytes], now: int) -> Customer:
        """Replay the customer in one snapshot, so that definitions, row and log match."""
        async with snapshot(self._pool) as connection:
            row = await connection.fetchrow(_CUSTOMER, ids)
            if row is None:
                raise NotFound("No customer has this identity.")
            definitions, *stored, kinds, values = row
            id = stored[0]
            ruleset = await self._registry.rules.read_at(connection, definitions)
            state = await replay_state(connection, StoredState(*stored), ruleset, now, self._messages_max)
        customer = build_customer(id, kinds, values, state, ruleset, now, POINTS_UNLIMITED)
        assert customer is not None
        return customer

    async def customers(self, questions: Sequence[Sequence[bytes]], now: int) -> list[Customer | None]:
        """Return the customer, or None, for each sequence of ids; the ids are those of :meth:`customer`."""
        places = [place for place, ids in enumerate(questions) for _ in ids]
        identity_ids = [id for ids in questions for id in ids]
        customers: list[Customer | None] = [None] * len(questions)
        async with snapshot(self._pool) as connection:
            ruleset = await self._registry.rules.read(connection)
            rows = await connection.fetch(_CUSTOMERS, places, identity_ids)
            stored = {row["id"]: StoredState(*row[1:6]) for row in rows}
            states = await states_at(
                connection,
                stored.values(),
                ruleset,
                now,
                self._points_max,
                with_values=True,
                messages_max=self._messages_max,
            )
            slices = TimeSlices()
            for place, id, *_, kinds, values in rows:
                await slices.give_way_if_due()
                customers[place] = build_customer(id, kinds, values, states[id], ruleset, now, POINTS_UNLIMITED)
        return customers

    async def list_stays(
        self, ids: Sequence[bytes], kind: str, key: str | None, now: int, *, past: bool = False
    ) -> tuple[bytes, list[Interval], int]:
        """Return the customer's id, the intervals in stages or segments, oldest first, and the instant of the result.

        ``kind`` is journey or segment. Raise :class:`NotFound` if the customer or the definition does not exist.
        """
        async with snapshot(self._pool) as connection:
            row, ruleset = await self._read_customer(connection, ids)
            definition_ids = [
                f"{kind}:{definition.key}"
                for definition in ruleset.definitions
                if definition.kind == kind and key in (None, definition.key)
            ]
            if key is not None and not definition_ids:
                raise NotFound(f"The {kind} {key} does not exist.")
            if not past and is_current(row, ruleset, now):
                as_of = max(now, last_decided_at(row.state))
                meanings = [ruleset.number_of[id] for id in definition_ids]
                rows = await connection.fetch(_INTERVALS, row.id, definition_ids, as_of, meanings)
                return row.id, [interval_from_row(interval) for interval in rows], as_of
            check_replay_length([row.state], self._messages_max)
            replayed = await replay_log(connection, [row.id], ruleset, now)
        changes: Iterable[Transition] = replayed[row.id].changes if row.id in replayed else ()
        requested_ids = set(definition_ids)
        relevant_changes = [change for change in changes if change.definition in requested_ids]
        intervals = continue_intervals(row.id, relevant_changes, definition_refs_of(ruleset)).begun
        intervals.sort(key=lambda interval: (interval.entered_at, interval.definition, interval.value))
        return row.id, intervals, now

    async def explain_segment(self, ids: Sequence[bytes], key: str, now: int) -> tuple[Definition, Explanation]:
        """Return the segment, and why the customer is or is not a member.

        Raise :class:`NotFound` if the customer or the segment does not exist.
        """
        async with snapshot(self._pool) as connection:
            row, ruleset = await self._read_customer(connection, ids)
            check_replay_length([row.state], self._messages_max)
            definition = _find_definition(ruleset, "segment", key)
            return definition, await explain_rule(connection, row.id, f"segment:{key}", ruleset, now)

    async def explain_journey(
        self, ids: Sequence[bytes], key: str, now: int
    ) -> tuple[Definition, CurrentStage, list[tuple[str, Explanation]]]:
        """Return the journey, the customer's current stage, and (stage, explanation) of each stage in order.

        Raise :class:`NotFound` if the customer or the journey does not exist.
        """
        async with snapshot(self._pool) as connection:
            row, ruleset = await self._read_customer(connection, ids)
            check_replay_length([row.state], self._messages_max)
            definition = _find_definition(ruleset, "journey", key)
            stage = (await replay_for_explanation(connection, row.id, ruleset, now)).current_stage(key)
            stages = [
                (stage_key, await explain_rule(connection, row.id, rule_id, ruleset, now))
                for stage_key, rule_id in ruleset.stages_of[key]
            ]
        return definition, stage, stages

    async def explain_trait(self, ids: Sequence[bytes], key: str, now: int) -> tuple[Definition, dict[str, Any]]:
        """Return the computed trait, its ``value``, its ``valid_until`` and the touchpoints that were aggregated.

        Raise :class:`NotFound` if the customer or the trait does not exist.
        """
        async with snapshot(self._pool) as connection:
            row, ruleset = await self._read_customer(connection, ids)
            check_replay_length([row.state], self._messages_max)
            definition = _find_definition(ruleset, "trait", key)
            explained = await replay_for_explanation(
                connection, row.id, ruleset.ruleset_for_explanation(f"trait:{key}"), now
            )
        return definition, explained.explain_value(key)

    async def _read_customer(self, connection: Connection, ids: Sequence[bytes]) -> tuple[StoredState, Ruleset]:
        row = await connection.fetchrow(_CUSTOMER, ids)
        if row is None:
            raise NotFound("No customer has this identity.")
        definitions, *stored, _, _ = row
        return StoredState(*stored), await self._registry.rules.read_at(connection, definitions)


def _find_definition(ruleset: Ruleset, kind: str, key: str) -> Definition:
    for definition in ruleset.definitions:
        if (definition.kind, definition.key) == (kind, key):
            return definition
    raise NotFound(f"The {kind} {key} does not exist.")
