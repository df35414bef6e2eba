"""Typeform's webhooks: a response with its answers. Pure.

Of an address or a phone number that somebody typed in nobody knows whose it is, so such an answer identifies only
where the source's option ``answers_identify`` says so, and is private text where it does not; what the form's link
carried (``hidden``) always identifies.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from app.connectors.adapter import Call, Connector, Erasure, Event, event_id, json_events
from app.connectors.delivery import Delivery, Unreadable
from app.connectors.shared.email import custom_ids
from app.connectors.shared.surveys import ANSWERED, CHANNEL, COMPLETED, NPS, first, is_truthy, nps, number_of, objects
from app.connectors.signatures import hmac_scheme
from app.formats.event_names import vendor_event_name

_NAMES: Final = {"form_response": COMPLETED, "form_response_partial": ANSWERED}
_RATED: Final = ("nps", "opinion_scale", "rating")
_CHOSEN: Final = ("dropdown",)
"""Types of fields whose text was chosen, not written."""
_CONTACTS: Final = {"email": "email", "phone_number": "phone"}
_TYPED: Final = (*_CONTACTS, "url")
"""Somebody typed these in, as they did any text: no rule reads them unless the source says that they identify."""
_IDENTIFYING: Final = ("user_id", "userId", "anonymous_id", "anonymousId", "email", "phone")
_OPTION: Final = "segue_answers_identify"


def split(delivery: Delivery) -> list[Event]:
    """One event a body; what the source's option says goes with it, for quarantine knows no options."""
    events: list[Any] = json_events(delivery)
    if is_truthy(delivery.options.get("answers_identify")):
        return [each | {_OPTION: True} if isinstance(each, dict) else each for each in events]
    return events


def read(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    response = event.get("form_response")
    kind = event.get("event_type")
    if not isinstance(response, dict) or not isinstance(kind, str) or not kind:
        raise Unreadable("an event needs the members event_type and form_response")
    answers = _Answers(response, identify=event.get(_OPTION) is True)
    own = str(event.get("event_id") or response.get("token") or event_id(event))
    shared: dict[str, Any] = {
        "at": response.get("submitted_at") or response.get("landed_at"),
        "channel": CHANNEL,
        **_who(response, answers),
    }
    form = {
        "survey_id": response.get("form_id"),
        "survey": first(response.get("definition"), "title"),
        "response_id": response.get("token"),
    }
    yield Call(
        id=own,
        event=_NAMES.get(kind) or vendor_event_name("typeform", kind),
        properties={
            **form,
            **answers.rated,
            "answers": answers.values,
            "score": first(response.get("calculated"), "score"),
            "hidden": {name: value for name, value in _hidden(response).items() if name not in _IDENTIFYING},
        },
        text=answers.texts,
        **shared,
    )
    for ref, said in answers.nps.items():
        yield Call(id=f"{own}:{ref}", event=NPS, properties={**form, **said, "question": ref}, **shared)


class _Answers:
    """The answers of one response, by the reference that the form's author gave each field, else by its id."""

    def __init__(self, response: dict[str, Any], identify: bool) -> None:
        fields = objects(first(response.get("definition"), "fields"))
        self._best = {each.get("id"): _best_of(each) for each in fields}
        self.values: dict[str, Any] = {}
        self.texts: dict[str, Any] = {}
        self.contact: dict[str, Any] = {}
        self.rated: dict[str, Any] = {}
        """``rating`` and ``scale`` of the first question that asks for one."""
        self.nps: dict[str, dict[str, Any]] = {}
        for answer in objects(response.get("answers")):
            self._take(answer, identify)

    def _take(self, answer: dict[str, Any], identify: bool) -> None:
        field = answer.get("field")
        ref, asked = first(field, "ref", "id"), first(field, "type")
        kind = answer.get("type")
        if not isinstance(ref, str) or not isinstance(kind, str):
            raise Unreadable("an answer needs type, and field with its ref or id")
        value = answer.get(kind)
        if kind == "text" and asked not in _CHOSEN:
            self.texts[ref] = value
            return
        if kind in ("choice", "choices") and isinstance(value, dict):
            self.texts[f"{ref}.other"] = value.get("other")
            value = first(value, "label", "labels")
        if kind in _TYPED and not identify:
            self.texts[ref] = value
            return
        if identify and kind in _CONTACTS:
            self.contact.setdefault(_CONTACTS[kind], value)
        self.values[ref] = value
        if kind == "number" and asked in _RATED:
            self._rate(ref, asked, value, first(field, "id"))

    def _rate(self, ref: str, asked: str, value: Any, id: Any) -> None:
        if asked == "nps" and (said := nps(value)):
            self.nps[ref] = said
        if not self.rated:
            best = self._best.get(id) or (10 if asked == "nps" else None)
            self.rated = {"rating": number_of(value), "scale": best}


def _best_of(field: dict[str, Any]) -> int | None:
    """The best rating that a field lets one give, where the form's definition says it."""
    properties = field.get("properties")
    steps = number_of(first(properties, "steps"))
    if steps is None:
        return None
    from_zero = field.get("type") == "opinion_scale" and first(properties, "start_at_one") is not True
    return int(steps) - (1 if from_zero else 0)


def _who(response: dict[str, Any], answers: _Answers) -> dict[str, Any]:
    """What the form's link said of the visitor, then what they said themselves; else the response stands for one."""
    hidden = _hidden(response)
    who: dict[str, Any] = custom_ids(hidden)
    who |= {name: value for name in ("email", "phone") if (value := hidden.get(name) or answers.contact.get(name))}
    return who or {"ids": {"typeform_response": response.get("token")}}


def _hidden(response: dict[str, Any]) -> dict[str, Any]:
    hidden = response.get("hidden")
    return hidden if isinstance(hidden, dict) else {}


CONNECTOR: Final = Connector(
    key="typeform",
    name="Typeform",
    family="survey",
    scheme=hmac_scheme("Secret of the webhook", name="typeform-signature", encoding="base64", prefix="sha256="),
    read=read,
    split=split,
    options={
        "answers_identify": "on: an e-mail address or phone number that somebody answers with is theirs. "
        "Off unless said: anybody can type anybody's.",
    },
    steps=(
        "In the form open Connect, Webhooks, and add one with the address {url}.",
        "Edit it, enter a secret there, and the same one as the secret of this source.",
        "Give the form a hidden field user_id, and send its link as .../to/FORM#user_id=...: then answers are theirs.",
    ),
    sample=b'{"event_id":"01HX0000000000000000000001","event_type":"form_response","form_response":'
    b'{"form_id":"lT4Z3j","token":"a3a12ec67a1365927098a606107fac15","landed_at":"2026-05-04T09:58:00Z",'
    b'"submitted_at":"2026-05-04T10:00:00Z","hidden":{"user_id":"user-1","campaign":"spring"},'
    b'"definition":{"id":"lT4Z3j","title":"After your order","fields":[{"id":"f1","ref":"recommend","type":"nps"},'
    b'{"id":"f2","ref":"why","type":"long_text"}]},"answers":[{"type":"number","number":9,"field":'
    b'{"id":"f1","ref":"recommend","type":"nps"}},{"type":"text","text":"It arrived on time.","field":'
    b'{"id":"f2","ref":"why","type":"long_text"}}]}}',
)
