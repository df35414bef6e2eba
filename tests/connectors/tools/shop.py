"""Fixture of the generic shop connector: a token in the header X-Segue-Token."""

from __future__ import annotations

from typing import Any

from app.connectors.tools.shop import CONNECTOR
from tests.support.tool_fixture import Case, Fixture, SignedWith, Touchpoint, json_body

_AT = "2026-05-04T10:00:00Z"
_WHO = "email:user@example.com"


def sign(body: bytes, secret: str, now: int, url: str) -> SignedWith:
    del body, now, url
    return {"X-Segue-Token": secret}, {}


def _event(kind: str, second: int = 0, **more: Any) -> dict[str, Any]:
    return {"type": kind, "timestamp": f"2026-05-04T10:00:0{second}Z", "email": "user@example.com", **more}


FIXTURE = Fixture(
    kind="shop",
    secret="",
    sign=sign,
    sample=Case(
        "a store purchase with a loyalty card",
        CONNECTOR.sample,
        "loyalty_card:LC-9",
        (
            Touchpoint(
                "Order Completed",
                "in_store",
                _AT,
                {
                    "order_id": "R-2041",
                    "store": "Berlin 3",
                    "total": 42.5,
                    "currency": "EUR",
                    "products": [{"product_id": "93", "name": "Lamp", "price": 42.5, "quantity": 1}],
                    "loyalty_card": None,
                },
            ),
        ),
    ),
    several=Case(
        "every type, one object per line",
        b"\n".join(
            json_body(event)
            for event in (
                _event("order", 0, order_id=1001, total=10),
                _event("order_updated", 1, order_id=1001),
                _event("cancellation", 2, order_id=1001),
                _event("shipment", 3, order_id=1001, shipment_id=5),
                _event("delivery", 4, order_id=1001, shipment_id=5),
                _event("return", 5, order_id=1001, return_id=6, reason="zu groß"),
                _event("refund", 6, order_id=1001, refund_id=7, total="10.00"),
                _event("card_used", 7, loyalty_card="LC-9"),
                _event("visit", 8, store="Berlin 3"),
            )
        ),
        _WHO,
        (
            Touchpoint("Order Completed", "shop", _AT, {"order_id": "1001", "total": 10}),
            Touchpoint("Order Updated", "shop", "2026-05-04T10:00:01Z"),
            Touchpoint("Order Cancelled", "shop", "2026-05-04T10:00:02Z"),
            Touchpoint("Order Shipped", "shop", "2026-05-04T10:00:03Z", {"shipment_id": "5"}),
            Touchpoint("Order Delivered", "shop", "2026-05-04T10:00:04Z"),
            Touchpoint(
                "Order Returned",
                "shop",
                "2026-05-04T10:00:05Z",
                {"return_id": "6", "reason": None},
                {"private": {"reason": "zu groß"}},
            ),
            Touchpoint("Order Refunded", "shop", "2026-05-04T10:00:06Z", {"total": 10}),
            Touchpoint("Loyalty Card Used", "shop", "2026-05-04T10:00:07Z"),
            Touchpoint("Store Visited", "in_store", "2026-05-04T10:00:08Z"),
        ),
        identities=("loyalty_card:LC-9",),
        headers={"content-type": "application/x-ndjson"},
    ),
    unknown=Case(
        "an unknown type",
        json_body(_event("Gift Wrapped", paper="blue")),
        _WHO,
        (Touchpoint("shop.gift_wrapped", "shop", _AT, {"paper": "blue"}),),
    ),
    non_ascii=Case(
        "a Greek store name",
        json_body(_event("visit", store="Αθήνα")),
        _WHO,
        (Touchpoint("Store Visited", "in_store", _AT, {"store": "Αθήνα"}),),
    ),
    times=(
        Case(
            "seconds, milliseconds, seven digits, occurred_at and an invalid time",
            json_body(
                [
                    _event("visit", timestamp=1777888800),
                    _event("visit", timestamp=1777888801250),
                    _event("visit", timestamp="2026-05-04T12:00:02.1234567+02:00"),
                    {"type": "visit", "email": "user@example.com", "occurred_at": "2026-05-04T10:00:03Z"},
                    _event("visit", timestamp="soon"),
                ]
            ),
            _WHO,
            (
                Touchpoint("Store Visited", "in_store", _AT),
                Touchpoint("Store Visited", "in_store", "2026-05-04T10:00:01.25Z"),
                Touchpoint("Store Visited", "in_store", "2026-05-04T10:00:02.123456Z"),
                Touchpoint("Store Visited", "in_store", "2026-05-04T10:00:03Z"),
                Touchpoint("Store Visited", "in_store", "2026-05-05T12:00:00Z"),
            ),
        ),
    ),
    malformed=Case(
        "three invalid events and a valid one",
        json_body([{"order_id": 1}, 7, {"type": "visit"}, _event("visit")]),
        _WHO,
        (Touchpoint("Store Visited", "in_store", _AT),),
        rejected=3,
    ),
    others=(
        Case(
            "a loyalty card links a purchase to its holder",
            json_body(
                [
                    {"type": "purchase", "order_id": "R-1", "timestamp": _AT, "loyalty_card": "LC-9"},
                    {
                        "type": "card",
                        "timestamp": _AT,
                        "loyalty_card": "LC-9",
                        "customer": {"user_id": "user-1", "traits": {"tier": "gold"}},
                    },
                ]
            ),
            "user_id:user-1",
            (Touchpoint("Order Completed", "in_store", _AT, {"order_id": "R-1"}),),
            traits={"tier": "gold"},
            accepted=2,
        ),
        Case(
            "a Segment event name as type, and traits",
            json_body(_event("Order Completed", order_id="R-1", traits={"city": "Köln"}, channel="App")),
            _WHO,
            (Touchpoint("Order Completed", "app", _AT, {"order_id": "R-1", "traits": None}),),
            traits={"city": "Köln"},
            accepted=2,
        ),
    ),
)
