"""Tests of the Customer.io Track API: identities, content, time, rejections and erasure requests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.errors import InvalidBody, RejectionCode
from app.formats.customerio_track import describe_error, read_batch, read_call, read_operation
from app.formats.segment import Envelope, Parsed, normalise
from app.quarantine import reparse
from app.touchpoint import Message
from tests.support.segment_requests import NOW, SECOND, SETTINGS, SOURCE, kinds

LIMITS = SETTINGS.limits


def call(name: str, who: str = "user-1", body: Any = None, device: str = "") -> Envelope:
    return read_call(name, who, device, b"" if body is None else json.dumps(body).encode(), NOW, LIMITS)


def person(action: str, **members: Any) -> dict[str, Any]:
    return {"type": "person", "action": action, "identifiers": {"id": "user-1"}, **members}


def parse_envelope(envelope: Envelope) -> Parsed:
    return normalise(envelope, SOURCE, NOW, SETTINGS)


def read_messages(envelope: Envelope) -> list[Message]:
    result = parse_envelope(envelope)
    assert result.rejections == []
    return [message for _, message in result.messages]


def decode(raw: bytes | None) -> Any:
    return json.loads(raw or b"null")


@pytest.mark.parametrize(
    ("who", "identity"),
    [
        ("5", "user_id:5"),
        ("a/b c@x.io", "user_id:a/b c@x.io"),
        ("100%", "user_id:100%"),
        ("a+b", "user_id:a+b"),
        ("ünïcode/日本", "user_id:ünïcode/日本"),
        ("User@Example.com", "email:user@example.com"),
        ("cio_fan@example.com", "email:cio_fan@example.com"),
        ("cio_03000010", "customerio_customer:03000010"),
        ("cio", "user_id:cio"),
        ("@handle", "user_id:@handle"),
    ],
)
def test_path_text_is_a_user_id_an_email_or_a_cio_id(who: str, identity: str) -> None:
    [message] = read_messages(call("event", who, {"name": "E"}))
    assert kinds(message) == [identity]


def test_identify_maps_attributes_to_traits_and_ids_to_identities() -> None:
    body = {"email": "user@example.com", "plan": "gold", "old": None, "anonymous_id": "a-1", "cio_id": "0300", "n": 0.1}
    [message] = read_messages(call("identify", "user-1", {**body, "_update": True}))
    assert message.type == "identify"
    assert kinds(message) == [
        "user_id:user-1", "email:user@example.com", "customerio_customer:0300", "anonymous_id:a-1",
    ]  # fmt: skip
    assert decode(message.traits) == {"email": "user@example.com", "plan": "gold", "old": None, "n": 0.1}
    assert message.occurred_at == NOW


def test_identify_by_email_sets_the_email_trait() -> None:
    [message] = read_messages(call("identify", "user@example.com", {"id": "user-1", "plan": "gold"}))
    assert kinds(message) == ["user_id:user-1", "email:user@example.com"]
    assert decode(message.traits) == {"plan": "gold", "email": "user@example.com"}
    [other] = read_messages(call("identify", "user@example.com", {"email": "new@example.com"}))
    assert decode(other.traits) == {"email": "new@example.com"}


def test_event_keeps_its_id_name_data_and_time() -> None:
    body = {"name": "purchased", "data": {"price": 19.99}, "id": "01HZ", "timestamp": 1777888740}
    [message] = read_messages(call("event", "user-1", body))
    assert (message.name, decode(message.properties), message.message_id, message.channel) == (
        "purchased", {"price": 19.99}, "01HZ", "server",
    )  # fmt: skip
    assert message.occurred_at == NOW - 60 * SECOND
    [later] = read_messages(call("event", "user-1", {"name": "purchased"}))
    assert later.occurred_at == NOW


def test_event_without_id_gets_a_hash_of_content_and_time() -> None:
    body = {"name": "purchased", "timestamp": 1777888740}
    ids = [
        read_messages(call("event", "user-1", event))[0].message_id
        for event in (body, body, {**body, "data": {"a": 1}})
    ]
    assert ids[0] == ids[1] != ids[2]
    untimed = [
        read_messages(read_call("event", "u", "", b'{"name":"E"}', NOW + step, LIMITS))[0].message_id for step in (0, 1)
    ]
    assert len(set(untimed)) == 2


def test_page_and_screen_events() -> None:
    url = "https://shop.example.com/p?q=1"
    [page] = read_messages(
        call("event", "user-1", {"type": "page", "name": url, "data": {"referrer": "https://shop.example.com/"}})
    )
    assert (page.type, page.name, page.channel) == ("page", "page_viewed", "web")
    assert decode(page.properties) == {"url": url, "referrer": "https://shop.example.com/"}
    assert decode(page.context)["page"] == {"url": url, "referrer": "https://shop.example.com/"}
    [named] = read_messages(call("event", "user-1", {"type": "page", "name": "Pricing"}))
    assert decode(named.properties) == {"name": "Pricing"}
    [screen] = read_messages(call("event", "user-1", {"type": "screen", "name": "Cart", "data": {"items": 2}}))
    assert (screen.name, screen.channel) == ("screen_viewed", "app")
    assert decode(screen.properties) == {"items": 2, "name": "Cart"}


def test_anonymous_event_needs_an_anonymous_id() -> None:
    [message] = read_messages(call("anonymous_event", "", {"name": "E", "anonymous_id": "a-1", "data": {}}))
    assert kinds(message) == ["anonymous_id:a-1"]
    [rejection] = parse_envelope(
        call("anonymous_event", "", {"name": "E", "data": {"recipient": "user@example.com"}})
    ).rejections
    assert rejection.code is RejectionCode.MISSING_IDENTITY


@pytest.mark.parametrize(
    ("primary", "secondary", "expected"),
    [
        ({"id": "5"}, {"id": 7}, ("alias", ["user_id:5"], "7")),
        ({"id": "5"}, {"email": "a@example.com"}, ("identify", ["user_id:5", "email:a@example.com"], None)),
        ({"email": "a@example.com"}, {"id": "5"}, ("identify", ["user_id:5", "email:a@example.com"], None)),
        (
            {"email": "a@example.com"},
            {"email": "b@example.com"},
            ("identify", ["email:a@example.com", "email:b@example.com"], None),
        ),
        ({"cio_id": "cio_03"}, {"id": "5"}, ("identify", ["user_id:5", "customerio_customer:03"], None)),
    ],
)
def test_merge_links_or_aliases_two_people(primary: Any, secondary: Any, expected: Any) -> None:
    for envelope in (
        call("merge", "", {"primary": primary, "secondary": secondary}),
        read_operation(
            json.dumps({"type": "person", "action": "merge", "primary": primary, "secondary": secondary}).encode(),
            NOW,
            LIMITS,
        ),
    ):
        [message] = read_messages(envelope)
        assert (message.type, kinds(message), message.previous_id) == expected
        assert message.traits is None


def test_merge_without_secondary_is_rejected() -> None:
    [rejection] = parse_envelope(call("merge", "", {"primary": {"id": "5"}})).rejections
    assert rejection.code is RejectionCode.MISSING_IDENTITY


def test_device_is_an_identity_of_its_person() -> None:
    device = {"id": "tok/1", "platform": "ios", "last_used": 1777888740, "attributes": {"locale": "de"}}
    [added] = read_messages(call("add_device", "user-1", {"device": device}))
    assert kinds(added) == ["user_id:user-1", "customerio_device:tok/1"]
    assert (added.name, added.channel) == ("push.device_added", "push")
    assert decode(added.properties) == {"platform": "ios", "attributes": {"locale": "de"}}
    [removed] = read_messages(call("delete_device", "user-1", {}, "tok/1"))
    assert (removed.name, kinds(removed)) == ("push.device_removed", kinds(added))
    report = {"delivery_id": "d-1", "event": "opened", "device_id": "tok/1", "timestamp": 1777888740}
    [opened] = read_messages(call("push_event", "", report))
    assert (opened.name, opened.channel, kinds(opened)) == ("push.opened", "push", ["customerio_device:tok/1"])
    assert (decode(opened.properties), opened.occurred_at) == ({"delivery_id": "d-1"}, NOW - 60 * SECOND)


def test_delivery_report_is_an_email_or_push_touchpoint() -> None:
    report = {
        "delivery_id": "d-1",
        "metric": "clicked",
        "recipient": "user@example.com",
        "href": "https://example.com/",
    }
    [message] = read_messages(call("metric", "", report))
    assert (message.name, message.channel, kinds(message)) == ("email.clicked", "email", ["email:user@example.com"])
    assert decode(message.properties) == {"delivery_id": "d-1", "link": "https://example.com/"}
    [push] = read_messages(call("metric", "", {**report, "recipient": "tok"}))
    assert (push.name, kinds(push)) == ("push.clicked", ["customerio_device:tok"])


def test_delete_and_suppress_request_erasure() -> None:
    deleted = call("delete", "user@example.com")
    assert (deleted.erasures, deleted.items, deleted.rejections) == (
        [("email", "user@example.com")], [], [],
    )  # fmt: skip
    suppressed = call("suppress", "cio_03")
    assert suppressed.erasures == [("customerio_customer", "03")]
    assert decode(read_messages(suppressed)[0].traits) == {"suppressed": True}
    [message] = read_messages(call("unsuppress", "user-1"))
    assert decode(message.traits) == {"suppressed": False}
    [rejection] = parse_envelope(call("delete", "")).rejections
    assert rejection.code is RejectionCode.MISSING_IDENTITY


def test_relationships_become_groups() -> None:
    relation = {
        "identifiers": {"object_type_id": "1", "object_id": "acme"},
        "relationship_attributes": {"role": "boss"},
    }
    operation = person("identify", attributes={"plan": "gold"}, cio_relationships=[])
    for envelope, groups in (
        (call("identify", "user-1", {"cio_relationships": {"relationships": [relation]}}), slice(1, 2)),
        (read_operation(json.dumps(person("add_relationships", cio_relationships=[relation])).encode(), NOW, LIMITS),
         slice(0, 1)),
    ):  # fmt: skip
        [group] = read_messages(envelope)[groups]
        assert (group.type, kinds(group)) == ("group", ["user_id:user-1"])
        assert decode(group.properties) == {"groupType": "1", "groupId": "acme", "traits": {"role": "boss"}}
    assert len(read_messages(read_operation(json.dumps(operation).encode(), NOW, LIMITS))) == 1


def test_object_becomes_a_group_message_per_person() -> None:
    operation = {
        "type": "object",
        "action": "identify",
        "identifiers": {"object_type_id": "1", "object_id": "acme"},
        "attributes": {"name": "Acme"},
        "cio_relationships": [{"identifiers": {"id": "user-1"}}, {"identifiers": {"email": "user@example.com"}}],
    }
    messages = read_messages(read_operation(json.dumps(operation).encode(), NOW, LIMITS))
    assert [kinds(message) for message in messages] == [["user_id:user-1"], ["email:user@example.com"]]
    assert len({message.message_id for message in messages}) == 2
    for message in messages:
        assert decode(message.properties) == {"groupType": "1", "groupId": "acme", "traits": {"name": "Acme"}}
    [rejection] = parse_envelope(
        read_operation(json.dumps({**operation, "cio_relationships": []}).encode(), NOW, LIMITS)
    ).rejections
    assert rejection.code is RejectionCode.MISSING_IDENTITY


def test_unknown_action_keeps_its_name() -> None:
    operation = person("addBadge", badge={"name": "gold"}, timestamp=1777888740)
    [message] = read_messages(read_operation(json.dumps(operation).encode(), NOW, LIMITS))
    assert (message.name, decode(message.properties)) == ("customerio.add_badge", {"badge": {"name": "gold"}})


def test_batch_errors_name_the_rejected_operations() -> None:
    operations = [
        person("event", name="A"),
        person("event"),
        {"type": "object", "action": "identify", "identifiers": {"object_id": "acme"},
         "cio_relationships": [{"identifiers": {"id": "user-1"}}, {"identifiers": {"id": "user-2"}}]},
        7,
        {"type": "planet", "action": "event"},
        {"type": "person", "action": "event", "name": "E", "identifiers": {}},
        person("delete"),
        person("event", name="B"),
    ]  # fmt: skip
    envelope = read_batch(json.dumps({"batch": operations}).encode(), NOW, LIMITS)
    result = parse_envelope(envelope)
    assert [message.name for _, message in result.messages] == ["A", None, None, "B"]
    assert [place for place, _ in result.messages] == [0, 2, 2, 7]
    errors = sorted((describe_error(error) for error in result.rejections), key=lambda error: error["batch_index"])
    assert [(error["batch_index"], error["reason"], error["field"]) for error in errors] == [
        (1, "required", "name"), (3, "invalid", ""), (4, "invalid", "type"), (5, "required", "identifiers"),
    ]  # fmt: skip
    assert envelope.erasures == [("user_id", "user-1")]


@pytest.mark.parametrize("body", [b"7", b"[]", b"{}", b'{"batch":{}}', b'{"batch":null}', b"no", b""])
def test_invalid_batch_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidBody):
        read_batch(body, NOW, LIMITS)


def test_corrected_call_keeps_its_original_time() -> None:
    original_envelope = call("event", "a/b", {"name": "", "data": {"price": 1}})
    [rejection] = parse_envelope(original_envelope).rejections
    assert rejection.form == f"customerio?moment={NOW}"
    operation = json.loads(rejection.original)
    assert operation["identifiers"] == {"id": "a/b"}
    corrected = json.dumps({**operation, "name": "Mended"}).encode()
    envelope = reparse.reparse(corrected, rejection.form, NOW + 9 * SECOND, LIMITS, {})
    [(_, message)] = normalise(envelope, SOURCE, NOW + 9 * SECOND, SETTINGS).messages
    assert (message.name, message.occurred_at, kinds(message)) == ("Mended", NOW, ["user_id:a/b"])


def company(people: list[Any], **more: Any) -> dict[str, Any]:
    object = {"type": "object", "action": "identify", "identifiers": {"object_type_id": "1", "object_id": "acme"}}
    return {**object, "cio_relationships": people, **more}


def codes(envelope: Envelope) -> list[RejectionCode]:
    return [rejection.code for rejection in envelope.rejections]


@pytest.mark.parametrize(
    "related",
    [b"{}", b'{"identifiers":{"id":"u"}}', b'{"\\u0069dentifiers":{"id":"u"}}'],
    ids=["empty", "identified", "escaped"],
)
def test_object_with_too_many_copied_bytes_is_rejected(related: bytes) -> None:
    raw = json.dumps(company(["here"], attributes={"note": "x" * 20_000})).encode()
    operation = raw.replace(b'["here"]', b"[%b]" % b",".join([related] * 300))
    envelope = read_operation(operation, NOW, LIMITS)
    assert (codes(envelope), envelope.items) == ([RejectionCode.MESSAGE_TOO_LARGE], [])


def test_copied_bytes_of_a_batch_are_bounded() -> None:
    people = [{"identifiers": {"id": f"user-{n}"}} for n in range(38)]
    operations = [company(people, attributes={"note": "x" * 25_000}, id=f"o-{n}") for n in range(60)]
    envelope = read_batch(json.dumps({"batch": operations}).encode(), NOW, LIMITS)
    assert set(codes(envelope)) == {RejectionCode.TOO_MANY_MESSAGES}
    assert 0 < sum(map(len, envelope.items)) < 2 * LIMITS.inflated_bytes_max


def test_person_with_many_groups_is_accepted() -> None:
    relation = {"relationship_attributes": {"role": "member of the board of directors", "since": "2020"}}
    relations = [{"identifiers": {"object_type_id": "1", "object_id": f"o-{n}"}, **relation} for n in range(120)]
    messages = read_messages(call("identify", "user-1", {"cio_relationships": {"relationships": relations}}))
    assert [message.type for message in messages] == ["identify", *["group"] * 120]


@pytest.mark.parametrize("attributes", [None, {}, {"cio_relationships": []}, {"plan": "gold"}])
def test_top_level_relationships_are_read_with_any_attributes(attributes: Any) -> None:
    relation = {"identifiers": {"object_type_id": "1", "object_id": "acme"}}
    operation = person("identify", attributes=attributes, cio_relationships=[relation])
    assert [message.type for message in read_messages(read_operation(json.dumps(operation).encode(), NOW, LIMITS))] == [
        "identify", "group",
    ]  # fmt: skip


def test_leaving_a_group_becomes_an_event() -> None:
    relation = {"identifiers": {"object_type_id": "1", "object_id": "acme"}}
    within = {"action": "delete_relationships", "relationships": [relation]}
    for envelope in (
        call("identify", "user-1", {"cio_relationships": within}),
        read_operation(
            json.dumps(company([{"identifiers": {"id": "user-1"}}], action="delete_relationships")).encode(),
            NOW,
            LIMITS,
        ),
    ):
        message = read_messages(envelope)[-1]
        assert (message.name, kinds(message)) == ("customerio.relationship_deleted", ["user_id:user-1"])
        assert decode(message.properties) == {"object_type_id": "1", "object_id": "acme"}


def test_delete_by_phone_requests_erasure() -> None:
    operation = {"type": "person", "action": "delete", "identifiers": {"phone": "+4930123456"}}
    assert read_operation(json.dumps(operation).encode(), NOW, LIMITS).erasures == [("phone", "+4930123456")]


@pytest.mark.parametrize("action", ["delete", "suppress"])
def test_replay_of_a_corrected_operation_requests_its_erasure(action: str) -> None:
    """The original operation has no identifiers; the corrected operation contains them."""
    batch = json.dumps({"batch": [person(action, identifiers={})]}).encode()
    [rejection] = parse_envelope(read_batch(batch, NOW, LIMITS)).rejections
    corrected = json.dumps(person(action)).encode()
    envelope = reparse.reparse(corrected, rejection.form, NOW, LIMITS, {})
    assert envelope.erasures == [("user_id", "user-1")]


def test_replay_of_an_operation_about_many_people_is_rejected_once() -> None:
    original = json.dumps(company([{"identifiers": {}}, {"identifiers": {}}])).encode()
    envelope = reparse.reparse(original, "customerio?moment=1", NOW, LIMITS, {})
    result = normalise(envelope, SOURCE, NOW, SETTINGS)
    assert [rejection.code for rejection in result.rejections] == [RejectionCode.MISSING_IDENTITY]
