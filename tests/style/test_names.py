"""Uniqueness of the names of modules and public classes."""

from __future__ import annotations

import ast
from collections import defaultdict
from typing import Final

from tests.support.source_tree import source_modules

LAYERS: Final = {
    "app.api": "the routes of a resource",
    "app.api.schemas": "its published schemas",
    "app.queries": "its read queries",
    "app.insight": "its analysis from the log",
    "app.imports": "import of files that contain it",
    "app.formats": "its request bodies",
    "app.privacy": "its personal data",
    "app.registry": "its cached definitions",
    "app.rules.language": "its JSON form",
}
"""Packages that may contain modules of the same name, because each package is another layer of the same feature."""


def test_module_names_are_unique_except_across_layers() -> None:
    packages = defaultdict(list)
    for module in source_modules().values():
        if not module.is_package:
            packages[module.path.stem].append(module.package)
    repeated = {name: names for name, names in packages.items() if len(names) > 1}
    clashing = {name: names for name, names in repeated.items() if not LAYERS.keys() >= set(names)}
    assert clashing == {}, "rename one: the name must be clear without its folder"
    used = {package for names in repeated.values() for package in names}
    assert LAYERS.keys() == used, "remove layers that share no name"


def test_public_class_names_are_unique() -> None:
    modules = defaultdict(list)
    for module in source_modules().values():
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                modules[node.name].append(module.name)
    repeated = {name: names for name, names in modules.items() if len(names) > 1}
    assert repeated == {}, "rename one: the name must be clear without its import"
