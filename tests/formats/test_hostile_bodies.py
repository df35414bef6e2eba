"""Hostile bodies: each causes a documented Rejection or SegueError."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from app.config import Settings
from app.errors import InvalidBody, RejectionCode
from app.formats.segment import ITEMS_MAX
from tests.support.segment_requests import SETTINGS, kinds, message, parse, rejection, track


def raw_track(**members: str) -> bytes:
    """Return a track message with additional fields, whose values are JSON text."""
    fixed = '"type":"track","event":"E","userId":"u1","messageId":"m1"'
    return ("{" + fixed + "".join(f',"{name}":{value}' for name, value in members.items()) + "}").encode()


def nested(levels: int) -> str:
    return "[" * levels + "1" + "]" * levels


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \n",
        b"\xef\xbb\xbf",
        b"null",
        b"5",
        b'"text"',
        b"[]",
        b"{",
        b"{}",
        b'{"batch":{}}',
        b'{"batch":"x"}',
        b'{"batch":null}',
        b'{"batch":[]}{}',
        b'{"batch":[],}',
        b'{"batch":[NaN]}',
        b'{"batch":[{"a":Infinity}]}',
        b'{"batch":[{"a":-Infinity}]}',
        b'{"batch":[01]}',
        b'{"batch":["\0"]}',
        b'{"batch":["\\x"]}',
        b'{"batch":["\\ud8"]}',
        b'{"batch":["\\ud8"],"a":"}',
        '{"batch":[]}'.encode("utf-16"),
        b"data=%7B%7D",
        b"[" * 1_000_000,
        b"[" * 1_000_000 + b"]" * 1_000_000,
        b'{"batch":' + b"[" * 1_000_000,
        b'{"a":' * 600_000 + b"1" + b"}" * 600_000,
        b'{"batch":[],"context":' + nested(100).encode() + b"}",
        b'{"batch":[],"context":{"a":1e400}}',
        b'{"batch":[],"context":{"a":' + nested(40).encode() + b"}}",
        b'{"batch":[' + b"1," * ITEMS_MAX + b"1]}",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_unreadable_bodies_are_refused_quickly(body: bytes) -> None:
    started = time.process_time()
    with pytest.raises(InvalidBody):
        parse(body)
    assert time.process_time() - started < 2


@pytest.mark.parametrize("levels", [32, 33, 200, 900, 1_000, 5_000, 16_000])
def test_message_that_nests_too_deep_is_rejected_alone(levels: int) -> None:
    rejected = rejection(raw_track(properties='{"a":' + nested(levels - 1) + "}"))
    assert rejected.code is RejectionCode.TOO_DEEP
    assert rejected.message_id == ("m1" if levels < 900 else rejected.message_id)


def test_depth_32_is_allowed() -> None:
    assert message(json.loads(raw_track(properties='{"a":' + nested(30) + "}"))).properties
    assert message(json.loads(raw_track(properties='{"a":' + json.dumps([{}] * 99) + "}"))).properties


@pytest.mark.parametrize(
    ("levels", "code"),
    [
        (33, RejectionCode.TOO_DEEP),
        (10_000, RejectionCode.TOO_DEEP),
        (100_000, RejectionCode.MESSAGE_TOO_LARGE),
    ],
)
def test_depth_limit_of_a_single_route(levels: int, code: RejectionCode) -> None:
    raw = raw_track(properties=nested(levels))
    [rejected] = parse(raw, "track").rejections
    assert (rejected.code, rejected.original) == (code, raw)


def test_deep_message_with_a_repaired_surrogate_is_truncated_in_place() -> None:
    deep = raw_track(properties='{"\\ud800":' + nested(3_000) + "}")
    assert rejection(deep).code is RejectionCode.TOO_DEEP


@pytest.mark.parametrize(
    "members",
    [
        {"properties": '{"a":1e400}'},
        {"properties": '{"a":[-1E+400]}'},
        {"properties": '{"a":1e-500}'},
        {"properties": '{"a":1e99999999999999999999999999}'},
        {"properties": '{"a":' + "9" * 500 + "}"},
        {"properties": '{"a":0.' + "1" * 500 + "}"},
        {"context": '{"a":1e400}'},
        {"context": '{"traits":{"phone":1e400}}'},
        {"traits": '{"email":1e400}'},
        {"integrations": '{"a":1e400}'},
        {"unknown": '{"a":1e400}'},
        {"name": "1e400"},
        {"timestamp": "1e400"},
        {"anonymousId": "1e400"},
        {"anonymousId": "9" * 500},
        {"anonymousId": "9" * 5_000},
    ],
    ids=lambda members: str(members)[:40],
)
def test_numbers_with_too_many_digits_are_rejected(members: dict[str, str]) -> None:
    assert rejection(raw_track(**members)).code is RejectionCode.NUMBER_OUT_OF_RANGE


def test_large_numbers_within_the_limit_stay_exact() -> None:
    parsed = parse(b'{"batch":[' + raw_track(properties='{"a":1e399,"b":' + "9" * 400 + "}") + b"]}")
    assert parsed.messages[0][1].properties == b'{"a":1e399,"b":' + b"9" * 400 + b"}"


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("\\u0000", "\ufffd"),
        ("a\\ud800b", "a\ufffdb"),
        ("\\udc00\\ud800", "\ufffd\ufffd"),
        ("\\ud83d\\ude00", "\U0001f600"),
        ("\\ud83d\\ud83d\\ude00", "\ufffd\U0001f600"),
        ("\\\\ud800 \\\\u0000", "\\ud800 \\u0000"),
        ("\\\\\\ud800", "\\\ufffd"),
    ],
)
def test_unstorable_text_is_replaced(text: str, stored: str) -> None:
    item = raw_track(properties=f'{{"a":"{text}"}}', context=f'{{"{text}":1,"traits":{{"{text}":1}}}}')
    parsed_message = parse(b'{"batch":[' + item.replace(b'"track","event":"E"', b'"identify"') + b"]}").messages[0][1]
    assert json.loads(parsed_message.properties) == {"a": stored}
    assert json.loads(parsed_message.context) == {stored: 1, "traits": {stored: 1}}
    assert parsed_message.traits is not None
    assert json.loads(parsed_message.traits) == {stored: 1}


def test_unstorable_text_is_replaced_in_all_fields() -> None:
    bad = '"\\ud800\\u0000"'
    item = raw_track(name=bad, category=bad, unknown=bad, integrations=f"{{{bad}:1}}", timestamp=bad, channel=bad)
    parsed = parse(b'{"batch":[' + item.replace(b'"track"', b'"page"') + b'],"context":{' + bad.encode() + b":1}}")
    parsed_message = parsed.messages[0][1]
    for stored in (parsed_message.properties, parsed_message.context):
        assert b"\\u0000" not in stored
        assert b"\\ud800" not in stored
    assert parsed_message.original_timestamp == "\ufffd\ufffd"


def test_original_keeps_a_lone_surrogate() -> None:
    assert b"\\ud800" in rejection(raw_track(anonymousId='"\\ud800"')).original


def test_last_duplicate_key_wins() -> None:
    raw = raw_track(userId='"u2"', properties='{"a":1}', context='{"channel":"web","channel":"sms"}')
    raw = raw[:-1] + b',"properties":{"b":1,"b":2}}'
    parsed_message = parse(b'{"batch":[],"batch":[' + raw + b"]}").messages[0][1]
    assert kinds(parsed_message) == ["user_id:u2"]
    assert json.loads(parsed_message.properties) == {"b": 2}
    assert parsed_message.channel == "sms"


@pytest.mark.parametrize(("size", "accepted"), [(32_768, True), (32_769, False)])
def test_message_size_limit(size: int, accepted: bool) -> None:
    bare = raw_track(properties='{"a":""}')
    raw = bare.replace(b'""', b'"' + b"x" * (size - len(bare)) + b'"')
    assert len(raw) == size
    if accepted:
        assert len(parse(b'{"batch":[' + raw + b"]}").messages) == 1
    else:
        assert rejection(raw).code is RejectionCode.MESSAGE_TOO_LARGE


def test_items_beyond_the_limit_are_rejected_one_by_one() -> None:
    settings = Settings(limits=SETTINGS.limits.model_copy(update={"batch_messages_max": 2}))
    parsed = parse(json.dumps({"batch": [track(), 5, track(messageId="m3"), 6]}).encode(), settings=settings)
    assert [(rejected.index, rejected.code, rejected.message_id) for rejected in parsed.rejections] == [
        (1, RejectionCode.NOT_AN_OBJECT, None),
        (2, RejectionCode.TOO_MANY_MESSAGES, "m3"),
        (3, RejectionCode.NOT_AN_OBJECT, None),
    ]
    assert len(parsed.messages) == 1
    assert [rejected.code.is_retryable for rejected in parsed.rejections] == [False, True, False]


def test_many_surrogates_are_replaced_quickly() -> None:
    started = time.process_time()
    parsed = parse(b'{"batch":[' + b",".join([raw_track(properties='{"a":"' + "\\ud800" * 5_000 + '"}')] * 100) + b"]}")
    assert len(parsed.messages) == 100
    assert time.process_time() - started < 3


@pytest.mark.parametrize("value", ["true", "1.5", '"x"', "[]", "{}", "null", "[[1]]", "1e399"])
@pytest.mark.parametrize(
    "name", ["name", "category", "integrations", "timestamp", "sentAt", "channel", "_metadata", "writeKey", "unknown"]
)
def test_optional_fields_accept_any_json_value(name: str, value: str) -> None:
    parsed = parse(b'{"batch":[' + raw_track(**{name: value}) + b"]}")
    codes: list[Any] = [rejected.code for rejected in parsed.rejections]
    assert codes == ([RejectionCode.INVALID_FIELD] if name == "channel" and value not in ('"x"', "null") else [])
