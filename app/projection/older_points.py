"""Points of long series outside the customer's state: loads them for the fold, and writes their table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from app.postgres.pool import Connection, Pool
from app.projection.fold import Transition
from app.projection.state import Input, State, read_state
from app.projection.state_limits import PointMoves
from app.projection.time_slices import TimeSlices, fold_in_slices
from app.rules.engine.point_series import OlderPoints, Point
from app.rules.engine.ruleset import Ruleset
from app.rules.engine.sliding_window import NeedsOlderPoints
from app.rules.engine.window import INFINITE

_ROWS_AT_FIRST: Final = 2
"""Number of rows that the first load reads for each leaf. Every further load reads twice as many."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Point]).decode

_LOAD = """
-- The next older points of some leaves of a customer, from a position on.
SELECT n.leaf, p.position, p.points
FROM unnest($2::text[], $3::bigint[]) AS n (leaf, from_position)
CROSS JOIN LATERAL (
    SELECT position, points FROM older_points
    WHERE customer_id = $1 AND leaf = n.leaf AND end_position > n.from_position
    ORDER BY position LIMIT $4
) AS p
ORDER BY n.leaf, p.position
"""

_DELETE_UNNEEDED = """
DELETE FROM older_points p
USING unnest($1::uuid[], $2::text[], $3::bigint[]) AS u (customer_id, leaf, position)
WHERE p.customer_id = u.customer_id AND p.leaf = u.leaf AND p.end_position <= u.position
"""

_DELETE_ALL = "DELETE FROM older_points WHERE customer_id = ANY($1::uuid[])"

_FOLLOW_MERGES = """
-- Moves the points of customers that move as a whole to a new id, and deletes those of all other merged customers.
WITH adopted AS (
    UPDATE older_points p SET customer_id = a.customer_id
    FROM unnest($1::uuid[], $2::uuid[]) AS a (former_id, customer_id)
    WHERE p.customer_id = a.former_id
)
DELETE FROM older_points WHERE customer_id = ANY($3::uuid[]) AND NOT customer_id = ANY($1::uuid[])
"""

_INSERT = """
INSERT INTO older_points (customer_id, leaf, position, end_position, points)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::bytea[])
"""


async def fold_stored_state(
    connection: Connection | Pool,
    customer_id: bytes,
    stored: bytes,
    ruleset: Ruleset,
    inputs: Sequence[Input],
    now: int,
    points_max: int,
    slices: TimeSlices,
    *,
    rewinds: bool = False,
) -> tuple[State, list[Transition]]:
    """Fold a stored state to ``now``, and load the older points that its windows move over.

    Without ``rewinds``, all windows are at ``now`` afterwards, so computed traits need no more points. Such a state
    must not be stored; see :func:`app.projection.fold.fold`.

    Raises:
        NeedsReplay: See :func:`app.projection.fold.fold`.
    """
    state = read_state(stored, ruleset)
    rows_max = _ROWS_AT_FIRST
    older_points: dict[str, list[OlderPoints]] = {}
    needed = _find_needed_positions(state, ruleset, now)
    while True:
        if needed:
            older_points |= await _load(connection, customer_id, needed, rows_max)
        state.older_points = older_points
        try:
            changes = await fold_in_slices(state, ruleset, inputs, now, slices, points_max, rewinds=rewinds)
            if not rewinds:
                _advance_windows(state, ruleset, now)
        except NeedsOlderPoints as error:
            if error.leaf_id in older_points and len(older_points[error.leaf_id]) < rows_max:
                raise  # The table lacks the points, so only a replay helps.
            needed = {error.leaf_id: min(error.position, needed.get(error.leaf_id, error.position))}
            rows_max *= 2
            state = read_state(stored, ruleset)
        else:
            return state, changes


def _find_needed_positions(state: State, ruleset: Ruleset, now: int) -> dict[str, int]:
    """Return the leaves whose windows move over older points up to ``now``, with the first of their positions."""
    needed: dict[str, int] = {}
    for leaf_id, series in state.series.items():
        if series.point_series is None or series.point_series.older_start is None:
            continue
        for window in ruleset.sliding_windows_of(leaf_id):
            window_state = state.windows.get(window.key)
            if window_state is None:
                continue
            position = window_state.first if window_state.next_leave <= now else window_state.next_position
            if (window_state.next_edge or now) <= now and position < series.point_series.start:
                needed[leaf_id] = min(position, needed.get(leaf_id, position))
    return needed


def _advance_windows(state: State, ruleset: Ruleset, now: int) -> None:
    for leaf_id, series in state.series.items():
        if series.point_series is not None and series.point_series.is_long:
            for window in ruleset.sliding_windows_of(leaf_id):
                window.advance(state, now)


async def _load(
    connection: Connection | Pool, customer_id: bytes, needed: Mapping[str, int], rows_max: int
) -> dict[str, list[OlderPoints]]:
    older_points: dict[str, list[OlderPoints]] = {leaf_id: [] for leaf_id in needed}
    for row in await connection.fetch(_LOAD, customer_id, list(needed), list(needed.values()), rows_max):
        older_points[row["leaf"]].append(OlderPoints(row["position"], _decode(row["points"])))
    return older_points


async def move_older_points(connection: Connection, moves_of: Sequence[tuple[bytes, PointMoves]]) -> None:
    """Write the points that were moved out of the states of these customers, and delete those no longer needed."""
    replaced = [id for id, moves in moves_of if moves.replaces_all]
    if replaced:
        await connection.execute(_DELETE_ALL, replaced)
    unneeded = [(id, leaf, position) for id, moves in moves_of for leaf, position in moves.unneeded.items()]
    unneeded += [(id, leaf, INFINITE) for id, moves in moves_of for leaf in moves.replaced]
    if unneeded:
        await connection.execute(_DELETE_UNNEEDED, *map(list, zip(*unneeded, strict=True)))
    moved = [
        (id, leaf, older.position, older.position + len(older.points), _encode(older.points))
        for id, moves in moves_of
        for leaf, older in moves.moved
    ]
    if moved:
        await connection.execute(_INSERT, *map(list, zip(*moved, strict=True)))


async def follow_merges(
    connection: Connection, adopted: Sequence[tuple[bytes, bytes]], merged_customers: Sequence[bytes]
) -> None:
    """Move the points of each (former id, new id), and delete those of the other merged customers."""
    await connection.execute(
        _FOLLOW_MERGES, [former for former, _ in adopted], [new for _, new in adopted], merged_customers
    )
