"""Chromium trace reader, on hand-written traces."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bench.chromium_trace import read_trace

SITE = "http://localhost:1/library/"
MAIN = {"pid": 1, "tid": 1}


def event(name: str, ts: float, dur: float, **more: Any) -> dict[str, Any]:
    return {"name": name, "ph": "X", "ts": ts, "dur": dur, **MAIN, **more}


def mark(name: str, ts: float) -> dict[str, Any]:
    return {"name": name, "ph": "I", "ts": ts, **MAIN}


def trace(*events: dict[str, Any]) -> bytes:
    return json.dumps({"traceEvents": [*reversed(events), {"name": "process_name", "ph": "M", **MAIN}]}).encode()


MARKS = (mark("begin", 1_000), mark("calls", 500_000))


def test_nested_script_counts_once_and_tasks_are_split_at_the_mark_calls() -> None:
    reading = read_trace(
        trace(
            *MARKS,
            event("RunTask", 900, 80_200),  # contains the mark ``begin``; only its time after the mark counts
            event("FunctionCall", 900, 50),  # ends before the mark
            event("FunctionCall", 1_100, 70_000),
            event("v8.callFunction", 1_200, 60_000),
            event("BlinkScheduler_PerformMicrotaskCheckpoint", 72_000, 1_000),
            event("RunTask", 600_000, 400),
            event("RunTask", 600_050, 300),  # a nested task
            event("EvaluateScript", 600_100, 200),
            event("RunTask", 700_000, 9_000),  # runs no script
        ),
        SITE,
    )
    assert [task.script_us for task in reading.tasks] == [71_000, 200]
    assert (reading.longest_us, reading.blocking_us) == (71_000, 21_000)
    assert (reading.before_calls_us, reading.calls_us) == (71_000, 200)


def test_cpu_time_of_the_thread_is_preferred_to_duration() -> None:
    reading = read_trace(trace(*MARKS, event("RunTask", 2_000, 900), event("FunctionCall", 2_000, 800, tdur=300)), SITE)
    assert reading.longest_us == 300


def test_only_layouts_during_script_count_as_forced() -> None:
    reading = read_trace(
        trace(
            *MARKS,
            event("RunTask", 2_000, 1_000),
            event("FunctionCall", 2_000, 500),
            event("UpdateLayoutTree", 2_100, 10),
            event("Layout", 2_200, 10),
            event("Layout", 2_600, 10),
        ),
        SITE,
    )
    assert reading.layouts == 2


def test_evaluation_counts_library_files_on_any_thread() -> None:
    library, page = ({"data": {"url": url}} for url in (SITE + "main.js", "http://localhost:1/"))
    reading = read_trace(
        trace(
            *MARKS,
            event("EvaluateScript", 2_000, 700, args=library),
            event("v8.parseOnBackground", 1_500, 200, args=library, tid=2),
            event("v8.compile", 2_000, 100, args=library),  # included in the duration of EvaluateScript
            event("EvaluateScript", 3_000, 5_000, args=page),
            event("FunctionCall", 3_000, 5_000, args=library),
        ),
        SITE,
    )
    assert reading.evaluated_us == 900


def test_script_on_other_threads_is_ignored() -> None:
    reading = read_trace(
        trace(*MARKS, event("RunTask", 2_000, 900, tid=7), event("FunctionCall", 2_000, 800, tid=7)), SITE
    )
    assert reading.tasks == []


def test_a_missing_mark_is_an_error() -> None:
    with pytest.raises(ValueError, match="calls"):
        read_trace(trace(mark("begin", 1)), SITE)
