"""Visitor claims: visitor proofs, visitor tokens, and user ids for which the site vouches.

A false claim reveals no data.
"""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config import Settings
from app.errors import InvalidToken
from app.formats.timestamps import rfc3339
from app.postgres.pool import FrozenClock
from app.registry import visitor_tokens
from app.registry.visitor_tokens import Visitor
from app.touchpoint import MINUTE, SECOND
from tests.support.running_app import RunningApp, is_problem, running_app
from tests.support.web_page import WebPage, did, is_member

HOUR_SECONDS = 3_600
VIP = {"key": "vip", "public": True, "rule": {"did": "Order Completed"}}
OLD, NEW = secrets.token_bytes(32), secrets.token_bytes(32)
PROOF = "0123456789abcdef0123456789abcdef"


@pytest.fixture
async def shop(service: RunningApp) -> RunningApp:
    await service.tell("POST", "/v1/segments", VIP, 201)
    return service


# ------------------------------------------------------------------------------------------- pure


def test_visitor_id_is_the_start_of_the_hash_of_the_proof() -> None:
    """The expected id was computed with ``printf 0123456789abcdef0123456789abcdef | sha256sum``."""
    assert visitor_tokens.derive_anonymous_id(PROOF) == "3eb1bd439947eb762998e566ccc2e099"
    assert visitor_tokens.is_valid_proof(PROOF, "3eb1bd439947eb762998e566ccc2e099")


@pytest.mark.parametrize(
    "proof", ["", "0", PROOF.upper(), PROOF + "0", PROOF[:-1], PROOF[:-1] + "g", "é" * 32, PROOF + "\n"]
)
def test_malformed_proofs_are_invalid(proof: str) -> None:
    assert visitor_tokens.derive_anonymous_id(proof) is None
    assert not visitor_tokens.is_valid_proof(proof, "3eb1bd439947eb762998e566ccc2e099")
    assert not visitor_tokens.is_valid_proof(proof, "")
    assert not visitor_tokens.is_valid_proof(PROOF, "\ud800")


def test_signing_keys_are_rotated() -> None:
    visitor = Visitor("shop", 10 * SECOND, "anon")
    by_old = visitor_tokens.sign_token(visitor, [OLD])
    by_new = visitor_tokens.sign_token(visitor, [OLD, NEW])
    assert by_old != by_new
    for token in (by_old, by_new):
        assert visitor_tokens.verify_token(token, [OLD, NEW], "shop", 0) == visitor
    assert visitor_tokens.verify_token(by_new, [NEW], "shop", 0) == visitor
    with pytest.raises(InvalidToken):
        visitor_tokens.verify_token(by_old, [NEW], "shop", 0)
    with pytest.raises(InvalidToken):
        visitor_tokens.verify_token(by_old, [], "shop", 0)


def test_token_expires_exactly_and_belongs_to_one_source() -> None:
    token = visitor_tokens.sign_token(Visitor("shop", 10 * SECOND, "anon"), [OLD])
    assert visitor_tokens.verify_token(token, [OLD], "shop", 10 * SECOND - 1).anonymous_id == "anon"
    for source, now in (("shop", 10 * SECOND), ("blog", 0)):
        with pytest.raises(InvalidToken):
            visitor_tokens.verify_token(token, [OLD], source, now)


def test_renewal_does_not_extend_vouching() -> None:
    vouched = visitor_tokens.vouch_for("shop", "anon", "user-1", 0, HOUR_SECONDS)
    later = visitor_tokens.renew(vouched, 50 * MINUTE, HOUR_SECONDS)
    assert (later.user_id, later.expires_at) == ("user-1", 110 * MINUTE)
    read = visitor_tokens.verify_token(visitor_tokens.sign_token(later, [OLD]), [OLD], "shop", 60 * MINUTE)
    assert (read.anonymous_id, read.user_id) == ("anon", None)
    assert visitor_tokens.renew(later, 60 * MINUTE, HOUR_SECONDS).user_id is None
    alone = visitor_tokens.vouch_for("shop", None, "user-1", 0, HOUR_SECONDS)
    assert visitor_tokens.renew(alone, 59 * MINUTE, HOUR_SECONDS) == alone


@given(st.data())
def test_altered_tokens_are_refused(data: st.DataObject) -> None:
    token = visitor_tokens.sign_token(Visitor("shop", 10 * SECOND, "anon", "user-1", 10 * SECOND), [OLD])
    at = data.draw(st.integers(0, len(token) - 1))
    char = data.draw(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."))
    changed = data.draw(
        st.sampled_from([token[:at] + char + token[at + 1 :], token[:at], token + char, token[:at] + char + token[at:]])
    )
    verified = visitor_tokens.verify_token(token, [OLD], "shop", 0)
    try:
        assert visitor_tokens.verify_token(changed, [OLD], "shop", 0) == verified, (
            "the last letter of Base64 has bits that mean nothing"
        )
    except InvalidToken:
        return
    assert changed[:-1] == token[:-1]


@given(st.text(max_size=300))
def test_arbitrary_text_is_parsed_or_refused(text: str) -> None:
    with pytest.raises(InvalidToken):
        visitor_tokens.verify_token(text, [OLD], "shop", 0)


# ------------------------------------------------------------------------------------------- claims


def forged(page: WebPage) -> list[str]:
    head, _, signature = page.token.partition(".")
    claims = msgspec.json.decode(urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    other = urlsafe_b64encode(msgspec.json.encode({**claims, "a": "f" * 32})).decode().rstrip("=")
    longer = urlsafe_b64encode(msgspec.json.encode({**claims, "e": claims["e"] + 1})).decode().rstrip("=")
    mine = visitor_tokens.sign_token(Visitor(claims["s"], claims["e"], claims["a"]), [secrets.token_bytes(32)])
    return [
        f"{other}.{signature}",
        f"{longer}.{signature}",
        mine,
        head,
        f"{head}.",
        f".{signature}",
        "x",
        "a.b.c",
        "." * 5_000,
    ]


async def test_forged_tokens_are_refused(shop: RunningApp) -> None:
    page = WebPage(shop)
    await page.send(did("Order Completed"))
    assert is_member(await page.ask(), "vip")
    for token in forged(page):
        assert is_problem(await page.get(token), 401, "invalid_token"), token
        receipt = await page.send(did("Looked"), id=page.id, token=token, me="")
        assert receipt["visitor"] == {"error": "invalid_token"}
        assert "me" not in receipt
    assert is_problem(await page.get(""), 401, "invalid_token")


async def test_expired_tokens_are_refused_and_receipts_renew_them(clock: FrozenClock, settings: Settings) -> None:
    async with running_app(settings, clock) as service:
        page = WebPage(service)
        first = (await page.send())["visitor"]
        start = clock.instant
        assert first["expires_at"] == rfc3339(start + HOUR_SECONDS * SECOND)
        by_token = {"id": page.id, "token": first["token"], "me": ""}
        clock.instant = start + HOUR_SECONDS * SECOND // 2
        assert "visitor" not in await page.send(**by_token), "half of its life is left"
        clock.instant += 1
        renewed = (await page.send(**by_token))["visitor"]
        assert renewed["expires_at"] == rfc3339(clock.instant + HOUR_SECONDS * SECOND)
        clock.instant = start + HOUR_SECONDS * SECOND - 1
        assert (await page.get(first["token"])).status_code == 200
        clock.instant += 1
        assert is_problem(await page.get(first["token"]), 401, "invalid_token")
        assert (await page.send(**by_token))["visitor"] == {"error": "invalid_token"}
        assert (await page.get(renewed["token"])).status_code == 200


async def test_token_of_another_source_is_refused(shop: RunningApp) -> None:
    page = WebPage(shop)
    await page.send(did("Order Completed"))
    other = await shop.tell("POST", "/v1/sources", {"key": "blog"}, 201)
    elsewhere = WebPage(shop, other["write_key"], proof=page.proof, token=page.token)
    assert is_problem(await elsewhere.get(), 401, "invalid_token")
    receipt = await elsewhere.send(did("Looked"), id=page.id, token=page.token, me="")
    assert receipt["visitor"] == {"error": "invalid_token"}
    assert is_problem(await WebPage(shop, "wk_unknown", token=page.token).get(), 401, "unauthorized")


async def test_id_of_another_visitor_is_refused(shop: RunningApp) -> None:
    victim, attacker = WebPage(shop), WebPage(shop)
    await victim.send(did("Order Completed"))
    await attacker.send(did("Looked"))
    claims: tuple[Any, ...] = (
        {"id": victim.id, "proof": attacker.proof, "me": ""},
        {"id": victim.id, "proof": victim.id, "me": ""},
        {"id": victim.id, "token": attacker.token, "me": ""},
        {"id": victim.id, "proof": attacker.proof, "token": attacker.token, "me": ""},
        {"id": victim.id, "me": ""},
        {"id": None, "proof": attacker.proof, "me": ""},
        {"token": attacker.token, "me": ""},
        {"id": [victim.id], "proof": attacker.proof, "me": ""},
    )
    for claim in claims:
        receipt = await attacker.send({**did("Looked"), "anonymousId": victim.id}, **claim)
        assert receipt["visitor"] == {"error": "invalid_token"}, claim
        assert "me" not in receipt, claim
    deep = b'{"x":' * 5_000 + b"1" + b"}" * 5_000
    surrogate = b'{"id":"\\ud800","proof":"\\ud800","token":"\\ud800","me":"\\ud800"}'
    for raw in (b"7", b'"x"', b"[]", b"null", b"true", b"{}", deep, surrogate, b'{"id":' + b"9" * 5_000 + b"}"):
        body = b'{"writeKey":"%s","batch":[],"visitor":%s}' % (shop.keys.write_key.encode(), raw)
        answer = await shop.client.post("/v1/b", content=body)
        assert answer.status_code == 200
        assert "me" not in answer.json()
        assert "token" not in answer.json().get("visitor", {})


async def test_proof_is_valid_without_a_token(shop: RunningApp) -> None:
    """The proof is valid beside an expired token or a token of another visitor, which grants no further access."""
    known_page, page = WebPage(shop), WebPage(shop)
    await known_page.send({"type": "identify", "userId": "user-1"}, did("Order Completed", userId="user-1"))
    expected = {"source": "default", "anonymous_id": known_page.id, "user_id": "user-1"}
    others = (await shop.tell("POST", "/v1/visitor-tokens", expected, 201))["token"]
    await page.send(did("Looked"))
    for token in (*forged(page), others):
        receipt = await page.send(did("Looked"), id=page.id, proof=page.proof, token=token, me="")
        assert (receipt["me"]["anonymous_id"], receipt["me"]["segments"]) == (page.id, [])
        assert (await page.ask())["anonymous_id"] == page.id


async def test_ids_in_messages_do_not_identify_the_visitor(shop: RunningApp) -> None:
    """The batch contains another visitor's id. The receipt shows the profile of the proven visitor."""
    victim, attacker = WebPage(shop), WebPage(shop)
    await victim.send(did("Order Completed"))
    receipt = await attacker.send({**did("Looked"), "anonymousId": victim.id})
    assert receipt["me"]["anonymous_id"] == attacker.id
    assert receipt["me"]["segments"] == []


@pytest.mark.parametrize(
    "claim",
    [
        {"userId": "victim"},
        {"traits": {"email": "victim@example.com"}},
        {"userId": "victim", "traits": {"email": "victim@example.com"}},
        {"context": {"traits": {"email": "Victim@Example.com"}}},
    ],
)
async def test_claimed_user_id_does_not_reveal_the_customer(shop: RunningApp, claim: dict[str, Any]) -> None:
    known_page = {"userId": "victim", "traits": {"email": "victim@example.com"}}
    await shop.send(
        {"type": "identify", **known_page}, {"type": "track", "event": "Order Completed", "userId": "victim"}
    )
    attacker = WebPage(shop)
    receipt = await attacker.send({"type": "identify", **claim})
    nothing: dict[str, Any] = {"stages": {}, "segments": [], "traits": {}, "valid_until": None, "withheld": True}
    assert {name: receipt["me"][name] for name in nothing} == nothing
    assert {name: value for name, value in (await attacker.ask()).items() if name in nothing} == nothing


async def test_etag_of_a_withheld_profile_is_constant(shop: RunningApp) -> None:
    """The ETag must be the same whether or not the claimed person is in a segment."""
    await shop.send({"type": "track", "event": "Order Completed", "userId": "member"})
    page = WebPage(shop)
    tags = []
    for user in ("member", "stranger"):
        attacker = WebPage(shop)
        receipt = await attacker.send({"type": "identify", "userId": user})
        assert receipt["me"]["withheld"]
        tags.append({**receipt["me"], "anonymous_id": page.id, "etag": "", "as_of": ""})
    assert tags[0] == tags[1]


async def test_profile_joined_by_alias_is_withheld(shop: RunningApp) -> None:
    await shop.send({"type": "track", "event": "Order Completed", "userId": "victim"})
    attacker = WebPage(shop)
    receipt = await attacker.send({"type": "alias", "previousId": attacker.id, "userId": "victim"})
    assert receipt["me"]["withheld"]
    assert receipt["me"]["segments"] == []


async def test_vouched_user_does_not_see_a_customer_joined_by_alias(shop: RunningApp) -> None:
    """The site vouches for one user, but a message with the public write key aliased another user to that user."""
    await shop.send({"type": "track", "event": "Order Completed", "userId": "victim"})
    attacker = WebPage(shop)
    token = (
        await shop.tell(
            "POST",
            "/v1/visitor-tokens",
            {"source": "default", "anonymous_id": attacker.id, "user_id": "attacker"},
            201,
        )
    )["token"]
    claim = {"id": attacker.id, "token": token, "me": ""}
    before = await attacker.send({"type": "identify", "userId": "attacker"}, **claim)
    assert not before["me"]["withheld"]
    receipt = await attacker.send({"type": "alias", "userId": "attacker", "previousId": "victim"}, **claim)
    assert receipt["me"]["withheld"]
    assert receipt["me"]["segments"] == []


async def test_profile_of_another_joined_visitor_is_withheld(shop: RunningApp) -> None:
    """A message joins two anonymous ids to one customer, but the visitor has proved only one of them."""
    victim, attacker = WebPage(shop), WebPage(shop)
    await victim.send(did("Order Completed"))
    joining = {"context": {"externalIds": [{"type": "anonymous_id", "id": victim.id}]}}
    receipt = await attacker.send({**did("Looked"), **joining})
    assert receipt["me"]["withheld"]
    assert receipt["me"]["segments"] == []


async def test_visitor_token_reveals_the_customer(shop: RunningApp) -> None:
    page = WebPage(shop)
    await page.send({"type": "identify", "userId": "user-1"}, did("Order Completed", userId="user-1"))
    assert (await page.ask())["withheld"]
    expected = {"source": "default", "anonymous_id": page.id, "user_id": "user-1"}
    page.token = (await shop.tell("POST", "/v1/visitor-tokens", expected, 201))["token"]
    assert is_member(await page.ask(), "vip")
    receipt = await page.send(did("Looked"), id=page.id, token=page.token, me="")
    assert is_member(receipt["me"], "vip")
    for user in ("user-2", None):
        other = await shop.tell("POST", "/v1/visitor-tokens", {**expected, "user_id": user}, 201)
        assert (await page.get(other["token"])).json()["withheld"], "not the word for this user"


async def test_visitor_token_for_a_user_id_only(shop: RunningApp) -> None:
    """The server does not know the anonymous id. The token proves the user id, and the proof identifies the visitor."""
    await shop.send({"type": "track", "event": "Order Completed", "userId": "user-1"})
    page = WebPage(shop)
    await page.send(did("Looked"))
    expected = {"source": "default", "user_id": "user-1"}
    page.token = (await shop.tell("POST", "/v1/visitor-tokens", expected, 201))["token"]
    answer = await page.ask()
    assert (answer["anonymous_id"], is_member(answer, "vip")) == (None, True)
    receipt = await page.send(did("Looked"), id=page.id, token=page.token, me="")
    assert is_member(receipt["me"], "vip")
    both = await page.send(did("Looked"), id=page.id, proof=page.proof, token=page.token, me="")
    assert (both["me"]["anonymous_id"], is_member(both["me"], "vip")) == (page.id, True)
    assert (await page.get(both["visitor"]["token"])).json()["anonymous_id"] == page.id


async def test_vouching_expires_although_the_token_is_renewed(clock: FrozenClock, settings: Settings) -> None:
    async with running_app(settings, clock) as service:
        await service.tell("POST", "/v1/segments", VIP, 201)
        page = WebPage(service)
        await page.send({"type": "identify", "userId": "user-1"}, did("Order Completed", userId="user-1"))
        expected = {"source": "default", "anonymous_id": page.id, "user_id": "user-1"}
        page.token = (await service.tell("POST", "/v1/visitor-tokens", expected, 201))["token"]
        ends = clock.instant + HOUR_SECONDS * SECOND
        clock.instant = ends - 1
        receipt = await page.send(id=page.id, token=page.token, me="")
        assert is_member(receipt["me"], "vip")
        clock.instant = ends
        assert (await page.ask())["withheld"]


async def test_key_that_trusts_identify_reveals_the_customer(shop: RunningApp) -> None:
    page = WebPage(shop)
    await page.send({"type": "identify", "userId": "user-1"}, did("Order Completed", userId="user-1"))
    assert (await page.ask())["withheld"]
    trusting = await shop.tell("POST", "/v1/keys", {"kind": "write", "source": "default", "trusts_identify": True}, 201)
    assert trusting["trusts_identify"] is True
    trusted = WebPage(shop, trusting["key"], proof=page.proof, token=page.token)
    assert is_member(await trusted.ask(), "vip")
    await shop.tell("PUT", f"/v1/keys/{trusting['id']}", {"trusts_identify": False})
    assert (await trusted.ask())["withheld"]


async def test_visitor_token_request_is_validated(shop: RunningApp) -> None:
    expected = {"source": "default", "anonymous_id": "a" * 32}
    by_write_key = {"Authorization": f"Bearer {shop.keys.write_key}"}
    refused = await shop.client.post("/v1/visitor-tokens", json=expected, headers=by_write_key)
    assert is_problem(refused, 403, "forbidden")
    for body, status in (
        ({"source": "default"}, 400),
        ({"source": "none", "user_id": "user-1"}, 404),
        ({"source": "default", "user_id": ""}, 400),
        ({"source": "default", "user_id": "null"}, 400),
        ({"source": "default", "user_id": "x" * 256}, 400),
        ({"source": "default", "user_id": "\0"}, 400),
        ({"source": "default", "user_id": 7}, 400),
        ({"source": "default", "user_id": "user-1", "life": 9}, 400),
        ([], 400),
    ):
        await shop.tell("POST", "/v1/visitor-tokens", body, status)


async def test_tokens_survive_restart_and_key_rotation(settings: Settings) -> None:
    async with running_app(settings) as service:
        page = WebPage(service)
        await page.send(did("Looked"))
    async with running_app(settings) as again:
        later = WebPage(again, page.key, proof=page.proof, token=page.token)
        assert (await later.get()).status_code == 200
        registry = again.app.state.services.registry
        assert len(registry.access.current.signing_keys) == 1
        await registry.keys.renew_signing_key()
        assert len(registry.access.current.signing_keys) == 2
        assert registry.access.current.signing_keys[0] != registry.access.current.signing_keys[1]
        assert (await later.get()).status_code == 200
        before = later.token
        await later.send()
        assert later.token != before
        assert (await later.get()).status_code == 200


async def test_old_workspace_gets_one_signing_key(settings: Settings) -> None:
    async with running_app(settings) as one, running_app(settings) as two:
        for service in (one, two):
            await service.app.state.services.registry.keys.renew_signing_key(only_first=True)
        pool = one.app.state.services.pool
        assert await pool.fetchval("SELECT count(*) FROM signing_keys") == 1
        assert len(await pool.fetchval("SELECT secret FROM signing_keys")) == 32


async def test_proof_is_never_stored(service: RunningApp) -> None:
    page = WebPage(service)
    await page.send(did("Looked"))
    await page.post({"type": "nonsense"})
    pool = service.app.state.services.pool
    tables = [row[0] for row in await pool.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    held = [
        name
        for name in tables
        if await pool.fetchval(f"SELECT count(*) FROM {name} t WHERE t::text LIKE $1", f"%{page.proof}%")
    ]
    assert held == []
    originals = [bytes(row["original"]) for row in await pool.fetch("SELECT original FROM quarantine")]
    assert originals
    assert not any(page.proof.encode() in original for original in originals)
