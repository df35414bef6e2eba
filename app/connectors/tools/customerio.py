"""Customer.io connector: reporting webhooks about messages of every channel, one event per request.

It reads the current payload (``object_type`` and ``metric``) and the first version (``event_type``, such as
``email_clicked``). Requests carry an HMAC-SHA256 of ``v0:``, the timestamp and the body. While a request fails,
Customer.io holds back all later events.

Source: https://docs.customer.io/journeys/webhooks/ and https://docs.customer.io/api/webhooks
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from app.connectors.adapter import Call, Connector, Erasure, Event, derive_event_id
from app.connectors.shared.email import CHANNEL, build_click_properties, extract_address
from app.connectors.signatures import hmac_scheme
from app.connectors.webhook_request import Unreadable, WebhookRequest
from app.enrichment.channel import lower_snake
from app.formats.event_names import vendor_event_name

_SECONDS_MAX: Final = 8 * 86_400
"""Maximum age of a signature in seconds. Customer.io retries for a week."""

_CHANNELS: Final = {
    "email": CHANNEL,
    "push": "push",
    "sms": "sms",
    "in_app": "app",
    "in_app_message": "app",
    "whatsapp": "whatsapp",
    "slack": "slack",
    "webhook": "server",
    "customer": CHANNEL,
}
_VERBS: Final = {
    "sent": "sent",
    "delivered": "delivered",
    "opened": "opened",
    "clicked": "clicked",
    "converted": "converted",
    "bounced": "bounced",
    "deferred": "deferred",
    "dropped": "dropped",
    "suppressed": "dropped",
    "undeliverable": "dropped",
    "failed": "failed",
    "spammed": "complained",
    "subscribed": "subscribed",
    "unsubscribed": "unsubscribed",
}
"""Event verbs by metric. Other metrics, such as drafted or attempted, keep the vendor's name.

They concern the sender, not the customer.
"""
_COPIED_NAMES: Final = (
    "campaign_id",
    "broadcast_id",
    "newsletter_id",
    "action_id",
    "content_id",
    "template_id",
    "transactional_message_id",
    "trigger_event_id",
    "journey_id",
    "link_id",
    "action_name",
    "action_value",
    "conversion_event_id",
)


def _join_signed_bytes(delivery: WebhookRequest, time: str) -> bytes:
    return b"v0:" + time.encode() + b":" + delivery.body


def map_event(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    data = event.get("data")
    kind, metric = _find_kind_and_metric(event)
    if not isinstance(data, dict):
        raise Unreadable("an event needs the field `data`, an object")
    own_id = event.get("event_id")
    name = _choose_event_name(kind, metric)
    yield Call(
        id=own_id if isinstance(own_id, str) and own_id else derive_event_id(event),
        occurred_at=event.get("timestamp"),
        event=name,
        channel=_CHANNELS.get(kind, ""),
        **_find_identities(kind, data),
        properties=_build_properties(kind, data)
        | build_click_properties(name, data.get("user_agent"), _is_machine(data)),
    )


def _find_kind_and_metric(event: Event) -> tuple[str, str]:
    """Return kind and metric, such as ``("email", "clicked")``, of either payload version. Raise Unreadable."""
    kind, metric = event.get("object_type"), event.get("metric")
    if isinstance(kind, str) and isinstance(metric, str) and kind and metric:
        return lower_snake(kind), lower_snake(metric)
    word = event.get("event_type")
    if not isinstance(word, str) or not word:
        raise Unreadable("an event needs the fields `object_type` and `metric`")
    known_kind = next((kind_prefix for kind_prefix in _CHANNELS if word.startswith(f"{kind_prefix}_")), None)
    if known_kind is None:
        return "", lower_snake(word)
    return known_kind, lower_snake(word.removeprefix(f"{known_kind}_"))


def _choose_event_name(kind: str, metric: str) -> str:
    verb = _VERBS.get(metric)
    if verb is None or kind not in _CHANNELS:
        return vendor_event_name("customerio", f"{kind}_{metric}")
    return f"email.{verb}" if kind == "customer" else f"{kind.removesuffix('_message')}.{verb}"


def _find_identities(kind: str, data: Event) -> dict[str, Any]:
    """Return the person's identifiers in the workspace, and the recipient's address or phone number if missing."""
    identifiers = data.get("identifiers")
    ids: Event = identifiers if isinstance(identifiers, dict) else {"id": data.get("customer_id")}
    recipient = data.get("recipient") or data.get("email_address")
    email = ids.get("email") or (extract_address(recipient) if kind == "email" else data.get("email_address"))
    return {
        "user_id": ids.get("id"),
        "email": email,
        "phone": ids.get("phone") or (recipient if kind in ("sms", "whatsapp") else None),
        "ids": {"customerio_customer": ids.get("cio_id")},
    }


def _build_properties(kind: str, data: Event) -> dict[str, Any]:
    message = data.get("delivery_id") or data.get("email_id")
    return {name: data.get(name) for name in _COPIED_NAMES} | {
        "link": data.get("href") or data.get("link_url"),
        "campaign": data.get("campaign_name") or data.get("newsletter_name") or data.get("broadcast_name"),
        "email_id": message if kind == "email" else None,
        "delivery_id": message if kind != "email" else None,
        "subject": data.get("subject") or data.get("email_subject"),
        "reason": data.get("failure_message") or data.get("reason"),
    }


def _is_machine(data: Event) -> bool:
    return any(data.get(name) is True for name in ("machine", "machine_click", "machine_open", "prefetched", "proxied"))


CONNECTOR: Final = Connector(
    key="customerio",
    name="Customer.io",
    family="email",
    scheme=hmac_scheme(
        "Webhook signing key",
        signature_header="x-cio-signature",
        signed_bytes=_join_signed_bytes,
        time_header="x-cio-timestamp",
        seconds_max=_SECONDS_MAX,
    ),
    map_event=map_event,
    timeout_seconds=3.5,
    steps=(
        "In Customer.io open Data & Integrations, Integrations, Reporting Webhooks, and add a webhook with the "
        "endpoint {url}.",
        "Select the events to send. Set the send frequency to every time, not only the first time.",
        "Copy the signing key of the webhook, and enter it as the secret of this source.",
    ),
    sample=b'{"event_id":"01E4C4G1S0AMNG0XVF2M7RPH5S","object_type":"email","metric":"clicked","timestamp":1777888800,'
    b'"data":{"customer_id":"user-1","identifiers":{"id":"user-1","email":"user@example.com","cio_id":"d9c106000001"},'
    b'"delivery_id":"RPILAgUBcRhIBqSfeiIwdIYJKxTY","campaign_id":9,"action_id":36,"recipient":"user@example.com",'
    b'"subject":"Hi","href":"https://example.com/p","link_id":1}}',
)
