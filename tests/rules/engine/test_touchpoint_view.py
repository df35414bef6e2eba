"""Tests of reading paths from a touchpoint, which parses JSON only if the key can be in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.rules.engine.touchpoint_view import TouchpointView, compile_path, get_by_path


def touchpoint_with_context(context: bytes) -> TouchpointView:
    return TouchpointView("page_viewed", "web", "site", 0, context=context)


@pytest.mark.parametrize(
    ("context", "path", "value"),
    [
        (b'{"a":{"b":1}}', "a.b", 1),
        (b'{"a.b":2}', "a.b", 2),
        (b'{"a.b":null,"a":{"b":3}}', "a.b", 3),
        (b'{"\\u0061":{"\\u0062":4}}', "a.b", 4),
        (b'{"x":"a"}', "a", None),
        (b'{"ab":1}', "a", None),
        ('{"größe":5}'.encode(), "größe", 5),
        (b'{"gr\\u00f6\\u00dfe":5}', "größe", 5),
        (b'{"say \\"hi\\"":6}', 'say "hi"', 6),
        (b"", "a", None),
    ],
)
def test_path_reads_value(context: bytes, path: str, value: Any) -> None:
    assert compile_path(f"context.{path}")(touchpoint_with_context(context)) == value


def test_missing_key_is_not_parsed() -> None:
    touchpoint = touchpoint_with_context(b'{"page":{"url":"https://example.com/"}}')
    assert compile_path("context.acquisition.group")(touchpoint) is None
    assert touchpoint._parsed == {}


KEYS = st.sampled_from(["a", "b", "a.b", 'q"', "é", "\\", "a\n"])


@given(
    content=st.dictionaries(KEYS, st.integers() | st.dictionaries(KEYS, st.integers(), max_size=2), max_size=3),
    path=st.lists(KEYS, min_size=1, max_size=2).map(".".join),
    escaped=st.booleans(),
)
def test_path_reads_same_value_as_full_parse(content: dict[str, Any], path: str, escaped: bool) -> None:
    context = json.dumps(content, ensure_ascii=escaped).encode()
    assert compile_path(f"context.{path}")(touchpoint_with_context(context)) == get_by_path(
        content, path, tuple(path.split("."))
    )
