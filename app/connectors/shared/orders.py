"""What orders of every shop have in common: Segment's names of what happens to one, and amounts as numbers. Pure."""

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
    """Shops write amounts as text; as numbers they can be summed and compared. None for what is no amount."""
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
    """The sum of those that are amounts; None if there is none."""
    amounts = [Decimal(number) for value in values if (number := parse_amount(value)) is not None]
    return sum(amounts, Decimal(0)) if amounts else None


def list_objects(value: Any) -> list[Mapping[str, Any]]:
    """The objects of a list; none if it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def get_object(event: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object inside another; an empty one if it is none."""
    value = event.get(name)
    return value if isinstance(value, dict) else {}


def as_text_id(value: Any) -> str | None:
    """Ids are text, whatever a shop sends: nobody adds them up."""
    return None if value in (None, "", 0) or isinstance(value, bool | dict | list) else str(value)
