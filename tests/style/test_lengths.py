"""Limits on the length of functions and modules."""

from __future__ import annotations

import ast
from typing import Final

from tests.support.source_tree import source_modules

FUNCTION_LINES_MAX: Final = 70
MODULE_LINES_MAX: Final = 500


def test_functions_are_short() -> None:
    too_long = [
        f"{module.path}:{node.lineno} {node.name} has {length} lines"
        for module in source_modules().values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]
    assert too_long == [], f"split these functions; the limit is {FUNCTION_LINES_MAX} lines"


def test_modules_are_short() -> None:
    too_long = [
        f"{module.path} has {length} lines"
        for module in source_modules().values()
        if (length := len(module.source.splitlines())) > MODULE_LINES_MAX
    ]
    assert too_long == [], f"split these modules; the limit is {MODULE_LINES_MAX} lines"
