"""Docstrings of packages, and modules that belong to no package."""

from __future__ import annotations

import ast
import re
from typing import Final

from tests.support.source_tree import source_modules

LOOSE: Final = {"__main__", "config", "errors", "main", "openapi", "touchpoint"}
"""Modules directly in ``app/``: entry points, the OpenAPI document, and modules that every layer may import."""


def test_package_docstrings_describe_the_hidden_details() -> None:
    silent = {
        module.name
        for module in source_modules().values()
        if module.is_package and not re.search(r"\bHides? \w", ast.get_docstring(module.tree) or "")
    }
    assert silent == set(), 'write a docstring: a noun phrase, then "Hides ..." with what users need not know'


def test_docstrings_of_packages_start_with_a_noun_phrase() -> None:
    clauses = {
        module.name: first
        for module in source_modules().values()
        if module.is_package
        and re.match(r"(?:what|how|where|who|why|which|when)\b", first := ast.get_docstring(module.tree) or "", re.I)
    }
    assert clauses == {}, "start with a noun phrase that names the package's content"


def test_modules_are_in_packages() -> None:
    loose = {name.removeprefix("app.") for name, module in source_modules().items() if module.path.parent.name == "app"}
    assert loose == LOOSE | {"app"}, "move the module into a package"


def test_folders_with_modules_are_packages() -> None:
    packages = {module.path.parent for module in source_modules().values() if module.is_package}
    assert {module.path.parent for module in source_modules().values()} - packages == set(), "add an __init__.py"
