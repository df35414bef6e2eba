"""The bench runs from end to end. What it measures here means nothing, so no figure is looked at."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bench.processes import ROOT


@pytest.mark.slow
def test_every_figure_is_measured() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--quick"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")] for line in done.stdout.splitlines() if line.startswith("|")]
    letters = [row[1] for row in rows[2:]]
    assert sorted(set(letters)) == list("abcdefghijklmno"), done.stdout
    assert {row[5] for row in rows[2:] if row[4]} <= {"OK", "SHORT"}
    assert {row[5] for row in rows[2:] if not row[4]} <= {""}
    assert "load generator:" in done.stdout
