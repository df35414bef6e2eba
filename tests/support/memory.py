"""Peak memory of the test processes. A run reports it and fails if one process exceeds the limit."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from typing import Any, Final

import pytest

RSS_MB_MAX: Final = 600
"""Maximum resident memory of one process. A laptop with 8 GB runs four of them, PostgreSQL and a browser."""

_KEY: Final = "peak_rss_mb"
_peaks: dict[str, int] = {}


def report(session: pytest.Session) -> None:
    """Send the peak of a worker process to the main process.

    In the main process, fail the run if a peak is too high.
    """
    worker_output = getattr(session.config, "workeroutput", None)
    if worker_output is not None:
        worker_output[_KEY] = _own_peak_mb()
        return
    _peaks["main"] = _own_peak_mb()
    if max(_peaks.values()) > RSS_MB_MAX and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def collect(node: Any) -> None:
    """Store the peak of a worker that has ended. A crashed worker reports no peak."""
    if (peak := getattr(node, "workeroutput", {}).get(_KEY)) is not None:
        _peaks[node.gateway.id] = peak


def summary() -> str:
    peaks = ", ".join(f"{name} {peak} MB" for name, peak in sorted(_peaks.items()))
    verdict = "" if max(_peaks.values(), default=0) <= RSS_MB_MAX else f" -- FAILED: more than {RSS_MB_MAX} MB"
    return f"peak resident memory: {peaks}{verdict}"


def free() -> None:
    """Collect the garbage of earlier tests, and return free memory to the system."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def _own_peak_mb() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1024 * 1024 if sys.platform == "darwin" else 1024)
