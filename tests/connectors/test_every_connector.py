"""The same checks for every connector, with the cases of its fixture, over a real socket and with a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from app.config import Settings
from app.connectors.tools import CONNECTORS
from app.formats.timestamps import parse
from tests.support.databases import TestDatabases, run
from tests.support.tool_fixture import NOW, Case, Fixture
from tests.support.webhook_sender import WebhookSender, running_webhook_sender

FIXTURES = {
    fixture.kind: fixture
    for path in sorted((Path(__file__).parent / "tools").glob("*.py"))
    for module in [import_module(f"tests.connectors.tools.{path.stem}")]
    for fixture in getattr(module, "FIXTURES", None) or (module.FIXTURE,)
}
every_kind = pytest.mark.parametrize("fixture", [pytest.param(item, id=kind) for kind, item in FIXTURES.items()])
shares_application = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def module_database_url(databases: TestDatabases) -> Iterator[str]:
    url = run(databases.acquire())
    yield url
    run(databases.release(url))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_tools(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[WebhookSender]:
    """Return one application for the whole module, because its start takes longer than most tests here."""
    settings = Settings.model_validate(
        {
            "DATABASE_URL": module_database_url,
            "data_dir": tmp_path_factory.mktemp("data"),
            "port": 0,
            "address_rate": "1000000/minute",  # The clock is frozen, so a rate window would never end.
        }
    )
    certificates = {url: body for fixture in FIXTURES.values() for url, body in fixture.certificates.items()}
    async with running_webhook_sender(settings, certificates) as tools:
        yield tools


@pytest_asyncio.fixture(loop_scope="module")
async def tools(module_tools: WebhookSender, request: pytest.FixtureRequest) -> AsyncIterator[WebhookSender]:
    """Return the application of the module, without messages and with a source key for this test.

    Its clock shows the time of the fixtures.
    """
    module_tools.clock.instant = NOW
    module_tools.source = f"tool-{sha256(request.node.nodeid.encode()).hexdigest()[:12]}"
    yield module_tools
    await module_tools.forget_all_messages()


def test_every_connector_has_a_fixture() -> None:
    assert sorted(FIXTURES) == sorted(CONNECTORS)


@every_kind
def test_fixture_sends_the_documented_sample(fixture: Fixture) -> None:
    assert fixture.sample.body == CONNECTORS[fixture.kind].sample


@every_kind
@shares_application
async def test_delivery_is_stored_as_expected(
    fixture: Fixture, tools: WebhookSender, subtests: pytest.Subtests
) -> None:
    """Deliver each case of the fixture to an empty database."""
    secret = await tools.add(fixture)
    for case in fixture.cases:
        with subtests.test(case.about):
            await _deliver(tools, fixture, case, secret)
        await tools.forget_all_messages()


async def _deliver(tools: WebhookSender, fixture: Fixture, case: Case, secret: str) -> None:
    response = await tools.send(fixture, case, secret)
    assert response.status_code == 200, response.text
    accepted = len(case.touchpoints) if case.accepted is None else case.accepted
    assert response.json() == {
        "success": True,
        "accepted": accepted,
        "duplicate": 0,
        "rejected": case.rejected,
        "ignored": case.ignored,
        "projected": True,
    }
    assert len((await tools.ask("GET", "/v1/quarantine"))["items"]) == case.rejected
    if case.who:
        await _check_customer(tools, case)
    again = (await tools.send(fixture, case, secret)).json()
    assert (again["accepted"], again["duplicate"]) == (0, accepted)
    codes = [row["code"] for row in (await tools.ask("GET", "/v1/quarantine"))["items"]]
    assert "conflicting_twin" not in codes, "a retry must have the same content"


async def _check_customer(tools: WebhookSender, case: Case) -> None:
    """Compare the customer's touchpoints, traits and identities with those that the case expects."""
    items = (await tools.ask("GET", f"/v1/customers/{case.who}/touchpoints?limit=1000"))["items"]
    items = sorted((item for item in items if item["name"]), key=lambda item: parse(item["occurred_at"]) or 0)
    assert [(item["name"], item["channel"], parse(item["occurred_at"])) for item in items] == [
        (touchpoint.name, touchpoint.channel, parse(touchpoint.occurred_at)) for touchpoint in case.touchpoints
    ]
    for item, expected in zip(items, case.touchpoints, strict=True):
        assert _select_fields(item["properties"], expected.properties) == expected.properties
        assert _select_fields(item["context"], expected.context) == expected.context
    customer = await tools.ask("GET", f"/v1/customers/{case.who}")
    assert _select_fields(customer["traits"], case.traits) == case.traits
    identities = {f"{identity['kind']}:{identity['value']}" for identity in customer["identities"]}
    assert set(case.identities) <= identities


def _select_fields(fields: dict[str, Any], names: Any) -> dict[str, Any]:
    return {name: fields.get(name) for name in names}


@every_kind
@shares_application
async def test_unauthenticated_delivery_is_refused(fixture: Fixture, tools: WebhookSender) -> None:
    secret = await tools.add(fixture)
    if not CONNECTORS[fixture.kind].scheme.needs_secret and fixture.kind not in _SIGNED_WITHOUT_SECRET:
        pytest.fail("every client that can reach the service could forge this tool's events")
    forged = replace(fixture, sign=lambda *_: ({}, {}), seal=lambda body, *_: body)
    assert await _send_refused(tools, forged, fixture.sample, secret) == "missing"
    tampered = replace(fixture.sample, body=fixture.sample.body + b" ")
    for_sample = replace(fixture, sign=lambda _, *rest: fixture.sign(fixture.sample.body, *rest))
    if fixture.secret and fixture.covers_body:
        assert await _send_refused(tools, for_sample, tampered, secret) == "wrong"
    if CONNECTORS[fixture.kind].scheme.needs_secret:
        assert await _send_refused(tools, fixture, fixture.sample, _other_secret(fixture)) == "wrong"
    if fixture.stale_seconds is not None:
        for direction in (-1, 1):
            at = NOW + direction * (fixture.stale_seconds + 1) * 1_000_000
            response = await tools.send(fixture, fixture.sample, secret, at=at)
            assert (response.status_code, response.json()["reason"]) == (401, "stale")
    assert (await tools.ask("GET", "/v1/quarantine"))["items"] == []
    if fixture.sample.who:
        await tools.ask("GET", f"/v1/customers/{fixture.sample.who}", expected=404)
    metrics = (await tools.client.get("/metrics")).text
    assert f'segue_webhooks_refused_total{{kind="{fixture.kind}",reason="missing"}} 1.0' in metrics
    assert (await tools.send(fixture, fixture.sample, secret)).status_code == 200


_SIGNED_WITHOUT_SECRET = ("ses",)
"""Kinds of source without a secret: SES signs with a certificate, and the source lists the accepted topics."""


def _other_secret(fixture: Fixture) -> str:
    return fixture.other_secret or f"other-{fixture.secret}"


async def _send_refused(tools: WebhookSender, fixture: Fixture, case: Case, secret: str) -> str:
    """Send a webhook that must be refused; return the reason."""
    response = await tools.send(fixture, case, secret)
    assert response.status_code == 401, response.text
    problem = response.json()
    assert problem["code"] == "invalid_signature"
    reason: str = problem["reason"]
    return reason


@every_kind
@shares_application
async def test_trial_returns_messages_and_stores_nothing(fixture: Fixture, tools: WebhookSender) -> None:
    await tools.add(fixture)
    trial = await tools.ask("POST", f"/v1/sources/{tools.source}/test")
    names = [message["name"] for message in trial["messages"] if message["name"]]
    assert sorted(names) == sorted(touchpoint.name for touchpoint in fixture.sample.touchpoints)
    assert trial["accepted"] == len(trial["messages"])
    assert trial["rejections"] == []
    if fixture.sample.who:
        await tools.ask("GET", f"/v1/customers/{fixture.sample.who}", expected=404)


@every_kind
@shares_application
async def test_secret_rotation_accepts_both_secrets_during_the_overlap(fixture: Fixture, tools: WebhookSender) -> None:
    old = await tools.add(fixture)
    if not CONNECTORS[fixture.kind].scheme.needs_secret:
        await tools.ask("POST", f"/v1/sources/{tools.source}/secrets", {"secret": "none is needed"}, 201)
        return
    body = {"secret": _other_secret(fixture)} if fixture.secret else {}
    response = await tools.ask("POST", f"/v1/sources/{tools.source}/secrets", {**body, "overlap_seconds": 60}, 201)
    new = body.get("secret") or response["token"]
    for secret in (old, new):
        assert (await tools.send(fixture, fixture.sample, secret)).status_code == 200
    tools.clock.instant += 60_000_000 - 1
    assert (await tools.send(fixture, fixture.sample, old)).status_code == 200
    tools.clock.instant += 1
    assert await _send_refused(tools, fixture, fixture.sample, old) == "wrong"
    assert (await tools.send(fixture, fixture.sample, new)).status_code == 200
