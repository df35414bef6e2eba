"""HubSpot connector: app subscriptions to contacts, tickets and conversations, email events, and workflow contacts.

Subscription events contain object ids only, so a contact has only its id until HubSpot sends its email address. Ids
are unique within one portal, so the identity is ``<portal>:<contact>``, such as ``33:1246965``. Events about companies,
deals, and tickets without a contact are ignored. Requests carry signature version v3 (HMAC-SHA256 with a timestamp);
the older versions v1 and v2 (SHA-256) are accepted if the source's option ``signatures`` lists them.

Source: https://developers.hubspot.com/docs/guides/api/app-management/webhooks and
https://developers.hubspot.com/docs/guides/apps/authentication/validating-requests
"""

from __future__ import annotations

import hmac
import re
from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from typing import Any, Final
from urllib.parse import unquote

from app.connectors.adapter import Call, Connector, Erasure, Event, derive_event_id
from app.connectors.shared.email import CHANNEL, build_click_properties, parse_list, parse_object
from app.connectors.signatures import (
    MISSING,
    WRONG,
    Scheme,
    SignatureRefused,
    add_headers,
    check_age,
    is_same_secret,
    require_header,
)
from app.connectors.webhook_request import Unreadable, WebhookRequest
from app.enrichment.channel import lower_snake
from app.formats.event_names import vendor_event_name

_SECONDS_MAX: Final = 300
_V3_HEADER: Final = "x-hubspot-signature-v3"
_TIME_HEADER: Final = "x-hubspot-request-timestamp"
_OLD_HEADER: Final = "x-hubspot-signature"
_OLD_VERSION_HEADER: Final = "x-hubspot-signature-version"
_DECODED_BY_HUBSPOT: Final = re.compile(r"%(?:3A|2F|3F|40|21|24|27|28|29|2A|2C|3B)", re.IGNORECASE)
"""Escapes that HubSpot decodes in the URL before it signs."""

_CONTACT: Final = "hubspot_contact"
_OBJECT_TYPES: Final = {"0-1": "contact", "0-2": "company", "0-3": "deal", "0-5": "ticket", "0-11": "conversation"}
_CONTACT_CHANGES: Final = {"contact.creation": "contact.created", "contact.newEnrollment": "contact.enrolled"}
_TICKET_CHANGES: Final = {
    "ticket.creation": "ticket.created",
    "ticket.associationChange": "ticket.created",
    "ticket.propertyChange": "ticket.status_changed",
    "conversation.creation": "chat.started",
    "conversation.newMessage": "ticket.replied_by_customer",
}
_TRAITS: Final = {"lifecyclestage": "lifecycle_stage", "firstname": "first_name", "lastname": "last_name"}
_MAIL_NAMES: Final = {
    "SENT": "email.sent",
    "DELIVERED": "email.delivered",
    "DEFERRED": "email.deferred",
    "DROPPED": "email.dropped",
    "BOUNCE": "email.bounced",
    "OPEN": "email.opened",
    "CLICK": "email.clicked",
    "SPAMREPORT": "email.complained",
    "STATUSCHANGE": "email.unsubscribed",
}


def _verify(delivery: WebhookRequest, secret: str) -> None:
    versions = delivery.options.get("signatures", "v3").replace(",", " ").lower().split()
    if _V3_HEADER in delivery.headers:
        _require_match(
            "v3" in versions
            and is_same_secret(
                delivery.headers[_V3_HEADER].strip(), _sign_v3(delivery, secret, require_header(delivery, _TIME_HEADER))
            )
        )
        check_age(require_header(delivery, _TIME_HEADER), delivery.received_at, _SECONDS_MAX)
        return
    if not {"v1", "v2"} & set(versions):
        raise SignatureRefused(MISSING, f"the header {_V3_HEADER} is missing")
    sent, version = (
        require_header(delivery, _OLD_HEADER),
        delivery.headers.get(_OLD_VERSION_HEADER, "v1").strip().lower(),
    )
    _require_match(
        version in ("v1", "v2")
        and version in versions
        and is_same_secret(sent.lower(), _hash_v1_v2(delivery, secret, version))
    )


def _require_match(is_match: bool) -> None:
    if not is_match:
        raise SignatureRefused(WRONG, "the signature does not match, or its version is not accepted by this source")


def _sign_v3(delivery: WebhookRequest, secret: str, time: str) -> str:
    uri = _DECODED_BY_HUBSPOT.sub(lambda match: unquote(match[0]), delivery.url)
    text = delivery.method.encode() + uri.encode() + delivery.body + time.encode()
    return b64encode(hmac.digest(secret.encode(), text, "sha256")).decode()


def _hash_v1_v2(delivery: WebhookRequest, secret: str, version: str) -> str:
    request_line = f"{delivery.method}{delivery.url}" if version == "v2" else ""
    return sha256(secret.encode() + request_line.encode() + delivery.body).hexdigest()


def _sign(delivery: WebhookRequest, secret: str) -> WebhookRequest:
    time = str(delivery.received_at // 1_000)
    return add_headers(delivery, {_TIME_HEADER: time, _V3_HEADER: _sign_v3(delivery, secret, time)})


def map_event(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    kind = event.get("subscriptionType") or event.get("eventType")
    if isinstance(kind, str) and kind:
        return _map_change(_resolve_object_type(kind, event), event)
    if isinstance(event.get("type"), str) and "recipient" in event:
        return [_map_mail_event(event)]
    if isinstance(event.get("properties"), dict):
        return [_map_workflow_contact(event)]
    raise Unreadable("an event needs the field `subscriptionType`; an email event needs `type` and `recipient`")


def _resolve_object_type(kind: str, event: Event) -> str:
    """Return the kind with its object type: ``object.creation`` of type ``0-1`` is ``contact.creation``."""
    return kind.replace("object", _OBJECT_TYPES.get(str(event.get("objectTypeId")), "object"), 1)


def _map_change(kind: str, event: Event) -> Iterable[Call | Erasure]:
    object_type, _, change = kind.partition(".")
    if object_type in ("ticket", "conversation"):
        return _map_ticket_change(kind, event)
    if object_type != "contact":
        return []
    if change == "propertyChange":
        return _map_property_change(event)
    if change == "privacyDeletion":
        return [_map_erasure(event)]
    if change == "merge":
        merged_ids = [event.get("primaryObjectId"), *parse_list(event.get("mergedObjectIds")), event.get("newObjectId")]
        contact_ids = dict.fromkeys(_qualify_contact_id(event, number) for number in merged_ids if _is_number(number))
        return [_build_call(event, ids={_CONTACT: list(contact_ids)})]
    if change == "associationChange":
        return [_map_association(kind, event)]
    name = _CONTACT_CHANGES.get(kind) or vendor_event_name("hubspot", kind)
    return [_build_call(event, event=name, channel="server", properties=_build_source_properties(event))]


def _build_call(event: Event, suffix: str = "", /, **fields: Any) -> Call:
    """Build a call. Its message id is a hash of the fields that together are unique, and the same on every retry."""
    own_id = derive_event_id(
        *(event.get(name) for name in ("portalId", "subscriptionId", "eventId", "objectId", "occurredAt")),
        *(event.get(name) for name in ("propertyName", "messageId", "fromObjectId", "toObjectId")),
    )
    ids = {_CONTACT: _qualify_contact_id(event, event.get("objectId"))}
    return Call(**{"id": own_id + suffix, "occurred_at": event.get("occurredAt"), "ids": ids, **fields})


def _qualify_contact_id(event: Event, number: Any) -> Any:
    """Return ``<portal>:<contact>``, or the contact's id alone if the portal is unknown."""
    portal = event.get("portalId") or event.get("portal-id")
    return f"{portal}:{number}" if _is_number(portal) and _is_number(number) else number


def _is_number(value: Any) -> bool:
    """Return whether the value is a portal or object id; HubSpot sends ids as numbers and as text."""
    return not isinstance(value, bool) and isinstance(value, int | str) and str(value) != ""


def _map_erasure(event: Event) -> Erasure:
    number = event.get("objectId")
    if not _is_number(number):
        raise Unreadable("a privacy deletion needs the field `objectId`")
    return Erasure(_CONTACT, _qualify_contact_id(event, number))


def _build_source_properties(event: Event) -> dict[str, Any]:
    return {"change_source": event.get("changeSource")}


def _map_property_change(event: Event) -> Iterable[Call]:
    """Map a changed property to a trait, or to an identity if it is the email address or phone number.

    A change of the lifecycle stage is a touchpoint too.
    """
    name, value = event.get("propertyName"), event.get("propertyValue")
    if not isinstance(name, str) or not lower_snake(name):
        raise Unreadable("a property change needs the field `propertyName`")
    if name in ("email", "phone"):
        return [_build_call(event, **{name: value})] if value else []
    trait = _TRAITS.get(name, lower_snake(name))
    identify = _build_call(event, traits={trait: None if value == "" else value})
    if trait != "lifecycle_stage":
        return [identify]
    properties = _build_source_properties(event) | {"stage": value}
    return [
        identify,
        _build_call(event, "-stage", event="lifecycle_stage.changed", channel="server", properties=properties),
    ]


def _map_association(kind: str, event: Event) -> Call:
    object_type = str(event.get("associationType", "")).lower().removeprefix("contact_to_")
    properties = {f"{lower_snake(object_type) or 'object'}_id": _as_text(event.get("toObjectId"))}
    return _build_call(
        event,
        ids={_CONTACT: _qualify_contact_id(event, event.get("fromObjectId"))},
        event=vendor_event_name("hubspot", kind),
        channel="server",
        properties=properties | {"removed": event.get("associationRemoved")},
    )


def _map_ticket_change(kind: str, event: Event) -> Iterable[Call]:
    """Map a ticket or conversation event that contains its contact; ignore any other.

    Associations contain the contact, and events of workflows may contain it.
    """
    contact, ticket = event.get("contactId") or event.get("associatedContactId"), event.get("objectId")
    if kind == "ticket.associationChange":
        is_contact = str(event.get("associationType", "")).upper() == "TICKET_TO_CONTACT"
        contact = event.get("toObjectId") if is_contact and event.get("associationRemoved") is not True else None
        ticket = event.get("fromObjectId")
    if contact is None:
        return []
    name = _TICKET_CHANGES.get(kind)
    if kind == "ticket.propertyChange" and event.get("propertyName") != "hs_pipeline_stage":
        name = None
    status = event.get("propertyValue") if name == "ticket.status_changed" else None
    return [
        _build_call(
            event,
            ids={_CONTACT: _qualify_contact_id(event, contact)},
            event=name or vendor_event_name("hubspot", kind),
            channel="chat" if kind.startswith("conversation.") else "support",
            properties={"ticket_id": _as_text(ticket), "status": status.lower() if isinstance(status, str) else status},
        )
    ]


def _map_mail_event(event: Event) -> Call:
    kind = event["type"]
    name = _MAIL_NAMES.get(kind) or vendor_event_name("hubspot", kind)
    if kind == "STATUSCHANGE" and "UNSUBSCRIBED" not in _list_subscription_states(event):
        name = (
            "email.resubscribed"
            if "SUBSCRIBED" in _list_subscription_states(event)
            else vendor_event_name("hubspot", kind)
        )
    return Call(
        id=derive_event_id(event.get("id"), event.get("created")) if event.get("id") else derive_event_id(event),
        occurred_at=event.get("created"),
        event=name,
        channel=CHANNEL,
        email=event.get("recipient"),
        properties={
            "link": event.get("url"),
            "campaign": event.get("emailCampaignName"),
            "campaign_id": event.get("emailCampaignId"),
            "email_id": event.get("smtpId"),
            "subject": event.get("subject"),
            "reason": event.get("dropReason") or event.get("category") or event.get("source"),
            "details": event.get("dropMessage") or event.get("response"),
        }
        | build_click_properties(name, event.get("userAgent"), event.get("filteredEvent") is True),
    )


def _list_subscription_states(event: Event) -> set[str]:
    states = [parse_object(subscription).get("status") for subscription in parse_list(event.get("subscriptions"))]
    return {str(state).upper() for state in (*states, event.get("portalSubscriptionStatus"))}


def _map_workflow_contact(event: Event) -> Call:
    """Map a contact that a workflow posts: ``{"vid": .., "properties": {"email": {"value": ..}}}``."""
    values = {
        name: parse_object(property_value).get("value", property_value)
        for name, property_value in event["properties"].items()
    }
    contact = event.get("vid") or event.get("objectId") or event.get("id") or values.get("hs_object_id")
    occurred_at = values.get("lastmodifieddate")
    traits = {_TRAITS[name]: values[name] for name in _TRAITS if values.get(name)}
    return Call(
        id=derive_event_id(contact, occurred_at, traits, values.get("email"), values.get("phone")),
        occurred_at=occurred_at,
        email=values.get("email"),
        phone=values.get("phone"),
        ids={_CONTACT: _qualify_contact_id(event, contact)},
        traits=traits,
    )


def _as_text(value: Any) -> str | None:
    return None if value is None else str(value)


CONNECTOR: Final = Connector(
    key="hubspot",
    name="HubSpot",
    family="email",
    scheme=Scheme(secret_label="Client secret of the app", verify=_verify, sign=_sign),
    map_event=map_event,
    timeout_seconds=5.0,
    options={
        "url": "The URL as entered in HubSpot. Needed only if a proxy rewrites the URL, because HubSpot signs it.",
        "signatures": "Accepted signature versions, separated by commas: v3 (the default), v2, v1. v1 and v2 have no"
        " timestamp.",
    },
    steps=(
        "In HubSpot open your app (private or public), Webhooks, and enter {url} as the target URL.",
        "Subscribe to contact creation, changes of the properties email and lifecyclestage, merges, privacy deletions"
        " and ticket associations. Only the associations contain the contact of a ticket.",
        "Copy the app's client secret, and enter it as the secret of this source.",
    ),
    sample=b'[{"eventId":3816279340,"subscriptionId":25,"portalId":33,"appId":1160452,"occurredAt":1777888800000,'
    b'"subscriptionType":"contact.propertyChange","attemptNumber":0,"objectId":1246965,'
    b'"propertyName":"lifecyclestage","propertyValue":"customer","changeSource":"CRM","sourceId":"userId:1"}]',
)
