"""``segue serve``, with two routes beside it that do nothing, to compare with. Run as ``python -m bench.server serve``.

With BENCH_PROFILE set, cProfile watches from SIGUSR1 on and writes what it saw to that file at the end.
"""

from __future__ import annotations

import cProfile
import os
import signal
from functools import wraps
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from app import __main__ as command_line
from app import main as composition


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
        return app

    composition.create_app = create_app_with_noop


def main() -> None:
    _with_noop_routes()
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
