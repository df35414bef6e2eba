"""Gainsight PX's webhooks: what a user of a product did, and what they answered to its surveys. Pure.

They are not signed, so a token of ours stands in the address.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from app.connectors.adapter import Call, Connector, Erasure, Event, event_id
from app.connectors.delivery import Unreadable
from app.connectors.shared.surveys import ANSWERED, CHANNEL, NPS, first, nps
from app.connectors.signatures import TOKEN
from app.enrichment.channel import lower_snake
from app.formats.event_names import vendor_event_name

_PRODUCT: Final = "app"
_IDENTIFY: Final = ("identify", "sign_up")
_SURVEYS: Final = ("survey", "feedback")
_TEXTS: Final = ("comment", "comments", "feedback", "text")
_OWN_PLACES: Final = frozenset(
    {"eventId", "eventType", "date", "time", "sessionId", "remoteHost", "userAgent", *_TEXTS}
)
_TRAITS: Final = ("firstName", "lastName", "title", "role", "gender", "signUpDate", "accountId", "score", "type")


def read(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    user, happened = event.get("user"), event.get("event")
    kind = first(happened, "eventType")
    if not isinstance(user, dict) or not isinstance(happened, dict) or not isinstance(kind, str):
        raise Unreadable("an event needs user, and event with its eventType")
    word = lower_snake(kind)
    own = first(happened, "eventId")
    shared: dict[str, Any] = {
        "at": first(happened, "date", "time"),
        "channel": CHANNEL if word in _SURVEYS else _PRODUCT,
        "user_id": first(user, "identifyId", "id"),
        "email": user.get("email"),
        "ids": {"gainsight_user": user.get("aptrinsicId")},
    }
    if word in _IDENTIFY:
        traits = {lower_snake(name): user[name] for name in _TRAITS if user.get(name) not in (None, "")}
        yield Call(id=f"{own or event_id(kind, happened, user)}:traits", traits=traits, **shared)
    told = {lower_snake(name): value for name, value in happened.items() if name not in _OWN_PLACES}
    score = nps(first(happened, "score", "npsScore", "rating")) if word == "survey" else {}
    yield Call(
        id=str(own) if own is not None else event_id(kind, happened, user.get("aptrinsicId")),
        event=NPS if score else ANSWERED if word == "survey" else vendor_event_name("gainsight", kind),
        properties={**told, **score, "account_id": first(event.get("account"), "id")},
        text={"body": first(happened, *_TEXTS)},
        **shared,
    )


CONNECTOR: Final = Connector(
    key="gainsight",
    name="Gainsight PX",
    family="analytics",
    scheme=TOKEN,
    read=read,
    steps=(
        "In Gainsight PX open Administration, Webhooks, and add one with the address {url}?token=TOKEN.",
        "Leave the body as PX makes it: the objects user, account and event.",
        "Choose the events that shall arrive: surveys, engagements, features, custom events, identify.",
    ),
    sample=b'{"user":{"aptrinsicId":"apt-1","identifyId":"user-1","email":"user@example.com","accountId":"acme"},'
    b'"account":{"id":"acme"},"event":{"eventId":"ev-1","eventType":"FEATURE_MATCH","date":1777888800000,'
    b'"featureName":"Export"}}',
)
