"""Definitions of the demo shop: one journey with page content per stage, and segments with windows of minutes.

The windows are short so that you can watch them end. The definitions need only the public API and the rule language.
"""

from __future__ import annotations

from typing import Any, Final

from app.registry.default_definitions import JOURNEYS, Definition

OWNER: Final = "demo shop"

_SIX_STAGES: Final = next(journey for journey in JOURNEYS if journey["key"] == "six-stage")

_CONTENT: Final[dict[str, dict[str, str]]] = {
    "awareness": {
        "headline": "Slow mornings, well equipped",
        "text": "Nine products for the first hour of the day.",
        "action": "See all products",
        "href": "/products",
    },
    "consideration": {
        "headline": "Not sure which one?",
        "text": "Most customers start with the dripper. It needs only hot water and patience.",
        "action": "View the dripper",
        "href": "/products/dripper",
    },
    "decision": {
        "headline": "Good choice",
        "text": "Your cart is saved, and delivery is free.",
        "action": "Go to your cart",
        "href": "/cart",
    },
    "purchase": {
        "headline": "Thank you for your order",
        "text": "While you wait: our house beans are roasted every Monday.",
        "action": "View the house beans",
        "href": "/products/beans",
    },
    "post-purchase": {
        "headline": "We are here when you need us",
        "text": "Our team answers questions about your order.",
        "action": "Contact support",
        "href": "/support",
    },
    "loyalty": {
        "headline": "Good to see you again",
        "text": "See what is new since your last order.",
        "action": "See all products",
        "href": "/products",
    },
}
"""Page content by stage. It is public, so every visitor can read the content of every stage."""

JOURNEY: Final[Definition] = {
    **_SIX_STAGES,
    "stages": [{**stage, "content": _CONTENT[stage["key"]]} for stage in _SIX_STAGES["stages"]],
    "public": True,
}

_CART: Final = ["Product Added", "Checkout Started"]


def _segment(key: str, name: str, description: str, rule: dict[str, Any]) -> Definition:
    return {"key": key, "name": name, "description": description, "owner": OWNER, "rule": rule, "public": True}


SEGMENTS: Final[tuple[Definition, ...]] = (
    _segment("newcomer", "New visitor", "First seen in the last three minutes.", {"first": "*", "within": "3m"}),
    _segment(
        "engaged",
        "Engaged",
        "Viewed three products within 90 seconds.",
        {"did": "Product Viewed", "at_least": 3, "within": "90s"},
    ),
    _segment(
        "cart-abandoners-now",
        "Cart abandoner",
        "Filled a cart and has not changed it or ordered for 20 seconds.",
        {
            "all": [
                {"did": _CART, "within": "5m"},
                {"not": {"did": _CART, "within": "20s"}},
                {"not": {"did": "Order Completed", "within": "5m"}},
            ]
        },
    ),
    _segment(
        "vip",
        "VIP",
        "Ordered for 100 EUR or more in the last five minutes.",
        {"sum": "total", "of": "Order Completed", "gte": 100, "within": "5m"},
    ),
    _segment(
        "asked-for-help",
        "Asked for help",
        "Contacted support in the last two minutes.",
        {"did": "Support Ticket Created", "within": "2m"},
    ),
    _segment("subscribers", "Subscriber", "Subscribed to the newsletter.", {"did": "Newsletter Subscribed"}),
)
