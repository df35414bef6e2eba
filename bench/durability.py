"""kill -9 for as long as you like: ``python -m bench.durability --kills 200``, about two seconds each.

The siege is the one of ``tests/end_to_end/test_durability.py``, which does 22. PostgreSQL runs with the settings of
production. Exits with 1, and an explanation, if anything acknowledged was lost, doubled or invented, or if the stored
customers are not what the log says.
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
    parser.add_argument("--kills", type=int, default=200, help="how many (200)")
    parser.add_argument("--seed", type=int, default=None, help="repeats the same order of victims and messages")
    wanted = parser.parse_args()
    seed = random.randrange(10**6) if wanted.seed is None else wanted.seed
    out.print(f"{wanted.kills} kills, seed {seed}")
    with tempfile.TemporaryDirectory(prefix="segue-durability-") as directory:
        server = Server(Path(directory))
        try:
            _lay_siege(server, wanted.kills, seed)
        except AssertionError as failure:
            out.print(f"[red]FAILED[/red] {failure}", soft_wrap=True)
            raise SystemExit(1) from failure
        finally:
            server.clean_up()


def _lay_siege(server: Server, kills: int, seed: int) -> None:
    victims = random.Random(seed).choices(list(SHARES), list(SHARES.values()), k=kills)
    began = time.monotonic()
    siege = CrashLoad(server, seed, tell=lambda line: out.print(line, style="dim"))
    asyncio.run(siege.run(victims))
    assert server.stop() == 0, "the server did not end in good order"
    took = time.monotonic() - began
    out.print(f"{siege.kills.total} kills in {took:.0f} s; {siege.kills.in_doubt} cut requests off")
    said = asyncio.run(stored_messages(siege))
    out.print(f"{len(siege.notes.acked)} messages acknowledged, {len(said)} stored: none lost, doubled or invented")
    asyncio.run(check_customers(server, said))
    out.print("customers are those of the naive reading of the log")
    check_rebuild(server)
    out.print("a rebuild from the log changes nothing")


if __name__ == "__main__":
    main()
