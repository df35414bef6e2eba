"""Fuzz tests of the Segment format: a body is refused as a whole, or each of its items has one outcome.

Every accepted message can be stored.
"""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from app.errors import BadRequest, RejectionCode
from app.formats.decompression import inflate
from app.formats.segment import TYPE_OF_ROUTE, Parsed
from app.touchpoint import Message, SourceView
from tests.support.segment_requests import NOW, SETTINGS, parse, track

ROUTES = st.sampled_from(sorted(TYPE_OF_ROUTE))
SOURCE = SourceView("s", identity_properties={"email": "email", "a.b": "tool"})
PIECES = [
    b'{"batch":[',
    b"]}",
    b'{"type":"track","event":"E","userId":"u"',
    b"}",
    b",",
    b"[",
    b"]",
    b'"a":',
    b'"',
    b"\\",
]
PIECES += [b"\\ud800", b"\\u0000", b"1e400", b"null", b"\xff", b"\x1f\x8b", b"\xef\xbb\xbf", b'"properties":{', b" "]

TEXTS = st.text(st.characters(), max_size=20) | st.sampled_from(
    [
        "track",
        "page",
        "identify",
        "alias",
        "group",
        "null",
        "0",
        "a@example.com",
        "+442079460958",
        "2026-05-04",
        "x" * 300,
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
KEYS = (
    st.sampled_from(["traits", "email", "phone", "channel", "library", "name", "externalIds", "id", "type", "a"])
    | TEXTS
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=8
)
FIELDS = st.sampled_from(
    [
        "type",
        "event",
        "messageId",
        "userId",
        "anonymousId",
        "groupId",
        "previousId",
        "name",
        "category",
        "properties",
        "context",
        "traits",
        "integrations",
        "timestamp",
        "originalTimestamp",
        "sentAt",
        "channel",
        "_metadata",
        "other",
    ]
)
ITEMS = st.dictionaries(FIELDS, VALUES, max_size=8) | st.dictionaries(FIELDS, VALUES, max_size=4).map(
    lambda fields: track() | {key: value for key, value in fields.items() if key != "type"}
)


def assert_storable(message: Message) -> None:
    texts = [message.message_id, message.channel, message.name or "", message.original_timestamp or ""]
    texts += [
        message.previous_id or "",
        *(part for identity in message.identities for part in (identity.kind, identity.value)),
    ]
    for raw in (message.properties, message.context, message.traits or b"{}"):
        assert isinstance(json.loads(raw, parse_float=Decimal), dict)
        texts.append(json.dumps(json.loads(raw), ensure_ascii=False).replace("\\u0000", "\0"))
    for text in texts:
        assert "\0" not in text
        text.encode()
    assert message.message_id
    assert len(message.message_id) <= 255
    assert message.identities
    assert [identity.strength for identity in message.identities] == sorted(i.strength for i in message.identities)
    assert len(set(message.identities)) == len(message.identities)
    assert 0 <= message.occurred_at <= NOW + 86_400_000_000
    assert len(message.digest) == 8


def assert_accounted(parsed: Parsed, items: int) -> None:
    places = [index for index, _ in parsed.messages] + [rejected.index for rejected in parsed.rejections]
    assert sorted(places) == list(range(items))
    for rejected in parsed.rejections:
        assert isinstance(rejected.code, RejectionCode)
        assert rejected.original
    for _, message in parsed.messages:
        assert_storable(message)


@given(st.binary(max_size=200) | st.lists(st.sampled_from(PIECES), max_size=25).map(b"".join), ROUTES, st.booleans())
@example(b'{"type":"track","event":"E","userId":"u","properties":{"a":"\\ud800', "track", True)
def test_any_bytes_return_storable_messages_or_bad_request(body: bytes, route: str, compressed: bool) -> None:
    try:
        plain = inflate(gzip.compress(body) if compressed else body, None, SETTINGS.limits)
        parsed = parse(plain, route, SOURCE)
    except BadRequest:
        return
    for _, message in parsed.messages:
        assert_storable(message)


@given(st.lists(ITEMS | VALUES, max_size=4), st.dictionaries(KEYS, VALUES, max_size=3))
def test_any_json_item_has_exactly_one_outcome(items: list[Any], context: dict[str, Any]) -> None:
    assert_accounted(parse(json.dumps({"batch": items, "context": context}).encode(), source=SOURCE), len(items))


@given(ITEMS, ROUTES.filter(lambda route: TYPE_OF_ROUTE[route] is not None))
def test_any_object_on_a_single_route_has_one_outcome(item: dict[str, Any], route: str) -> None:
    parsed = parse(json.dumps(item).encode(), route, SOURCE)
    assert_accounted(parsed, 1)
    for _, message in parsed.messages:
        assert message.type == TYPE_OF_ROUTE[route]


@given(ITEMS, TEXTS)
def test_retry_with_a_new_sent_at_is_the_same_message(item: dict[str, Any], sent_at: str) -> None:
    first = parse(json.dumps({"batch": [item]}).encode())
    again = parse(json.dumps({"batch": [item | {"sentAt": sent_at}], "sentAt": "2026-05-04T10:00:00Z"}).encode())
    assert len(first.messages) == len(again.messages)
    for (_, one), (_, two) in zip(first.messages, again.messages, strict=True):
        assert (one.key, one.digest, one.identities) == (two.key, two.digest, two.identities)
