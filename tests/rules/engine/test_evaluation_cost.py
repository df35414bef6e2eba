"""Cost of folding a long history: it grows in proportion to the number of messages, counted in calls of the engine."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from app.projection.fold import fold
from app.projection.state import State
from app.rules.engine.ruleset import Ruleset
from tests.support.reference_rules import Evaluator, TrackEntry, World
from tests.support.rule_engine import compiled, folded, input_from_entry, segment
from tests.support.rule_strategies import DAY, HOUR, START, written

MINUTE = HOUR // 60
GROWTH_MAX = 2.5
"""Upper bound of the cost of twice as many messages, as a multiple. A quadratic cost would grow to 4 times as much."""

A, B, C = ({"did": name} for name in "ABC")
SEQUENCES: dict[str, Any] = {
    "within": {"sequence": [A, {**B, "within": "7d"}, C], "within": "300d"},
    "without a window": {"sequence": [A, {**B, "within": "1s"}, C]},
    "after": {"sequence": [A, {**B, "after_at_least": "5m"}, C], "within": "300d"},
    "before": {"sequence": [A, B], "before": "30d"},
    "closing step": {"sequence": [A, B, {"not": {"did": "D"}, "within": "90d"}], "within": "300d"},
    "same": {"sequence": [A, B, C], "within": "300d", "same": ["number"]},
    "same with a closing step": {"sequence": [A, {"not": B, "within": "1h"}], "within": "30d", "same": ["number"]},
    "within months": {"sequence": [A, {**B, "within": "7d"}, C], "within": "10mo"},
    "gap of months": {"sequence": [A, {**B, "within": "1mo"}, C], "within": "300d"},
    "before months": {"sequence": [A, B], "before": "1mo"},
    "closing step of months": {"sequence": [A, {"not": {"did": "D"}, "within": "3mo"}]},
    "calendar period": {"sequence": [A, B, C], "during": "last_week"},
    "operand": {"sequence": [{**A, "where": {"number": {"gte": {"trait": "least"}}}}, B], "within": "300d"},
}
RECURRING: dict[str, Any] = {
    "days": {"regularly": "A", "at_least": 3, "of_last": 10, "period": "day"},
    "weeks": {"regularly": "A", "at_least": 1, "of_last": 2, "period": "week"},
    "months": {"regularly": "A", "at_least": 2, "of_last": 3, "period": "month"},
}


def history_of(size: int, interval: int = MINUTE) -> list[TrackEntry]:
    return [
        TrackEntry(
            START + number * interval,
            f"m{number:06}",
            "ABC"[number % 3],
            "web",
            "site",
            written({"number": number // 3}),
            "{}",
            "{}",
        )
        for number in range(size)
    ]


def count_fold_calls(ruleset: Ruleset, size: int) -> int:
    """Return how many functions of the rule engine run during the fold of ``size`` messages."""
    inputs = [input_from_entry(ruleset, entry) for entry in history_of(size)]
    calls = 0

    def count_call(frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal calls
        if event == "call" and "/rules/" in frame.f_code.co_filename:
            calls += 1

    previous = sys.getprofile()
    sys.setprofile(count_call)
    try:
        fold(State(), ruleset, inputs, inputs[-1].at)
    finally:
        sys.setprofile(previous)
    return calls


@pytest.mark.parametrize("rule", [*SEQUENCES.values(), *RECURRING.values()], ids=[*SEQUENCES, *RECURRING])
def test_fold_takes_time_in_proportion_to_the_messages(rule: Any) -> None:
    ruleset = compiled(segment("asked", rule))
    count_fold_calls(ruleset, 1_200)  # Fill the caches of the calendar.
    assert count_fold_calls(ruleset, 1_200) < GROWTH_MAX * count_fold_calls(ruleset, 600)


@pytest.mark.parametrize("name", ["within", "without a window", "after", "before"])
def test_state_of_a_tracked_sequence_stays_small(name: str) -> None:
    ruleset = compiled(segment("asked", SEQUENCES[name]))
    state = folded(ruleset, history_of(2_000), START + 2_000 * MINUTE).state
    assert max(series.longest_length for series in state.series.values()) <= 10


@pytest.mark.parametrize("rule", RECURRING.values(), ids=RECURRING)
@pytest.mark.parametrize("interval", [7 * HOUR, 25 * HOUR], ids=["dense", "sparse"])
def test_thinned_points_give_the_result_of_all_points(rule: Any, interval: int) -> None:
    """A series for ``regularly`` keeps at most two points for each period, and gaps still make the rule false."""
    history = history_of(150, interval)
    del history[60:100]
    ruleset = compiled(segment("asked", rule))
    customer = folded(ruleset, history, history[-1].t + 200 * DAY)
    (series,) = customer.state.series.values()
    assert series.longest_length <= 2 * (rule["of_last"] + 2)
    reference = Evaluator(history, history[-1].t, World())
    changes = {change.at: change.entered for change in customer.changes}
    assert False in changes.values()
    for at, entered in changes.items():
        assert (reference.holds(rule, at - 1), reference.holds(rule, at)) == (not entered, entered)
    for entry in history[::7]:
        expected = next((changes[at] for at in sorted(changes, reverse=True) if at <= entry.t), False)
        assert reference.holds(rule, entry.t) == expected


def test_points_are_thinned_only_if_no_other_rule_needs_them() -> None:
    recurring, counting = RECURRING["days"], {"did": "A", "within": "5y", "before": "1mo", "exactly": 0}
    shared = compiled(segment("recurring", recurring), segment("counting", counting))
    assert len(shared.leaves) == 1
    history = [entry for entry in history_of(60) if entry.name == "A"]
    (series,) = folded(shared, history, history[-1].t).state.series.values()
    assert series.point_series is not None
    assert len(series.point_series.points) == 20
    assert shared.holds("segment:counting", folded(shared, history, history[-1].t).state, history[-1].t)
