"""Helpers of the shop connectors: Segment's e-commerce event names, and amounts as numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

CHANNEL: Final = "shop"
IN_STORE: Final = "in_store"

COMPLETED: Final = "Order Completed"
UPDATED: Final = "Order Updated"
CANCELLED: Final = "Order Cancelled"
REFUNDED: Final = "Order Refunded"
RETURNED: Final = "Order Returned"
SHIPPED: Final = "Order Shipped"
DELIVERED: Final = "Order Delivered"
CARD_USED: Final = "Loyalty Card Used"
STORE_VISITED: Final = "Store Visited"

_AMOUNT_CHARS_MAX: Final = 24


def parse_amount(value: Any) -> Any:
    """Convert an amount, which shops send as text, to a number that rules can sum; None if it is invalid."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | Decimal):
        return value
    try:
        number = Decimal(str(value).strip()[:_AMOUNT_CHARS_MAX])
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def sum_amounts(values: Iterable[Any]) -> Decimal | None:
    """Return the sum of the valid amounts; None if no value is valid."""
    amounts = [Decimal(number) for value in values if (number := parse_amount(value)) is not None]
    return sum(amounts, Decimal(0)) if amounts else None


def list_objects(value: Any) -> list[Mapping[str, Any]]:
    """Return the objects in a list; an empty list if the value is not a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def get_object(event: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a field that contains an object; an empty object if it is missing or has another type."""
    value = event.get(name)
    return value if isinstance(value, dict) else {}


def as_text_id(value: Any) -> str | None:
    """Return an id as text; None if it is missing, 0 or of another type."""
    return None if value in (None, "", 0) or isinstance(value, bool | dict | list) else str(value)
