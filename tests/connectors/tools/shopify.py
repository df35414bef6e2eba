"""Fixture of the Shopify connector: HMAC-SHA256 of the body in base64."""

from __future__ import annotations

import hmac
from base64 import b64encode
from typing import Any

from app.connectors.tools.shopify import CONNECTOR
from tests.support.tool_fixture import Case, Fixture, SignedWith, Touchpoint, json_body

_AT = "2026-05-04T10:00:00Z"
_WHO = "email:user@example.com"
_CUSTOMER = {"id": 115, "email": "user@example.com"}
_SHOP = {"shop_id": 1, "shop_domain": "example.myshopify.com"}


def sign(body: bytes, secret: str, now: int, url: str) -> SignedWith:
    del now, url
    return {"X-Shopify-Hmac-Sha256": b64encode(hmac.digest(secret.encode(), body, "sha256")).decode()}, {}


def _headers(topic: str, n: int = 1) -> dict[str, str]:
    return {
        "content-type": "application/json",
        "x-shopify-topic": topic,
        "x-shopify-event-id": f"event-{n}",
        "x-shopify-triggered-at": "2026-05-04T10:00:09.123456789Z",
    }


def _order(**more: Any) -> dict[str, Any]:
    order = {"id": 7, "name": "#7", "created_at": "2026-05-04T12:00:00+02:00", "updated_at": "2026-05-04T10:00:05Z"}
    return {**order, "email": "user@example.com", "currency": "EUR", "total_price": "10.00", **more}


def _case(about: str, topic: str, body: Any, *touchpoints: Touchpoint, who: str = _WHO, **more: Any) -> Case:
    return Case(about, json_body(body), who, touchpoints, headers=_headers(topic), **more)


def _order_case(topic: str, name: str, at: str, **more: Any) -> Case:
    return _case(topic, topic, _order(**more), Touchpoint(name, "shop", at, {"order_id": "7", "total": 10}))


FIXTURE = Fixture(
    kind="shopify",
    secret="shpss_0123456789abcdef",
    other_secret="shpss_fedcba9876543210",
    sign=sign,
    sample=Case(
        "an order",
        CONNECTOR.sample,
        _WHO,
        (
            Touchpoint(
                "Order Completed",
                "shop",
                _AT,
                {
                    "order_id": "820982911946154508",
                    "order_number": "#1001",
                    "total": 42.5,
                    "shipping": 5,
                    "discount": 5,
                    "currency": "EUR",
                    "coupon": "SPRING",
                    "products": [
                        {
                            "product_id": "632910392",
                            "variant_id": "808950810",
                            "sku": "SKU-1",
                            "name": "Lamp",
                            "brand": "Acme",
                            "price": 42.5,
                            "quantity": 1,
                        }
                    ],
                },
            ),
        ),
        identities=(
            "email:user@example.com",
            "anonymous_id:v-1",
            "shopify_customer:115310627314723954",
        ),
        headers=CONNECTOR.sample_headers,
    ),
    several=_case(
        "the topic orders/paid",
        "orders/paid",
        _order(financial_status="paid"),
        Touchpoint("Order Paid", "shop", "2026-05-04T10:00:09.123456Z", {"status": "paid"}),
    ),
    unknown=_case(
        "an unknown topic",
        "orders/teleported",
        _order(),
        Touchpoint("shopify.orders_teleported", "shop", "2026-05-04T10:00:09.123456Z", {"object_id": "7"}),
    ),
    non_ascii=_case(
        "a Greek product and a Chinese note",
        "orders/create",
        _order(line_items=[{"title": "λάμπα", "quantity": 2}], note="謝謝"),
        Touchpoint(
            "Order Completed",
            "shop",
            _AT,
            {"products": [{"name": "λάμπα", "quantity": 2}], "note": None},
            {"private": {"note": "謝謝"}},
        ),
    ),
    times=(
        _order_case(
            "orders/create", "Order Completed", "2026-05-03T22:00:00.5Z", processed_at="2026-05-03T18:00:00.5-04:00"
        ),
        _order_case("orders/create", "Order Completed", "2026-05-05T12:00:00Z", processed_at="soon"),
    ),
    malformed=Case("not an object", b"[7]", rejected=1, headers=_headers("orders/create")),
    others=(
        _order_case("orders/cancelled", "Order Cancelled", "2026-05-04T11:00:00Z", cancelled_at="2026-05-04T11:00:00Z"),
        _order_case("orders/fulfilled", "Order Fulfilled", "2026-05-04T10:00:09.123456Z"),
        _order_case("orders/updated", "Order Updated", "2026-05-04T10:00:09.123456Z"),
        _case(
            "a point-of-sale order",
            "orders/create",
            _order(source_name="pos", customer=_CUSTOMER, email=""),
            Touchpoint("Order Completed", "in_store", _AT),
        ),
        _case("an order without a customer", "orders/create", _order(email=None), who="", ignored=1),
        _case(
            "a refund, linked by its order",
            "refunds/create",
            {
                "id": 9,
                "order_id": 7,
                "created_at": "2026-05-04T12:00:00+02:00",
                "note": "broken",
                "user_id": 3,
                "refund_line_items": [
                    {"quantity": 1, "subtotal": "10.00", "line_item": {"sku": "S", "price": "10.00"}}
                ],
                "transactions": [
                    {"kind": "refund", "amount": "4.00", "currency": "EUR"},
                    {"kind": "refund", "amount": "5.50", "currency": "EUR"},
                ],
            },
            Touchpoint(
                "Order Refunded",
                "shop",
                _AT,
                {
                    "order_id": "7",
                    "refund_id": "9",
                    "total": 9.5,
                    "currency": "EUR",
                    "products": [{"sku": "S", "price": 10, "quantity": 1}],
                },
                {"private": {"note": "broken"}},
            ),
            who="shopify_order:7",
        ),
        _case(
            "a shipment",
            "fulfillments/create",
            {"id": 5, "order_id": 7, "created_at": _AT, "tracking_company": "DHL", "email": "user@example.com"},
            Touchpoint("Order Shipped", "shop", _AT, {"order_id": "7", "shipment_id": "5", "carrier": "DHL"}),
        ),
        _case(
            "a delivered shipment",
            "fulfillments/update",
            {"id": 5, "order_id": 7, "updated_at": _AT, "shipment_status": "delivered", "email": "user@example.com"},
            Touchpoint("Order Delivered", "shop", _AT, {"status": "delivered"}),
        ),
        _case(
            "a shipment in transit",
            "fulfillments/update",
            {"id": 5, "order_id": 7, "updated_at": _AT, "shipment_status": "in_transit", "email": "user@example.com"},
            Touchpoint("Shipment Updated", "shop", _AT, {"status": "in_transit"}),
        ),
        _case(
            "a new checkout",
            "checkouts/create",
            {"id": 1, "token": "t-1", "email": "user@example.com", "created_at": _AT, "total_price": "10.00"},
            Touchpoint("Checkout Started", "shop", _AT, {"checkout_id": "t-1", "total": 10, "order_id": None}),
        ),
        _case(
            "an updated checkout",
            "checkouts/update",
            {"id": 1, "token": "t-1", "email": "user@example.com", "updated_at": _AT},
            Touchpoint("Checkout Updated", "shop", _AT),
        ),
        _case("a checkout without a customer", "checkouts/create", {"id": 1, "token": "t-1"}, who="", ignored=1),
        _case(
            "a customer",
            "customers/create",
            {
                **_CUSTOMER,
                "first_name": "Zoë",
                "phone": "+4930123456",
                "updated_at": _AT,
                "total_spent": "99.90",
                "email_marketing_consent": {"state": "not_subscribed"},
            },
            accepted=1,
            traits={"first_name": "Zoë", "total_spent": 99.9, "accepts_marketing": False},
            identities=("shopify_customer:115", "phone:+4930123456"),
        ),
        _case(
            "an updated customer",
            "customers/update",
            {**_CUSTOMER, "updated_at": _AT, "accepts_marketing": True},
            accepted=1,
            traits={"accepts_marketing": True},
        ),
        _case(
            "an edited order",
            "orders/edited",
            {"order_edit": {"id": 3, "order_id": 7}},
            Touchpoint("shopify.orders_edited", "shop", "2026-05-04T10:00:09.123456Z", {"object_id": "3"}),
            who="shopify_order:7",
        ),
        _case(
            "a data request",
            "customers/data_request",
            {"shop_id": 1, "customer": _CUSTOMER, "orders_requested": [7]},
            Touchpoint("shopify.customers_data_request", "shop", "2026-05-04T10:00:09.123456Z"),
        ),
        _case("an erasure request", "customers/redact", {**_SHOP, "customer": _CUSTOMER}, who=""),
        _case(
            "an erasure request without identities", "customers/redact", {**_SHOP, "customer": {}}, who="", rejected=1
        ),
        _case(
            "an order body sent as customers/redact", "customers/redact", _order(customer=_CUSTOMER), who="", rejected=1
        ),
        _case(
            "a customer body sent as customers/redact",
            "customers/redact",
            {**_SHOP, **_CUSTOMER, "customer": _CUSTOMER},
            who="",
            rejected=1,
        ),
        _case(
            "a data request sent as customers/redact",
            "customers/redact",
            {**_SHOP, "customer": _CUSTOMER, "orders_requested": [7], "data_request": {"id": 1}},
            who="",
            rejected=1,
        ),
        _case("an uninstalled app", "app/uninstalled", {"id": 1, "email": "owner@example.com"}, who="", ignored=1),
        _case("a product event, which concerns no person", "products/update", {"id": 1}, who="", ignored=1),
        Case("no topic", json_body(_order()), rejected=1),
    ),
)
