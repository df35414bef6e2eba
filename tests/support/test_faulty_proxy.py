"""The faulty proxy closes each connection when it stops, also connections that it has just accepted."""

from __future__ import annotations

import gc
import socket
import warnings
from contextlib import ExitStack

import pytest

from tests.support.faulty_proxy import running_proxy

pytestmark = pytest.mark.server


@pytest.mark.parametrize("connections", [1, 3, 30])
def test_proxy_closes_connections_that_it_has_just_accepted(connections: int) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        for _ in range(20):
            with ExitStack() as clients, running_proxy(port=1) as proxy:
                for _ in range(connections):
                    clients.enter_context(socket.create_connection(("127.0.0.1", proxy.port)))
        gc.collect()
    assert [str(warning.message) for warning in caught] == []
