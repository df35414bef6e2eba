"""Each kind of source, by its fixture: the same deliveries, through a real socket, into a real database."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from app.config import Settings
from app.connectors.tools import CONNECTORS
from app.formats.timestamps import parse
from tests.support.tool_fixture import NOW, Case, Fixture
from tests.support.webhook_sender import WebhookSender, running_webhook_sender

FIXTURES = {
    fixture.kind: fixture
    for path in sorted((Path(__file__).parent / "tools").glob("*.py"))
    for module in [import_module(f"tests.connectors.tools.{path.stem}")]
    for fixture in getattr(module, "FIXTURES", None) or (module.FIXTURE,)
}
every_kind = pytest.mark.parametrize("fixture", [pytest.param(each, id=kind) for kind, each in FIXTURES.items()])


def test_every_connector_has_a_fixture() -> None:
    assert sorted(FIXTURES) == sorted(CONNECTORS)


@every_kind
def test_fixture_sends_the_documented_sample(fixture: Fixture) -> None:
    assert fixture.sample.body == CONNECTORS[fixture.kind].sample


@every_kind
async def test_delivery_is_stored_as_expected(fixture: Fixture, settings: Settings, subtests: pytest.Subtests) -> None:
    """Each case by itself: what the one before it left behind is taken away."""
    async with running_webhook_sender(settings, fixture.certificates) as tools:
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
        await _look_at(tools, case)
    again = (await tools.send(fixture, case, secret)).json()
    assert (again["accepted"], again["duplicate"]) == (0, accepted)
    conflicts = [each["code"] for each in (await tools.ask("GET", "/v1/quarantine"))["items"]]
    assert "conflicting_twin" not in conflicts, "a retry must say the same"


async def _look_at(tools: WebhookSender, case: Case) -> None:
    found = (await tools.ask("GET", f"/v1/customers/{case.who}/touchpoints?limit=1000"))["items"]
    found = sorted((each for each in found if each["name"]), key=lambda each: parse(each["occurred_at"]) or 0)
    assert [(each["name"], each["channel"], parse(each["occurred_at"])) for each in found] == [
        (each.name, each.channel, parse(each.occurred_at)) for each in case.touchpoints
    ]
    for each, wanted in zip(found, case.touchpoints, strict=True):
        assert _part_of(each["properties"], wanted.properties) == wanted.properties
        assert _part_of(each["context"], wanted.context) == wanted.context
    customer = await tools.ask("GET", f"/v1/customers/{case.who}")
    assert _part_of(customer["traits"], case.traits) == case.traits
    identities = {f"{each['kind']}:{each['value']}" for each in customer["identities"]}
    assert set(case.identities) <= identities


def _part_of(found: dict[str, Any], wanted: Any) -> dict[str, Any]:
    return {name: found.get(name) for name in wanted}


@every_kind
async def test_unauthenticated_delivery_is_refused(fixture: Fixture, settings: Settings) -> None:
    async with running_webhook_sender(settings, fixture.certificates) as tools:
        secret = await tools.add(fixture)
        if not CONNECTORS[fixture.kind].scheme.needs_secret and fixture.kind not in _SIGNED_WITHOUT_SECRET:
            pytest.fail("whoever can reach the service could forge this tool")
        forged = replace(fixture, sign=lambda *_: ({}, {}), seal=lambda body, *_: body)
        assert await _refused(tools, forged, fixture.sample, secret) == "missing"
        tampered = replace(fixture.sample, body=fixture.sample.body + b" ")
        for_sample = replace(fixture, sign=lambda _, *rest: fixture.sign(fixture.sample.body, *rest))
        if fixture.secret and fixture.covers_body:
            assert await _refused(tools, for_sample, tampered, secret) == "wrong"
        if CONNECTORS[fixture.kind].scheme.needs_secret:
            assert await _refused(tools, fixture, fixture.sample, _other(fixture)) == "wrong"
        if fixture.stale_seconds is not None:
            for way in (-1, 1):
                at = NOW + way * (fixture.stale_seconds + 1) * 1_000_000
                response = await tools.send(fixture, fixture.sample, secret, at=at)
                assert (response.status_code, response.json()["reason"]) == (401, "stale")
        assert (await tools.ask("GET", "/v1/quarantine"))["items"] == []
        if fixture.sample.who:
            await tools.ask("GET", f"/v1/customers/{fixture.sample.who}", expected=404)
        figures = (await tools.client.get("/metrics")).text
        assert f'segue_webhooks_refused_total{{kind="{fixture.kind}",reason="missing"}} 1.0' in figures
        assert (await tools.send(fixture, fixture.sample, secret)).status_code == 200


_SIGNED_WITHOUT_SECRET = ("ses",)
"""By a certificate of the tool's, and only for topics that the source names."""


def _other(fixture: Fixture) -> str:
    return fixture.other_secret or f"other-{fixture.secret}"


async def _refused(tools: WebhookSender, fixture: Fixture, case: Case, secret: str) -> str:
    response = await tools.send(fixture, case, secret)
    assert response.status_code == 401, response.text
    problem = response.json()
    assert problem["code"] == "invalid_signature"
    reason: str = problem["reason"]
    return reason


@every_kind
async def test_trial_returns_messages_and_stores_nothing(fixture: Fixture, settings: Settings) -> None:
    async with running_webhook_sender(settings, fixture.certificates) as tools:
        await tools.add(fixture)
        tried = await tools.ask("POST", "/v1/sources/tool/test")
        named = [each["name"] for each in tried["messages"] if each["name"]]
        assert sorted(named) == sorted(each.name for each in fixture.sample.touchpoints)
        assert tried["accepted"] == len(tried["messages"])
        assert tried["rejections"] == []
        if fixture.sample.who:
            await tools.ask("GET", f"/v1/customers/{fixture.sample.who}", expected=404)


@every_kind
async def test_secret_rotation_accepts_both_secrets_during_the_overlap(fixture: Fixture, settings: Settings) -> None:
    async with running_webhook_sender(settings, fixture.certificates) as tools:
        old = await tools.add(fixture)
        if not CONNECTORS[fixture.kind].scheme.needs_secret:
            await tools.ask("POST", "/v1/sources/tool/secrets", {"secret": "none is needed"}, 201)
            return
        wanted = {"secret": _other(fixture)} if fixture.secret else {}
        made = await tools.ask("POST", "/v1/sources/tool/secrets", {**wanted, "overlap_seconds": 60}, 201)
        new = wanted.get("secret") or made["token"]
        for secret in (old, new):
            assert (await tools.send(fixture, fixture.sample, secret)).status_code == 200
        tools.clock.instant += 60_000_000 - 1
        assert (await tools.send(fixture, fixture.sample, old)).status_code == 200
        tools.clock.instant += 1
        assert await _refused(tools, fixture, fixture.sample, old) == "wrong"
        assert (await tools.send(fixture, fixture.sample, new)).status_code == 200
