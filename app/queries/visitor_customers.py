"""The part of a customer that a visitor may see: identities that the visitor has proven or a server has vouched for.

Any page can claim any identity for its visitor, and Segue joins claimed identities to the visitor's customer. Their
touchpoints must not affect the profile that the page reads. The profile is therefore a fold of the touchpoints of the
visible identities only: the visitor's own ones, and those that links lead to for which a server vouches. Whether such a
link is joined does not depend on claims (:mod:`app.identity.graph`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from app.config import Settings
from app.postgres.pool import Pool, snapshot
from app.projection.fold import POINTS_UNLIMITED
from app.projection.log_replay import replay_identities
from app.projection.state import count_messages
from app.queries.customer_state import Customer, StoredState, advance_to, build_customer
from app.queries.customers import CustomerQueries
from app.queries.replay_limit import HeavyRead
from app.registry.registry import Registry
from app.registry.visitor_tokens import Visitor
from app.rules.engine.ruleset import Ruleset
from app.touchpoint import Identity

REPLAYED_MESSAGES_MAX: Final = 2_000
"""Maximum number of visible messages of a customer who also has other ones; beyond it, the profile is empty.

Each read replays them, so a larger number would let one visitor use up the time of all others.
"""

_VISIBLE = """
-- For each visitor: the customer of the first identity that has one, the visible identities of this customer, and the
-- revision of the definitions. Links are read by links_pkey and links_of_stronger.
WITH RECURSIVE own AS (
    SELECT * FROM unnest($1::int[], $2::uuid[]) WITH ORDINALITY AS o (place, id, rank)
),
owner AS (
    SELECT DISTINCT ON (o.place) o.place, i.customer_id FROM own o JOIN identities i USING (id)
    WHERE i.customer_id IS NOT NULL ORDER BY o.place, o.rank
),
visible (place, id) AS (
    SELECT o.place, o.id FROM own o JOIN owner w USING (place) JOIN identities i USING (id)
    WHERE i.customer_id = w.customer_id
  UNION
    SELECT v.place, CASE WHEN l.weaker = v.id THEN l.stronger ELSE l.weaker END
    FROM visible v JOIN links l ON l.weaker = v.id OR l.stronger = v.id
    WHERE l.vouched AND l.joined AND l.undone_at IS NULL
),
shown AS (SELECT place, id FROM visible UNION SELECT place, id FROM own)
SELECT p.place, (SELECT value FROM revisions WHERE name = 'definitions') AS definitions,
       array(SELECT id FROM visible v WHERE v.place = p.place) AS visible,
       EXISTS (SELECT FROM shown s JOIN links l ON l.weaker = s.id OR l.stronger = s.id
               WHERE s.place = p.place AND NOT l.vouched AND l.undone_at IS NULL
                 AND NOT EXISTS (SELECT FROM shown e WHERE e.place = p.place
                                 AND e.id = CASE WHEN l.weaker = s.id THEN l.stronger ELSE l.weaker END)) AS is_claimed,
       EXISTS (SELECT FROM identities i WHERE i.customer_id = w.customer_id
               AND NOT EXISTS (SELECT FROM visible v WHERE v.place = p.place AND v.id = i.id)) AS has_others,
       EXISTS (SELECT FROM identities i WHERE i.customer_id = w.customer_id
               AND NOT EXISTS (SELECT FROM visible v WHERE v.place = p.place AND v.id = i.id)
               AND EXISTS (SELECT FROM touchpoints t WHERE t.identity_id = i.id)) AS has_other_messages,
       c.id, c.state, c.flips_at, c.revision, c.stale
FROM (SELECT DISTINCT place FROM own) AS p
LEFT JOIN owner w USING (place)
LEFT JOIN customers c ON c.id = w.customer_id
ORDER BY p.place
"""


class VisitorCustomer(msgspec.Struct, frozen=True):
    """The visible part of a visitor's customer; ``customer`` is None if no message of it is visible.

    ``is_claimed`` is True if links without a server's word join the visitor to other identities. It must not depend on
    whether these identities exist or have messages.
    """

    customer: Customer | None
    is_claimed: bool


class _VisibleRow(msgspec.Struct):
    """A row of :data:`_VISIBLE`, without the place."""

    definitions: int
    visible: list[bytes]
    is_claimed: bool
    has_others: bool
    has_other_messages: bool
    stored: StoredState | None


class VisitorCustomers:
    """Reads the visible parts of visitors' customers."""

    def __init__(self, pool: Pool, registry: Registry, settings: Settings) -> None:
        self._pool = pool
        self._customers = CustomerQueries(pool, registry, settings)
        self._registry = registry
        self._points_max = settings.series_points_max
        self._messages_max = settings.read_messages_max

    async def read(self, visitors: Sequence[tuple[Visitor, bool]], now: int) -> list[VisitorCustomer]:
        """Return the visible part of each visitor's customer, in the same order.

        The second element of a pair is True if the visitor's write key trusts all claims; then the whole customer is
        visible. Raise :class:`HeavyRead` if one visitor needs a replay of more than ``read_messages_max`` messages.
        """
        parts: list[VisitorCustomer | None] = [None] * len(visitors)
        trusting = [place for place, (_, trusts_identify) in enumerate(visitors) if trusts_identify]
        if trusting:
            customers = await self._customers.customers(
                [identity_ids_of(visitors[place][0]) for place in trusting], now
            )
            for place, customer in zip(trusting, customers, strict=True):
                parts[place] = VisitorCustomer(customer, False)
        own = [
            (place, id)
            for place, (visitor, trusts_identify) in enumerate(visitors)
            if not trusts_identify
            for id in identity_ids_of(visitor)
        ]
        if own:
            for row in await self._pool.fetch(_VISIBLE, [place for place, _ in own], [id for _, id in own]):
                parts[row["place"]] = await self._build(_parse_row(row), now)
        return [part for part in parts if part is not None]

    async def _build(self, row: _VisibleRow, now: int) -> VisitorCustomer:
        if row.stored is None:
            return VisitorCustomer(None, row.is_claimed)
        return VisitorCustomer(
            await self._build_from_stored_state(row, row.stored, now) or await self._replay(row, row.stored, now),
            row.is_claimed,
        )

    async def _build_from_stored_state(self, row: _VisibleRow, stored: StoredState, now: int) -> Customer | None:
        """Return the customer from its row, if the row was folded from visible messages only and is up to date."""
        ruleset = self._registry.rules.current
        hides_others = row.has_others if ruleset.reads_bucketing_key else row.has_other_messages
        if hides_others or row.definitions != ruleset.revision:
            return None
        state = await advance_to(self._pool, stored, ruleset, now, self._points_max)
        return None if state is None else build_customer(stored.id, (), (), state, ruleset, now, self._points_max)

    async def _replay(self, row: _VisibleRow, stored: StoredState, now: int) -> Customer | None:
        """Fold the messages of the visible identities; return None if no message or too many are visible."""
        is_long = count_messages(stored.state) > self._messages_max
        messages_max = REPLAYED_MESSAGES_MAX if row.has_other_messages else None
        if is_long and messages_max is None:
            raise HeavyRead
        if is_long and messages_max is not None:
            messages_max = min(messages_max, self._messages_max)
        async with snapshot(self._pool) as connection:
            ruleset: Ruleset = await self._registry.rules.read(connection)
            state = await replay_identities(connection, row.visible, ruleset, now, messages_max)
        if state is None and is_long:
            raise HeavyRead
        return None if state is None else build_customer(stored.id, (), (), state, ruleset, now, POINTS_UNLIMITED)


def identity_ids_of(visitor: Visitor) -> list[bytes]:
    """Return the ids of the visitor's identities, likeliest first: the vouched user, then the anonymous id."""
    candidates = (("user_id", visitor.user_id), ("anonymous_id", visitor.anonymous_id))
    return [Identity(kind, value).id for kind, value in candidates if value is not None]


def _parse_row(row: Any) -> _VisibleRow:
    _, definitions, visible, is_claimed, has_others, has_other_messages, *stored = row
    state = None if stored[0] is None else StoredState(*stored)
    return _VisibleRow(definitions, visible, is_claimed, has_others, has_other_messages, state)
