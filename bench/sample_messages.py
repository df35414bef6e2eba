"""Sample messages: about 700 bytes each, as an SDK in a web shop would send them, from many customers.

Message ``n`` is identical in every process and run except for its timestamp, so the load generator and the benchmarks
need to exchange only message numbers.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

CUSTOMERS: Final = 20_000
VISIT_MESSAGES: Final = 5
"""Number of consecutive messages of one customer, as in one visit to a shop."""

# The events are mostly product views, with some carts and few orders. Each affects a built-in stage or segment.
_EVENTS: Final = (
    *("Product Viewed",) * 8,
    *("Product List Viewed",) * 4,
    *("Product Added",) * 3,
    *("Checkout Started", "Email Opened", "Email Link Clicked", "Review Read", "Order Completed"),
)
_AGENT: Final = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
_SPREAD: Final = 2_654_435_761
"""Multiplier that distributes consecutive visits about equally over all customers."""


def customer_of(number: int, visit_messages: int = VISIT_MESSAGES) -> str:
    return f"user-{number // visit_messages * _SPREAD % (1 << 32) % CUSTOMERS:05}"


def message(number: int, timestamp: str, visit_messages: int = VISIT_MESSAGES) -> dict[str, Any]:
    """Return track call ``number`` in the format of analytics-next."""
    customer = customer_of(number, visit_messages)
    product = number % 997
    return {
        "type": "track",
        "event": _EVENTS[number * 7 % len(_EVENTS)],
        "userId": customer,
        "anonymousId": f"browser-{customer}",
        "messageId": f"ajs-next-{number:012}",
        "timestamp": timestamp,
        "properties": {
            "product_id": f"sku-{product:04}",
            "name": f"Product number {product}",
            "category": "shoes" if product % 3 else "coats",
            "price": product / 10,
            "currency": "EUR",
            "quantity": 1 + product % 3,
        },
        "context": {
            "ip": "192.0.2.17",
            "library": {"name": "analytics.js", "version": "npm:next-1.81.0"},
            "locale": "de-DE",
            "timezone": "Europe/Berlin",
            "page": {
                "path": f"/products/{product}",
                "title": f"Product number {product}",
                "url": f"https://shop.example.com/products/{product}",
                "referrer": "https://www.example.com/",
            },
            "userAgent": _AGENT,
        },
    }


def single_body(number: int) -> bytes:
    now = _now()
    return _json({**message(number, now), "sentAt": now})


def batch_body(first: int, size: int, visit_messages: int = VISIT_MESSAGES, milliseconds_apart: int = 10) -> bytes:
    """Return the body of a batch. Its messages are evenly spaced in time and end now."""
    batch = [
        message(first + place, _now(ago=timedelta(milliseconds=milliseconds_apart * (size - place))), visit_messages)
        for place in range(size)
    ]
    return _json({"batch": batch, "sentAt": _now()})


def _now(ago: timedelta = timedelta()) -> str:
    """Return a timestamp.

    Bodies are prepared long before they are sent; the server's clock-skew correction removes the delay.
    """
    return (datetime.now(UTC) - ago).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
