"""Log events have keys such as ``flush.failed``: a noun and a verb in the past tense. Details are passed as fields."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Final

from tests.support.source_tree import source_modules

METHODS: Final = {"debug", "info", "warning", "error", "exception", "critical"}
KEY: Final = re.compile(r"[a-z]+(_[a-z]+)*\.([a-z]+_)*[a-z]+ed")


def log_calls() -> Iterator[tuple[str, ast.Call]]:
    for module in source_modules().values():
        for node in ast.walk(module.tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in METHODS
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id in ("log", "_log")
            ):
                yield f"{module.name}:{node.lineno}", node


def test_log_events_have_a_noun_and_a_past_tense_verb() -> None:
    calls = list(log_calls())
    assert len(calls) > 20
    wrong = [
        (place, ast.unparse(call.args[0]))
        for place, call in calls
        if not (isinstance(call.args[0], ast.Constant) and KEY.fullmatch(str(call.args[0].value)))
    ]
    assert wrong == []


def test_log_events_have_no_positional_details() -> None:
    """Values must be fields, so that a program can filter log lines by them."""
    assert [place for place, call in log_calls() if len(call.args) > 1] == []
