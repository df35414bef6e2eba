"""SendGrid connector: the signed Event Webhook, an array of events per request.

SendGrid signs the timestamp and the body with ECDSA; Segue stores the public verification key. Custom arguments of the
sender are fields of the event, or of ``unique_args`` for older emails.

Source: https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event and
https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from app.connectors.adapter import Call, Connector, Erasure, Event, derive_event_id
from app.connectors.shared.email import CHANNEL, build_click_properties, find_custom_ids, parse_list, parse_object
from app.connectors.signatures import WRONG, Scheme, SignatureRefused, check_age, decode_base64, require_header
from app.connectors.webhook_request import Unreadable, WebhookRequest
from app.formats.event_names import vendor_event_name

_SIGNATURE: Final = "x-twilio-email-event-webhook-signature"
_TIMESTAMP: Final = "x-twilio-email-event-webhook-timestamp"
_SECONDS_MAX: Final = 2 * 86_400
"""Maximum age of a signature in seconds. SendGrid retries for a day."""

_NAMES: Final = {
    "processed": "email.sent",
    "delivered": "email.delivered",
    "deferred": "email.deferred",
    "bounce": "email.bounced",
    "dropped": "email.dropped",
    "open": "email.opened",
    "click": "email.clicked",
    "spamreport": "email.complained",
    "unsubscribe": "email.unsubscribed",
    "group_unsubscribe": "email.unsubscribed",
    "group_resubscribe": "email.resubscribed",
}
_RENAMED: Final = {
    "url": "link",
    "sg_message_id": "email_id",
    "marketing_campaign_id": "campaign_id",
    "marketing_campaign_name": "campaign",
    "singlesend_id": "campaign_id",
    "singlesend_name": "campaign",
    "smtp-id": "smtp_id",
    "useragent": "user_agent",
}
_DROPPED_NAMES: Final = frozenset(
    {"email", "timestamp", "event", "sg_event_id", "attempt", "user_id", "userId", "anonymous_id", "anonymousId", "ip"}
    | {"category", "newsletter", "unique_args", "sg_machine_open"}
)
"""Fields that are not copied to the properties, because other code maps them or because a retry changes them."""
_ACCOUNT_EVENT: Final = "account_status_change"


def verify(delivery: WebhookRequest, secret: str) -> None:
    sent, time = require_header(delivery, _SIGNATURE), require_header(delivery, _TIMESTAMP)
    try:
        _load_public_key(secret).verify(decode_base64(sent), time.encode() + delivery.body, ECDSA(SHA256()))
    except InvalidSignature:
        raise SignatureRefused(WRONG, "the signature does not match this body and verification key") from None
    check_age(time, delivery.received_at, _SECONDS_MAX)


def normalise_secret(secret: str) -> str:
    """Return the verification key as base64 of DER, without the lines of a PEM wrapper. Raise ValueError if invalid."""
    encoded = "".join(line for line in secret.strip().splitlines() if not line.startswith("-----"))
    _load_public_key(encoded)
    return encoded


@lru_cache(maxsize=64)
def _load_public_key(secret: str) -> EllipticCurvePublicKey:
    try:
        key = load_der_public_key(b64decode(secret, validate=True))
    except (Error, ValueError):
        raise ValueError("This is not a verification key of SendGrid (base64).") from None
    if not isinstance(key, EllipticCurvePublicKey):
        raise ValueError("This public key is not an ECDSA key.")
    return key


def map_event(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    kind = event.get("event")
    if not isinstance(kind, str) or not kind:
        raise Unreadable("an event needs the field `event`")
    if kind == _ACCOUNT_EVENT:
        return
    name = _NAMES.get(kind) or vendor_event_name("sendgrid", kind)
    if kind == "bounce" and event.get("type") == "blocked":
        name = "email.deferred"
    fields = parse_object(event.get("unique_args")) | event
    click = build_click_properties(name, event.get("useragent"), event.get("sg_machine_open") is True)
    own_id = event.get("sg_event_id")
    yield Call(
        id=own_id if isinstance(own_id, str) and own_id else derive_event_id(event),
        occurred_at=event.get("timestamp"),
        event=name,
        channel=CHANNEL,
        email=event.get("email"),
        **find_custom_ids(fields),
        properties=_build_properties(fields) | click,
    )


def _build_properties(fields: Event) -> dict[str, Any]:
    """Return SendGrid's fields under Segue's property names, and custom arguments under their own names."""
    newsletter = parse_object(fields.get("newsletter")).get("newsletter_id")
    return {
        **({} if newsletter is None else {"campaign_id": newsletter}),
        **{_RENAMED.get(key, key): value for key, value in fields.items() if key not in _DROPPED_NAMES},
        "tags": parse_list(fields.get("category")),
    }


CONNECTOR: Final = Connector(
    key="sendgrid",
    name="SendGrid",
    family="email",
    scheme=Scheme(
        secret_label="Verification key of the signed Event Webhook", verify=verify, normalise_secret=normalise_secret
    ),
    map_event=map_event,
    steps=(
        "In SendGrid open Settings, Mail Settings, Event Webhooks, and create a webhook with the URL {url}.",
        "Select the events to send, turn on Signature Verification, and save.",
        "Copy the verification key, and enter it as the secret of this source.",
        "Add user_id as a custom argument to your emails, so that clicks are linked to the user.",
    ),
    sample=b'[{"email":"user@example.com","timestamp":1777888800,"event":"click","sg_event_id":"ZXZ0LTE",'
    b'"sg_message_id":"abc.filter0001.1.2.0","url":"https://example.com/p","useragent":"Mozilla/5.0 (X11; Linux)",'
    b'"ip":"203.0.113.9","category":["news"],"user_id":"user-1"}]',
)
