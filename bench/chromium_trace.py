"""What Chromium's trace says of the script of a page: what it took to compile, and how long it held the main thread.

Times are processor time of the thread where the trace has it, which other work on the machine does not lengthen; in
microseconds. The page has no script but the library's, so from its mark ``begin`` on all script is the library's.
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
        "BlinkScheduler_PerformMicrotaskCheckpoint",  # promises: FunctionCall knows nothing of them
    }
)
_EVALUATING: Final = frozenset({"EvaluateScript", "v8.parseOnBackground"})
_LAYOUT: Final = frozenset({"Layout", "UpdateLayoutTree"})
BLOCKING_US: Final = 50_000
"""Of a task, what is longer than this blocks: a visitor may notice."""


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
    """What script did in one task of the main thread, and how often it made the browser lay out the page meanwhile."""

    start: float
    script_us: float = 0
    layouts: int = 0


@dataclass(frozen=True)
class Reading:
    evaluated_us: float
    """To parse, compile and evaluate the script files, on whatever thread."""
    tasks: list[Task]
    """Since the mark ``begin``, those that ran script."""
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
    def of_calls_us(self) -> float:
        return sum(task.script_us for task in self.tasks if task.start >= self.calls_at)

    @property
    def layouts(self) -> int:
        return sum(task.layouts for task in self.tasks)


def read_trace(trace: bytes, scripts_at: str) -> Reading:
    """``scripts_at`` is what the addresses of the library's files begin with. Raises ValueError without its marks."""
    events = msgspec.json.decode(trace, type=_Trace).events
    begin, calls = _mark(events, "begin"), _mark(events, "calls")
    thread = [each for each in events if (each.pid, each.tid) == (begin.pid, begin.tid) and each.ph == "X"]
    thread.sort(key=lambda each: (each.ts, -each.dur))
    tasks = [task for task in _tasks(thread, begin.ts) if task.script_us]
    return Reading(sum(each.cost for each in _evaluating(events, scripts_at)), tasks, calls.ts)


def _mark(events: list[Event], name: str) -> Event:
    found = next((each for each in events if each.name == name and each.ph in "IRi"), None)
    if found is None:
        raise ValueError(f"the page never came to its mark {name!r}")
    return found


def _evaluating(events: list[Event], scripts_at: str) -> Iterator[Event]:
    """Compiling is a part of evaluating, unless it was done on a background thread while the file arrived."""
    for each in events:
        data = each.args.get("data") if isinstance(each.args, dict) else None
        url = data.get("url") if isinstance(data, dict) else None
        if each.name in _EVALUATING and each.ph == "X" and isinstance(url, str) and url.startswith(scripts_at):
            yield each


def _tasks(thread: list[Event], begin: float) -> Iterator[Task]:
    """Tasks from the one on that holds ``begin``. Script within script, and a task within a task, count once."""
    task, task_end, script_end = None, 0.0, 0.0
    for each in thread:
        if each.end <= begin:
            continue
        if each.ts >= task_end and each.name == "RunTask":
            if task is not None:
                yield task
            task, task_end, script_end = Task(max(each.ts, begin)), each.end, 0.0
        if task is None or each.ts < begin or each.ts >= task_end:
            continue
        if each.ts < script_end:
            task.layouts += each.name in _LAYOUT
        elif each.name in _SCRIPT:
            task.script_us += each.cost
            script_end = each.end
    if task is not None:
        yield task
