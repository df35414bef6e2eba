"""The example connector of ``docs/adding-a-tool.md`` passes the checks that every connector must pass."""

from __future__ import annotations

import re
import sys
from types import ModuleType

import pytest

from app.connectors.tools import CONNECTORS
from tests.connectors import test_every_connector, test_webhook_parser
from tests.docs.markdown import ROOT, read
from tests.support.tool_fixture import Fixture
from tests.support.webhook_sender import WebhookSender

PAGE = ROOT / "docs" / "adding-a-tool.md"


@pytest.fixture
def parcels(monkeypatch: pytest.MonkeyPatch) -> Fixture:
    adapter_code, fixture_code = re.findall(r"```python\n(.*?)```", read(PAGE), re.DOTALL)
    for name, code in (
        ("app.connectors.tools.parcels", adapter_code),
        ("tests.connectors.tools.parcels", fixture_code),
    ):
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(code, f"{PAGE.name}: {name}", "exec"), module.__dict__)
    monkeypatch.setitem(CONNECTORS, "parcels", sys.modules["app.connectors.tools.parcels"].CONNECTOR)
    fixture: Fixture = sys.modules["tests.connectors.tools.parcels"].FIXTURE
    monkeypatch.setitem(test_every_connector.FIXTURES, "parcels", fixture)
    return fixture


async def test_cases_of_the_example(parcels: Fixture, tools: WebhookSender, subtests: pytest.Subtests) -> None:
    assert [case.about for case in parcels.times] == ["milliseconds", "no readable time"]
    await test_every_connector.test_delivery_is_stored_as_expected(parcels, tools, subtests)


async def test_signature_of_the_example(parcels: Fixture, tools: WebhookSender) -> None:
    await test_every_connector.test_unauthenticated_delivery_is_refused(parcels, tools)


async def test_dry_run_of_the_example(parcels: Fixture, tools: WebhookSender) -> None:
    await test_every_connector.test_trial_returns_messages_and_stores_nothing(parcels, tools)


def test_invalid_events_of_the_example(parcels: Fixture) -> None:
    test_webhook_parser.test_event_with_any_value_is_parsed_or_rejected(CONNECTORS[parcels.kind])


def test_mentioned_functions_and_fields_exist() -> None:
    from app.connectors import adapter
    from app.formats import event_names
    from app.identity import object_owners

    named = set(re.findall(r"`(\w+)[`(]", read(PAGE)))
    names = {
        *dir(adapter),
        *dir(event_names),
        *dir(object_owners),
        *adapter.Call.__struct_fields__,
        *adapter.Connector.__slots__,
        "ignored",
        "TOKEN",
    }
    assert named - names <= {"app", "test_cases_of_the_example"}
