"""Threats of docs/security.md: what a client with a public write key cannot do, alone or in combinations.

Each test is named in one row of the page; :mod:`tests.docs.test_security_page` compares them.
"""

from __future__ import annotations

from typing import Any

import pytest

from app.config import Settings
from app.postgres.pool import FrozenClock
from app.touchpoint import DAY
from tests.support.running_app import RunningApp, basic_auth, is_problem, running_app
from tests.support.web_page import WebPage, did, is_member

VIP = {"key": "vip", "public": True, "rule": {"did": "Order Completed"}}
VICTIM_EMAIL = "victim@example.com"


@pytest.fixture
async def shop(service: RunningApp) -> RunningApp:
    await service.tell("POST", "/v1/segments", VIP, 201)
    return service


class SiteServer:
    """The site's own server, with a server key."""

    def __init__(self, shop: RunningApp, key: str) -> None:
        self._shop = shop
        self._key = key

    async def send(self, *messages: dict[str, Any]) -> None:
        response = await self._shop.client.post(
            "/v1/batch", json={"batch": list(messages)}, headers=basic_auth(self._key)
        )
        assert response.json()["accepted"] == len(messages), response.text

    async def vouch_for(self, page: WebPage, user_id: str) -> dict[str, str]:
        """Return the visitor claim of a page whose visitor has logged in."""
        body = {"source": "default", "anonymous_id": page.id, "user_id": user_id}
        page.token = (await self._shop.tell("POST", "/v1/visitor-tokens", body, 201))["token"]
        return {"id": page.id, "proof": page.proof, "token": page.token, "me": ""}


@pytest.fixture
async def server(shop: RunningApp) -> SiteServer:
    body = {"kind": "write", "source": "default", "trust": "server"}
    return SiteServer(shop, (await shop.tell("POST", "/v1/keys", body, 201))["key"])


async def customer_id(shop: RunningApp, identity: str) -> str:
    id: str = (await shop.ask(f"/v1/customers/{identity}"))["id"]
    return id


def identify(user_id: str | None = None, email: str | None = None, **more: Any) -> dict[str, Any]:
    message: dict[str, Any] = {"type": "identify", **more}
    if user_id is not None:
        message["userId"] = user_id
    if email is not None:
        message["traits"] = {"email": email}
    return message


async def test_claimed_email_reveals_no_history(shop: RunningApp, server: SiteServer) -> None:
    """A tool knows the email address, and no user has it. A vouched visitor claims it in the page."""
    await server.send(did("Order Completed", context={"traits": {"email": VICTIM_EMAIL}}))
    page = WebPage(shop)
    claim = await server.vouch_for(page, "attacker")
    receipt = await page.send(identify("attacker", VICTIM_EMAIL), did("Looked", userId="attacker"), **claim)
    assert await customer_id(shop, "attacker") == await customer_id(shop, f"email:{VICTIM_EMAIL}")
    assert not is_member(receipt["me"], "vip")
    assert not is_member((await page.get(claim["token"])).json(), "vip")


async def test_claimed_anonymous_id_reveals_no_history(shop: RunningApp, server: SiteServer) -> None:
    victim, page = WebPage(shop), WebPage(shop)
    await victim.send(did("Order Completed"))
    claim = await server.vouch_for(page, "attacker")
    receipt = await page.send(identify("attacker", anonymousId=victim.id), **claim)
    assert await customer_id(shop, "attacker") == await customer_id(shop, f"anonymous_id:{victim.id}")
    assert not is_member(receipt["me"], "vip")
    assert receipt["me"]["withheld"]


async def test_claims_do_not_reveal_whether_a_person_exists(shop: RunningApp, server: SiteServer) -> None:
    """The answer is the same for an unknown address, for one that a tool knows, and for one of another user."""
    await server.send(
        did("Order Completed", context={"traits": {"email": "known@example.com"}}),
        identify("owner", "owned@example.com"),
    )
    answers = []
    for email in ("unknown@example.com", "known@example.com", "owned@example.com"):
        page = WebPage(shop)
        claim = await server.vouch_for(page, f"attacker of {email}")
        receipt = await page.send(identify(f"attacker of {email}", email), **claim)
        answers.append({**receipt["me"], "anonymous_id": "", "etag": "", "as_of": "", "stages": {}})
        assert {stage["stage"] for stage in receipt["me"]["stages"].values()} <= {None}
    assert answers[0] == answers[1] == answers[2]


async def test_back_dated_claim_takes_nothing_away(shop: RunningApp) -> None:
    """All claims come from pages; the first received one keeps the address."""
    await WebPage(shop).send(identify("owner", VICTIM_EMAIL))
    await WebPage(shop).send(identify("attacker", VICTIM_EMAIL, timestamp="2001-01-01T00:00:00Z"))
    assert await customer_id(shop, f"email:{VICTIM_EMAIL}") == await customer_id(shop, "owner")
    links = await shop.ask("/v1/customers/attacker/links")
    assert [(link["joined"], link["vouched"]) for link in links["items"] if link["weaker"]["kind"] == "email"] == [
        (False, False)
    ]


async def test_server_takes_an_address_back(shop: RunningApp, server: SiteServer) -> None:
    """A page claims an address before its owner is known. The word of the server takes precedence."""
    await WebPage(shop).send(identify("attacker", VICTIM_EMAIL))
    assert await customer_id(shop, f"email:{VICTIM_EMAIL}") == await customer_id(shop, "attacker")
    await server.send(identify("owner", VICTIM_EMAIL))
    assert await customer_id(shop, f"email:{VICTIM_EMAIL}") == await customer_id(shop, "owner")


async def test_alias_of_a_public_key_joins_no_users(shop: RunningApp) -> None:
    await shop.send(did("Order Completed", userId="victim"), did("Looked", userId="attacker"))
    for previous, user in (("victim", "attacker"), ("attacker", "victim"), ("victim", "new"), ("new", "victim")):
        await WebPage(shop).send({"type": "alias", "previousId": previous, "userId": user})
    await WebPage(shop).send(did("Looked", userId="new"))
    assert len({await customer_id(shop, user) for user in ("victim", "attacker", "new")}) == 3


async def test_key_may_allow_aliases(shop: RunningApp, server: SiteServer) -> None:
    body = {"kind": "write", "source": "default", "joins_users": True}
    allowed = (await shop.tell("POST", "/v1/keys", body, 201))["key"]
    await shop.send(*(did("Looked", userId=user) for user in ("a", "b", "c", "d")))
    await WebPage(shop, allowed).send({"type": "alias", "previousId": "a", "userId": "b"})
    await server.send({"type": "alias", "previousId": "c", "userId": "d"})
    assert await customer_id(shop, "a") == await customer_id(shop, "b")
    assert await customer_id(shop, "c") == await customer_id(shop, "d")


async def test_allowed_alias_reveals_no_history(shop: RunningApp, server: SiteServer) -> None:
    body = {"kind": "write", "source": "default", "joins_users": True}
    allowed = (await shop.tell("POST", "/v1/keys", body, 201))["key"]
    await shop.send(did("Order Completed", userId="victim"))
    page = WebPage(shop, allowed)
    claim = await server.vouch_for(page, "attacker")
    receipt = await page.send({"type": "alias", "previousId": "victim", "userId": "attacker"}, **claim)
    assert await customer_id(shop, "victim") == await customer_id(shop, "attacker")
    assert not is_member(receipt["me"], "vip")


async def test_combined_claims_reveal_no_history(shop: RunningApp, server: SiteServer) -> None:
    """Claim, claim again with an early date, alias, then read in another tab and with another source's key."""
    await server.send(did("Order Completed", context={"traits": {"email": VICTIM_EMAIL}}))
    victim, page = WebPage(shop), WebPage(shop)
    await victim.send(did("Order Completed"), identify(None, VICTIM_EMAIL))
    claim = await server.vouch_for(page, "attacker")
    early = {"timestamp": "2001-01-01T00:00:00Z"}
    for message in (
        identify("attacker", VICTIM_EMAIL),
        identify("attacker", VICTIM_EMAIL, **early),
        identify("attacker", anonymousId=victim.id, **early),
        identify("attacker", context={"externalIds": [{"type": "anonymous_id", "id": victim.id}]}),
        identify(None, VICTIM_EMAIL, anonymousId=page.id, **early),
        {"type": "alias", "previousId": victim.id, "userId": "attacker", **early},
        {"type": "group", "groupId": "g", "userId": "attacker", "anonymousId": victim.id},
    ):
        receipt = await page.send(message, **claim)
        assert not is_member(receipt["me"], "vip"), message
    other_tab = WebPage(shop, proof=page.proof, token=claim["token"])
    assert not is_member(await other_tab.ask(), "vip")
    blog = (await shop.tell("POST", "/v1/sources", {"key": "blog"}, 201))["write_key"]
    elsewhere = WebPage(shop, blog, proof=page.proof, token=claim["token"])
    assert is_problem(await elsewhere.get(), 401, "invalid_token")
    receipt = await elsewhere.send(identify("attacker", VICTIM_EMAIL))
    assert not is_member(receipt["me"], "vip")
    assert is_member((await victim.ask_with_new_token()), "vip"), "the victim still sees the own history"


async def test_claims_after_an_undo_reveal_no_history(shop: RunningApp, server: SiteServer) -> None:
    await server.send(did("Order Completed", context={"traits": {"email": VICTIM_EMAIL}}))
    page = WebPage(shop)
    claim = await server.vouch_for(page, "attacker")
    await page.send(identify("attacker", VICTIM_EMAIL), **claim)
    pair = {"weaker": f"email:{VICTIM_EMAIL}", "stronger": "user_id:attacker"}
    await shop.tell("POST", "/v1/customers/links/undo", pair)
    receipt = await page.send(identify("attacker", VICTIM_EMAIL, timestamp="2001-01-01T00:00:00Z"), **claim)
    assert await customer_id(shop, f"email:{VICTIM_EMAIL}") != await customer_id(shop, "attacker")
    assert not is_member(receipt["me"], "vip")
    await shop.tell("POST", "/v1/customers/links/restore", pair)
    assert not is_member((await page.send(**claim))["me"], "vip")


async def test_undone_link_of_a_server_reveals_no_history(shop: RunningApp, server: SiteServer) -> None:
    await server.send(
        did("Order Completed", context={"traits": {"email": VICTIM_EMAIL}}), identify("owner", VICTIM_EMAIL)
    )
    page = WebPage(shop)
    claim = await server.vouch_for(page, "owner")
    assert is_member((await page.send(did("Looked", userId="owner"), **claim))["me"], "vip")
    pair = {"weaker": f"email:{VICTIM_EMAIL}", "stronger": "user_id:owner"}
    await shop.tell("POST", "/v1/customers/links/undo", pair)
    assert not is_member((await page.send(**claim))["me"], "vip")


async def test_claims_of_others_do_not_change_the_own_answer(shop: RunningApp, server: SiteServer) -> None:
    """A stranger joins another history to the victim. The victim sees the own history, nothing of the other."""
    await shop.tell("POST", "/v1/segments", {"key": "spy", "public": True, "rule": {"did": "Spied"}}, 201)
    victim, attacker = WebPage(shop), WebPage(shop)
    claim = await server.vouch_for(victim, "victim")
    await victim.send(identify("victim"), did("Order Completed", userId="victim"), **claim)
    await attacker.send(did("Spied"), identify("victim"))
    answer = (await victim.send(**claim))["me"]
    assert (is_member(answer, "vip"), is_member(answer, "spy")) == (True, False)


async def test_site_vouches_for_history(shop: RunningApp, server: SiteServer) -> None:
    """The rules above must not hide what the visitor may see: the own devices, and what the server sent."""
    await server.send(
        did("Order Completed", context={"traits": {"email": VICTIM_EMAIL}}), identify("owner", VICTIM_EMAIL)
    )
    phone, laptop = WebPage(shop), WebPage(shop)
    await shop.tell("POST", "/v1/segments", {"key": "mobile", "public": True, "rule": {"did": "Swiped"}}, 201)
    await phone.send(did("Swiped"))
    await phone.send(identify("owner"), **await server.vouch_for(phone, "owner"))
    answer = (await laptop.send(identify("owner"), **await server.vouch_for(laptop, "owner")))["me"]
    assert (is_member(answer, "vip"), is_member(answer, "mobile"), answer["withheld"]) == (True, True, False)


async def test_quarantine_keeps_the_trust_of_a_claim(settings: Settings, clock: FrozenClock) -> None:
    """A page's claim is rejected; its replay, by the operator, is still a claim of a page."""
    async with running_app(settings, clock) as shop:
        page = WebPage(shop)
        await page.post(identify("attacker", VICTIM_EMAIL, timestamp="2001-01-01T00:00:00Z", properties=7))
        clock.instant += DAY
        await page.send(identify("owner", VICTIM_EMAIL))
        await page.post({"type": "alias", "previousId": "owner", "userId": "attacker", "properties": 7})
        await shop.tell("POST", "/v1/quarantine/replay", {"patch": [{"op": "remove", "path": "/properties"}]})
        assert await customer_id(shop, "owner") != await customer_id(shop, "attacker")


async def test_server_keys_have_no_origins(shop: RunningApp) -> None:
    """A server key in a page would give the page the trust of a server, so Segue refuses such a key."""
    origins = ["https://shop.example.com"]
    body = {"kind": "write", "source": "default", "trust": "server"}
    await shop.tell("POST", "/v1/keys", {**body, "origins": origins}, 400)
    key = await shop.tell("POST", "/v1/keys", body, 201)
    assert (key["trust"], key["joins_users"]) == ("server", False)
    await shop.tell("PUT", f"/v1/keys/{key['id']}", {"origins": origins}, 400)
    refused = await WebPage(shop, key["key"]).post(identify("attacker"))
    assert is_problem(refused, 403, "origin_not_allowed")
