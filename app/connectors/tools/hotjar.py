"""Hotjar's webhooks (Contentsquare's are the same): answers to its surveys, and recordings of sessions. Pure.

They are not signed, so a token of ours stands in the address. What a recording is kept at stands in the context as an
attachment, and as a property for whoever reads it in a rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from app.connectors.adapter import Call, Connector, Erasure, Event, event_id
from app.connectors.delivery import Unreadable
from app.connectors.shared.email import custom_ids
from app.connectors.shared.surveys import ANSWERED, CHANNEL, COMPLETED, NPS, first, nps, number_of, objects
from app.connectors.signatures import TOKEN
from app.formats.event_names import vendor_event_name

_TEST: Final = "test_message"
_RECORDED: Final = ("recording", "replay")
_UX: Final = "ux"

_NPS: Final = ("net-promoter-score", "net_promoter_score", "nps")
_RATED = re.compile(r"(?:rating|rating[-_]?scale|reaction|smiley)[-_]?([0-9]{1,2})?")
_CHOSEN = re.compile(
    r"(?:single|multiple|multi)?[-_]?(?:close[-_]?ended|choice|select)|radio(?:[-_]?buttons?)?|checkbox(?:es)?"
    r"|dropdown|yes[-_]?no|consent"
)
"""Types of questions whose answers are words of a list. What answers any other, but a rating, somebody wrote."""
_REACTIONS: Final = 5
_CONTACTS: Final = {"email": "email", "phone": "phone", "phone_number": "phone"}
_KEPT: Final = (
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


def read(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    kind, data = event.get("event"), event.get("data")
    if kind == _TEST:
        return
    if not isinstance(kind, str) or not kind or not isinstance(data, dict):
        raise Unreadable("an event needs the members event and data")
    id = first(data, "id", "api_id", "response_id", "recording_id")
    said = _Answers(data)
    name, channel = _name(kind, data)
    # The same response comes in parts, and once it is complete: two touchpoints, told apart by their names.
    own = f"{kind}:{name}:{id}" if id is not None else event_id(kind, data)
    shared: dict[str, Any] = {
        "at": first(data, "created_timestamp", "created_time", "created_str"),
        "channel": channel,
        **_who(data),
    }
    recording = first(data, "recording_url", "replay_url")
    survey = {
        **{key: data.get(key) for key in _KEPT},
        "survey": data.get("survey_name"),
        "link": first(data, "response_origin_url", "response_url", "url"),
    }
    yield Call(
        id=own,
        event=name,
        properties={**survey, **said.rated, "recording_url": recording, "answers": said.values, **_tags(data)},
        context={"attachments": [{"type": "recording", "url": recording}]} if recording else {},
        text=said.texts,
        **shared,
    )
    for question, score in said.nps.items():
        yield Call(id=f"{own}:{question}", event=NPS, properties={**survey, **score, "question": question}, **shared)


class _Answers:
    """What was answered, by question: numbers and choices as values, written text apart."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.values: dict[str, Any] = {}
        self.texts: dict[str, Any] = {"message": data.get("message")}
        self.rated: dict[str, Any] = {}
        self.nps: dict[str, dict[str, Any]] = {}
        self._rate(number_of(data.get("emotion")), _REACTIONS)
        for question in objects(data.get("questions")) + objects(data.get("answers")):
            self._take(question)

    def _take(self, question: dict[str, Any]) -> None:
        id = first(question, "question_id", "id", "question_uuid", "question")
        kind = str(first(question, "question_type", "type") or "").lower()
        given = objects(question.get("answers")) or [question]
        answers = [value for each in given if (value := each.get("answer")) not in (None, "")]
        if id is None:
            raise Unreadable("a question needs question_id or id")
        key = str(id)
        self.texts[f"{key}.comment"] = next((each["comment"] for each in given if each.get("comment")), None)
        if not answers:
            return
        value = answers[0] if len(answers) == 1 else answers
        number = number_of(value)
        rated = _RATED.fullmatch(kind)
        if kind in _NPS and (said := nps(value)):
            self.nps[key] = said
            self._rate(number, said["scale"])
        elif rated:
            self._rate(number, int(rated[1]) if rated[1] else _REACTIONS)
        is_of_list = kind in _NPS or rated is not None or _CHOSEN.fullmatch(kind) is not None
        if is_of_list or (number is not None and not kind):
            self.values[key] = value if number is None else number
        else:
            self.texts[key] = value

    def _rate(self, rating: Any, scale: int) -> None:
        """The first question that asks for one."""
        if rating is not None and not self.rated:
            self.rated = {"rating": rating, "scale": scale}


def _name(kind: str, data: dict[str, Any]) -> tuple[str, str]:
    if kind == "survey_response":
        return (ANSWERED if data.get("is_complete") is False else COMPLETED), CHANNEL
    if kind in _RECORDED:
        return "session.recorded", _UX
    return vendor_event_name("hotjar", kind), _UX


def _attributes(data: dict[str, Any]) -> dict[str, Any]:
    """``user_attributes``, an object or a list of names and values."""
    said = data.get("user_attributes")
    if isinstance(said, dict):
        return said
    return {each["name"]: each.get("value") for each in objects(said) if isinstance(each.get("name"), str)}


def _who(data: dict[str, Any]) -> dict[str, Any]:
    """By what the site told Hotjar of its user, and by Hotjar's own id."""
    attributes = _attributes(data)
    contacts = {ours: attributes[theirs] for theirs, ours in _CONTACTS.items() if attributes.get(theirs)}
    return {**custom_ids(attributes), **contacts, "ids": {"hotjar_user": data.get("hotjar_user_id")}}


def _tags(data: dict[str, Any]) -> dict[str, Any]:
    return {"tags": data.get("tags")} if isinstance(data.get("tags"), list) else {}


CONNECTOR: Final = Connector(
    key="hotjar",
    name="Hotjar",
    family="survey",
    scheme=TOKEN,
    read=read,
    steps=(
        "In Hotjar open the survey, or the segment of recordings, and turn on Webhooks with the address {url}.",
        "Hotjar signs nothing: the address must end in the token of this source, as {url}?token=TOKEN.",
        "Send email and user_id as user attributes (hj('identify', userId, {...})): then answers are theirs.",
    ),
    sample=b'{"event":"survey_response","version":1,"data":{"id":987,"survey_id":12,"survey_name":"Checkout",'
    b'"site_id":345,"hotjar_user_id":"3f0e7c1a","created_timestamp":1777888800,"is_complete":true,"device":"desktop",'
    b'"browser":"Firefox","os":"Linux","country_code":"DE","response_origin_url":"https://example.com/thanks",'
    b'"recording_url":"https://insights.hotjar.com/r?site=345&recording=1","user_attributes":'
    b'{"email":"user@example.com"},"questions":[{"question_id":1,"question_type":"net-promoter-score",'
    b'"answers":[{"answer":"9"}]},{"question_id":2,"question_type":"long-text","answers":'
    b'[{"answer":"The map was slow."}]}]}}',
)
