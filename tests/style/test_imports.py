"""Import rules: no cycles between modules or packages, and FastAPI only in the outer packages."""

from __future__ import annotations

import ast
import tomllib
from typing import Any, Final

from tests.support.source_tree import ROOT, cycles, imports_of, source_modules

IMPORTLINTER: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
CONTRACTS: Final = {contract["id"]: contract for contract in IMPORTLINTER["contracts"]}
LAYERS: Final[list[str]] = CONTRACTS["one-way"]["layers"]
WEB: Final = {"fastapi", "starlette"}


def package_of(module: str) -> str:
    """Return the first two parts of a module's name: ``app.rules`` for everything in that package."""
    return ".".join(module.split(".")[:2])


def test_modules_have_no_import_cycles() -> None:
    graph = {name: imports_of(module) for name, module in source_modules().items()}
    assert cycles(graph) == [], "move what both modules need into a third one that both import"


def test_packages_have_no_import_cycles() -> None:
    graph: dict[str, set[str]] = {}
    for name, module in source_modules().items():
        graph.setdefault(package_of(name), set()).update(package_of(target) for target in imports_of(module))
    graph = {name: targets - {name, "app"} for name, targets in graph.items() if name != "app"}
    assert cycles(graph) == [], "move what both packages need into a third one that both import"


def test_subpackages_have_no_import_cycles() -> None:
    """Imports between a package and its own subpackages are not counted."""
    graph: dict[str, set[str]] = {}
    for name, module in source_modules().items():
        folder = folder_of(name)
        targets = {folder_of(target) for target in imports_of(module)}
        graph.setdefault(folder, set()).update(
            target
            for target in targets
            if not (target + ".").startswith(folder + ".") and not (folder + ".").startswith(target + ".")
        )
    assert cycles(graph) == [], "move what both packages need into a third one that both import"


def folder_of(module: str) -> str:
    """Return the package that contains a module. For a package, return the package itself."""
    modules = source_modules()
    is_package = any(other.startswith(module + ".") for other in modules)
    return module if is_package else module.rpartition(".")[0]


def test_modules_described_as_pure_are_in_the_contract() -> None:
    """If the first paragraph of a module docstring ends in "Pure.", the import contract must enforce it."""
    contract = CONTRACTS["pure"]["source_modules"]
    promised = {
        name
        for name, module in source_modules().items()
        if (ast.get_docstring(module.tree) or "").split("\n\n")[0].rstrip().endswith("Pure.")
    }
    missing = {name for name in promised if not any((name + ".").startswith(pure + ".") for pure in contract)}
    assert missing == set(), 'add them to the contract "pure" in pyproject.toml'


def test_cycles_are_detected() -> None:
    graph = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": set(), "e": {"a"}, "f": {"f"}}
    assert cycles(graph) == [["a", "b", "c"], ["f"]]


def test_every_package_has_a_layer() -> None:
    layered = [name.strip(" ()") for layer in LAYERS for name in layer.split("|")]
    assert len(layered) == len(set(layered))
    assert set(layered) == {package_of(name) for name in source_modules()} - {"app"}, (
        "add the package to a layer in pyproject.toml"
    )


def test_packages_of_one_layer_are_independent() -> None:
    assert [layer for layer in LAYERS if ":" in layer] == [], "`a : b` lets both import each other; write `a | b`"


def test_contracts_have_no_exceptions() -> None:
    keys = {"ignore_imports", "unmatched_ignore_imports_alerting", "allow_indirect_imports"}
    assert [contract["id"] for contract in CONTRACTS.values() if keys & contract.keys()] == []


def test_fastapi_is_imported_only_by_outer_packages() -> None:
    edge = {"app.api", "app.http", "app.main"}
    inside = {name for name, module in source_modules().items() if WEB & _packages_imported(module.tree)}
    assert {package_of(name) for name in inside} <= edge, "pass values to these modules, not requests or responses"
    contract = set(CONTRACTS["fastapi-at-the-edge"]["source_modules"])
    above = {"app", "app.__main__", "app.cli", "app.openapi"}
    assert {package_of(name) for name in source_modules()} - edge - above == contract, (
        "list each package in pyproject.toml"
    )


def _packages_imported(tree: ast.Module) -> set[str]:
    modules = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    modules += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {module.partition(".")[0] for module in modules}


def test_imports_are_absolute() -> None:
    relative = [
        f"{module.path}:{node.lineno}"
        for module in source_modules().values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == [], "use absolute imports: the tests above read no others"
