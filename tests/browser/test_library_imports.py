"""Import cycles between the modules of the browser library."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import pytest

from app.browser import build
from app.browser.build import SOURCES, import_circle, source_imports


def test_library_modules_have_no_import_cycle() -> None:
    assert import_circle(source_imports(SOURCES)) == []


def test_source_imports_finds_every_module() -> None:
    imports = source_imports(SOURCES)
    assert imports["settings.js"] == set()
    assert {"capture.js", "delivery.js", "settings.js"} <= imports["main.js"]
    assert set().union(*imports.values()) == set(imports) - {"main.js"}


@pytest.mark.parametrize(
    ("imports", "circle"),
    [
        ({"a.js": {"b.js", "c.js"}, "b.js": {"c.js"}, "c.js": set()}, []),
        ({"a.js": {"a.js"}}, ["a.js", "a.js"]),
        ({"a.js": {"b.js"}, "b.js": {"c.js"}, "c.js": {"d.js"}, "d.js": {"b.js"}}, ["b.js", "c.js", "d.js", "b.js"]),
    ],
)
def test_import_cycle_follows_the_imports(imports: dict[str, set[str]], circle: list[str]) -> None:
    result = import_circle(imports)
    assert set(result) == set(circle)
    assert len(result) == len(circle)
    assert all(right in imports[left] for left, right in pairwise(result))


@pytest.mark.parametrize("arguments", [[], ["--check"]])
def test_build_reports_the_import_cycle(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "main.js").write_text("import { track } from './clicks.js';\n")
    (tmp_path / "clicks.js").write_text("import {\n  send,\n} from './messages.js';\n")
    (tmp_path / "messages.js").write_text('export * from "./clicks.js";\n')
    monkeypatch.setattr(build, "SOURCES", tmp_path)
    monkeypatch.setattr(sys, "argv", ["build", *arguments])
    with pytest.raises(SystemExit, match=r"clicks\.js -> messages\.js -> clicks\.js|messages\.js -> clicks\.js -> "):
        build.main()
