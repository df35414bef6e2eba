"""Smoke tests of the benchmarks: they run from end to end, with little data. The values mean nothing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bench.processes import ROOT
from bench.result import ENGINE, HTTP, LARGE_DATASET, SNIPPET, TIME, Benchmark
from tests.browser.chromium import NAMED_BY, chromium_path

pytestmark = pytest.mark.server

RUNS = (HTTP | ENGINE, LARGE_DATASET | TIME, SNIPPET | {Benchmark.WEBHOOKS})
"""Benchmarks by run. Each run is a separate test, so that pytest can distribute the runs over several workers."""


def run_bench(*arguments: str, timeout: int, **environment: str) -> str:
    process = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_every_benchmark_is_in_one_run() -> None:
    assert sorted(name for run in RUNS for name in run) == sorted(Benchmark)


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS, ids=["http", "dataset", "browser"])
def test_every_benchmark_reports_a_result(run: frozenset[Benchmark]) -> None:
    output = run_bench("--only", ",".join(run), timeout=400)
    rows = [[cell.strip() for cell in line.split("|")] for line in output.splitlines() if line.startswith("|")]
    results = rows[2:]
    skipped = [line for line in output.splitlines() if line.startswith("- not measured: ")]
    assert {row[1] for row in results} == run - (SNIPPET if skipped else set()), output
    assert not skipped or chromium_path() is None or "npm" in skipped[0]
    assert {row[5] for row in results if row[4]} <= {"OK", "SHORT"}
    assert {row[5] for row in results if not row[4]} <= {""}
    assert "load generator:" in output


def test_without_chromium_the_skipped_benchmarks_are_listed() -> None:
    names = "snippet-size, snippet-load, snippet-tasks, snippet-events"
    output = run_bench("--only", names, timeout=60, **{NAMED_BY: "/nonexistent/chromium"})
    assert f"- not measured: {names}: Chromium not found: " in output


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ("", "no benchmark given"),
        ("batch,a", "unknown benchmark 'a'"),
        ("read batch", "unknown benchmark 'read batch'"),
    ],
)
def test_an_unknown_benchmark_name_is_refused(names: str, problem: str) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "bench", "--only", names], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 2
    assert problem in process.stderr
