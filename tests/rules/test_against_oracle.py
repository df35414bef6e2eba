"""The engine and a naive reading of the same language agree, on truth and on when it changes."""

from __future__ import annotations

from decimal import Decimal
from itertools import combinations_with_replacement
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.rules import Series, parse_rule, rule_to_json
from tests.rules import oracle
from tests.rules.engine import Known, compiled, fold, occurrence, ruleset_of, segment
from tests.rules.oracle import Happened, World
from tests.rules.strategies import HOUR, SCALARS, dids, happened, histories, instants, rules, where, worlds

ASKED = "segment:asked"
NOTHING = World()
quick = settings(deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@settings(quick, max_examples=160)
@given(rules(references=True), histories, instants, worlds(), st.sampled_from([1, 2, 3, 256]))
def test_truth_and_next_change_are_exact(
    rule: Any, history: list[Happened], t: int, world: World, points_max: int
) -> None:
    ruleset = ruleset_of(rule, world)
    known = fold(ruleset, history, t, dict(world.traits), points_max)
    truth = ruleset.truth(ASKED, known, t)
    assert truth == oracle.holds(rule, history, t, world)
    change = ruleset.next_change(ASKED, known, t)
    assert change == oracle.next_change(rule, history, t, world)
    if change is not None:
        assert ruleset.truth(ASKED, known, change) != truth
        assert ruleset.truth(ASKED, known, change - 1) == truth


@settings(quick, max_examples=100)
@given(dids(), histories, instants, worlds(), st.sampled_from([1, 2, 256]))
def test_one_did_node_is_exact(rule: Any, history: list[Happened], t: int, world: World, points_max: int) -> None:
    ruleset = ruleset_of(rule, world)
    known = fold(ruleset, history, t, dict(world.traits), points_max)
    assert ruleset.truth(ASKED, known, t) == oracle.holds(rule, history, t, world)
    assert ruleset.next_change(ASKED, known, t) == oracle.next_change(rule, history, t, world)


COUNTS = [
    *({"at_least": n} for n in (1, 2, 3)),
    *({"at_most": n} for n in (0, 1, 2)),
    *({"exactly": n} for n in (0, 1, 2, 3)),
    *({"between": bounds} for bounds in ([0, 1], [1, 2], [2, 3])),
]
WINDOWS = [{"within": "1h"}, {"within": "2h"}, {"before": "1h"}, {"before": "2h"}, {"before": "1h", "within": "2h"}]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_touchpoints_of_one_instant_enter_and_leave_together(window: dict[str, str]) -> None:
    """Every multiset of up to four touchpoints at three instants: a count may skip the number that would do."""
    counted = [{"did": "A", **count, **window} for count in COUNTS]
    ruleset = compiled(*(segment(f"s{index}", rule) for index, rule in enumerate(counted)))
    places = [place for size in range(5) for place in combinations_with_replacement((0, HOUR, 2 * HOUR), size)]
    for instants_of_one in places:
        history = [Happened(t, "", "A", "web", "site", "{}", "{}", "{}") for t in instants_of_one]
        for t in (2 * HOUR, 3 * HOUR - 1):
            known = fold(ruleset, history, t, {}, 256)
            for index, rule in enumerate(counted):
                assert ruleset.truth(f"segment:s{index}", known, t) == oracle.holds(rule, history, t, NOTHING)
                change = ruleset.next_change(f"segment:s{index}", known, t)
                assert change == oracle.next_change(rule, history, t, NOTHING)


@settings(quick, max_examples=50)
@given(rules(references=True), histories, instants, worlds())
def test_explanation_agrees_and_shows_what_was_counted(
    rule: Any, history: list[Happened], t: int, world: World
) -> None:
    ruleset = ruleset_of(rule, world)
    known = fold(ruleset, history, t, dict(world.traits), 10**9, unlimited=True)

    def ids(leaf: str) -> list[tuple[int, str]]:
        return [(item.t, item.id) for item in history if item.t <= t and ruleset.leaves[leaf].reads(occurrence(item))]

    def check(node: dict[str, Any]) -> None:
        assert node["truth"] == oracle.holds(node["rule"], history, t, world)
        assert node["valid_until"] == oracle.next_change(node["rule"], history, t, world)
        if "did" in node["rule"]:
            expected = [item.id for item in history if item.t <= t and oracle.matches(node["rule"], item, t, world)]
            assert node["touchpoints"] == expected
            assert node["counted"] == len(expected)
        for child in node["nodes"]:
            check(child)

    check(ruleset.explain(ASKED, known, t, ids))


@settings(quick, max_examples=60)
@given(rules(references=True), histories, instants, worlds())
def test_not_is_the_complement_and_changes_at_the_same_instant(
    rule: Any, history: list[Happened], t: int, world: World
) -> None:
    ruleset, opposite = ruleset_of(rule, world), ruleset_of({"not": rule}, world)
    known = fold(ruleset, history, t, dict(world.traits), 256)
    assert ruleset.truth(ASKED, known, t) != opposite.truth(ASKED, known, t)
    assert ruleset.next_change(ASKED, known, t) == opposite.next_change(ASKED, known, t)


@settings(quick, max_examples=60)
@given(where, happened, st.sampled_from([("eq", "ne"), ("in", "not_in"), ("contains", "not_contains")]), st.data())
def test_negative_operators_are_complements(
    paths: dict[str, Any], item: Happened, pair: tuple[str, str], data: st.DataObject
) -> None:
    path = next(iter(paths))
    operand = data.draw(st.sampled_from(SCALARS))
    asked = [operand] if pair[0] == "in" else operand
    found = [
        compiled(segment("s", {"did": "*", "where": {path: {operator: asked}}})).match(occurrence(item))
        for operator in pair
    ]
    assert bool(found[0]) != bool(found[1])


@settings(quick, max_examples=60)
@given(rules(references=True), histories, instants, worlds())
def test_a_rule_survives_json_and_keeps_its_leaves(rule: Any, history: list[Happened], t: int, world: World) -> None:
    again = rule_to_json(parse_rule(rule))
    assert again == rule
    text = msgspec.json.Encoder(decimal_format="number").encode(again)
    reread = msgspec.json.Decoder(float_hook=Decimal).decode(text)
    ruleset, second = ruleset_of(rule, world), ruleset_of(reread, world)
    assert ruleset.leaves.keys() == second.leaves.keys()
    known = fold(ruleset, history, t, dict(world.traits), 256)
    assert ruleset.truth(ASKED, known, t) == second.truth(ASKED, known, t)


@settings(quick, max_examples=50)
@given(rules(references=True), histories, instants, worlds())
def test_state_survives_json(rule: Any, history: list[Happened], t: int, world: World) -> None:
    ruleset = ruleset_of(rule, world)
    known = fold(ruleset, history, t, dict(world.traits), 256)
    stored = msgspec.json.decode(msgspec.json.encode(known.series), type=dict[str, Series])
    assert stored == known.series
    assert ruleset.truth(ASKED, Known(stored, known.traits), t) == ruleset.truth(ASKED, known, t)


@settings(quick, max_examples=60)
@given(rules(references=True), histories, worlds(), st.data())
def test_only_rules_that_are_said_to_read_a_touchpoint_move_with_it(
    rule: Any, history: list[Happened], world: World, data: st.DataObject
) -> None:
    if not history:
        return
    ruleset = ruleset_of(rule, world)
    last = history[-1]
    before = fold(ruleset, history[:-1], last.t, dict(world.traits), 10**9)
    after = fold(ruleset, history, last.t, dict(world.traits), 10**9)
    touched = ruleset.rules_reading(ruleset.match(occurrence(last)), ())
    name = data.draw(st.sampled_from(["a", "c", "timezone"]))
    changed = Known(after.series, {key: value for key, value in world.traits.items() if key != name})
    reading = ruleset.rules_reading((), (name,))
    for rule_id in ruleset.rule_ids:
        if rule_id not in touched:
            assert ruleset.truth(rule_id, before, last.t) == ruleset.truth(rule_id, after, last.t)
        if rule_id not in reading:
            assert ruleset.truth(rule_id, changed, last.t) == ruleset.truth(rule_id, after, last.t)
        assert ruleset.initial[rule_id] == ruleset.truth(rule_id, Known({}, {}), last.t)
