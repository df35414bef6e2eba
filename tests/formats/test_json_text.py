"""Tests of the JSON text checks, each against a slow and simple implementation."""

from __future__ import annotations

import json
import random
import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidBody
from app.formats import json_text

ESCAPES = st.sampled_from(
    ["\\ud83d", "\\ude00", "\\u0000", "\\\\", "\\\\\\\\", '\\"', "u0000", "ud83d", "{", "]", "a", "\\n"]
)
STRINGS = st.lists(ESCAPES, max_size=12).map("".join)


def as_loaded(text: str) -> Any:
    return json.loads(f'"{text}"')


@given(STRINGS)
def test_lone_surrogates_become_nul_and_pairs_stay(text: str) -> None:
    repaired = json_text.replace_lone_surrogates(f'"{text}"'.encode())
    expected = "".join("\0" if "\ud800" <= char <= "\udfff" else char for char in as_loaded(text))
    assert len(repaired) == len(text) + 2
    assert json.loads(repaired) == expected
    assert json_text.decode_text(repaired) == expected


@given(STRINGS)
def test_nul_becomes_the_replacement_character(text: str) -> None:
    assert json.loads(json_text.replace_nul(f'"{text}"'.encode())) == as_loaded(text).replace("\0", "\ufffd")


NUMBERS = st.builds(
    lambda sign, whole, fraction, exponent: f"{sign}{whole}{fraction}{exponent}",
    st.sampled_from(["", "-"]),
    st.sampled_from(["7", "9" * 149, "9" * 200, "9" * 399, "9" * 400, "9" * 401]),
    st.sampled_from(["", ".5", "." + "3" * 149, "." + "3" * 300]),
    st.sampled_from(["", "e5", "E+99", "e-99", "e399", "e400", "e-398", "e-400", "e007"]),
)


@given(NUMBERS)
def test_holds_long_number_agrees_with_decimal(number: str) -> None:
    written_out = f"{Decimal(number):f}"
    long = sum(char.isdigit() for char in written_out) > 400
    raw = f'{{"a":[{number}],"1e999":"1e999, 1e999"}}'.encode()
    assert json_text.holds_long_number(raw) == long
    assert json_text.may_hold_long_number(raw) or not long


@pytest.mark.parametrize(
    ("number", "long"),
    [
        ("1e399", False),
        ("1e400", True),
        ("1e-399", False),
        ("1e-400", True),
        ("-1E+400", True),
        ("9" * 400, False),
        ("9" * 401, True),
        ("0." + "1" * 399, False),
        ("0." + "1" * 400, True),
        ("9" * 301 + "e99", False),
        ("9" * 302 + "e99", True),
        ("1e0000000000005", True),
        ("1e005", False),
        ("1e99999999999999999999", True),
    ],
)
def test_number_length_limit(number: str, long: bool) -> None:
    raw = f'{{"a": {number}}}'.encode()
    assert json_text.holds_long_number(raw) is long
    assert json_text.may_hold_long_number(raw) or not long


def test_numbers_inside_text_do_not_count() -> None:
    assert not json_text.holds_long_number(b'{"id":"1e999","b":"\\",1e999,\\""}')


def nested(depth: int) -> bytes:
    return b'{"a":' * (depth // 2) + b"[" * (depth % 2) + b"1" + b"]" * (depth % 2) + b"}" * (depth // 2)


VALUES = st.recursive(
    st.none() | st.text(st.sampled_from('{}[]"\\a'), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.sampled_from('{["'), max_size=2), inner, max_size=3)
    ),
    max_leaves=20,
)


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


@given(VALUES, st.integers(0, 6))
def test_is_deeper_agrees_with_a_recursive_count(value: Any, levels: int) -> None:
    assert json_text.is_deeper(json.dumps(value).encode(), levels) == (depth_of(value) > levels)


@given(VALUES, st.integers(1, 4))
def test_truncated_depth_keeps_offsets_and_one_level_too_many(value: Any, levels: int) -> None:
    raw = json.dumps(value).encode()
    cut = json_text.truncate_depth(raw, levels)
    assert len(cut) == len(raw)
    assert depth_of(json.loads(cut)) == min(depth_of(value), levels + 1)


def test_add_missing_keeps_present_members() -> None:
    raw = b'{"a":1.50,"b":null}'
    assert json_text.add_missing(raw, {"a": b"2", "b": b"3", "c": b"4"}) == b'{"a":1.50,"b":3,"c":4}'


def test_body_with_too_many_values_is_refused_before_it_is_parsed() -> None:
    for separator in (b",", b"\n"):
        with pytest.raises(InvalidBody, match="split it"):
            json_text.refuse_dense(b"[" + b"7" + (separator + b"7") * 200_001 + b"]")
    json_text.refuse_dense(b"[" + b"7" + b",7" * 200_000 + b"]")


def test_lone_surrogates_of_a_long_text_are_replaced_without_dividing_pairs() -> None:
    """A long text is repaired in pieces. Wherever a piece ends, the result is that of one expression."""
    rng = random.Random(5)
    pieces = [r"\ud83d\ude00", r"\ud83d", r"\ude00", "x", r"\\", r"\\ud800", r"\u00e4"]
    for weights in ([1, 1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0]):
        text = "".join(rng.choices(pieces, weights, k=60_000)).encode()
        masked = text.replace(rb"\\", b"\xff\xff")
        lone = rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F].."
        expected = re.sub(lone, rb"\\u0000", masked).replace(b"\xff\xff", rb"\\")
        assert json_text.replace_lone_surrogates(text) == expected
