"""Consistency of the project files: Makefile, constraints, CI, pre-commit and licence."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()


def pinned() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.partition(";")[0].strip().split("==") for line in lines)


def test_constraints_contain_only_names_and_versions() -> None:
    line = re.compile(r'[a-z0-9][a-z0-9.-]*==[0-9][a-z0-9.]*( ; python_version [<>=]+ "3\.\d+")?')
    for text in (ROOT / "constraints.txt").read_text().splitlines():
        assert not text or text.startswith("#") or line.fullmatch(text), text


def test_every_dependency_is_pinned() -> None:
    expected = [
        *PYPROJECT["project"]["dependencies"],
        *(name for extra in PYPROJECT["project"]["optional-dependencies"].values() for name in extra),
    ]
    assert {re.split(r"[\[<>=~! ]", name)[0] for name in expected} - {PYPROJECT["project"]["name"]} <= set(pinned())


def test_installed_versions_are_the_pinned_ones() -> None:
    from importlib.metadata import distributions

    installed = {d.metadata["Name"].lower().replace("_", "-"): d.version for d in distributions()}
    differing = {
        name: (installed[name], version)
        for name, version in pinned().items()
        if name in installed and installed[name] != version
    }
    assert differing == {}


def test_console_script_exists() -> None:
    module, _, function = PYPROJECT["project"]["scripts"]["segue"].partition(":")
    source = ROOT / (module.replace(".", "/") + ".py")
    assert re.search(rf"^def {function}\b|^{function} = ", source.read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    "target",
    [
        *("help", "run", "demo", "demo-web", "test", "test-fast", "fmt", "check", "migrate"),
        *("bench", "openapi", "snippet", "clean"),
    ],
)
def test_make_target_exists_and_has_help(target: str) -> None:
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^{target}:.*## \S", MAKEFILE, re.MULTILINE), "the target needs a help text"


MODULES = sorted(set(re.findall(r"python -m ((?:app|bench|examples|tests)\b[\w.]*)", MAKEFILE)))


@pytest.mark.parametrize("module", MODULES)
def test_modules_in_the_makefile_exist(module: str) -> None:
    path = ROOT / module.replace(".", "/")
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\btests/[\w/.]+", MAKEFILE))))
def test_test_paths_in_the_makefile_exist(path: str) -> None:
    assert (ROOT / path).exists()


def test_make_reports_an_old_python(tmp_path: Path) -> None:
    done = subprocess.run(["make", "run", "PYTHON=", f"VENV={tmp_path}/venv"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr


def test_make_reports_a_missing_venv_module(tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\necho 'ensurepip is not available' >&2\nexit 1\n")
    python.chmod(0o755)
    done = subprocess.run(
        ["make", "run", f"PYTHON={python}", f"VENV={tmp_path}/venv"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "apt install python3-venv" in done.stderr


def test_ci_runs_check_and_test() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    subprocess.run(["sh", "-n", str(script)], check=True)
    assert re.findall(r"^make (\w+)", script.read_text(), re.MULTILINE) == ["check", "test"]


def test_pre_commit_runs_the_commands_of_make_check() -> None:
    (recipe,) = re.findall(r"^check:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    config = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"repo: (.+)", config) == ["local"], "checks must not download anything"
    entries = re.findall(r"entry: (.+)", config)
    assert entries == recipe.replace("\t@$(BIN)", ".venv/bin").splitlines()
    assert config.count("language: system") == config.count("pass_filenames: false") == len(entries)


def test_licence_is_complete() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_swagger_ui_is_installed() -> None:
    code = (
        "from importlib.util import find_spec; from pathlib import Path;"
        "files = Path(find_spec('fastapi_swagger').submodule_search_locations[0]) / 'resources';"
        "names = ('swagger-ui-bundle.js', 'swagger-ui.css', 'favicon-32x32.png');"
        "assert all((files / name).stat().st_size for name in names)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
