"""Tests of the Mixpanel, PostHog and GA4 formats: identities, content, time and rejections."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from app.errors import InvalidBody, RejectionCode
from app.formats import ga4, mixpanel, posthog
from app.formats.segment import Envelope, Parsed, normalise
from app.quarantine import reparse
from app.touchpoint import Message
from tests.support.segment_requests import NOW, SECOND, SETTINGS, SOURCE, kinds

LIMITS = SETTINGS.limits
Read = Callable[[bytes], Envelope]


def to_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def parse_envelope(envelope: Envelope) -> Parsed:
    return normalise(envelope, SOURCE, NOW, SETTINGS)


def read_messages(envelope: Envelope) -> list[Message]:
    result = parse_envelope(envelope)
    assert result.rejections == []
    return [message for _, message in result.messages]


def read_mixpanel(body: Any, route: str = "track", underscore: str | None = None) -> Envelope:
    return mixpanel.read(to_bytes(body), route, NOW, LIMITS, underscore)


def read_posthog(body: Any, underscore: str | None = None) -> Envelope:
    return posthog.read(to_bytes(body), NOW, LIMITS, underscore)


def read_ga4(body: Any) -> Envelope:
    return ga4.read(to_bytes(body), "wk_demo", NOW, LIMITS)


def event(name: str, **props: Any) -> dict[str, Any]:
    return {"event": name, "properties": {"token": "wk_demo", "distinct_id": "user-1", **props}}


# ------------------------------------------------------------------------------------------------------ Mixpanel


def test_mixpanel_browser_event() -> None:
    props = {
        "distinct_id": "$device:d-1", "$device_id": "d-1", "$insert_id": "i-1", "time": 1777888740.25, "mp_lib": "web",
        "$lib_version": "2.83.0", "$current_url": "https://shop.example.com/p", "$referrer": "https://example.com/",
        "price": 42.50, "nothing": None,
    }  # fmt: skip
    envelope = read_mixpanel([event("Product Viewed", **props)])
    assert (envelope.write_key, envelope.originals) == ("wk_demo", [to_bytes(event("Product Viewed", **props))])
    [message] = read_messages(envelope)
    assert (message.type, message.name, message.channel) == ("track", "Product Viewed", "web")
    assert (kinds(message), message.occurred_at) == (["anonymous_id:d-1"], 1_777_888_740_250_000)
    assert message.message_id.startswith("i-1-")
    stored_properties = json.loads(message.properties)
    assert stored_properties["price"] == 42.5
    assert not {"token", "distinct_id", "time", "$insert_id", "nothing"} & set(stored_properties)
    context = json.loads(message.context)
    assert context["library"] == {"name": "web", "version": "2.83.0"}
    assert context["page"] == {"url": "https://shop.example.com/p", "referrer": "https://example.com/"}


@pytest.mark.parametrize(
    ("props", "ids"),
    [
        ({"distinct_id": "user-1"}, ["user_id:user-1"]),
        ({"distinct_id": "$device:d-1"}, ["anonymous_id:d-1"]),
        ({"distinct_id": "$device:d-1", "$device_id": "d-1", "$user_id": "u"}, ["user_id:u", "anonymous_id:d-1"]),
        ({"distinct_id": "d-1", "$device_id": "d-1"}, ["anonymous_id:d-1"]),
        ({"distinct_id": "user-1", "$device_id": "d-1", "$user_id": "u"}, ["user_id:user-1", "anonymous_id:d-1"]),
        ({"distinct_id": None, "$user_id": "u"}, ["user_id:u"]),
        ({"distinct_id": 42}, ["user_id:42"]),
    ],
)
def test_mixpanel_identities(props: dict[str, Any], ids: list[str]) -> None:
    [message] = read_messages(read_mixpanel(event("E", **props)))
    assert kinds(message) == ids


def test_mixpanel_time_units_and_clock_skew() -> None:
    for time in (1777888740, 1777888740.0, 1777888740000, "1777888740"):
        assert read_messages(read_mixpanel(event("E", time=time)))[0].occurred_at == NOW - 60 * SECOND
    hour = 3_600
    claimed = (NOW // SECOND) + hour - 60
    [message] = read_messages(read_mixpanel(event("E", time=claimed), underscore=str((NOW // SECOND + hour) * 1000)))
    assert message.occurred_at == NOW - 60 * SECOND
    assert read_messages(read_mixpanel(event("E", time=1777888740), underscore="7"))[0].occurred_at == NOW - 60 * SECOND


def test_mixpanel_events_without_id_and_time_are_distinct_and_ordered() -> None:
    first, second = read_messages(read_mixpanel([event("E"), event("E")]))
    assert first.message_id != second.message_id
    assert (first.occurred_at, second.occurred_at) == (NOW - 1, NOW)
    later = read_messages(mixpanel.read(to_bytes(event("E")), "track", NOW + 1, LIMITS))[0]
    assert later.message_id not in (first.message_id, second.message_id)
    again = [read_messages(read_mixpanel(event("E", time=1777888740)))[0].message_id for _ in range(2)]
    assert again[0] == again[1]


def test_mixpanel_message_id_covers_insert_id_name_user_and_time() -> None:
    base = event("Ordered", **{"$insert_id": "o-1", "time": 1777888740})
    ids = {
        read_messages(read_mixpanel(variant))[0].message_id
        for variant in (
            base,
            event("Shipped", **{"$insert_id": "o-1", "time": 1777888740}),
            event("Ordered", **{"$insert_id": "o-1", "time": 1777888740, "distinct_id": "user-2"}),
            {**base, "properties": {**base["properties"], "more": 1}},
        )
    }
    assert len(ids) == 3


def test_mixpanel_special_events() -> None:
    device = {"$device_id": "d-1", "$anon_distinct_id": "$device:d-1"}
    [link] = read_messages(read_mixpanel(event("$identify", **device)))
    assert (link.type, kinds(link), link.name) == ("identify", ["user_id:user-1", "anonymous_id:d-1"], None)
    [old] = read_messages(read_mixpanel(event("$identify", **{"$anon_distinct_id": "d-0"})))
    assert kinds(old) == ["user_id:user-1", "anonymous_id:d-0"]
    [with_user_id] = read_messages(
        read_mixpanel(event("$identify", **{"$device_id": "d-1", "$anon_distinct_id": "user-0"}))
    )
    assert kinds(with_user_id) == ["user_id:user-1", "anonymous_id:d-1"]
    [join] = read_messages(read_mixpanel(event("$create_alias", alias="user-2")))
    assert (join.type, kinds(join), join.previous_id) == ("alias", ["user_id:user-1"], "user-2")
    [late] = read_messages(read_mixpanel(event("$create_alias", alias="user-2", distinct_id="$device:d-1")))
    assert (late.type, kinds(late)) == ("identify", ["user_id:user-2", "anonymous_id:d-1"])
    [merge] = read_messages(read_mixpanel(event("$merge", **{"$distinct_ids": ["user-1", "user-2"]})))
    assert (merge.type, kinds(merge), merge.previous_id) == ("alias", ["user_id:user-1"], "user-2")
    [device_merge] = read_messages(read_mixpanel(event("$merge", **{"$distinct_ids": ["$device:d-1", "user-2"]})))
    assert (device_merge.type, kinds(device_merge)) == ("identify", ["user_id:user-2", "anonymous_id:d-1"])
    for pair in (["$device:a", "$device:b"], [], "x", None):
        [refused] = parse_envelope(read_mixpanel(event("$merge", **{"$distinct_ids": pair}))).rejections
        assert refused.code is RejectionCode.MISSING_ALIAS_IDS
    url = {"$current_url": "https://shop.example.com/p?q=1", "current_page_title": "Shop", "current_url_path": "/p"}
    [page] = read_messages(read_mixpanel(event("$mp_web_page_view", **url)))
    assert (page.type, page.name) == ("page", "page_viewed")
    page_properties = json.loads(page.properties)
    assert (page_properties["url"], page_properties["title"], page_properties["path"]) == (
        "https://shop.example.com/p?q=1",
        "Shop",
        "/p",
    )


UPDATES: list[tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any] | None]] = [
    ({"$set": {"$email": "a@example.com", "plan": "gold"}}, {"email": "a@example.com", "plan": "gold"}, None),
    ({"$set": {"$first_name": "F", "$phone": "+4930901820"}}, {"firstName": "F", "phone": "+4930901820"}, None),
    ({"$unset": ["plan", "$email"]}, {"plan": None, "email": None}, None),
    ({"$set_once": {"first": 1}}, None, {"$set_once": {"first": 1}}),
    ({"$add": {"visits": 2}}, None, {"$add": {"visits": 2}}),
    ({"$append": {"tags": "a"}}, None, {"$append": {"tags": "a"}}),
    ({"$union": {"tags": ["a"]}}, None, {"$union": {"tags": ["a"]}}),
    ({"$remove": {"tags": "a"}}, None, {"$remove": {"tags": "a"}}),
    ({"$delete": ""}, None, {"$delete": ""}),
]  # fmt: skip


@pytest.mark.parametrize(("update", "traits", "profile"), UPDATES, ids=lambda value: "".join(value or []))
def test_mixpanel_profile_updates(
    update: dict[str, Any], traits: dict[str, Any] | None, profile: dict[str, Any] | None
) -> None:
    [message] = read_messages(read_mixpanel({"$token": "wk_demo", "$distinct_id": "user-1", **update}, "engage"))
    assert (message.type, message.identities[0].value) == ("identify", "user-1")
    assert (message.traits and json.loads(message.traits)) == traits
    assert json.loads(message.context).get("profile") == profile


def test_mixpanel_profile_updates_keep_their_order_and_may_repeat() -> None:
    updates = [{"$token": "t", "$distinct_id": "u", "$set": {"plan": plan}} for plan in ("gold", "silver", "gold")]
    messages = read_messages(read_mixpanel(updates, "engage"))
    assert [message.order[0] for message in messages] == [NOW - 2, NOW - 1, NOW]
    assert len({message.message_id for message in messages}) == 3
    [timed] = read_messages(read_mixpanel({**updates[0], "$time": 1777888740000}, "engage"))
    assert timed.occurred_at == NOW - 60 * SECOND


def test_mixpanel_group_profiles_and_other_tokens_are_rejected() -> None:
    [group] = parse_envelope(
        read_mixpanel({"$token": "t", "$group_key": "c", "$group_id": "a", "$set": {}}, "groups")
    ).rejections
    assert group.code is RejectionCode.MISSING_IDENTITY
    result = parse_envelope(read_mixpanel([event("A"), event("B", token="wk_other"), event("C")]))
    assert [message.name for _, message in result.messages] == ["A", "C"]
    assert [rejection.code for rejection in result.rejections] == [RejectionCode.INVALID_FIELD]


# ------------------------------------------------------------------------------------------------------- PostHog


def capture(name: str, top: dict[str, Any] | None = None, /, **props: Any) -> dict[str, Any]:
    properties = {"distinct_id": "user-1", "$device_id": "d-1", "$is_identified": True, "$lib": "web", **props}
    return {"event": name, "uuid": "e-1", "timestamp": "2026-05-04T09:59:00Z", "properties": properties, **(top or {})}


def batch(*events: Any, **around: Any) -> dict[str, Any]:
    return {"api_key": "wk_demo", "batch": list(events), **around}


def test_posthog_page_view() -> None:
    view = capture(
        "$pageview", **{"$current_url": "https://shop.example.com/p", "$pathname": "/p", "title": "Shop",
        "$referrer": "https://example.org/", "$session_entry_url": "https://shop.example.com/p", "utm_source": None},
    )  # fmt: skip
    envelope = read_posthog(batch(view, sent_at="2026-05-04T11:00:00Z"))
    [page] = read_messages(envelope)
    assert (envelope.write_key, page.type, page.name, page.channel) == ("wk_demo", "page", "page_viewed", "referral")
    assert (page.message_id, kinds(page)) == ("e-1", ["user_id:user-1", "anonymous_id:d-1"])
    assert page.occurred_at == NOW - 61 * 60 * SECOND  # The clock of the page was an hour ahead.
    page_properties = json.loads(page.properties)
    assert (page_properties["url"], page_properties["title"], page_properties["path"]) == (
        "https://shop.example.com/p",
        "Shop",
        "/p",
    )
    assert "utm_source" not in page_properties
    later = capture("$pageview", **{**view["properties"], "$current_url": "https://shop.example.com/cart"})
    [second] = read_messages(read_posthog(batch(later)))
    assert (
        "referrer" not in json.loads(second.context)["page"]
    )  # The referrer belongs to the session, not to this page.
    assert second.channel == "web"


@pytest.mark.parametrize(
    ("props", "ids"),
    [
        ({}, ["user_id:user-1", "anonymous_id:d-1"]),
        ({"distinct_id": "d-1"}, ["anonymous_id:d-1"]),
        ({"distinct_id": "boot", "$is_identified": False}, ["anonymous_id:boot"]),
        ({"distinct_id": "s", "$device_id": None, "$is_identified": None}, ["user_id:s"]),
        ({"distinct_id": 7}, ["user_id:7", "anonymous_id:d-1"]),
    ],
)
def test_posthog_identities(props: dict[str, Any], ids: list[str]) -> None:
    [message] = read_messages(read_posthog(capture("E", **props)))
    assert kinds(message) == ids


def test_posthog_cookieless_id_is_not_an_identity() -> None:
    [refused] = parse_envelope(
        read_posthog(capture("E", distinct_id="$posthog_cookieless", **{"$device_id": None}))
    ).rejections
    assert refused.code is RejectionCode.MISSING_IDENTITY


def test_posthog_special_events() -> None:
    sets = {"$set": {"email": "a@example.com"}, "$set_once": {"first": 1}}
    [identify] = read_messages(read_posthog(batch(capture("$identify", sets, **{"$anon_distinct_id": "d-0"}))))
    assert (identify.type, kinds(identify)) == (
        "identify", ["user_id:user-1", "email:a@example.com", "anonymous_id:d-0"],
    )  # fmt: skip
    assert json.loads(identify.traits or b"") == {"email": "a@example.com"}
    assert json.loads(identify.context)["profile"] == {"$set_once": {"first": 1}}
    [alias] = read_messages(read_posthog(capture("$create_alias", alias="user-2")))
    assert (alias.type, kinds(alias)[0], alias.previous_id) == ("alias", "user_id:user-1", "user-2")
    [late] = read_messages(read_posthog(capture("$create_alias", alias="user-2", distinct_id="d-1")))
    assert (late.type, kinds(late)) == ("identify", ["user_id:user-2", "anonymous_id:d-1"])
    group = {"$group_type": "company", "$group_key": "acme", "$group_set": {"size": 5}}
    [grouped] = read_messages(read_posthog(capture("$groupidentify", **group)))
    group_properties = json.loads(grouped.properties)
    assert (grouped.type, group_properties) == (
        "group",
        {"groupType": "company", "groupId": "acme", "traits": {"size": 5}},
    )
    [screen] = read_messages(read_posthog(capture("$screen", **{"$screen_name": "Home", "$lib": "posthog-ios"})))
    assert (screen.name, screen.channel, json.loads(screen.properties)["name"]) == ("screen_viewed", "app", "Home")


def test_posthog_set_in_an_event_becomes_an_identify() -> None:
    both = capture("Bought", **{"$set": {"plan": "gold"}, "$unset": ["trial"]})
    event_, profile = read_messages(read_posthog(both))
    assert (event_.type, event_.name, event_.traits) == ("track", "Bought", None)
    assert (profile.type, profile.message_id) == ("identify", "e-1:set")
    assert json.loads(profile.traits or b"") == {"plan": "gold", "trial": None}
    assert event_.occurred_at == profile.occurred_at == NOW - 60 * SECOND


def test_posthog_times() -> None:
    old = {"event": "E", "uuid": "e", "offset": 60_000, "properties": {"distinct_id": "u", "token": "wk_demo"}}
    assert read_posthog(old).write_key == "wk_demo"
    assert read_messages(read_posthog([old]))[0].occurred_at == NOW - 60 * SECOND
    unreadable: list[Any] = [-1, 1e300, "x", None, {}]
    for offset in unreadable:
        assert read_messages(read_posthog({**old, "offset": offset}))[0].occurred_at == NOW
    underscore = str(NOW // 1000 + 3_600_000)
    ahead = {**old, "timestamp": "2026-05-04T10:59:00Z"}
    assert read_messages(read_posthog(ahead, underscore))[0].occurred_at == NOW - 60 * SECOND


@pytest.mark.parametrize(
    ("body", "whose"),
    [
        (batch(capture("E")), True),
        (capture("E"), True),
        ({"event": "E", "properties": {"token": "t", "distinct_id": "u", "$lib": "web"}}, True),
        ([{"event": "E", "properties": {"token": "t"}, "offset": 3}], True),
        (event("E"), False),
        ([event("E", mp_lib="web", **{"$lib": "mine"})], False),
        ({"$token": "t", "$distinct_id": "u", "$set": {}}, False),
        ([], False),
        ([7], False),
    ],
)
def test_is_posthog_on_shared_routes(body: Any, whose: bool) -> None:
    assert posthog.is_posthog(to_bytes(body), LIMITS) is whose


# ----------------------------------------------------------------------------------------------------------- GA4


def measurement(*events: Any, **around: Any) -> dict[str, Any]:
    return {"client_id": "123.456", "events": list(events), **around}


def test_ga4_events_and_user_properties() -> None:
    view = {"name": "page_view", "params": {"page_location": "https://shop.example.com/", "source": "news",
            "medium": "email", "campaign": "spring"}}  # fmt: skip
    buy = {"name": "purchase", "params": {"value": 42.5, "source": "button"}, "timestamp_micros": NOW - 5}
    body = measurement(
        view, buy, user_id="user-1", timestamp_micros=NOW - 9, user_properties={"plan": {"value": "gold"}}
    )
    envelope = read_ga4(body)
    page, purchase, profile = read_messages(envelope)
    assert envelope.write_key == "wk_demo"
    assert [message.type for message in (page, purchase, profile)] == ["page", "track", "identify"]
    assert [message.occurred_at for message in (page, purchase, profile)] == [NOW - 9, NOW - 5, NOW - 9]
    assert kinds(page) == ["user_id:user-1", "anonymous_id:123.456"]
    assert json.loads(page.properties)["url"] == "https://shop.example.com/"
    assert json.loads(page.context)["campaign"] == {"name": "spring", "source": "news", "medium": "email"}
    assert (purchase.name, purchase.channel) == ("purchase", "web")
    assert "campaign" not in json.loads(purchase.context)
    assert json.loads(profile.traits or b"") == {"plan": "gold"}
    assert [message.message_id for message in read_messages(read_ga4(body))] == [
        message.message_id for message in (page, purchase, profile)
    ]


def test_ga4_events_without_a_time_are_distinct() -> None:
    step = {"name": "step", "params": {"n": 1}}
    ids = [message.message_id for message in read_messages(read_ga4(measurement(step, step)))]
    ids += [
        message.message_id for message in read_messages(ga4.read(to_bytes(measurement(step)), None, NOW + 9, LIMITS))
    ]
    assert len(set(ids)) == 3


def test_ga4_app_instance_id_and_rejections() -> None:
    [message] = read_messages(read_ga4({"app_instance_id": "a-1", "events": [{"name": "open"}]}))
    assert (kinds(message), message.channel) == (["anonymous_id:a-1"], "app")
    result = parse_envelope(read_ga4({"events": [{"name": "open"}, 7, {"params": {}}]}))
    envelope = read_ga4(measurement({"name": ""}, user_properties={"a": {"value": 1}}))
    messages = [
        ga4.build_validation_message(item, ga4.count_events(envelope)) for item in parse_envelope(envelope).rejections
    ]
    assert [rejection.code for rejection in result.rejections] == [
        RejectionCode.MISSING_IDENTITY, RejectionCode.NOT_AN_OBJECT, RejectionCode.MISSING_EVENT,
    ]  # fmt: skip
    assert [(item["fieldPath"], item["validationCode"]) for item in messages] == [("events[0]", "VALUE_REQUIRED")]


# --------------------------------------------------------------------------------------------------- hostile events

GOOD: list[bytes] = [to_bytes(event("E")), to_bytes({"event": "E", "distinct_id": "u"}), to_bytes({"name": "E"})]
FORMATS: dict[str, Callable[[bytes], tuple[Envelope, int]]] = {
    "mixpanel": lambda raw: (mixpanel.read(b"[%b,%b,%b]" % (GOOD[0], raw, GOOD[0]), "track", NOW, LIMITS), 2),
    "posthog": lambda raw: (posthog.read(b'{"batch":[%b,%b,%b]}' % (GOOD[1], raw, GOOD[1]), NOW, LIMITS), 2),
    "ga4": lambda raw: (read_ga4(b'{"client_id":"c","events":[%b,%b,%b]}' % (GOOD[2], raw, GOOD[2])), 2),
}  # fmt: skip
SHAPES = {
    "mixpanel": (b'{"event":%b,"properties":{"distinct_id":"u","p":%b}}', b'{"event":"E","properties":%b}'),
    "posthog": (b'{"event":%b,"distinct_id":"u","properties":{"p":%b}}', b'{"event":"E","properties":%b}'),
    "ga4": (b'{"name":%b,"params":{"p":%b}}', b'{"name":"E","params":%b}'),
}
HOSTILE: dict[str, tuple[bytes, bytes, RejectionCode | None]] = {
    "number as name": (b"7", b"1", RejectionCode.INVALID_FIELD),
    "object as name": (b"{}", b"1", RejectionCode.INVALID_FIELD),
    "an empty name": (b'""', b"1", RejectionCode.MISSING_EVENT),
    "NUL in the name": (b'"a\\u0000"', b"1", RejectionCode.EVENT_TOO_LONG),
    "a lone surrogate in the name": (b'"\\ud800"', b"1", RejectionCode.EVENT_TOO_LONG),
    "a long name": (b'"' + b"x" * 300 + b'"', b"1", RejectionCode.EVENT_TOO_LONG),
    "1e400": (b'"E"', b"1e400", RejectionCode.NUMBER_OUT_OF_RANGE),
    "a large event": (b'"E"', b'"' + b"x" * 40_000 + b'"', RejectionCode.MESSAGE_TOO_LARGE),
    "deep": (b'"E"', b"[" * 100 + b"]" * 100, RejectionCode.TOO_DEEP),
    "very deep": (b'"E"', b"[" * 90_000 + b"]" * 90_000, RejectionCode.MESSAGE_TOO_LARGE),
    "NUL in a property": (b'"E"', b'"a\\u0000b"', None),
    "duplicate keys": (b'"E"', b'1,"p":2,"p":3', None),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("format_", FORMATS)
def test_hostile_event_is_rejected_alone(format_: str, case: str) -> None:
    name, value, code = HOSTILE[case]
    raw = SHAPES[format_][0] % (name, value)
    envelope, last = FORMATS[format_](raw)
    result = parse_envelope(envelope)
    if code is None:
        assert (len(result.messages), result.rejections) == (3, [])
        assert b"\\u0000" not in result.messages[1][1].properties
        return
    assert [index for index, _ in result.messages] == [0, last]
    [rejection] = result.rejections
    assert (rejection.code, rejection.index) == (code, 1)
    assert raw in rejection.original


@pytest.mark.parametrize("raw", [b"7", b'"text"', b"null", b"[]", b"[{}]", b"{}"], ids=repr)
@pytest.mark.parametrize("format_", FORMATS)
def test_item_that_is_not_an_event_is_rejected_alone(format_: str, raw: bytes) -> None:
    result = parse_envelope(FORMATS[format_](raw)[0])
    assert len(result.messages) == 2
    [rejection] = result.rejections
    assert raw in rejection.original


@pytest.mark.parametrize("value", [b'"text"', b"7", b"[]", b"true"])
@pytest.mark.parametrize("format_", FORMATS)
def test_properties_that_are_not_an_object_are_rejected(format_: str, value: bytes) -> None:
    result = parse_envelope(FORMATS[format_](SHAPES[format_][1] % value)[0])
    assert [rejection.code for rejection in result.rejections] == [RejectionCode.INVALID_FIELD]


def test_events_beyond_the_batch_limit_are_rejected() -> None:
    many = LIMITS.batch_messages_max
    for envelope in (
        read_mixpanel([event("E")] * (many + 2)),
        read_posthog(batch(*[{"event": "E", "distinct_id": "u"}] * (many + 2))),
        read_ga4(measurement(*[{"name": "E"}] * (many + 2))),
    ):
        assert len(envelope.items) == many
        assert [rejection.code for rejection in envelope.rejections] == [RejectionCode.TOO_MANY_MESSAGES] * 2


@pytest.mark.parametrize(
    "envelope",
    [
        read_mixpanel(event("Seen", **{"$device_id": "d"})),
        read_mixpanel({"$token": "t", "$distinct_id": "u", "$set": {"plan": "gold"}}, "engage"),
        read_posthog(batch(capture("Seen"))),
        read_posthog(batch(capture("Seen", {"type": "capture", "library": "posthog-node"}))),
        read_ga4(measurement({"name": "Seen", "params": {"n": 1}}, user_id="user-1")),
        read_ga4(measurement(user_properties={"plan": {"value": "gold"}})),
    ],
    ids=["mixpanel", "engage", "posthog", "posthog-node", "ga4", "ga4 profile"],
)
def test_quarantined_event_can_be_parsed_again(envelope: Envelope) -> None:
    [original] = envelope.originals
    [first] = read_messages(envelope)
    [second] = read_messages(reparse.reparse(original, envelope.form_of(0), NOW, LIMITS, {}))
    [guessed] = read_messages(reparse.reparse(original, "", NOW, LIMITS, {}))
    assert second == first
    assert (guessed.type, guessed.name, guessed.identities, guessed.properties, guessed.traits) == (
        first.type, first.name, first.identities, first.properties, first.traits,
    )  # fmt: skip


LATER = str(NOW // 1000 + 3_600_000)
"""sentAt of a client whose clock is an hour ahead, in milliseconds."""
REQUESTS: dict[str, Envelope] = {
    "mixpanel": read_mixpanel([event("A"), event("B", time=NOW / 1e6), event("C")]),
    "mixpanel with clock skew": read_mixpanel([event("A"), event("B", time=NOW / 1e6 + 3_540)], underscore=LATER),
    "engage": read_mixpanel([{"$token": "t", "$distinct_id": "u", "$set": {"n": n}} for n in (1, 2)], "engage"),
    "import": read_mixpanel(b"\n".join(to_bytes(event(name)) for name in "ABC"), "import"),
    "posthog": read_posthog(
        batch(
            {"event": "A", "distinct_id": "u"},
            {"event": "B", "distinct_id": "u", "offset": 60_000},
            {"event": "C", "distinct_id": "u", "timestamp": "2026-05-04T10:59:00Z", "$set": {"plan": "gold"}},
            {"event": "D", "distinct_id": "u", "properties": {"$set": {"plan": "gold"}}},
            sent_at="2026-05-04T11:00:00Z",
        )
    ),
    "posthog with clock skew": read_posthog(batch({"event": "A", "distinct_id": "u"}), LATER),
    "posthog v1": posthog.read(
        to_bytes(batch(*[{"event": name, "distinct_id": "u", "session_id": "s"} for name in "AB"])),
        NOW,
        LIMITS,
        sdk="posthog-python/7.0",
        sent_at_header="2026-05-04T11:00:00Z",
    ),
    "ga4": read_ga4(measurement({"name": "A"}, {"name": "B", "timestamp_micros": NOW - 5}, {"name": "A"}, user_id="u")),
}


@pytest.mark.parametrize("request_", REQUESTS)
def test_replayed_event_equals_the_original(request_: str) -> None:
    """An event that is parsed alone and later must result in the same message, with the same time and id."""
    envelope = REQUESTS[request_]
    messages = parse_envelope(envelope).messages
    assert len(messages) == len(envelope.items)
    originals = dict(zip(envelope.places, envelope.originals, strict=True))
    for place, original in originals.items():
        replayed = reparse.reparse(original, envelope.form_of(place), NOW, LIMITS, {})
        assert read_messages(replayed) == [message for message_place, message in messages if message_place == place]


def test_vendor_event_can_be_replaced_by_a_segment_message() -> None:
    segment_message = {"type": "track", "event": "Mended", "userId": "u", "timestamp": "2026-05-04T10:00:00Z"}
    for envelope in REQUESTS.values():
        [message] = read_messages(reparse.reparse(to_bytes(segment_message), envelope.form_of(0), NOW, LIMITS, {}))
        assert (message.name, kinds(message)) == ("Mended", ["user_id:u"])


def test_rejections_of_vendor_events_have_a_format() -> None:
    many = LIMITS.batch_messages_max + 1
    for envelope, form in (
        (read_mixpanel([event("")]), "mixpanel/track?"),
        (
            read_mixpanel([event("E"), {"event": "E", "properties": {"token": "other", "distinct_id": "u"}}]),
            "mixpanel/",
        ),
        (read_mixpanel([event("E")] * many), "mixpanel/track?"),
        (read_posthog([7]), "posthog?"),
        (read_ga4(measurement({"name": ""})), "ga4?"),
    ):
        [rejection] = parse_envelope(envelope).rejections
        assert rejection.form.startswith(form)
        assert rejection.form.endswith(f"moment={envelope.moment + rejection.index}")  # type: ignore[operator]  # moment is not None


def test_mixpanel_import_of_json_lines() -> None:
    good, bad = to_bytes(event("E", time=1)), b'{"event":'
    envelope = read_mixpanel(b"\n" + good + b"\r\n" + bad + b"\n\n7\n" + good.replace(b'"E"', b'""'), "import")
    result = parse_envelope(envelope)
    assert [(index, message.name) for index, message in result.messages] == [(0, "E")]
    assert [(rejection.index, rejection.code, rejection.original) for rejection in result.rejections] == [
        (1, RejectionCode.NOT_AN_OBJECT, bad),
        (2, RejectionCode.NOT_AN_OBJECT, b"7"),
        (3, RejectionCode.MISSING_EVENT, good.replace(b'"E"', b'""')),
    ]
    for body in (b"no\nno", bad, b"", b"\n"):
        with pytest.raises(InvalidBody):
            read_mixpanel(body, "import")


def test_posthog_version_1_options_become_properties() -> None:
    sent = {
        "event": "Seen", "uuid": "e-1", "distinct_id": "u", "timestamp": "2026-05-04T10:59:00Z", "session_id": "s",
        "window_id": "w", "options": {"process_person_profile": False},
        "properties": {"n": 1, "$set": {"plan": "gold"}},
    }  # fmt: skip

    def read(event: dict[str, Any]) -> list[Message]:
        body, sending = to_bytes({"batch": [event]}), "2026-05-04T11:00:00Z"
        return read_messages(posthog.read(body, NOW, LIMITS, sdk="posthog-python/7.0", sent_at_header=sending))

    track, profile = read(sent)
    assert json.loads(track.properties) == {
        "n": 1, "$session_id": "s", "$window_id": "w", "$process_person_profile": False,
    }  # fmt: skip
    assert json.loads(track.context)["library"] == {"name": "posthog-python", "version": "7.0"}
    assert (track.message_id, track.occurred_at, track.channel) == ("e-1", NOW - 60 * SECOND, "server")
    assert json.loads(profile.traits or b"") == {"plan": "gold"}
    [browser] = read_messages(posthog.read(to_bytes({"batch": [capture("E")]}), NOW, LIMITS, sdk="posthog-js/1.300.0"))
    assert browser.channel == "web"
    for flagged in ({"options": {"disable_skew_correction": True}}, {"properties": {"$ignore_sent_at": True}}):
        [message, *_] = read({**sent, "timestamp": "2026-05-04T09:00:00Z", **flagged})
        assert message.occurred_at == NOW - 3_600 * SECOND


@pytest.mark.parametrize("type_", ["trakc", None, 7])
def test_segment_message_in_quarantine_is_parsed_as_such(type_: Any) -> None:
    segment_message = {"type": type_, "event": "E", "userId": "u", "timestamp": "2026-05-04T10:00:00Z"}
    [rejection] = parse_envelope(reparse.reparse(to_bytes(segment_message), "", NOW, LIMITS, {})).rejections
    assert rejection.code in (RejectionCode.UNKNOWN_TYPE, RejectionCode.INVALID_FIELD)
