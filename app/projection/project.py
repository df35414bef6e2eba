"""Messages into customers: identity, then state, then stages and segments, all in the caller's transaction.

The one path for live messages, deferred ones and repairs. Owns the tables identities, links (through
:mod:`app.projection.identity`), customers and transitions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from app.config import Settings
from app.db import Connection
from app.projection import identity
from app.projection.fold import NeedsReplay, flips_at, fold
from app.projection.graph import Caps
from app.projection.identity import Resolution, Resolved
from app.projection.intervals import Interval, IntervalWrites, continue_intervals, correct_intervals
from app.projection.replay import Replayed, move_of_message, replay
from app.projection.state import Cause, Move, State, read_state, write_state
from app.rules.ruleset import Ruleset
from app.touchpoint import Message

SWEEP_NOW = 0
"""A ``sweep_at`` that is always due: the worker takes stale customers first."""


class Projected(msgspec.Struct):
    """Counts of one projection, for the metrics."""

    customers: int = 0
    replayed: int = 0
    left_stale: int = 0
    transitions: int = 0


async def project(
    connection: Connection, messages: Sequence[Message], ruleset: Ruleset, now: int, settings: Settings
) -> Projected:
    """Take messages that are in the log already into the customers they belong to."""
    resolution = await identity.resolve(connection, messages, caps_of(settings))
    moves: dict[bytes, list[Move]] = {}
    for message in messages:
        customer = resolution.customer_of[message.identities[0].id]
        moves.setdefault(customer, []).append(move_of_message(message, ruleset))
    return await _carry_forward(connection, resolution, moves, ruleset, now, settings, replay_all=False)


async def project_deferred(
    connection: Connection, messages: Sequence[Message], ruleset: Ruleset, now: int, settings: Settings
) -> Projected:
    """The same for messages that waited in the log: a replay may have met them there already, so replay again."""
    resolution = await identity.resolve(connection, messages, caps_of(settings))
    return await _carry_forward(connection, resolution, {}, ruleset, now, settings, replay_all=True)


async def refresh(
    connection: Connection,
    customer_ids: Sequence[bytes],
    ruleset: Ruleset,
    now: int,
    settings: Settings,
    replay_all: bool = False,
) -> Projected:
    """Bring stored customers up to ``now`` and to the current definitions; replays whatever is stale, however long."""
    rows = await identity.lock(connection, customer_ids)
    customers = {row.id: Resolved(row.id, [row], True, row.contested, row.last_link_at) for row in rows}
    resolution = Resolution(customers, {}, [], [], [])
    unbounded = settings.model_copy(update={"replay_messages_max": 10**12})
    return await _carry_forward(connection, resolution, {}, ruleset, now, unbounded, replay_all)


async def undo_link(
    connection: Connection,
    weaker: bytes,
    stronger: bytes,
    undone: bool,
    ruleset: Ruleset,
    now: int,
    settings: Settings,
) -> bool:
    """Take a link of the merge ledger back, or restore it; customers part or join accordingly. False: no such link."""
    found = await connection.fetchval(_UNDO, weaker, stronger, now if undone else None)
    if found is None:
        return False
    resolution = await identity.redivide(connection, [weaker, stronger], caps_of(settings))
    await _carry_forward(connection, resolution, {}, ruleset, now, settings, replay_all=False)
    return True


def caps_of(settings: Settings) -> Caps:
    return Caps(
        settings.anonymous_ids_per_customer_max,
        settings.contact_ids_per_customer_max,
        settings.other_ids_per_customer_max,
    )


class _Carried(msgspec.Struct):
    """A customer ready to be written."""

    customer: Resolved
    state: State
    text: str
    revision: int
    stale: bool


async def _carry_forward(
    connection: Connection,
    resolution: Resolution,
    moves: Mapping[bytes, list[Move]],
    ruleset: Ruleset,
    now: int,
    settings: Settings,
    replay_all: bool,
) -> Projected:
    carried: list[_Carried] = []
    writes = IntervalWrites()
    to_replay: list[tuple[int, Resolved]] = []
    versions = versions_of(ruleset)
    for customer in resolution.customers.values():
        state = _goes_on(customer, ruleset)
        news = moves.get(customer.id, [])
        if state is None or replay_all:
            to_replay.append((_length(customer, len(news)), customer))
            continue
        try:
            changes = fold(state, ruleset, news, now, settings.series_points_max)
        except NeedsReplay:
            to_replay.append((_length(customer, len(news)), customer))
            continue
        writes.extend(continue_intervals(customer.id, changes, versions))
        carried.append(_Carried(customer, state, write_state(state), ruleset.revision, False))
    await _write_graph(connection, resolution)
    now_replayed, left = _within_budget(to_replay, settings.replay_messages_max)
    if now_replayed:
        carried += await _replay(connection, now_replayed, ruleset, now, settings, versions, writes)
    for length, customer in left:
        carried.append(_leave_stale(customer, length, ruleset, now))
    if left and resolution.gone:
        writes.retracted += [interval.key for interval in await _stored_intervals(connection, resolution.gone)]
    await _write_customers(connection, carried, writes, now)
    return Projected(len(carried), len(now_replayed), len(left), len(writes.begun) + len(writes.ended))


def _goes_on(customer: Resolved, ruleset: Ruleset) -> State | None:
    """The state to extend; None where history itself changed and only the log can tell."""
    if not customer.origins:
        return State()
    row = customer.origins[0]
    if len(customer.origins) > 1 or not customer.whole or row.stale or row.revision != ruleset.revision:
        return None
    return read_state(row.state)


def _length(customer: Resolved, news: int) -> int:
    """How many messages a replay will read, about."""
    return news + sum(read_state(row.state).messages for row in customer.origins)


def _within_budget(
    wanted: Sequence[tuple[int, Resolved]], messages_max: int
) -> tuple[list[Resolved], list[tuple[int, Resolved]]]:
    """The short replays are done here, the long ones are left to the worker; until then reads replay by themselves."""
    done: list[Resolved] = []
    left: list[tuple[int, Resolved]] = []
    for length, customer in sorted(wanted, key=lambda pair: pair[0]):
        messages_max -= length
        if messages_max >= 0:
            done.append(customer)
        else:
            left.append((length, customer))
    return done, left


def _leave_stale(customer: Resolved, length: int, ruleset: Ruleset, now: int) -> _Carried:
    state = State(born=now, messages=length)
    return _Carried(customer, state, write_state(state), ruleset.revision, True)


async def _replay(
    connection: Connection,
    customers: Sequence[Resolved],
    ruleset: Ruleset,
    now: int,
    settings: Settings,
    versions: Mapping[str, int],
    writes: IntervalWrites,
) -> list[_Carried]:
    ids = [customer.id for customer in customers]
    replayed = await replay(connection, ids, ruleset, now)
    before = {row.id for customer in customers for row in customer.origins} | set(ids)
    stored = await _stored_intervals(connection, before)
    wanted: list[Interval] = []
    carried = []
    for customer in customers:
        known = replayed.get(customer.id) or Replayed(State(), [])
        wanted += continue_intervals(customer.id, known.changes, versions).begun
        text = write_state(cap_points(known.state, settings.series_points_max))
        carried.append(_Carried(customer, known.state, text, ruleset.revision, False))
    writes.extend(correct_intervals(stored, wanted))
    return carried


def cap_points(state: State, points_max: int) -> State:
    """Forget the points of series that outgrew the cap: such a customer is answered from the log."""
    for series in state.series.values():
        if series.points > points_max:
            series.overflow()
    return state


def versions_of(ruleset: Ruleset) -> dict[str, int]:
    return {f"{definition.kind}:{definition.key}": definition.version for definition in ruleset.definitions}


_STORED_INTERVALS = """
SELECT customer_id, definition, value, version, entered_at, entered_cause, left_at, left_cause
FROM transitions
WHERE customer_id = ANY($1::uuid[]) AND retracted_at IS NULL
"""

_decode_cause = msgspec.json.Decoder(Cause).decode
_encode_cause = msgspec.json.Encoder().encode


async def _stored_intervals(connection: Connection, customer_ids: Iterable[bytes]) -> list[Interval]:
    return [
        Interval(
            customer,
            definition,
            value,
            version,
            entered_at,
            _decode_cause(entered_cause),
            left_at,
            None if left_cause is None else _decode_cause(left_cause),
        )
        for customer, definition, value, version, entered_at, entered_cause, left_at, left_cause in (
            await connection.fetch(_STORED_INTERVALS, list(customer_ids))
        )
    ]


_UNDO = """
UPDATE links SET undone_at = $3 WHERE weaker = $1 AND stronger = $2
RETURNING weaker
"""

_WRITE_GRAPH = """
-- The graph of a flush: links, whose identities are whose, and rows of customers that became part of another.
WITH linked AS (
    INSERT INTO links (weaker, stronger, kind, occurred_at, message_id, source, joined)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[], $5::text[], $6::text[], $7::bool[])
    ON CONFLICT (weaker, stronger) DO UPDATE
    SET occurred_at = excluded.occurred_at, message_id = excluded.message_id, source = excluded.source,
        joined = excluded.joined
),
moved AS (
    UPDATE identities i SET customer_id = m.customer_id, carried = m.carried
    FROM unnest($8::uuid[], $9::uuid[], $10::bool[]) AS m (id, customer_id, carried)
    WHERE i.id = m.id
),
-- A customer that was taken over whole keeps its history under its new id.
adopted AS (
    UPDATE transitions t SET customer_id = a.now
    FROM unnest($11::uuid[], $12::uuid[]) AS a (before, now)
    WHERE t.customer_id = a.before AND t.retracted_at IS NULL
)
DELETE FROM customers WHERE id = ANY($13::uuid[])
"""


async def _write_graph(connection: Connection, resolution: Resolution) -> None:
    adopted = [
        (customer.origins[0].id, customer.id)
        for customer in resolution.customers.values()
        if len(customer.origins) == 1 and customer.whole and customer.origins[0].id != customer.id
    ]
    if not (resolution.links or resolution.moved or resolution.gone or adopted):
        return
    links, moved = resolution.links, resolution.moved
    await connection.execute(
        _WRITE_GRAPH,
        [link.weaker for link in links],
        [link.stronger for link in links],
        [link.kind for link in links],
        [link.order[0] for link in links],
        [link.order[1] for link in links],
        [link.order[2] for link in links],
        [link.joined for link in links],
        [node.id for node in moved],
        [node.customer for node in moved],
        [node.carried for node in moved],
        [before for before, _ in adopted],
        [now for _, now in adopted],
        resolution.gone,
    )


_WRITE_CUSTOMERS = """
-- The states of a flush and the intervals that begin, end or never were.
WITH begun AS (
    INSERT INTO transitions (customer_id, definition, value, version, entered_at, entered_cause, left_at, left_cause,
                             entered_recorded_at, left_recorded_at)
    SELECT customer_id, definition, value, version, entered_at, entered_cause, left_at, left_cause,
           $1::timestamptz, CASE WHEN left_at IS NOT NULL THEN $1::timestamptz END
    FROM unnest($2::uuid[], $3::text[], $4::text[], $5::int[], $6::timestamptz[], $7::jsonb[], $8::timestamptz[],
                $9::jsonb[])
         AS b (customer_id, definition, value, version, entered_at, entered_cause, left_at, left_cause)
),
ended AS (
    UPDATE transitions t
    SET left_at = e.left_at, left_cause = e.left_cause,
        left_recorded_at = CASE WHEN e.left_at IS NOT NULL THEN $1::timestamptz END,
        retracted_at = CASE WHEN e.retracted THEN $1::timestamptz END
    FROM unnest($10::uuid[], $11::text[], $12::text[], $13::timestamptz[], $14::timestamptz[], $15::jsonb[],
                $16::bool[])
         AS e (customer_id, definition, value, entered_at, left_at, left_cause, retracted)
    WHERE t.customer_id = e.customer_id AND t.definition = e.definition AND t.value = e.value
      AND t.entered_at = e.entered_at AND t.retracted_at IS NULL
)
INSERT INTO customers AS c (id, state, flips_at, sweep_at, revision, stale, contested, last_link_at)
SELECT id, state, flips_at, sweep_at, revision, stale, contested, last_link_at
FROM unnest($17::uuid[], $18::text[], $19::timestamptz[], $20::timestamptz[], $21::bigint[], $22::bool[], $23::bool[],
            $24::timestamptz[])
     AS u (id, state, flips_at, sweep_at, revision, stale, contested, last_link_at)
ON CONFLICT (id) DO UPDATE
SET state = excluded.state, flips_at = excluded.flips_at, sweep_at = excluded.sweep_at,
    revision = excluded.revision, stale = excluded.stale, contested = excluded.contested,
    last_link_at = excluded.last_link_at
"""


async def _write_customers(
    connection: Connection, carried: Sequence[_Carried], writes: IntervalWrites, now: int
) -> None:
    flips = [None if customer.stale else flips_at(customer.state) for customer in carried]
    begun, ended, retracted = writes.begun, writes.ended, writes.retracted
    await connection.execute(
        _WRITE_CUSTOMERS,
        now,
        [interval.customer for interval in begun],
        [interval.definition for interval in begun],
        [interval.value for interval in begun],
        [interval.version for interval in begun],
        [interval.entered_at for interval in begun],
        [_encode_cause(interval.entered_cause) for interval in begun],
        [interval.left_at for interval in begun],
        [None if interval.left_cause is None else _encode_cause(interval.left_cause) for interval in begun],
        [interval.customer for interval in ended] + [key[0] for key in retracted],
        [interval.definition for interval in ended] + [key[1] for key in retracted],
        [interval.value for interval in ended] + [key[2] for key in retracted],
        [interval.entered_at for interval in ended] + [key[3] for key in retracted],
        [interval.left_at for interval in ended] + [None] * len(retracted),
        [None if interval.left_cause is None else _encode_cause(interval.left_cause) for interval in ended]
        + [None] * len(retracted),
        [False] * len(ended) + [True] * len(retracted),
        [customer.customer.id for customer in carried],
        [customer.text for customer in carried],
        flips,
        [_sweep_at(customer, flip, now) for customer, flip in zip(carried, flips, strict=True)],
        [customer.revision for customer in carried],
        [customer.stale for customer in carried],
        [customer.customer.contested for customer in carried],
        [customer.customer.last_link_at for customer in carried],
    )


def _sweep_at(carried: _Carried, flips: int | None, now: int) -> int | None:
    """Left where it is while it is early enough: an unchanged indexed column keeps the update HOT.

    The price is a visit of the sweeper that finds nothing due and moves it then.
    """
    if carried.stale:
        return SWEEP_NOW
    before = min(
        (row.sweep_at for row in carried.customer.origins if row.sweep_at is not None and row.sweep_at > now),
        default=None,
    )
    if flips is None:
        return before
    return flips if before is None or flips < before else before
