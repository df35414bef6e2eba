"""Freshdesk: bodies that the rules of its automation send. Nothing is signed, nothing carries a time or an id. Pure."""

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
"""Of ``triggered_event``: looking for the end of its name takes time that grows with the square of its spaces."""
_TRIGGER_PATTERN = re.compile(r"\{?\s*([A-Za-z_][A-Za-z_ ]*?)\s*:(.*?)\}?", re.DOTALL)
_CHANGE_PATTERN = re.compile(r"([a-z]+)\s*:\s*\"?([^,}\"]*)")
_STATUSES: Final = {"2": "open", "3": "pending", "4": "resolved", "5": "closed"}
_LEVELS: Final = {"103": 7, "102": 6, "101": 5, "100": 4, "-101": 3, "-102": 2, "-103": 1}
"""Freshdesk's numbers of its faces, from extremely happy to extremely unhappy."""
_ASSIGNMENT_FIELDS: Final = frozenset({"responder_id", "responder", "agent", "group_id", "group"})


def map_event(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    ticket = as_object(event.get("freshdesk_webhook")) or event
    ticket_id = as_text_id(ticket.get("ticket_id"))
    if ticket_id is None:
        raise Unreadable("the body needs freshdesk_webhook with its ticket_id")
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
        # The same within a minute is a retry. Half an hour later, which is when Freshdesk repeats, nothing tells.
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
    """``{ticket_action:created}`` -> (ticket_action, created). It looks like JSON and is none."""
    if not isinstance(trigger, str) or len(trigger := trigger.strip()) > _TRIGGERED_CHARS_MAX:
        return "", ""
    match = _TRIGGER_PATTERN.fullmatch(trigger)
    return (match[1].lower(), match[2].strip()) if match else ("", "")


def _classify_ticket_event(field: str, value: str, ticket: Event) -> tuple[str, dict[str, Any]]:
    """(name, properties) of what happened to a ticket."""
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
    """``{from:2,to:4}``; numbers of statuses that a customer made up have no words here, but ``ticket_status`` does."""
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
    """A rule can say who: ``performed_by``. Else a sent reply and a note are the agents', who alone can write them."""
    if value.lower() == "private":
        return vendor_event_name("freshdesk", "note_added"), {}
    author = str(ticket.get("performed_by") or ("requester" if "responded" in field else "agent")).lower()
    return REPLIED_BY_CUSTOMER if author in ("requester", "customer", "contact") else REPLIED_BY_AGENT, {}


def _build_rating_properties(field: str, value: str, ticket: Event) -> dict[str, Any]:
    rating = ticket.get("rating") or (value if "feedback" in field or "survey" in field else None)
    level = _LEVELS.get(str(rating).strip())
    csat_found = (
        build_csat_properties(level, 7) if level is not None else build_csat_properties(rating, ticket.get("scale"))
    )
    return {**csat_found, "rated": rating} if csat_found else {}


CONNECTOR: Final = Connector(
    key="freshdesk",
    name="Freshdesk",
    family="support",
    scheme=TOKEN,
    map_event=map_event,
    steps=(
        "In Freshdesk open Admin, Automations, and make rules for tickets that are created and for ticket updates.",
        "As the action choose Trigger webhook, POST, JSON, Advanced, with the address {url}?token= and the token of "
        "this source; or send the token as the custom header X-Segue-Token.",
        'As the content send {"freshdesk_webhook":{"triggered_event":"{{triggered_event}}","ticket_id":"{{ticket.id}}",'
        '"ticket_status":"{{ticket.status}}","ticket_priority":"{{ticket.priority}}",'
        '"ticket_subject":"{{ticket.subject}}","ticket_url":"{{ticket.url}}",'
        '"requester_email":"{{ticket.requester.email}}"}}.',
        "A rule for replies of the customer may add performed_by requester; a rule for ratings adds rating.",
        "Freshdesk tells neither when nor which: the time is that of arrival, and what it repeats after half an hour "
        "counts again.",
    ),
    sample=b'{"freshdesk_webhook":{"triggered_event":"{ticket_action:created}","ticket_id":"11",'
    b'"ticket_url":"https://x.freshdesk.com/helpdesk/tickets/11","ticket_type":"Incident","ticket_subject":"Help",'
    b'"ticket_description":"<div>It does not work</div>","ticket_status":"Open","ticket_priority":"High",'
    b'"requester_name":"User","requester_email":"user@example.com"}}',
)
