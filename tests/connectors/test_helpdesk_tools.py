"""Help desk connectors: Front's rule signature and handshake, Intercom's probe, ratings, and sentiment estimates."""

from __future__ import annotations

import hmac
from base64 import b64encode
from dataclasses import replace
from time import process_time
from typing import Any

import pytest

from app.config import Settings
from app.connectors.adapter import Call
from app.connectors.shared.helpdesk import build_csat_properties, strip_markup
from app.connectors.tools.freshdesk import CONNECTOR as FRESHDESK_CONNECTOR
from tests.connectors.tools.freshdesk import FIXTURE as FRESHDESK
from tests.connectors.tools.front import FIXTURE as FRONT
from tests.connectors.tools.intercom import FIXTURE as INTERCOM
from tests.connectors.tools.support import FIXTURE as SUPPORT
from tests.support.tool_fixture import Case, SignedWith, json_body
from tests.support.webhook_sender import running_webhook_sender


def _by_rule(body: bytes, secret: str, now: int, url: str) -> SignedWith:
    del now, url
    return {"X-Front-Signature": b64encode(hmac.digest(secret.encode(), body, "sha1")).decode()}, {}


async def test_front_rule_webhooks_use_sha1(settings: Settings) -> None:
    by_rule = replace(FRONT, sign=_by_rule)
    async with running_webhook_sender(settings) as tools:
        secret = await tools.add(FRONT)
        assert (await tools.send(by_rule, FRONT.several, secret)).status_code == 200
        refused = await tools.send(by_rule, FRONT.several, "another")
        assert (refused.status_code, refused.json()["reason"]) == (401, "wrong")


async def test_front_challenge_is_answered_if_signed(settings: Settings) -> None:
    sync = Case(
        "sync", json_body({"type": "sync", "authorization": {"id": "cmp_1"}}), headers={"X-Front-Challenge": "c-1"}
    )
    async with running_webhook_sender(settings) as tools:
        secret = await tools.add(FRONT)
        answer = await tools.send(FRONT, sync, secret)
        assert (answer.status_code, answer.json()) == (200, {"challenge": "c-1"})
        assert (await tools.send(FRONT, sync, "another")).status_code == 401
        plain_sync = replace(sync, headers={"content-type": "application/json"})
        assert (await tools.send(FRONT, plain_sync, secret)).json()["ignored"] == 1


@pytest.mark.parametrize("sign", [FRONT.sign, _by_rule], ids=["by-app", "by-rule"])
async def test_front_event_with_a_challenge_header_is_stored(sign: Any, settings: Settings) -> None:
    """An intermediary may add the challenge header, because the signature does not cover it.

    The event must be stored.
    """
    challenged = {"content-type": "application/json", "X-Front-Challenge": "c-1"}
    async with running_webhook_sender(settings) as tools:
        secret = await tools.add(FRONT)
        signed = replace(FRONT, sign=sign)
        assert (await tools.send(signed, replace(FRONT.sample, headers=challenged), secret)).json()["accepted"] == 1
        unreadable = Case("no JSON", b"sync", headers=challenged)
        assert (await tools.send(signed, unreadable, secret)).json()["rejected"] == 1


async def test_intercom_head_probe_is_answered(settings: Settings) -> None:
    async with running_webhook_sender(settings) as tools:
        await tools.add(INTERCOM)
        assert (await tools.client.head(tools.url())).status_code == 200


async def test_freshdesk_equal_body_after_a_minute_is_stored_again(settings: Settings) -> None:
    async with running_webhook_sender(settings) as tools:
        secret = await tools.add(FRESHDESK)
        for minutes, accepted in ((0, 1), (0, 0), (1, 1)):
            tools.clock.instant += minutes * 60_000_000
            assert (await tools.send(FRESHDESK, FRESHDESK.sample, secret)).json()["accepted"] == accepted


@pytest.mark.parametrize("spaces", [900, 3_000])
@pytest.mark.parametrize(("before", "after"), [("{", "!"), ("{a", "!"), ("{a:", "\n!")])
def test_freshdesk_trigger_is_parsed_in_bounded_time(before: str, spaces: int, after: str) -> None:
    """Measure processor time, because other processes may run.

    Without a length limit, 900 spaces took 0.5 s and 3000 spaces took 15 s.
    """
    ticket = {"ticket_id": "7", "triggered_event": before + " " * spaces + after}
    started = process_time()
    (call,) = FRESHDESK_CONNECTOR.map_event(ticket, 0)
    assert process_time() - started < 0.2
    assert isinstance(call, Call)
    assert call.event in ("freshdesk.other", "freshdesk.a")


async def test_option_estimate_adds_sentiment_of_customer_text(settings: Settings) -> None:
    angry = {"message": "I am furious, this is the third time my parcel is late."}
    event = {"event": "ticket.replied", "ticket_id": "7", "customer": {"user_id": "user-1"}, **angry}
    case = Case("angry", json_body([{**event, "by": "customer", "id": "1"}, {**event, "by": "agent", "id": "2"}]))
    async with running_webhook_sender(settings) as tools:
        secret = await tools.add(replace(SUPPORT, options={"estimate": "on"}))
        assert (await tools.send(SUPPORT, case, secret)).json()["accepted"] == 2
        again = (await tools.send(SUPPORT, case, secret)).json()
        assert again["duplicate"] == 2
        assert (await tools.ask("GET", "/v1/quarantine"))["items"] == []
        items = (await tools.ask("GET", "/v1/customers/user_id:user-1/touchpoints"))["items"]
        touchpoints = {touchpoint["name"]: touchpoint for touchpoint in items}
        reply = touchpoints["ticket.replied_by_customer"]
        assert reply["properties"]["estimate"]["sentiment"] == "negative"
        assert reply["properties"]["estimate"]["emotions"]["anger"] == 1
        assert reply["context"]["private"]["body"] == angry["message"]
        assert "estimate" not in touchpoints["ticket.replied_by_agent"]["properties"]
        rule = {"did": "*", "where": {"estimate.emotions.anger": {"gte": 1}}}
        preview = await tools.ask("POST", "/v1/segments/preview", {"rule": rule})
        assert preview["count"] == 1
        wrong = {"key": "other", "kind": "support", "options": {"estimate": "maybe"}}
        await tools.ask("POST", "/v1/sources", wrong, 400)


async def test_option_estimate_needs_the_extra(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.enrichment.sentiment.find_spec", lambda _: None)
    async with running_webhook_sender(settings) as tools:
        source = {"key": "tool", "kind": "support", "options": {"estimate": "on"}}
        refused = await tools.ask("POST", "/v1/sources", source, 400)
        assert "segue[estimates]" in refused["message"]


@pytest.mark.parametrize(
    ("rating", "scale", "expected"),
    [
        (1, 5, 1),
        (5, 5, 5),
        (5, None, 5),
        ("4", None, 4),
        (1, 10, 1),
        (10, 10, 5),
        (9, 10, 4.56),
        (2, 2, 5),
        (2, 3, 3),
        ("Good, I'm satisfied", None, 5),
        ("bad_with_comment", None, 1),
        ("Not Good", None, 1),
        ("Okay", None, 3),
        ("good", 10, 5),
    ],
)
def test_ratings_are_converted_to_a_scale_of_five(rating: object, scale: object, expected: float) -> None:
    properties = build_csat_properties(rating, scale)
    assert (float(properties["rating"]), properties["scale"], properties["rated"]) == (expected, 5, rating)


@pytest.mark.parametrize(
    ("rating", "scale"),
    [(0, 5), (6, 5), (None, 5), (True, 5), ("offered", None), ("goodness", None), ("NaN", None), (3, 1), ([5], 5)],
)
def test_invalid_csat_rating_is_ignored(rating: object, scale: object) -> None:
    assert build_csat_properties(rating, scale) == {}


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("  Hello ", "Hello"),
        ("<p>Hello</p><p>there&nbsp;you&amp;me</p>", "Hello\nthere you&me"),
        ("<style>p{}</style><div>a<br>b</div><script>x()</script>", "a\nb"),
        ("1 < 2 and <b", "1 < 2 and <b"),
        ("</style>seen", "seen"),
        (7, None),
    ],
)
def test_strip_markup_returns_text(markup: object, text: str | None) -> None:
    assert strip_markup(markup) == text
