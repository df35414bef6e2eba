"""Tests of comparisons and paths in ``where``, of trait names, and of dates in a timezone."""

from __future__ import annotations

from typing import Any

import pytest

from app.rules.engine.series import Series
from app.rules.engine.touchpoint_view import TouchpointView
from tests.support.rule_engine import CustomerFacts, compiled, segment

LONG = "1" + "0" * 399


@pytest.mark.parametrize(
    ("comparison", "value", "expected"),
    [
        # Types: eq compares strictly, and numbers are exact.
        ({"eq": 1}, "1", True),
        ({"eq": 1}, "1.0", True),
        ({"eq": 1}, '"1"', False),
        ({"eq": "1"}, "1", False),
        ({"eq": 1}, "true", False),
        ({"eq": True}, "1", False),
        ({"eq": True}, "true", True),
        ({"eq": False}, "0", False),
        ({"eq": 9007199254740993}, "9007199254740993", True),
        ({"eq": 9007199254740993}, "9007199254740992", False),
        ({"eq": 0.1}, "0.1", True),
        ({"eq": 0.1}, "0.1000000000000000055511151231257827", False),
        ({"eq": "a"}, '["a"]', False),
        ({"eq": "a"}, '{"a": "a"}', False),
        ({"in": [1, "a", True]}, "1.0", True),
        ({"in": [1, "a"]}, "true", False),
        ({"in": [1, "a"]}, '["a"]', False),
        ({"in": [True]}, "1", False),
        # Missing values.
        ({"eq": 0}, "null", False),
        ({"ne": 0}, "null", True),
        ({"not_in": [0]}, "null", True),
        ({"not_contains": "a"}, "null", True),
        ({"lt": 1}, "null", False),
        ({"exists": False}, "null", True),
        ({"exists": True}, "null", False),
        ({"exists": True}, "false", True),
        ({"exists": True}, "[]", True),
        ({"exists": True, "ne": "x"}, "null", False),
        # Order comparisons.
        ({"gt": 9}, "10", True),
        ({"gt": 9}, '"10"', True),
        ({"gt": "9"}, '"10"', True),
        ({"gt": "9"}, "10", True),
        ({"gt": 9}, '"1e1"', True),
        ({"gt": 9}, '" 10"', False),
        ({"gt": 9}, '"010"', False),
        ({"gt": 9}, '"+10"', False),
        ({"gt": 9}, '"0x10"', False),
        ({"gt": 9}, '"NaN"', False),
        ({"gt": 9}, '"Infinity"', False),
        ({"gt": 9}, '"\u0661\u0660"', False),
        ({"gt": 9}, f'"{LONG}"', True),
        ({"gt": 9}, f'"{LONG}0"', False),
        ({"gt": 9}, '"1e399"', True),
        ({"gt": 9}, '"1e400"', False),
        ({"gt": 9}, '"1e999999999999999999999"', False),
        ({"gte": -1}, '"1e-399"', True),
        ({"gte": -1}, '"1e-400"', False),
        ({"gt": 9}, "true", False),
        ({"lte": 9}, "false", False),
        ({"gt": 9}, "[10]", False),
        ({"gt": "b"}, '"c"', True),
        ({"gt": "b"}, '"C"', False),
        ({"gt": "b"}, "10", False),
        ({"gt": "b"}, '"10"', False),
        ({"lt": "b"}, '"10"', False),
        ({"gt": "Z"}, '"é"', True),
        ({"gt": "\uffff"}, '"\U0001f600"', True),
        ({"gt": 9007199254740992}, "9007199254740993", True),
        ({"between": [1, 2]}, "1", True),
        ({"between": [1, 2]}, "2.0", True),
        ({"between": [1, 2]}, "2.0000000000000000000000000000001", False),
        ({"between": ["a", "c"]}, '"b"', True),
        ({"between": ["A", "C"], "ignore_case": True}, '"b"', True),
        # Arrays and text.
        ({"contains": 1}, "[2, 1.0]", True),
        ({"contains": 1}, '["1", true]', False),
        ({"contains": "er"}, '"serum"', True),
        ({"contains": "er"}, '["serum"]', False),
        ({"contains": "serum"}, '["serum"]', True),
        ({"contains": 1}, '"1"', False),
        ({"contains": True}, "[true]", True),
        ({"not_contains": 1}, "5", True),
        ({"contains": "a"}, '{"a": 1}', False),
        ({"starts_with": "se"}, '"serum"', True),
        ({"starts_with": "se"}, '["serum"]', False),
        ({"ends_with": "um"}, '"serum"', True),
        ({"ends_with": "1"}, "11", False),
        # Upper and lower case.
        ({"eq": "STRASSE", "ignore_case": True}, '"straße"', True),
        ({"eq": "STRASSE"}, '"strasse"', False),
        ({"ne": "X", "ignore_case": True}, '"x"', False),
        ({"in": ["PRO", 1], "ignore_case": True}, '"Pro"', True),
        ({"in": ["PRO", 1], "ignore_case": True}, "1", True),
        ({"contains": "Serum", "ignore_case": True}, '["a", "SERUM"]', True),
        ({"starts_with": "SE", "ignore_case": True}, '"serum"', True),
    ],
)
def test_comparison_in_filter(comparison: dict[str, Any], value: str, expected: bool) -> None:
    rules = compiled(segment("s", {"did": "A", "where": {"p": comparison}}))
    assert bool(rules.match_leaves(TouchpointView("A", "web", "s", 0, f'{{"p": {value}}}'.encode()))) == expected


@pytest.mark.parametrize(
    ("path", "is_readable"),
    [
        ("a", True),
        ("a.b", True),
        ("c.d", True),
        ("c.d.e", False),
        ("e.f", True),
        ("g.0", False),
        ("context.page.path", True),
        ("context.ip", True),
        ("traits.plan", True),
        ("traits.x.y", True),
        ("properties.a", False),
        ("context", False),
        ("context.a", False),
        ("nothing.here", False),
    ],
)
def test_path_in_filter(path: str, is_readable: bool) -> None:
    properties = b'{"a": 0, "a.b": 1, "c": {"d": 2}, "e.f": null, "e": {"f": 3}, "g": [1]}'
    context = b'{"page": {"path": "/"}, "ip": "::1"}'
    rules = compiled(segment("s", {"did": "A", "where": {path: {"exists": True}}}))
    item = TouchpointView("A", "web", "s", 0, properties, context, b'{"plan": "pro", "x.y": false}')
    assert bool(rules.match_leaves(item)) == is_readable


def test_trait_exact_name_precedes_path() -> None:
    rules = compiled(segment("s", {"trait": "a.b", "eq": 1}))
    for traits, expected in (
        ({"a.b": 1}, True),
        ({"a": {"b": 1}}, True),
        ({"a.b": 2, "a": {"b": 1}}, False),
        ({"a": {"b": None}}, False),
        ({"a": [1]}, False),
        ({}, False),
    ):
        assert rules.holds("segment:s", CustomerFacts({}, traits), 0) == expected


def test_date_bound_uses_customer_timezone() -> None:
    rules = compiled(segment("s", {"did": "A", "from": "2024-01-01", "to": "2024-01-02"}), timezone="Asia/Kolkata")
    (leaf,) = rules.leaves.values()
    evening = 1_704_049_200_000_000  # 2023-12-31T19:00Z
    series = Series()
    series.add(evening, leaf.retention, 256)
    for zone, expected in (
        (None, True),
        ("UTC", False),
        ("Pacific/Kiritimati", True),
        ("America/New_York", False),
        ("Mars/Base", True),
        (7, True),
        (["UTC"], True),
    ):
        assert rules.holds("segment:s", CustomerFacts({leaf.id: series}, {"timezone": zone}), evening) == expected
