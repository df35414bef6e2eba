"""Hotjar connector: webhooks (version 1) about survey responses and session recordings, also those of Contentsquare.

The URL of a recording is stored as an attachment in the context, and as a property that rules can read. Requests are
not signed: they are authenticated with a token in the URL.

Source: https://help.hotjar.com/hc/en-us/articles/36820033755281-Webhooks-Reference and
https://support.contentsquare.com/hc/en-gb/articles/16380212245148-Webhooks-Growth
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from app.connectors.adapter import Call, Connector, Erasure, Event, derive_event_id
from app.connectors.shared.email import find_custom_ids
from app.connectors.shared.surveys import (
    ANSWERED,
    CHANNEL,
    COMPLETED,
    NPS,
    build_nps_properties,
    find_first_member,
    list_objects,
    parse_rating,
)
from app.connectors.signatures import TOKEN
from app.connectors.webhook_request import Unreadable
from app.formats.event_names import vendor_event_name

_TEST_EVENT: Final = "test_message"
_RECORDING_EVENTS: Final = ("recording", "replay")
_UX_CHANNEL: Final = "ux"

_NPS_TYPES: Final = ("net-promoter-score", "net_promoter_score", "nps")
_RATING_TYPE = re.compile(r"(?:rating|rating[-_]?scale|reaction|smiley)[-_]?([0-9]{1,2})?")
_CHOICE_TYPE = re.compile(
    r"(?:single|multiple|multi)?[-_]?(?:close[-_]?ended|choice|select)|radio(?:[-_]?buttons?)?|checkbox(?:es)?"
    r"|dropdown|yes[-_]?no|consent"
)
"""Question types whose answers are chosen from a list. Answers of other types, except ratings, are free text."""
_REACTIONS: Final = 5
_CONTACT_NAMES: Final = {"email": "email", "phone": "phone", "phone_number": "phone"}
_COPIED_NAMES: Final = (
    "survey_id",
    "site_id",
    "device",
    "browser",
    "os",
    "country_code",
    "is_complete",
    "recording_url",
    "duration",
    "pages",
    "rage_clicks",
    "u_turns",
)


def map_event(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    kind, data = event.get("event"), event.get("data")
    if kind == _TEST_EVENT:
        return
    if not isinstance(kind, str) or not kind or not isinstance(data, dict):
        raise Unreadable("an event needs the fields `event` and `data`")
    id = find_first_member(data, "id", "api_id", "response_id", "recording_id")
    answers = _Answers(data)
    name, channel = _choose_name_and_channel(kind, data)
    # Hotjar sends a response in parts and again when it is complete; the name in the id keeps both touchpoints.
    own_id = f"{kind}:{name}:{id}" if id is not None else derive_event_id(kind, data)
    shared: dict[str, Any] = {
        "occurred_at": find_first_member(data, "created_timestamp", "created_time", "created_str"),
        "channel": channel,
        **_find_identities(data),
    }
    recording = find_first_member(data, "recording_url", "replay_url")
    survey = {
        **{key: data.get(key) for key in _COPIED_NAMES},
        "survey": data.get("survey_name"),
        "link": find_first_member(data, "response_origin_url", "response_url", "url"),
    }
    yield Call(
        id=own_id,
        event=name,
        properties={
            **survey,
            **answers.rating,
            "recording_url": recording,
            "answers": answers.values,
            **_build_tag_properties(data),
        },
        context={"attachments": [{"type": "recording", "url": recording}]} if recording else {},
        text=answers.texts,
        **shared,
    )
    for question, score in answers.nps.items():
        yield Call(id=f"{own_id}:{question}", event=NPS, properties={**survey, **score, "question": question}, **shared)


class _Answers:
    """The answers by question: numbers and choices in ``values``, free text in ``texts``."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.values: dict[str, Any] = {}
        self.texts: dict[str, Any] = {"message": data.get("message")}
        self.rating: dict[str, Any] = {}
        self.nps: dict[str, dict[str, Any]] = {}
        self._set_rating(parse_rating(data.get("emotion")), _REACTIONS)
        for question in list_objects(data.get("questions")) + list_objects(data.get("answers")):
            self._add_question(question)

    def _add_question(self, question: dict[str, Any]) -> None:
        id = find_first_member(question, "question_id", "id", "question_uuid", "question")
        kind = str(find_first_member(question, "question_type", "type") or "").lower()
        parts = list_objects(question.get("answers")) or [question]
        answers = [value for part in parts if (value := part.get("answer")) not in (None, "")]
        if id is None:
            raise Unreadable("a question needs the field `question_id` or `id`")
        key = str(id)
        self.texts[f"{key}.comment"] = next((part["comment"] for part in parts if part.get("comment")), None)
        if not answers:
            return
        value = answers[0] if len(answers) == 1 else answers
        number = parse_rating(value)
        rating_type = _RATING_TYPE.fullmatch(kind)
        if kind in _NPS_TYPES and (nps_answer := build_nps_properties(value)):
            self.nps[key] = nps_answer
            self._set_rating(number, nps_answer["scale"])
        elif rating_type:
            self._set_rating(number, int(rating_type[1]) if rating_type[1] else _REACTIONS)
        is_closed = kind in _NPS_TYPES or rating_type is not None or _CHOICE_TYPE.fullmatch(kind) is not None
        if is_closed or (number is not None and not kind):
            self.values[key] = value if number is None else number
        else:
            self.texts[key] = value

    def _set_rating(self, rating: Any, scale: int) -> None:
        """Store the rating, unless an earlier question of the survey has set it."""
        if rating is not None and not self.rating:
            self.rating = {"rating": rating, "scale": scale}


def _choose_name_and_channel(kind: str, data: dict[str, Any]) -> tuple[str, str]:
    if kind == "survey_response":
        return (ANSWERED if data.get("is_complete") is False else COMPLETED), CHANNEL
    if kind in _RECORDING_EVENTS:
        return "session.recorded", _UX_CHANNEL
    return vendor_event_name("hotjar", kind), _UX_CHANNEL


def _find_user_attributes(data: dict[str, Any]) -> dict[str, Any]:
    """Return ``user_attributes``, which is an object or a list of names and values."""
    attributes = data.get("user_attributes")
    if isinstance(attributes, dict):
        return attributes
    return {
        attribute["name"]: attribute.get("value")
        for attribute in list_objects(attributes)
        if isinstance(attribute.get("name"), str)
    }


def _find_identities(data: dict[str, Any]) -> dict[str, Any]:
    """Return Hotjar's user id, and the identities in the user attributes that the site sent to Hotjar."""
    attributes = _find_user_attributes(data)
    contacts = {kind: attributes[name] for name, kind in _CONTACT_NAMES.items() if attributes.get(name)}
    return {**find_custom_ids(attributes), **contacts, "ids": {"hotjar_user": data.get("hotjar_user_id")}}


def _build_tag_properties(data: dict[str, Any]) -> dict[str, Any]:
    return {"tags": data.get("tags")} if isinstance(data.get("tags"), list) else {}


CONNECTOR: Final = Connector(
    key="hotjar",
    name="Hotjar",
    family="survey",
    scheme=TOKEN,
    map_event=map_event,
    steps=(
        "Generate a token for this source. Hotjar does not sign its webhooks, so the URL must contain the token.",
        "In Hotjar open the survey, or the segment of recordings, and turn on Webhooks with the URL {url}?token=TOKEN.",
        "Send email and user_id as user attributes (hj('identify', userId, {...})), so that answers are linked to the "
        "user.",
    ),
    sample=b'{"event":"survey_response","version":1,"data":{"id":987,"survey_id":12,"survey_name":"Checkout",'
    b'"site_id":345,"hotjar_user_id":"3f0e7c1a","created_timestamp":1777888800,"is_complete":true,"device":"desktop",'
    b'"browser":"Firefox","os":"Linux","country_code":"DE","response_origin_url":"https://example.com/thanks",'
    b'"recording_url":"https://insights.hotjar.com/r?site=345&recording=1","user_attributes":'
    b'{"email":"user@example.com"},"questions":[{"question_id":1,"question_type":"net-promoter-score",'
    b'"answers":[{"answer":"9"}]},{"question_id":2,"question_type":"long-text","answers":'
    b'[{"answer":"The map was slow."}]}]}}',
)
