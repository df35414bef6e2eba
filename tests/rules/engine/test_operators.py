"""Tests of comparison operators: results, changes by time alone, and dependence on the timezone."""

from __future__ import annotations

import operator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from app.rules.engine.operators import (
    ComparisonContext,
    CompiledComparison,
    DynamicOperand,
    compile_comparison,
)
from app.rules.values import durations
from app.rules.values.patterns import find_pattern_error

NEW_YORK, ST_JOHNS, APIA, LISBON = "America/New_York", "America/St_Johns", "Pacific/Apia", "Europe/Lisbon"
TOO_MANY_DIGITS = "1" * 401


class FixedOperand(DynamicOperand):
    """Dynamic operand whose value the test sets."""

    def __init__(self, value: Any) -> None:
        self.value = value


def at(text: str) -> int:
    result = durations.parse_instant_or_date(text)
    assert isinstance(result, int)
    return result


def context_at(t: str | int = 0, zone: str = "UTC") -> ComparisonContext:
    return ComparisonContext(at(t) if isinstance(t, str) else t, zone, operator.attrgetter("value"))


def compile_operators(operators: dict[str, Any]) -> CompiledComparison:
    operators = dict(operators)
    return compile_comparison(operators, ignore_case=operators.pop("ignore_case", False))


@pytest.mark.parametrize(
    ("operators", "value", "expected"),
    [
        ({"eq": 1}, Decimal("1.0"), True),
        ({"eq": 1}, Fraction(1), True),
        ({"eq": Decimal("0.5")}, Fraction(1, 2), True),
        ({"eq": Decimal("0." + "3" * 300)}, Fraction(1, 3), False),
        ({"eq": 1}, True, False),
        ({"eq": 1}, "1", False),
        ({"eq": True}, 1, False),
        ({"eq": "a"}, ["a"], False),
        ({"eq": "STRASSE", "ignore_case": True}, "straße", True),
        ({"eq": "a", "ignore_case": True}, 1, False),
        ({"ne": "a"}, None, True),
        ({"ne": "a"}, "a", False),
        ({"in_": [1, "A", True], "ignore_case": True}, "a", True),
        ({"in_": [Decimal("0.5")]}, Fraction(1, 2), True),
        ({"in_": [1]}, True, False),
        ({"in_": [1]}, None, False),
        ({"not_in": [1]}, None, True),
        ({"not_in": [1]}, 1, False),
        # Order comparisons.
        ({"gt": Decimal("0." + "3" * 300)}, Fraction(1, 3), True),
        ({"gt": Decimal("0." + "3" * 299 + "4")}, Fraction(1, 3), False),
        ({"gte": 2**53 + 1}, 2**53, False),
        ({"gte": 2**53 + 1}, 2**53 + 1, True),
        ({"gt": 2**53}, Decimal(2**53 + 1), True),
        ({"lt": Decimal("1." + "0" * 60 + "1")}, 1, True),
        ({"lt": 1}, Decimal("0." + "9" * 60), True),
        ({"lte": 10}, "10", True),
        ({"lt": 10}, "10", False),
        ({"lt": "10"}, "9", True),
        ({"lt": "b"}, "a", True),
        ({"lt": "b"}, "1", False),
        ({"lt": 9}, TOO_MANY_DIGITS, False),
        ({"lt": "b"}, TOO_MANY_DIGITS, True),
        ({"lt": 1}, False, False),
        ({"lt": 1}, None, False),
        ({"gt": "A", "ignore_case": True}, "B", True),
        ({"between": [1, 2]}, 1, True),
        ({"between": [1, 2]}, 2, True),
        ({"between": [1, 2]}, Decimal("2." + "0" * 50 + "1"), False),
        ({"between": [1, 2]}, Fraction(5, 2), False),
        ({"gte": 1, "lt": 2}, 2, False),
        ({"gte": 1, "lt": 2}, 1, True),
        # Arrays and text.
        ({"contains": "a"}, ["b", "a"], True),
        ({"contains": "a"}, ["ba"], False),
        ({"contains": "a"}, "ba", True),
        ({"contains": 1}, "1", False),
        ({"contains": 1}, [Decimal("1.0")], True),
        ({"contains": 1}, [True], False),
        ({"not_contains": "a"}, None, True),
        ({"not_contains": "a"}, "cab", False),
        ({"starts_with": "Ab"}, "Abc", True),
        ({"starts_with": "Ab"}, "abc", False),
        ({"starts_with": "Ab", "ignore_case": True}, "aBc", True),
        ({"ends_with": "bc"}, "abc", True),
        ({"ends_with": "bc"}, "abcd", False),
        ({"ends_with": "bc"}, ["abc"], False),
        ({"any_of": [1, "a"]}, ["b", "a"], True),
        ({"any_of": [1, "a"]}, "a", True),
        ({"any_of": [1, "a"]}, [True, "A"], False),
        ({"any_of": [1, "a"], "ignore_case": True}, ["A"], True),
        ({"any_of": [1]}, [[1]], False),
        ({"any_of": [1]}, {"a": 1}, False),
        ({"any_of": [1]}, [], False),
        ({"any_of": [1]}, None, False),
        ({"none_of": [1]}, None, True),
        ({"none_of": [1]}, [], True),
        ({"none_of": [1]}, [2, 1], False),
        ({"all_of": [1, "a"]}, ["a", 2, Decimal("1.0")], True),
        ({"all_of": [1, "a"]}, ["a", True], False),
        ({"all_of": [1, "a"]}, ["a", [1], {"b": 1}], False),
        ({"all_of": ["A", "b"], "ignore_case": True}, ["B", "a"], True),
        ({"all_of": [1]}, Fraction(1), True),
        ({"all_of": [1, 2]}, 1, False),
        ({"all_of": [1]}, [], False),
        ({"all_of": [1]}, None, False),
        ({"exists": True}, False, True),
        ({"exists": True}, None, False),
        ({"exists": False}, None, True),
        ({"exists": True, "ne": "x"}, None, False),
        # Patterns.
        ({"matches": "b+"}, "abbc", True),
        ({"matches": "^b+$"}, "abbc", False),
        ({"matches": "B"}, "abc", False),
        ({"matches": "É", "ignore_case": True}, "né", True),
        ({"matches": "^.$"}, "é", True),
        ({"matches": r"^\pL{2}$"}, "né", True),
        ({"matches": "^?$"}, "", True),
        ({"matches": "1"}, 1, False),
        ({"matches": "1"}, ["1"], False),
        ({"matches": ".*"}, None, False),
        ({"matches": "^.$"}, "\ud800", True),
    ],
)
def test_static_operator(operators, value, expected):
    compiled = compile_operators(operators)
    assert compiled.static_test is not None
    assert compiled.static_test(value) is expected
    assert compiled.holds(value, context_at()) is expected
    assert compiled.next_check_at(value, context_at()) is None
    assert not compiled.uses_zone()
    assert compiled.dynamic_operands == ()


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("(a+)+$", "a" * 8_191 + "b", False),
        ("(a+)+$", "b" + "a" * 8_191, True),
        ("(.*)*x", "a" * 8_192, False),
        ("(.*)*x", "a" * 8_191 + "x", True),
        # A text longer than the limit matches no pattern, because matching only a part of it could return a wrong
        # result.
        ("(.*)*x", "a" * 8_192 + "x", False),
        ("^a*$", "a" * 8_193, False),
        ("(x+x+)+y", "x" * 8_192, False),
        ("(a|aa|a?)*b", "a" * 8_192, False),
        # The states of this pattern do not fit into its memory, so the match is slower but still correct.
        ("[ab]*a[ab]{400}c", "ab" * 4_096, False),
        ("[ab]*a[ab]{400}c", "ab" * 4_095 + "bc", True),
        ("(.*)*x", "é" * 4_096, False),
    ],
)
def test_hostile_pattern_terminates(pattern, text, expected):
    static = compile_operators({"matches": pattern}).static_test
    assert static is not None
    assert static(text) is expected


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("a+", None),
        (r"\pL+", None),
        ("(a+)+$", None),
        ("(", "missing )"),
        ("(?=a)", "invalid perl operator"),
        (r"(a)\1", "invalid escape"),
        ("a{2000}", "repetition size"),
        (r"(\pL{500}){2}", "too large"),
        ("\ud800", "surrogate"),
    ],
)
def test_find_pattern_error_reports_reason(pattern, reason):
    error = find_pattern_error(pattern)
    assert (error is None) if reason is None else (error is not None and reason in error)


NEGATIVES = {"eq": "ne", "in_": "not_in", "contains": "not_contains", "any_of": "none_of"}
VALUES = [None, True, 1, "1", "a", "", Fraction(1, 3), [], ["a", 1], [None], {}, {"a": 1}]


@pytest.mark.parametrize("positive", NEGATIVES)
@pytest.mark.parametrize("ignore_case", [False, True])
def test_negative_operator_is_exact_complement(positive, ignore_case):
    for operand in (1, "a", True):
        operand_json: Any = [operand] if positive in ("in_", "any_of") else operand
        positive_comparison = compile_comparison({positive: operand_json}, ignore_case=ignore_case)
        negative_comparison = compile_comparison({NEGATIVES[positive]: operand_json}, ignore_case=ignore_case)
        for value in VALUES:
            assert positive_comparison.holds(value, context_at()) is not negative_comparison.holds(value, context_at())
    if positive in ("eq", "contains"):
        for dynamic in map(FixedOperand, VALUES):
            positive_comparison, negative_comparison = (
                compile_operators({positive: dynamic}),
                compile_operators({NEGATIVES[positive]: dynamic}),
            )
            for value in VALUES:
                assert positive_comparison.holds(value, context_at()) is not negative_comparison.holds(
                    value, context_at()
                )


@pytest.mark.parametrize(
    ("operator_name", "operand", "value", "expected"),
    [
        ("eq", 1, Decimal("1.0"), True),
        ("eq", Fraction(1, 2), Decimal("0.5"), True),
        ("eq", "1", 1, False),
        ("eq", True, 1, False),
        ("eq", None, None, False),
        ("eq", [1, {"a": 2}], [Decimal("1.0"), {"a": 2}], True),
        ("eq", [1], 1, False),
        ("eq", [1], [True], False),
        ("ne", None, 1, True),
        ("ne", None, None, True),
        ("ne", 1, 1, False),
        ("gt", Fraction(1, 3), Decimal("0." + "3" * 300), False),
        ("lt", Fraction(1, 3), Decimal("0." + "3" * 300), True),
        ("lt", "10", 9, True),
        ("lt", "b", "a", True),
        ("lt", True, 0, False),
        ("lt", [2], 1, False),
        ("lte", None, 1, False),
        ("gte", 1, None, False),
        ("contains", "a", ["a"], True),
        ("contains", "a", "cab", True),
        ("contains", ["a"], [["a"]], True),
        ("contains", 1, "1", False),
        ("contains", None, [None], False),
        ("not_contains", None, ["a"], True),
        ("starts_with", "ab", "abc", True),
        ("starts_with", 1, "1", False),
        ("ends_with", "bc", "abc", True),
        ("ends_with", None, "abc", False),
    ],
)
def test_dynamic_operand(operator_name, operand, value, expected):
    dynamic = FixedOperand(operand)
    compiled = compile_operators({operator_name: dynamic})
    assert compiled.holds(value, context_at()) is expected
    assert compiled.static_test is None
    assert compiled.dynamic_operands == (dynamic,)
    assert compiled.next_check_at(value, context_at()) is None
    assert not compiled.uses_zone()


def test_ignore_case_applies_to_dynamic_operand():
    assert compile_operators({"eq": FixedOperand("STRASSE"), "ignore_case": True}).holds("straße", context_at())
    assert not compile_operators({"eq": FixedOperand("STRASSE")}).holds("straße", context_at())


@pytest.mark.parametrize(
    ("operand", "value", "zone", "is_after", "is_before"),
    [
        ("2024-03-10T00:00:00Z", "2024-03-10T00:00:00.000001Z", "UTC", True, False),
        ("2024-03-10T00:00:00Z", "2024-03-10T00:00:00Z", "UTC", False, False),
        ("2024-03-10T00:00:00Z", "2024-03-09T23:59:59.999999Z", "UTC", False, True),
        # A date without a time is its first instant in local time, as a value and as an operand.
        ("2024-03-10", "2024-03-10T05:00:00Z", NEW_YORK, False, False),
        ("2024-03-10", "2024-03-10T05:00:00.000001Z", NEW_YORK, True, False),
        ("2024-03-10", "2024-03-10T04:59:59.999999Z", NEW_YORK, False, True),
        ("2010-11-07T02:30:00Z", "2010-11-07", ST_JOHNS, False, False),
        ("2011-12-30", "2011-12-31", APIA, False, False),
        ("1970-01-01", 0, "UTC", False, False),
        ("1970-01-01", Decimal("0.000001"), "UTC", True, False),
        ("9998-12-31", "9998-12-30", "UTC", False, True),
        ("1970-01-01", None, "UTC", False, False),
        ("1970-01-01", "5", "UTC", False, False),
        ("1970-01-01", True, "UTC", False, False),
        (FixedOperand("2024-03-10"), "2024-03-10T05:00:00.000001Z", NEW_YORK, True, False),
        (FixedOperand("2024-03-10"), "2024-03-10T04:59:59.999999Z", NEW_YORK, False, True),
        (FixedOperand(0), -1, "UTC", False, True),
        (FixedOperand(None), 1, "UTC", False, False),
        (FixedOperand("soon"), 1, "UTC", False, False),
    ],
)
def test_after_and_before_date_are_strict(operand, value, zone, is_after, is_before):
    after, before = compile_operators({"after": operand}), compile_operators({"before_date": operand})
    assert after.holds(value, context_at(0, zone)) is is_after
    assert before.holds(value, context_at(0, zone)) is is_before
    assert after.static_test is None
    assert after.next_check_at(value, context_at(0, zone)) is None
    assert after.dynamic_operands == ((operand,) if isinstance(operand, FixedOperand) else ())


@pytest.mark.parametrize(
    ("operators", "value", "zone", "begin", "end"),
    [
        ({"within_last": "1d"}, "2024-03-10T05:00:00Z", NEW_YORK, "2024-03-10T05:00:00Z", "2024-03-11T05:00:00Z"),
        ({"within_last": "1ms"}, 0, "UTC", "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.001Z"),
        ({"within_last": "1mo"}, "2024-02-10", NEW_YORK, "2024-02-10T05:00:00Z", "2024-03-10T05:00:00Z"),
        ({"within_last": "1mo"}, "2024-02-12", NEW_YORK, "2024-02-12T05:00:00Z", "2024-03-12T04:00:00Z"),
        ({"within_last": "1y"}, "2024-02-29", "UTC", "2024-02-29T00:00:00Z", "2025-02-28T00:00:00Z"),
        ({"within_last": "1mo"}, "2011-11-30", APIA, "2011-11-30T10:00:00Z", "2011-12-30T10:00:00Z"),
        ({"within_last": "1mo"}, "9998-12-31", "UTC", "9998-12-31T00:00:00Z", "9999-01-31T00:00:00Z"),
        # The range excludes the date itself and includes the instant exactly one length before the date.
        ({"within_next": "1d"}, "2024-03-11T04:00:00Z", NEW_YORK, "2024-03-10T04:00:00Z", "2024-03-11T04:00:00Z"),
        ({"within_next": "1d"}, "2024-03-11", NEW_YORK, "2024-03-10T04:00:00Z", "2024-03-11T04:00:00Z"),
        ({"within_next": "1mo"}, "2024-03-12", NEW_YORK, "2024-02-12T05:00:00Z", "2024-03-12T04:00:00Z"),
        # No day of February plus a month is 29, 30 or 31 March, so the rule changes at the midnight that begins 1
        # March.
        ({"within_next": "1mo"}, "2023-03-30T12:00:00Z", "UTC", "2023-03-01T00:00:00Z", "2023-03-30T12:00:00Z"),
        ({"within_next": "1y"}, "1971-03-01", "UTC", "1970-03-01T00:00:00Z", "1971-03-01T00:00:00Z"),
        ({"within_next": "1mo"}, "9998-12-31", "UTC", "9998-12-01T00:00:00Z", "9998-12-31T00:00:00Z"),
        ({"anniversary_within": "7d"}, "1990-05-10", LISBON, "2024-05-02T23:00:00Z", "2024-05-10T23:00:00Z"),
        ({"anniversary_within": "1mo"}, "1990-03-12", NEW_YORK, "2024-02-12T05:00:00Z", "2024-03-13T04:00:00Z"),
    ],
)
def test_time_dependent_operator_changes_at_exact_instants(operators, value, zone, begin, end):
    compiled = compile_operators(operators)
    assert compiled.static_test is None
    assert not compiled.holds(value, context_at(at(begin) - 1, zone))
    assert compiled.next_check_at(value, context_at(at(begin) - 1, zone)) == at(begin)
    assert compiled.holds(value, context_at(begin, zone))
    assert compiled.next_check_at(value, context_at(begin, zone)) == at(end)
    assert compiled.holds(value, context_at(at(end) - 1, zone))
    assert not compiled.holds(value, context_at(end, zone))
    following = compiled.next_check_at(value, context_at(end, zone))
    assert (following is None) is ("anniversary_within" not in operators)


def test_within_next_month_can_become_true_more_than_once():
    # 30 January 23:00 plus a month is 28 February 23:00. An hour later, 31 January 00:00 plus a month is 28 February
    # 00:00.
    compiled, value = compile_operators({"within_next": "1mo"}), "2023-02-28T12:00:00Z"
    changes = []
    t = at("2023-01-01T00:00:00Z")
    while (following := compiled.next_check_at(value, context_at(t))) is not None:
        t = following
        changes.append((t, compiled.holds(value, context_at(t))))
    assert changes == [
        (at("2023-01-28T12:00:00Z"), True),
        (at("2023-01-29T00:00:00Z"), False),
        (at("2023-01-29T12:00:00Z"), True),
        (at("2023-01-30T00:00:00Z"), False),
        (at("2023-01-30T12:00:00Z"), True),
        (at("2023-01-31T00:00:00Z"), False),
        (at("2023-01-31T12:00:00Z"), True),
        (at(value), False),
    ]


@pytest.mark.parametrize("operator_name", ["within_last", "within_next", "anniversary_within"])
@pytest.mark.parametrize("value", [None, "", "soon", "5", True, [], "0000-01-01"])
def test_time_dependent_operator_is_false_without_date(operator_name, value):
    compiled = compile_operators({operator_name: "1mo"})
    assert not compiled.holds(value, context_at())
    assert compiled.next_check_at(value, context_at()) is None


def test_next_check_of_combined_operators():
    compiled = compile_operators({"within_next": "2d", "after": "2024-05-10", "ne": FixedOperand("2024-05-12")})
    assert compiled.static_test is None
    assert len(compiled.dynamic_operands) == 1
    assert compiled.holds("2024-05-11", context_at("2024-05-10T00:00:00Z"))
    assert compiled.next_check_at("2024-05-11", context_at(0)) == at("2024-05-09T00:00:00Z")
    # Time cannot make the comparison true if another operator is false for this value.
    assert compiled.next_check_at("2024-05-10", context_at(0)) is None
    assert compiled.next_check_at("2024-05-12", context_at(0)) is None
    # Time cannot make the comparison true again after within_last has ended.
    both = compile_operators({"within_last": "1d", "anniversary_within": "1d"})
    assert both.next_check_at("2024-05-10", context_at("2024-06-01T00:00:00Z")) is None


@pytest.mark.parametrize(
    ("operators", "uses_zone", "uses_zone_for_instants"),
    [
        ({"eq": "2024-05-10"}, False, False),
        ({"gt": FixedOperand(1)}, False, False),
        ({"after": "2024-05-10T00:00:00Z"}, True, False),
        ({"after": "2024-05-10"}, True, True),
        ({"before_date": FixedOperand("2024-05-10")}, True, True),
        ({"within_last": "30d"}, True, False),
        ({"within_next": "1mo"}, True, True),
        ({"anniversary_within": "1d"}, True, True),
        ({"exists": True, "within_last": "1y"}, True, True),
    ],
)
def test_uses_zone(operators, uses_zone, uses_zone_for_instants):
    assert compile_operators(operators).uses_zone() is uses_zone
    assert compile_operators(operators).uses_zone(values_may_be_dates=False) is uses_zone_for_instants
