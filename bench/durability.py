"""Long durability test: kills the server and PostgreSQL under load 200 times by default, about every two seconds.

It runs the load of ``tests/end_to_end/test_durability.py`` with PostgreSQL's production settings. It exits with status
1 and an explanation if an acknowledged message was lost or stored twice, if the log contains a message that was never
sent, or if a customer differs from a replay of the log.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from pathlib import Path
from typing import Final

from rich.console import Console

from tests.support.crash_load import CrashLoad, check_customers, check_rebuild, stored_messages
from tests.support.server_process import Server

SHARES: Final = {"server": 0.7, "postmaster": 0.2, "both": 0.1}

out = Console()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.durability", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="number of kills (default: 200)")
    parser.add_argument(
        "--seed", type=int, default=None, help="seed of an earlier run, to repeat its kills and messages"
    )
    arguments = parser.parse_args()
    seed = random.randrange(10**6) if arguments.seed is None else arguments.seed
    out.print(f"{arguments.kills} kills, seed {seed}")
    with tempfile.TemporaryDirectory(prefix="segue-durability-") as directory:
        server = Server(Path(directory))
        try:
            _run_kills(server, arguments.kills, seed)
        except AssertionError as failure:
            out.print(f"[red]FAILED[/red] {failure}", soft_wrap=True)
            raise SystemExit(1) from failure
        finally:
            server.clean_up()


def _run_kills(server: Server, kills: int, seed: int) -> None:
    victims = random.Random(seed).choices(list(SHARES), list(SHARES.values()), k=kills)
    start = time.monotonic()
    load = CrashLoad(server, seed, tell=lambda line: out.print(line, style="dim"))
    asyncio.run(load.run(victims))
    assert server.stop() == 0, "the server did not exit with status 0"
    seconds = time.monotonic() - start
    out.print(f"{load.kills.total} kills in {seconds:.0f} s; {load.kills.in_doubt} interrupted requests")
    ready = sorted(load.kills.ready_seconds)
    out.print(f"ready after {ready[len(ready) // 2]:.2f} s (median), {ready[-1]:.2f} s at most")
    messages = asyncio.run(stored_messages(load))
    out.print(
        f"{len(load.notes.acked)} messages acknowledged, {len(messages)} stored: none lost, stored twice or invented"
    )
    asyncio.run(check_customers(server, messages))
    out.print("all customers match the reference evaluation of the log")
    check_rebuild(server)
    out.print("rebuilding all customers from the log changes nothing")


if __name__ == "__main__":
    main()
