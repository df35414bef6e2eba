"""The messages that are sent: about 700 bytes each, as a web shop's SDK would write them, from many customers.

Message ``n`` is the same in every process and every run but for its timestamp, so the load generator and the
bench need to agree on numbers only.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

CUSTOMERS: Final = 20_000
VISIT_MESSAGES: Final = 5
"""Messages of one customer that follow each other, as a visit to a shop makes them."""

# A shop's week in 20 messages: mostly looking, some baskets, few orders. All of them move built-in stages or segments.
_EVENTS: Final = (
    *("Product Viewed",) * 8,
    *("Product List Viewed",) * 4,
    *("Product Added",) * 3,
    *("Checkout Started", "Email Opened", "Email Link Clicked", "Review Read", "Order Completed"),
)
_AGENT: Final = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
_SPREAD: Final = 2_654_435_761
"""Scatters consecutive visits over customers far apart; each comes round about equally often."""


def customer_of(number: int, visit_messages: int = VISIT_MESSAGES) -> str:
    return f"user-{number // visit_messages * _SPREAD % (1 << 32) % CUSTOMERS:05}"


def message(number: int, timestamp: str, visit_messages: int = VISIT_MESSAGES) -> dict[str, Any]:
    """Track call ``number`` as analytics-next writes it."""
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
    """A client's queue: one message every so many milliseconds until now."""
    batch = [
        message(first + place, _now(ago=timedelta(milliseconds=milliseconds_apart * (size - place))), visit_messages)
        for place in range(size)
    ]
    return _json({"batch": batch, "sentAt": _now()})


def _now(ago: timedelta = timedelta()) -> str:
    """Written ahead of the sending: the service's clock-skew correction counts from the instant of arrival."""
    return (datetime.now(UTC) - ago).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
