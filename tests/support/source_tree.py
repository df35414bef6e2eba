"""Syntax trees of the modules of ``app/``, for style tests. No module is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]


class SourceModule(NamedTuple):
    """One Python file. ``name`` is its dotted name; for ``__init__.py`` it is the name of the package."""

    name: str
    path: Path
    source: str
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def package(self) -> str:
        """The package that contains this module. For a package, it is the package itself."""
        return self.name if self.is_package else self.name.rpartition(".")[0]


@cache
def source_modules() -> dict[str, SourceModule]:
    modules = (_read(path) for path in sorted((ROOT / "app").rglob("*.py")))
    return {module.name: module for module in modules}


def _read(path: Path) -> SourceModule:
    parts = path.relative_to(ROOT).with_suffix("").parts
    source = path.read_text(encoding="utf-8")
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return SourceModule(name, path, source, ast.parse(source))


@cache
def imports_of(module: SourceModule) -> frozenset[str]:
    """Return the names of all ``app`` modules that a module imports, even in functions or only for types."""
    names = {name for node in ast.walk(module.tree) for name in _targets(node) if name in source_modules()}
    return frozenset(names - {module.name})


def _targets(node: ast.AST) -> Iterator[str]:
    """Yield the imported modules. ``from a import b`` imports module ``a.b`` if it exists, else ``a``."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module is not None:
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            yield inner if inner in source_modules() else node.module


def cycles(graph: Mapping[str, AbstractSet[str]]) -> list[list[str]]:
    """Return the cycles of the graph as sorted groups of nodes that can reach each other."""
    reached = {node: _reachable(graph, node) for node in graph}
    groups = {
        frozenset(other for other in reached[node] if node in reached[other]) for node in graph if node in reached[node]
    }
    return sorted(sorted(group) for group in groups)


def _reachable(graph: Mapping[str, AbstractSet[str]], start: str) -> set[str]:
    """Return the nodes that can be reached from ``start`` over at least one edge."""
    reached: set[str] = set()
    pending = [start]
    while pending:
        new = graph.get(pending.pop(), frozenset()) - reached
        reached |= new
        pending.extend(new)
    return reached
