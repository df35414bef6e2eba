"""What a test needs from the machine, from the fixtures that it uses: one marker a test."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, Final

import pytest

MARKERS: Final = ("browser", "server", "database", "pure")
"""The most expensive first. ``pure``: no PostgreSQL, no connection to anything, no program that makes one."""

_FIXTURES: Final = {
    "browser": {"chromium"},
    "server": {"server", "make_server"},
    "database": {"cluster_url"},
}
_guarded: str | None = None


def mark(items: Iterable[pytest.Item]) -> None:
    """Give each test its marker, unless its module names one because the test starts programs by itself."""
    for item in items:
        if not markers_of(item):
            item.add_marker(_marker_of(set(getattr(item, "fixturenames", ()))))


def markers_of(item: pytest.Item) -> list[str]:
    return [marker.name for marker in item.iter_markers() if marker.name in MARKERS]


def _marker_of(fixtures: set[str]) -> str:
    return next((name for name, needed in _FIXTURES.items() if needed & fixtures), "pure")


def guard(item: pytest.Item | None) -> None:
    """From now on a connection fails if this test claims to be pure; with None all may connect."""
    global _guarded
    _guarded = item.nodeid if item is not None and item.get_closest_marker("pure") else None


def _refuse_connections(event: str, _: tuple[Any, ...]) -> None:
    if event == "socket.connect" and _guarded is not None:
        raise AssertionError(f"{_guarded} is marked pure and opens a connection")


sys.addaudithook(_refuse_connections)
