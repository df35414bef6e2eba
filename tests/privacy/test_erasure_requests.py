"""Tests of erasure requests: queueing, listing with the current customer, and closing."""

from __future__ import annotations

from typing import Any

from app.ingest.erasure_queue import build_erasures, queue_erasures
from tests.support.running_app import NOON, RunningApp

IDENTITIES: list[tuple[str, Any]] = [
    ("email", " User@Example.com "),
    ("email", "user@example.com"),
    ("shopify_customer", 207119551),
    ("user_id", "null"),
    ("user_id", "a/b 100%"),
    ("phone", None),
    ("email", "invalid"),
]


async def queue(service: RunningApp, source: str, identities: list[tuple[str, Any]]) -> int:
    services = service.app.state.services
    erasures = build_erasures(identities, source, NOON, services.settings)
    await queue_erasures(services.pool, erasures)
    return len(erasures)


async def test_identity_is_queued_once_while_open(service: RunningApp) -> None:
    for _ in range(2):
        assert await queue(service, "shop", IDENTITIES) == 3
    assert await queue(service, "mail", IDENTITIES[:1]) == 1
    items = (await service.ask("/v1/erasure-requests"))["items"]
    assert {(item["source"], item["kind"], item["value"]) for item in items} == {
        ("shop", "email", "user@example.com"),
        ("shop", "shopify_customer", "207119551"),
        ("shop", "user_id", "a/b 100%"),
        ("mail", "email", "user@example.com"),
    }
    assert {(item["requested_at"], item["handled_at"], item["customer"]) for item in items} == {
        ("2026-01-01T12:00:00.000000Z", None, None)
    }


async def test_request_names_the_customer_and_erases_nothing(service: RunningApp) -> None:
    await service.send({"type": "identify", "userId": "user-1", "traits": {"email": "user@example.com"}})
    await queue(service, "default", [("email", "user@example.com")])
    customer = await service.ask("/v1/customers/user-1")
    [item] = (await service.ask("/v1/erasure-requests"))["items"]
    assert item["customer"] == customer["id"]
    assert customer["traits"] == {"email": "user@example.com"}


async def test_closed_request_can_be_made_again(service: RunningApp) -> None:
    await queue(service, "default", [("user_id", f"user-{number}") for number in range(5)])
    items = await service.all_of("/v1/erasure-requests", limit=2)
    ids = [item["id"] for item in items]
    assert ids == sorted(ids, reverse=True)
    assert len(ids) == 5
    for handled in (2, 0):  # The second call does not find an open request.
        answer = await service.tell("POST", "/v1/erasure-requests/handled", {"ids": [*ids[:2], 10**9]})
        assert answer == {"handled": handled}
    assert [item["id"] for item in await service.all_of("/v1/erasure-requests", limit=2)] == ids[2:]
    everything = await service.all_of("/v1/erasure-requests", limit=2, handled="true")
    assert [item["id"] for item in everything] == ids
    assert [item["handled_at"] is None for item in everything] == [False, False, True, True, True]
    for _ in range(2):
        await queue(service, "default", [("user_id", items[0]["value"])])
        [newest, *others] = (await service.ask("/v1/erasure-requests"))["items"]
        assert (newest["value"], [item["id"] for item in others]) == (items[0]["value"], ids[2:])


async def test_routes_need_a_secret_key_and_valid_ids(service: RunningApp) -> None:
    for method, path in (("GET", "/v1/erasure-requests"), ("POST", "/v1/erasure-requests/handled")):
        for key, status in ((service.keys.write_key, 403), ("sk_unknown", 401)):
            headers = {"Authorization": f"Bearer {key}"}
            assert (await service.client.request(method, path, headers=headers)).status_code == status
    bodies: list[Any] = [
        {}, {"ids": "1"}, {"ids": [0]}, {"ids": [1 << 63]}, {"ids": [True]}, {"ids": [], "all": True}, [],
    ]  # fmt: skip
    for body in bodies:
        problem = await service.tell("POST", "/v1/erasure-requests/handled", body, expected=400)
        assert problem["code"] == "bad_request", body
