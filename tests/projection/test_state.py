"""Fold of random rules and histories: arrival order, storage, size limits and backfills do not change the result.

The reference is one fold over the whole history. The tests are pure, so they can check thousands of random rules over
the whole grammar, with random histories that are partly in the future.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

import msgspec
import pytest

from app.projection.backfill import merge_states
from app.projection.coverage import Coverage
from app.projection.fold import Transition, fold
from app.projection.partial_replay import _select_log, merge_inputs
from app.projection.state import Input, State, read_state, write_state
from app.projection.state_limits import limit_pending, limit_replayed_state
from app.rules.engine.ruleset import Ruleset
from app.rules.engine.series import NeedsReplay, Series
from app.touchpoint import DAY, HOUR
from tests.support.case_count import case_count
from tests.support.reference_rules import Entry, TraitsEntry, order
from tests.support.rule_engine import input_from_entry, ruleset_of_all
from tests.support.rule_strategies import Question, questions

BLOCKS = 8
SEEDS_PER_BLOCK = case_count(150)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_fold_is_independent_of_arrival_storage_limits_and_backfill(block: int) -> None:
    for seed in range(block * 1_000_000, block * 1_000_000 + SEEDS_PER_BLOCK):
        rng = Random(seed)
        question = questions(rng, 4)
        if not question.history:
            continue
        try:
            check_arrival(question, rng)
            check_partial_backfill(question, rng)
        except Exception as error:
            error.add_note(f"seed {seed}: {question}")
            raise


class Scenario:
    """Random rules and one random history, and the result of folding the whole history at once."""

    def __init__(self, question: Question, rng: Random) -> None:
        self.ruleset = ruleset_of_all({f"r{n}": rule for n, rule in enumerate(question.rules)}, question.world)
        self.bucketing_key = question.world.bucketing_key if self.ruleset.reads_bucketing_key else None
        self.history: list[Entry] = sorted(question.history, key=order)
        self.moves = [input_from_entry(self.ruleset, entry) for entry in self.history]
        self.now = max(entry.t for entry in self.history) + rng.choice([0, HOUR, 3 * DAY])

    def state(self) -> State:
        return State(bucketing_key=self.bucketing_key)

    def whole(self, until: int) -> tuple[Any, Any]:
        state = self.state()
        changes = fold(state, self.ruleset, self.moves, until)
        return answers_of(state, self.ruleset), sort_changes(changes)

    def stored(self, state: State) -> State:
        return read_state(write_state(state, self.ruleset), self.ruleset)


def answers_of(state: State, ruleset: Ruleset) -> Any:
    """Return all results of a state, including the initial values of rules that were never evaluated."""
    if state.born is None:
        return None
    born = state.born
    truths = {id: state.truths.get(id) or ruleset.initial_truth(id, born) for id in ruleset.rule_ids}
    stages = {key: (position.stage, position.since, position.cause) for key, position in state.journeys.items()}
    return born, state.traits, truths, stages


def sort_changes(changes: Iterable[Transition]) -> list[Any]:
    return sorted(
        (change.at, change.definition, change.value, change.entered, change.since, str(change.cause))
        for change in changes
    )


def check_arrival(question: Question, rng: Random) -> None:
    """Fold the messages in any order and in batches, some before they happen. Store and read the state in between."""
    scenario = Scenario(question, rng)
    inputs = rng.sample(scenario.moves, len(scenario.moves)) if rng.random() < 0.5 else list(scenario.moves)
    points_max = rng.choice([1, 2, 3, 256])
    clock = scenario.history[0].t - rng.choice([0, 1, DAY])
    state, changes, delivered = scenario.state(), [], []
    while inputs:
        part = [inputs.pop(0) for _ in range(min(rng.randint(1, 3), len(inputs)))]
        delivered += part
        clock = min(scenario.now, max(clock, rng.choice([clock, part[0].at, part[-1].at, part[0].at - 1])))
        try:
            changes += fold(state, scenario.ruleset, part, clock, points_max)
            limit_pending(state, points_max)
            state = scenario.stored(state)
        except NeedsReplay:
            state = scenario.state()
            changes = fold(state, scenario.ruleset, delivered, clock)
            limit_replayed_state(state, scenario.ruleset, points_max)
            state = scenario.stored(state)
    try:
        changes += fold(state, scenario.ruleset, (), scenario.now, points_max)
    except NeedsReplay:
        state = scenario.state()
        changes = fold(state, scenario.ruleset, delivered, scenario.now)
    assert (answers_of(state, scenario.ruleset), sort_changes(changes)) == scenario.whole(scenario.now)


def check_partial_backfill(question: Question, rng: Random) -> None:
    """Fold some rules, backfill the other rules at some instant from their inputs, and let time pass."""
    scenario = Scenario(question, rng)
    scenario.ruleset.fill = len(scenario.ruleset.number_of)
    revision = rng.randint(0, scenario.ruleset.fill)
    rule_coverage = Coverage(scenario.ruleset)
    known_rules, missing_rules = rule_coverage.known_rules(revision), rule_coverage.missing_rules(revision)
    at = scenario.now if rng.random() < 0.5 else rng.choice(scenario.history).t
    state = scenario.state()
    changes = fold(state, known_rules, [input_from_entry(known_rules, entry) for entry in scenario.history], at)
    state = read_state(write_state(state, known_rules), known_rules)
    if state.born is None:
        return
    filled = State(bucketing_key=scenario.bucketing_key if missing_rules.reads_bucketing_key else None)
    filled_changes = fold(filled, missing_rules, inputs_for(missing_rules, scenario.history, state.born), at)
    missing_ids = {
        id
        for id in scenario.ruleset.number_of
        if id.startswith(("segment:", "journey:")) and rule_coverage.required_revision(id) > revision
    }
    assert not missing_ids & {change.definition for change in changes}
    changes += [change for change in filled_changes if change.definition in missing_ids]
    merge_states(state, filled, missing_rules)
    limit_replayed_state(state, scenario.ruleset, 256)
    state = scenario.stored(state)
    assert (answers_of(state, scenario.ruleset), sort_changes(changes)) == scenario.whole(at)
    changes += fold(state, scenario.ruleset, (), scenario.now)
    assert (answers_of(state, scenario.ruleset), sort_changes(changes)) == scenario.whole(scenario.now)


def inputs_for(rules: Ruleset, history: Sequence[Entry], born: int) -> list[Input]:
    """Return the inputs that a backfill of these rules reads from the log."""
    selection = _select_log(rules)
    inputs = [
        input_from_entry(rules, entry)
        for entry in history
        if not isinstance(entry, TraitsEntry) or selection.needs_identifies
    ]
    inputs = [input for input in inputs if input.is_relevant]
    if selection.needs_first_messages:
        inputs += [Input(entry.t, entry.id, entry.source, (), None) for entry in history if entry.t == born]
    elif all(input.at != born for input in inputs):
        inputs.append(Input(born, "", "", (), None))
    return merge_inputs((), inputs)


def test_series_of_the_first_release_are_readable() -> None:
    """Its series stored the progress of a sequence among the points, in two positions that nothing reads now."""
    progress = {"": [[[[1, 0]], [[2, 0]]], [3, 0]]}
    stored_series = [3, [], [], [], False, [[], None, None, None, progress, False]]
    series = msgspec.convert(stored_series, Series)
    assert (series.count, series.sequence) == (3, None)
