"""``segue serve``, with two routes beside it that do nothing, to compare with. Run as ``python -m bench.server serve``.

With BENCH_PROFILE set, cProfile watches from SIGUSR1 on and writes what it saw to that file at the end. With BENCH_HELD
set, the worker sweeps nobody while there is a file of that name.
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
    """What FastAPI itself costs, under the same middleware."""
    return {}


def _with_noop_routes() -> None:
    create_app = composition.create_app

    @wraps(create_app)
    def create_app_with_noop(*args: Any, **options: Any) -> FastAPI:
        app = create_app(*args, **options)
        app.post("/noop")(noop)
        app.get("/noop")(noop)
        # Routes are tried one after another, so what they are to be compared with must not come last.
        app.router.routes[:0] = [app.router.routes.pop(), app.router.routes.pop()]
        return app

    composition.create_app = create_app_with_noop


def _hold_sweeps_while_there_is(file: Path) -> None:
    sweep = Worker.sweep

    async def sweep_unless_held(worker: Worker) -> int:
        return 0 if file.exists() else await sweep(worker)

    Worker.sweep = sweep_unless_held  # type: ignore[method-assign, assignment]


def main() -> None:
    _with_noop_routes()
    if held := os.environ.get("BENCH_HELD"):
        _hold_sweeps_while_there_is(Path(held))
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
