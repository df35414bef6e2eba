"""Generic shop connector: orders, returns, deliveries, store purchases and loyalty cards of any shop or till.

It reads Segue's own format: objects with ``type``, an id such as ``order_id``, ``timestamp`` and an identity
(``user_id``, ``email``, ``phone``, ``anonymous_id`` or ``loyalty_card``), which may also be inside ``customer``. Every
other field becomes a property. Requests are authenticated with a token. The format is documented in docs/shops.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from app.connectors.adapter import Call, Connector, Erasure, Event, derive_event_id, split_json_events
from app.connectors.generic_event import find_first_value, find_identities
from app.connectors.shared.orders import (
    CANCELLED,
    CARD_USED,
    CHANNEL,
    COMPLETED,
    DELIVERED,
    IN_STORE,
    REFUNDED,
    RETURNED,
    SHIPPED,
    STORE_VISITED,
    UPDATED,
    as_text_id,
    get_object,
    parse_amount,
)
from app.connectors.signatures import TOKEN
from app.connectors.webhook_request import Unreadable, WebhookRequest, decode_json
from app.formats.event_names import vendor_event_name

EVENT_NAMES: Final = {
    "order": COMPLETED,
    "purchase": COMPLETED,
    "order_updated": UPDATED,
    "cancellation": CANCELLED,
    "refund": REFUNDED,
    "return": RETURNED,
    "shipment": SHIPPED,
    "delivery": DELIVERED,
    "card_used": CARD_USED,
    "visit": STORE_VISITED,
}
_TYPE_OF_NAME: Final = {name: kind for kind, name in reversed(EVENT_NAMES.items())}
"""Segment event name -> type. The event name is accepted instead of the type."""
_CARD: Final = "card"
ID_MEMBERS: Final = {
    "order": "order_id",
    "purchase": "order_id",
    "cancellation": "order_id",
    "refund": "refund_id",
    "return": "return_id",
    "shipment": "shipment_id",
    "delivery": "shipment_id",
}
"""Type -> field with the id of the object, for types that happen at most once to one object, such as an order."""
_IN_STORE_TYPES: Final = ("purchase", "visit")
_AMOUNT_NAMES: Final = ("total", "subtotal", "tax", "shipping", "discount", "revenue")
_TEXT_NAMES: Final = ("note", "reason", "comment")
_TIME_NAMES: Final = ("timestamp", "occurred_at", "at")
_RESERVED_NAMES: Final = frozenset(
    {"type", "id", "message_id", "channel", "customer", "loyalty_card", "ids", "traits", *_TIME_NAMES, *_TEXT_NAMES}
    | {"user_id", "userId", "anonymous_id", "anonymousId", "email", "phone"}
)
_LINE_BREAK: Final = b"\n"


def split_delivery(delivery: WebhookRequest) -> list[Event]:
    """Split a JSON object, an array of objects, or one object per line."""
    lines = [line for line in delivery.body.split(_LINE_BREAK) if line.strip()]
    if len(lines) > 1 and all(line.strip()[:1] == b"{" and line.strip()[-1:] == b"}" for line in lines):
        return [decode_json(line) for line in lines]
    return split_json_events(delivery)


def map_event(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    type_text = event.get("type")
    if not isinstance(type_text, str) or not type_text.strip():
        raise Unreadable(
            "an event needs the field `type`: order, return, delivery, purchase, card_used, card, visit or another"
        )
    kind = _TYPE_OF_NAME.get(type_text, type_text)
    customer = get_object(event, "customer")
    person = find_identities(event, customer)
    card = as_text_id(find_first_value(("loyalty_card", "card_number"), event, customer))
    person["ids"] = {**person.get("ids", {}), "loyalty_card": card}
    call = Call(id=_derive_message_id(event, kind), occurred_at=find_first_value(_TIME_NAMES, event), **person)
    if kind == _CARD:
        call.traits = {**get_object(customer, "traits"), **get_object(event, "traits")} or {"has_loyalty_card": True}
        yield call
        return
    call.event = EVENT_NAMES.get(kind) or vendor_event_name("shop", type_text)
    call.channel = _choose_channel(event, kind)
    call.properties = _build_properties(event)
    call.text = {name: event.get(name) for name in _TEXT_NAMES}
    yield call
    traits = {**get_object(customer, "traits"), **get_object(event, "traits")}
    if traits:
        yield Call(id=f"{call.id} traits", occurred_at=call.occurred_at, **person, traits=traits)


def _choose_channel(event: Event, kind: str) -> str:
    channel = event.get("channel")
    if isinstance(channel, str) and channel:
        return channel
    return IN_STORE if kind in _IN_STORE_TYPES or event.get("store") not in (None, "") else CHANNEL


def _build_properties(event: Event) -> dict[str, Any]:
    properties = {name: value for name, value in event.items() if name not in _RESERVED_NAMES}
    for name in _AMOUNT_NAMES:
        if (number := parse_amount(properties.get(name))) is not None:
            properties[name] = number
    for name in ID_MEMBERS.values():
        if name in properties:
            properties[name] = as_text_id(properties[name])
    return properties


def _derive_message_id(event: Event, kind: str) -> str:
    """Return the message id.

    A completed order uses its order id, so that it counts once under any event id. Other events use their own id, else
    the id of the object to which they happen once, else a hash of their content. The event name is part of the id,
    because a shop may give an order and a parcel the same number.
    """
    name = EVENT_NAMES.get(kind, kind)
    own_id, id_member = find_first_value(("id", "message_id"), event), ID_MEMBERS.get(kind)
    object_id = None if id_member is None else as_text_id(event.get(id_member))
    if own_id is not None and (name != COMPLETED or object_id is None):
        return f"{name} id {own_id}"
    return derive_event_id(event) if object_id is None else f"{name} {object_id}"


CONNECTOR: Final = Connector(
    key="shop",
    name="Shops and tills",
    family="shop",
    scheme=TOKEN,
    split_delivery=split_delivery,
    map_event=map_event,
    steps=(
        "Configure the shop, the till or the middleware to POST JSON to {url}: one object, an array, or one object per "
        "line.",
        "Generate a token for this source. Send it as Authorization: Bearer TOKEN, as the header X-Segue-Token or in "
        "the URL as ?token=TOKEN.",
        "Send type (order, order_updated, cancellation, refund, return, shipment, delivery, purchase, card_used, card "
        "or visit), order_id, timestamp, total, currency, products and an identity (user_id, email, phone or "
        "loyalty_card).",
    ),
    sample=b'{"type":"purchase","order_id":"R-2041","timestamp":"2026-05-04T12:00:00+02:00","loyalty_card":"LC-9",'
    b'"store":"Berlin 3","total":"42.50","currency":"EUR","products":[{"product_id":"93","name":"Lamp","price":42.5,'
    b'"quantity":1}]}',
)
