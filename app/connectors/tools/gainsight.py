"""Gainsight PX connector: product events, engagements and survey answers from PX custom webhooks.

It reads the default body with the objects ``user``, ``account`` and ``event``. Requests are not signed: they are
authenticated with a token.

Source: the Gainsight PX user guide (Administration, Webhooks) and the sample bodies in
https://www.rudderstack.com/docs/sources/event-streams/cloud-apps/gainsight-px/
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from app.connectors.adapter import Call, Connector, Erasure, Event, derive_event_id
from app.connectors.shared.surveys import ANSWERED, CHANNEL, NPS, build_nps_properties, find_first_member
from app.connectors.signatures import TOKEN
from app.connectors.webhook_request import Unreadable
from app.enrichment.channel import lower_snake
from app.formats.event_names import vendor_event_name

_PRODUCT_CHANNEL: Final = "app"
_IDENTIFY_KINDS: Final = ("identify", "sign_up")
_SURVEY_KINDS: Final = ("survey", "feedback")
_TEXT_NAMES: Final = ("comment", "comments", "feedback", "text")
_RESERVED_NAMES: Final = frozenset(
    {"eventId", "eventType", "date", "time", "sessionId", "remoteHost", "userAgent", *_TEXT_NAMES}
)
_TRAIT_NAMES: Final = ("firstName", "lastName", "title", "role", "gender", "signUpDate", "accountId", "score", "type")


def map_event(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    user, user_event = event.get("user"), event.get("event")
    kind = find_first_member(user_event, "eventType")
    if not isinstance(user, dict) or not isinstance(user_event, dict) or not isinstance(kind, str):
        raise Unreadable("an event needs the fields `user` and `event`, and `event` needs `eventType`")
    word = lower_snake(kind)
    own_id = find_first_member(user_event, "eventId")
    shared: dict[str, Any] = {
        "occurred_at": find_first_member(user_event, "date", "time"),
        "channel": CHANNEL if word in _SURVEY_KINDS else _PRODUCT_CHANNEL,
        "user_id": find_first_member(user, "identifyId", "id"),
        "email": user.get("email"),
        "ids": {"gainsight_user": user.get("aptrinsicId")},
    }
    if word in _IDENTIFY_KINDS:
        traits = {lower_snake(name): user[name] for name in _TRAIT_NAMES if user.get(name) not in (None, "")}
        yield Call(id=f"{own_id or derive_event_id(kind, user_event, user)}:traits", traits=traits, **shared)
    details = {lower_snake(name): value for name, value in user_event.items() if name not in _RESERVED_NAMES}
    score = (
        build_nps_properties(find_first_member(user_event, "score", "npsScore", "rating")) if word == "survey" else {}
    )
    yield Call(
        id=str(own_id) if own_id is not None else derive_event_id(kind, user_event, user.get("aptrinsicId")),
        event=NPS if score else ANSWERED if word == "survey" else vendor_event_name("gainsight", kind),
        properties={**details, **score, "account_id": find_first_member(event.get("account"), "id")},
        text={"body": find_first_member(user_event, *_TEXT_NAMES)},
        **shared,
    )


CONNECTOR: Final = Connector(
    key="gainsight",
    name="Gainsight PX",
    family="analytics",
    scheme=TOKEN,
    map_event=map_event,
    steps=(
        "Generate a token for this source. Gainsight PX does not sign its webhooks, so the URL must contain the token.",
        "In Gainsight PX open Administration, Webhooks, and add a webhook with the URL {url}?token=TOKEN.",
        "Keep the default body with the objects user, account and event.",
        "Select the events to send: surveys, engagements, features, custom events and identify.",
    ),
    sample=b'{"user":{"aptrinsicId":"apt-1","identifyId":"user-1","email":"user@example.com","accountId":"acme"},'
    b'"account":{"id":"acme"},"event":{"eventId":"ev-1","eventType":"FEATURE_MATCH","date":1777888800000,'
    b'"featureName":"Export"}}',
)
