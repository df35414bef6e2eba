"""Shopify connector: webhooks about orders, refunds, shipments, checkouts and customers, in JSON.

The header ``X-Shopify-Topic`` contains the topic; the body is the resource of the Admin REST API. Requests carry an
HMAC-SHA256 that covers the body but not the headers, so the message id never depends on Shopify's event id header.

- "Order Completed" comes from ``orders/create`` only, which Shopify sends once per checkout, paid or not.
- Topics that happen once have the topic and the resource's id as message id, so that two subscriptions count once.
  Other topics have a hash of topic and body.
- A refund or a shipment contains its order but not its customer. The object ``shopify_order`` links it to the customer
  of that order, in any order of arrival; see :mod:`app.identity.object_owners`.

Source: https://shopify.dev/docs/apps/build/webhooks and
https://shopify.dev/docs/apps/build/webhooks/subscribe/https
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from app.connectors.adapter import Call, Connector, Erasure, Event, derive_event_id
from app.connectors.shared.email import find_custom_ids
from app.connectors.shared.orders import (
    CANCELLED,
    CHANNEL,
    COMPLETED,
    DELIVERED,
    IN_STORE,
    REFUNDED,
    SHIPPED,
    UPDATED,
    as_text_id,
    get_object,
    list_objects,
    parse_amount,
    sum_amounts,
)
from app.connectors.signatures import hmac_scheme
from app.connectors.webhook_request import Unreadable, WebhookRequest, decode_json
from app.formats.event_names import vendor_event_name

_HEADERS: Final = {
    "topic": "x-shopify-topic",
    "triggered_at": "x-shopify-triggered-at",
    "shop": "x-shopify-shop-domain",
}
_ONE_TIME_TOPICS: Final = ("orders/create", "orders/paid", "orders/cancelled", "refunds/create", "fulfillments/create")
_ORDER_NAMES: Final = {
    "orders/create": COMPLETED,
    "orders/paid": "Order Paid",
    "orders/fulfilled": "Order Fulfilled",
    "orders/cancelled": CANCELLED,
    "orders/updated": UPDATED,
}
_ORDER_TIMES: Final = {"orders/create": ("processed_at", "created_at"), "orders/cancelled": ("cancelled_at",)}
_CHECKOUT_NAMES: Final = {"checkouts/create": "Checkout Started", "checkouts/update": "Checkout Updated"}
_IMPERSONAL_TOPICS: Final = frozenset(
    {"app", "shop", "products", "inventory_levels", "inventory_items", "collections", "themes", "locations"}
)
_REDACT_TOPIC: Final = "customers/redact"
_ERASED_IDENTITIES: Final = {"id": "shopify_customer", "email": "email", "phone": "phone"}
_DATA_REQUEST: Final = frozenset({"orders_requested", "data_request"})
"""Fields that distinguish the body of ``customers/data_request`` from the similar body of an erasure request."""
_POINT_OF_SALE: Final = "pos"
_TRAITS: Final = {
    "first_name": "first_name",
    "last_name": "last_name",
    "state": "shopify_state",
    "tags": "shopify_tags",
    "verified_email": "email_verified",
    "orders_count": "orders_count",
    "currency": "currency",
    "created_at": "shopify_customer_since",
}


def split_delivery(delivery: WebhookRequest) -> list[Event]:
    payload = decode_json(delivery.body)
    if not isinstance(payload, dict):
        raise Unreadable("the body must be a JSON object")
    metadata = {name: value for name, header in _HEADERS.items() if (value := delivery.headers.get(header, "").strip())}
    return [{**metadata, "payload": payload}]


def map_event(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    topic, payload = event.get("topic"), event.get("payload")
    if not isinstance(topic, str) or not topic or not isinstance(payload, dict):
        raise Unreadable("an event needs the header X-Shopify-Topic and a JSON object")
    if topic == _REDACT_TOPIC:
        yield from _map_erasures(payload)
    elif topic in ("customers/create", "customers/update", "customers/enable", "customers/disable"):
        yield _map_customer(event, topic, payload)
    elif topic.partition("/")[0] not in _IMPERSONAL_TOPICS:
        call = _map_touchpoint(event, topic, payload)
        if _names_a_person(call, topic):
            yield call


def _map_touchpoint(event: Event, topic: str, payload: Mapping[str, Any]) -> Call:
    map_topic: Callable[[Event, str, Mapping[str, Any]], Call] = _map_other
    if topic in _ORDER_NAMES:
        map_topic = _map_order
    elif topic == "refunds/create":
        map_topic = _map_refund
    elif topic.startswith("fulfillments/"):
        map_topic = _map_parcel
    elif topic in _CHECKOUT_NAMES:
        map_topic = _map_checkout
    return map_topic(event, topic, payload)


def _map_order(event: Event, topic: str, order: Mapping[str, Any]) -> Call:
    times = [order.get(name) for name in _ORDER_TIMES.get(topic, ())]
    properties = {
        **_build_order_properties(order),
        "order_number": as_text_id(order.get("name")),
        "status": order.get("financial_status"),
        "fulfillment_status": order.get("fulfillment_status"),
        "reason": order.get("cancel_reason"),
        "source": order.get("source_name"),
        "tags": order.get("tags"),
        "test": order.get("test") or None,
    }
    return Call(
        id=_derive_message_id(topic, order),
        occurred_at=next((time for time in times if time), None)
        or event.get("triggered_at")
        or order.get("updated_at"),
        event=_ORDER_NAMES[topic],
        channel=IN_STORE if order.get("source_name") == _POINT_OF_SALE else CHANNEL,
        **_find_identities(order, order.get("id")),
        properties=properties,
        text={"note": order.get("note")},
    )


def _map_refund(event: Event, topic: str, refund: Mapping[str, Any]) -> Call:
    lines = list_objects(refund.get("refund_line_items"))
    paid_back = [
        transaction
        for transaction in list_objects(refund.get("transactions"))
        if transaction.get("kind") in (None, "refund", "void")
    ]
    total = sum_amounts(transaction.get("amount") for transaction in paid_back)
    properties = {
        "order_id": as_text_id(refund.get("order_id")),
        "refund_id": as_text_id(refund.get("id")),
        "total": sum_amounts(line.get("subtotal") for line in lines) if total is None else total,
        "currency": next((transaction.get("currency") for transaction in paid_back), None),
        "products": [_build_product_properties(get_object(line, "line_item"), line.get("quantity")) for line in lines],
    }
    return Call(
        id=_derive_message_id(topic, refund),
        occurred_at=refund.get("processed_at") or refund.get("created_at") or event.get("triggered_at"),
        event=REFUNDED,
        channel=CHANNEL,
        ids={"shopify_order": as_text_id(refund.get("order_id"))},
        properties=properties,
        text={"note": refund.get("note")},
    )


def _map_parcel(event: Event, topic: str, parcel: Mapping[str, Any]) -> Call:
    """Map a fulfillment: creation is "Order Shipped", delivery counts once, and other changes are updates."""
    own_id = as_text_id(parcel.get("id"))
    status, name = parcel.get("shipment_status"), "Shipment Updated"
    message_id = _derive_message_id(topic, parcel)
    if topic == "fulfillments/create":
        name = SHIPPED
    elif status == "delivered" and own_id is not None:
        name, message_id = DELIVERED, f"fulfillments/delivered {own_id}"
    properties = {
        "order_id": as_text_id(parcel.get("order_id")),
        "shipment_id": own_id,
        "carrier": parcel.get("tracking_company"),
        "status": status,
        "products": [_build_product_properties(line) for line in list_objects(parcel.get("line_items"))],
    }
    return Call(
        id=message_id,
        occurred_at=parcel.get("created_at" if name == SHIPPED else "updated_at") or event.get("triggered_at"),
        event=name,
        channel=CHANNEL,
        email=parcel.get("email"),
        ids={"shopify_order": as_text_id(parcel.get("order_id"))},
        properties=properties,
    )


def _map_checkout(event: Event, topic: str, checkout: Mapping[str, Any]) -> Call:
    order_properties = {name: value for name, value in _build_order_properties(checkout).items() if name != "order_id"}
    time = checkout.get("created_at" if topic == "checkouts/create" else "updated_at")
    return Call(
        id=_derive_message_id(topic, checkout),
        occurred_at=time or event.get("triggered_at"),
        event=_CHECKOUT_NAMES[topic],
        channel=CHANNEL,
        **_find_identities(checkout, None),
        properties={**order_properties, "checkout_id": as_text_id(checkout.get("token") or checkout.get("id"))},
    )


def _map_customer(event: Event, topic: str, customer: Mapping[str, Any]) -> Call:
    consent = get_object(customer, "email_marketing_consent").get("state")
    subscribed = customer.get("accepts_marketing") if consent is None else consent == "subscribed"
    traits = {trait: customer[name] for name, trait in _TRAITS.items() if customer.get(name) is not None}
    if isinstance(subscribed, bool):
        traits["accepts_marketing"] = subscribed
    if (spent := parse_amount(customer.get("total_spent"))) is not None:
        traits["total_spent"] = spent
    return Call(
        id=_derive_message_id(topic, customer),
        occurred_at=customer.get("updated_at") or event.get("triggered_at"),
        email=customer.get("email"),
        phone=customer.get("phone"),
        ids={"shopify_customer": as_text_id(customer.get("id"))},
        traits=traits,
    )


def _map_erasures(payload: Mapping[str, Any]) -> Iterable[Erasure]:
    """Yield an erasure for each identity of the customer, or for each order if the customer has no identity.

    All identities are needed, because Segue may have only one identity of a guest. The signature does not cover the
    topic header. The body must therefore have the fields of an erasure request, so that a captured body of a different
    topic is not accepted.
    """
    is_erasure_request = "orders_to_redact" in payload or ("customer" in payload and _DATA_REQUEST.isdisjoint(payload))
    if not payload.get("shop_domain") or not is_erasure_request or "id" in payload:
        raise Unreadable(
            "customers/redact needs `shop_domain`, needs `customer` or `orders_to_redact`, and must not have an `id`"
        )
    customer, orders = get_object(payload, "customer"), payload.get("orders_to_redact")
    erasures = [Erasure(kind, customer[name]) for name, kind in _ERASED_IDENTITIES.items() if customer.get(name)]
    if not erasures and isinstance(orders, list):
        erasures = [Erasure("shopify_order", own) for order in orders if (own := as_text_id(order)) is not None]
    if not erasures:
        raise Unreadable("customers/redact does not contain an identity of a customer")
    yield from erasures


def _map_other(event: Event, topic: str, payload: Mapping[str, Any]) -> Call:
    payload = get_object(payload, "order_edit") or payload
    person = _find_identities(
        payload, payload.get("order_id") or (payload.get("id") if topic.startswith("orders/") else None)
    )
    if topic.startswith("customers/") and not person["ids"].get("shopify_customer"):
        person["ids"]["shopify_customer"] = as_text_id(payload.get("id") or payload.get("customer_id"))
    return Call(
        id=_derive_message_id(topic, payload),
        occurred_at=event.get("triggered_at") or payload.get("updated_at") or payload.get("created_at"),
        event=vendor_event_name("shopify", topic),
        channel=CHANNEL,
        **person,
        properties={"object_id": as_text_id(payload.get("id"))},
    )


def _find_identities(resource: Mapping[str, Any], order_id: Any) -> dict[str, Any]:
    """Return the identities of an order or checkout, with user_id and anonymous_id from the cart attributes."""
    customer = get_object(resource, "customer")
    attributes = {
        str(attribute.get("name")): attribute.get("value")
        for name in ("note_attributes", "attributes")
        for attribute in list_objects(resource.get(name))
    }
    return {
        "email": resource.get("email") or resource.get("contact_email") or customer.get("email"),
        "phone": resource.get("phone") or customer.get("phone"),
        "ids": {"shopify_customer": as_text_id(customer.get("id")), "shopify_order": as_text_id(order_id)},
        **find_custom_ids(attributes),
    }


def _names_a_person(call: Call, topic: str) -> bool:
    """Return whether the call has an identity of a person.

    An anonymous order, for example from a till, must not create a customer, so its own order id does not count.
    """
    identities = [call.user_id, call.anonymous_id, call.email, call.phone, call.ids.get("shopify_customer")]
    if topic not in _ORDER_NAMES:
        identities.append(call.ids.get("shopify_order"))
    return any(value not in (None, "") for value in identities)


def _build_order_properties(order: Mapping[str, Any]) -> dict[str, Any]:
    coupons = [discount["code"] for discount in list_objects(order.get("discount_codes")) if discount.get("code")]
    shipping = [line.get("discounted_price", line.get("price")) for line in list_objects(order.get("shipping_lines"))]
    return {
        "order_id": as_text_id(order.get("id")),
        "total": parse_amount(order.get("total_price")),
        "subtotal": parse_amount(order.get("subtotal_price")),
        "tax": parse_amount(order.get("total_tax")),
        "discount": parse_amount(order.get("total_discounts")),
        "shipping": sum_amounts(shipping),
        "currency": order.get("currency"),
        "coupon": ", ".join(map(str, coupons)),
        "products": [_build_product_properties(line) for line in list_objects(order.get("line_items"))],
    }


def _build_product_properties(line: Mapping[str, Any], quantity: Any = None) -> dict[str, Any]:
    product = {
        "product_id": as_text_id(line.get("product_id")),
        "variant_id": as_text_id(line.get("variant_id")),
        "sku": line.get("sku"),
        "name": line.get("title") or line.get("name"),
        "variant": line.get("variant_title"),
        "brand": line.get("vendor"),
        "price": parse_amount(line.get("price")),
        "quantity": line.get("quantity") if quantity is None else quantity,
    }
    return {name: value for name, value in product.items() if value not in (None, "")}


def _derive_message_id(topic: str, resource: Mapping[str, Any]) -> str:
    """Return the topic with the resource's id, or a hash of topic and body.

    Shopify's event id header is not used, because the signature does not cover headers.
    """
    own_id = as_text_id(resource.get("id"))
    return f"{topic} {own_id}" if own_id is not None and topic in _ONE_TIME_TOPICS else derive_event_id(topic, resource)


CONNECTOR: Final = Connector(
    key="shopify",
    name="Shopify",
    family="shop",
    scheme=hmac_scheme("Signing secret of the webhooks", signature_header="x-shopify-hmac-sha256", encoding="base64"),
    split_delivery=split_delivery,
    map_event=map_event,
    timeout_seconds=5.0,
    steps=(
        "In Shopify open Settings, Notifications, Webhooks. Create a webhook with format JSON and URL {url} for each "
        "of: order creation, order payment, order cancellation, refund creation, fulfillment creation, fulfillment "
        "update, customer creation and customer update.",
        "Enter the signing secret that the page shows as the secret of this source. For webhooks of an app, enter the "
        "app's client secret.",
        "Set the cart attribute user_id or anonymous_id in your theme, so that orders are linked to the web visitor.",
    ),
    sample=b'{"id":820982911946154508,"name":"#1001","email":"user@example.com","created_at":"2026-05-04T12:00:00+02:00",'
    b'"processed_at":"2026-05-04T12:00:00+02:00","updated_at":"2026-05-04T12:00:01+02:00","financial_status":"paid",'
    b'"currency":"EUR","total_price":"42.50","subtotal_price":"37.50","total_tax":"6.79","total_discounts":"5.00",'
    b'"source_name":"web","discount_codes":[{"code":"SPRING","amount":"5.00","type":"fixed_amount"}],'
    b'"shipping_lines":[{"title":"Standard","price":"5.00"}],"note_attributes":[{"name":"anonymous_id","value":"v-1"}],'
    b'"line_items":[{"id":1,"product_id":632910392,"variant_id":808950810,"sku":"SKU-1","title":"Lamp","vendor":"Acme",'
    b'"price":"42.50","quantity":1}],"customer":{"id":115310627314723954,"email":"user@example.com"}}',
    sample_headers={
        "content-type": "application/json",
        "x-shopify-topic": "orders/create",
        "x-shopify-event-id": "98880550-7158-44d4-b7cd-2c97c8a091b5",
        "x-shopify-shop-domain": "example.myshopify.com",
    },
)
