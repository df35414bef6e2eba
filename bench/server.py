"""``segue serve`` with two no-op routes for comparison: ``python -m bench.server serve``.

If BENCH_PROFILE is set, SIGUSR1 starts cProfile, which writes its data to the file of that name at exit. If BENCH_HELD
is set, the worker does not expire customers while the file of that name exists.
"""

from __future__ import annotations

import cProfile
import os
import signal
from functools import wraps
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from app import main as composition
from app.background.worker import Worker
from app.cli import commands as command_line


async def noop() -> dict[str, str]:
    """Return an empty object, to measure the cost of FastAPI itself under the same middleware."""
    return {}


def _add_noop_routes() -> None:
    create_app = composition.create_app

    @wraps(create_app)
    def create_app_with_noop(*args: Any, **options: Any) -> FastAPI:
        app = create_app(*args, **options)
        app.post("/noop")(noop)
        app.get("/noop")(noop)
        # Routes are matched in order. Put the no-op routes first, so that the comparison excludes the search for a
        # route.
        app.router.routes[:0] = [app.router.routes.pop(), app.router.routes.pop()]
        return app

    composition.create_app = create_app_with_noop


def _pause_sweeps_while_exists(file: Path) -> None:
    os.environ["SEGUE_BACKGROUND_PROCESS"] = "false"  # The worker must run in this process, which replaces its method.
    sweep = Worker.sweep

    async def sweep_unless_paused(worker: Worker) -> int:
        return 0 if file.exists() else await sweep(worker)

    Worker.sweep = sweep_unless_paused  # type: ignore[method-assign, assignment]


def main() -> None:
    _add_noop_routes()
    if held := os.environ.get("BENCH_HELD"):
        _pause_sweeps_while_exists(Path(held))
    dump = os.environ.get("BENCH_PROFILE")
    if dump is None:
        command_line.main()
        return
    profile = cProfile.Profile()
    signal.signal(signal.SIGUSR1, lambda *_: profile.enable())
    try:
        command_line.main()
    finally:
        profile.disable()
        profile.dump_stats(Path(dump))


if __name__ == "__main__":
    main()
