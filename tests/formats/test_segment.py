"""Tests of the conversion of Segment-shaped messages, field by field."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from app.errors import InvalidBody, RejectionCode
from app.formats.segment import TYPE_OF_ROUTE, read
from app.formats.segment_message import UNUSUAL_ADDRESS_CHARS_MAX
from app.touchpoint import SourceView
from tests.support.segment_requests import NOW, SECOND, SETTINGS, SOURCE, kinds, message, parse, rejection, send, track

LONG = "x" * 256
LIMITS = SETTINGS.limits


# Envelope and routes


def test_envelope_is_split_into_items() -> None:
    body = (
        b'\xef\xbb\xbf {"batch":[{"a":1},2],"writeKey":"wk","sentAt":"2026-05-04T10:00:00Z","context":{"ip":"::1"}}\n'
    )
    envelope = read(body, "batch", SETTINGS.limits)
    assert envelope.write_key == "wk"
    assert envelope.sent_at == NOW
    assert envelope.items == envelope.originals == [b'{"a":1}', b"2"]
    assert envelope.context == {"ip": b'"::1"'}
    assert envelope.visitor == b""


def test_visitor_claim_is_not_part_of_the_items() -> None:
    body = b'{"batch":[{"type":"track","event":"e","anonymousId":"a"}],"visitor": {"id":"a","proof":"p"} }'
    envelope = read(body, "b", SETTINGS.limits)
    assert envelope.visitor == b'{"id":"a","proof":"p"}'
    assert not any(b"proof" in item for item in (*envelope.items, *envelope.originals))


@pytest.mark.parametrize(
    "route", ["track", "t", "identify", "i", "page", "p", "screen", "s", "group", "g", "alias", "a"]
)
def test_single_route_sets_the_message_type(route: str) -> None:
    item = track(type=5, name="x", groupId="g", previousId="p", writeKey="wk")
    assert read(json.dumps(item).encode(), route, SETTINGS.limits).write_key == "wk"
    [(index, result)] = send(item, route=route).messages
    assert (index, result.type) == (0, TYPE_OF_ROUTE[route])


@pytest.mark.parametrize("key", ["5", "null", "[]", '""', "1e999"])
def test_write_key_that_is_not_text_is_ignored(key: str) -> None:
    assert read(b'{"batch":[],"writeKey":' + key.encode() + b"}", "batch", SETTINGS.limits).write_key is None


def test_empty_batch_is_accepted() -> None:
    assert send().messages == []


@pytest.mark.parametrize("envelope", [{"context": []}, {"context": "x"}, {"integrations": 5}])
def test_envelope_with_wrong_types_is_refused(envelope: dict[str, Any]) -> None:
    with pytest.raises(InvalidBody):
        send(track(), **envelope)


def test_envelope_context_is_the_default_for_items() -> None:
    shared = {"ip": "::1", "locale": "en", "library": {"name": "analytics-ios"}}
    result = message(track(context={"locale": "de", "ip": None}), context=shared, integrations={"All": True})
    assert json.loads(result.context) == shared | {"locale": "de", "integrations": {"All": True}}
    assert result.channel == "app"
    assert json.loads(message(track(), context=shared).context) == shared


# Names, properties, traits, context


@pytest.mark.parametrize(
    ("item", "name", "properties"),
    [
        (track(properties={"total": 42.5}), "Order Completed", {"total": 42.5}),
        (track(properties=None), "Order Completed", {}),
        (track(type="page", name="Home", category="Docs"), "page_viewed", {"name": "Home", "category": "Docs"}),
        (track(type="page", name="Home", properties={"name": "Own"}), "page_viewed", {"name": "Own"}),
        (track(type="page", name="Home", properties={"name": None}), "page_viewed", {"name": "Home"}),
        (track(type="page", name=None), "page_viewed", {}),
        (track(type="screen", name="Cart"), "screen_viewed", {"name": "Cart"}),
        (track(type="identify", traits={"a": 1}), None, {}),
        (track(type="group", groupId=7, traits={"plan": "x"}), None, {"groupId": "7", "traits": {"plan": "x"}}),
        (track(type="alias", previousId="p"), None, {}),
    ],
)
def test_name_and_properties(item: dict[str, Any], name: str | None, properties: dict[str, Any]) -> None:
    result = message(item)
    assert result.name == name
    assert json.loads(result.properties) == properties


@pytest.mark.parametrize(
    ("item", "traits"),
    [
        (track(type="identify", traits={"a": 1}, context={"traits": {"b": 2}}), {"a": 1}),
        (track(type="identify", context={"traits": {"b": 2}}), {"b": 2}),
        (track(type="identify", traits={}, context={"traits": {"b": 2}}), {"b": 2}),
        (track(type="identify", traits=None), None),
        (track(type="identify", context={"traits": [1]}), None),
        (track(context={"traits": {"b": 2}}), None),
        (track(traits={"a": 1}), {"a": 1}),
        (track(type="group", groupId="g", traits={"a": 1}), None),
    ],
)
def test_traits(item: dict[str, Any], traits: dict[str, Any] | None) -> None:
    result = message(item)
    assert (None if result.traits is None else json.loads(result.traits)) == traits


def test_properties_keep_their_original_text() -> None:
    raw = b'{ "total": 42.50, "big": 12345678901234567890123, "e": 1e399 }'
    parsed = parse(b'{"batch":[{"type":"track","event":"E","userId":"u","messageId":"m","properties":' + raw + b"}]}")
    assert parsed.messages[0][1].properties == raw


def test_unknown_fields_are_stored_in_extra() -> None:
    result = message(
        track(
            rudderId="r", version=2, name="n", groupId="g", channel="kiosk", integrations={"All": False}, writeKey="wk"
        )
    )
    extra = {"rudderId": "r", "version": 2, "name": "n", "groupId": "g", "channel": "kiosk"}
    assert json.loads(result.context) == {"integrations": {"All": False}, "_extra": extra}
    assert json.loads(message(track(integrations={}, groupId=None, channel="web")).context) == {}


@pytest.mark.parametrize(
    ("item", "channel"),
    [
        (track(context={"channel": "In Store", "library": {"name": "analytics-ios"}}), "in_store"),
        (track(context={"channel": 5, "library": {"name": "analytics-ios"}}), "app"),
        (track(context={"library": "analytics.js", "channel": "sms"}), "sms"),
        (track(context={"library": {"name": ["x"]}}), "server"),
        (track(channel="mobile"), "app"),
        (track(type="page"), "web"),
    ],
)
def test_channel(item: dict[str, Any], channel: str) -> None:
    assert message(item).channel == channel


def test_source_channel_overrides_the_library() -> None:
    source = SourceView("desk", default_channel="support")
    assert message(track(context={"library": {"name": "analytics.js"}}), source).channel == "support"


# Ids


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"anonymousId": "a1"}, ["user_id:u1", "anonymous_id:a1"]),
        ({"userId": 1}, ["user_id:1"]),
        ({"userId": -17}, ["user_id:-17"]),
        ({"userId": 12345678901234567890123}, ["user_id:12345678901234567890123"]),
        ({"userId": 1.5}, ["user_id:1.5"]),
        ({"userId": None, "anonymousId": "a1"}, ["anonymous_id:a1"]),
        ({"userId": "", "anonymousId": "a1"}, ["anonymous_id:a1"]),
        ({"userId": "NULL", "anonymousId": "a1"}, ["anonymous_id:a1"]),
        ({"userId": 0, "anonymousId": "a1"}, ["anonymous_id:a1"]),
        ({"context": {"traits": {"email": " A@Example.com"}}}, ["user_id:u1", "email:a@example.com"]),
        ({"traits": {"email": "a@example.com"}}, ["user_id:u1"]),
        ({"properties": {"email": "a@example.com"}}, ["user_id:u1"]),
        (
            {
                "type": "identify",
                "traits": {"email": "a@example.com"},
                "context": {"traits": {"email": "b@example.com"}},
            },
            ["user_id:u1", "email:a@example.com"],
        ),
        (
            {"type": "identify", "traits": {"email": "none"}, "context": {"traits": {"email": "b@example.com"}}},
            ["user_id:u1", "email:b@example.com"],
        ),
        (
            {
                "type": "identify",
                "traits": {"email": "a@example.com"},
                "context": {"traits": {"phone": "+442079460958"}},
            },
            ["user_id:u1", "email:a@example.com", "phone:+442079460958"],
        ),
        ({"type": "identify", "userId": None, "traits": {"phone": 442079460958, "email": "a@b"}}, ["email:a@b"]),
        ({"type": "identify", "traits": {"email": "x" * 300 + "@example.com"}}, ["user_id:u1"]),
        ({"type": "identify", "traits": {"email": {"a": 1}, "phone": [1]}}, ["user_id:u1"]),
        ({"type": "group", "groupId": "g", "traits": {"email": "a@example.com"}}, ["user_id:u1"]),
        (
            {
                "anonymousId": "a1",
                "context": {"externalIds": [{"id": "h1", "type": "HubSpot ID"}, {"id": 7, "type": "crm"}]},
            },
            ["user_id:u1", "hub_spot_id:h1", "crm:7", "anonymous_id:a1"],
        ),
        (
            {
                "userId": None,
                "context": {"externalIds": [{"id": "A@example.com", "type": "Email"}, {"id": "x", "type": "userId"}]},
            },
            ["user_id:x", "email:a@example.com"],
        ),
        (
            {"context": {"externalIds": [{"id": "null", "type": "crm"}, 5, {"id": "x"}, {"id": LONG, "type": "crm"}]}},
            ["user_id:u1"],
        ),
        ({"context": {"externalIds": {"id": "x", "type": "crm"}}}, ["user_id:u1"]),
        ({"context": {"traits": 5, "externalIds": [{"id": "x", "type": "crm"}]}}, ["user_id:u1", "crm:x"]),
    ],
)
def test_identities(fields: dict[str, Any], expected: list[str]) -> None:
    assert kinds(message(track(**fields))) == expected


def test_decimal_number_is_an_id_as_written() -> None:
    parsed = parse(b'{"batch":[{"type":"track","event":"E","userId":1.50,"anonymousId":1e3,"messageId":2.0}]}')
    assert kinds(parsed.messages[0][1]) == ["user_id:1.50", "anonymous_id:1e3"]
    assert parsed.messages[0][1].message_id == "2.0"


def test_identity_properties_of_the_source_identify() -> None:
    source = SourceView("shop", identity_properties={"customer.email": "email", "card": "loyalty_card", "no.such": "x"})
    item = track(userId=None, properties={"customer": {"email": "A@example.com"}, "card": 12})
    assert kinds(message(item, source)) == ["email:a@example.com", "loyalty_card:12"]


@pytest.mark.parametrize(
    ("fields", "previous"),
    [
        ({"previousId": "p"}, "p"),
        ({"previousId": 5}, "5"),
        ({"previousId": "u1"}, None),
    ],
)
def test_alias(fields: dict[str, Any], previous: str | None) -> None:
    result = message({"type": "alias", "userId": "u1", "messageId": "m"} | fields)
    assert result.previous_id == previous
    assert kinds(result) == ["user_id:u1"]


# Rejections


@pytest.mark.parametrize(
    ("item", "code"),
    [
        (5, RejectionCode.NOT_AN_OBJECT),
        (None, RejectionCode.NOT_AN_OBJECT),
        ([], RejectionCode.NOT_AN_OBJECT),
        ({}, RejectionCode.UNKNOWN_TYPE),
        (track(type="Track"), RejectionCode.UNKNOWN_TYPE),
        (track(type=None), RejectionCode.UNKNOWN_TYPE),
        (track(type={}), RejectionCode.UNKNOWN_TYPE),
        (track(type=5, event=5), RejectionCode.UNKNOWN_TYPE),
        (track(event=5), RejectionCode.INVALID_FIELD),
        (track(event={}), RejectionCode.INVALID_FIELD),
        (track(properties="x"), RejectionCode.INVALID_FIELD),
        (track(context=[]), RejectionCode.INVALID_FIELD),
        (track(traits=1), RejectionCode.INVALID_FIELD),
        (track(userId=True), RejectionCode.INVALID_FIELD),
        (track(userId={"id": 1}), RejectionCode.INVALID_FIELD),
        (track(messageId=[]), RejectionCode.INVALID_FIELD),
        (track(userId=LONG), RejectionCode.INVALID_ID),
        (track(userId=10**300), RejectionCode.INVALID_ID),
        (track(anonymousId=LONG), RejectionCode.INVALID_ID),
        (track(messageId=LONG), RejectionCode.INVALID_ID),
        (track(messageId="a\0"), RejectionCode.INVALID_ID),
        (track(userId="a\0"), RejectionCode.INVALID_ID),
        (track(userId="a\ud800"), RejectionCode.INVALID_ID),
        (track(userId=LONG, event=None), RejectionCode.INVALID_ID),
        (track(event=None), RejectionCode.MISSING_EVENT),
        (track(event=""), RejectionCode.MISSING_EVENT),
        (track(event=" \t"), RejectionCode.MISSING_EVENT),
        (track(event="", userId=None), RejectionCode.MISSING_EVENT),
        (track(event="x" * 201), RejectionCode.EVENT_TOO_LONG),
        (track(event="x\udc00"), RejectionCode.EVENT_TOO_LONG),
        (track(event="x\0"), RejectionCode.EVENT_TOO_LONG),
        (track(type="group"), RejectionCode.MISSING_GROUP_ID),
        (track(type="alias"), RejectionCode.MISSING_ALIAS_IDS),
        (track(type="alias", previousId="null"), RejectionCode.MISSING_ALIAS_IDS),
        (track(type="alias", previousId="p", userId=None, anonymousId="a"), RejectionCode.MISSING_ALIAS_IDS),
        (track(userId=None), RejectionCode.MISSING_IDENTITY),
        (track(userId="anonymous", anonymousId="0000"), RejectionCode.MISSING_IDENTITY),
    ],
)
def test_rejections(item: Any, code: RejectionCode) -> None:
    rejected = rejection(item)
    assert rejected.code is code
    assert rejected.message


def test_rejection_has_the_message_id_if_readable() -> None:
    assert rejection(track(event=None)).message_id == "m1"
    assert rejection(track(event=None, messageId=5)).message_id == "5"
    assert rejection(track(messageId=LONG)).message_id is None
    assert rejection(5).message_id is None


def test_values_at_the_limits_are_accepted() -> None:
    assert message(track(userId="x" * 255, event="y" * 200)).name == "y" * 200


# Message ids and digests


@pytest.mark.parametrize("absent", [{}, {"messageId": None}, {"messageId": ""}])
def test_missing_message_id_is_a_hash_that_is_stable_over_retries(absent: dict[str, Any]) -> None:
    item = {"type": "track", "event": "E", "userId": "u", "properties": {"b": 1.5, "a": "x"}} | absent
    turned = dict(reversed(item.items())) | {"properties": {"a": "x", "b": 1.5}}
    first, again = message(item | {"sentAt": "2026-05-04T10:00:00Z"}), message(turned, sentAt="2026-05-04T11:00:00Z")
    assert first.message_id == again.message_id
    assert first.message_id.startswith("hash-")
    assert len(first.message_id) == 37
    assert message(item | {"event": "F"}).message_id != first.message_id


def test_hashed_id_is_the_same_for_single_route_and_batch() -> None:
    item = {"event": "E", "userId": "u", "writeKey": "wk"}
    [(_, single)] = send(item, route="track").messages
    [(_, other)] = send(item, route="page").messages
    assert single.message_id == message({"type": "track", "event": "E", "userId": "u"}).message_id
    assert single.message_id != other.message_id


def test_digest_differs_for_a_conflicting_twin_but_not_for_a_retry() -> None:
    item = track(properties={"a": 1}, timestamp="2026-05-04T09:00:00Z")
    digest = message(item).digest
    assert len(digest) == 8
    assert message(item | {"sentAt": "2026-05-04T10:00:00Z", "_metadata": {"retryCount": 1}}).digest == digest
    assert message(item, sentAt="2026-05-04T11:00:00Z", context={"ip": "::1"}).digest == digest
    for change in (
        {"event": "X"},
        {"userId": "u2"},
        {"anonymousId": "a"},
        {"properties": {"a": 2}},
        {"context": {"a": 1}},
        {"traits": {"a": 1}},
        {"timestamp": "2026-05-04T09:00:01Z"},
        {"rudderId": 5},
    ):
        assert message(item | change).digest != digest


# Time


@pytest.mark.parametrize(
    ("item", "envelope", "seconds"),
    [
        ({}, {}, 0),
        ({}, {"sentAt": "2026-05-04T09:00:00Z"}, 0),
        ({"timestamp": "2026-05-04T09:59:00Z"}, {}, -60),
        ({"originalTimestamp": "2026-05-04T09:59:00Z"}, {}, -60),
        ({"originalTimestamp": "2026-05-04T09:58:00Z", "timestamp": "2026-05-04T09:59:00Z"}, {}, -120),
        ({"timestamp": "2026-05-04T09:59:00Z"}, {"sentAt": "2026-05-04T10:00:00Z"}, -60),
        # Only the difference from sentAt counts, whether the clock is an hour behind, an hour ahead or years off.
        ({"timestamp": "2026-05-04T08:59:50Z"}, {"sentAt": "2026-05-04T09:00:00Z"}, -10),
        ({"timestamp": "2026-05-04T10:59:50Z"}, {"sentAt": "2026-05-04T11:00:00Z"}, -10),
        ({"timestamp": "1999-12-31T23:59:50Z"}, {"sentAt": "2000-01-01T00:00:00Z"}, -10),
        ({"timestamp": "2026-05-04T09:00:05Z"}, {"sentAt": "2026-05-04T09:00:00Z"}, 5),
        # The sentAt of the item overrides that of the envelope, unless it is unreadable.
        ({"timestamp": 1777888790, "sentAt": 1777888795}, {"sentAt": "2020-01-01T00:00:00Z"}, -5),
        ({"timestamp": 1777888790, "sentAt": "soon"}, {"sentAt": 1777888795}, -5),
        ({"timestamp": 1777888790, "sentAt": "soon"}, {"sentAt": "later"}, -10),
        ({"timestamp": "1777888790000"}, {}, -10),
        ({"timestamp": 1777888799.25}, {}, -0.75),
        ({"timestamp": "1997-01-01"}, {}, (852_076_800 - 1_777_888_800)),
        ({"timestamp": "2026-05-05T10:00:00Z"}, {}, 86_400),
        ({"timestamp": ""}, {}, 0),
    ],
)
def test_occurred_at_follows_the_segment_rule(item: dict[str, Any], envelope: dict[str, Any], seconds: float) -> None:
    parsed = send(track(**item), **envelope)
    assert parsed.warnings == []
    assert parsed.messages[0][1].occurred_at == NOW + round(seconds * SECOND)


@pytest.mark.parametrize(
    ("item", "code", "occurred_at"),
    [
        ({"timestamp": "2026-05-05T10:00:00.000001Z"}, "timestamp_future", NOW),
        ({"timestamp": 9999999999999}, "timestamp_future", NOW),
        ({"timestamp": "1969-12-31T23:59:59.999999Z"}, "timestamp_before_1970", 0),
        ({"timestamp": "1900-01-01", "sentAt": "2026-05-04T10:00:00Z"}, "timestamp_before_1970", 0),
        ({"timestamp": "2026-05-04T10:00:00Z", "sentAt": "9999-01-01T00:00:00Z"}, "timestamp_before_1970", 0),
        ({"timestamp": "2026-05-04T10:00:00Z", "sentAt": "1980-01-01T00:00:00Z"}, "timestamp_future", NOW),
        ({"timestamp": "infinity"}, "timestamp_unreadable", NOW),
        ({"timestamp": "NaN"}, "timestamp_unreadable", NOW),
        ({"timestamp": True}, "timestamp_unreadable", NOW),
        ({"timestamp": {"a": 1}}, "timestamp_unreadable", NOW),
        ({"timestamp": 10**300}, "timestamp_unreadable", NOW),
        ({"timestamp": "2016-12-31T23:59:60Z"}, "timestamp_unreadable", NOW),
    ],
)
def test_timestamps_out_of_range_are_clamped_with_a_warning(item: dict[str, Any], code: str, occurred_at: int) -> None:
    parsed = send(track(), track(**item))
    [warning] = parsed.warnings
    assert (warning.index, warning.code, warning.message_id) == (1, code, "m1")
    result = parsed.messages[1][1]
    assert result.occurred_at == occurred_at
    assert result.original_timestamp


def test_claimed_time_and_sent_at_are_stored() -> None:
    result = message(track(timestamp="2026-05-04 09:59:00"), sentAt="2026-05-04T10:00:01Z")
    assert (result.original_timestamp, result.sent_at, result.received_at) == ("2026-05-04 09:59:00", NOW + SECOND, NOW)
    assert message(track()).original_timestamp is None


def test_source_and_index() -> None:
    parsed = send(5, track(), {}, track())
    assert [index for index, _ in parsed.messages] == [1, 3]
    assert [rejected.index for rejected in parsed.rejections] == [0, 2]
    assert parsed.messages[0][1].source == SOURCE.key
    assert msgspec.json.decode(parsed.messages[0][1].context) == {}


def test_unusual_email_addresses_per_batch_are_limited() -> None:
    """The messages beyond the limit are rejected, the others are stored; plain addresses do not count."""
    addresses = [f"jörg-{n:03}@example.com" for n in range(UNUSUAL_ADDRESS_CHARS_MAX // 20 + 5)]
    plain = [f"user{n}@example.com" for n in range(300)]
    batch = [{"type": "identify", "userId": "u", "traits": {"email": email}} for email in [*addresses, *plain]]
    parsed = send(*batch)
    assert {rejection.code for rejection in parsed.rejections} == {RejectionCode.TOO_MANY_MESSAGES}
    assert [rejection.index for rejection in parsed.rejections] == list(range(len(addresses) - 5, len(addresses)))
    assert len(parsed.messages) == len(batch) - 5


def test_addresses_that_are_refused_unread_do_not_count() -> None:
    """A long address costs nothing, so it causes a warning in each message and no rejection."""
    addresses = [f"{n}{'ü' * 300}@example.com" for n in range(20)] + [f"{n}@{'ü' * 60}.{'ä' * 60}" for n in range(40)]
    parsed = send(*({"type": "identify", "userId": "u", "traits": {"email": email}} for email in addresses))
    assert len(parsed.messages) == len(parsed.warnings) == len(addresses)


def test_repeated_unusual_address_counts_once() -> None:
    message = {"type": "identify", "userId": "u", "traits": {"email": "jörg@example.com"}}
    assert not send(*([message] * UNUSUAL_ADDRESS_CHARS_MAX)).rejections


def test_context_of_a_batch_is_limited_like_a_message() -> None:
    body = json.dumps({"context": {"a": "x" * 40_000}, "batch": [track()]}).encode()
    with pytest.raises(InvalidBody, match="within the limits of a message"):
        read(body, "batch", LIMITS)


def test_copies_of_the_context_are_limited_in_total() -> None:
    """Each message gets a copy of the batch's context: 2,500 copies of 30 KB would need 75 MB."""
    context = {"a": "x" * 30_000}
    with pytest.raises(InvalidBody, match="Send fewer messages"):
        read(json.dumps({"context": context, "batch": [track()] * 500}).encode(), "batch", LIMITS)
    assert len(read(json.dumps({"context": context, "batch": [track()] * 100}).encode(), "batch", LIMITS).items) == 100
