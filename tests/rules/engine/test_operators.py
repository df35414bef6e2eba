"""Every operator: what it means, when time alone changes it, and what it depends on."""

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
BEYOND = "1" * 401


class Given(DynamicOperand):
    """A dynamic operand that carries its value."""

    def __init__(self, value: Any) -> None:
        self.value = value


def at(text: str) -> int:
    found = durations.parse_instant_or_date(text)
    assert isinstance(found, int)
    return found


def asking(t: str | int = 0, zone: str = "UTC") -> ComparisonContext:
    return ComparisonContext(at(t) if isinstance(t, str) else t, zone, operator.attrgetter("value"))


def comparison(operators: dict[str, Any]) -> CompiledComparison:
    operators = dict(operators)
    return compile_comparison(operators, ignore_case=operators.pop("ignore_case", False))


@pytest.mark.parametrize(
    ("asked", "value", "expected"),
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
        # order
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
        ({"lt": 9}, BEYOND, False),
        ({"lt": "b"}, BEYOND, True),
        ({"lt": 1}, False, False),
        ({"lt": 1}, None, False),
        ({"gt": "A", "ignore_case": True}, "B", True),
        ({"between": [1, 2]}, 1, True),
        ({"between": [1, 2]}, 2, True),
        ({"between": [1, 2]}, Decimal("2." + "0" * 50 + "1"), False),
        ({"between": [1, 2]}, Fraction(5, 2), False),
        ({"gte": 1, "lt": 2}, 2, False),
        ({"gte": 1, "lt": 2}, 1, True),
        # arrays and text
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
        # patterns
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
def test_what_depends_on_the_value_alone(asked, value, expected):
    compared = comparison(asked)
    assert compared.static_test is not None
    assert compared.static_test(value) is expected
    assert compared.holds(value, asking()) is expected
    assert compared.next_check_at(value, asking()) is None
    assert not compared.uses_zone()
    assert compared.dynamic_operands == ()


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("(a+)+$", "a" * 8_191 + "b", False),
        ("(a+)+$", "b" + "a" * 8_191, True),
        ("(.*)*x", "a" * 8_192, False),
        ("(.*)*x", "a" * 8_191 + "x", True),
        # a longer text matches nothing: part of it might match what the whole does not
        ("(.*)*x", "a" * 8_192 + "x", False),
        ("^a*$", "a" * 8_193, False),
        ("(x+x+)+y", "x" * 8_192, False),
        ("(a|aa|a?)*b", "a" * 8_192, False),
        # more states than fit into the memory of a pattern: slower, but right
        ("[ab]*a[ab]{400}c", "ab" * 4_096, False),
        ("[ab]*a[ab]{400}c", "ab" * 4_095 + "bc", True),
        ("(.*)*x", "é" * 4_096, False),
    ],
)
def test_hostile_patterns_end(pattern, text, expected):
    static = comparison({"matches": pattern}).static_test
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
def test_patterns_are_refused_where_they_are_defined(pattern, reason):
    found = find_pattern_error(pattern)
    assert (found is None) if reason is None else (found is not None and reason in found)


NEGATIVES = {"eq": "ne", "in_": "not_in", "contains": "not_contains", "any_of": "none_of"}
VALUES = [None, True, 1, "1", "a", "", Fraction(1, 3), [], ["a", 1], [None], {}, {"a": 1}]


@pytest.mark.parametrize("positive", NEGATIVES)
@pytest.mark.parametrize("ignore_case", [False, True])
def test_negatives_are_exact_complements(positive, ignore_case):
    for operand in (1, "a", True):
        given: Any = [operand] if positive in ("in_", "any_of") else operand
        one = compile_comparison({positive: given}, ignore_case=ignore_case)
        other = compile_comparison({NEGATIVES[positive]: given}, ignore_case=ignore_case)
        for value in VALUES:
            assert one.holds(value, asking()) is not other.holds(value, asking())
    if positive in ("eq", "contains"):
        for dynamic in map(Given, VALUES):
            one, other = comparison({positive: dynamic}), comparison({NEGATIVES[positive]: dynamic})
            for value in VALUES:
                assert one.holds(value, asking()) is not other.holds(value, asking())


@pytest.mark.parametrize(
    ("asked", "operand", "value", "expected"),
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
def test_operands_that_are_worked_out(asked, operand, value, expected):
    dynamic = Given(operand)
    compared = comparison({asked: dynamic})
    assert compared.holds(value, asking()) is expected
    assert compared.static_test is None
    assert compared.dynamic_operands == (dynamic,)
    assert compared.next_check_at(value, asking()) is None
    assert not compared.uses_zone()


def test_case_is_folded_in_operands_that_are_worked_out():
    assert comparison({"eq": Given("STRASSE"), "ignore_case": True}).holds("straße", asking())
    assert not comparison({"eq": Given("STRASSE")}).holds("straße", asking())


@pytest.mark.parametrize(
    ("operand", "value", "zone", "is_after", "is_before"),
    [
        ("2024-03-10T00:00:00Z", "2024-03-10T00:00:00.000001Z", "UTC", True, False),
        ("2024-03-10T00:00:00Z", "2024-03-10T00:00:00Z", "UTC", False, False),
        ("2024-03-10T00:00:00Z", "2024-03-09T23:59:59.999999Z", "UTC", False, True),
        # a date alone is its first local instant, on either side
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
        (Given("2024-03-10"), "2024-03-10T05:00:00.000001Z", NEW_YORK, True, False),
        (Given("2024-03-10"), "2024-03-10T04:59:59.999999Z", NEW_YORK, False, True),
        (Given(0), -1, "UTC", False, True),
        (Given(None), 1, "UTC", False, False),
        (Given("soon"), 1, "UTC", False, False),
    ],
)
def test_after_and_before_are_strict(operand, value, zone, is_after, is_before):
    after, before = comparison({"after": operand}), comparison({"before_date": operand})
    assert after.holds(value, asking(0, zone)) is is_after
    assert before.holds(value, asking(0, zone)) is is_before
    assert after.static_test is None
    assert after.next_check_at(value, asking(0, zone)) is None
    assert after.dynamic_operands == ((operand,) if isinstance(operand, Given) else ())


@pytest.mark.parametrize(
    ("asked", "value", "zone", "begin", "end"),
    [
        ({"within_last": "1d"}, "2024-03-10T05:00:00Z", NEW_YORK, "2024-03-10T05:00:00Z", "2024-03-11T05:00:00Z"),
        ({"within_last": "1ms"}, 0, "UTC", "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.001Z"),
        ({"within_last": "1mo"}, "2024-02-10", NEW_YORK, "2024-02-10T05:00:00Z", "2024-03-10T05:00:00Z"),
        ({"within_last": "1mo"}, "2024-02-12", NEW_YORK, "2024-02-12T05:00:00Z", "2024-03-12T04:00:00Z"),
        ({"within_last": "1y"}, "2024-02-29", "UTC", "2024-02-29T00:00:00Z", "2025-02-28T00:00:00Z"),
        ({"within_last": "1mo"}, "2011-11-30", APIA, "2011-11-30T10:00:00Z", "2011-12-30T10:00:00Z"),
        ({"within_last": "1mo"}, "9998-12-31", "UTC", "9998-12-31T00:00:00Z", "9999-01-31T00:00:00Z"),
        # v is outside at v itself, and inside exactly the length before
        ({"within_next": "1d"}, "2024-03-11T04:00:00Z", NEW_YORK, "2024-03-10T04:00:00Z", "2024-03-11T04:00:00Z"),
        ({"within_next": "1d"}, "2024-03-11", NEW_YORK, "2024-03-10T04:00:00Z", "2024-03-11T04:00:00Z"),
        ({"within_next": "1mo"}, "2024-03-12", NEW_YORK, "2024-02-12T05:00:00Z", "2024-03-12T04:00:00Z"),
        # 29 to 31 March are the month after no day of February: 1 March reaches over them at its midnight
        ({"within_next": "1mo"}, "2023-03-30T12:00:00Z", "UTC", "2023-03-01T00:00:00Z", "2023-03-30T12:00:00Z"),
        ({"within_next": "1y"}, "1971-03-01", "UTC", "1970-03-01T00:00:00Z", "1971-03-01T00:00:00Z"),
        ({"within_next": "1mo"}, "9998-12-31", "UTC", "9998-12-01T00:00:00Z", "9998-12-31T00:00:00Z"),
        ({"anniversary_within": "7d"}, "1990-05-10", LISBON, "2024-05-02T23:00:00Z", "2024-05-10T23:00:00Z"),
        ({"anniversary_within": "1mo"}, "1990-03-12", NEW_YORK, "2024-02-12T05:00:00Z", "2024-03-13T04:00:00Z"),
    ],
)
def test_dates_near_now(asked, value, zone, begin, end):
    compared = comparison(asked)
    assert compared.static_test is None
    assert not compared.holds(value, asking(at(begin) - 1, zone))
    assert compared.next_check_at(value, asking(at(begin) - 1, zone)) == at(begin)
    assert compared.holds(value, asking(begin, zone))
    assert compared.next_check_at(value, asking(begin, zone)) == at(end)
    assert compared.holds(value, asking(at(end) - 1, zone))
    assert not compared.holds(value, asking(end, zone))
    following = compared.next_check_at(value, asking(end, zone))
    assert (following is None) is ("anniversary_within" not in asked)


def test_a_clipped_month_may_reach_a_date_lose_it_and_reach_it_again():
    # 30 January 23:00 reaches 28 February 23:00, but an hour later the 31st begins with 28 February 00:00
    compared, value = comparison({"within_next": "1mo"}), "2023-02-28T12:00:00Z"
    found = []
    t = at("2023-01-01T00:00:00Z")
    while (following := compared.next_check_at(value, asking(t))) is not None:
        t = following
        found.append((t, compared.holds(value, asking(t))))
    assert found == [
        (at("2023-01-28T12:00:00Z"), True),
        (at("2023-01-29T00:00:00Z"), False),
        (at("2023-01-29T12:00:00Z"), True),
        (at("2023-01-30T00:00:00Z"), False),
        (at("2023-01-30T12:00:00Z"), True),
        (at("2023-01-31T00:00:00Z"), False),
        (at("2023-01-31T12:00:00Z"), True),
        (at(value), False),
    ]


@pytest.mark.parametrize("asked", ["within_last", "within_next", "anniversary_within"])
@pytest.mark.parametrize("value", [None, "", "soon", "5", True, [], "0000-01-01"])
def test_what_is_no_date_is_never_near(asked, value):
    compared = comparison({asked: "1mo"})
    assert not compared.holds(value, asking())
    assert compared.next_check_at(value, asking()) is None


def test_operators_together():
    compared = comparison({"within_next": "2d", "after": "2024-05-10", "ne": Given("2024-05-12")})
    assert compared.static_test is None
    assert len(compared.dynamic_operands) == 1
    assert compared.holds("2024-05-11", asking("2024-05-10T00:00:00Z"))
    assert compared.next_check_at("2024-05-11", asking(0)) == at("2024-05-09T00:00:00Z")
    # what another operator rules out, time does not bring
    assert compared.next_check_at("2024-05-10", asking(0)) is None
    assert compared.next_check_at("2024-05-12", asking(0)) is None
    # nor does it bring back what is over
    both = comparison({"within_last": "1d", "anniversary_within": "1d"})
    assert both.next_check_at("2024-05-10", asking("2024-06-01T00:00:00Z")) is None


@pytest.mark.parametrize(
    ("asked", "always", "for_instants"),
    [
        ({"eq": "2024-05-10"}, False, False),
        ({"gt": Given(1)}, False, False),
        ({"after": "2024-05-10T00:00:00Z"}, True, False),
        ({"after": "2024-05-10"}, True, True),
        ({"before_date": Given("2024-05-10")}, True, True),
        ({"within_last": "30d"}, True, False),
        ({"within_next": "1mo"}, True, True),
        ({"anniversary_within": "1d"}, True, True),
        ({"exists": True, "within_last": "1y"}, True, True),
    ],
)
def test_what_depends_on_a_zone(asked, always, for_instants):
    assert comparison(asked).uses_zone() is always
    assert comparison(asked).uses_zone(values_may_be_dates=False) is for_instants
