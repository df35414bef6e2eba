"""Shop connectors: repeated, reordered and anonymous events store each purchase once, for the right customer."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from app.config import Settings
from tests.connectors.tools import shop, shopify, woocommerce
from tests.support.tool_fixture import Case, Fixture, json_body
from tests.support.webhook_sender import WebhookSender, running_webhook_sender


async def _send(
    tools: WebhookSender, fixture: Fixture, topic: str, body: Any, n: int = 1, **headers: str
) -> dict[str, Any]:
    tool_headers = shopify._headers(topic, n) if fixture is shopify.FIXTURE else woocommerce._headers(topic)
    case = Case("", json_body(body), headers={**tool_headers, **headers})
    response = await tools.send(fixture, case, fixture.secret)
    assert response.status_code == 200, response.text
    return response.json()


async def _names(tools: WebhookSender, who: str) -> list[str]:
    touchpoints = (await tools.ask("GET", f"/v1/customers/{who}/touchpoints"))["items"]
    return sorted(touchpoint["name"] for touchpoint in touchpoints if touchpoint["name"])


async def test_woocommerce_order_updates_complete_it_once(tools: WebhookSender) -> None:
    await tools.add(woocommerce.FIXTURE)
    steps = ["pending", "on-hold", "processing", "processing", "completed", "completed"]
    for n, status in enumerate(steps):
        order = woocommerce._order(status, date_modified_gmt=f"2026-05-04T10:00:0{n}")
        await _send(tools, woocommerce.FIXTURE, "order.updated", order)
    names = await _names(tools, "email:user@example.com")
    assert names == ["Order Completed", *["Order Updated"] * len(steps)]
    for n in (6, 7):
        refunded = woocommerce._order(
            "refunded", refunds=[{"id": 9, "total": "-10.00"}], date_modified_gmt=f"2026-05-04T10:00:0{n}"
        )
        await _send(tools, woocommerce.FIXTURE, "order.updated", refunded)
    assert (await _names(tools, "email:user@example.com")).count("Order Refunded") == 1
    assert (await tools.ask("GET", "/v1/quarantine"))["items"] == []


async def test_woocommerce_ping_needs_no_signature(tools: WebhookSender) -> None:
    await tools.add(woocommerce.FIXTURE)
    answer = await tools.client.post(tools.url(), data={"webhook_id": "12"})
    assert answer.status_code == 200
    for forged in (b"webhook_id=12&x=1", b"webhook_id=", b"webhook_id=1e9"):
        assert (await tools.client.post(tools.url(), content=forged)).status_code == 401
    assert (await tools.ask("GET", "/v1/quarantine"))["items"] == []


async def test_shopify_order_of_two_subscriptions_is_stored_once(tools: WebhookSender) -> None:
    await tools.add(shopify.FIXTURE)
    receipts = [await _send(tools, shopify.FIXTURE, "orders/create", shopify._order(), n) for n in (1, 2)]
    assert [(receipt["accepted"], receipt["duplicate"]) for receipt in receipts] == [(1, 0), (0, 1)]
    updates = [await _send(tools, shopify.FIXTURE, "orders/updated", shopify._order(), n) for n in (3, 4)]
    assert [(receipt["accepted"], receipt["duplicate"]) for receipt in updates] == [(1, 0), (0, 1)]


async def test_shopify_body_with_a_new_event_id_header_is_a_duplicate(tools: WebhookSender) -> None:
    """The signature does not cover the headers, so a recorded body could be sent again with a new event id."""
    await tools.add(shopify.FIXTURE)
    body = {"id": 1, "token": "t-1", "email": "user@example.com", "updated_at": "2026-05-04T10:00:00Z"}
    receipts = [await _send(tools, shopify.FIXTURE, "checkouts/update", body, n) for n in (1, 2)]
    assert [(receipt["accepted"], receipt["duplicate"]) for receipt in receipts] == [(1, 0), (0, 1)]
    changed = {**body, "updated_at": "2026-05-04T10:00:01Z"}
    assert (await _send(tools, shopify.FIXTURE, "checkouts/update", changed, 2))["accepted"] == 1


@pytest.mark.parametrize("turn", list(permutations(range(3))))
async def test_shopify_refund_and_shipment_belong_to_the_customer_of_the_order(
    settings: Settings, turn: tuple[int, ...]
) -> None:
    order = shopify._order(note_attributes=[{"name": "anonymous_id", "value": "v-1"}])
    deliveries = [
        ("orders/create", order),
        ("refunds/create", {"id": 9, "order_id": 7, "transactions": [{"kind": "refund", "amount": "1.00"}]}),
        ("fulfillments/create", {"id": 5, "order_id": 7, "created_at": "2026-05-04T10:00:00Z"}),
    ]
    async with running_webhook_sender(settings) as tools:
        await tools.add(shopify.FIXTURE)
        for place in turn:
            await _send(tools, shopify.FIXTURE, *deliveries[place], n=place)
        names = ["Order Completed", "Order Refunded", "Order Shipped"]
        assert await _names(tools, "email:user@example.com") == names
        assert await _names(tools, "anonymous_id:v-1") == names


async def test_shopify_refund_belongs_to_a_guest_who_registers(tools: WebhookSender) -> None:
    """The deliveries arrive in every order. The guest registers with another address."""
    registered = {"id": 115, "email": "registered@example.com", "updated_at": "2026-05-04T11:00:00Z"}
    cart = [{"name": "user_id", "value": "user-1"}]
    deliveries: list[tuple[str, dict[str, Any]]] = [
        ("orders/create", shopify._order()),
        ("refunds/create", {"id": 9, "order_id": 7, "transactions": [{"kind": "refund", "amount": "1.00"}]}),
        ("checkouts/create", {"id": 1, "token": "t-1", "email": "user@example.com", "note_attributes": cart}),
        ("checkouts/update", {"id": 2, "token": "t-2", "customer": registered, "note_attributes": cart}),
    ]
    names = ["Checkout Started", "Checkout Updated", "Order Completed", "Order Refunded"]
    await tools.add(shopify.FIXTURE)
    for turn in permutations(deliveries):
        for n, delivery in enumerate(turn):
            await _send(tools, shopify.FIXTURE, *delivery, n=n)
        for who in ("user_id:user-1", "email:user@example.com", "shopify_customer:115"):
            assert await _names(tools, who) == names
        await tools.forget_all_messages()


@pytest.mark.parametrize(
    ("redact", "identities"),
    [
        (
            {"customer": {"id": 115, "email": "user@example.com"}},
            {("shopify_customer", "115"), ("email", "user@example.com")},
        ),
        ({"customer": {"email": "user@example.com", "phone": ""}}, {("email", "user@example.com")}),
        ({"orders_to_redact": [7]}, {("shopify_order", "7")}),
    ],
)
async def test_shopify_redact_queues_an_erasure_per_identity(
    redact: dict[str, Any], identities: set[tuple[str, str]], tools: WebhookSender
) -> None:
    await tools.add(shopify.FIXTURE)
    await _send(tools, shopify.FIXTURE, "orders/create", shopify._order(customer={"id": 115}))
    receipt = await _send(tools, shopify.FIXTURE, "customers/redact", {**shopify._SHOP, **redact})
    assert (receipt["accepted"], receipt["ignored"]) == (0, 0)
    requests = (await tools.ask("GET", "/v1/erasure-requests"))["items"]
    assert {(request["kind"], request["value"]) for request in requests} == identities
    customer = await tools.ask("GET", "/v1/customers/email:user@example.com")
    assert {request["customer"] for request in requests} == {customer["id"]}


async def test_woocommerce_customer_ids_are_scoped_to_the_shop(tools: WebhookSender) -> None:
    await tools.add(woocommerce.FIXTURE)
    for host in ("one", "two"):
        customer = {"id": 1, "email": f"{host}@example.com", "date_modified_gmt": "2026-05-04T10:00:00"}
        source = {"x-wc-webhook-source": f"https://{host}.example.com"}
        await _send(tools, woocommerce.FIXTURE, "customer.created", customer, 1, **source)
    one = await tools.ask("GET", "/v1/customers/email:one@example.com")
    assert {f"{identity['kind']}:{identity['value']}" for identity in one["identities"]} == {
        "email:one@example.com",
        "woocommerce_customer:one.example.com:1",
    }


async def test_woocommerce_order_ids_are_scoped_to_the_shop(tools: WebhookSender) -> None:
    await tools.add(woocommerce.FIXTURE)
    for host in ("one", "two"):
        source = {"x-wc-webhook-source": f"https://{host}.example.com"}
        order = woocommerce._order("completed", refunds=[{"id": 9, "total": "-1.00"}])
        receipt = await _send(tools, woocommerce.FIXTURE, "order.updated", order, 1, **source)
        assert (receipt["accepted"], receipt["duplicate"]) == (3, 0)
    assert (await tools.ask("GET", "/v1/quarantine"))["items"] == []


async def test_woocommerce_status_updates_within_one_second_are_both_stored(tools: WebhookSender) -> None:
    await tools.add(woocommerce.FIXTURE)
    for status in ("pending", "on-hold"):
        await _send(tools, woocommerce.FIXTURE, "order.updated", woocommerce._order(status))
    assert await _names(tools, "email:user@example.com") == ["Order Updated"] * 2
    assert (await tools.ask("GET", "/v1/quarantine"))["items"] == []


async def test_shop_order_and_shipment_may_share_an_id(tools: WebhookSender) -> None:
    secret = await tools.add(shop.FIXTURE)
    events = [
        shop._event("order", 0, id=1001, order_id="A-1"),
        shop._event("shipment", 1, id=1001, shipment_id="P-1"),
        shop._event("Gift Wrapped", 2, id=1001),
    ]
    receipt = (await tools.send(shop.FIXTURE, Case("", json_body(events)), secret)).json()
    assert (receipt["accepted"], receipt["duplicate"], receipt["rejected"]) == (3, 0, 0)


async def test_shop_order_is_completed_once_under_any_event_id(tools: WebhookSender) -> None:
    secret = await tools.add(shop.FIXTURE)
    events = [shop._event("order", 0, order_id="A-1", **own) for own in ({"id": 1}, {"id": 2}, {})]
    receipt = (await tools.send(shop.FIXTURE, Case("", json_body(events)), secret)).json()
    assert (receipt["accepted"], receipt["duplicate"]) == (1, 2)
