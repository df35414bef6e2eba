"""Scan of all customers in bounded chunks, for analyses that must read every customer."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final

import msgspec

from app.postgres.pool import Connection, Pool
from app.projection.coverage import BEFORE_NUMBERS
from app.projection.log_replay import ReplayedCustomer, replay_log
from app.projection.partial_replay import replay_for_rules
from app.projection.state import State, count_messages, first_seen_of
from app.queries.customer_state import sort_identities
from app.rules.engine.ruleset import Ruleset
from app.touchpoint import Identity

CHUNK_CUSTOMERS: Final = 200
_BATCH_MESSAGES_MAX: Final = 20_000

_FIRST: Final = bytes(16)
_LAST: Final = b"\xff" * 16

_IDS = "SELECT id FROM customers WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $3"

_STATES = "SELECT id, state, revision, stale FROM customers WHERE id = ANY($1::uuid[])"

_COUNT = "SELECT count(*) FROM customers"

_IDENTITIES = """
SELECT customer_id, array_agg(kind) AS kinds, array_agg(value) AS values
FROM identities WHERE customer_id = ANY($1::uuid[]) GROUP BY customer_id
"""


class LabelledCustomer(msgspec.Struct, frozen=True):
    """A customer of a sample, with its identities."""

    id: bytes
    identities: list[Identity]


async def count_customers(connection: Connection | Pool) -> int:
    count: int = await connection.fetchval(_COUNT)
    return count


async def scan_customers(connection: Connection | Pool, chunk: int = CHUNK_CUSTOMERS) -> AsyncIterator[list[bytes]]:
    """Yield the ids of all customers in chunks, from a random id to the last and then from the first.

    Ids are hashes, so the first chunks are a fair sample. Live requests run between two chunks.
    """
    start = secrets.token_bytes(16)
    for after, last in ((start, _LAST), (_FIRST, start)):
        while ids := [row["id"] for row in await connection.fetch(_IDS, after, last, chunk)]:
            yield ids
            after = ids[-1]
            await asyncio.sleep(0)


async def fold_customers(
    connection: Connection, ids: Sequence[bytes], ruleset: Ruleset, now: int
) -> dict[bytes, ReplayedCustomer]:
    """Fold each customer up to ``now``, from the part of the log that the rules of ``ruleset`` read.

    The stored state contains the instant of the first message. If the state is stale or was written before rules had
    numbers, the whole log is read. Customers with long histories are read in batches, which bounds the memory.
    """
    folded: dict[bytes, ReplayedCustomer] = {}
    for rows in _split_by_messages(await connection.fetch(_STATES, ids)):
        folded |= await _fold_batch(connection, rows, ruleset, now)
    return {id: folded.get(id) or ReplayedCustomer(State(), []) for id in ids}


def _split_by_messages(rows: Sequence[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    messages = 0
    for row in rows:
        messages += count_messages(row["state"])
        if batch and messages > _BATCH_MESSAGES_MAX:
            yield batch
            batch, messages = [], count_messages(row["state"])
        batch.append(row)
    if batch:
        yield batch


async def _fold_batch(
    connection: Connection, rows: Sequence[Any], ruleset: Ruleset, now: int
) -> dict[bytes, ReplayedCustomer]:
    first_seen = {
        row["id"]: first_seen_of(row["state"]) for row in rows if not row["stale"] and row["revision"] != BEFORE_NUMBERS
    }
    replayed, _ = await replay_for_rules(connection, first_seen, ruleset, now)
    if unreadable_ids := [row["id"] for row in rows if first_seen.get(row["id"]) is None]:
        replayed |= await replay_log(connection, unreadable_ids, ruleset, now)
    return replayed


async def label_customers(connection: Connection, ids: Sequence[bytes]) -> list[LabelledCustomer]:
    """Return the customers with their identities, in the order of ``ids``."""
    rows = {row["customer_id"]: row for row in await connection.fetch(_IDENTITIES, ids)}
    return [LabelledCustomer(id, sort_identities(rows[id]["kinds"], rows[id]["values"])) for id in ids]
