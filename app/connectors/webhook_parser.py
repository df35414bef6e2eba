"""A delivery of a tool, once it is verified, as messages. Pure.

Nothing that was verified is lost: an event that cannot be read goes to quarantine by itself, and a body that cannot
even be taken apart goes there whole.
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
from app.formats.segment import ITEMS_MAX, Envelope

_EVENT_FORM: Final = "webhook/"
_BODY_FORM: Final = "webhook-body/"
"""Forms of what is in quarantine: one event as the adapter parted it, or a body that it could not part."""


_HEADERS_MAX: Final = 20
_HEADER_CHARS_MAX: Final = 300
_SECRET_HEADER_WORDS: Final = ("signature", "hmac", "token", "auth", "secret", "apikey", "forwarded", "real-ip")


class ParsedWebhook(msgspec.Struct):
    """What a delivery holds: messages, people who ask to be forgotten, and how many events concern no person."""

    envelope: Envelope
    ignored: int = 0


def parse(connector: Connector, delivery: WebhookRequest) -> ParsedWebhook:
    """Never fails: what cannot be read is a rejection of the envelope."""
    try:
        events = connector.split_delivery(delivery)
        if len(events) > ITEMS_MAX:
            raise Unreadable(f"the body has {len(events)} events; more than {ITEMS_MAX} are refused as a whole")
    except Exception as error:  # noqa: BLE001 - the tool would send an unexpected shape again and again
        rejections = [
            _to_rejection(0, error, delivery.body, f"{_BODY_FORM}{connector.key}?{_select_headers(delivery.headers)}")
        ]
        return ParsedWebhook(Envelope(None, [], [], rejections=rejections, form=_EVENT_FORM + connector.key))
    return _map_events(connector, events, delivery.received_at, delivery.options)


def reparse(form: str, original: bytes, received_at: int, options: Mapping[str, str]) -> ParsedWebhook | None:
    """What stood in quarantine under one of our forms; None for any other form. Raises InvalidBody."""
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
    return _map_events(connector, [event], received_at, options)


def _map_events(
    connector: Connector, events: list[Event], received_at: int, options: Mapping[str, str]
) -> ParsedWebhook:
    parsed = ParsedWebhook(Envelope(None, [], [], form=_EVENT_FORM + connector.key))
    envelope = parsed.envelope
    text_policy, with_estimate = text_policy_of(options), options.get("estimate") == ESTIMATED
    for index, event in enumerate(events):
        try:
            calls = list(_map_event(connector, event, received_at))
        except Exception as error:  # noqa: BLE001 - an unexpected shape must not reject the events beside it
            envelope.rejections.append(_to_rejection(index, error, encode_event(event), envelope.form))
            continue
        parsed.ignored += not calls
        for call in calls:
            if isinstance(call, Erasure):
                envelope.erasures.append((call.kind, call.value))
            elif isinstance(call, Call):
                envelope.items.append(to_segment_message(call, text_policy, with_estimate=with_estimate))
                envelope.originals.append(encode_event(event))
            else:
                assert_never(call)
    return parsed


def _select_headers(headers: Mapping[str, str]) -> str:
    """Headers of the tool that its adapter may need again; none that proves who sent it, or tells a proxy's way."""
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
    detail = str(error) if isinstance(error, Unreadable) else f"it has a shape that was not foreseen ({error!r})"[:300]
    return Rejection(index, RejectionCode.UNREADABLE, detail, None, original, form=form)
