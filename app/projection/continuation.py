"""Continuation: folds one customer further from a stored state, and writes the checkpoint that is due on the way.

The stored state is that of the customer's row, or an earlier one from a checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.postgres.pool import Connection
from app.projection.checkpoints import Checkpoint, build_checkpoint, number_of, write_checkpoint
from app.projection.fold import EVALUATIONS_UNLIMITED, POINTS_UNLIMITED, Transition
from app.projection.log_replay import read_inputs_after
from app.projection.older_points import delete_unneeded_points, fold_stored_state, move_older_points
from app.projection.state import Input, State, count_messages, first_positions, positions_in_state, write_state
from app.projection.state_limits import PointMoves, limit_pending, limit_replayed_state, split_long_series
from app.projection.time_slices import TimeSlices
from app.rules.engine.ruleset import Ruleset


class Continuation(msgspec.Struct):
    """The state of one customer at ``now``, with the changes since the stored state and the points to be moved."""

    state: State
    changes: list[Transition]
    moves: PointMoves


class StateFolder(msgspec.Struct, frozen=True):
    """Folds states of customers whose rows have one revision, in the caller's transaction.

    ``points_max`` and ``evaluations_max`` are those of :func:`app.projection.older_points.fold_stored_state`.
    """

    connection: Connection
    rules: Ruleset
    revision: int
    points_max: int
    evaluations_max: int = EVALUATIONS_UNLIMITED

    async def continue_row(self, id: bytes, stored: bytes, inputs: Sequence[Input], now: int) -> Continuation:
        """Fold the state of a customer's row over new messages.

        Raises:
            NeedsReplay: A message is too early, or the state lacks data.
            TooManyEvaluations: The fold reaches its limit.
        """
        return await self._continue(id, stored, inputs, now, PointMoves(), from_log=False)

    async def continue_checkpoint(self, id: bytes, checkpoint: Checkpoint, now: int) -> Continuation:
        """Fold a checkpoint over all later messages of the log; raise as :meth:`continue_row`."""
        inputs = await read_inputs_after(self.connection, id, self.rules, checkpoint.at)
        replaced = PointMoves(replaced=positions_in_state(checkpoint.state), replaces_all=True)
        return await self._continue(id, checkpoint.state, inputs, now, replaced, from_log=True)

    async def advance_checkpoint(self, id: bytes, stored: bytes, inputs: Sequence[Input], until: int) -> Continuation:
        """Fold a state over messages of the log up to ``until``, which includes the last one; write nothing."""
        state, changes = await self._fold(id, stored, inputs, until, from_log=True)
        moves = self._limit(state, PointMoves(replaced=positions_in_state(stored), replaces_all=True), from_log=True)
        return Continuation(state, changes, moves)

    async def _continue(
        self, id: bytes, stored: bytes, inputs: Sequence[Input], now: int, replaced: PointMoves, *, from_log: bool
    ) -> Continuation:
        changes: list[Transition] = []
        past = [input for input in inputs if input.at <= now]
        if number_of(count_messages(stored) + len(past)) > number_of(count_messages(stored)):
            until = max(input.at for input in past)
            state, past_changes = await self._fold(id, stored, past, until, from_log=from_log)
            moves = self._limit(state, replaced, from_log=from_log)
            checkpoint = build_checkpoint(id, until, self.revision, state, self.rules)
            if checkpoint is not None:
                await move_older_points(self.connection, [(id, moves)])
                await save_checkpoint(self.connection, checkpoint)
                stored, replaced, changes = write_state(state, self.rules), PointMoves(), past_changes
                inputs = [input for input in inputs if input.at > now]
        state, further_changes = await self._fold(id, stored, inputs, now, from_log=from_log)
        return Continuation(state, changes + further_changes, self._limit(state, replaced, from_log=from_log))

    async def _fold(
        self, id: bytes, stored: bytes, inputs: Sequence[Input], now: int, *, from_log: bool
    ) -> tuple[State, list[Transition]]:
        return await fold_stored_state(
            self.connection,
            id,
            stored,
            self.rules,
            inputs,
            now,
            POINTS_UNLIMITED if from_log else self.points_max,
            TimeSlices(),
            rewinds=True,
            evaluations_max=self.evaluations_max,
        )

    def _limit(self, state: State, replaced: PointMoves, *, from_log: bool) -> PointMoves:
        """Limit the size of a folded state in place."""
        if from_log:
            moves = limit_replayed_state(state, self.rules, self.points_max)
        else:
            moves = split_long_series(state, self.rules, self.points_max)
            limit_pending(state, self.points_max)
        return PointMoves(moves.moved, {**replaced.replaced, **moves.replaced}, replaced.replaces_all)


async def save_checkpoint(connection: Connection, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, and delete points that neither it nor an older one needs."""
    oldest = await write_checkpoint(connection, checkpoint)
    await delete_unneeded_points(connection, checkpoint.customer_id, first_positions(oldest))
