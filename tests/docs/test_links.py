"""Links, files, tests and functions that the pages mention exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.docs.markdown import PAGES, README, ROOT, anchors, links, name_of, prose, read

pages = pytest.mark.parametrize("page", PAGES, ids=name_of)


@pages
def test_link_targets_exist(page: Path) -> None:
    for label, target in links(page):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_relative_to(ROOT), target
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target
        if file.is_relative_to(ROOT / "tests" / "connectors" / "tools"):
            assert re.search(r"^FIXTURES?\b.* = ", read(file), re.MULTILINE), target
        elif file.is_relative_to(ROOT / "tests") and file.suffix == ".py":
            test = label.strip("`")
            assert re.search(rf"^(async )?def {re.escape(test)}\(", read(file), re.MULTILINE), f"{target}: no {test}"


def test_every_promise_of_the_readme_links_a_test() -> None:
    section = read(README).split("## What is promised")[1].split("\n## ")[0]
    promises = [line for line in section.splitlines() if line.startswith("| **")]
    assert len(promises) == 7
    for promise in promises:
        assert "](tests/" in promise.split("|")[2], promise


@pages
def test_mentioned_files_exist(page: Path) -> None:
    for path in re.findall(r"`((?:app|bench|docs|examples|migrations|openapi|tests)/[\w./-]*)`", prose(page)):
        assert (ROOT / path).exists(), path


@pages
def test_mentioned_functions_exist(page: Path) -> None:
    """Pages write a function, method or class of the package ``app`` as ``a.b.c()``."""
    for dotted in re.findall(r"`([a-zA-Z_]+(?:\.[a-zA-Z_]+)+)\(\)`", prose(page)):
        assert callable(_resolve(dotted)), dotted


def _resolve(dotted: str) -> Any:
    target: Any = importlib.import_module("app")
    for name in dotted.split("."):
        if isinstance(target, ModuleType) and not hasattr(target, name):
            importlib.import_module(f"{target.__name__}.{name}")
        target = getattr(target, name)
    return target


@pages
def test_pages_contain_no_local_path_and_no_real_key(page: Path) -> None:
    text = read(page)
    assert not re.findall(r"(?:^|[\s`\"'(=])/(?:home|root|work|tmp|Users|mnt|var/folders)\b[^\s`]*", text)
    assert not re.findall(r"\b[wsk]k_[1-9A-HJ-NP-Za-km-z]{32}\b", text), "a real key"


def test_decisions_are_short() -> None:
    for page in (ROOT / "docs" / "decisions").glob("*.md"):
        assert len(read(page).splitlines()) <= 30, page.name
        assert max(map(len, read(page).splitlines())) <= 200 or "|" in read(page), page.name


def test_architecture_page_lists_every_table() -> None:
    from app.postgres.schema import metadata

    text = read(ROOT / "docs" / "architecture.md")
    for table in metadata.tables:
        assert f"`{table}`" in text, table
