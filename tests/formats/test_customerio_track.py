"""Customer.io's calls and operations become messages: who, what, when, what is refused, who is to be forgotten."""

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


def parsed(asked: Envelope) -> Parsed:
    return normalise(asked, SOURCE, NOW, SETTINGS)


def stored(asked: Envelope) -> list[Message]:
    result = parsed(asked)
    assert result.rejections == []
    return [message for _, message in result.messages]


def said(raw: bytes | None) -> Any:
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
def test_one_text_of_a_path_is_an_id_an_address_or_the_tools_own(who: str, identity: str) -> None:
    [message] = stored(call("event", who, {"name": "E"}))
    assert kinds(message) == [identity]


def test_attributes_are_traits_and_ids_among_them_identify() -> None:
    body = {"email": "user@example.com", "plan": "gold", "old": None, "anonymous_id": "a-1", "cio_id": "0300", "n": 0.1}
    [message] = stored(call("identify", "user-1", {**body, "_update": True}))
    assert message.type == "identify"
    assert kinds(message) == [
        "user_id:user-1", "email:user@example.com", "customerio_customer:0300", "anonymous_id:a-1",
    ]  # fmt: skip
    assert said(message.traits) == {"email": "user@example.com", "plan": "gold", "old": None, "n": 0.1}
    assert message.occurred_at == NOW


def test_who_is_identified_by_an_address_has_it() -> None:
    [message] = stored(call("identify", "user@example.com", {"id": "user-1", "plan": "gold"}))
    assert kinds(message) == ["user_id:user-1", "email:user@example.com"]
    assert said(message.traits) == {"plan": "gold", "email": "user@example.com"}
    [other] = stored(call("identify", "user@example.com", {"email": "new@example.com"}))
    assert said(other.traits) == {"email": "new@example.com"}


def test_an_event_keeps_its_id_name_data_and_time() -> None:
    body = {"name": "purchased", "data": {"price": 19.99}, "id": "01HZ", "timestamp": 1777888740}
    [message] = stored(call("event", "user-1", body))
    assert (message.name, said(message.properties), message.message_id, message.channel) == (
        "purchased", {"price": 19.99}, "01HZ", "server",
    )  # fmt: skip
    assert message.occurred_at == NOW - 60 * SECOND
    [later] = stored(call("event", "user-1", {"name": "purchased"}))
    assert later.occurred_at == NOW


def test_an_event_without_id_counts_by_what_it_says_and_when() -> None:
    body = {"name": "purchased", "timestamp": 1777888740}
    ids = [stored(call("event", "user-1", each))[0].message_id for each in (body, body, {**body, "data": {"a": 1}})]
    assert ids[0] == ids[1] != ids[2]
    untimed = [
        stored(read_call("event", "u", "", b'{"name":"E"}', NOW + step, LIMITS))[0].message_id for step in (0, 1)
    ]
    assert len(set(untimed)) == 2


def test_pages_and_screens() -> None:
    url = "https://shop.example.com/p?q=1"
    [page] = stored(
        call("event", "user-1", {"type": "page", "name": url, "data": {"referrer": "https://shop.example.com/"}})
    )
    assert (page.type, page.name, page.channel) == ("page", "page_viewed", "web")
    assert said(page.properties) == {"url": url, "referrer": "https://shop.example.com/"}
    assert said(page.context)["page"] == {"url": url, "referrer": "https://shop.example.com/"}
    [named] = stored(call("event", "user-1", {"type": "page", "name": "Pricing"}))
    assert said(named.properties) == {"name": "Pricing"}
    [screen] = stored(call("event", "user-1", {"type": "screen", "name": "Cart", "data": {"items": 2}}))
    assert (screen.name, screen.channel) == ("screen_viewed", "app")
    assert said(screen.properties) == {"items": 2, "name": "Cart"}


def test_an_event_of_somebody_anonymous() -> None:
    [message] = stored(call("anonymous_event", "", {"name": "E", "anonymous_id": "a-1", "data": {}}))
    assert kinds(message) == ["anonymous_id:a-1"]
    [rejection] = parsed(
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
def test_two_people_are_one(primary: Any, secondary: Any, expected: Any) -> None:
    for asked in (
        call("merge", "", {"primary": primary, "secondary": secondary}),
        read_operation(
            json.dumps({"type": "person", "action": "merge", "primary": primary, "secondary": secondary}).encode(),
            NOW,
            LIMITS,
        ),
    ):
        [message] = stored(asked)
        assert (message.type, kinds(message), message.previous_id) == expected
        assert message.traits is None


def test_half_a_merge_is_refused() -> None:
    [rejection] = parsed(call("merge", "", {"primary": {"id": "5"}})).rejections
    assert rejection.code is RejectionCode.MISSING_IDENTITY


def test_a_device_is_known_by_whom_it_was_added_for() -> None:
    device = {"id": "tok/1", "platform": "ios", "last_used": 1777888740, "attributes": {"locale": "de"}}
    [added] = stored(call("add_device", "user-1", {"device": device}))
    assert kinds(added) == ["user_id:user-1", "customerio_device:tok/1"]
    assert (added.name, added.channel) == ("push.device_added", "push")
    assert said(added.properties) == {"platform": "ios", "attributes": {"locale": "de"}}
    [removed] = stored(call("delete_device", "user-1", {}, "tok/1"))
    assert (removed.name, kinds(removed)) == ("push.device_removed", kinds(added))
    report = {"delivery_id": "d-1", "event": "opened", "device_id": "tok/1", "timestamp": 1777888740}
    [opened] = stored(call("push_event", "", report))
    assert (opened.name, opened.channel, kinds(opened)) == ("push.opened", "push", ["customerio_device:tok/1"])
    assert (said(opened.properties), opened.occurred_at) == ({"delivery_id": "d-1"}, NOW - 60 * SECOND)


def test_a_report_on_one_message_that_was_sent() -> None:
    report = {
        "delivery_id": "d-1",
        "metric": "clicked",
        "recipient": "user@example.com",
        "href": "https://example.com/",
    }
    [message] = stored(call("metric", "", report))
    assert (message.name, message.channel, kinds(message)) == ("email.clicked", "email", ["email:user@example.com"])
    assert said(message.properties) == {"delivery_id": "d-1", "link": "https://example.com/"}
    [push] = stored(call("metric", "", {**report, "recipient": "tok"}))
    assert (push.name, kinds(push)) == ("push.clicked", ["customerio_device:tok"])


def test_deleting_and_suppressing_ask_for_erasure() -> None:
    deleted = call("delete", "user@example.com")
    assert (deleted.erasures, deleted.items, deleted.rejections) == (
        [("email", "user@example.com")], [], [],
    )  # fmt: skip
    suppressed = call("suppress", "cio_03")
    assert suppressed.erasures == [("customerio_customer", "03")]
    assert said(stored(suppressed)[0].traits) == {"suppressed": True}
    [message] = stored(call("unsuppress", "user-1"))
    assert said(message.traits) == {"suppressed": False}
    [rejection] = parsed(call("delete", "")).rejections
    assert rejection.code is RejectionCode.MISSING_IDENTITY


def test_relationships_are_groups() -> None:
    relation = {
        "identifiers": {"object_type_id": "1", "object_id": "acme"},
        "relationship_attributes": {"role": "boss"},
    }
    operation = person("identify", attributes={"plan": "gold"}, cio_relationships=[])
    for asked, groups in (
        (call("identify", "user-1", {"cio_relationships": {"relationships": [relation]}}), slice(1, 2)),
        (read_operation(json.dumps(person("add_relationships", cio_relationships=[relation])).encode(), NOW, LIMITS),
         slice(0, 1)),
    ):  # fmt: skip
        [group] = stored(asked)[groups]
        assert (group.type, kinds(group)) == ("group", ["user_id:user-1"])
        assert said(group.properties) == {"groupType": "1", "groupId": "acme", "traits": {"role": "boss"}}
    assert len(stored(read_operation(json.dumps(operation).encode(), NOW, LIMITS))) == 1


def test_an_object_is_a_group_of_those_who_belong_to_it() -> None:
    operation = {
        "type": "object",
        "action": "identify",
        "identifiers": {"object_type_id": "1", "object_id": "acme"},
        "attributes": {"name": "Acme"},
        "cio_relationships": [{"identifiers": {"id": "user-1"}}, {"identifiers": {"email": "user@example.com"}}],
    }
    messages = stored(read_operation(json.dumps(operation).encode(), NOW, LIMITS))
    assert [kinds(each) for each in messages] == [["user_id:user-1"], ["email:user@example.com"]]
    assert len({each.message_id for each in messages}) == 2
    for each in messages:
        assert said(each.properties) == {"groupType": "1", "groupId": "acme", "traits": {"name": "Acme"}}
    [rejection] = parsed(
        read_operation(json.dumps({**operation, "cio_relationships": []}).encode(), NOW, LIMITS)
    ).rejections
    assert rejection.code is RejectionCode.MISSING_IDENTITY


def test_an_action_that_we_do_not_know_keeps_its_own_name() -> None:
    operation = person("addBadge", badge={"name": "gold"}, timestamp=1777888740)
    [message] = stored(read_operation(json.dumps(operation).encode(), NOW, LIMITS))
    assert (message.name, said(message.properties)) == ("customerio.add_badge", {"badge": {"name": "gold"}})


def test_a_batch_says_which_operation_was_refused() -> None:
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
    asked = read_batch(json.dumps({"batch": operations}).encode(), NOW, LIMITS)
    result = parsed(asked)
    assert [message.name for _, message in result.messages] == ["A", None, None, "B"]
    assert [place for place, _ in result.messages] == [0, 2, 2, 7]
    errors = sorted((describe_error(each) for each in result.rejections), key=lambda each: each["batch_index"])
    assert [(each["batch_index"], each["reason"], each["field"]) for each in errors] == [
        (1, "required", "name"), (3, "invalid", ""), (4, "invalid", "type"), (5, "required", "identifiers"),
    ]  # fmt: skip
    assert asked.erasures == [("user_id", "user-1")]


@pytest.mark.parametrize("body", [b"7", b"[]", b"{}", b'{"batch":{}}', b'{"batch":null}', b"no", b""])
def test_what_is_no_batch(body: bytes) -> None:
    with pytest.raises(InvalidBody):
        read_batch(body, NOW, LIMITS)


def test_a_call_that_was_refused_is_read_again_as_of_its_own_time() -> None:
    asked = call("event", "a/b", {"name": "", "data": {"price": 1}})
    [rejection] = parsed(asked).rejections
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


def codes(asked: Envelope) -> list[RejectionCode]:
    return [each.code for each in asked.rejections]


@pytest.mark.parametrize(
    "related",
    [b"{}", b'{"identifiers":{"id":"u"}}', b'{"\\u0069dentifiers":{"id":"u"}}'],
    ids=["nobody", "somebody", "escaped"],
)
def test_what_is_said_of_many_is_reckoned_before_it_is_copied(related: bytes) -> None:
    raw = json.dumps(company(["here"], attributes={"note": "x" * 20_000})).encode()
    operation = raw.replace(b'["here"]', b"[%b]" % b",".join([related] * 300))
    asked = read_operation(operation, NOW, LIMITS)
    assert (codes(asked), asked.items) == ([RejectionCode.MESSAGE_TOO_LARGE], [])


def test_the_operations_of_a_batch_together_say_no_more_than_a_body_may() -> None:
    people = [{"identifiers": {"id": f"user-{n}"}} for n in range(38)]
    operations = [company(people, attributes={"note": "x" * 25_000}, id=f"o-{n}") for n in range(60)]
    asked = read_batch(json.dumps({"batch": operations}).encode(), NOW, LIMITS)
    assert set(codes(asked)) == {RejectionCode.TOO_MANY_MESSAGES}
    assert 0 < sum(map(len, asked.items)) < 2 * LIMITS.inflated_bytes_max


def test_a_person_of_many_groups_is_not_refused() -> None:
    relation = {"relationship_attributes": {"role": "member of the board of directors", "since": "2020"}}
    relations = [{"identifiers": {"object_type_id": "1", "object_id": f"o-{n}"}, **relation} for n in range(120)]
    messages = stored(call("identify", "user-1", {"cio_relationships": {"relationships": relations}}))
    assert [message.type for message in messages] == ["identify", *["group"] * 120]


@pytest.mark.parametrize("attributes", [None, {}, {"cio_relationships": []}, {"plan": "gold"}])
def test_relations_at_the_top_are_read_whatever_the_attributes_are(attributes: Any) -> None:
    relation = {"identifiers": {"object_type_id": "1", "object_id": "acme"}}
    operation = person("identify", attributes=attributes, cio_relationships=[relation])
    assert [each.type for each in stored(read_operation(json.dumps(operation).encode(), NOW, LIMITS))] == [
        "identify", "group",
    ]  # fmt: skip


def test_leaving_says_what_was_left() -> None:
    relation = {"identifiers": {"object_type_id": "1", "object_id": "acme"}}
    within = {"action": "delete_relationships", "relationships": [relation]}
    for asked in (
        call("identify", "user-1", {"cio_relationships": within}),
        read_operation(
            json.dumps(company([{"identifiers": {"id": "user-1"}}], action="delete_relationships")).encode(),
            NOW,
            LIMITS,
        ),
    ):
        message = stored(asked)[-1]
        assert (message.name, kinds(message)) == ("customerio.relationship_deleted", ["user_id:user-1"])
        assert said(message.properties) == {"object_type_id": "1", "object_id": "acme"}


def test_who_is_named_by_a_phone_can_be_forgotten() -> None:
    operation = {"type": "person", "action": "delete", "identifiers": {"phone": "+4930123456"}}
    assert read_operation(json.dumps(operation).encode(), NOW, LIMITS).erasures == [("phone", "+4930123456")]


@pytest.mark.parametrize("action", ["delete", "suppress"])
def test_replay_of_a_corrected_operation_requests_its_erasure(action: str) -> None:
    """Who is to be forgotten was missing in the original, and is named by the correction."""
    batch = json.dumps({"batch": [person(action, identifiers={})]}).encode()
    [rejection] = parsed(read_batch(batch, NOW, LIMITS)).rejections
    corrected = json.dumps(person(action)).encode()
    envelope = reparse.reparse(corrected, rejection.form, NOW, LIMITS, {})
    assert envelope.erasures == [("user_id", "user-1")]


def test_replay_of_an_operation_about_many_people_is_rejected_once() -> None:
    original = json.dumps(company([{"identifiers": {}}, {"identifiers": {}}])).encode()
    envelope = reparse.reparse(original, "customerio?moment=1", NOW, LIMITS, {})
    result = normalise(envelope, SOURCE, NOW, SETTINGS)
    assert [rejection.code for rejection in result.rejections] == [RejectionCode.MISSING_IDENTITY]
