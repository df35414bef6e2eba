"""Checkpoints: earlier states of customers with long histories, from which a replay continues.

A message that is not later than the last evaluation of rules needs a replay. From a checkpoint, the replay reads only
the messages after it. A checkpoint is the fold of all the customer's messages up to its instant, and contains no later
one. So a transaction that stores an earlier message, or changes the customer's identities, deletes the checkpoints that
become wrong. All of this module requires the lock of the customer's row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from app.postgres.pool import Connection
from app.projection.state import State, count_messages, write_state
from app.rules.engine.ruleset import Ruleset

CHECKPOINT_MESSAGES: Final = 256
"""Number of messages after which a customer gets the next checkpoint. A shorter history has no checkpoint."""

AGE_MAX: Final = 32
"""Age in numbers at which a checkpoint is deleted. Its points outside the state must stay that long."""


class Checkpoint(msgspec.Struct, frozen=True):
    """One row of ``checkpoints``. ``state`` is a stored state without future messages, complete for ``revision``.

    ``at`` is the instant up to which the state contains the log. ``number`` is its number of messages divided by
    :data:`CHECKPOINT_MESSAGES`.
    """

    customer_id: bytes
    number: int
    at: int
    revision: int
    state: bytes

    @property
    def messages(self) -> int:
        return count_messages(self.state)


def number_of(messages: int) -> int:
    """Return the number of the latest checkpoint of a customer with this many messages; 0 means that none is due."""
    return messages // CHECKPOINT_MESSAGES


def build_checkpoint(customer_id: bytes, at: int, revision: int, state: State, ruleset: Ruleset) -> Checkpoint | None:
    """Return a checkpoint of a state that contains all messages up to ``at``; None if no replay can continue it.

    A replay reads future messages from the log again.
    """
    if state.is_truncated or state.born is None:
        return None
    past = msgspec.structs.replace(state, pending=[], messages=state.messages - len(state.pending))
    return Checkpoint(customer_id, number_of(past.messages), at, revision, write_state(past, ruleset))


_FIND = """
-- The latest checkpoint of each customer that is early enough and complete enough; index checkpoints_pkey.
SELECT DISTINCT ON (c.customer_id) c.customer_id, c.number, c.at, c.revision, c.state
FROM unnest($1::uuid[], $2::timestamptz[], $3::bigint[]) AS w (customer_id, before, revision)
JOIN checkpoints c ON c.customer_id = w.customer_id AND c.revision >= w.revision
WHERE w.before IS NULL OR c.at < w.before
ORDER BY c.customer_id, c.number DESC
"""

_DELETE = """
DELETE FROM checkpoints c USING unnest($1::uuid[], $2::timestamptz[]) AS u (customer_id, from_at)
WHERE c.customer_id = u.customer_id AND (u.from_at IS NULL OR c.at >= u.from_at)
"""

_NUMBERS = "SELECT number FROM checkpoints WHERE customer_id = $1 AND revision <= $2 AND number < $3 ORDER BY number"

_WRITE = """
-- Writes a checkpoint, deletes those that became too old or too many, and returns the oldest one that is left.
WITH surplus AS (
    DELETE FROM checkpoints WHERE customer_id = $1 AND number = ANY($6::bigint[])
),
written AS (
    INSERT INTO checkpoints AS c (customer_id, number, at, revision, state) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (customer_id, number) DO UPDATE
    SET at = excluded.at, revision = excluded.revision, state = excluded.state
)
SELECT state FROM checkpoints
WHERE customer_id = $1 AND number <> ALL($6::bigint[]) AND number < $2 ORDER BY number LIMIT 1
"""

_FOLLOW_MERGES = """
-- Moves the checkpoints of customers that move as a whole to a new id, and deletes those of all other merged customers.
WITH adopted AS (
    UPDATE checkpoints c SET customer_id = a.customer_id
    FROM unnest($1::uuid[], $2::uuid[]) AS a (former_id, customer_id)
    WHERE c.customer_id = a.former_id
)
DELETE FROM checkpoints WHERE customer_id = ANY($3::uuid[]) AND NOT customer_id = ANY($1::uuid[])
"""


async def find_checkpoints(
    connection: Connection, requests: Sequence[tuple[bytes, int | None, int]]
) -> dict[bytes, Checkpoint]:
    """Return a checkpoint for each (customer id, instant, revision) that has one before the instant.

    ``None`` as instant selects the latest. A checkpoint of a higher revision contains the rules of a lower one.
    """
    rows = await connection.fetch(_FIND, *_columns(requests, 3)) if requests else []
    return {row["customer_id"]: Checkpoint(*row) for row in rows}


async def delete_checkpoints(connection: Connection, outdated: Iterable[tuple[bytes, int | None]]) -> None:
    """Delete the checkpoints of each (customer id, instant) from this instant on, or all if the instant is None."""
    pairs = list(outdated)
    if pairs:
        await connection.execute(_DELETE, *_columns(pairs, 2))


async def write_checkpoint(connection: Connection, checkpoint: Checkpoint) -> bytes:
    """Write a checkpoint and delete surplus ones; return the state of the oldest one that is left."""
    id, number, at, revision, state = msgspec.structs.astuple(checkpoint)
    numbers = [row["number"] for row in await connection.fetch(_NUMBERS, id, revision, number)]
    surplus = find_surplus(numbers, number)
    oldest: bytes | None = await connection.fetchval(_WRITE, id, number, at, revision, state, surplus)
    return state if oldest is None else oldest


def find_surplus(numbers: Sequence[int], newest: int) -> list[int]:
    """Return the numbers of checkpoints that are no longer needed beside ``newest``; ``numbers`` ascend.

    A checkpoint goes if the next older one is at most twice as old as the next newer one. So a replay reads at most
    about twice as many messages as arrived since the instant that it must reach back to.
    """
    ages = [newest - number for number in reversed(numbers)]
    surplus: list[int] = []
    newer_age = 0
    for age, older_age in zip(ages, [*ages[1:], AGE_MAX], strict=False):
        if age >= AGE_MAX or (older_age < AGE_MAX and older_age <= 2 * newer_age):
            surplus.append(newest - age)
        else:
            newer_age = age
    return surplus


async def follow_merges(
    connection: Connection, adopted: Sequence[tuple[bytes, bytes]], merged_customers: Sequence[bytes]
) -> None:
    """Move the checkpoints of each (former id, new id), and delete those of the other merged customers."""
    await connection.execute(_FOLLOW_MERGES, *_columns(adopted, 2), merged_customers)


def _columns(rows: Sequence[tuple[object, ...]], width: int) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]
