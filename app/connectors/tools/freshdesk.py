"""Freshdesk connector: webhooks that automation rules call when tickets are created or updated.

The rule defines the body, by default ``freshdesk_webhook`` with ``triggered_event``. It contains neither an event id
nor a time. Requests are not signed: they are authenticated with a token in the URL or in the header X-Segue-Token.

Source: https://support.freshdesk.com/support/solutions/articles/132589-using-webhooks-in-automation-rules
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from app.connectors.adapter import Call, Connector, Erasure, Event, derive_event_id
from app.connectors.shared.helpdesk import (
    CHANNEL,
    as_object,
    as_status_word,
    as_text_id,
    build_csat_properties,
    classify_status_change,
    strip_markup,
)
from app.connectors.signatures import TOKEN
from app.connectors.webhook_request import Unreadable
from app.formats.event_names import vendor_event_name
from app.touchpoint import MINUTE
from app.vocabulary.ticket_events import ASSIGNED, CREATED, RATED, REPLIED_BY_AGENT, REPLIED_BY_CUSTOMER, STATUS_CHANGED

_TRIGGERED_CHARS_MAX: Final = 1_000
"""Maximum length of ``triggered_event``, because the time to match it grows with the square of its spaces."""
_TRIGGER_PATTERN = re.compile(r"\{?\s*([A-Za-z_][A-Za-z_ ]*?)\s*:(.*?)\}?", re.DOTALL)
_CHANGE_PATTERN = re.compile(r"([a-z]+)\s*:\s*\"?([^,}\"]*)")
_STATUSES: Final = {"2": "open", "3": "pending", "4": "resolved", "5": "closed"}
_LEVELS: Final = {"103": 7, "102": 6, "101": 5, "100": 4, "-101": 3, "-102": 2, "-103": 1}
"""Ratings from 1 to 7 by Freshdesk's codes, from extremely happy (103) to extremely unhappy (-103)."""
_ASSIGNMENT_FIELDS: Final = frozenset({"responder_id", "responder", "agent", "group_id", "group"})


def map_event(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    ticket = as_object(event.get("freshdesk_webhook")) or event
    ticket_id = as_text_id(ticket.get("ticket_id"))
    if ticket_id is None:
        raise Unreadable("the body needs the object `freshdesk_webhook` with the field `ticket_id`")
    trigger = ticket.get("triggered_event")
    field, value = _parse_trigger(trigger)
    rating = _build_rating_properties(field, value, ticket)
    name, event_properties = _classify_ticket_event(field, value, ticket) if not rating else (RATED, rating)
    text = {
        "subject": ticket.get("ticket_subject"),
        "body": strip_markup(ticket.get("ticket_latest_public_comment") or ticket.get("ticket_description")),
        "comment": ticket.get("rating_comment"),
    }
    properties = {
        "ticket_id": ticket_id,
        "status": as_status_word(ticket.get("ticket_status")),
        "priority": as_status_word(ticket.get("ticket_priority")),
        "ticket_type": ticket.get("ticket_type"),
        "tags": ticket.get("ticket_tags"),
        "via": as_status_word(ticket.get("ticket_source")),
        "link": ticket.get("ticket_url"),
        **event_properties,
    }
    yield Call(
        # An equal body within a minute is a retry. Freshdesk also retries after 30 minutes, which cannot be detected.
        id=derive_event_id(ticket_id, trigger, ticket, received_at // MINUTE),
        event=name,
        channel=CHANNEL,
        user_id=ticket.get("ticket_contact_unique_external_id"),
        email=ticket.get("requester_email") or ticket.get("ticket_contact_email"),
        phone=ticket.get("requester_phone") or ticket.get("ticket_contact_phone"),
        ids={"freshdesk_contact": as_text_id(ticket.get("requester_id"))},
        properties=properties,
        text=text,
        is_by_customer=name in (CREATED, REPLIED_BY_CUSTOMER, RATED),
    )


def _parse_trigger(trigger: Any) -> tuple[str, str]:
    """Parse ``{ticket_action:created}`` to ("ticket_action", "created"). It looks like JSON but is not."""
    if not isinstance(trigger, str) or len(trigger := trigger.strip()) > _TRIGGERED_CHARS_MAX:
        return "", ""
    match = _TRIGGER_PATTERN.fullmatch(trigger)
    return (match[1].lower(), match[2].strip()) if match else ("", "")


def _classify_ticket_event(field: str, value: str, ticket: Event) -> tuple[str, dict[str, Any]]:
    """Return event name and properties of a ticket event."""
    if field == "ticket_action" and value == "created":
        return CREATED, {}
    if field == "status":
        return _classify_status_event(value, ticket)
    if field in ("reply_sent", "note_type", "customer_responded", "requester_responded"):
        return _classify_reply(field, value, ticket)
    if field in _ASSIGNMENT_FIELDS:
        return ASSIGNED, {}
    if field == "ticket_action" and value in ("deleted", "marked_spam"):
        return STATUS_CHANGED, {"status": "deleted" if value == "deleted" else "spam"}
    if field == "ticket_action":
        return vendor_event_name("freshdesk", f"ticket_{value}"), {}
    return vendor_event_name("freshdesk", field or "other"), {"change": value}


def _classify_status_event(value: str, ticket: Event) -> tuple[str, dict[str, Any]]:
    """Parse ``{from:2,to:4}``. Numbers of custom statuses are unknown here, so ``ticket_status`` takes precedence."""
    change = {
        side: _STATUSES.get(number.strip(), number.strip()) for side, number in _CHANGE_PATTERN.findall(value.lower())
    }
    previous = change.get("from") or None
    status = as_status_word(ticket.get("ticket_status")) or change.get("to") or None
    name = classify_status_change(status, previous)
    if status == "closed" and previous is None:
        name = STATUS_CHANGED
    return name, {"status": status, "previous_status": previous}


def _classify_reply(field: str, value: str, ticket: Event) -> tuple[str, dict[str, Any]]:
    """Classify a reply by ``performed_by``, which the automation rule sets; without it, an agent wrote the reply."""
    if value.lower() == "private":
        return vendor_event_name("freshdesk", "note_added"), {}
    author = str(ticket.get("performed_by") or ("requester" if "responded" in field else "agent")).lower()
    return REPLIED_BY_CUSTOMER if author in ("requester", "customer", "contact") else REPLIED_BY_AGENT, {}


def _build_rating_properties(field: str, value: str, ticket: Event) -> dict[str, Any]:
    rating = ticket.get("rating") or (value if "feedback" in field or "survey" in field else None)
    level = _LEVELS.get(str(rating).strip())
    csat_properties = (
        build_csat_properties(level, 7) if level is not None else build_csat_properties(rating, ticket.get("scale"))
    )
    return {**csat_properties, "rated": rating} if csat_properties else {}


CONNECTOR: Final = Connector(
    key="freshdesk",
    name="Freshdesk",
    family="support",
    scheme=TOKEN,
    map_event=map_event,
    steps=(
        "Generate a token for this source. Freshdesk does not sign its webhooks, so each request must carry the token.",
        "In Freshdesk open Admin, Automations, and create rules for ticket creation and for ticket updates.",
        "Choose the action Trigger webhook, POST, JSON, Advanced, and the URL {url}?token=TOKEN. Or send the token as "
        "the custom header X-Segue-Token.",
        'Enter this content: {"freshdesk_webhook":{"triggered_event":"{{triggered_event}}","ticket_id":"{{ticket.id}}",'
        '"ticket_status":"{{ticket.status}}","ticket_priority":"{{ticket.priority}}",'
        '"ticket_subject":"{{ticket.subject}}","ticket_url":"{{ticket.url}}",'
        '"requester_email":"{{ticket.requester.email}}"}}',
        'In the rule for replies of customers, add "performed_by":"requester". In the rule for ratings, add "rating" '
        "with the value of the rating.",
        "Freshdesk does not send an event time or an event id. Segue uses the time of arrival, and stores a retry "
        "after 30 minutes again.",
    ),
    sample=b'{"freshdesk_webhook":{"triggered_event":"{ticket_action:created}","ticket_id":"11",'
    b'"ticket_url":"https://x.freshdesk.com/helpdesk/tickets/11","ticket_type":"Incident","ticket_subject":"Help",'
    b'"ticket_description":"<div>It does not work</div>","ticket_status":"Open","ticket_priority":"High",'
    b'"requester_name":"User","requester_email":"user@example.com"}}',
)
