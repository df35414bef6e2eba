"""The bench runs from end to end. What it measures here means nothing, so no figure is looked at."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bench.__main__ import LETTERS
from bench.processes import ROOT
from tests.browser.chromium import NAMED_BY, chromium_path

pytestmark = pytest.mark.server

PARTS = ("abcdefgh", "ijklmno", "pqrst")
"""Figures that are measured in one run; each part is a test of its own, so that workers share them."""


IN_CHROMIUM = frozenset("pqrs")


def test_each_figure_is_in_a_part() -> None:
    assert sorted("".join(PARTS)) == sorted(LETTERS)


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_every_figure_is_measured(part: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--only", part],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")] for line in done.stdout.splitlines() if line.startswith("|")]
    letters = [row[1] for row in rows[2:]]
    missing = [line for line in done.stdout.splitlines() if line.startswith("- not measured: ")]
    assert sorted(set(letters)) == sorted(set(part) - (IN_CHROMIUM if missing else set())), done.stdout
    assert not missing or chromium_path() is None or "npm" in missing[0]
    assert {row[5] for row in rows[2:] if row[4]} <= {"OK", "SHORT"}
    assert {row[5] for row in rows[2:] if not row[4]} <= {""}
    assert "load generator:" in done.stdout


def test_without_chromium_it_says_what_it_leaves_out() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--only", "p,q,r,s"],
        cwd=ROOT,
        env={**os.environ, NAMED_BY: "/nonexistent/chromium"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "- not measured: p to s, there is no Chromium: " in done.stdout
