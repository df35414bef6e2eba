"""A trace made by hand: what counts as the library's script, and what does not."""

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


def test_script_within_script_counts_once_and_tasks_are_parted_by_the_calls() -> None:
    reading = read_trace(
        trace(
            *MARKS,
            event("RunTask", 900, 80_200),  # holds the mark: from there on
            event("FunctionCall", 900, 50),  # before it
            event("FunctionCall", 1_100, 70_000),
            event("v8.callFunction", 1_200, 60_000),
            event("BlinkScheduler_PerformMicrotaskCheckpoint", 72_000, 1_000),
            event("RunTask", 600_000, 400),
            event("RunTask", 600_050, 300),  # a task within a task
            event("EvaluateScript", 600_100, 200),
            event("RunTask", 700_000, 9_000),  # of the browser's own
        ),
        SITE,
    )
    assert [task.script_us for task in reading.tasks] == [71_000, 200]
    assert (reading.longest_us, reading.blocking_us) == (71_000, 21_000)
    assert (reading.before_calls_us, reading.of_calls_us) == (71_000, 200)


def test_processor_time_of_the_thread_is_believed_where_it_is_told() -> None:
    reading = read_trace(trace(*MARKS, event("RunTask", 2_000, 900), event("FunctionCall", 2_000, 800, tdur=300)), SITE)
    assert reading.longest_us == 300


def test_only_layouts_that_script_waits_for_are_forced() -> None:
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


def test_evaluating_is_of_the_librarys_files_on_any_thread() -> None:
    theirs, others = ({"data": {"url": url}} for url in (SITE + "main.js", "http://localhost:1/"))
    reading = read_trace(
        trace(
            *MARKS,
            event("EvaluateScript", 2_000, 700, args=theirs),
            event("v8.parseOnBackground", 1_500, 200, args=theirs, tid=2),
            event("v8.compile", 2_000, 100, args=theirs),  # a part of evaluating
            event("EvaluateScript", 3_000, 5_000, args=others),
            event("FunctionCall", 3_000, 5_000, args=theirs),
        ),
        SITE,
    )
    assert reading.evaluated_us == 900


def test_other_threads_are_left_out() -> None:
    reading = read_trace(
        trace(*MARKS, event("RunTask", 2_000, 900, tid=7), event("FunctionCall", 2_000, 800, tid=7)), SITE
    )
    assert reading.tasks == []


def test_a_page_that_never_came_so_far_is_an_error() -> None:
    with pytest.raises(ValueError, match="calls"):
        read_trace(trace(mark("begin", 1)), SITE)
