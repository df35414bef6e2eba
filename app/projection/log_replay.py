"""Replay: computes customers by folding their whole log.

A replay repairs any stored state. Reads also use it if no stored state is usable.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec

from app.identity.bucketing_key import BucketingKey, bucketing_key_of, bucketing_keys_of
from app.postgres.pool import Connection
from app.projection.fold import EVALUATIONS_UNLIMITED, TooManyEvaluations, Transition
from app.projection.state import Input, State
from app.projection.time_slices import TimeSlices, fold_in_slices
from app.rules.engine.ruleset import LeafValues, Ruleset
from app.rules.engine.touchpoint_view import TouchpointView
from app.touchpoint import Message

MESSAGES_UNLIMITED: Final = 10**12

TOUCHPOINT_TYPES: Final = frozenset(("track", "page", "screen"))

_decode_traits = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode

_LOG = """
-- The log of these customers over all their identities, in the order of the fold.
SELECT i.customer_id, t.occurred_at, t.message_id, t.source, t.type, t.name, t.channel,
       t.properties, t.context, t.traits
FROM identities i
JOIN touchpoints t ON t.identity_id = i.id
WHERE i.customer_id = ANY($1::uuid[])
ORDER BY i.customer_id, t.occurred_at, t.message_id COLLATE "C", t.source COLLATE "C"
"""

_LOG_OF_IDENTITIES = """
-- The log of these identities, in the order of the fold; index touchpoints_of_identity.
SELECT NULL, occurred_at, message_id, source, type, name, channel, properties, context, traits
FROM touchpoints WHERE identity_id = ANY($1::uuid[])
ORDER BY occurred_at, message_id COLLATE "C", source COLLATE "C"
"""

_LOG_AFTER = """
-- The next messages of a customer after an instant and up to another one, as whole instants; about $4 messages.
SELECT t.occurred_at, t.message_id, t.source, t.type, t.name, t.channel, t.properties, t.context, t.traits
FROM identities i
JOIN touchpoints t ON t.identity_id = i.id
WHERE i.customer_id = $1
  AND ($2::timestamptz IS NULL OR t.occurred_at > $2) AND ($3::timestamptz IS NULL OR t.occurred_at <= $3)
ORDER BY t.occurred_at FETCH FIRST ($4) ROWS WITH TIES
"""

_COUNT_UNTIL = """
SELECT count(*) FROM identities i JOIN touchpoints t ON t.identity_id = i.id
WHERE i.customer_id = $1 AND ($2::timestamptz IS NULL OR t.occurred_at <= $2)
"""

_HAS_MORE = """
SELECT EXISTS (SELECT FROM touchpoints WHERE identity_id = ANY($1::uuid[]) OFFSET $2)
"""

_CHUNK_ROWS: Final = 500
_ONE_CUSTOMER: Final = b""


class ReplayedCustomer(msgspec.Struct):
    state: State
    changes: list[Transition]
    is_complete: bool = True
    """False if the replay ended at its limit of evaluations, so the state is unusable."""


def input_from_message(message: Message, ruleset: Ruleset) -> Input:
    return build_input(
        ruleset,
        message.occurred_at,
        message.message_id,
        message.source,
        message.type,
        message.name,
        message.channel,
        message.properties,
        message.context,
        message.traits,
    )


def build_input(
    ruleset: Ruleset,
    occurred_at: int,
    message_id: str,
    source: str,
    type: str,
    name: str | None,
    channel: str,
    properties: bytes,
    context: bytes,
    traits: bytes | None,
) -> Input:
    """Reduce a message to the leaves that it matches and the traits that it sets.

    Messages of the types identify, group and alias are not touchpoints and match no leaf.
    """
    leaves: tuple[str, ...] = ()
    leaf_values: LeafValues | None = None
    if type in TOUCHPOINT_TYPES and name is not None:
        touchpoint = TouchpointView(name, channel, source, occurred_at, properties, context, traits or b"{}")
        leaves, leaf_values = ruleset.match_touchpoint(touchpoint)
    trait_changes = _decode_traits(traits) if type == "identify" and traits is not None else None
    return Input(occurred_at, message_id, source, leaves, trait_changes or None, leaf_values)


async def read_log(
    connection: Connection, customer_ids: Sequence[bytes], ruleset: Ruleset
) -> AsyncIterator[tuple[bytes, Input]]:
    """Yield (customer id, input) in order, customer by customer, with a bounded number of rows in memory."""
    slices = TimeSlices()
    async for row in connection.cursor(_LOG, customer_ids, prefetch=_CHUNK_ROWS):
        customer, *columns = row
        yield customer, build_input(ruleset, *columns)
        await slices.give_way_if_due()


async def _read_log_of_identities(
    connection: Connection, identity_ids: Sequence[bytes], ruleset: Ruleset
) -> AsyncIterator[tuple[bytes, Input]]:
    async for row in connection.cursor(_LOG_OF_IDENTITIES, identity_ids, prefetch=_CHUNK_ROWS):
        _, *columns = row
        yield _ONE_CUSTOMER, build_input(ruleset, *columns)


async def replay_log(
    connection: Connection,
    customer_ids: Sequence[bytes],
    ruleset: Ruleset,
    now: int,
    *,
    rewinds: bool = False,
    evaluations_max: int = EVALUATIONS_UNLIMITED,
) -> dict[bytes, ReplayedCustomer]:
    """Fold the whole log of each customer up to ``now``. A customer without messages is missing from the result.

    States that will be stored require ``rewinds``; see :func:`app.projection.fold.fold`. The replay of a customer ends
    early after ``evaluations_max`` evaluations of rules.

    Requires a transaction, because a cursor reads the log.
    """
    keys = await bucketing_keys_of(connection, customer_ids) if ruleset.reads_bucketing_key else {}
    log = read_log(connection, customer_ids, ruleset)
    return await _fold_log(log, keys, ruleset, now, rewinds=rewinds, evaluations_max=evaluations_max)


async def replay_identities(
    connection: Connection, identity_ids: Sequence[bytes], ruleset: Ruleset, now: int, messages_max: int | None
) -> State | None:
    """Fold the log of these identities, as if they were a whole customer, up to ``now``.

    Return None if the log has no message of them, or more than ``messages_max``. Requires a transaction.
    """
    if messages_max is not None and await connection.fetchval(_HAS_MORE, identity_ids, messages_max):
        return None
    keys = {}
    if ruleset.reads_bucketing_key and (key := await bucketing_key_of(connection, identity_ids)) is not None:
        keys[_ONE_CUSTOMER] = key
    log = _read_log_of_identities(connection, identity_ids, ruleset)
    replayed = await _fold_log(log, keys, ruleset, now, rewinds=False)
    return replayed[_ONE_CUSTOMER].state if replayed else None


async def _fold_log(
    log: AsyncIterator[tuple[bytes, Input]],
    keys: Mapping[bytes, BucketingKey],
    ruleset: Ruleset,
    now: int,
    *,
    rewinds: bool,
    evaluations_max: int = EVALUATIONS_UNLIMITED,
) -> dict[bytes, ReplayedCustomer]:
    replayed: dict[bytes, ReplayedCustomer] = {}
    slices = TimeSlices()
    inputs: list[Input] = []
    current: bytes | None = None

    async def fold_chunk() -> None:
        if current is None or not inputs:
            return
        customer_replay = replayed.setdefault(current, ReplayedCustomer(State(bucketing_key=keys.get(current)), []))
        # The next chunk may follow closely, so a chunk is folded only up to its last message.
        await fold_part(customer_replay, inputs, min(now, inputs[-1].at))
        inputs.clear()

    async def fold_part(customer_replay: ReplayedCustomer, part: Sequence[Input], until: int) -> None:
        if not customer_replay.is_complete:
            return
        try:
            customer_replay.changes += await fold_in_slices(
                customer_replay.state, ruleset, part, until, slices, rewinds=rewinds, evaluations_max=evaluations_max
            )
        except TooManyEvaluations:
            customer_replay.is_complete = False

    async for customer, input in log:
        # A chunk ends only between two instants, because a fold must apply all messages of one instant together.
        if customer != current or (len(inputs) >= _CHUNK_ROWS and input.at != inputs[-1].at):
            await fold_chunk()
            current = customer
        inputs.append(input)
    await fold_chunk()
    for customer_replay in replayed.values():
        await fold_part(customer_replay, (), now)
    return replayed


async def read_inputs_after(
    connection: Connection,
    customer_id: bytes,
    ruleset: Ruleset,
    after: int | None,
    until: int | None = None,
    messages_max: int = MESSAGES_UNLIMITED,
) -> list[Input]:
    """Return the customer's inputs after an instant and up to ``until``, as whole instants in order.

    If there are more than ``messages_max``, the result ends with the instant that contains the last of these.
    """
    slices = TimeSlices()
    inputs: list[Input] = []
    for row in await connection.fetch(_LOG_AFTER, customer_id, after, until, messages_max):
        inputs.append(build_input(ruleset, *row))
        await slices.give_way_if_due()
    return inputs


async def count_messages_until(connection: Connection, customer_id: bytes, until: int | None) -> int:
    """Return the number of the customer's messages in the log up to this instant, or of all for None."""
    count: int = await connection.fetchval(_COUNT_UNTIL, customer_id, until)
    return count


async def read_inputs(connection: Connection, customer_id: bytes, ruleset: Ruleset) -> list[Input]:
    return [input async for _, input in read_log(connection, [customer_id], ruleset)]
