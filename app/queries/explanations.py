"""Why a rule holds for a customer or does not: the whole log folded without limits, every node watched on the way."""

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
from app.queries.customer_state import CurrentStage, current_stage_of, truth_of, valid_until
from app.rules.engine.json_equality import digest_of
from app.rules.engine.ruleset import Ruleset


class Explanation(msgspec.Struct):
    """``tree`` as in :mod:`app.rules.engine.explanation`; instants in microseconds."""

    holds: bool
    since: int | None
    valid_until: int | None
    tree: dict[str, Any]


class ExplainedReplay(msgspec.Struct):
    """A customer's log told to a set of rules up to an instant, and which messages stand behind each leaf."""

    state: State
    ruleset: Ruleset
    messages: dict[str, list[tuple[int, str]]]
    now: int

    def why(self, rule_id: str) -> Explanation:
        truth = truth_of(self.state, self.ruleset, rule_id)
        tree = self.ruleset.explain(rule_id, self.state, self.now, lambda leaf: self.messages.get(leaf, []))
        if self.state.born is None:
            _hold_nothing(tree)
        self._look_ahead(rule_id, tree)
        since = None if self.state.born is None else truth.since
        return Explanation(truth.holds, since, tree["valid_until"], tree)

    def value(self, key: str) -> dict[str, Any]:
        """Of a computed trait, as :func:`app.rules.engine.explanation.explain_value` says it; missing before birth."""
        found = self.ruleset.explain_value(key, self.state, self.now, lambda leaf: self.messages.get(leaf, []))
        if self.state.born is None:
            found |= {"value": None, "valid_until": None}
        for instant, ahead in self._future():
            until = found["valid_until"]
            if until is None or until >= instant:
                value, until = self.ruleset.value(key, ahead, instant)
                found["valid_until"] = until if digest_of(value) == digest_of(found["value"]) else instant
        return found

    def place(self, journey: str) -> CurrentStage:
        return current_stage_of(self.state, journey, valid_until(self.state, self.ruleset, POINTS_UNLIMITED))

    def _look_ahead(self, rule_id: str, tree: dict[str, Any]) -> None:
        for instant, ahead in self._future():
            _continue(tree, self.ruleset.explain(rule_id, ahead, instant), instant)

    def _future(self) -> Iterator[tuple[int, State]]:
        """Messages of the future count from their instant on, which may come before time alone changes anything."""
        if not self.state.pending:
            return
        ahead = deepcopy(self.state)
        for instant in sorted({move.at for move in self.state.pending}):
            fold(ahead, self.ruleset, (), instant, POINTS_UNLIMITED)
            yield instant, ahead


async def explain_rule(
    connection: Connection, customer: bytes, rule_id: str, ruleset: Ruleset, now: int
) -> Explanation:
    """Each node with since when its truth has been what it is."""
    return (await replay_for_explanation(connection, customer, ruleset.explained(rule_id), now)).why(rule_id)


async def replay_for_explanation(
    connection: Connection, customer: bytes, ruleset: Ruleset, now: int
) -> ExplainedReplay:
    """Needs a transaction: the log is read through a cursor."""
    moves = await read_inputs(connection, customer, ruleset)
    persons = await bucketing_keys_of(connection, [customer]) if ruleset.reads_person else {}
    state = State(person=persons.get(customer))
    fold(state, ruleset, moves, now, POINTS_UNLIMITED)
    messages: dict[str, list[tuple[int, str]]] = {}
    for move in moves:
        if move.at <= now:
            for leaf in move.leaves:
                messages.setdefault(leaf, []).append((move.at, move.message_id))
    return ExplainedReplay(state, ruleset, messages, now)


def _hold_nothing(node: dict[str, Any]) -> None:
    """Before its first message nothing holds for a customer, not even a ``not``."""
    node["truth"], node["since"], node["valid_until"] = False, None, None
    for child in node["nodes"]:
        _hold_nothing(child)


def _continue(node: dict[str, Any], later: dict[str, Any], instant: int) -> None:
    """Correct until when each truth lasts by what is so at ``instant``, up to which it was right."""
    until = node["valid_until"]
    if until is None or until >= instant:
        node["valid_until"] = later["valid_until"] if node["truth"] == later["truth"] else instant
    for child, later_child in zip(node["nodes"], later["nodes"], strict=True):
        _continue(child, later_child, instant)
