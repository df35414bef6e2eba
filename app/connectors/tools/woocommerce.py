"""WooCommerce connector: order and customer webhooks of a WordPress shop, REST API version 3.

The header ``X-WC-Webhook-Topic`` contains the topic. Requests carry an HMAC-SHA256 of the body.

WooCommerce sends ``order.updated`` for any change without describing it, so the order's current state decides:

- An order that is processing, completed or paid is an "Order Completed" at its creation time. Its message id consists
  of the shop's host and the order's id, so that repeated updates count once.
- Cancelled orders, failed orders and refunds count once in the same way. Their time is the time of arrival, because
  the order contains only the time of its last change.
- Every update is also an "Order Updated".

Source: https://woocommerce.github.io/woocommerce-rest-api-docs/#webhooks and https://woocommerce.com/document/webhooks/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from app.connectors.adapter import Call, Connector, Erasure, Event, HandshakeReply, derive_event_id
from app.connectors.shared.email import find_custom_ids
from app.connectors.shared.orders import (
    CANCELLED,
    CHANNEL,
    COMPLETED,
    REFUNDED,
    UPDATED,
    as_text_id,
    get_object,
    list_objects,
    parse_amount,
)
from app.connectors.signatures import hmac_scheme
from app.connectors.webhook_request import Unreadable, WebhookRequest, decode_json
from app.formats.event_names import vendor_event_name

_HEADERS: Final = {
    "topic": "x-wc-webhook-topic",
    "delivery_id": "x-wc-webhook-delivery-id",
    "site": "x-wc-webhook-source",
}
_PING: Final = b"webhook_id="
_PAID_STATUSES: Final = ("processing", "completed")
_END_EVENT_NAMES: Final = {"cancelled": CANCELLED, "failed": "Order Failed"}
_BUILT_IN_STATUSES: Final = frozenset(
    {"pending", "on-hold", "processing", "completed", "cancelled", "refunded", "failed", "trash", "checkout-draft"}
)
"""Order statuses that every shop has. Plugins add others, such as a status for packed orders."""
_ORDER_TOPICS: Final = ("order.created", "order.updated", "order.restored")
_CUSTOMER_TOPICS: Final = ("customer.created", "customer.updated")


def split_delivery(delivery: WebhookRequest) -> list[Event]:
    payload = decode_json(delivery.body)
    if not isinstance(payload, dict):
        raise Unreadable("the body must be a JSON object")
    metadata = {name: value for name, header in _HEADERS.items() if (value := delivery.headers.get(header, "").strip())}
    return [{**metadata, "payload": payload}]


def handshake(delivery: WebhookRequest, secrets: Sequence[str]) -> HandshakeReply | None:
    """Answer the unsigned form that WooCommerce posts when a webhook is saved. It contains the webhook's number."""
    del secrets
    number = delivery.body.removeprefix(_PING)
    return HandshakeReply() if delivery.body.startswith(_PING) and number.isdigit() and len(number) < 20 else None


def map_event(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    topic, payload = event.get("topic"), event.get("payload")
    if not isinstance(topic, str) or not topic or not isinstance(payload, dict):
        raise Unreadable("an event needs the header X-WC-Webhook-Topic and a JSON object")
    if topic in _ORDER_TOPICS and payload.get("status") is not None:
        yield from _map_order(event, topic, payload)
    elif topic in _CUSTOMER_TOPICS:
        yield _map_customer(event, payload)
    elif topic.startswith("customer."):
        yield _map_other(event, topic, payload, _qualify_id(event, payload.get("id")))


def _map_order(event: Event, topic: str, order: Mapping[str, Any]) -> Iterator[Call]:
    own_id, status = as_text_id(order.get("id")), order.get("status")
    if own_id is None:
        raise Unreadable("an order needs the field `id`")
    person = _find_identities(event, order)
    if not any(person[kind] for kind in ("email", "phone", "ids")) and "user_id" not in person:
        return
    created_at, changed_at = order.get("date_created_gmt"), order.get("date_modified_gmt")
    id_prefix = f"order {_qualify_id(event, own_id)}"
    order_ids = {"order_id": own_id, "order_number": as_text_id(order.get("number"))}
    if topic == "order.created":
        yield Call(
            id=f"{id_prefix} created",
            occurred_at=created_at,
            event="Order Created",
            channel=CHANNEL,
            **person,
            properties=order_ids,
        )
    if status in _PAID_STATUSES or _is_paid(order):
        order_properties = {**order_ids, **_build_order_properties(order)}
        yield Call(
            id=f"{id_prefix} paid",
            occurred_at=created_at,
            event=COMPLETED,
            channel=CHANNEL,
            **person,
            properties=order_properties,
        )
    if (end_event_name := _END_EVENT_NAMES.get(str(status))) is not None:
        yield Call(id=f"{id_prefix} {status}", event=end_event_name, channel=CHANNEL, **person, properties=order_ids)
    yield from _map_refunds(order, id_prefix, order_ids, person)
    if topic != "order.created":
        properties = {
            **order_ids,
            "status": status,
            "total": parse_amount(order.get("total")),
            "currency": order.get("currency"),
        }
        yield Call(
            id=f"{id_prefix} {topic} {changed_at} {status}" if changed_at else derive_event_id(id_prefix, topic, order),
            occurred_at=changed_at,
            event=UPDATED if topic == "order.updated" else vendor_event_name("woocommerce", topic),
            channel=CHANNEL,
            **person,
            properties=properties,
        )


def _is_paid(order: Mapping[str, Any]) -> bool:
    """Return whether an order with a custom status of a plugin was paid."""
    return order.get("status") not in _BUILT_IN_STATUSES and bool(order.get("date_paid_gmt"))


def _map_refunds(
    order: Mapping[str, Any], id_prefix: str, order_ids: dict[str, Any], person: dict[str, Any]
) -> Iterator[Call]:
    """Yield one call for each refund. WooCommerce does not send the time of a refund."""
    for refund in list_objects(order.get("refunds")):
        total = parse_amount(refund.get("total"))
        properties = {
            **order_ids,
            "refund_id": as_text_id(refund.get("id")),
            "total": None if total is None else abs(total),
            "currency": order.get("currency"),
        }
        yield Call(
            id=f"{id_prefix} refund {refund.get('id')}",
            event=REFUNDED,
            channel=CHANNEL,
            **person,
            properties=properties,
            text={"reason": refund.get("reason")},
        )


def _map_customer(event: Event, customer: Mapping[str, Any]) -> Call:
    billing = get_object(customer, "billing")
    traits = {
        "first_name": customer.get("first_name"),
        "last_name": customer.get("last_name"),
        "role": customer.get("role"),
        "city": billing.get("city"),
        "postcode": billing.get("postcode"),
        "country": billing.get("country"),
        "is_paying_customer": customer.get("is_paying_customer"),
    }
    changed_at = customer.get("date_modified_gmt")
    own_id = as_text_id(customer.get("id"))
    customer_id = _qualify_id(event, own_id)
    return Call(
        id=f"customer {customer_id} {changed_at}" if own_id and changed_at else derive_event_id(customer_id, customer),
        occurred_at=changed_at,
        email=customer.get("email"),
        phone=billing.get("phone"),
        ids={"woocommerce_customer": customer_id},
        traits={name: value for name, value in traits.items() if value not in (None, "")},
    )


def _map_other(event: Event, topic: str, payload: Mapping[str, Any], customer: str | None) -> Call:
    return Call(
        id=derive_event_id(topic, customer, event.get("delivery_id") or payload),
        occurred_at=payload.get("date_modified_gmt"),
        event=vendor_event_name("woocommerce", topic),
        channel=CHANNEL,
        ids={"woocommerce_customer": customer},
        properties={"object_id": as_text_id(payload.get("id"))},
    )


def _find_identities(event: Event, order: Mapping[str, Any]) -> dict[str, Any]:
    """Return the order's identities, with user_id and anonymous_id from its meta data. Guests have customer id 0."""
    billing = get_object(order, "billing")
    meta = {str(entry.get("key")): entry.get("value") for entry in list_objects(order.get("meta_data"))}
    customer = _qualify_id(event, order.get("customer_id"))
    return {
        "email": billing.get("email"),
        "phone": billing.get("phone"),
        "ids": {} if customer is None else {"woocommerce_customer": customer},
        **find_custom_ids(meta),
    }


def _qualify_id(event: Event, value: Any) -> str | None:
    """Return ``<host>:<id>``: every shop numbers its customers and orders from 1."""
    own_id, site = as_text_id(value), event.get("site")
    host = urlsplit(site).hostname if isinstance(site, str) else None
    return own_id if own_id is None or not host else f"{host}:{own_id}"


def _build_order_properties(order: Mapping[str, Any]) -> dict[str, Any]:
    coupons = [str(coupon["code"]) for coupon in list_objects(order.get("coupon_lines")) if coupon.get("code")]
    return {
        "total": parse_amount(order.get("total")),
        "tax": parse_amount(order.get("total_tax")),
        "shipping": parse_amount(order.get("shipping_total")),
        "discount": parse_amount(order.get("discount_total")),
        "currency": order.get("currency"),
        "coupon": ", ".join(coupons),
        "payment_method": order.get("payment_method"),
        "products": [_build_product_properties(line) for line in list_objects(order.get("line_items"))],
    }


def _build_product_properties(line: Mapping[str, Any]) -> dict[str, Any]:
    product = {
        "product_id": as_text_id(line.get("product_id")),
        "variant_id": as_text_id(line.get("variation_id")),
        "sku": line.get("sku"),
        "name": line.get("name"),
        "price": parse_amount(line.get("price")),
        "quantity": line.get("quantity"),
    }
    return {name: value for name, value in product.items() if value not in (None, "")}


CONNECTOR: Final = Connector(
    key="woocommerce",
    name="WooCommerce",
    family="shop",
    scheme=hmac_scheme("Secret of the webhook", signature_header="x-wc-webhook-signature", encoding="base64"),
    split_delivery=split_delivery,
    map_event=map_event,
    handshake=handshake,
    timeout_seconds=5.0,
    steps=(
        "In WordPress open WooCommerce, Settings, Advanced, Webhooks. Create a webhook with API version 3 and delivery "
        "URL {url} for each of: order created, order updated, customer created and customer updated.",
        "Enter the same secret in each webhook and as the secret of this source.",
        "Save user_id or anonymous_id as meta data of orders, so that orders are linked to the web visitor.",
    ),
    sample=b'{"id":727,"number":"727","status":"processing","currency":"EUR","date_created":"2026-05-04T12:00:00",'
    b'"date_created_gmt":"2026-05-04T10:00:00","date_modified_gmt":"2026-05-04T10:00:05","discount_total":"5.00",'
    b'"shipping_total":"5.00","total":"42.50","total_tax":"6.79","customer_id":26,"billing":{"first_name":"A","email":'
    b'"user@example.com","phone":""},"payment_method":"bacs","meta_data":[{"id":1,"key":"anonymous_id","value":"v-1"}],'
    b'"line_items":[{"id":315,"name":"Lamp","product_id":93,"variation_id":0,"quantity":1,"total":"42.50","sku":"SKU-1",'
    b'"price":42.5}],"coupon_lines":[{"id":1,"code":"spring"}],"refunds":[]}',
    sample_headers={
        "content-type": "application/json",
        "x-wc-webhook-topic": "order.updated",
        "x-wc-webhook-delivery-id": "3bf0d0e1",
        "x-wc-webhook-source": "https://shop.example.com/",
    },
)
