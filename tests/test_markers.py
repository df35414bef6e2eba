"""Markers: each test has exactly one, and pure tests cannot connect."""

from __future__ import annotations

import socket

import pytest

from tests.support.requirements import MARKERS, markers_of


def test_tests_have_exactly_one_marker(request: pytest.FixtureRequest) -> None:
    items = request.session.items
    assert [(item.nodeid, markers_of(item)) for item in items if len(markers_of(item)) != 1] == []


def test_markers_are_registered(pytestconfig: pytest.Config) -> None:
    registered = [line.partition(":")[0] for line in pytestconfig.getini("markers")]
    assert set(MARKERS) <= set(registered)


def test_pure_test_cannot_connect() -> None:
    with socket.socket() as probe, pytest.raises(AssertionError, match="is marked pure"):
        probe.connect(("127.0.0.1", 9))
