"""Points of long series outside the customer's state: loads them for the fold, and writes their table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from app.postgres.pool import Connection, Pool
from app.projection.fold import EVALUATIONS_UNLIMITED, Transition
from app.projection.state import Input, State, read_state
from app.projection.state_limits import PointMoves
from app.projection.time_slices import TimeSlices, fold_in_slices
from app.rules.engine.point_series import OlderPoints, Point
from app.rules.engine.ruleset import Ruleset
from app.rules.engine.sliding_window import NeedsOlderPoints

_ROWS_AT_FIRST: Final = 2
"""Number of rows that the first load reads for each leaf, if few messages arrive. Every further load reads twice as
many."""

_POINTS_PER_ROW: Final = 256
"""Approximate number of points in a row."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Point]).decode

_LOAD = """
-- The next older points of some leaves of a customer, from a position on.
SELECT n.leaf, p.position, p.points
FROM unnest($2::text[], $3::bigint[], $4::int[]) AS n (leaf, from_position, rows_max)
CROSS JOIN LATERAL (
    SELECT position, points FROM older_points
    WHERE customer_id = $1 AND leaf = n.leaf AND end_position > n.from_position
    ORDER BY position LIMIT n.rows_max
) AS p
ORDER BY n.leaf, p.position
"""

_DELETE_UNNEEDED = """
DELETE FROM older_points p
USING unnest($1::uuid[], $2::text[], $3::bigint[]) AS u (customer_id, leaf, position)
WHERE p.customer_id = u.customer_id AND p.leaf = u.leaf AND p.end_position <= u.position
"""

_DELETE_REPLACED = """
DELETE FROM older_points p
USING unnest($1::uuid[], $2::bool[]) AS c (customer_id, replaces_all)
WHERE p.customer_id = c.customer_id
  AND p.position >= coalesce((SELECT r.position FROM unnest($3::uuid[], $4::text[], $5::bigint[])
                                                     AS r (customer_id, leaf, position)
                              WHERE r.customer_id = p.customer_id AND r.leaf = p.leaf),
                             CASE WHEN c.replaces_all THEN 0 END)
"""

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
    evaluations_max: int = EVALUATIONS_UNLIMITED,
) -> tuple[State, list[Transition]]:
    """Fold a stored state to ``now``, and load the older points that its windows move over.

    Without ``rewinds``, all windows are at ``now`` afterwards, so computed traits need no more points. Such a state
    must not be stored; see :func:`app.projection.fold.fold`.

    Raises:
        NeedsReplay: See :func:`app.projection.fold.fold`.
        TooManyEvaluations: The fold evaluates more than ``evaluations_max`` rules.
    """
    state = read_state(stored, ruleset)
    # Windows move over about as many points as arrive, and a fold that lacks points starts again.
    rows_at_first = _ROWS_AT_FIRST + len(inputs) // _POINTS_PER_ROW * 2
    rows_max: dict[str, int] = {}
    older_points: dict[str, list[OlderPoints]] = {}
    needed = first_positions = _find_needed_positions(state, ruleset, now)
    while True:
        if needed:
            rows_max |= {leaf_id: 2 * rows_max.get(leaf_id, rows_at_first // 2) for leaf_id in needed}
            older_points |= await _load(connection, customer_id, needed, rows_max)
        state.older_points = older_points
        try:
            changes = await fold_in_slices(
                state, ruleset, inputs, now, slices, points_max, rewinds=rewinds, evaluations_max=evaluations_max
            )
            if not rewinds:
                _advance_windows(state, ruleset, now)
        except NeedsOlderPoints as error:
            leaf_id = error.leaf_id
            if leaf_id in older_points and len(older_points[leaf_id]) < rows_max[leaf_id]:
                raise  # The table lacks the points, so only a replay helps.
            first_positions[leaf_id] = min(error.position, first_positions.get(leaf_id, error.position))
            needed = {leaf_id: first_positions[leaf_id]}
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
    connection: Connection | Pool, customer_id: bytes, needed: Mapping[str, int], rows_max: Mapping[str, int]
) -> dict[str, list[OlderPoints]]:
    older_points: dict[str, list[OlderPoints]] = {leaf_id: [] for leaf_id in needed}
    limits = [rows_max[leaf_id] for leaf_id in needed]
    for row in await connection.fetch(_LOAD, customer_id, list(needed), list(needed.values()), limits):
        older_points[row["leaf"]].append(OlderPoints(row["position"], _decode(row["points"])))
    return older_points


async def delete_unneeded_points(
    connection: Connection, customer_id: bytes, first_positions: Mapping[str, int]
) -> None:
    """Delete the customer's points before the given position of each leaf."""
    if first_positions:
        ids = [customer_id] * len(first_positions)
        await connection.execute(_DELETE_UNNEEDED, ids, list(first_positions), list(first_positions.values()))


async def move_older_points(connection: Connection, moves_of: Sequence[tuple[bytes, PointMoves]]) -> None:
    """Write the points that were moved out of the states of these customers, and delete those that they replace."""
    replacing = [(id, moves) for id, moves in moves_of if moves.replaces_all or moves.replaced]
    if replacing:
        replaced = [(id, leaf, position) for id, moves in replacing for leaf, position in moves.replaced.items()]
        await connection.execute(
            _DELETE_REPLACED,
            [id for id, _ in replacing],
            [moves.replaces_all for _, moves in replacing],
            *(map(list, zip(*replaced, strict=True)) if replaced else ([], [], [])),
        )
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
