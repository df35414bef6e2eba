"""Trait coverage: counts, for each declared trait, the customers that have it.

The report scans all customers, in chunks of one database snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from app.config import Settings
from app.insight.customer_scan import scan_customers
from app.postgres.pool import Connection, Pool, snapshot
from app.projection.coverage import BEFORE_NUMBERS
from app.projection.state import declared_traits_at
from app.queries.customer_state import StoredState, states_at
from app.registry.registry import Registry
from app.rules.engine.ruleset import Ruleset

TRAITS_MAX: Final = 5_000
"""Maximum number of trait names that are counted. Clients choose the names, so their number must be bounded."""

_EMPTY: Final[tuple[Any, ...]] = ("", [], {})

_ROWS = "SELECT id, state, flips_at, revision, stale FROM customers WHERE id = ANY($1::uuid[])"


class TraitCount(msgspec.Struct):
    """Number of customers that have the trait. ``empty`` counts those whose value is an empty text, list or object."""

    customers: int = 0
    empty: int = 0


class TraitCoverage(msgspec.Struct, frozen=True):
    """Counts by trait. ``left_out`` is the number of trait values that were not counted because of TRAITS_MAX."""

    customers: int
    traits: dict[str, TraitCount]
    left_out: int


class TraitCoverageQueries:
    def __init__(self, pool: Pool, registry: Registry, settings: Settings) -> None:
        self._pool = pool
        self._registry = registry
        self._points_max = settings.series_points_max

    async def count_traits(self, now: int) -> TraitCoverage:
        """Count the customers of each trait.

        The stored state is used if the traits cannot have changed since it was written; other customers are recomputed.
        """
        counts: dict[str, TraitCount] = {}
        customers = left_out = 0
        async with snapshot(self._pool) as connection:
            ruleset = await self._registry.rules.read(connection)
            async for ids in scan_customers(connection):
                customers += len(ids)
                for traits in await self._traits_of(connection, ids, ruleset, now):
                    left_out += _count_traits(traits, counts)
        return TraitCoverage(customers, counts, left_out)

    async def _traits_of(
        self, connection: Connection, ids: list[bytes], ruleset: Ruleset, now: int
    ) -> Iterable[Mapping[str, Any]]:
        traits: list[Mapping[str, Any]] = []
        unreadable: list[StoredState] = []
        for row in await connection.fetch(_ROWS, ids):
            stored = StoredState(*row)
            declared = (
                None if stored.stale or stored.revision == BEFORE_NUMBERS else declared_traits_at(stored.state, now)
            )
            if declared is None:
                unreadable.append(stored)
            else:
                traits.append(declared)
        if unreadable:
            states = await states_at(connection, unreadable, ruleset, now, self._points_max)
            traits += [state.traits for state in states.values()]
        return traits


def _count_traits(traits: Mapping[str, Any], counts: dict[str, TraitCount]) -> int:
    """Add ``traits`` to ``counts``. Return how many were not counted, because of TRAITS_MAX."""
    left_out = 0
    for name, value in traits.items():
        if value is None:
            continue
        count = counts.get(name)
        if count is None:
            if len(counts) >= TRAITS_MAX:
                left_out += 1
                continue
            count = counts[name] = TraitCount()
        count.customers += 1
        count.empty += value in _EMPTY
    return left_out
