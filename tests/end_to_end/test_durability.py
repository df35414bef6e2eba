"""``kill -9`` under load: no acknowledged message is lost or stored twice, and the state matches a replay of the log.

PostgreSQL runs with production settings, fsync included. ``python -m bench.durability`` runs the same load for longer.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from tests.support.crash_load import CrashLoad, check_customers, check_rebuild, stored_messages
from tests.support.server_process import Server

SERVER_KILLS, POSTMASTER_KILLS, KILLS_OF_BOTH = 15, 5, 2


@pytest.mark.slow
def test_kill_9_under_load(make_server: Callable[..., Server]) -> None:
    server = make_server()
    victims = ["server"] * SERVER_KILLS + ["postmaster"] * POSTMASTER_KILLS + ["both"] * KILLS_OF_BOTH
    random.Random(9).shuffle(victims)
    siege = CrashLoad(server, seed=9)
    asyncio.run(siege.run(victims))
    assert server.stop() == 0
    assert server.postmaster is None

    assert siege.kills.total >= 20
    assert siege.kills.in_doubt > siege.kills.total / 2, "most kills must interrupt requests in flight"
    stored = asyncio.run(stored_messages(siege))
    unsure = siege.notes.sent.keys() - siege.notes.acked
    print(f"{len(siege.notes.acked)} acknowledged, {len(unsure)} in doubt, {len(stored)} stored, {siege.notes.answers}")
    asyncio.run(check_customers(server, stored))
    check_rebuild(server)
