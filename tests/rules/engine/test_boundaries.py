"""Tests of every head, modifier and operator one microsecond before its boundary and at it, with hand-written results.

Each case has an instant at which time or a message changes the truth of a rule. If time alone changes it, the state
must contain this instant in advance (``until``). Each case also has a late message, which arrives after later messages
were evaluated. The late message makes the rule true (adds an interval) or false (retracts one).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from pydantic import BaseModel

from app.projection.fold import fold as fold_moves
from app.rules.engine.series import NeedsReplay
from app.rules.language import expressions, nodes, touchpoint_nodes
from app.rules.language.comparison import Comparison
from app.rules.language.definitions import parse_rule, parse_value
from tests.support.reference_rules import OPERATORS, Entry, TrackEntry, TraitsEntry, World
from tests.support.rule_engine import folded, input_from_entry, ruleset_of, stored
from tests.support.rule_strategies import DAY, HOUR, START, written

RULE_ID = "segment:asked"


class Row(NamedTuple):
    rule: Any
    history: list[Entry]
    at: int
    """Instant at which the truth changes, in microseconds after START."""
    before: bool
    late: Entry
    checked_at: int
    """Instant at which the rule is checked with and without the late message, in microseconds after START."""
    holds_without_late: bool
    world: World = World()


def event(
    t: int, name: str = "A", message_id: str = "", channel: str = "web", source: str = "site", **properties: Any
) -> Entry:
    return TrackEntry(START + t, message_id or f"{name}{t}", name, channel, source, written(properties), "{}", "{}")


def identify(t: int, **traits: Any) -> Entry:
    return TraitsEntry(START + t, f"identify{t}", "site", traits)


BORN = identify(-400 * DAY)
"""First message of the customer, long before START."""
BUSY = event(40 * DAY, "Z")
"""A message that affects no rule, long after START."""

# ----------------------------------------------------------------------------------------------------- windows

RULES_ABOUT_A: dict[str, dict[str, Any]] = {
    "did": {"did": "A"},
    "first": {"first": "A"},
    "last": {"last": "A"},
    "sum": {"sum": "p", "of": "A", "gte": 1},
    "avg": {"avg": "p", "of": "A", "eq": 1},
    "min": {"min": "p", "of": "A", "lte": 1},
    "max": {"max": "p", "of": "A", "gt": 0},
    "distinct": {"distinct": "p", "of": "A", "ne": 0},
    "first_value": {"first_value": "p", "of": "A", "in": [1, 2]},
    "last_value": {"last_value": "p", "of": "A", "exists": True},
    "most_frequent": {"most_frequent": "p", "of": "A", "between": [1, 2]},
    "sequence": {"sequence": [{"did": "A"}, {"did": "B"}]},
}
"""Rules that are true if event A is in the window, with p = 1 and with event B at the same instant after it."""

VALUES_ABOUT_A: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "sum": ({"sum": "p", "of": "A"}, {"gte": 1}),
    "avg": ({"avg": "p", "of": "A"}, {"eq": 1}),
    "min": ({"min": "p", "of": "A"}, {"exists": True}),
    "max": ({"max": "p", "of": "A"}, {"exists": True}),
    "distinct": ({"distinct": "p", "of": "A"}, {"eq": 1}),
    "first_value": ({"first_value": "p", "of": "A"}, {"exists": True}),
    "last_value": ({"last_value": "p", "of": "A"}, {"exists": True}),
    "most_frequent": ({"most_frequent": "p", "of": "A"}, {"exists": True}),
    "count": ({"count": "A"}, {"gt": 0}),
    "first_at": ({"first_at": "A"}, {"after": "1990-01-01"}),
    "last_at": ({"last_at": "A"}, {"starts_with": "199"}),
}
"""Value expressions about the same events, for computed traits: (value expression, comparison of the trait)."""

# (window, instant of the touchpoint, instant of the change, truth before it). START is Wednesday, 1 October 1997.
WINDOW_FLIPS: list[tuple[dict[str, Any], int, int, bool]] = [
    ({"within": "90d"}, 0, 90 * DAY, True),
    ({"within": "1ms"}, 0, 1000, True),
    ({"within": "1mo", "timezone": "UTC"}, 0, 31 * DAY, True),
    ({"within": "1y", "timezone": "Asia/Kolkata"}, 0, 365 * DAY, True),
    ({"before": "7d"}, 0, 7 * DAY, False),
    ({"before": "2mo", "timezone": "UTC"}, 0, 61 * DAY, False),
    ({"before": "1d", "within": "3d"}, 0, DAY, False),
    ({"before": "1d", "within": "3d"}, 0, 3 * DAY, True),
    ({"during": "today"}, HOUR, DAY, True),
    ({"during": "today", "timezone": "America/New_York"}, HOUR, 4 * HOUR, True),
    ({"during": "yesterday"}, HOUR, DAY, False),
    ({"during": "yesterday"}, HOUR, 2 * DAY, True),
    ({"during": "this_week"}, HOUR, 5 * DAY, True),
    ({"during": "last_week"}, HOUR, 5 * DAY, False),
    ({"during": "last_week"}, HOUR, 12 * DAY, True),
    ({"during": "this_month"}, HOUR, 31 * DAY, True),
    ({"during": "last_month"}, HOUR, 31 * DAY, False),
    ({"during": "last_month"}, HOUR, 61 * DAY, True),
    ({"during": "this_year"}, HOUR, 92 * DAY, True),
    ({"during": "last_year"}, HOUR, 92 * DAY, False),
    ({"during": "last_year"}, HOUR, (92 + 365) * DAY, True),
    # Lisbon ended summer time on 26 October. That day had 25 hours, and 1 October began at 23:00 UTC.
    ({"during": "today", "timezone": "Europe/Lisbon"}, 25 * DAY, 26 * DAY, True),
    ({"within": "1mo", "timezone": "Europe/Lisbon"}, 0, 31 * DAY + HOUR, True),
]

# (window, an instant outside the window, an instant inside)
WINDOW_MEMBERSHIP: list[tuple[dict[str, Any], int, int]] = [
    ({"from": "1997-10-01"}, -1, 0),
    ({"to": "1997-10-01"}, 0, -1),
    ({"from": "1997-10-01T00:00:00Z"}, -1, 0),
    ({"to": "1997-10-01T02:00:00+02:00"}, 0, -1),
    ({"from": "1997-10-01", "timezone": "America/New_York"}, 4 * HOUR - 1, 4 * HOUR),
    ({"from": "1997-09-01", "to": "1997-10-01", "timezone": "Asia/Kolkata"}, -11 * HOUR // 2, -11 * HOUR // 2 - 1),
    ({"during": "weekend"}, 3 * DAY - 1, 3 * DAY),
    ({"during": "weekend"}, 5 * DAY, 5 * DAY - 1),
    ({"during": {"hours": [9, 17]}}, 9 * HOUR - 1, 9 * HOUR),
    ({"during": {"hours": [9, 17]}}, 17 * HOUR, 17 * HOUR - 1),
    ({"during": {"hours": [22, 6]}}, 22 * HOUR - 1, 22 * HOUR),
    ({"during": {"hours": [22, 6]}}, 6 * HOUR, 6 * HOUR - 1),
    ({"during": {"hours": [9, 17]}, "timezone": "Europe/Lisbon"}, 16 * HOUR, 8 * HOUR),
]

# (filter, arguments of a touchpoint that matches, arguments of one that does not)
FILTERS: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({"where": {"q": 5}}, {"q": 5}, {"q": "5"}),
    ({"where": {"q": {"gte": 5}, "p": 1}}, {"q": 5}, {"q": 4}),
    ({"channel": "email"}, {"channel": "email"}, {"channel": "web"}),
    ({"channel": ["push", "email"]}, {"channel": "push"}, {"channel": "web"}),
    ({"source": "crm"}, {"source": "crm"}, {"source": "site"}),
]


def rules_with_window(window: dict[str, Any]) -> Iterator[tuple[Any, World]]:
    """Yield rules that use the window in every head and in every value expression that accepts a window."""
    for rule in RULES_ABOUT_A.values():
        yield {**rule, **window}, World()
    for expression, comparison in VALUES_ABOUT_A.values():
        yield {"trait": "x", **comparison}, World(traits={"x": {**expression, **window}})
    if "timezone" not in window:
        yield {"did": "A", **window}, World(timezone="UTC")


def a_then_b(t: int, **properties: Any) -> list[Entry]:
    """Return an event A and an event B at the same instant. B comes later in the order of messages."""
    return [event(t, "A", f"1-{t}", p=1, **properties), event(t, "B", f"2-{t}", p=1, **properties)]


def check_flip(rule: Any, world: World, history: list[Entry], at: int, before: bool) -> None:
    """Check that the truth changes exactly ``at`` microseconds after START, in the engine and in the stored state."""
    ruleset = ruleset_of(rule, world)
    for t, expected in ((START + at - 1, before), (START + at, not before)):
        state = folded(ruleset, history, t).state
        assert ruleset.holds(RULE_ID, state, t) is expected, (rule, t - START)
        assert stored(ruleset, state, RULE_ID).holds is expected
        assert (stored(ruleset, state, RULE_ID).since == START + at) is (t == START + at)
    if all(entry.t != START + at for entry in history):
        early = folded(ruleset, history, START + at - 1).state
        assert ruleset.next_change_at(RULE_ID, early, START + at - 1) == START + at, rule
        assert stored(ruleset, early, RULE_ID).until == START + at, rule


def check_late(
    rule: Any, world: World, history: list[Entry], late: list[Entry], checked_at: int, holds_without_late: bool
) -> None:
    """Check the rule without the late messages, then with them. They arrive after everything up to ``checked_at``."""
    ruleset, t = ruleset_of(rule, world), START + checked_at
    state = folded(ruleset, [*history, event(checked_at, "Z", "z")], t).state
    assert ruleset.holds(RULE_ID, state, t) is holds_without_late, rule
    try:
        fold_moves(state, ruleset, [input_from_entry(ruleset, entry) for entry in late], t)
    except NeedsReplay:
        state = folded(ruleset, [*history, *late], t).state
    assert ruleset.holds(RULE_ID, state, t) is not holds_without_late, rule
    assert stored(ruleset, state, RULE_ID).holds is not holds_without_late


def check_adds_and_retracts(rule: Any, world: World, history: list[Entry], late: list[Entry], checked_at: int) -> None:
    check_late(rule, world, history, late, checked_at, False)
    check_late({"not": rule}, world, history, late, checked_at, True)


@pytest.mark.parametrize(("window", "p", "at", "before"), WINDOW_FLIPS, ids=str)
def test_window_opens_and_closes_at_exact_instant(window: dict[str, Any], p: int, at: int, before: bool) -> None:
    for rule, world in rules_with_window(window):
        check_flip(rule, world, [BORN, *a_then_b(p)], at, before)
        check_adds_and_retracts(rule, world, [BORN], a_then_b(p), at - 1 if before else at)


@pytest.mark.parametrize(("window", "outside", "inside"), WINDOW_MEMBERSHIP, ids=str)
def test_window_includes_and_excludes_touchpoints(window: dict[str, Any], outside: int, inside: int) -> None:
    for rule, world in rules_with_window(window):
        check_flip(rule, world, [BORN, *a_then_b(inside)], inside, False)
        check_adds_and_retracts(rule, world, [BORN], a_then_b(inside), 20 * DAY)
        if "first" not in rule and "last" not in rule:
            check_adds_and_retracts(rule, world, [BORN, *a_then_b(outside)], a_then_b(inside), 20 * DAY)
        ruleset, t = ruleset_of(rule, world), START + 20 * DAY
        assert not ruleset.holds(RULE_ID, folded(ruleset, [BORN, *a_then_b(outside)], t).state, t)


# ----------------------------------------------------------------------------------------------------- filters


def rules_with_filter(filter_json: dict[str, Any]) -> Iterator[tuple[Any, World]]:
    for head, rule in RULES_ABOUT_A.items():
        if head == "sequence":
            yield {"sequence": [{"did": "A", **filter_json}, {"did": "B", **filter_json}]}, World()
        else:
            yield {**rule, **filter_json, **({"within": "60d"} if head in ("first", "last") else {})}, World()
    for expression, comparison in VALUES_ABOUT_A.values():
        yield {"trait": "x", **comparison}, World(traits={"x": {**expression, **filter_json}})
    yield {"regularly": "A", "at_least": 1, "of_last": 4, "period": "week", **filter_json}, World()
    not_step_sequence = {"sequence": [{"did": "C"}, {"not": {"did": "A", **filter_json}, "within": "1d"}]}
    yield {"all": [{"did": "C", "within": "9w"}, {"not": not_step_sequence}]}, World()


@pytest.mark.parametrize(("filter_json", "passing", "failing"), FILTERS, ids=str)
def test_filter_selects_touchpoints(
    filter_json: dict[str, Any], passing: dict[str, Any], failing: dict[str, Any]
) -> None:
    base = [BORN, event(0, "C")]
    for rule, world in rules_with_filter(filter_json):
        check_adds_and_retracts(
            rule, world, [*base, *a_then_b(HOUR, **failing)], a_then_b(2 * HOUR, **passing), 2 * DAY
        )
        check_adds_and_retracts(rule, world, base, a_then_b(HOUR, **passing), 2 * DAY)


# --------------------------------------------------------------------------------------------------- operators

# (operators, value that satisfies them, value that does not, whether a missing value satisfies them)
OPERATOR_CASES: list[tuple[dict[str, Any], Any, Any, bool]] = [
    ({"eq": 1}, 1, "1", False),
    ({"ne": 1}, "1", 1, True),
    ({"gt": 2**53}, 2**53 + 1, 2**53, False),
    ({"gte": 10}, "10", 9, False),
    ({"lt": 10}, "9", 10, False),
    ({"lte": 10}, 10, 11, False),
    ({"between": [1, 10]}, 10, 11, False),
    ({"in": ["a", 1]}, 1, True, False),
    ({"not_in": ["a", 1]}, True, 1, True),
    ({"contains": "b"}, ["a", "b"], ["a", "bb"], False),
    ({"contains": "b"}, "abc", "aBc", False),
    ({"not_contains": "b"}, ["bb"], ["b"], True),
    ({"starts_with": "ab"}, "abc", "cab", False),
    ({"ends_with": "ab"}, "cab", "abc", False),
    ({"matches": "^a+b$"}, "aab", "aabc", False),
    ({"matches": "^a+b$", "ignore_case": True}, "AAB", "AABC", False),
    ({"eq": "STRASSE", "ignore_case": True}, "straße", "strase", False),
    ({"exists": True}, 0, None, False),
    ({"exists": False}, None, 0, True),
    ({"any_of": ["a", "b"]}, ["b", "c"], ["c"], False),
    ({"any_of": ["a", "b"]}, "b", "c", False),
    ({"all_of": ["a", "b"]}, ["b", "a"], ["a"], False),
    ({"none_of": ["a", "b"]}, ["c"], ["c", "b"], True),
    ({"after": "1997-09-30"}, "1997-09-30T00:00:00.000001Z", "1997-09-30", False),
    ({"before_date": "1997-09-30"}, "1997-09-29T23:59:59.999999Z", 875_577_600, False),
    ({"after": {"trait": "limit"}}, "1997-10-02", "1997-10-01", False),
    ({"gt": {"sum": "z", "of": "*"}}, 8, 7, False),
    ({"eq": {"trait": "seven"}}, 7, 8, False),
    ({"ne": {"trait": "seven"}}, 8, 7, True),
    ({"within_last": "2d"}, "1997-10-01", "1997-09-29", False),
    ({"within_next": "2d"}, "1997-10-02", "1997-10-04", False),
    ({"anniversary_within": "1w"}, "1990-10-02", "1990-12-02", False),
]
OPERAND_ENTRIES = [
    identify(-300 * DAY, limit="1997-10-01", seven=7),
    event(-300 * DAY, "Y", z=3),
    event(-299 * DAY, "Y", z=4),
]


def entry_with_value(head: str, t: int, v: Any) -> Entry:
    return identify(t, v=v) if head == "trait" else event(t, v=v)


@pytest.mark.parametrize(("operators", "yes", "no", "missing"), OPERATOR_CASES, ids=str)
def test_operator_on_trait_aggregate_and_property(operators: dict[str, Any], yes: Any, no: Any, missing: bool) -> None:
    for rule in ({"trait": "v", **operators}, {"last_value": "v", "of": "A", **operators}):
        head = next(iter(rule))
        first_no, then_yes = entry_with_value(head, 0, no), entry_with_value(head, HOUR, yes)
        if not (head == "last_value" and None in (yes, no)):
            check_flip(rule, World(), [BORN, *OPERAND_ENTRIES, first_no, then_yes], HOUR, False)
            check_late(rule, World(), [BORN, *OPERAND_ENTRIES, first_no], [then_yes], 3 * HOUR, False)
            check_late(
                rule,
                World(),
                [BORN, *OPERAND_ENTRIES, then_yes],
                [entry_with_value(head, 2 * HOUR, no)],
                3 * HOUR,
                True,
            )
        ruleset = ruleset_of(rule, World())
        state = folded(ruleset, [BORN, *OPERAND_ENTRIES], START).state
        assert ruleset.holds(RULE_ID, state, START) is missing
    where = {"did": "A", "where": {"v": operators}}
    check_late(where, World(), [BORN, *OPERAND_ENTRIES, event(0, v=no)], [event(HOUR, v=yes)], 3 * HOUR, False)
    check_late({"not": where}, World(), [BORN, *OPERAND_ENTRIES, event(0, v=no)], [event(HOUR, v=yes)], 3 * HOUR, True)


def test_operator_table_is_complete() -> None:
    assert {operator for operators, *_ in OPERATOR_CASES for operator in operators} == {*OPERATORS, "ignore_case"}


# ------------------------------------------------------------------------------------------- everything else

BUYER = World(
    segments={"buyer": {"did": "A", "within": "10d"}},
    journeys={"main": [("new", {"did": "A"}), ("hot", {"did": "A", "at_least": 2, "within": "10d"})]},
)
A, LATER_A, B, C = event(0), event(DAY), event(HOUR, "B"), event(2 * HOUR, "C")
CLOSED = {"sequence": [{"did": "A"}, {"not": {"did": "B"}, "within": "1d"}]}
ROWS: dict[str, Row] = {
    # boolean algebra
    "all": Row({"all": [{"did": "A"}, {"did": "B"}]}, [BORN, A, B], HOUR, False, B, DAY, False),
    "any": Row({"any": [{"did": "A"}, {"did": "B"}]}, [BORN, B], HOUR, False, B, DAY, False),
    "not": Row({"not": {"did": "A"}}, [BORN, A], 0, True, A, DAY, True),
    "everyone": Row({"all": [{"everyone": True}, {"did": "A"}]}, [BORN, A], 0, False, A, DAY, False),
    # counts
    "at_least": Row({"did": "A", "at_least": 2}, [BORN, A, LATER_A], DAY, False, LATER_A, 2 * DAY, False),
    "at_most": Row({"did": "A", "at_most": 1}, [BORN, A, LATER_A], DAY, True, LATER_A, 2 * DAY, True),
    "at_most within": Row(
        {"did": "A", "at_most": 1, "within": "10d"}, [BORN, A, LATER_A], 10 * DAY, False, LATER_A, 9 * DAY, True
    ),
    "exactly": Row({"did": "A", "exactly": 1}, [BORN, A, LATER_A], DAY, True, LATER_A, 2 * DAY, True),
    "exactly within": Row(
        {"did": "A", "exactly": 1, "within": "10d"}, [BORN, A, LATER_A], 11 * DAY, True, LATER_A, 10 * DAY, False
    ),
    "between": Row({"did": "A", "between": [2, 3]}, [BORN, A, LATER_A], DAY, False, LATER_A, 2 * DAY, False),
    # first and last: the late message replaces the touchpoint that the rule uses
    "first": Row({"first": "A", "within": "5d"}, [BORN, A], 5 * DAY, True, event(-20 * DAY), DAY, True),
    "last": Row({"last": "A", "before": "5d"}, [BORN, A], 5 * DAY, False, LATER_A, 5 * DAY, True),
    "list of events": Row({"did": ["A", "B"], "within": "1h"}, [BORN, B], 2 * HOUR, True, A, HOUR - 1, False),
    # sequences
    "sequence": Row({"sequence": [{"did": "A"}, {"did": "B"}]}, [BORN, A, B], HOUR, False, B, DAY, False),
    "sequence within": Row(
        {"sequence": [{"did": "A"}, {"did": "B"}], "within": "5d"}, [BORN, A, B], 5 * DAY, True, B, 5 * DAY - 1, False
    ),
    "step within": Row(
        {"sequence": [{"did": "A"}, {"did": "B", "within": "1h"}]},
        [BORN, A, event(HOUR, "B", "too late"), event(2 * HOUR, "A"), event(3 * HOUR - 1, "B")],
        3 * HOUR - 1,
        False,
        event(HOUR - 1, "B"),
        2 * HOUR,
        False,
    ),
    "after_at_least": Row(
        {"sequence": [{"did": "A"}, {"did": "B", "after_at_least": "1h"}]},
        [BORN, A, event(HOUR - 1, "B"), event(HOUR, "B")],
        HOUR,
        False,
        event(HOUR, "B"),
        2 * HOUR,
        False,
    ),
    "closing step": Row(CLOSED, [BORN, A], DAY, False, event(DAY - 1, "B"), DAY, True),
    "closing step again": Row(CLOSED, [BORN, A, B, LATER_A], 2 * DAY, False, event(DAY + 1, "B"), 2 * DAY, True),
    "closing step filtered": Row(
        {"sequence": [{"did": "A"}, {"not": {"did": "B", "where": {"p": 1}}, "within": "1d"}]},
        [BORN, A, event(5, "B", p=2)],
        DAY,
        False,
        event(6, "B", p=1),
        DAY,
        True,
    ),
    "same": Row(
        {"sequence": [{"did": "A"}, {"did": "B"}], "same": ["cart"]},
        [BORN, event(0, cart="x"), event(1, "B", cart="y"), event(2, "B"), event(3, "B", cart="x")],
        3,
        False,
        event(3, "B", cart="x"),
        DAY,
        False,
    ),
    # regularly
    "regularly day": Row(
        {"regularly": "A", "at_least": 2, "of_last": 3, "period": "day"},
        [BORN, A, LATER_A],
        3 * DAY,
        True,
        LATER_A,
        2 * DAY,
        False,
    ),
    "regularly week": Row(
        {"regularly": "A", "at_least": 1, "of_last": 2, "period": "week"}, [BORN, A], 14 * DAY, True, A, DAY, False
    ),
    "regularly month": Row(
        {"regularly": "A", "at_least": 1, "of_last": 1, "period": "month", "timezone": "UTC"},
        [BORN, A],
        31 * DAY,
        True,
        A,
        31 * DAY - 1,
        False,
    ),
    # traits
    "held_for": Row(
        {"trait": "v", "eq": 1, "held_for": "2d"},
        [BORN, identify(0, v=1)],
        2 * DAY,
        False,
        identify(HOUR, v=2),
        2 * DAY,
        True,
    ),
    "held_for unchanged": Row(
        {"trait": "v", "held_for": "2d"},
        [BORN, identify(0, v=1), identify(HOUR, v=1)],
        2 * DAY,
        False,
        identify(9, v=2),
        2 * DAY,
        True,
    ),
    "held_for a month": Row(
        {"trait": "v", "eq": 1, "held_for": "1mo", "timezone": "Europe/Lisbon"},
        [BORN, identify(0, v=1)],
        31 * DAY + HOUR,
        False,
        identify(HOUR, v=2),
        32 * DAY,
        True,
    ),
    "changed_within": Row(
        {"trait": "v", "changed_within": "2d"},
        [BORN, identify(0, v=1)],
        2 * DAY,
        True,
        identify(DAY, v=2),
        2 * DAY,
        False,
    ),
    "changed_within, removed": Row(
        {"trait": "v", "changed_within": "2d", "exists": False},
        [BORN, identify(-9 * DAY, v=1), identify(0, v=None)],
        2 * DAY,
        True,
        identify(-8 * DAY, v=None),
        DAY,
        True,
    ),
    "trait within_last": Row(
        {"trait": "v", "within_last": "2d"},
        [BORN, identify(-DAY, v="1997-10-01")],
        2 * DAY,
        True,
        identify(HOUR, v="1990-01-01"),
        DAY,
        True,
    ),
    "trait within_last begins": Row(
        {"trait": "v", "within_last": "2d"},
        [BORN, identify(-DAY, v="1997-10-01")],
        0,
        False,
        identify(-HOUR, v=None),
        DAY,
        True,
    ),
    "trait within_next": Row(
        {"trait": "v", "within_next": "2d"},
        [BORN, identify(-9 * DAY, v="1997-10-01")],
        -2 * DAY,
        False,
        identify(-8 * DAY, v=0),
        -DAY,
        True,
    ),
    "trait within_next ends": Row(
        {"trait": "v", "within_next": "2d"},
        [BORN, identify(-9 * DAY, v="1997-10-01")],
        0,
        True,
        identify(-8 * DAY, v=0),
        -1,
        True,
    ),
    "trait after": Row(
        {"trait": "v", "after": "1997-10-01", "timezone": "America/New_York"},
        [BORN, identify(0, v="1997-10-01T04:00:00Z"), identify(HOUR, v="1997-10-01T04:00:00.000001Z")],
        HOUR,
        False,
        identify(2 * HOUR, v="1997-10-01"),
        DAY,
        True,
    ),
    "anniversary": Row(
        {"trait": "v", "anniversary_within": "7d", "timezone": "UTC"},
        [BORN, identify(-300 * DAY, v="1990-10-08")],
        0,
        False,
        identify(-HOUR, v="1990-12-08"),
        DAY,
        True,
    ),
    "anniversary ends": Row(
        {"trait": "v", "anniversary_within": "7d", "timezone": "America/New_York"},
        [BORN, identify(-300 * DAY, v="1990-10-08")],
        8 * DAY + 4 * HOUR,
        True,
        identify(-HOUR, v=None),
        DAY,
        True,
    ),
    "a date of the touchpoint's own time": Row(
        {"did": "A", "where": {"until": {"within_next": "2d"}}, "timezone": "UTC"},
        [BORN, event(0, until="1997-10-04"), event(DAY, until="1997-10-03")],
        DAY,
        False,
        event(HOUR, until="1997-10-03"),
        DAY - 1,
        False,
    ),
    "computed": Row(
        {"trait": "spent", "gte": 10},
        [BORN, event(0, total=4), event(DAY, total=6)],
        DAY,
        False,
        event(HOUR, total=6),
        DAY - 1,
        False,
        World(traits={"spent": {"sum": "total", "of": "A"}}),
    ),
    "computed hides a declared one": Row(
        {"trait": "spent", "gte": 10},
        [BORN, identify(-HOUR, spent=99), event(0, total=10)],
        0,
        False,
        event(0, total=10),
        DAY,
        False,
        World(traits={"spent": {"sum": "total", "of": "A"}}),
    ),
    "first_at in a date operator": Row(
        {"trait": "bought", "within_last": "3d"},
        [BORN, A, LATER_A],
        3 * DAY,
        True,
        event(-9 * DAY),
        DAY,
        True,
        World(traits={"bought": {"first_at": "A"}}),
    ),
    "last_at in a date operator": Row(
        {"trait": "bought", "within_last": "3d"},
        [BORN, A, LATER_A],
        4 * DAY,
        True,
        event(3 * DAY),
        5 * DAY,
        False,
        World(traits={"bought": {"last_at": "A"}}),
    ),
    # segments and stages
    "segment": Row({"segment": "buyer"}, [BORN, A], 10 * DAY, True, LATER_A, 10 * DAY, False, BUYER),
    "for_at_least": Row(
        {"segment": "buyer", "for_at_least": "9d"}, [BORN, A], 9 * DAY, False, event(-DAY), 8 * DAY, False, BUYER
    ),
    "for_at_least a month": Row(
        {"segment": "buyer", "for_at_least": "1mo", "timezone": "UTC"},
        [BORN, *(event(n * 9 * DAY) for n in range(5))],
        31 * DAY,
        False,
        event(-DAY),
        30 * DAY,
        False,
        BUYER,
    ),
    "entered_within": Row(
        {"segment": "buyer", "entered_within": "2d"}, [BORN, A], 2 * DAY, True, event(-5 * DAY), DAY, True, BUYER
    ),
    "ever": Row({"segment": "buyer", "ever": True}, [BORN, A], 0, False, event(-90 * DAY), -1, False, BUYER),
    "stage": Row({"stage": "hot"}, [BORN, A, LATER_A], 10 * DAY, True, event(3 * DAY), 10 * DAY, False, BUYER),
    "stage of a journey": Row(
        {"stage": ["new"], "journey": "main"}, [BORN, A, LATER_A], DAY, True, LATER_A, 2 * DAY, True, BUYER
    ),
    "stage for_at_least": Row(
        {"stage": ["new", "hot"], "for_at_least": "3d"},
        [BORN, A, LATER_A],
        3 * DAY,
        False,
        event(-DAY),
        2 * DAY,
        False,
        BUYER,
    ),
    "stage entered_within": Row(
        {"stage": "hot", "entered_within": "3d"},
        [BORN, A, LATER_A],
        4 * DAY,
        True,
        event(HOUR),
        3 * DAY + HOUR,
        True,
        BUYER,
    ),
    "stage ever": Row({"stage": "hot", "ever": True}, [BORN, A, LATER_A], DAY, False, event(-1), HOUR, False, BUYER),
    "stage for a month": Row(
        {"stage": "new", "for_at_least": "1mo", "timezone": "Europe/Lisbon"},
        [BORN, A],
        31 * DAY + HOUR,
        False,
        event(HOUR),
        32 * DAY,
        True,
        BUYER,
    ),
    # test_bucket_number checks the number of the bucket.
    "bucket": Row({"all": [{"bucket": [0, 100]}, {"did": "A"}]}, [BORN, A], 0, False, A, DAY, False),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_rule_flips_at_exact_instant(row: Row) -> None:
    check_flip(row.rule, row.world, row.history, row.at, row.before)
    earlier = [entry for entry in row.history if entry != row.late]
    check_late(row.rule, row.world, earlier, [row.late], row.checked_at, row.holds_without_late)
    check_late({"not": row.rule}, row.world, earlier, [row.late], row.checked_at, not row.holds_without_late)


@pytest.mark.parametrize(("salt", "number"), [("", 84), ("autumn", 49)])
def test_bucket_number(salt: str, number: int) -> None:
    """The expected numbers were computed with sha256sum."""
    salted = {"salt": salt} if salt else {}
    for low, expected in ((number, True), (number + 1, False)):
        ruleset = ruleset_of({"bucket": [low, low + 1], **salted}, World())
        state = folded(ruleset, [BORN], START, bucketing_key=("user_id", "u1")).state
        assert ruleset.holds(RULE_ID, state, START) is expected


# ---------------------------------------------------------------------------------------------- completeness


def test_tables_cover_every_head_modifier_and_operator() -> None:
    published = {
        model for module in (nodes, touchpoint_nodes, expressions) for model in vars(module).values() if _is_node(model)
    }
    expected_fields = {
        f"{model.__name__}.{name}"
        for model in (*published, Comparison)
        for name in model.model_fields
        if model in (Comparison, nodes.TraitIs) or name not in Comparison.model_fields
    }
    assert len(expected_fields) > 200
    assert expected_fields - set(_covered()) == set()


def _is_node(model: Any) -> bool:
    is_model = isinstance(model, type) and issubclass(model, BaseModel)
    return is_model and not model.__name__.startswith("_") and (hasattr(model, "head") or model.__name__ == "Step")


def _covered() -> Iterator[str]:
    rules = [row[:1] + row[-1:] for row in ROWS.values()]
    windows = [*(case[0] for case in WINDOW_FLIPS), *(case[0] for case in WINDOW_MEMBERSHIP)]
    rules += [case for window in windows for case in rules_with_window(window)]
    rules += [case for filter_json, *_ in FILTERS for case in rules_with_filter(filter_json)]
    rules += [({"trait": "v", **operators}, World()) for operators, *_ in OPERATOR_CASES]
    rules += [({"did": "A", "where": {"v": operators}}, World()) for operators, *_ in OPERATOR_CASES]
    rules += [({"bucket": [1, 2], "salt": "autumn"}, World())]
    for rule, world in rules:
        yield from _fields_of(parse_rule(rule))
        for expression in world.traits.values():
            yield from _fields_of(parse_value(expression))
        for other in (*world.segments.values(), *(rule for stages in world.journeys.values() for _, rule in stages)):
            yield from _fields_of(parse_rule(other))


def _fields_of(node: Any) -> Iterator[str]:
    if isinstance(node, BaseModel):
        yield from (f"{type(node).__name__}.{name}" for name in node.model_fields_set)
        for name in node.model_fields_set:
            yield from _fields_of(getattr(node, name))
    elif isinstance(node, dict | list):
        for part in node.values() if isinstance(node, dict) else node:
            yield from _fields_of(part)
