"""Property tests of the parser: every authenticated body is parsed or rejected, without an exception."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.config import Settings
from app.connectors.adapter import Connector, encode_event
from app.connectors.tools import CONNECTORS
from app.connectors.webhook_parser import parse, reparse
from app.connectors.webhook_request import Unreadable, WebhookRequest
from app.formats.segment import normalise
from app.touchpoint import SourceView
from tests.connectors.test_every_connector import FIXTURES
from tests.support.case_count import case_count
from tests.support.tool_fixture import NOW

SETTINGS = Settings.model_validate({"DATABASE_URL": "postgresql://nowhere"})
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
EXAMPLES = case_count(60)
EVERY_TOOL = [pytest.param(tool, id=key) for key, tool in CONNECTORS.items()]


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        inside = list(value.items())
    elif isinstance(value, list):
        inside = list(enumerate(value))
    return [path, *(place for key, member in inside for place in _places(member, (*path, key)))]


def _with(value: Any, path: tuple[Any, ...], other: Any) -> Any:
    if not path:
        return other
    head, *rest = path
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[head] = _with(value[head], tuple(rest), other)
    return copy


def _events(tool: Connector) -> list[Any]:
    """Return the events of all bodies of the fixture that the connector can split into events."""
    events: list[Any] = []
    fixture = FIXTURES[tool.key]
    for case in fixture.cases:
        headers = {name.lower(): value for name, value in case.headers.items()}
        try:
            events += tool.split_delivery(WebhookRequest(body=case.body, headers=headers, query=case.query))
        except Unreadable:
            continue
    return [event for event in events if isinstance(event, dict)]


@pytest.mark.parametrize("tool", EVERY_TOOL)
def test_event_with_any_value_is_parsed_or_rejected(tool: Connector) -> None:
    events = _events(tool)
    places = [(event, path) for event in events for path in _places(event) if path]
    assert places

    @hypothesis_settings(max_examples=EXAMPLES)
    @given(st.sampled_from(places), VALUES)
    def check(place: tuple[Any, tuple[Any, ...]], value: Any) -> None:
        event, path = place
        intake = reparse(f"webhook/{tool.key}", encode_event(_with(event, path, value)), NOW, {})
        assert intake is not None
        parsed = normalise(intake.envelope, SourceView("tool"), NOW, SETTINGS)
        message_ids = [message.message_id for _, message in parsed.messages]
        assert all(message_ids)
        assert message_ids or parsed.rejections or intake.ignored or intake.envelope.erasures
        assert all(rejection.original for rejection in parsed.rejections)

    check()


@pytest.mark.parametrize("tool", EVERY_TOOL)
def test_any_body_is_parsed_or_rejected(tool: Connector) -> None:
    source = SourceView("tool")
    sample = FIXTURES[tool.key].sample.body

    @hypothesis_settings(max_examples=EXAMPLES)
    @given(
        st.binary(max_size=60)
        | VALUES.map(lambda value: json.dumps(value).encode())
        | st.integers(0, len(sample)).map(lambda at: sample[:at])
    )
    def check(body: bytes) -> None:
        headers = {name.lower(): value for name, value in tool.sample_headers.items()}
        intake = parse(tool, WebhookRequest(body=body, headers=headers, received_at=1_000_000))
        parsed = normalise(intake.envelope, source, 1_000_000, SETTINGS)
        assert all(rejection.original or not body for rejection in parsed.rejections)
        assert not any("unexpected format" in rejection.message for rejection in parsed.rejections), parsed.rejections

    check()
