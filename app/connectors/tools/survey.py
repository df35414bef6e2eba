"""Generic survey connector: NPS, CSAT and CES scores, reviews and surveys of tools without a connector of their own.

It reads Segue's own format: objects with ``type`` (nps, csat, ces, review or survey), ``rating`` and an identity
(``user_id``, ``email``, ``phone``, ``anonymous_id`` or ``ids``). Optional fields are ``scale`` (the best rating),
``comment`` (free text), ``survey``, ``survey_id``, ``id``, ``timestamp``, ``channel`` and ``properties``. The kind
``survey`` is authenticated with a token, ``survey_signed`` by Standard Webhooks. The format is documented in
docs/surveys-and-social.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from app.connectors.adapter import Call, Connector, Erasure, Event, derive_event_id, split_json_events
from app.connectors.generic_event import find_identities
from app.connectors.shared.surveys import (
    CES,
    CHANNEL,
    COMPLETED,
    CSAT,
    NPS,
    NPS_SCALE,
    REVIEW,
    build_nps_properties,
    find_first_member,
    parse_rating,
)
from app.connectors.signatures import STANDARD, TOKEN, read_standard_id
from app.connectors.webhook_request import Unreadable, WebhookRequest
from app.formats.event_names import vendor_event_name

_KINDS: Final = {
    "nps": (NPS, NPS_SCALE),
    "csat": (CSAT, 5),
    "ces": (CES, 7),
    "review": (REVIEW, 5),
    "survey": (COMPLETED, None),
}
"""Event name and default scale (best rating) of each type."""
_ID: Final = "webhook-id"
_TEXT_NAMES: Final = ("comment", "title")


def split_delivery(delivery: WebhookRequest) -> list[Event]:
    """Split the body. Add the ``webhook-id`` to each event, as the message id of events without an id of their own."""
    events: list[Any] = split_json_events(delivery)
    message_id = read_standard_id(delivery)
    if not message_id:
        return events
    return [
        {**event, _ID: f"{message_id}.{place}" if place else message_id} if isinstance(event, dict) else event
        for place, event in enumerate(events)
    ]


def map_event(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    kind = event.get("type")
    if not isinstance(kind, str) or not kind.strip():
        raise Unreadable("an event needs the field `type`: nps, csat, ces, review or survey")
    kind = kind.strip().lower()
    name, usual_scale = _KINDS.get(kind, (vendor_event_name("survey", kind), None))
    sent_properties = event.get("properties")
    properties: dict[str, Any] = dict(sent_properties) if isinstance(sent_properties, dict) else {}
    own_id = find_first_member(event, "id", _ID)
    yield Call(
        id=str(own_id) if own_id is not None else derive_event_id(event),
        occurred_at=find_first_member(event, "timestamp", "occurred_at"),
        event=name,
        channel=str(event.get("channel") or ("review" if name == REVIEW else CHANNEL)),
        **find_identities(event),
        properties={
            **properties,
            **{key: event.get(key) for key in ("survey", "survey_id", "answers", "link")},
            **_build_score_properties(kind, event, usual_scale),
        },
        text={key: event.get(key) for key in _TEXT_NAMES},
    )


def _build_score_properties(kind: str, event: Event, usual_scale: int | None) -> dict[str, Any]:
    """Return ``rating`` and ``scale``, and ``group`` for an NPS; raise Unreadable if the rating is invalid."""
    sent_rating = event.get("rating")
    if sent_rating in (None, ""):
        if usual_scale is None:
            return {}
        raise Unreadable(f"an event of type {kind} needs the field `rating`")
    rating, scale = parse_rating(sent_rating), parse_rating(event.get("scale")) or usual_scale
    if rating is None or rating < 0 or (scale is not None and rating > scale):
        raise Unreadable(f"`rating` must be a number from 0 to {scale if scale is not None else 'scale'}")
    if kind == "nps" and scale == NPS_SCALE:
        return build_nps_properties(rating)
    return {"rating": rating, "scale": scale}


_STEPS: Final = (
    "Send one object per answer: type (nps, csat, ces, review or survey), rating, an identity (user_id, email, phone "
    "or anonymous_id), timestamp, id and comment.",
    "Add scale, the best possible rating, if it is not 10 (nps), 5 (csat and review) or 7 (ces).",
    "Answers with the same id are stored once. Without an id, answers with the same content are stored once.",
)
_SAMPLE: Final = (
    b'{"type":"nps","id":"r-1","timestamp":"2026-05-04T10:00:00Z","user_id":"user-1","email":"user@example.com",'
    b'"rating":9,"survey":"After delivery","comment":"Fast, thank you."}'
)

CONNECTORS: Final = (
    Connector(
        key="survey",
        name="Any survey tool",
        family="survey",
        scheme=TOKEN,
        map_event=map_event,
        split_delivery=split_delivery,
        steps=(
            "Generate a token for this source, and configure the tool or the middleware to POST to {url}?token=TOKEN.",
            *_STEPS,
        ),
        sample=_SAMPLE,
    ),
    Connector(
        key="survey_signed",
        name="Any survey tool, signed",
        family="survey",
        scheme=STANDARD,
        map_event=map_event,
        split_delivery=split_delivery,
        steps=(
            "Configure the sender to deliver to {url} and to sign by Standard Webhooks. Enter its signing secret "
            "(whsec_..) as the secret of this source.",
            *_STEPS,
        ),
        sample=_SAMPLE,
    ),
)
