"""Fixtures of the attacks, their selection, and the table of their figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.hostile.support import figures
from tests.support.databases import TestDatabases, run
from tests.support.server_process import Server


@pytest.fixture
def target(databases: TestDatabases, make_server: Callable[..., Server]) -> Server:
    """Return a server of its own, so that no earlier attack affects its memory."""
    return make_server(run(databases.create()), SEGUE_BACKGROUND_PROCESS="true").start()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the attacks unless ``-m`` selects them."""
    if "hostile" in config.option.markexpr:
        return
    attacks = [item for item in items if item.get_closest_marker("hostile")]
    config.hook.pytest_deselected(items=attacks)
    items[:] = [item for item in items if item not in set(attacks)]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if figures:
        terminalreporter.section("attacks")
        width = max(len(name) for name, _ in figures)
        for name, text in figures:
            terminalreporter.line(f"{name:{width}}  {text}")
