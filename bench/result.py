"""Benchmark names and result rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

Progress = Callable[[str], object]
"""Callback that displays what is being measured."""


class Benchmark(StrEnum):
    """Names that ``--only`` accepts, in the order in which results are printed."""

    BATCH = "batch"
    SCATTERED = "scattered"
    BASELINE = "baseline"
    SINGLE = "single"
    READ = "read"
    WEBHOOKS = "webhooks"
    WAL = "wal"
    STATEMENTS = "statements"
    MEMORY = "memory"
    SEGMENTS = "segments"
    STATE = "state"
    EVALUATION = "evaluation"
    COUNT = "count"
    EXPIRY = "expiry"
    STORM = "storm"
    BACKFILL = "backfill"
    PREVIEW = "preview"
    SNIPPET_SIZE = "snippet-size"
    SNIPPET_LOAD = "snippet-load"
    SNIPPET_TASKS = "snippet-tasks"
    SNIPPET_EVENTS = "snippet-events"


ENGINE: Final = frozenset({Benchmark.SEGMENTS, Benchmark.STATE, Benchmark.EVALUATION})
"""Benchmarks that need no database."""
SNIPPET: Final = frozenset(
    {Benchmark.SNIPPET_SIZE, Benchmark.SNIPPET_LOAD, Benchmark.SNIPPET_TASKS, Benchmark.SNIPPET_EVENTS}
)
"""Benchmarks that need Chromium."""
HTTP: Final = frozenset(
    {
        Benchmark.BATCH,
        Benchmark.SCATTERED,
        Benchmark.BASELINE,
        Benchmark.SINGLE,
        Benchmark.READ,
        Benchmark.WAL,
        Benchmark.STATEMENTS,
        Benchmark.MEMORY,
    }
)
"""Benchmarks that send load to one server."""
LARGE_DATASET: Final = frozenset({Benchmark.COUNT, Benchmark.BACKFILL, Benchmark.PREVIEW})
TIME: Final = frozenset({Benchmark.EXPIRY, Benchmark.STORM})
"""Benchmarks on customers whose segments end at predefined instants."""


@dataclass(frozen=True)
class Result:
    """One row of the table of results."""

    benchmark: Benchmark
    description: str
    value: float
    bound: Literal["at least", "at most"]
    limit: float | None
    """Required bound of the value. None if the value is only reported."""
    detail: str
    digits: int = 2

    @property
    def is_within_limit(self) -> bool:
        if self.limit is None:
            return True
        return self.value >= self.limit if self.bound == "at least" else self.value <= self.limit
