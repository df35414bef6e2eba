"""Replay: computes customers by folding their whole log.

A replay repairs any stored state. Reads also use it if no stored state is usable.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, Final

import msgspec

from app.identity.bucketing_key import bucketing_keys_of
from app.postgres.pool import Connection
from app.projection.fold import POINTS_UNLIMITED, Transition, fold
from app.projection.state import Input, State
from app.rules.engine.ruleset import LeafValues, Ruleset
from app.rules.engine.touchpoint_view import TouchpointView
from app.touchpoint import Message

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

_CHUNK_ROWS: Final = 2_000
_LONG_MESSAGES: Final = 300


class ReplayedCustomer(msgspec.Struct):
    state: State
    changes: list[Transition]


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
    async for row in connection.cursor(_LOG, customer_ids, prefetch=_CHUNK_ROWS):
        customer, *columns = row
        yield customer, build_input(ruleset, *columns)


async def replay_log(
    connection: Connection, customer_ids: Sequence[bytes], ruleset: Ruleset, now: int
) -> dict[bytes, ReplayedCustomer]:
    """Fold the whole log of each customer up to ``now``. A customer without messages is missing from the result.

    Requires a transaction, because a cursor reads the log.
    """
    keys = await bucketing_keys_of(connection, customer_ids) if ruleset.reads_bucketing_key else {}
    replayed: dict[bytes, ReplayedCustomer] = {}
    inputs: list[Input] = []
    current: bytes | None = None

    async def fold_chunk() -> None:
        if current is None or not inputs:
            return
        customer_replay = replayed.setdefault(current, ReplayedCustomer(State(bucketing_key=keys.get(current)), []))
        work = partial(fold, customer_replay.state, ruleset, inputs, _last_instant(inputs, now), POINTS_UNLIMITED)
        # Fold a long history in a thread, because live requests share this event loop.
        customer_replay.changes += await asyncio.to_thread(work) if len(inputs) > _LONG_MESSAGES else work()
        inputs.clear()

    async for customer, input in read_log(connection, customer_ids, ruleset):
        # A chunk ends only between two instants, because a fold must apply all messages of one instant together.
        if customer != current or (len(inputs) >= _CHUNK_ROWS and input.at != inputs[-1].at):
            await fold_chunk()
            current = customer
        inputs.append(input)
    await fold_chunk()
    for customer_replay in replayed.values():
        customer_replay.changes += fold(customer_replay.state, ruleset, (), now, POINTS_UNLIMITED)
    return replayed


def _last_instant(inputs: Iterable[Input], now: int) -> int:
    """Return the instant to which a chunk is folded: its last message, because the next chunk may follow closely."""
    return min(now, max(input.at for input in inputs))


async def read_inputs(connection: Connection, customer_id: bytes, ruleset: Ruleset) -> list[Input]:
    return [input async for _, input in read_log(connection, [customer_id], ruleset)]
