"""Profile of a page's visitor: public content, exact instants, and its part of receipts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from app.config import Settings
from app.formats.timestamps import parse, rfc3339
from app.postgres.pool import FrozenClock
from app.queries.visitor_customers import VisitorCustomers
from app.touchpoint import DAY, HOUR
from tests.support.running_app import NOON, RunningApp, running_app
from tests.support.web_page import WebPage, did, is_member

VIP = {"key": "vip", "public": True, "rule": {"did": "Order Completed", "within": "1d"}}
SECRET = {"key": "credit-risk", "name": "Credit risk", "rule": {"did": "Order Completed"}}
JOURNEY: dict[str, Any] = {
    "key": "shop",
    "public": True,
    "stages": [
        {"key": "looking", "rule": {"did": "*"}, "content": {"banner": "Welcome", "n": 1.5, "deep": {"a": [1, "x"]}}},
        {"key": "buying", "rule": {"did": "Order Completed", "within": "1d"}},
    ],
}
ORDERS = {"key": "orders", "public": True, "value": {"count": "Order Completed", "within": "2d"}}
SPENT = {"key": "spent", "value": {"sum": "total", "of": "Order Completed"}}


def micros_of(text: str) -> int:
    instant = parse(text)
    assert instant is not None
    return instant


async def define(service: RunningApp) -> None:
    for path, body in (
        ("segments", VIP),
        ("segments", SECRET),
        ("journeys", JOURNEY),
        ("traits", ORDERS),
        ("traits", SPENT),
    ):
        await service.tell("POST", f"/v1/{path}", body, 201)


async def test_receipt_contains_the_changed_profile(service: RunningApp) -> None:
    await define(service)
    page = WebPage(service)
    receipt = await page.send(did("Product Viewed"))
    me = receipt["me"]
    assert me["anonymous_id"] == page.id
    assert me["stages"]["shop"]["stage"] == "looking"
    assert me["stages"]["shop"]["content"] == JOURNEY["stages"][0]["content"]
    assert me["segments"] == []
    assert me["withheld"] is False
    page.me = me["etag"]
    assert "me" not in await page.send(did("Product Viewed")), "it says the same"
    changed = (await page.send(did("Order Completed", properties={"total": 5})))["me"]
    assert is_member(changed, "vip")
    assert changed["stages"]["shop"]["stage"] == "buying"
    assert changed["stages"]["shop"]["content"] is None
    assert changed["traits"] == {"orders": 1}
    assert changed == {**(await page.ask()), "as_of": changed["as_of"]}
    page.me = None
    assert "me" not in await page.send(did("Product Viewed")), "it was not wanted"
    page.me = 'W/"{}"'.format(changed["etag"])
    assert "me" not in await page.send()


async def test_receipt_reports_success_even_if_the_profile_fails(
    service: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the response reported a failure, the page would resend the batch forever."""
    page = WebPage(service)

    async def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as failing, capture_logs() as log_events:
        failing.setattr(VisitorCustomers, "read", broken)
        receipt = await page.send(did("Product Viewed"))
    assert (receipt["accepted"], receipt["projected"], "me" in receipt) == (1, True, False)
    assert receipt["visitor"]["token"]
    assert [(item["event"], item["error"]) for item in log_events] == [("receipt.profile_omitted", "ZeroDivisionError")]
    assert "me" in await page.send(did("Product Viewed"))


async def test_receipt_without_a_claim_has_no_profile(service: RunningApp) -> None:
    page = WebPage(service)
    batch = {"batch": [{**did("Product Viewed"), "anonymousId": page.id}]}
    for claim in ({}, {"visitor": None}):
        response = await service.client.post("/v1/batch", json={**batch, **claim}, auth=(page.key, ""))
        assert response.status_code == 200
        assert "visitor" not in response.json()


@pytest.mark.parametrize("event", ["Product Viewed", ""], ids=["accepted", "refused"])
@pytest.mark.parametrize("place", ["call", "item", "envelope"])
async def test_proof_is_not_stored_with_messages(service: RunningApp, event: str, place: str) -> None:
    """The visitor proof is a secret, so the log and the quarantine must not contain it."""
    page = WebPage(service)
    claim = {"visitor": {"id": page.id, "proof": page.proof}}
    call = {**did(event), "anonymousId": page.id, "properties": {"kept": "here"}}
    body = {
        "call": {**call, **claim},
        "item": {"batch": [{**call, **claim}]},
        "envelope": {"batch": [call], **claim},
    }[place]
    route = "/v1/track" if place == "call" else "/v1/batch"
    response = await service.client.post(route, json=body, auth=(page.key, ""))
    assert response.status_code == 200, response.text
    assert response.json()["accepted"] == bool(event)
    pool = service.app.state.services.pool
    tables = await pool.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    rows = [row for [table] in tables for row in await pool.fetch(f'SELECT * FROM "{table}"')]
    texts = "".join(str(tuple(row.values())) for row in rows)
    assert "kept" in texts, "the message, or what was refused of it"
    assert page.proof not in texts


async def test_profile_contains_nothing_private(settings: Settings) -> None:
    async with running_app(settings) as service:
        await define(service)
        page = WebPage(service)
        receipt = await page.send(
            did("Order Completed", properties={"total": 99.5}),
            {"type": "identify", "traits": {"plan": "gold", "salary": 7}},
        )
        response = await page.get()
        for text in (json.dumps(receipt), response.text, str(response.headers)):
            for private in (
                "credit",
                "Credit",
                "spent",
                "99.5",
                "six-stage",
                "engaged",
                "plan",
                "gold",
                "salary",
                "cause",
            ):
                assert private not in text, private
    async with running_app(settings.model_copy(update={"public_traits": ("plan", "spent")})) as other:
        traits = (await WebPage(other, page.key, proof=page.proof, token=page.token).ask())["traits"]
        assert traits == {"orders": 1, "plan": "gold"}, "a name of the setting shows no computed trait"


async def test_etag_does_not_depend_on_private_state(clock: FrozenClock, settings: Settings) -> None:
    """If only private state differs, the ETag of the public profile stays the same."""
    async with running_app(settings, clock) as service:
        await define(service)
        page = WebPage(service)
        tag = (await page.send(did("Product Viewed")))["me"]["etag"]
        page.me = None
        await page.send({"type": "identify", "traits": {"salary": 7}}, did("Contract Cancelled"))
        assert (await page.get()).headers["etag"] == f'W/"{tag}"'
        await service.tell("POST", "/v1/segments", {"key": "left", "rule": {"did": "Contract Cancelled"}}, 201)
        assert (await page.get()).headers["etag"] == f'W/"{tag}"'


async def test_unchanged_profile_is_answered_with_304(service: RunningApp) -> None:
    await define(service)
    page = WebPage(service)
    await page.send(did("Product Viewed"))
    first = await page.get()
    assert first.headers["cache-control"] == "private, no-cache"
    assert first.headers["etag"] == f'W/"{first.json()["etag"]}"'
    again = await page.get(headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert "ETag" in again.headers["access-control-expose-headers"]
    await page.send(did("Order Completed"))
    assert (await page.get(headers={"If-None-Match": first.headers["etag"]})).status_code == 200


async def test_me_is_open_to_every_origin(service: RunningApp) -> None:
    page = WebPage(service)
    preflight_headers = {
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "authorization,if-none-match",
    }
    preflight = await service.client.options("/v1/me", headers={"Origin": page.origin or "", **preflight_headers})
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == page.origin
    assert preflight.headers["access-control-allow-headers"] == "authorization,if-none-match"
    await page.send(did("Product Viewed"))
    headers = {"Authorization": f"Bearer {page.token}", "X-Write-Key": page.key, "Origin": page.origin or ""}
    answer = await service.client.get("/v1/me", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == page.origin


async def test_profile_changes_exactly_at_valid_until(clock: FrozenClock, settings: Settings) -> None:
    async with running_app(settings, clock) as service:
        await define(service)
        page = WebPage(service)
        start = clock.instant
        me = (await page.send(did("Order Completed", timestamp=rfc3339(start - HOUR))))["me"]
        ends = start - HOUR + DAY
        assert me["valid_until"] == rfc3339(ends)
        assert me["segments"][0]["valid_until"] == me["stages"]["shop"]["valid_until"] == rfc3339(ends)
        clock.instant = ends - 1
        before = await page.ask_with_new_token()
        assert is_member(before, "vip")
        assert before["stages"]["shop"]["stage"] == "buying"
        clock.instant = ends
        after = await page.ask_with_new_token()
        assert not is_member(after, "vip")
        assert after["stages"]["shop"]["stage"] == "looking"
        assert after["valid_until"] == rfc3339(start - HOUR + 2 * DAY), "the computed trait is next"
        clock.instant = micros_of(after["valid_until"]) - 1
        assert (await page.ask_with_new_token())["traits"] == {"orders": 1}
        clock.instant += 1
        last = await page.ask_with_new_token()
        assert last["traits"] == {"orders": 0}
        assert last["valid_until"] is None


async def test_valid_until_considers_segments_to_be_entered(clock: FrozenClock, settings: Settings) -> None:
    quiet = {"key": "quiet", "public": True, "rule": {"not": {"did": "*", "within": "1d"}}}
    async with running_app(settings, clock) as service:
        await service.tell("POST", "/v1/segments", quiet, 201)
        page = WebPage(service)
        me = (await page.send(did("Product Viewed")))["me"]
        assert me["segments"] == []
        assert me["valid_until"] == rfc3339(clock.instant + DAY)
        clock.instant += DAY - 1
        assert not is_member(await page.ask_with_new_token(), "quiet")
        clock.instant += 1
        assert is_member(await page.ask_with_new_token(), "quiet")


async def test_valid_until_ignores_private_definitions(clock: FrozenClock, settings: Settings) -> None:
    async with running_app(settings, clock) as service:
        await service.tell("POST", "/v1/segments", {"key": "hidden", "rule": {"did": "*", "within": "1h"}}, 201)
        me = (await WebPage(service).send(did("Product Viewed")))["me"]
        assert (me["segments"], me["stages"], me["valid_until"]) == ([], {}, None)


async def test_valid_until_considers_future_messages(clock: FrozenClock, settings: Settings) -> None:
    public = settings.model_copy(update={"public_traits": ("plan",)})
    async with running_app(public, clock) as service:
        await service.tell("POST", "/v1/traits", ORDERS, 201)
        page = WebPage(service)
        later = {"timestamp": rfc3339(clock.instant + HOUR)}
        me = (await page.send(did("Looked"), {"type": "identify", "traits": {"plan": "gold"}, **later}))["me"]
        assert (me["traits"], me["valid_until"]) == ({"orders": 0}, rfc3339(clock.instant + HOUR))
        me = (await page.send(did("Order Completed", timestamp=rfc3339(clock.instant + HOUR // 2))))["me"]
        assert me["valid_until"] == rfc3339(clock.instant + HOUR // 2)
        clock.instant += HOUR // 2
        me = await page.ask_with_new_token()
        assert (me["traits"], me["valid_until"]) == ({"orders": 1}, rfc3339(clock.instant + HOUR // 2))
        clock.instant += HOUR // 2
        assert (await page.ask_with_new_token())["traits"] == {"orders": 1, "plan": "gold"}


async def test_changing_public_applies_at_once_without_backfill(service: RunningApp) -> None:
    await define(service)
    page = WebPage(service)
    await page.send(did("Order Completed"))
    rows = "SELECT id, revision, xmin::text FROM customers"
    pool = service.app.state.services.pool
    before = await pool.fetch(rows)
    changes: tuple[tuple[str, dict[str, Any]], ...] = (
        ("segments", {**SECRET, "public": True}),
        ("traits", {**SPENT, "public": True}),
        ("segments", {**VIP, "public": False}),
        (
            "journeys",
            {**JOURNEY, "stages": [JOURNEY["stages"][0], {**JOURNEY["stages"][1], "content": {"banner": "Hello"}}]},
        ),
    )
    for path, body in changes:
        changed = await service.tell("PUT", f"/v1/{path}/{body['key']}", body)
        assert (changed["version"], changed["status"]) == (2, "current")
        again = await service.tell("PUT", f"/v1/{path}/{body['key']}", body)
        assert again["version"] == 2, "the same again makes none"
        read = await service.ask(f"/v1/{path}/{body['key']}")
        assert (read["status"], read["fill"]["done"]) == ("current", True)
    me = await page.ask()
    assert [item["key"] for item in me["segments"]] == ["credit-risk"]
    assert me["traits"] == {"orders": 1, "spent": 0}
    assert me["stages"]["shop"]["content"] == {"banner": "Hello"}
    assert await pool.fetch(rows) == before
    versions = (await service.ask("/v1/segments/vip/versions"))["items"]
    assert [item["public"] for item in versions] == [False, True]


@pytest.mark.parametrize(
    ("content", "path"),
    [
        ("text", "/stages/0/content"),
        ([1], "/stages/0/content"),
        ({"a": {"b": {"c": {"d": {"e": {}}}}}}, "/stages/0/content"),
        ({"a": "x" * 4100}, "/stages/0/content"),
        ({"a": None}, "/stages/0/content/a"),
        ({"a": "\0"}, "/stages/0/content/a"),
    ],
)
async def test_stage_content_is_limited_in_size(service: RunningApp, content: Any, path: str) -> None:
    body = {"key": "shop", "stages": [{"key": "looking", "rule": {"did": "*"}, "content": content}]}
    refused = await service.tell("POST", "/v1/journeys", body, 422)
    assert (refused["code"], refused["path"]) == ("invalid_definition", path)


async def test_stage_content_of_maximum_size_round_trips(service: RunningApp) -> None:
    content = {"a": {"b": {"c": {"d": {"e": "x" * 4000}}}}}
    body = {"key": "shop", "public": True, "stages": [{"key": "looking", "rule": {"did": "*"}, "content": content}]}
    created = await service.tell("POST", "/v1/journeys", body, 201)
    assert created["stages"][0]["content"] == content
    assert (await WebPage(service).send(did("x")))["me"]["stages"]["shop"]["content"] == content
    refused = await service.tell("POST", "/v1/segments", {**SECRET, "public": "yes"}, 422)
    assert refused["path"] == "/public"


async def test_unknown_visitor_has_an_empty_profile(service: RunningApp) -> None:
    await define(service)
    page = WebPage(service)
    me = (await page.send())["me"]
    assert {name: me[name] for name in ("stages", "segments", "traits", "valid_until", "withheld")} == {
        "stages": {},
        "segments": [],
        "traits": {},
        "valid_until": None,
        "withheld": False,
    }


EVENTS = st.sampled_from(["Product Viewed", "Order Completed", "Cart Viewed"])
SENT = st.lists(st.tuples(EVENTS, st.integers(0, 4 * 24)), max_size=8)


@pytest.fixture
def shared_app(settings: Settings) -> Iterator[tuple[asyncio.Runner, RunningApp]]:
    """One application and its event loop, shared by all examples of a test."""
    with asyncio.Runner() as runner:
        context = running_app(settings, FrozenClock(NOON))
        yield runner, runner.run(context.__aenter__())
        runner.run(context.__aexit__(None, None, None))


@given(
    sent=SENT, after=st.integers(0, 4 * 24), public=st.sets(st.sampled_from(["vip", "credit-risk", "shop", "orders"]))
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_profile_is_the_public_part_of_the_customer(
    shared_app: tuple[asyncio.Runner, RunningApp], sent: list[tuple[str, int]], after: int, public: set[str]
) -> None:
    """The profile contains exactly the public definitions, and it changes at ``valid_until`` but not before."""
    runner, service = shared_app
    runner.run(_is_public_part(service, sent, after, public))


async def _is_public_part(service: RunningApp, sent: list[tuple[str, int]], after: int, public: set[str]) -> None:
    clock = service.clock
    assert isinstance(clock, FrozenClock)
    clock.instant = NOON
    for path, body in (("segments", VIP), ("segments", SECRET), ("journeys", JOURNEY), ("traits", ORDERS)):
        expected = {**body, "public": body["key"] in public}
        if (await service.client.get(f"/v1/{path}/{body['key']}", headers=service.secret)).status_code == 404:
            await service.tell("POST", f"/v1/{path}", expected, 201)
        else:
            await service.tell("PUT", f"/v1/{path}/{body['key']}", expected)
    page = WebPage(service)
    me = (await page.send(*(did(event, timestamp=rfc3339(clock.instant - at * HOUR)) for event, at in sent)))["me"]
    for instant in (
        clock.instant + after * HOUR,
        *((micros_of(me["valid_until"]) - 1,) if me["valid_until"] else ()),
    ):
        clock.instant = max(instant, clock.instant)
        me = await page.ask_with_new_token()
        if not sent:
            assert me["segments"] == []
            continue
        customer = await service.ask(f"/v1/customers/anonymous_id:{page.id}")
        assert me["segments"] == [item for item in customer["segments"] if item["key"] in public]
        assert {key: place["stage"] for key, place in me["stages"].items()} == {
            key: place["stage"] for key, place in customer["stages"].items() if key in public
        }
        assert me["traits"] == {key: value for key, value in customer["traits"].items() if key in public}
    if me["valid_until"]:
        clock.instant = micros_of(me["valid_until"]) - 1
        assert (await page.ask_with_new_token())["etag"] == me["etag"]
        clock.instant += 1
        assert (await page.ask_with_new_token())["etag"] != me["etag"]
