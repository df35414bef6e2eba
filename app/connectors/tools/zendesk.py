"""Zendesk connector: event subscriptions of tickets and users, and webhooks of triggers with the body ``TEMPLATE``.

It reads ``zen:event-type:`` events (event version 2022-11-06) and trigger bodies. Requests carry an HMAC-SHA256 of the
timestamp and the body.

Source: https://developer.zendesk.com/documentation/webhooks/verifying/ and
https://developer.zendesk.com/api-reference/webhooks/event-types/webhook-event-types/
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from app.connectors.adapter import Call, Connector, Erasure, Event, derive_event_id, split_json_events
from app.connectors.shared.helpdesk import (
    CHANNEL,
    as_object,
    as_status_word,
    as_text_id,
    build_csat_properties,
    classify_status_change,
)
from app.connectors.signatures import hmac_scheme
from app.connectors.webhook_request import Unreadable, WebhookRequest
from app.formats import timestamps
from app.formats.event_names import vendor_event_name
from app.vocabulary.ticket_events import (
    ASSIGNED,
    CREATED,
    RATED,
    REOPENED,
    REPLIED_BY_AGENT,
    REPLIED_BY_CUSTOMER,
    SOLVED,
    STATUS_CHANGED,
)

_TYPE_PREFIX: Final = "zen:event-type:"
_INVOCATION_HEADER: Final = "x-zendesk-webhook-invocation-id"
_SECONDS_MAX: Final = 3_600
"""Maximum age of a signature in seconds. Zendesk retries five times within minutes."""

_TICKET_NAMES: Final = {
    "ticket.created": CREATED,
    "ticket.agent_assignment_changed": ASSIGNED,
    "ticket.group_assignment_changed": ASSIGNED,
}
_STATUS_AFTER: Final = {
    "ticket.soft_deleted": "deleted",
    "ticket.permanently_deleted": "deleted",
    "ticket.marked_as_spam": "spam",
    "ticket.merged": "closed",
}
_CHANGES_WITHOUT_TEXT: Final = frozenset(
    {
        "ticket.priority_changed",
        "ticket.type_changed",
        "ticket.agent_assignment_changed",
        "ticket.group_assignment_changed",
        "ticket.tags_changed",
    }
)
"""Change events whose values are numbers or come from a list. In other change events a value may be free text."""
_COMMENT_BY_OTHER: Final = "zendesk.comment_by_other"
_TRIGGER_NAMES: Final = {
    "created": CREATED,
    "solved": SOLVED,
    "reopened": REOPENED,
    "assigned": ASSIGNED,
    "rated": RATED,
}
TEMPLATE: Final = (
    '{"ticket_id":"{{ticket.id}}","event":"ticket.updated","status":"{{ticket.status}}",'
    '"email":"{{ticket.requester.email}}","requester_id":"{{ticket.requester.id}}",'
    '"external_id":"{{ticket.requester.external_id}}","updated_at":"{{ticket.updated_at_with_timestamp}}",'
    '"created_at":"{{ticket.created_at_with_timestamp}}","via":"{{ticket.via}}","title":"{{ticket.title}}"}'
)
"""Body of the webhook of a trigger. Zendesk replaces the placeholders."""


def split_delivery(delivery: WebhookRequest) -> list[Event]:
    """Split the body; add the invocation id from the header to trigger bodies, which have no event id."""
    invocation = delivery.headers.get(_INVOCATION_HEADER, "")
    events: list[Any] = split_json_events(delivery)
    return [
        {**event, _INVOCATION_HEADER: invocation}
        if invocation and isinstance(event, dict) and "type" not in event
        else event
        for event in events
    ]


def map_event(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    kind = event.get("type")
    if isinstance(kind, str) and kind.startswith(_TYPE_PREFIX):
        return _map_subscription_event(event, kind.removeprefix(_TYPE_PREFIX))
    if as_text_id(event.get("ticket_id")) is None:
        raise Unreadable(
            "an event needs a `type` that starts with zen:event-type:; the body of a trigger needs `ticket_id`"
        )
    return [_map_trigger_event(event)]


# ------------------------------------------------------------------------------------ event subscriptions


def _map_subscription_event(event: Event, kind: str) -> list[Call]:
    detail, change = as_object(event.get("detail")), as_object(event.get("event"))
    if kind.startswith("user."):
        return _map_user_event(event, kind, detail, change)
    requester = as_text_id(detail.get("requester_id"))
    if requester is None:
        return []
    name, properties_of_change, text = _classify_ticket_event(kind, detail, change)
    properties = {
        **_build_ticket_properties(detail),
        "status": as_status_word(detail.get("status")),
        **properties_of_change,
    }
    return [
        Call(
            id=as_text_id(event.get("id")) or derive_event_id(event),
            occurred_at=event.get("time"),
            event=name,
            channel=CHANNEL,
            ids={"zendesk_user": requester},
            properties=properties,
            text=text,
            is_by_customer=name in (CREATED, REPLIED_BY_CUSTOMER),
        )
    ]


def _classify_ticket_event(kind: str, detail: Event, change: Event) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return event name, properties and text of a ticket event."""
    if kind == "ticket.created":
        return CREATED, {}, {"subject": detail.get("subject"), "body": detail.get("description")}
    if kind == "ticket.comment_added":
        return _classify_comment(detail, as_object(change.get("comment")))
    if kind == "ticket.status_changed":
        status, previous = as_status_word(change.get("current")), as_status_word(change.get("previous"))
        status = status or as_status_word(detail.get("status"))
        return classify_status_change(status, previous), {"status": status, "previous_status": previous}, {}
    if kind in _STATUS_AFTER:
        return STATUS_CHANGED, {"status": _STATUS_AFTER[kind], "how": kind.removeprefix("ticket.")}, {}
    changed = {name: change.get(name) for name in ("current", "previous", "tags_added", "tags_removed")}
    values = {name: value for name, value in changed.items() if not isinstance(value, dict)}
    name = _TICKET_NAMES.get(kind) or vendor_event_name("zendesk", kind)
    if kind in ("ticket.subject_changed", "ticket.description_changed"):
        return name, {}, {"body": values.get("current")}
    return (name, values, {}) if kind in _CHANGES_WITHOUT_TEXT else (name, {}, values)


def _classify_comment(detail: Event, comment: Event) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return event name, properties and text of a comment. A user in CC is neither the requester nor an agent."""
    author = as_object(comment.get("author"))
    author_id = as_text_id(author.get("id"))
    text = {"body": comment.get("body")}
    properties = {"comment_id": as_text_id(comment.get("id"))}
    if comment.get("is_public") is False:
        return vendor_event_name("zendesk", "note_added"), properties, text
    if author_id == as_text_id(detail.get("requester_id")):
        return REPLIED_BY_CUSTOMER, properties, text
    if author.get("is_staff") is True:
        return REPLIED_BY_AGENT, properties, text
    return _COMMENT_BY_OTHER, {**properties, "author_id": author_id}, text


def _build_ticket_properties(detail: Event) -> dict[str, Any]:
    return {
        "ticket_id": as_text_id(detail.get("id")),
        "priority": as_status_word(detail.get("priority")),
        "ticket_type": as_status_word(detail.get("type")),
        "tags": detail.get("tags"),
        "via": as_object(detail.get("via")).get("channel"),
        "group_id": _as_assigned_id(detail.get("group_id")),
        "assignee_id": _as_assigned_id(detail.get("assignee_id")),
        "opened_at": detail.get("created_at"),
    }


def _as_assigned_id(value: Any) -> str | None:
    """Return an id as text; None for 0, which Zendesk sends for an unassigned ticket."""
    id_text = as_text_id(value)
    return None if id_text == "0" else id_text


def _map_user_event(event: Event, kind: str, detail: Event, change: Event) -> list[Call]:
    """Map a user event; agents and admins are not customers."""
    user = as_text_id(detail.get("id"))
    if user is None or as_status_word(detail.get("role")) in ("agent", "admin"):
        return []
    call = Call(
        id=as_text_id(event.get("id")) or derive_event_id(event),
        occurred_at=event.get("time"),
        user_id=detail.get("external_id"),
        email=detail.get("email"),
        ids={"zendesk_user": user},
    )
    if kind == "user.name_changed":
        call.traits = {"name": change.get("current")}
    elif kind not in ("user.created", "user.updated", "user.external_id_changed", "user.identity_created"):
        call.event, call.channel = vendor_event_name("zendesk", kind), CHANNEL
    return [call]


# ----------------------------------------------------------------------------------------------- triggers


def _map_trigger_event(event: Event) -> Call:
    trigger = str(event.get("event") or "updated").removeprefix("ticket.")
    status, previous = as_status_word(event.get("status")), as_status_word(event.get("previous_status"))
    rating = build_csat_properties(event.get("rating"), event.get("scale"))
    properties = {
        "ticket_id": as_text_id(event["ticket_id"]),
        "status": status,
        "previous_status": previous,
        "priority": as_status_word(event.get("priority")),
        "via": event.get("via"),
        "tags": event.get("tags"),
        "link": event.get("url"),
        "opened_at": event.get("created_at"),
        **rating,
    }
    occurred_at = event.get("updated_at")
    name = _classify_trigger_event(trigger, event, status, previous)
    return Call(
        id=_derive_trigger_event_id(event, occurred_at),
        occurred_at=occurred_at,
        event=name,
        channel=CHANNEL,
        user_id=event.get("external_id"),
        email=event.get("email"),
        phone=event.get("phone"),
        ids={"zendesk_user": as_text_id(event.get("requester_id"))},
        properties=properties,
        text={"subject": event.get("title"), "body": event.get("comment"), "comment": event.get("rating_comment")},
        is_by_customer=name in (CREATED, REPLIED_BY_CUSTOMER, RATED),
    )


def _classify_trigger_event(trigger: str, event: Event, status: str | None, previous: str | None) -> str:
    if trigger == "updated":
        # A trigger on every update also fires when Zendesk closes a solved ticket. That is not a second ticket.solved.
        return STATUS_CHANGED if status == "closed" and previous is None else classify_status_change(status, previous)
    if trigger == "commented":
        author, requester = as_text_id(event.get("author_id")), as_text_id(event.get("requester_id"))
        return REPLIED_BY_CUSTOMER if author == requester else REPLIED_BY_AGENT
    return _TRIGGER_NAMES.get(trigger) or vendor_event_name("zendesk", f"ticket_{trigger}")


def _derive_trigger_event_id(event: Event, occurred_at: Any) -> str:
    """Return a hash of the body; for a body without a time, return the invocation id.

    Two events without a time may have equal bodies, so that a hash would not distinguish them.
    """
    invocation = event.get(_INVOCATION_HEADER)
    if not occurred_at and isinstance(invocation, str) and invocation:
        return invocation
    return derive_event_id({name: value for name, value in event.items() if name != _INVOCATION_HEADER})


CONNECTOR: Final = Connector(
    key="zendesk",
    name="Zendesk",
    family="support",
    scheme=hmac_scheme(
        "Signing secret of the webhook",
        signature_header="x-zendesk-webhook-signature",
        encoding="base64",
        signed_bytes=lambda delivery, time: time.encode() + delivery.body,
        time_header="x-zendesk-webhook-signature-timestamp",
        seconds_max=_SECONDS_MAX,
        format_time=timestamps.rfc3339,
    ),
    split_delivery=split_delivery,
    map_event=map_event,
    steps=(
        "In Zendesk's Admin Center open Apps and integrations, Webhooks, and create a webhook with the URL {url}.",
        "Subscribe it to Zendesk events of tickets and users. Or connect it to triggers with this JSON body: "
        + TEMPLATE,
        "In the body of a trigger, event may be ticket.created, ticket.updated, ticket.commented (with comment and "
        "author_id), ticket.solved, ticket.reopened or ticket.rated (with rating and rating_comment).",
        "Reveal the signing secret of the webhook, and enter it as the secret of this source.",
    ),
    sample=b'{"account_id":12345,"id":"01HK6E2W1T5G3X4Y5Z6A7B8C9D","time":"2026-05-04T10:00:00Z",'
    b'"type":"zen:event-type:ticket.status_changed","zendesk_event_version":"2022-11-06","subject":"zen:ticket:456",'
    b'"detail":{"id":"456","requester_id":"123","status":"OPEN","priority":"NORMAL","subject":"Help","tags":["a"],'
    b'"via":{"channel":"email"},"external_id":null,"created_at":"2026-05-04T09:00:00Z",'
    b'"updated_at":"2026-05-04T10:00:00Z"},"event":{"current":"OPEN","previous":"NEW"}}',
    timeout_seconds=12.0,
)
