"""Chromium trace reader: script compilation time and main-thread time of a page.

Times are in microseconds. They are CPU time of the thread if the trace contains it, because other processes do not
affect CPU time. The page runs only the library, so all script after the mark ``begin`` belongs to the library.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

CATEGORIES: Final = [
    "blink.user_timing",
    "devtools.timeline",
    "disabled-by-default-devtools.timeline",
    "disabled-by-default-v8.compile",
    "toplevel",
    "v8",
]
_SCRIPT: Final = frozenset(
    {
        "EvaluateScript",
        "v8.compile",
        "FunctionCall",
        "v8.callFunction",
        "BlinkScheduler_PerformMicrotaskCheckpoint",  # promise callbacks, which FunctionCall omits
    }
)
_EVALUATING: Final = frozenset({"EvaluateScript", "v8.parseOnBackground"})
_LAYOUT: Final = frozenset({"Layout", "UpdateLayoutTree"})
BLOCKING_US: Final = 50_000
"""Length of a task, in microseconds, beyond which the rest counts as blocking time that a visitor may notice."""


class Event(msgspec.Struct):
    name: str
    ph: str
    pid: int
    tid: int
    ts: float = 0
    dur: float = 0
    tdur: float = 0
    args: Any = None

    @property
    def end(self) -> float:
        return self.ts + self.dur

    @property
    def cost(self) -> float:
        return self.tdur or self.dur


class _Trace(msgspec.Struct):
    events: list[Event] = msgspec.field(name="traceEvents")


@dataclass
class Task:
    """Duration of the script in one task of the main thread, and the number of layouts that the script forced."""

    start: float
    script_us: float = 0
    layouts: int = 0


@dataclass(frozen=True)
class Reading:
    evaluated_us: float
    """Time to parse, compile and evaluate the library files on all threads."""
    tasks: list[Task]
    """Tasks that ran script after the mark ``begin``."""
    calls_at: float

    @property
    def longest_us(self) -> float:
        return max((task.script_us for task in self.tasks), default=0)

    @property
    def blocking_us(self) -> float:
        return sum(max(0, task.script_us - BLOCKING_US) for task in self.tasks)

    @property
    def before_calls_us(self) -> float:
        return sum(task.script_us for task in self.tasks if task.start < self.calls_at)

    @property
    def calls_us(self) -> float:
        return sum(task.script_us for task in self.tasks if task.start >= self.calls_at)

    @property
    def layouts(self) -> int:
        return sum(task.layouts for task in self.tasks)


def read_trace(trace: bytes, scripts_at: str) -> Reading:
    """Read a trace. URLs of library files start with ``scripts_at``. Raise ValueError if a mark is missing."""
    events = msgspec.json.decode(trace, type=_Trace).events
    begin, calls = _mark(events, "begin"), _mark(events, "calls")
    thread = [event for event in events if (event.pid, event.tid) == (begin.pid, begin.tid) and event.ph == "X"]
    thread.sort(key=lambda event: (event.ts, -event.dur))
    tasks = [task for task in _tasks(thread, begin.ts) if task.script_us]
    return Reading(sum(event.cost for event in _evaluations(events, scripts_at)), tasks, calls.ts)


def _mark(events: list[Event], name: str) -> Event:
    mark = next((event for event in events if event.name == name and event.ph in "IRi"), None)
    if mark is None:
        raise ValueError(f"the trace has no mark {name!r}")
    return mark


def _evaluations(events: list[Event], scripts_at: str) -> Iterator[Event]:
    """Yield evaluations of library files, including compilation unless a background thread compiled the file."""
    for event in events:
        data = event.args.get("data") if isinstance(event.args, dict) else None
        url = data.get("url") if isinstance(data, dict) else None
        if event.name in _EVALUATING and event.ph == "X" and isinstance(url, str) and url.startswith(scripts_at):
            yield event


def _tasks(thread: list[Event], begin: float) -> Iterator[Task]:
    """Yield the tasks from the one that contains ``begin``. A nested script or nested task counts only once."""
    task, task_end, script_end = None, 0.0, 0.0
    for event in thread:
        if event.end <= begin:
            continue
        if event.ts >= task_end and event.name == "RunTask":
            if task is not None:
                yield task
            task, task_end, script_end = Task(max(event.ts, begin)), event.end, 0.0
        if task is None or event.ts < begin or event.ts >= task_end:
            continue
        if event.ts < script_end:
            task.layouts += event.name in _LAYOUT
        elif event.name in _SCRIPT:
            task.script_us += event.cost
            script_end = event.end
    if task is not None:
        yield task
