"""Fixture of the WooCommerce connector: HMAC-SHA256 of the body in base64."""

from __future__ import annotations

import hmac
from base64 import b64encode
from typing import Any

from app.connectors.tools.woocommerce import CONNECTOR
from tests.support.tool_fixture import Case, Fixture, SignedWith, Touchpoint, json_body

_CREATED_AT, _MODIFIED_AT, _RECEIVED_AT = "2026-05-04T10:00:00Z", "2026-05-04T10:00:05Z", "2026-05-05T12:00:00Z"
_WHO = "email:user@example.com"


def sign(body: bytes, secret: str, now: int, url: str) -> SignedWith:
    del now, url
    return {"X-WC-Webhook-Signature": b64encode(hmac.digest(secret.encode(), body, "sha256")).decode()}, {}


def _headers(topic: str) -> dict[str, str]:
    return {
        "content-type": "application/json",
        "x-wc-webhook-topic": topic,
        "x-wc-webhook-delivery-id": "d-1",
        "x-wc-webhook-source": "https://shop.example.com/de/",
    }


def _order(status: str, **more: Any) -> dict[str, Any]:
    times = {"date_created_gmt": _CREATED_AT[:-1], "date_modified_gmt": _MODIFIED_AT[:-1]}
    billing = {"email": "user@example.com"}
    return {"id": 7, "status": status, "currency": "EUR", "total": "10.00", "billing": billing, **times, **more}


def _case(about: str, topic: str, body: Any, *touchpoints: Touchpoint, who: str = _WHO, **more: Any) -> Case:
    return Case(about, json_body(body), who, touchpoints, headers=_headers(topic), **more)


def _updated(status: str) -> Touchpoint:
    return Touchpoint("Order Updated", "shop", _MODIFIED_AT, {"order_id": "7", "status": status, "total": 10})


FIXTURE = Fixture(
    kind="woocommerce",
    secret="a secret",
    other_secret="another secret",
    sign=sign,
    sample=Case(
        "a paid order",
        CONNECTOR.sample,
        _WHO,
        (
            Touchpoint(
                "Order Completed",
                "shop",
                _CREATED_AT,
                {
                    "order_id": "727",
                    "total": 42.5,
                    "tax": 6.79,
                    "shipping": 5,
                    "discount": 5,
                    "currency": "EUR",
                    "coupon": "spring",
                    "products": [
                        {"product_id": "93", "sku": "SKU-1", "name": "Lamp", "price": 42.5, "quantity": 1},
                    ],
                },
            ),
            Touchpoint("Order Updated", "shop", _MODIFIED_AT, {"order_id": "727", "status": "processing"}),
        ),
        identities=("email:user@example.com", "anonymous_id:v-1", "woocommerce_customer:shop.example.com:26"),
        headers=CONNECTOR.sample_headers,
    ),
    several=_case(
        "a new and paid order",
        "order.created",
        _order("processing"),
        Touchpoint("Order Completed", "shop", _CREATED_AT, {"total": 10}),
        Touchpoint("Order Created", "shop", _CREATED_AT),
    ),
    unknown=_case(
        "an unknown topic",
        "customer.teleported",
        {"id": 26},
        Touchpoint("woocommerce.customer_teleported", "shop", _RECEIVED_AT, {"object_id": "26"}),
        who="woocommerce_customer:shop.example.com:26",
    ),
    non_ascii=_case(
        "a Greek product name",
        "order.updated",
        _order("completed", line_items=[{"name": "λάμπα", "quantity": 2}]),
        Touchpoint("Order Completed", "shop", _CREATED_AT, {"products": [{"name": "λάμπα", "quantity": 2}]}),
        _updated("completed"),
    ),
    times=(
        _case(
            "no creation time, and an invalid time",
            "order.updated",
            _order("on-hold", date_created_gmt=None, date_modified_gmt="soon"),
            Touchpoint("Order Updated", "shop", _RECEIVED_AT),
        ),
    ),
    malformed=Case("not an object", b"[7]", rejected=1, headers=_headers("order.updated")),
    others=(
        _case(
            "a new, unpaid order",
            "order.created",
            _order("pending"),
            Touchpoint("Order Created", "shop", _CREATED_AT, {"order_id": "7"}),
        ),
        _case("a custom status", "order.updated", _order("packed"), _updated("packed")),
        _case(
            "a paid order with a custom status",
            "order.updated",
            _order("packed", date_paid_gmt=_MODIFIED_AT[:-1]),
            Touchpoint("Order Completed", "shop", _CREATED_AT, {"total": 10}),
            _updated("packed"),
        ),
        _case(
            "cancelled",
            "order.updated",
            _order("cancelled"),
            _updated("cancelled"),
            Touchpoint("Order Cancelled", "shop", _RECEIVED_AT),
        ),
        _case(
            "failed",
            "order.updated",
            _order("failed"),
            _updated("failed"),
            Touchpoint("Order Failed", "shop", _RECEIVED_AT),
        ),
        _case(
            "a partial refund",
            "order.updated",
            _order("completed", refunds=[{"id": 9, "reason": "zu groß", "total": "-4.00"}]),
            Touchpoint("Order Completed", "shop", _CREATED_AT),
            _updated("completed"),
            Touchpoint(
                "Order Refunded",
                "shop",
                _RECEIVED_AT,
                {"refund_id": "9", "total": 4, "currency": "EUR", "reason": None},
                {"private": {"reason": "zu groß"}},
            ),
        ),
        _case(
            "a restored order",
            "order.restored",
            _order("on-hold"),
            Touchpoint("woocommerce.order_restored", "shop", _MODIFIED_AT),
        ),
        _case("a deleted order, which contains its id only", "order.deleted", {"id": 7}, who="", ignored=1),
        _case(
            "a guest without an identity",
            "order.updated",
            _order("pending", billing={}, customer_id=0),
            who="",
            ignored=1,
        ),
        _case(
            "a customer",
            "customer.created",
            {
                "id": 26,
                "date_modified_gmt": _MODIFIED_AT[:-1],
                "email": "user@example.com",
                "first_name": "Zoë",
                "role": "customer",
                "is_paying_customer": False,
                "billing": {"phone": "+49 30 123456", "city": "Köln"},
            },
            accepted=1,
            traits={"first_name": "Zoë", "city": "Köln", "is_paying_customer": False},
            identities=("woocommerce_customer:shop.example.com:26", "phone:+4930123456"),
        ),
        _case("a product event, which concerns no person", "product.updated", {"id": 93}, who="", ignored=1),
        Case("no topic", json_body(_order("pending")), rejected=1),
    ),
)
