"""Bytes that are not UTF-8 reject only the message that contains them, in every format, and are kept as sent."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest

from app.connectors import webhook_parser
from app.connectors.tools import CONNECTORS
from app.connectors.webhook_request import WebhookRequest
from app.errors import InvalidBody, RejectionCode
from app.formats import customerio_track, ga4, json_text, mixpanel, pixel, posthog, segment
from app.formats.encodings import unwrap
from app.formats.segment import Envelope, Parsed, normalise
from app.quarantine.reparse import reparse
from tests.support.segment_requests import NOW, SETTINGS, SOURCE, rejection, track

LIMITS = SETTINGS.limits
BAD = "\udcff\udced\udca0\udc80caf\udce9"
"""The bytes 0xFF, an encoded surrogate, and a text in ISO 8859-1, as Python's surrogateescape writes them."""


def encode(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")


def lines(values: list[Any]) -> bytes:
    return b"\n".join(map(encode, values))


def of_mixpanel(text: str) -> dict[str, Any]:
    return {"event": "E", "properties": {"token": "t", "distinct_id": "u-1", "time": 1, "$insert_id": "i", "a": text}}


def of_posthog(text: str) -> dict[str, Any]:
    return {
        "event": "E",
        "distinct_id": "u-1",
        "uuid": "u",
        "timestamp": "2026-01-01T00:00:00Z",
        "properties": {"a": text},
    }


def of_customerio(text: str) -> dict[str, Any]:
    return {
        "type": "person", "action": "event", "identifiers": {"id": "u-1"}, "name": "E", "timestamp": 1,
        "attributes": {"a": text},
    }  # fmt: skip


Make = Callable[[str], Any]
Read = Callable[[list[Any]], Envelope]
FORMATS: dict[str, tuple[Make, Read]] = {
    "segment": (
        lambda text: track(properties={"a": text}, messageId=None),
        lambda items: segment.read(encode({"batch": items}), "batch", LIMITS),
    ),
    "mixpanel": (of_mixpanel, lambda items: mixpanel.read(encode(items), "track", NOW, LIMITS)),
    "mixpanel, one event per line": (of_mixpanel, lambda items: mixpanel.read(lines(items), "import", NOW, LIMITS)),
    "mixpanel, a form of base64": (
        of_mixpanel,
        lambda items: mixpanel.read(
            unwrap(b"data=" + b64encode(encode(items)), None, LIMITS).body, "track", NOW, LIMITS
        ),
    ),
    "posthog": (of_posthog, lambda items: posthog.read(encode({"api_key": "k", "batch": items}), NOW, LIMITS)),
    "ga4": (
        lambda text: {"name": "E", "params": {"a": text}},
        lambda items: ga4.read(encode({"client_id": "c-1", "events": items}), "k", NOW, LIMITS),
    ),
    "customerio": (of_customerio, lambda items: customerio_track.read_batch(encode({"batch": items}), NOW, LIMITS)),
}


def parsed_of(envelope: Envelope) -> Parsed:
    return normalise(envelope, SOURCE, NOW, SETTINGS)


@pytest.mark.parametrize("name", FORMATS)
def test_only_the_message_that_is_not_utf8_is_rejected(name: str) -> None:
    make, read = FORMATS[name]
    parsed = parsed_of(read([make("first"), make(BAD), make("last \U0001f600")]))
    assert [index for index, _ in parsed.messages] == [0, 2]
    [rejected] = parsed.rejections
    assert (rejected.index, rejected.code) == (1, RejectionCode.INVALID_UTF8)
    assert encode(BAD)[1:-1] in rejected.original
    again = parsed_of(reparse(rejected.original, rejected.form, NOW, LIMITS, {}))
    assert [item.code for item in again.rejections] == [RejectionCode.INVALID_UTF8]
    corrected = rejected.original.replace(encode(BAD)[1:-1], b"corrected")
    assert len(parsed_of(reparse(corrected, rejected.form, NOW, LIMITS, {})).messages) == 1


@pytest.mark.parametrize("name", FORMATS)
def test_bad_byte_in_any_text_is_harmless(name: str) -> None:
    make, read = FORMATS[name]
    texts = json.dumps(make("text")).split('"')
    for place in range(1, len(texts), 2):
        bad = '"'.join([*texts[:place], texts[place] + "\udcff", *texts[place + 1 :]])
        raw = encode([make("first"), "HERE", make("last")]).decode()
        items = json.loads(raw.replace('"HERE"', bad))
        parsed = parsed_of(read(items))
        assert len(parsed.messages) >= 2
        assert all(not json_text.is_marked(rejected.original) for rejected in parsed.rejections)
        mixpanel.describe_failed_records(parsed.rejections)
        assert parsed.envelope is not None
        posthog.describe_results(parsed.envelope, parsed.rejections)


def test_message_of_a_single_route_is_rejected() -> None:
    parsed = parsed_of(segment.read(encode(track(properties={"a": BAD})), "track", LIMITS))
    assert [rejected.original for rejected in parsed.rejections] == [encode(track(properties={"a": BAD}))]
    call = customerio_track.read_call("event", "u-1", "", encode({"name": "E", "data": {"a": BAD}}), NOW, LIMITS)
    [rejected] = parsed_of(call).rejections
    assert encode(BAD) in rejected.original
    query = pixel.read_data(b64encode(encode(track(event=BAD))).decode(), "track", NOW, LIMITS)
    [rejected] = parsed_of(query).rejections
    assert encode(BAD) in rejected.original


def test_message_id_that_is_not_utf8_is_not_reported() -> None:
    rejected = rejection(encode(track(messageId=BAD)))
    assert (rejected.code, rejected.message_id) == (RejectionCode.INVALID_UTF8, None)
    assert rejection(encode(track(messageId="m-1", event=BAD))).message_id == "m-1"


def test_secret_of_a_visitor_is_removed_from_the_original() -> None:
    item = encode(track(event=BAD, visitor={"secret": "hidden"}))
    [rejected] = parsed_of(segment.read(b'{"batch":[' + item + b"]}", "batch", LIMITS)).rejections
    assert b"hidden" not in rejected.original
    assert encode(BAD) in rejected.original


@pytest.mark.parametrize(
    "body",
    [
        b'{"batch":[],"context":{"a":"\xff"}}',
        b'{"batch":[\xff]}',
        b'{"batch":[]}\xff',
        '{"batch":[]}'.encode("utf-16"),
        b'{"batch":[{"a":"' + b"\xff" * 10_001 + b'"}]}',
    ],
    ids=["shared context", "outside a text", "after the end", "UTF-16", "too many bytes"],
)
def test_body_that_is_not_utf8_outside_its_messages_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidBody):
        segment.read(body, "batch", LIMITS)


def test_noncharacters_are_stored_unless_they_are_a_mark() -> None:
    text = "\ufdd0\ufdd0 \ufdd8 \ufdfb"
    parsed = parsed_of(segment.read(encode({"batch": [track(properties={"a": text})]}), "batch", LIMITS))
    assert json.loads(parsed.messages[0][1].properties) == {"a": text}


def webhook(tool: str, body: bytes, content_type: str = "application/json") -> webhook_parser.ParsedWebhook:
    request = WebhookRequest(body=body, headers={"content-type": content_type}, received_at=NOW)
    return webhook_parser.parse(CONNECTORS[tool], request)


def test_only_the_webhook_event_that_is_not_utf8_is_rejected() -> None:
    events = [
        {"event": "open", "email": "user@example.com", "timestamp": 1777888800, "sg_event_id": text}
        for text in ("e-1", BAD, "e-3")
    ]
    envelope = webhook("sendgrid", encode(events)).envelope
    assert len(parsed_of(envelope).messages) == 2
    [rejected] = envelope.rejections
    assert (rejected.index, rejected.code) == (1, RejectionCode.INVALID_UTF8)
    assert encode(BAD) in rejected.original
    again = webhook_parser.reparse(rejected.form, rejected.original, NOW, {})
    assert again is not None
    assert [item.code for item in again.envelope.rejections] == [RejectionCode.INVALID_UTF8]


@pytest.mark.parametrize("value", [b"caf%E9", b"caf\xe9"])
def test_form_of_a_webhook_keeps_its_bytes(value: bytes) -> None:
    events = b'[{"event":"open","ts":1777888800,"_id":"%s","msg":{"email":"user@example.com","_id":"m"}}]'
    body = b"mandrill_events=" + (events % b"e-1")[:-1] + b"," + (events % value)[1:]
    envelope = webhook("mandrill", body, "application/x-www-form-urlencoded").envelope
    assert len(parsed_of(envelope).messages) == 1
    [rejected] = envelope.rejections
    assert (rejected.code, b'"caf\xe9"' in rejected.original) == (RejectionCode.INVALID_UTF8, True)
