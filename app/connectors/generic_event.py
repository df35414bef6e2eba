"""Our own flat shape of an event, and who is meant in shapes that are near it. Pure.

One object names what happened, when and to whom, and carries the rest in ``properties`` or ``data``. Identities may
stand beside the event or inside what it carries, in snake_case or camelCase.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from app.connectors.adapter import Call, Event, event_id
from app.connectors.delivery import Unreadable
from app.formats.event_names import vendor_event_name

CHANNEL: Final = "server"

_ABSENT: Final[tuple[Any, ...]] = (None, "")
_SPELLINGS: Final = {
    "user_id": ("user_id", "userId"),
    "anonymous_id": ("anonymous_id", "anonymousId"),
    "email": ("email",),
    "phone": ("phone",),
}
_IDENTITY_NAMES: Final = frozenset(each for names in _SPELLINGS.values() for each in names) | {"ids"}
_CARRIERS: Final = ("properties", "data")
_TIMES: Final = ("timestamp", "occurred_at", "originalTimestamp")
_IDS: Final = ("id", "message_id", "messageId")
_HAS_A_PLACE: Final = (
    frozenset({"event", "type", "channel", "traits", "context", "text", "previous_id", "previousId"})
    | frozenset({*_TIMES, *_IDS, *_CARRIERS})
    | _IDENTITY_NAMES
)
_OF_THE_SENDING: Final = frozenset({"sentAt", "sent_at", "receivedAt", "integrations", "writeKey", "version"})
"""What a retry may say otherwise, or what was meant for somebody else."""
_PAGES: Final = {"page": "page_viewed", "screen": "screen_viewed"}


def person_of(*places: Any) -> dict[str, Any]:
    """The identities that Call takes, each from the first of those objects that has it."""
    objects = [place for place in places if isinstance(place, dict)]
    found = {kind: first(names, *objects) for kind, names in _SPELLINGS.items()}
    ids = [place["ids"] for place in objects if isinstance(place.get("ids"), dict)]
    merged = {str(kind): value for each in reversed(ids) for kind, value in each.items()}
    return {kind: value for kind, value in {**found, "ids": merged}.items() if value not in (None, "", {})}


def first(names: tuple[str, ...], *objects: Mapping[str, Any]) -> Any:
    """The first value that there is, by object and then by name."""
    return next((place[name] for place in objects for name in names if place.get(name) not in _ABSENT), None)


def without_identities(value: Any) -> dict[str, Any]:
    """What an event carries, as properties; what is no object is kept under ``data``."""
    if isinstance(value, dict):
        return {name: each for name, each in value.items() if name not in _IDENTITY_NAMES and name != "channel"}
    return {} if value in _ABSENT else {"data": value}


def call_of(event: Event, tool: str, fallback_id: str = "") -> Call:
    """The meaning of one flat or Segment-shaped event. ``fallback_id`` is its id where it carries none.

    Raises Unreadable for what has no name.
    """
    kind, data = event.get("type"), first(_CARRIERS, event)
    inner = data if isinstance(data, dict) else {}
    context = event["context"] if isinstance(event.get("context"), dict) else {}
    extra = {key: value for key, value in event.items() if key not in _HAS_A_PLACE | _OF_THE_SENDING}
    traits = event.get("traits") if isinstance(event.get("traits"), dict) else None
    own = first(_IDS, event)
    call = Call(
        id=str(own) if own is not None else fallback_id or event_id(event),
        at=first(_TIMES, event),
        channel=str(first(("channel",), event, inner, context) or CHANNEL),
        **person_of(event, inner, traits, context.get("traits")),
        context={name: value for name, value in context.items() if name not in ("channel", "private")},
        text=event["text"] if isinstance(event.get("text"), dict) else {},
    )
    if kind == "identify":
        call.traits = {**extra, **(traits or without_identities(data))}
    elif kind == "alias":
        call.previous_id = first(("previous_id", "previousId"), event)
        if call.previous_id is None:
            raise Unreadable("an alias needs previous_id")
    else:
        call.event = _name(event, tool)
        call.properties = {**extra, **without_identities(data)}
    return call


def _name(event: Event, tool: str) -> str:
    kind, name = event.get("type"), event.get("event")
    if kind in _PAGES:
        return _PAGES[str(kind)]
    if kind == "group":
        return vendor_event_name(tool, kind)
    for each in (name, kind):
        if isinstance(each, str) and each.strip() and each != "track":
            return each.strip()
    raise Unreadable("an event needs its name, as event or type")
