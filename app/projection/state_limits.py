"""Size limits of a stored state.

The state is written with every message, so it keeps only the latest points of a long series. The older points move to
the table ``older_points``, from which :mod:`app.projection.older_points` loads them when they leave a window. A series
that cannot be split is dropped, and the state is marked as truncated; the log contains everything.
"""

from __future__ import annotations

from typing import Final

import msgspec

from app.projection.state import State
from app.rules.engine.point_series import OlderPoints, PointSeries
from app.rules.engine.ruleset import Ruleset
from app.rules.engine.series import Series
from app.rules.engine.sliding_window import SlidingState

_MOVED_AT_ONCE: Final = 256
"""Size of the points that are moved out of a state together, in points. As many of the latest points always stay."""


_ENTRIES_PER_POINT: Final = 4
"""Size limit of a sliding window, in entries for each point of the size limit of a series."""


class PointMoves(msgspec.Struct):
    """Changes of the points of one customer that are outside the state.

    ``moved`` are new ones, with their leaf id. ``replaced`` maps a leaf id to the position from which its series was
    computed again, so the points that were stored from there on are deleted. With ``replaces_all``, the other leaves
    were computed again from their first point.
    """

    moved: list[tuple[str, OlderPoints]] = []
    replaced: dict[str, int] = {}
    replaces_all: bool = False


def split_long_series(state: State, ruleset: Ruleset, points_max: int) -> PointMoves:
    """Move points out of each long series, in place. Truncate the state if its sliding windows are too large.

    Raises:
        NeedsOlderPoints: A sliding window must move over points that are not in memory. The state is then unusable.
    """
    moves = PointMoves()
    windows: dict[str, SlidingState] = {}
    for leaf_id, series in state.series.items():
        if series.point_series is None or not series.point_series.is_long:
            continue
        if ruleset.leaves[leaf_id].keeps_points_in_state:
            continue
        leaf_windows = _move_points_of(leaf_id, series.point_series, state, ruleset, moves)
        if any(window.weight > _ENTRIES_PER_POINT * points_max for window in leaf_windows.values()):
            _truncate(state, series)
        else:
            windows |= leaf_windows
    state.windows = windows
    return moves


def limit_replayed_state(state: State, ruleset: Ruleset, points_max: int) -> PointMoves:
    """Limit the size of a state that was folded without a limit, in place."""
    moves = split_long_series(state, ruleset, points_max)
    for leaf_id, series in state.series.items():
        leaf, point_series = ruleset.leaves[leaf_id], series.point_series
        weight = 0 if point_series is None else leaf.limited_weight(point_series)
        if max(series.longest_length, weight) > points_max:
            _truncate(state, series)
    limit_pending(state, points_max)
    return moves


def limit_pending(state: State, points_max: int) -> None:
    """Drop future messages beyond ``points_max``."""
    if len(state.pending) > points_max:
        del state.pending[points_max:]
        state.is_truncated = True


def _truncate(state: State, series: Series) -> None:
    series.drop_instants()
    state.is_truncated = True


def _move_points_of(
    leaf_id: str, point_series: PointSeries, state: State, ruleset: Ruleset, moves: PointMoves
) -> dict[str, SlidingState]:
    """Move the points that exceed the limit, and return the states of the leaf's windows."""
    windows = ruleset.sliding_windows_of(leaf_id)
    # Later messages may be earlier than now, but not earlier than the last evaluation.
    states = {window.key: window.advance(state, state.at) for window in windows}
    end = point_series.start + len(point_series.points)
    first_needed = min((window.first_needed(state, states[window.key]) for window in windows), default=end)
    while point_series.points_weight > 2 * _MOVED_AT_ONCE:
        older = point_series.take_oldest(_MOVED_AT_ONCE)
        if older.position + len(older.points) > first_needed:
            moves.moved.append((leaf_id, older))
    if point_series.older_start is not None:
        point_series.older_start = min(max(point_series.older_start, first_needed), point_series.start)
        if point_series.older_start == point_series.start and not any(w.window.never_releases for w in windows):
            point_series.older_start = None
    return states
