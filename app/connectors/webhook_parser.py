"""Parser of verified webhook requests: turns each event into messages or into a rejection.

No verified content is lost. An event that cannot be parsed is quarantined on its own. If a body cannot be split into
events, the whole body is quarantined.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, assert_never
from urllib.parse import parse_qsl, urlencode

import msgspec

from app.connectors.adapter import Call, Connector, Erasure, Event, encode_event, text_policy_of, to_segment_message
from app.connectors.tools import CONNECTORS
from app.connectors.webhook_request import Unreadable, WebhookRequest, decode_json
from app.enrichment.sentiment import ESTIMATED
from app.errors import InvalidBody, Rejection, RejectionCode
from app.formats import json_text
from app.formats.segment import ITEMS_MAX, Envelope
from app.formats.steps import Steps, at_once

_EVENT_FORM: Final = "webhook/"
_BODY_FORM: Final = "webhook-body/"
"""Prefix of the quarantine's ``form`` for a body that could not be split into events.

A single event has the prefix in ``_EVENT_FORM``.
"""

_HEADERS_MAX: Final = 20
_HEADER_CHARS_MAX: Final = 300
_SECRET_HEADER_WORDS: Final = ("signature", "hmac", "token", "auth", "secret", "apikey", "forwarded", "real-ip")


class ParsedWebhook(msgspec.Struct):
    """Messages, rejections and erasure requests of one request. ``ignored`` counts events without a person."""

    envelope: Envelope
    ignored: int = 0


def parse_in_steps(connector: Connector, delivery: WebhookRequest) -> Steps[ParsedWebhook]:
    """Parse a request. Invalid bodies and events become rejections of the envelope. Never raises."""
    try:
        events = connector.split_delivery(delivery)
        if len(events) > ITEMS_MAX:
            raise Unreadable(f"the body has {len(events)} events; at most {ITEMS_MAX} are accepted")
    except Exception as error:  # noqa: BLE001 - an unexpected format must not make the tool retry for days
        rejections = [
            _to_rejection(0, error, delivery.body, f"{_BODY_FORM}{connector.key}?{_select_headers(delivery.headers)}")
        ]
        return ParsedWebhook(Envelope(None, [], [], rejections=rejections, form=_EVENT_FORM + connector.key))
    yield
    return (yield from _map_events(connector, events, delivery.received_at, delivery.options))


parse = at_once(parse_in_steps)


def reparse(form: str, original: bytes, received_at: int, options: Mapping[str, str]) -> ParsedWebhook | None:
    """Parse a quarantined body or event again; return None if ``form`` belongs to another parser. Raise InvalidBody."""
    name, _, query = form.partition("?")
    connector = CONNECTORS.get(name.removeprefix(_EVENT_FORM).removeprefix(_BODY_FORM))
    if connector is None or not name.startswith((_EVENT_FORM, _BODY_FORM)):
        return None
    if name.startswith(_BODY_FORM):
        headers = dict(parse_qsl(query))
        return parse(
            connector, WebhookRequest(body=original, headers=headers, received_at=received_at, options=options)
        )
    try:
        event = decode_json(original)
    except Unreadable as error:
        raise InvalidBody(str(error)) from None
    return at_once(_map_events)(connector, [event], received_at, options)


def _map_events(
    connector: Connector, events: list[Event], received_at: int, options: Mapping[str, str]
) -> Steps[ParsedWebhook]:
    parsed = ParsedWebhook(Envelope(None, [], [], form=_EVENT_FORM + connector.key))
    envelope = parsed.envelope
    text_policy, with_estimate = text_policy_of(options), options.get("estimate") == ESTIMATED
    for index, event in enumerate(events):
        yield
        try:
            calls = list(_map_event(connector, event, received_at))
        except Exception as error:  # noqa: BLE001 - an unexpected format must not reject the other events
            envelope.rejections.append(_to_rejection(index, error, encode_event(event), envelope.form))
            continue
        original = encode_event(event)
        if json_text.is_marked(original):
            envelope.rejections.append(_reject_invalid_utf8(index, original, envelope.form))
            continue
        parsed.ignored += not calls
        for call in calls:
            if isinstance(call, Erasure):
                envelope.erasures.append((call.kind, call.value))
            elif isinstance(call, Call):
                envelope.items.append(to_segment_message(call, text_policy, with_estimate=with_estimate))
                envelope.originals.append(original)
            else:
                assert_never(call)
    return parsed


def _select_headers(headers: Mapping[str, str]) -> str:
    """Encode the headers that a replay may need, without credentials, signatures and proxy addresses."""
    selected = {
        name: value
        for name, value in headers.items()
        if (name == "content-type" or name.startswith(("x-", "ce-", "webhook-", "svix-")))
        and len(value) <= _HEADER_CHARS_MAX
        and not any(word in name for word in _SECRET_HEADER_WORDS)
    }
    return urlencode(dict(list(selected.items())[:_HEADERS_MAX]))


def _map_event(connector: Connector, event: Any, received_at: int) -> Iterable[Call | Erasure]:
    if not isinstance(event, dict):
        raise Unreadable("an event must be a JSON object")
    return connector.map_event(event, received_at)


def _to_rejection(index: int, error: Exception, original: bytes, form: str) -> Rejection:
    detail = str(error) if isinstance(error, Unreadable) else f"the event has an unexpected format ({error!r})"[:300]
    return Rejection(index, RejectionCode.UNREADABLE, detail, None, json_text.unmark(original), form=form)


def _reject_invalid_utf8(index: int, original: bytes, form: str) -> Rejection:
    code = RejectionCode.INVALID_UTF8
    return Rejection(index, code, code.meaning, None, json_text.unmark(original), form=form)
