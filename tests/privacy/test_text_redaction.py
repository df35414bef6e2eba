"""Tests of private text: it needs a secret key, no rule can read it, and it can be redacted."""

from __future__ import annotations

from typing import Any

import pytest

from app.errors import InvalidDefinition
from app.rules.language.definitions import parse_rule, parse_trait
from tests.support.running_app import RunningApp, track
from tests.support.web_page import WebPage, did

PRIVATE = {"private": {"subject": "Help", "body": "My card number is"}}


def ticket(id: str, user: str = "user-1", **more: Any) -> dict[str, Any]:
    return track("ticket.created", user, messageId=id, context=PRIVATE, properties={"ticket_id": "7"}, **more)


@pytest.mark.parametrize(
    "rule",
    [
        {"did": "ticket.created", "where": {"context.private.body": {"contains": "card"}}},
        {"did": "ticket.created", "where": {"context.private": {"exists": True}}},
        {"last_value": "context.private.subject", "of": "ticket.created", "eq": "Help"},
        {"most_frequent": "context.private.body", "of": "*", "exists": True},
        {"sequence": [{"did": "A"}, {"did": "B"}], "same": ["context.private.body"]},
    ],
)
def test_rules_cannot_read_private_text(rule: dict[str, Any]) -> None:
    with pytest.raises(InvalidDefinition) as refused:
        parse_rule(rule)
    assert "`text` to `property`" in str(refused.value.to_problem()), "the remedy names an alternative"


def test_computed_traits_cannot_read_private_text() -> None:
    trait = {"key": "words", "value": {"last_value": "context.private.body", "of": "ticket.created"}}
    with pytest.raises(InvalidDefinition):
        parse_trait(trait)
    for path in ("context.privately", "private.body", "context.page.private", "traits.private"):
        parse_trait({**trait, "value": {"last_value": path, "of": "ticket.created"}})


async def test_private_text_is_visible_only_with_a_secret_key(service: RunningApp) -> None:
    refused = {"key": "words", "public": True, "value": {"last_value": "context.private.body", "of": "*"}}
    await service.tell("POST", "/v1/traits", refused, 422)
    page = WebPage(service)
    await page.send(did("ticket.created", context=PRIVATE))
    profile = await page.ask()
    assert "card number" not in str(profile)
    path = f"/v1/customers/anonymous_id:{page.id}/touchpoints"
    [entry] = (await service.ask(path))["items"]
    assert entry["context"]["private"] == PRIVATE["private"]
    assert (await service.client.get(path)).status_code == 401
    assert (await service.client.get(path, headers={"X-Write-Key": service.keys.write_key})).status_code == 401


async def test_redaction_removes_the_text_and_keeps_the_events(service: RunningApp) -> None:
    segment = {"key": "wrote", "rule": {"did": "ticket.created", "at_least": 2}}
    await service.tell("POST", "/v1/segments", segment, 201)
    await service.send(
        ticket("m-1"),
        ticket("m-2"),
        ticket("m-3", "user-2"),
        {"type": "identify", "messageId": "m-4", "userId": "user-1", "traits": {"email": "user@example.com"}},
        {**ticket("m-5"), "userId": None, "context": {**PRIVATE, "traits": {"email": "user@example.com"}}},
    )
    twin = ticket("m-1", timestamp="2026-01-01T00:00:00Z")
    await service.send(twin, expected=0)
    assert [row["message_id"] for row in (await service.ask("/v1/quarantine"))["items"]] == ["m-1"]
    before = await service.ask("/v1/customers/user_id:user-1")
    explained = await service.ask("/v1/customers/user_id:user-1/segments/wrote/explain")

    redacted = await service.tell("POST", "/v1/customers/email:user@example.com/redact-text")
    assert redacted == {"success": True, "messages": 3, "quarantined": 1}

    entries = (await service.ask("/v1/customers/user_id:user-1/touchpoints"))["items"]
    assert sorted(entry["message_id"] for entry in entries) == ["m-1", "m-2", "m-4", "m-5"]
    assert "card number" not in str(entries)
    [last] = [entry for entry in entries if entry["message_id"] == "m-5"]
    assert last["context"] == {"traits": {"email": "user@example.com"}}, "only the private text is removed"
    assert (await service.ask("/v1/quarantine"))["items"] == []
    [other] = (await service.ask("/v1/customers/user_id:user-2/touchpoints"))["items"]
    assert other["context"]["private"] == PRIVATE["private"]
    after = await service.ask("/v1/customers/user_id:user-1")
    assert {**after, "as_of": None} == {**before, "as_of": None}
    again = await service.ask("/v1/customers/user_id:user-1/segments/wrote/explain")
    assert {**again, "as_of": None} == {**explained, "as_of": None}
    verified = await service.tell("POST", "/v1/segments/wrote/verify")
    assert (verified["customers"], verified["differences"]) == (2, []), (
        "a replay of the redacted log gives the stored state"
    )

    await service.send(ticket("m-1"), expected=0)
    assert "card number" not in str(await service.ask("/v1/customers/user_id:user-1/touchpoints")), (
        "a retry does not restore the text"
    )
    again = await service.tell("POST", "/v1/customers/user_id:user-1/redact-text")
    assert again == {"success": True, "messages": 0, "quarantined": 0}
    await service.tell("POST", "/v1/customers/user_id:nobody/redact-text", expected=404)
