"""What the demo shop's marketing wants to know: one journey with hints for the page, and segments of minutes.

The windows are short so that one can watch them end. Rules and routes are those that everybody has.
"""

from __future__ import annotations

from typing import Any, Final

from app.registry.default_definitions import JOURNEYS, Definition

OWNER: Final = "demo shop"

_SIX_STAGES: Final = next(journey for journey in JOURNEYS if journey["key"] == "six-stage")

_CONTENT: Final[dict[str, dict[str, str]]] = {
    "awareness": {
        "headline": "Slow mornings, well equipped",
        "text": "Nine good things for the first hour of the day. Have a look around.",
        "action": "See all nine",
        "href": "/products",
    },
    "consideration": {
        "headline": "Not sure which one?",
        "text": "Most people begin with the dripper: it needs nothing but hot water and patience.",
        "action": "Look at the dripper",
        "href": "/products/dripper",
    },
    "decision": {
        "headline": "Good choice. Almost yours.",
        "text": "Your cart is kept for you, and delivery is on us.",
        "action": "Go to your cart",
        "href": "/cart",
    },
    "purchase": {
        "headline": "Thank you. It is being packed.",
        "text": "While you wait: the house beans are roasted on Mondays, and go well with anything here.",
        "action": "Taste the house beans",
        "href": "/products/beans",
    },
    "post-purchase": {
        "headline": "We are here when you need us",
        "text": "A question about your order? Somebody who knows the things themselves will answer.",
        "action": "Ask us anything",
        "href": "/support",
    },
    "loyalty": {
        "headline": "Good to see you again",
        "text": "You know your way around. Regulars find the new things first.",
        "action": "What is new",
        "href": "/products",
    },
}
"""By stage: what the page says there. Hints only, and no secret: whoever asks for a stage may read them."""

JOURNEY: Final[Definition] = {
    **_SIX_STAGES,
    "stages": [{**stage, "content": _CONTENT[stage["key"]]} for stage in _SIX_STAGES["stages"]],
    "public": True,
}

_CART: Final = ["Product Added", "Checkout Started"]


def _segment(key: str, name: str, description: str, rule: dict[str, Any]) -> Definition:
    return {"key": key, "name": name, "description": description, "owner": OWNER, "rule": rule, "public": True}


SEGMENTS: Final[tuple[Definition, ...]] = (
    _segment("newcomer", "Newcomer", "First seen less than three minutes ago.", {"first": "*", "within": "3m"}),
    _segment(
        "keen",
        "Keen",
        "Looked at three products within a minute and a half.",
        {"did": "Product Viewed", "at_least": 3, "within": "90s"},
    ),
    _segment(
        "cart-abandoners-now",
        "Cart left alone",
        "Filled a cart, left it alone for twenty seconds, and did not order.",
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
        "Wrote to support less than two minutes ago.",
        {"did": "Support Ticket Created", "within": "2m"},
    ),
    _segment("subscribers", "Subscriber", "Wants the newsletter.", {"did": "Newsletter Subscribed"}),
)
