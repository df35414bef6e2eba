"""Segue's flat event format, and the identity look-up that similar formats share.

One object contains the event name, the time and the identities; everything else is in ``properties`` or ``data``.
Identities may be fields of the event itself or of ``properties`` and ``data``, in snake_case or camelCase.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from app.connectors.adapter import Call, Event, derive_event_id
from app.connectors.webhook_request import Unreadable
from app.formats.event_names import vendor_event_name

CHANNEL: Final = "server"

_ABSENT: Final[tuple[Any, ...]] = (None, "")
_IDENTITY_SPELLINGS: Final = {
    "user_id": ("user_id", "userId"),
    "anonymous_id": ("anonymous_id", "anonymousId"),
    "email": ("email",),
    "phone": ("phone",),
}
_IDENTITY_NAMES: Final = frozenset(spelling for names in _IDENTITY_SPELLINGS.values() for spelling in names) | {"ids"}
_PAYLOAD_NAMES: Final = ("properties", "data")
_TIME_NAMES: Final = ("timestamp", "occurred_at", "originalTimestamp")
_ID_NAMES: Final = ("id", "message_id", "messageId")
_RESERVED_NAMES: Final = (
    frozenset({"event", "type", "channel", "traits", "context", "text", "previous_id", "previousId"})
    | frozenset({*_TIME_NAMES, *_ID_NAMES, *_PAYLOAD_NAMES})
    | _IDENTITY_NAMES
)
_TRANSPORT_NAMES: Final = frozenset({"sentAt", "sent_at", "receivedAt", "integrations", "writeKey", "version"})
"""Fields that are not stored, because a retry may change them or because they are meant for other recipients."""
_PAGE_EVENT_NAMES: Final = {"page": "page_viewed", "screen": "screen_viewed"}


def find_identities(*places: Any) -> dict[str, Any]:
    """Return the identities as arguments of Call. Each one comes from the first of the objects that contains it."""
    objects = [place for place in places if isinstance(place, dict)]
    identities = {kind: find_first_value(names, *objects) for kind, names in _IDENTITY_SPELLINGS.items()}
    ids = [place["ids"] for place in objects if isinstance(place.get("ids"), dict)]
    merged = {str(kind): value for ids_of_place in reversed(ids) for kind, value in ids_of_place.items()}
    return {kind: value for kind, value in {**identities, "ids": merged}.items() if value not in (None, "", {})}


def find_first_value(names: tuple[str, ...], *objects: Mapping[str, Any]) -> Any:
    """Return the first non-empty value, searching object by object and then name by name; None if there is no value."""
    return next((place[name] for place in objects for name in names if place.get(name) not in _ABSENT), None)


def drop_identities(value: Any) -> dict[str, Any]:
    """Return properties without identities and channel; a value that is not an object becomes ``{"data": value}``."""
    if isinstance(value, dict):
        return {name: member for name, member in value.items() if name not in _IDENTITY_NAMES and name != "channel"}
    return {} if value in _ABSENT else {"data": value}


def map_flat_event(event: Event, tool: str, fallback_id: str = "") -> Call:
    """Map one flat or Segment-style event to a call. ``fallback_id`` is the message id if the event has no id.

    Raise Unreadable if the event has no name.
    """
    kind, data = event.get("type"), find_first_value(_PAYLOAD_NAMES, event)
    payload = data if isinstance(data, dict) else {}
    context = event["context"] if isinstance(event.get("context"), dict) else {}
    extra = {key: value for key, value in event.items() if key not in _RESERVED_NAMES | _TRANSPORT_NAMES}
    traits = event.get("traits") if isinstance(event.get("traits"), dict) else None
    own_id = find_first_value(_ID_NAMES, event)
    call = Call(
        id=str(own_id) if own_id is not None else fallback_id or derive_event_id(event),
        occurred_at=find_first_value(_TIME_NAMES, event),
        channel=str(find_first_value(("channel",), event, payload, context) or CHANNEL),
        **find_identities(event, payload, traits, context.get("traits")),
        context={name: value for name, value in context.items() if name not in ("channel", "private")},
        text=event["text"] if isinstance(event.get("text"), dict) else {},
    )
    if kind == "identify":
        call.traits = {**extra, **(traits or drop_identities(data))}
    elif kind == "alias":
        call.previous_id = find_first_value(("previous_id", "previousId"), event)
        if call.previous_id is None:
            raise Unreadable("an alias event needs the field `previous_id`")
    else:
        call.event = _choose_event_name(event, tool)
        call.properties = {**extra, **drop_identities(data)}
    return call


def _choose_event_name(event: Event, tool: str) -> str:
    kind, name = event.get("type"), event.get("event")
    if kind in _PAGE_EVENT_NAMES:
        return _PAGE_EVENT_NAMES[str(kind)]
    if kind == "group":
        return vendor_event_name(tool, kind)
    for candidate in (name, kind):
        if isinstance(candidate, str) and candidate.strip() and candidate != "track":
            return candidate.strip()
    raise Unreadable("an event needs a name in the field `event` or `type`")
