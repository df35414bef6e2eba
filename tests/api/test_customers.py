"""Reads of one customer: content, references, and freshness."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.config import Settings
from app.formats.timestamps import rfc3339
from app.http.responses import write_cursor
from app.postgres.pool import FrozenClock
from app.touchpoint import DAY, SECOND, derive_identity_id
from tests.support.running_app import NOON, RunningApp, track


async def test_customer_has_identities_traits_stages_and_segments(service: RunningApp) -> None:
    await service.send(
        {"type": "page", "anonymousId": "anon-1", "name": "Home"},
        {"type": "identify", "userId": "user-1", "anonymousId": "anon-1",
         "traits": {"email": "User@Example.com", "plan": "pro", "limit": 9007199254740993, "rate": 0.1}},
        track("Order Completed", messageId="m-1", properties={"total": 10}),
    )  # fmt: skip
    customer = await service.ask("/v1/customers/user-1")
    assert list(customer) == ["id", "identities", "traits", "stages", "segments", "as_of"]
    assert [f"{item['kind']}:{item['value']}" for item in customer["identities"]] == [
        "user_id:user-1",
        "email:user@example.com",
        "anonymous_id:anon-1",
    ]
    assert customer["traits"] == {"email": "User@Example.com", "plan": "pro", "limit": 9007199254740993, "rate": 0.1}
    stage = customer["stages"]["six-stage"]
    assert stage["stage"] == "purchase"
    assert stage["valid_until"] is None
    assert stage["cause"] == {"kind": "message", "message_id": "m-1", "source": "default"}
    assert {"first-time-buyers", "new-visitors"} <= {item["key"] for item in customer["segments"]}
    for name in ("email:user@example.com", "email: USER@example.com ", "anonymous_id:anon-1", f"id:{customer['id']}"):
        result = await service.ask(f"/v1/customers/{quote(name, safe='')}")
        assert result["id"] == customer["id"], name


async def test_id_of_a_merged_customer_still_resolves(service: RunningApp) -> None:
    await service.send({"type": "page", "anonymousId": "anon-1"})
    before = (await service.ask("/v1/customers/anonymous_id:anon-1"))["id"]
    await service.send({"type": "identify", "userId": "user-1", "anonymousId": "anon-1"})
    after = await service.ask(f"/v1/customers/id:{before}")
    assert after["id"] != before
    assert after["id"] == (await service.ask("/v1/customers/user-1"))["id"]


NASTY = [
    "a/b c@x.io",
    "..",
    "a:b",
    "%2F",
    "a%b",
    "ünïcødé",
    "日本",
    "?x=1#y",
    "a+b",
    ";,&=",
    "a//b",
    "lookup",
    "//",
    "a\nb",
    "a b",
    "id:7",
]


async def test_ids_in_paths_may_contain_any_character(service: RunningApp) -> None:
    await service.send(*[track("Product Viewed", item) for item in NASTY])
    for item in NASTY:
        customer = await service.ask(f"/v1/customers/user_id:{quote(item, safe='')}")
        assert customer["identities"] == [{"kind": "user_id", "value": item}]
        for path in ("journey", "segments", "touchpoints", "links", "segments/engaged/explain"):
            assert await service.ask(f"/v1/customers/user_id:{quote(item, safe='')}/{path}")


async def test_percent_encoded_ids_round_trip(settings: Settings, start: Any) -> None:
    texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)
    async with start(settings) as service:
        result: list[str] = []

        @given(texts)
        @hypothesis_settings(max_examples=60, suppress_health_check=list(HealthCheck), database=None)
        def collect(text: str) -> None:
            result.append(text)

        collect()
        response = await service.client.post(
            "/v1/batch", json={"batch": [track("e", item) for item in result], "writeKey": service.keys.write_key}
        )
        refused = {item["index"] for item in response.json()["rejections"]}
        remaining = [item for index, item in enumerate(result) if index not in refused]
        assert len(remaining) > len(result) / 2
        for item in remaining:
            customer = await service.ask(f"/v1/customers/user_id:{quote(item, safe='')}")
            assert {"kind": "user_id", "value": item} in customer["identities"]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("user_id:nobody", 404, "not_found"),
        ("nobody", 404, "not_found"),
        ("user_id:", 404, "not_found"),
        ("null", 404, "not_found"),
        ("id:not-a-uuid", 404, "not_found"),
        ("id:00000000-0000-0000-0000-000000000000", 404, "not_found"),
        ("user_id:a%00b", 404, "not_found"),
        ("%ff%fe", 400, "bad_request"),
        ("user_id:" + "x" * 300, 404, "not_found"),
        ("%ED%A0%80", 400, "bad_request"),
        ("a/b", 404, "not_found"),
    ],
)
async def test_unknown_and_unusable_ids_are_not_found(service: RunningApp, path: str, status: int, code: str) -> None:
    answer = await service.ask(f"/v1/customers/{path}", status)
    assert (answer["code"], answer["status"]) == (code, status)
    if status == 404 and path != "a/b":
        assert (await service.ask(f"/v1/customers/{path}/journey", 404))["code"] == "not_found"


async def test_encoded_paths_are_decoded_once(service: RunningApp) -> None:
    await service.send(track("e", user="a%2Fb"), track("e", user="a%b"))
    for path in ("/v1/customers/a%252Fb", "/v1/%63ustomers/a%252Fb", "/v1/%63ustomers/a%25b"):
        answer = await service.ask(path)
        assert answer["identities"][0]["value"] == ("a%b" if path.endswith("25b") else "a%2Fb"), path
    why = await service.ask("/v1/customers/a%25b/segments/repeat%2Dbuyers/explain")
    assert why["segment"] == "repeat-buyers"


async def test_customer_reads_support_etags(service: RunningApp) -> None:
    await service.send(track("Product Viewed"))
    customer = "/v1/customers/user-1"
    paths = [customer + path for path in ("", "/journey", "/segments", "/links", "/segments/engaged/explain")]
    for url in (*paths, "/v1/segments/engaged", "/v1/journeys/six-stage"):
        first = await service.client.get(url, headers=service.secret)
        tag = first.headers["etag"]
        assert tag.startswith('W/"')
        for header in (tag, tag.removeprefix("W/"), f'"other", {tag}', "*"):
            again = await service.client.get(url, headers={**service.secret, "If-None-Match": header})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    url = "/v1/customers/user-1"
    tag = (await service.client.get(url, headers=service.secret)).headers["etag"]
    await service.send(track("Order Completed"))
    changed = await service.client.get(url, headers={**service.secret, "If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag


async def test_reads_change_as_time_passes(settings: Settings, start: Any, clock: FrozenClock) -> None:
    """Reads are exact without a worker: they change at the instant of the change, not a microsecond earlier."""
    async with start(settings, clock) as service:
        await service.send(track("Order Completed"))
        customer = await service.ask("/v1/customers/user-1")
        visitor = next(item for item in customer["segments"] if item["key"] == "new-visitors")
        assert visitor == {"key": "new-visitors", "since": rfc3339(NOON), "valid_until": rfc3339(NOON + 7 * DAY)}
        clock.instant = NOON + 7 * DAY - 1
        assert await is_in(service, "new-visitors")
        clock.instant += 1
        assert not await is_in(service, "new-visitors")
        clock.instant = NOON + 90 * DAY
        assert await is_in(service, "at-risk")
        answer = await service.ask("/v1/customers/user-1/segments?history=true")
        assert {(item["key"], item["since"], item["left_at"]) for item in answer["items"]} >= {
            ("new-visitors", rfc3339(NOON), rfc3339(NOON + 7 * DAY)),
            ("at-risk", rfc3339(NOON + 90 * DAY), None),
        }


async def is_in(service: RunningApp, segment: str) -> bool:
    """Return the customer's membership of a segment. Every route that reports it must return the same."""
    customer = await service.ask("/v1/customers/user-1")
    listed = segment in [item["key"] for item in customer["segments"]]
    again = await service.ask("/v1/customers/user-1/segments")
    assert again["items"] == customer["segments"]
    looked_up = await service.tell("POST", "/v1/customers/lookup", {"customers": ["user-1"]})
    assert looked_up["items"][0]["customer"] == customer
    why = await service.ask(f"/v1/customers/user-1/segments/{segment}/explain")
    assert why["member"] == why["explanation"]["truth"] == listed
    (count,) = {
        (await service.ask(f"/v1/segments/{segment}/count"))["count"],
        len(await service.all_of(f"/v1/segments/{segment}/members")),
    }
    assert count == listed
    if listed:
        (entry,) = (item for item in customer["segments"] if item["key"] == segment)
        (member,) = (await service.ask(f"/v1/segments/{segment}/members"))["items"]
        assert (entry["since"], entry["valid_until"]) == (member["since"], member["valid_until"])
        assert (entry["since"], entry["valid_until"]) == (why["since"], why["valid_until"])
    return listed


async def test_future_message_limits_valid_until(settings: Settings, start: Any, clock: FrozenClock) -> None:
    """A message from a clock that runs ahead counts from its own instant on, which is ``valid_until`` until then."""
    async with start(settings, clock) as service:
        await service.send(track("Order Completed"))
        await service.send(track("Order Completed", timestamp=rfc3339(NOON + 3600 * SECOND)))
        customer = await service.ask("/v1/customers/user-1")
        assert customer["stages"]["six-stage"]["stage"] == "purchase"
        assert customer["stages"]["six-stage"]["valid_until"] == rfc3339(NOON + 3600 * SECOND)
        buyer = next(item for item in customer["segments"] if item["key"] == "first-time-buyers")
        assert buyer["valid_until"] == rfc3339(NOON + 3600 * SECOND)
        assert await is_in(service, "first-time-buyers")
        clock.instant = NOON + 3600 * SECOND
        assert (await service.ask("/v1/customers/user-1"))["stages"]["six-stage"]["stage"] == "loyalty"
        assert not await is_in(service, "first-time-buyers")
        assert await is_in(service, "repeat-buyers")


async def test_explanations_consider_future_messages(settings: Settings, start: Any, clock: FrozenClock) -> None:
    """``valid_until`` of each node is the instant of the future message, or an earlier change over time."""
    hour = 3600 * SECOND
    async with start(settings, clock) as service:
        recent = {"did": "e", "within": "2h"}
        rule = {"all": [recent, {"not": {"did": "f"}}]}
        await service.tell("POST", "/v1/segments", {"key": "s", "rule": rule}, 201)
        await service.send(
            track("e", timestamp=rfc3339(NOON)),
            track("e", timestamp=rfc3339(NOON + hour)),
            track("f", timestamp=rfc3339(NOON + 4 * hour)),
        )
        why = await service.ask("/v1/customers/user-1/segments/s/explain")
        tree = why["explanation"]
        # The second event e keeps the rule true for longer than the first.
        assert why["valid_until"] == tree["valid_until"] == rfc3339(NOON + 3 * hour)
        did, other = tree["nodes"]
        assert (did["truth"], did["valid_until"]) == (True, rfc3339(NOON + 3 * hour))
        assert (other["truth"], other["valid_until"]) == (True, rfc3339(NOON + 4 * hour))


async def test_as_of_before_the_first_message_has_no_state(settings: Settings, start: Any, clock: FrozenClock) -> None:
    async with start(settings, clock) as service:
        await service.tell("POST", "/v1/segments", {"key": "s", "rule": {"not": {"did": "f"}}}, 201)
        await service.send(track("e", timestamp=rfc3339(NOON + SECOND)))
        why = await service.ask("/v1/customers/user-1/segments/s/explain")
        tree = why["explanation"]
        assert (why["member"], why["since"], why["valid_until"]) == (False, None, rfc3339(NOON + SECOND))
        assert (tree["truth"], tree["valid_until"]) == (False, rfc3339(NOON + SECOND))
        customer = await service.ask("/v1/customers/user-1")
        assert customer["segments"] == []
        assert {place["stage"] for place in customer["stages"].values()} == {None}
        assert customer["stages"]["six-stage"]["valid_until"] == rfc3339(NOON + SECOND)


async def test_stage_history_lists_every_interval(settings: Settings, start: Any, clock: FrozenClock) -> None:
    async with start(settings, clock) as service:
        days = ["Product Viewed", "Product Added", "Order Completed"]
        await service.send(
            *[track(name, timestamp=rfc3339(NOON - (9 - n) * DAY), messageId=name) for n, name in enumerate(days)]
        )
        answer = await service.ask("/v1/customers/user-1/journey?journey=six-stage")
        assert [(item["stage"], item["entered_at"], item["left_at"]) for item in answer["items"]] == [
            ("consideration", rfc3339(NOON - 9 * DAY), rfc3339(NOON - 8 * DAY)),
            ("decision", rfc3339(NOON - 8 * DAY), rfc3339(NOON - 7 * DAY)),
            ("purchase", rfc3339(NOON - 7 * DAY), None),
        ]
        assert answer["items"][0]["cause"]["message_id"] == "Product Viewed"
        assert answer["items"][0]["left_cause"]["message_id"] == "Product Added"
        everything = await service.ask("/v1/customers/user-1/journey")
        assert {item["journey"] for item in everything["items"]} == {"six-stage", "five-stage", "content-4"}
        assert (await service.ask("/v1/customers/user-1/journey?journey=none", 404))["code"] == "not_found"
        # After a new definition, the history is read from the log and is the same.
        await service.tell("POST", "/v1/segments", {"key": "new", "rule": {"did": "x"}}, 201)
        assert (await service.ask("/v1/customers/user-1/journey?journey=six-stage"))["items"] == answer["items"]


async def test_explanations_list_the_touchpoints(service: RunningApp) -> None:
    await service.send(
        track("Order Completed", messageId="m-1", properties={"total": 60}),
        track("Order Completed", messageId="m-2", properties={"total": 10}),
        track("Order Completed", messageId="m-3", properties={"total": 50}),
    )
    rule = {
        "all": [
            {"did": "Order Completed", "where": {"total": {"gte": 50}}, "at_least": 2, "within": "30d"},
            {"not": {"did": "Order Refunded"}},
        ]
    }
    await service.tell("POST", "/v1/segments", {"key": "big", "rule": rule}, 201)
    why = await service.ask("/v1/customers/user-1/segments/big/explain")
    assert (why["segment"], why["version"], why["member"]) == ("big", 1, True)
    did, nothing = why["explanation"]["nodes"]
    assert (did["truth"], did["counted"], sorted(did["touchpoints"])) == (True, 2, ["m-1", "m-3"])
    assert did["valid_until"] == why["valid_until"] is not None
    assert nothing["truth"] is True
    assert nothing["nodes"][0]["counted"] == 0
    stages = await service.ask("/v1/customers/user-1/journeys/six-stage/explain")
    assert stages["stage"] == "loyalty"
    assert [item["stage"] for item in stages["stages"]][-1] == "loyalty"
    assert (await service.ask("/v1/customers/user-1/segments/none/explain", 404))["code"] == "not_found"
    assert (await service.ask("/v1/customers/user-1/journeys/none/explain", 404))["code"] == "not_found"


async def test_touchpoints_are_paginated(service: RunningApp) -> None:
    instants = [rfc3339(NOON + n // 3 * SECOND) for n in range(11)]
    await service.send(
        *[track("e", anonymousId=f"anon-{n % 2}", timestamp=instants[n], messageId=f"m-{n:02}") for n in range(11)],
        {"type": "identify", "anonymousId": "anon-1", "userId": "user-1", "timestamp": rfc3339(NOON - SECOND),
         "traits": {"plan": "pro"}, "messageId": "m-0"},
    )  # fmt: skip
    whole = (await service.ask("/v1/customers/user-1/touchpoints"))["items"]
    assert [item["message_id"] for item in whole] == [f"m-{n:02}" for n in range(10, -1, -1)] + ["m-0"]
    for limit in (1, 3, 4, 12):
        assert await service.all_of("/v1/customers/user-1/touchpoints", limit=limit) == whole
    assert whole[-1]["type"] == "identify"
    assert whole[-1]["name"] is None
    assert whole[-1]["traits"] == {"plan": "pro"}
    assert whole[0]["identities"] == [
        {"kind": "user_id", "value": "user-1"},
        {"kind": "anonymous_id", "value": "anon-0"},
    ]


async def test_issued_cursors_are_accepted(service: RunningApp) -> None:
    """The longest cursor contains 255 characters that JSON escapes."""
    await service.send(*[track("e", messageId=char * 255, timestamp=rfc3339(NOON)) for char in "\x01\x02\x03"])
    result = await service.all_of("/v1/customers/user-1/touchpoints", limit=1)
    assert [item["message_id"][0] for item in result] == ["\x03", "\x02", "\x01"]


ABSURD = [
    write_cursor(1 << 61, 1, "m", "s"),
    write_cursor(1, 1 << 61, "m", "s"),
    write_cursor(1, 1, "\0", "s"),
    write_cursor(1, -5, "", ""),
    write_cursor(1, 1, 1),
    write_cursor(1 << 61, "00" * 16),
    write_cursor(-1, "00" * 16),
    write_cursor(1, "00"),
]


@pytest.mark.parametrize("cursor", [*ABSURD, "x", "e30", "%00", "a" * 7000, "é"])
async def test_forged_cursors_are_refused(service: RunningApp, cursor: str) -> None:
    await service.send(track("Product Viewed"))
    for path in ("/v1/customers/user-1/touchpoints", "/v1/segments/engaged/members", "/v1/quarantine"):
        answer = await service.ask(path, 400, params={"cursor": cursor})
        assert answer["code"] == "bad_request"
    for limit in ("0", "-1", "1001", "x"):
        answer = await service.ask("/v1/customers/user-1/touchpoints", 422, params={"limit": limit})
        assert answer["code"] == "invalid_parameter"


async def test_lookup_returns_customers_in_request_order(service: RunningApp) -> None:
    await service.send(track("Order Completed"), track("Product Viewed", "user-2", anonymousId="anon-2"))
    refs = ["user_id:user-2", "nobody", "user-1", "anonymous_id:anon-2", "null", "user-1", ""]
    answer = await service.tell("POST", "/v1/customers/lookup", {"customers": refs})
    assert [item["ref"] for item in answer["items"]] == refs
    assert [item["customer"] and item["customer"]["identities"][0]["value"] for item in answer["items"]] == [
        "user-2", None, "user-1", "user-2", None, "user-1", None,
    ]  # fmt: skip
    assert (await service.tell("POST", "/v1/customers/lookup", {"customers": []}))["items"] == []
    body: Any
    for body in ({"customers": ["x"] * 501}, {"customers": "x"}, {"customers": [7]}, {}, [], None):
        assert (await service.tell("POST", "/v1/customers/lookup", body, 400))["code"] in (
            "bad_request",
            "invalid_body",
        )


async def test_links_can_be_undone_and_restored(service: RunningApp) -> None:
    await service.send(
        track("Order Completed", anonymousId="anon-1", messageId="m-1"),
        {"type": "page", "anonymousId": "anon-1", "messageId": "m-2"},
    )
    (link,) = (await service.ask("/v1/customers/user-1/links"))["items"]
    assert link["weaker"] == {"kind": "anonymous_id", "value": "anon-1"}
    assert link["stronger"] == {"kind": "user_id", "value": "user-1"}
    assert (link["kind"], link["joined"], link["message_id"], link["undone_at"]) == ("link", True, "m-1", None)
    pair = {"weaker": "anonymous_id:anon-1", "stronger": "user_id:user-1"}
    assert await service.tell("POST", "/v1/customers/links/undo", pair) == {"success": True}
    apart = [await service.ask(f"/v1/customers/{name}") for name in ("user-1", "anonymous_id:anon-1")]
    assert apart[0]["id"] != apart[1]["id"]
    (link,) = (await service.ask("/v1/customers/user-1/links"))["items"]
    assert link["undone_at"] is not None
    assert await service.tell("POST", "/v1/customers/links/restore", pair) == {"success": True}
    together = [await service.ask(f"/v1/customers/{name}") for name in ("user-1", "anonymous_id:anon-1")]
    assert together[0]["id"] == together[1]["id"]
    for body, status in (({"weaker": "a", "stronger": "b"}, 404), ({"weaker": "a"}, 400), ({**pair, "weaker": 1}, 400)):
        await service.tell("POST", "/v1/customers/links/undo", body, status)


async def test_links_are_paged_in_order(service: RunningApp) -> None:
    """Links of one instant are in the order of their ids; a link of a fast clock is on the last page."""
    await service.trust_write_key()
    path = "/v1/customers/user-1/links"
    devices = [{"type": "identify", "userId": "user-1", "anonymousId": f"anon-{n}"} for n in range(7)]
    late = (datetime.now(UTC) + timedelta(hours=2)).isoformat()
    await service.send(*({**device, "timestamp": "2026-01-01T00:00:00Z"} for device in devices[:6]))
    await service.send(
        {**devices[6], "timestamp": late}, *({"type": "page", "anonymousId": f"anon-{n}"} for n in range(7))
    )
    whole = await service.ask(path)
    assert [whole["next_cursor"], len(whole["items"])] == [None, 7]
    assert whole["items"][-1]["weaker"]["value"] == "anon-6"
    for limit in (1, 2, 7):
        assert await service.all_of(path, limit=limit) == whole["items"]
    past = await service.all_of(path, limit=4, as_of="2026-01-02T00:00:00Z")
    assert past == whole["items"][:6]
    for cursor in ("x", write_cursor(0, 1, 2), write_cursor(0, 0, 0, "", "", "no id", "no id")):
        await service.ask(path, 400, params={"cursor": cursor})


async def test_ids_of_identities_resolve_to_the_customer(service: RunningApp) -> None:
    await service.send(track("Product Viewed"))
    id = (await service.ask("/v1/customers/user-1"))["id"]
    assert id.replace("-", "") == derive_identity_id("user_id", "user-1").hex()


async def test_definition_of_another_process_applies_at_once(settings: Settings, start: Any) -> None:
    starts: AbstractAsyncContextManager[RunningApp] = start(settings)
    async with starts as one, start(settings) as other:
        other.keys = one.keys
        await one.send(track("Product Viewed"))
        await one.tell("POST", "/v1/segments", {"key": "viewers", "rule": {"did": "Product Viewed"}}, 201)
        customer = await other.ask("/v1/customers/user-1")
        assert "viewers" in [item["key"] for item in customer["segments"]]
