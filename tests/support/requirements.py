"""Markers of the requirements of a test, derived from its fixtures. Each test has exactly one marker."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, Final

import pytest

MARKERS: Final = ("browser", "server", "database", "pure")
"""Markers, most expensive first. A ``pure`` test needs no PostgreSQL and opens no connection."""

_FIXTURES: Final = {
    "browser": {"chromium"},
    "server": {"server", "make_server"},
    "database": {"cluster_url"},
}
_guarded: str | None = None


def mark(items: Iterable[pytest.Item]) -> None:
    """Add a marker to each test, except if its module sets one because the tests start programs themselves."""
    for item in items:
        if not markers_of(item):
            item.add_marker(_marker_of(set(getattr(item, "fixturenames", ()))))


def markers_of(item: pytest.Item) -> list[str]:
    return [marker.name for marker in item.iter_markers() if marker.name in MARKERS]


def _marker_of(fixtures: set[str]) -> str:
    return next((name for name, needed in _FIXTURES.items() if needed & fixtures), "pure")


def guard(item: pytest.Item | None) -> None:
    """Refuse connections while this test runs if it is marked pure. ``guard(None)`` ends the check."""
    global _guarded
    _guarded = item.nodeid if item is not None and item.get_closest_marker("pure") else None


def _refuse_connections(event: str, _: tuple[Any, ...]) -> None:
    if event == "socket.connect" and _guarded is not None:
        raise AssertionError(f"{_guarded} is marked pure and opens a connection")


sys.addaudithook(_refuse_connections)
