"""A name of a module or of a public class means one thing."""

from __future__ import annotations

import ast
from collections import defaultdict
from typing import Final

from tests.support.source_tree import source_modules

LAYERS: Final = {
    "app.api": "the routes of a resource",
    "app.api.schemas": "the published shapes of that resource",
    "app.queries": "the statements that answer its reads",
    "app.insight": "what is computed about it from the log",
    "app.imports": "files that contain it",
    "app.formats": "the bodies in which an SDK sends it",
    "app.privacy": "its personal data",
    "app.registry": "what the process knows of it",
    "app.rules.language": "its JSON form",
}
"""Packages in which one base name is one thing, each time for another layer."""


def test_base_names_of_modules_are_unique_but_for_layers() -> None:
    packages = defaultdict(list)
    for module in source_modules().values():
        if not module.is_package:
            packages[module.path.stem].append(module.package)
    repeated = {name: names for name, names in packages.items() if len(names) > 1}
    clashing = {name: names for name, names in repeated.items() if not LAYERS.keys() >= set(names)}
    assert clashing == {}, "rename one: a base name says what its module holds, without its folder"
    used = {package for names in repeated.values() for package in names}
    assert LAYERS.keys() == used, "remove a layer that repeats no name"


def test_names_of_public_classes_are_unique() -> None:
    modules = defaultdict(list)
    for module in source_modules().values():
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                modules[node.name].append(module.name)
    repeated = {name: names for name, names in modules.items() if len(names) > 1}
    assert repeated == {}, "rename one: a reader who meets the name has not seen the import"
