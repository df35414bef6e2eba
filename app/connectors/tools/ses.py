"""Amazon SES connector: email events that SES publishes to an SNS topic.

It reads the event publishing format (``eventType``) and feedback notifications (``notificationType``). A notification
about several recipients becomes one touchpoint for each of them.

SNS signs each notification with RSA (signature version 1 or 2), for every AWS account. A source therefore accepts only
the topics in its option ``topics``, and the certificate must be on a host of SNS. Segue fetches it only for a topic
that the source lists.

Source: https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html and
https://docs.aws.amazon.com/ses/latest/dg/event-publishing-retrieving-sns-contents.html
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1, SHA256

from app.connectors.adapter import Call, Connector, Erasure, Event, HandshakeReply
from app.connectors.shared.email import (
    CHANNEL,
    build_click_properties,
    extract_address,
    find_custom_ids,
    parse_list,
    parse_object,
)
from app.connectors.shared.sns_certificate import find_valid_public_key, is_certificate_url, is_sns_url
from app.connectors.signatures import MISSING, WRONG, Scheme, SignatureRefused, check_age, decode_base64
from app.connectors.webhook_request import Unreadable, WebhookRequest, decode_json
from app.formats.event_names import vendor_event_name

_SECONDS_MAX: Final = 86_400
"""Maximum age of a signature in seconds. SNS retries for at most an hour."""

_SIGNED_OF_NOTIFICATION: Final = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_SIGNED_OF_CONFIRMATION: Final = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_SIGNED_MEMBERS: Final = {
    "Notification": _SIGNED_OF_NOTIFICATION,
    "SubscriptionConfirmation": _SIGNED_OF_CONFIRMATION,
    "UnsubscribeConfirmation": _SIGNED_OF_CONFIRMATION,
}
_HASHES: Final = {"1": SHA1, "2": SHA256}
_VALIDATION_TEXT: Final = "Successfully validated SNS topic"

_NAMES: Final = {
    "Send": "email.sent",
    "Delivery": "email.delivered",
    "DeliveryDelay": "email.deferred",
    "Bounce": "email.bounced",
    "Complaint": "email.complained",
    "Reject": "email.failed",
    "Rendering Failure": "email.failed",
    "Open": "email.opened",
    "Click": "email.clicked",
    "Subscription": "email.unsubscribed",
    "Received": "email.received",
}
_DETAIL_MEMBERS: Final = {"Rendering Failure": "failure", "DeliveryDelay": "deliveryDelay"}
"""Event type -> field with its details, for types whose field is not the type in lower case."""
_RECIPIENT_LISTS: Final = ("bouncedRecipients", "complainedRecipients", "delayedRecipients", "recipients")


def find_certificate_url(delivery: WebhookRequest) -> str | None:
    """Return the URL of the signing certificate; raise SignatureRefused for a topic that the source does not list."""
    return str(_require_expected_notification(delivery)["SigningCertURL"])


def _verify(delivery: WebhookRequest, secret: str) -> None:
    del secret
    message = _require_expected_notification(delivery)
    hash_class = _HASHES.get(str(message.get("SignatureVersion")))
    if hash_class is None:
        raise SignatureRefused(WRONG, "`SignatureVersion` must be 1 or 2")
    try:
        find_valid_public_key(delivery.certificate_pem, delivery.received_at).verify(
            decode_base64(str(message["Signature"])), _join_signed_text(message), PKCS1v15(), hash_class()
        )
    except InvalidSignature:
        raise SignatureRefused(WRONG, "the signature does not match this notification") from None
    check_age(str(message.get("Timestamp", "")), delivery.received_at, _SECONDS_MAX)


def _require_expected_notification(delivery: WebhookRequest) -> Event:
    """Return the notification; raise SignatureRefused unless it is a signed message of a topic of the source."""
    try:
        message = decode_json(delivery.body)
    except Unreadable as error:
        raise SignatureRefused(MISSING, f"the body is not an SNS notification: {error}") from None
    if not isinstance(message, dict) or not message.get("Signature"):
        raise SignatureRefused(
            MISSING, "the body has no `Signature`; turn off raw message delivery for the subscription"
        )
    for name, member in (("x-amz-sns-message-type", "Type"), ("x-amz-sns-message-id", "MessageId")):
        if delivery.headers.get(name, message.get(member)) != message.get(member):
            raise SignatureRefused(WRONG, f"the header {name} differs from the field `{member}`")
    if message.get("Type") not in _SIGNED_MEMBERS:
        raise SignatureRefused(WRONG, "`Type` is not a message type of SNS")
    if message.get("TopicArn") not in delivery.options.get("topics", "").replace(",", " ").split():
        raise SignatureRefused(WRONG, "`TopicArn` is not in the source's option `topics`")
    if not is_certificate_url(message.get("SigningCertURL")):
        raise SignatureRefused(WRONG, "`SigningCertURL` is not a certificate URL of SNS")
    return message


def _join_signed_text(message: Event) -> bytes:
    names = _SIGNED_MEMBERS[message["Type"]]
    return "".join(f"{name}\n{message[name]}\n" for name in names if message.get(name) is not None).encode()


def handshake_signed(delivery: WebhookRequest) -> HandshakeReply | None:
    """Confirm a subscription by fetching its SubscribeURL; acknowledge the end of a subscription without action."""
    message = _require_expected_notification(delivery)
    if message["Type"] == "Notification":
        return None
    if message["Type"] == "UnsubscribeConfirmation":
        return HandshakeReply()
    url = message.get("SubscribeURL")
    if not is_sns_url(url) or parse_qs(urlsplit(str(url)).query).get("Action") != ["ConfirmSubscription"]:
        raise SignatureRefused(WRONG, "`SubscribeURL` is not a confirmation URL of SNS")
    return HandshakeReply(fetch_url=str(url))


def split_delivery(delivery: WebhookRequest) -> list[Event]:
    """Return the notification with its ``Message`` decoded; an empty list for the message that validates the topic."""
    message = parse_object(decode_json(delivery.body))
    text = message.get("Message")
    if not isinstance(text, str):
        raise Unreadable("a notification needs the field `Message`, a string")
    if text.startswith(_VALIDATION_TEXT):
        return []
    event = decode_json(text.encode())
    if not isinstance(event, dict):
        raise Unreadable("`Message` must be a string that contains a JSON object")
    return [{"MessageId": message.get("MessageId"), "Timestamp": message.get("Timestamp"), "Message": event}]


def map_event(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    message = parse_object(event.get("Message"))
    kind = message.get("eventType") or message.get("notificationType")
    if not isinstance(kind, str) or not kind:
        raise Unreadable("an event needs the field `eventType` or `notificationType`")
    mail, detail = parse_object(message.get("mail")), parse_object(message.get(_DETAIL_MEMBERS.get(kind, kind.lower())))
    name = _choose_event_name(kind, detail)
    tags = {key: value for key, value in parse_object(mail.get("tags")).items() if not key.startswith("ses:")}
    custom = {key: value[0] if isinstance(value, list) and len(value) == 1 else value for key, value in tags.items()}
    for recipient, recipient_properties in _list_recipients(kind, mail, detail):
        yield Call(
            id=f"{event.get('MessageId')}-{recipient}",
            occurred_at=detail.get("timestamp") or event.get("Timestamp"),
            event=name,
            channel=CHANNEL,
            email=recipient,
            **(find_custom_ids(custom) if len(parse_list(mail.get("destination"))) == 1 else {}),
            properties=_build_properties(mail, detail, custom)
            | recipient_properties
            | build_click_properties(name, detail.get("userAgent")),
        )


def _choose_event_name(kind: str, detail: Event) -> str:
    if kind == "Bounce" and detail.get("bounceType") == "Transient":
        return "email.deferred"
    if kind == "Subscription" and parse_object(detail.get("newTopicPreferences")).get("unsubscribeAll") is False:
        return vendor_event_name("ses", kind)
    return _NAMES.get(kind) or vendor_event_name("ses", kind)


def _list_recipients(kind: str, mail: Event, detail: Event) -> Iterable[tuple[Any, dict[str, Any]]]:
    """Yield each recipient of an event once, with the properties of that recipient.

    An open or a click is attributed to every recipient, because SES does not identify the recipient.
    """
    default_recipients = [mail.get("source")] if kind == "Received" else mail.get("destination")
    recipients = next(
        (detail[member_name] for member_name in _RECIPIENT_LISTS if kind != "Received" and detail.get(member_name)),
        default_recipients,
    )
    addresses = set()
    for recipient in parse_list(recipients):
        members = parse_object(recipient)
        email = extract_address(members.get("emailAddress") if members else recipient)
        if isinstance(email, str) and email and email not in addresses:
            addresses.add(email)
            yield email, {"details": members.get("diagnosticCode"), "code": members.get("status")}


def _build_properties(mail: Event, detail: Event, custom: dict[str, Any]) -> dict[str, Any]:
    return {
        "link": detail.get("link"),
        "campaign": custom.get("campaign"),
        "campaign_id": custom.get("campaign_id"),
        "email_id": mail.get("messageId"),
        "subject": parse_object(mail.get("commonHeaders")).get("subject"),
        "bounce_type": detail.get("bounceType"),
        "reason": (
            detail.get("reason")
            or detail.get("errorMessage")
            or detail.get("complaintFeedbackType")
            or detail.get("delayType")
            or detail.get("bounceSubType")
        ),
        "metadata": custom,
    }


CONNECTOR: Final = Connector(
    key="ses",
    name="Amazon SES",
    family="email",
    scheme=Scheme(secret_label="", verify=_verify, needs_secret=False),
    map_event=map_event,
    split_delivery=split_delivery,
    certificate_url=find_certificate_url,
    handshake_signed=handshake_signed,
    options={"topics": "ARNs of the accepted SNS topics, separated by commas or spaces. Required."},
    timeout_seconds=14.0,
    steps=(
        "Create an SNS topic, and enter its ARN in the option topics of this source.",
        "In SES add an event destination of that topic to the configuration set.",
        "Subscribe {url} to the topic with the protocol HTTPS and raw message delivery off. Segue confirms the"
        " subscription.",
        "Tag your emails with campaign and user_id, so that clicks are linked to the campaign and the user.",
    ),
    sample_headers={"content-type": "text/plain; charset=UTF-8"},
    sample=b'{"Type":"Notification","MessageId":"19ba9823-d7f2-53c1-860e-cb10e0d13dfc",'
    b'"TopicArn":"arn:aws:sns:eu-west-1:123456789012:ses","Message":"{\\"eventType\\":\\"Click\\",\\"mail\\":'
    b'{\\"messageId\\":\\"m-1\\",\\"destination\\":[\\"user@example.com\\"],\\"tags\\":{\\"campaign\\":[\\"spring\\"]}},'
    b'\\"click\\":{\\"timestamp\\":\\"2026-05-04T10:00:00.000Z\\",\\"link\\":\\"https://example.com/p\\"}}",'
    b'"Timestamp":"2026-05-04T10:00:01.000Z","SignatureVersion":"1","Signature":"",'
    b'"SigningCertURL":"https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem"}',
)
