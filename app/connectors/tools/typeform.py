"""Typeform connector: complete and partial form responses with their answers.

A respondent can enter the address or phone number of another person. Such an answer is therefore private text, and is
an identity of the respondent only if the source's option ``answers_identify`` is on. Hidden fields in the form's link
are always identities.
Requests carry an HMAC-SHA256 of the body.

Source: https://www.typeform.com/developers/webhooks/example-payload/ and
https://www.typeform.com/developers/webhooks/secure-your-webhooks/
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from app.connectors.adapter import Call, Connector, Erasure, Event, derive_event_id, split_json_events
from app.connectors.shared.email import find_custom_ids
from app.connectors.shared.surveys import (
    ANSWERED,
    CHANNEL,
    COMPLETED,
    NPS,
    build_nps_properties,
    find_first_member,
    is_truthy,
    list_objects,
    parse_rating,
)
from app.connectors.signatures import hmac_scheme
from app.connectors.webhook_request import Unreadable, WebhookRequest
from app.formats.event_names import vendor_event_name

_NAMES: Final = {"form_response": COMPLETED, "form_response_partial": ANSWERED}
_RATED_TYPES: Final = ("nps", "opinion_scale", "rating")
_CHOSEN_TYPES: Final = ("dropdown",)
"""Field types whose text answer was chosen from a list, and is therefore not free text."""
_CONTACT_NAMES: Final = {"email": "email", "phone_number": "phone"}
_TYPED_KINDS: Final = (*_CONTACT_NAMES, "url")
"""Answer types that the respondent typed. Rules cannot read them unless ``answers_identify`` is on."""
_IDENTITY_NAMES: Final = ("user_id", "userId", "anonymous_id", "anonymousId", "email", "phone")
_OPTION: Final = "segue_answers_identify"


def split_delivery(delivery: WebhookRequest) -> list[Event]:
    """Split the body. Copy the option ``answers_identify`` into each event, so that a replay has the same result."""
    events: list[Any] = split_json_events(delivery)
    if is_truthy(delivery.options.get("answers_identify")):
        return [event | {_OPTION: True} if isinstance(event, dict) else event for event in events]
    return events


def map_event(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    response = event.get("form_response")
    kind = event.get("event_type")
    if not isinstance(response, dict) or not isinstance(kind, str) or not kind:
        raise Unreadable("an event needs the fields `event_type` and `form_response`")
    answers = _Answers(response, identify=event.get(_OPTION) is True)
    own_id = str(event.get("event_id") or response.get("token") or derive_event_id(event))
    shared: dict[str, Any] = {
        "occurred_at": response.get("submitted_at") or response.get("landed_at"),
        "channel": CHANNEL,
        **_find_identities(response, answers),
    }
    form = {
        "survey_id": response.get("form_id"),
        "survey": find_first_member(response.get("definition"), "title"),
        "response_id": response.get("token"),
    }
    yield Call(
        id=own_id,
        event=_NAMES.get(kind) or vendor_event_name("typeform", kind),
        properties={
            **form,
            **answers.rating,
            "answers": answers.values,
            "score": find_first_member(response.get("calculated"), "score"),
            "hidden": {
                name: value for name, value in _get_hidden_fields(response).items() if name not in _IDENTITY_NAMES
            },
        },
        text=answers.texts,
        **shared,
    )
    for ref, nps_answer in answers.nps.items():
        yield Call(id=f"{own_id}:{ref}", event=NPS, properties={**form, **nps_answer, "question": ref}, **shared)


class _Answers:
    """The answers of one response by field. The key is the reference that the form's author chose, or else the id."""

    def __init__(self, response: dict[str, Any], identify: bool) -> None:
        fields = list_objects(find_first_member(response.get("definition"), "fields"))
        self._highest = {field.get("id"): _find_highest_rating(field) for field in fields}
        self.values: dict[str, Any] = {}
        self.texts: dict[str, Any] = {}
        self.contact: dict[str, Any] = {}
        self.rating: dict[str, Any] = {}
        """``rating`` and ``scale`` of the first rating question."""
        self.nps: dict[str, dict[str, Any]] = {}
        for answer in list_objects(response.get("answers")):
            self._add_answer(answer, identify)

    def _add_answer(self, answer: dict[str, Any], identify: bool) -> None:
        field = answer.get("field")
        ref, field_type = find_first_member(field, "ref", "id"), find_first_member(field, "type")
        kind = answer.get("type")
        if not isinstance(ref, str) or not isinstance(kind, str):
            raise Unreadable("an answer needs `type` and `field`, and `field` needs `ref` or `id`")
        value = answer.get(kind)
        if kind == "text" and field_type not in _CHOSEN_TYPES:
            self.texts[ref] = value
            return
        if kind in ("choice", "choices") and isinstance(value, dict):
            self.texts[f"{ref}.other"] = value.get("other")
            value = find_first_member(value, "label", "labels")
        if kind in _TYPED_KINDS and not identify:
            self.texts[ref] = value
            return
        if identify and kind in _CONTACT_NAMES:
            self.contact.setdefault(_CONTACT_NAMES[kind], value)
        self.values[ref] = value
        if kind == "number" and field_type in _RATED_TYPES:
            self._add_rating(ref, field_type, value, find_first_member(field, "id"))

    def _add_rating(self, ref: str, field_type: str, value: Any, id: Any) -> None:
        if field_type == "nps" and (nps_answer := build_nps_properties(value)):
            self.nps[ref] = nps_answer
        if not self.rating:
            highest = self._highest.get(id) or (10 if field_type == "nps" else None)
            self.rating = {"rating": parse_rating(value), "scale": highest}


def _find_highest_rating(field: dict[str, Any]) -> int | None:
    """Return the best rating that a field accepts; None if the form's definition does not contain it."""
    properties = field.get("properties")
    steps = parse_rating(find_first_member(properties, "steps"))
    if steps is None:
        return None
    from_zero = field.get("type") == "opinion_scale" and find_first_member(properties, "start_at_one") is not True
    return int(steps) - (1 if from_zero else 0)


def _find_identities(response: dict[str, Any], answers: _Answers) -> dict[str, Any]:
    """Return identities from hidden fields, then from answers; if none has one, the token of the response."""
    hidden = _get_hidden_fields(response)
    identities: dict[str, Any] = find_custom_ids(hidden)
    identities |= {
        name: value for name in ("email", "phone") if (value := hidden.get(name) or answers.contact.get(name))
    }
    return identities or {"ids": {"typeform_response": response.get("token")}}


def _get_hidden_fields(response: dict[str, Any]) -> dict[str, Any]:
    hidden = response.get("hidden")
    return hidden if isinstance(hidden, dict) else {}


CONNECTOR: Final = Connector(
    key="typeform",
    name="Typeform",
    family="survey",
    scheme=hmac_scheme(
        "Secret of the webhook", signature_header="typeform-signature", encoding="base64", prefix="sha256="
    ),
    map_event=map_event,
    split_delivery=split_delivery,
    options={
        "answers_identify": "on: an email address or phone number in an answer identifies the respondent. Off by "
        "default, because a respondent can enter the address of another person.",
    },
    steps=(
        "In the form open Connect, Webhooks, and add a webhook with the URL {url}.",
        "Edit the webhook and enter a secret. Enter the same secret as the secret of this source.",
        "Add a hidden field user_id to the form, and send its link as .../to/FORM#user_id=..., so that answers are "
        "linked to the user.",
    ),
    sample=b'{"event_id":"01HX0000000000000000000001","event_type":"form_response","form_response":'
    b'{"form_id":"lT4Z3j","token":"a3a12ec67a1365927098a606107fac15","landed_at":"2026-05-04T09:58:00Z",'
    b'"submitted_at":"2026-05-04T10:00:00Z","hidden":{"user_id":"user-1","campaign":"spring"},'
    b'"definition":{"id":"lT4Z3j","title":"After your order","fields":[{"id":"f1","ref":"recommend","type":"nps"},'
    b'{"id":"f2","ref":"why","type":"long_text"}]},"answers":[{"type":"number","number":9,"field":'
    b'{"id":"f1","ref":"recommend","type":"nps"}},{"type":"text","text":"It arrived on time.","field":'
    b'{"id":"f2","ref":"why","type":"long_text"}}]}}',
)
