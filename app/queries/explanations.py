"""Explanations: why a rule holds for a customer or not.

An explanation folds the customer's whole log without size limits, and tracks the truth of every node of the rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import msgspec

from app.identity.bucketing_key import bucketing_keys_of
from app.postgres.pool import Connection
from app.projection.fold import POINTS_UNLIMITED, fold
from app.projection.log_replay import read_inputs
from app.projection.state import State
from app.projection.time_slices import TimeSlices, fold_in_slices
from app.queries.customer_state import CurrentStage, current_stage_of, truth_of, valid_until
from app.rules.engine.json_equality import digest_value
from app.rules.engine.ruleset import Ruleset


class Explanation(msgspec.Struct):
    """Explanation of a rule: ``tree`` as in :mod:`app.rules.engine.explanation`, instants in microseconds."""

    holds: bool
    since: int | None
    valid_until: int | None
    tree: dict[str, Any]


class ExplainedReplay(msgspec.Struct):
    """A customer's log, folded up to ``now``, with the (instant, message id) pairs that matched each leaf."""

    state: State
    ruleset: Ruleset
    messages: dict[str, list[tuple[int, str]]]
    now: int

    def explain_rule(self, rule_id: str) -> Explanation:
        truth = truth_of(self.state, self.ruleset, rule_id)
        tree = self.ruleset.explain_rule(rule_id, self.state, self.now, lambda leaf: self.messages.get(leaf, []))
        if self.state.born is None:
            _mark_never_true(tree)
        self._limit_tree_by_future(rule_id, tree)
        since = None if self.state.born is None else truth.since
        return Explanation(truth.holds, since, tree["valid_until"], tree)

    def explain_value(self, key: str) -> dict[str, Any]:
        """Explain a computed trait as :func:`app.rules.engine.explanation.explain_value` does.

        Before the customer's first message the trait has no value.
        """
        explanation = self.ruleset.explain_value(key, self.state, self.now, lambda leaf: self.messages.get(leaf, []))
        if self.state.born is None:
            explanation |= {"value": None, "valid_until": None}
        for instant, future_state in self._future_states():
            until = explanation["valid_until"]
            if until is None or until >= instant:
                value, until = self.ruleset.compute_trait(key, future_state, instant)
                explanation["valid_until"] = (
                    until if digest_value(value) == digest_value(explanation["value"]) else instant
                )
        return explanation

    def current_stage(self, journey: str) -> CurrentStage:
        return current_stage_of(self.state, journey, valid_until(self.state, self.ruleset, POINTS_UNLIMITED))

    def _limit_tree_by_future(self, rule_id: str, tree: dict[str, Any]) -> None:
        for instant, future_state in self._future_states():
            _limit_valid_until(tree, self.ruleset.explain_rule(rule_id, future_state, instant), instant)

    def _future_states(self) -> Iterator[tuple[int, State]]:
        """Yield the state at the instant of each future message, which may change an answer before time alone does."""
        if not self.state.pending:
            return
        future_state = deepcopy(self.state)
        for instant in sorted({input.at for input in self.state.pending}):
            fold(future_state, self.ruleset, (), instant, POINTS_UNLIMITED)
            yield instant, future_state


async def explain_rule(
    connection: Connection, customer: bytes, rule_id: str, ruleset: Ruleset, now: int
) -> Explanation:
    """Explain a rule; each node has the instant since which its truth is unchanged."""
    return (
        await replay_for_explanation(connection, customer, ruleset.ruleset_for_explanation(rule_id), now)
    ).explain_rule(rule_id)


async def replay_for_explanation(
    connection: Connection, customer: bytes, ruleset: Ruleset, now: int
) -> ExplainedReplay:
    """Fold the customer's log up to ``now``. Requires a transaction, because a cursor reads the log."""
    inputs = await read_inputs(connection, customer, ruleset)
    bucketing_keys = await bucketing_keys_of(connection, [customer]) if ruleset.reads_bucketing_key else {}
    state = State(bucketing_key=bucketing_keys.get(customer))
    await fold_in_slices(state, ruleset, inputs, now, TimeSlices())
    messages: dict[str, list[tuple[int, str]]] = {}
    for input in inputs:
        if input.at <= now:
            for leaf in input.leaves:
                messages.setdefault(leaf, []).append((input.at, input.message_id))
    return ExplainedReplay(state, ruleset, messages, now)


def _mark_never_true(node: dict[str, Any]) -> None:
    """Mark each node as false: before a customer's first message nothing holds, not even a ``not``."""
    node["truth"], node["since"], node["valid_until"] = False, None, None
    for child in node["nodes"]:
        _mark_never_true(child)


def _limit_valid_until(node: dict[str, Any], later: dict[str, Any], instant: int) -> None:
    """Correct ``valid_until`` of every node that would stay unchanged until ``instant`` or later.

    ``later`` is the tree at ``instant``, at which a future message takes effect.
    """
    until = node["valid_until"]
    if until is None or until >= instant:
        node["valid_until"] = later["valid_until"] if node["truth"] == later["truth"] else instant
    for child, later_child in zip(node["nodes"], later["nodes"], strict=True):
        _limit_valid_until(child, later_child, instant)
