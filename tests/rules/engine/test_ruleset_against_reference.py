"""Comparison of the engine with a simple reference implementation of the language: truth, since, and next change.

A case is one rule, one history and one instant, for which all three results are compared. ``SEGUE_TEST_CASES``
multiplies the number of cases.
"""

from __future__ import annotations

from decimal import Decimal
from itertools import combinations_with_replacement
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.projection.fold import POINTS_UNLIMITED, Transition
from app.rules.engine.ruleset import Ruleset
from app.rules.language.definitions import parse_rule, rule_to_json
from tests.support import reference_rules
from tests.support.case_count import FACTOR, case_count, case_count_at_most
from tests.support.reference_rules import Entry, Evaluator, TrackEntry, TraitsEntry, World
from tests.support.rule_engine import Folded, compiled, folded, occurrence, ruleset_of, ruleset_of_all, segment, stored
from tests.support.rule_strategies import (
    HOUR,
    SCALARS,
    START,
    Question,
    clocks,
    comparisons,
    documents,
    histories,
    instants,
    questions,
    some_of,
    written,
)
from tests.support.sequence_strategies import sequence_questions

RULE_ID = "segment:asked"
EMPTY_WORLD = World()
BLOCKS = 20
CASES_PER_BLOCK = case_count(1_000)
RULES_AT_ONCE = 6
CLOCKS = 6
quick_settings = settings(deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
randoms = st.randoms(use_true_random=False)


def check_agreement(ruleset: Ruleset, rule_id: str, rule: Any, customer: Folded, t: int, reference: Evaluator) -> None:
    """Compare the truth, since and next change of one rule with the reference."""
    state = customer.state
    if reference.born is None:
        assert state.born is None
        return
    expected = reference.holds(rule, t)
    assert ruleset.holds(rule_id, state, t) == expected, "truth"
    change = reference.next_change(rule, t)
    next_change = ruleset.next_change_at(rule_id, state, t)
    assert is_change(next_change, change, reference), f"next change {next_change}, expected {change}"
    truth = stored(ruleset, state, rule_id)
    assert (truth.holds, truth.since) == (expected, reference.since(rule, t)), "truth or since in the state"
    if change is None or change < reference.horizon:
        assert is_change(truth.until, change, reference), "until in the state"


def is_change(actual: int | None, expected: int | None, reference: Evaluator) -> bool:
    """Return True if the next change is correct. Changes after the horizon of the reference are not compared."""
    if expected is None or expected > reference.horizon:
        return actual is None or actual > reference.horizon
    return actual == expected


def check_question(question: Question, rng: Random, clocks_count: int) -> int:
    """Compare all rules of the question at several instants; return the number of compared cases."""
    keys = {f"r{number}": rule for number, rule in enumerate(question.rules)}
    ruleset = ruleset_of_all(keys, question.world)
    cases = 0
    for clock_number in range(clocks_count):
        t = clocks(rng, rng.choice(question.rules), question)
        cuts = [rng.randint(0, len(question.history)) for _ in range(rng.randint(0, 3))]
        points_max = rng.choice([1, 2, 3, 256])
        customer = folded(
            ruleset, question.history, t, points_max, cuts=cuts, bucketing_key=question.world.bucketing_key
        )
        reference = Evaluator(question.history, t, question.world)
        for key, rule in keys.items():
            try:
                check_agreement(ruleset, f"segment:{key}", rule, customer, t, reference)
            except AssertionError as error:
                error.add_note(f"rule {rule}\nat {t}, at most {points_max} points, cut at {cuts}\n{question}")
                raise
            cases += 1
        if clock_number == 0:
            assert transitions_of(customer) == expected_transitions(question, keys, t, reference), (
                f"changes to {t} of {question}"
            )
    return cases


def transitions_of(customer: Folded) -> list[tuple[int, str, str, bool]]:
    return sorted(_short(change) for change in customer.changes if not change.definition.startswith("watch:"))


def _short(change: Transition) -> tuple[int, str, str, bool]:
    return (change.at, change.definition, change.value, change.entered)


def expected_transitions(
    question: Question, keys: dict[str, Any], t: int, reference: Evaluator
) -> list[tuple[int, str, str, bool]]:
    """Return every entry and exit up to ``t``. The reference is evaluated at each instant at which one is possible."""
    transitions = []
    for key, rule in {**keys, **question.world.segments}.items():
        before = False
        for u in [u for u in reference.instants(rule) if u <= t]:
            after = reference.holds(rule, u)
            transitions += [(u, f"segment:{key}", "", after)] if after != before else []
            before = after
    for journey, stages in question.world.journeys.items():
        previous_stage = None
        for u in sorted({u for _, rule in stages for u in reference.instants(rule) if u <= t}):
            current = reference.stage(journey, u)
            for stage, entered in ((previous_stage, False), (current, True)) if current != previous_stage else ():
                transitions += [(u, f"journey:{journey}", stage, entered)] if stage is not None else []
            previous_stage = current
    return sorted(transitions)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_engine_agrees_with_reference(block: int) -> None:
    cases, seed = 0, block * 1_000_000
    while cases < CASES_PER_BLOCK:
        rng = Random(seed)
        try:
            cases += check_question(questions(rng, RULES_AT_ONCE), rng, CLOCKS)
        except Exception as error:
            error.add_note(f"seed {seed}: run check_question(questions(rng, {RULES_AT_ONCE}), rng, {CLOCKS}) with it")
            raise
        seed += 1


def test_number_of_reference_cases_is_large() -> None:
    assert 20_000 * min(FACTOR, 1) <= BLOCKS * CASES_PER_BLOCK


@settings(quick_settings, max_examples=case_count_at_most(150))
@given(randoms)
def test_single_rule_agrees_with_reference(rng: Random) -> None:
    """Hypothesis draws single cases, so that it can reduce a failing case."""
    check_question(questions(rng, 1), rng, 1)


# ------------------------------------------------------------------------------------------------ regressions


def did(t: int, name: str = "A", message_id: str = "m", **properties: Any) -> TrackEntry:
    return TrackEntry(START + t, f"{message_id}{t}", name, "web", "site", written(properties), "{}", "{}")


REGRESSIONS: list[tuple[str, Any, list[Entry], int, World]] = [
    (
        "a message in the future does not count yet",
        {"did": "A", "at_most": 0},
        [did(0, "B"), did(HOUR)],
        HOUR - 1,
        EMPTY_WORLD,
    ),
    (
        "a customer with traits only exists",
        {"not": {"did": "*"}},
        [TraitsEntry(START, "m", "site", {"plan": "pro"})],
        0,
        EMPTY_WORLD,
    ),
    (
        "two touchpoints of one instant leave the window together",
        {"did": "A", "exactly": 1, "within": "1h"},
        [did(0), TrackEntry(START, "n", "A", "web", "site", "{}", "{}", "{}")],
        0,
        EMPTY_WORLD,
    ),
    (
        "an older touchpoint leaves later than a younger one if a month is added",
        {"did": "A", "within": "1mo", "timezone": "UTC"},
        [did(-244 * 24 * HOUR), did(-243 * 24 * HOUR - 12 * HOUR)],
        -215 * 24 * HOUR,
        EMPTY_WORLD,
    ),
    (
        "a condition of a sequence changes when its operand does",
        {"sequence": [{"did": "A", "where": {"p": {"gt": {"trait": "recent"}}}}, {"did": "B"}]},
        [did(0, p=1), did(1, "B"), did(2, "C"), did(3, "C")],
        3,
        World(traits={"recent": {"count": "C", "within": "1h"}}),
    ),
]
"""(description, rule, history, instant in microseconds after START, world)"""


@pytest.mark.parametrize(("rule", "history", "after", "world"), [case[1:] for case in REGRESSIONS])
def test_regression_agrees_with_reference(rule: Any, history: list[Entry], after: int, world: World) -> None:
    ruleset = ruleset_of(rule, world)
    for points_max in (1, 2, POINTS_UNLIMITED):
        for cut in range(len(history) + 1):
            t = START + after
            customer = folded(ruleset, history, t, points_max, cuts=[cut], bucketing_key=world.bucketing_key)
            check_agreement(ruleset, RULE_ID, rule, customer, t, Evaluator(history, t, world))


COUNTS: list[dict[str, Any]] = [
    *({"at_least": n} for n in (1, 2, 3)),
    *({"at_most": n} for n in (0, 1, 2)),
    *({"exactly": n} for n in (0, 1, 2, 3)),
    *({"between": bounds} for bounds in ([0, 1], [1, 2], [2, 3])),
]
WINDOWS = [{"within": "1h"}, {"within": "2h"}, {"before": "1h"}, {"before": "2h"}, {"before": "1h", "within": "2h"}]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_touchpoints_of_one_instant_enter_and_leave_together(window: dict[str, str]) -> None:
    """Check all combinations of up to four touchpoints at three instants.

    A count can skip the number that makes a rule true.
    """
    rules = {f"s{number}": {"did": "A", **count, **window} for number, count in enumerate(COUNTS)}
    ruleset = ruleset_of_all(rules, EMPTY_WORLD)
    instant_choices = [
        chosen for size in range(5) for chosen in combinations_with_replacement((0, HOUR, 2 * HOUR), size)
    ]
    for touchpoint_instants in instant_choices:
        born = TraitsEntry(-1, "", "", {})
        history: list[Entry] = [
            born,
            *(TrackEntry(t, "", "A", "web", "site", "{}", "{}", "{}") for t in touchpoint_instants),
        ]
        for t in (2 * HOUR, 3 * HOUR - 1):
            customer, reference = folded(ruleset, history, t, 256), Evaluator(history, t, EMPTY_WORLD)
            for key, rule in rules.items():
                check_agreement(ruleset, f"segment:{key}", rule, customer, t, reference)


# ------------------------------------------------------------------------------------------------- properties


@settings(quick_settings, max_examples=case_count_at_most(60))
@given(randoms)
def test_not_is_complement_and_changes_at_same_instant(rng: Random) -> None:
    question = questions(rng, 1)
    rule, t = question.rules[0], clocks(rng, question.rules[0], question)
    ruleset = ruleset_of_all({"asked": rule, "opposite": {"not": rule}}, question.world)
    state = folded(ruleset, question.history, t, bucketing_key=question.world.bucketing_key).state
    if state.born is not None:
        assert ruleset.holds(RULE_ID, state, t) != ruleset.holds("segment:opposite", state, t)
        assert ruleset.next_change_at(RULE_ID, state, t) == ruleset.next_change_at("segment:opposite", state, t)


@settings(quick_settings, max_examples=case_count_at_most(60))
@given(
    randoms,
    st.sampled_from([("eq", "ne"), ("in", "not_in"), ("contains", "not_contains"), ("any_of", "none_of")]),
    st.sampled_from(SCALARS),
)
def test_negative_operators_are_complements(rng: Random, pair: tuple[str, str], operand: Any) -> None:
    item = TrackEntry(START, "m", "A", "web", "site", written(documents(rng)), "{}", "{}")
    operand_json = [operand] if pair[0] in ("in", "any_of") else operand
    path = rng.choice(["a", "a.b", "c.d", "plan"])
    matches = [
        compiled(segment("s", {"did": "*", "where": {path: {operator: operand_json}}})).match_leaves(occurrence(item))
        for operator in pair
    ]
    assert bool(matches[0]) != bool(matches[1])


@settings(quick_settings, max_examples=case_count_at_most(100))
@given(randoms)
def test_rule_round_trips_through_json_with_same_leaves(rng: Random) -> None:
    question = questions(rng, 1)
    rule = question.rules[0]
    serialized = rule_to_json(parse_rule(rule))
    assert serialized == rule
    text = msgspec.json.Encoder(decimal_format="number").encode(serialized)
    reread = msgspec.json.Decoder(float_hook=Decimal).decode(text)
    ruleset, second = ruleset_of(rule, question.world), ruleset_of(reread, question.world)
    assert ruleset.leaves.keys() == second.leaves.keys()
    assert ruleset.rule_ids == second.rule_ids


@settings(quick_settings, max_examples=case_count_at_most(60))
@given(randoms)
def test_message_changes_only_rules_that_read_it(rng: Random) -> None:
    question = questions(rng, 2)
    rules = {f"r{number}": rule for number, rule in enumerate(question.rules)}
    ruleset = ruleset_of_all(rules, question.world)
    history = question.history
    if len(history) < 2 or history[-1].t == history[-2].t:
        return
    last = history[-1]
    if isinstance(last, TraitsEntry):
        affected = set(ruleset.rules_reading((), last.traits))
    else:
        affected = set(ruleset.rules_reading(ruleset.match_leaves(occurrence(last)), ()))
    without, after = Evaluator(history[:-1], last.t, question.world), Evaluator(history, last.t, question.world)
    for key, rule in rules.items():
        if f"segment:{key}" not in affected:
            assert without.holds(rule, last.t) == after.holds(rule, last.t)
            assert without.next_change(rule, last.t) == after.next_change(rule, last.t)


@settings(quick_settings, max_examples=case_count_at_most(50))
@given(randoms)
def test_explanation_agrees_with_reference_and_lists_touchpoints(rng: Random) -> None:
    """Check every node of a rule with counts under all, any and not."""
    history = [entry for entry in histories(rng) if isinstance(entry, TrackEntry)]
    t = instants(rng)
    parts: list[Any] = [{"did": some_of(rng, ["A", "B"]), "within": rng.choice(["1h", "1d"])}]
    parts.append({"did": "*", "where": {"a": comparisons(rng, ["a"])}, "at_least": rng.randint(1, 3)})
    rule = {"any": [{"not": parts[0]}, {"all": parts}]}
    ruleset = ruleset_of(rule, EMPTY_WORLD).ruleset_for_explanation(RULE_ID)
    reference = Evaluator(history, t, EMPTY_WORLD)
    if reference.born is None:
        return
    state = folded(ruleset, history, t).state

    def ids(leaf: str) -> list[tuple[int, str]]:
        return [(item.t, item.id) for item in history if item.t <= t and ruleset.leaves[leaf].matches(occurrence(item))]

    def check_node(node: dict[str, Any]) -> None:
        assert node["truth"] == reference_rules.holds(node["rule"], history, t, EMPTY_WORLD)
        assert node["valid_until"] == reference_rules.next_change(node["rule"], history, t, EMPTY_WORLD)
        if "did" in node["rule"]:
            expected = [item.id for item in reference_rules.counted(node["rule"], history, t, EMPTY_WORLD)]
            assert node["touchpoints"] == expected
            assert node["counted"] == len(expected)
        for child in node["nodes"]:
            check_node(child)

    check_node(ruleset.explain_rule(RULE_ID, state, t, ids))


# -------------------------------------------------------------------------------------------------- sequences


@pytest.mark.parametrize("block", range(4))
def test_sequences_agree_with_reference(block: int) -> None:
    cases, seed = 0, block * 1_000_000
    while cases < case_count(600):
        rng = Random(seed)
        try:
            cases += check_question(sequence_questions(rng, 6, 12), rng, 4)
        except Exception as error:
            error.add_note(f"seed {seed} of sequence_questions(rng, 6, 12)")
            raise
        seed += 1


@pytest.mark.parametrize("seed", range(case_count(12)))
def test_sequences_of_many_touchpoints_change_exactly_when_the_reference_does(seed: int) -> None:
    """Fold 50 to 70 messages one by one through stored states, and compare each change and random instants."""
    rng = Random(seed)
    question = sequence_questions(rng, 6, 70)
    history, world = question.history, question.world
    rules = {f"r{number}": rule for number, rule in enumerate(question.rules)}
    ruleset = ruleset_of_all(rules, world)
    end = history[-1].t + 100 * 24 * HOUR
    instants_of_history = [0, *(n for n in range(1, len(history)) if history[n - 1].t != history[n].t)]
    at_once = folded(ruleset, history, end)
    one_by_one = folded(ruleset, history, end, cuts=instants_of_history)
    assert transitions_of(one_by_one) == transitions_of(at_once)
    reference = Evaluator(history, end, world)
    for key, rule in rules.items():
        changes = {change.at: change.entered for change in at_once.changes if change.definition == f"segment:{key}"}
        sampled = rng.sample(sorted(changes), min(len(changes), 8))
        for t in [u for change in sampled for u in (change - 1, change)] + [rng.choice(history).t for _ in range(4)]:
            expected = next((changes[change] for change in sorted(changes, reverse=True) if change <= t), False)
            assert reference.holds(rule, t) == expected, f"{rule} at {t}"


@pytest.mark.parametrize("seed", range(case_count(40)))
def test_explained_sequence_lists_its_touchpoints(seed: int) -> None:
    rng = Random(seed)
    question = sequence_questions(rng, 1, 12)
    rule, history = question.rules[0], question.history
    ruleset = ruleset_of(rule, question.world).ruleset_for_explanation(RULE_ID)
    for t in {entry.t for entry in history}:
        past_entries = [entry for entry in history if entry.t <= t]
        reference = Evaluator(past_entries, t, question.world)
        touchpoints = {entry.id: entry for entry in past_entries if isinstance(entry, TrackEntry)}

        def ids(leaf: str, touchpoints: dict[str, TrackEntry] = touchpoints) -> list[tuple[int, str]]:
            matches = ruleset.leaves[leaf].matches
            return [(item.t, item.id) for item in touchpoints.values() if matches(occurrence(item))]

        explained = ruleset.explain_rule(RULE_ID, folded(ruleset, past_entries, t).state, t, ids)
        assert explained["truth"] == reference.holds(rule, t)
        listed = [touchpoints[message_id] for message_id in explained["touchpoints"]]
        assert bool(listed) == explained["truth"]
        assert listed == sorted(listed, key=reference_rules.order)
        listed_ids = {entry.id for entry in listed}
        if listed:
            # Without the other touchpoints of the positive steps, the sequence is still true.
            closing = rule["sequence"][-1].get("not")
            rest = [
                entry for entry in past_entries if isinstance(entry, TraitsEntry) or closing or entry.id in listed_ids
            ]
            assert Evaluator(rest, t, question.world).holds(rule, t)
