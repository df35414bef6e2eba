"""Long series, which rules read through sliding windows and whose older points are outside the state.

The cases are those of the comparison with the reference implementation. The limits are so low that almost every series
is long, and states are stored and read after each part of the history.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from app.projection import state_limits
from app.projection.fold import POINTS_UNLIMITED, Transition, fold
from app.projection.state import Input, State, first_positions, read_state, write_state
from app.projection.state_limits import PointMoves, split_long_series
from app.rules.engine import point_series
from app.rules.engine.point_series import OlderPoints
from app.rules.engine.ruleset import Ruleset
from app.rules.engine.series import NeedsReplay
from app.rules.engine.sliding_window import NeedsOlderPoints
from app.rules.values import calendar
from app.touchpoint import DAY
from tests.rules.engine.test_ruleset_against_reference import (
    CLOCKS,
    RULES_AT_ONCE,
    expected_transitions,
    transitions_of,
)
from tests.support.case_count import case_count
from tests.support.reference_rules import Evaluator, TrackEntry, order, rfc3339
from tests.support.rule_engine import (
    Folded,
    compiled,
    folded,
    input_from_entry,
    ruleset_of_all,
    stored,
    trait,
)
from tests.support.rule_strategies import HOUR, START, Question, clocks, questions, written

MINUTE = HOUR // 60
STEPS = (*[0, MINUTE, 2 * MINUTE] * 10, 7 * MINUTE, 3 * HOUR)

BLOCKS = 8
CASES_PER_BLOCK = case_count(400)


class StoredCustomer:
    """A customer row and its older points, as the database would store them."""

    def __init__(self, ruleset: Ruleset, state: State) -> None:
        self.ruleset = ruleset
        self.row = write_state(state, ruleset)
        self.older_points: dict[str, list[OlderPoints]] = {}
        self.loads = 0

    def fold(self, inputs: Sequence[Input], now: int) -> list[Transition]:
        """Fold like :func:`app.projection.older_points.fold_stored_state`, then store the state."""
        loaded: dict[str, list[OlderPoints]] = {}
        while True:
            state = read_state(self.row, self.ruleset)
            state.older_points = loaded
            try:
                changes = fold(state, self.ruleset, inputs, now, POINTS_UNLIMITED, rewinds=True)
                moves = split_long_series(state, self.ruleset, POINTS_UNLIMITED)
            except NeedsOlderPoints as error:
                self.loads += 1
                loaded[error.leaf_id] = self.load(error, loaded)
            else:
                self.store(state, moves)
                return changes

    def load(self, error: NeedsOlderPoints, loaded: dict[str, list[OlderPoints]]) -> list[OlderPoints]:
        stored = self.older_points.get(error.leaf_id, [])
        needed = [older for older in stored if older.position + len(older.points) > error.position][:1]
        assert needed, "the points were moved out of the state and deleted"
        assert needed[0].position <= error.position
        return sorted([*loaded.get(error.leaf_id, ()), *needed], key=lambda older: older.position)

    def store(self, state: State, moves: PointMoves) -> None:
        self.row = write_state(state, self.ruleset)
        for leaf_id, position in first_positions(self.row).items():
            self.older_points[leaf_id] = [
                older for older in self.older_points.get(leaf_id, ()) if older.position + len(older.points) > position
            ]
        for leaf_id, older in moves.moved:
            self.older_points.setdefault(leaf_id, []).append(older)


def fold_in_parts(ruleset: Ruleset, question: Question, t: int, rng: Random) -> Folded:
    """Fold the history up to ``t`` in parts. If a part requires a replay, fold the whole history at once."""
    inputs = [
        input_from_entry(ruleset, entry)
        for entry in sorted((entry for entry in question.history if entry.t <= t), key=order)
    ]
    cuts = sorted({0, len(inputs), *(rng.randint(0, len(inputs)) for _ in range(rng.randint(1, 8)))})
    key = question.world.bucketing_key
    customer = StoredCustomer(ruleset, State(bucketing_key=key))
    changes: list[Transition] = []
    try:
        for a, b in pairwise(cuts):
            part = inputs[a:b]
            changes += customer.fold(part, max((one.at for one in part), default=t))
        changes += customer.fold([], t)
    except NeedsReplay:
        state = State(bucketing_key=key)
        return Folded(state, fold(state, ruleset, inputs, t, POINTS_UNLIMITED))
    state = read_state(customer.row, ruleset)
    state.older_points = customer.older_points
    return Folded(state, changes)


def check_question(question: Question, rng: Random) -> int:
    """Compare truths, ``since`` and transitions; return the number of compared cases."""
    keys = {f"r{number}": rule for number, rule in enumerate(question.rules)}
    ruleset = ruleset_of_all(keys, question.world)
    cases = 0
    for clock_number in range(CLOCKS):
        t = clocks(rng, rng.choice(question.rules), question)
        customer = fold_in_parts(ruleset, question, t, rng)
        reference = Evaluator(question.history, t, question.world)
        if reference.born is None:
            assert customer.state.born is None
            continue
        for key, rule in keys.items():
            rule_id = f"segment:{key}"
            truth = stored(ruleset, customer.state, rule_id)
            assert (truth.holds, truth.since) == (reference.holds(rule, t), reference.since(rule, t)), rule
            change = reference.next_change(rule, t)
            if change is not None:
                assert truth.until is not None
                assert truth.until <= change, f"{rule} changes before `until`"
            cases += 1
        if clock_number == 0:
            assert transitions_of(customer) == expected_transitions(question, keys, t, reference)
    return cases


@pytest.mark.parametrize("block", range(BLOCKS))
def test_long_series_agree_with_reference(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(point_series, "SCANNED_POINTS_MAX", block % 4)
    monkeypatch.setattr(state_limits, "_MOVED_AT_ONCE", 1)
    cases, seed = 0, block * 1_000_000
    while cases < CASES_PER_BLOCK:
        rng = Random(seed)
        question = questions(rng, RULES_AT_ONCE)
        try:
            cases += check_question(question, rng)
        except Exception as error:
            error.add_note(f"seed {seed}\n{question}")
            raise
        seed += 1


HEADS = ("sum", "avg", "min", "max", "distinct", "first_value", "last_value", "most_frequent")
WINDOWS: tuple[dict[str, Any], ...] = (
    {"within": "1h"},
    {"before": "20m"},
    {"within": "1h", "before": "10m"},
    {"during": "today"},
    {"during": "yesterday"},
    {"during": {"hours": [0, 12]}, "within": "1h"},
    {"from": "1997-10-02", "to": "1997-10-04"},
)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("scanned_max", [2, 10])
def test_windows_over_many_points_equal_a_scan(
    window: dict[str, Any], scanned_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare computed traits after each part with the values that scanning all points returns."""
    monkeypatch.setattr(point_series, "SCANNED_POINTS_MAX", scanned_max)
    monkeypatch.setattr(state_limits, "_MOVED_AT_ONCE", 3)
    rng = Random(str(window))
    values: dict[str, Any] = {head: {head: "v", "of": "A", **window} for head in HEADS}
    values |= {head: {head: "A", **window} for head in ("count", "first_at", "last_at")}
    ruleset = compiled(*(trait(head, value) for head, value in values.items()), timezone="America/New_York")
    customer, history, t = StoredCustomer(ruleset, State()), [], START
    for _ in range(60):
        t += 1  # A message of an instant that was evaluated before would need a replay.
        part = [touchpoint(rng, t := t + rng.choice(STEPS)) for _ in range(rng.randint(1, 6))]
        history += part
        customer.fold([input_from_entry(ruleset, entry) for entry in part], t)
        now = t + rng.choice([0, 0, MINUTE, HOUR])
        monkeypatch.setattr(point_series, "SCANNED_POINTS_MAX", 10**9)
        expected = folded(ruleset, history, now).state
        monkeypatch.setattr(point_series, "SCANNED_POINTS_MAX", scanned_max)
        actual = read_state(customer.row, ruleset)
        actual.older_points = customer.older_points
        assert ruleset.compute_traits(actual, now) == ruleset.compute_traits(expected, now)
    releases_touchpoints = "within" in window or "during" in window
    assert customer.loads > 0 or not releases_touchpoints


CALENDAR_WINDOWS: tuple[dict[str, Any], ...] = (
    {"within": "1mo"},
    {"within": "1mo", "before": "2d"},
    {"within": "1y"},
    {"within": "1mo", "during": {"hours": [0, 12]}},
)
CALENDAR_STARTS = ("2024-01-28", "2024-10-30", "2023-10-04", "2024-02-08", "2024-02-28", "2023-02-27", "2024-03-01")
"""First days of four days whose touchpoints leave a window out of order in some timezone: at the end of a
month, or around a change of clocks."""
CALENDAR_ZONES = ("America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "America/Sao_Paulo", "UTC")


@pytest.mark.parametrize("zone", CALENDAR_ZONES)
@pytest.mark.parametrize("window", CALENDAR_WINDOWS, ids=str)
@pytest.mark.parametrize("start", CALENDAR_STARTS)
def test_calendar_windows_over_many_points_equal_a_scan(
    window: dict[str, Any], start: str, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = Random(f"{window} {start} {zone}")
    values: dict[str, Any] = {head: {head: "v", "of": "A", **window} for head in HEADS}
    values |= {head: {head: "A", **window} for head in ("count", "first_at", "last_at")}
    monkeypatch.setattr(state_limits, "_MOVED_AT_ONCE", 3)
    monkeypatch.setattr(point_series, "SCANNED_POINTS_MAX", 2)
    ruleset = compiled(*(trait(head, value) for head, value in values.items()), timezone=zone)
    first = rfc3339(f"{start}T00:00:00Z")
    history = [touchpoint(rng, t) for t in sorted(first + rng.randrange(4 * DAY) for _ in range(24))]
    customer = StoredCustomer(ruleset, State())
    for place, entry in enumerate(history):
        customer.fold([input_from_entry(ruleset, entry)], entry.t)
        compare_with_scan(customer, history[: place + 1], entry.t, monkeypatch)
    length = calendar.parse_length(window["within"])
    leaves = {calendar.add(entry.t, length, zone) + step for entry in history for step in (-1, 0, 1)}
    for t in sorted(rng.sample(sorted(leaves), 40)):
        if t > history[-1].t:
            customer.fold([], t)
            compare_with_scan(customer, history, t, monkeypatch)


def compare_with_scan(
    customer: StoredCustomer, history: list[TrackEntry], t: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare the computed traits at ``t`` with those that follow from a scan of all points."""
    with monkeypatch.context() as scanning:
        scanning.setattr(point_series, "SCANNED_POINTS_MAX", 10**9)
        expected = customer.ruleset.compute_traits(folded(customer.ruleset, history, t).state, t)
    state = read_state(customer.row, customer.ruleset)
    state.older_points = customer.older_points
    assert customer.ruleset.compute_traits(state, t) == expected


def touchpoint(rng: Random, t: int) -> TrackEntry:
    value = rng.choice([1, 2, 2, 5, -3, "1.5", "a", "b", None, 2.25])
    return TrackEntry(t, f"m{rng.random()}", "A", "web", "site", written({"v": value}), "{}", "{}")
