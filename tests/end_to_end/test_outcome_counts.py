"""Every outcome of every endpoint is counted exactly once: in the response, the source's health and the metrics.

Each entrance (a group of endpoints) has its own source and a table of requests, which are sent in order. A row of the
table contains a request and its expected effects. After each request the test compares these with the response, with
the changes of ``GET /v1/sources/{key}/health`` and of all outcome counters of ``/metrics``, and with the new erasure
requests. Other counters must not change.
"""

from __future__ import annotations

import gzip
import hmac
import json
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.connectors.tools import mailgun, postmark, shopify, standard
from tests.support.outcome_counts import (
    GIF,
    KEY,
    BulkReplay,
    Delivery,
    Entrance,
    Replay,
    Request,
    Row,
    Target,
    assert_answer,
    changes,
    expected_changes,
    get,
    post,
    read_all,
)
from tests.support.server_process import Server

USER: Final = "outcomes-user"
AT: Final = "2026-01-01T12:00:00Z"
BEGAN: Final = int(time.time())

PLANNED: Final = {"type": "object", "required": ["total"]}
"""Schema of the events ``Warned`` and ``Quarantined`` in the tracking plan of each source for SDKs."""
GOOGLEBOT: Final = {
    "library": {"name": "analytics.js"},
    "userAgent": "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
}


def track(id: str, event: str = "Looked", **more: Any) -> dict[str, Any]:
    return {"type": "track", "event": event, "messageId": id, "userId": USER, "timestamp": AT, **more}


def without(message: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name not in names}


def batch(*items: Any) -> bytes:
    """Return the body of a batch. An item of type bytes is already JSON."""
    texts = (item if isinstance(item, bytes) else json.dumps(item).encode() for item in items)
    return b'{"writeKey":"%b","batch":[%b]}' % (KEY.encode(), b",".join(texts))


# ------------------------------------------------------------------------------------------ Segue's own routes


def call(id: str, event: str = "Looked", **more: Any) -> Request:
    return post("/v1/track", {**track(id, event, **more), "writeKey": KEY})


TRACK = Entrance(
    "counts-track",
    (
        Row("new", call("m-1"), {"accepted": 1}),
        Row("the same again", call("m-1"), {"duplicate": 1}),
        Row("a twin that differs", call("m-1", properties={"n": 2}), {"duplicate": 1}, quarantined=1),
        Row("the same twin again", call("m-1", properties={"n": 2}), {"duplicate": 1}),
        Row("no event", call("m-2", ""), {"rejected:missing_event": 1}),
        Row(
            "a time of the far future",
            call("m-3", timestamp="2999-01-01T00:00:00Z"),
            {"accepted": 1, "warned:timestamp_future": 1},
        ),
        Row(
            "an address that is none",
            call("m-4", context={"traits": {"email": "nobody"}}),
            {"accepted": 1, "warned:email_unusable:no_at": 1},
        ),
        Row("a bot", call("m-5", context=GOOGLEBOT), {"rejected:bot": 1}),
        Row(
            "a violation of mode warn",
            call("m-6", "Warned"),
            {"accepted": 1, "warned:tracking_plan": 1},
            violations={"warn": 1},
        ),
        Row("its retry", call("m-6", "Warned"), {"duplicate": 1, "warned:tracking_plan": 1}),
        Row(
            "a violation of mode quarantine",
            call("m-7", "Quarantined"),
            {"rejected:tracking_plan": 1},
            violations={"quarantine": 1},
        ),
        Row("what keeps to the plan", call("m-8", "Warned", properties={"total": 1}), {"accepted": 1}),
        Row("no JSON", post(f"/v1/track?writeKey={KEY}", b"{"), answer={"code": "invalid_body"}, status=400),
    ),
)

DROPPED_BOTS = Entrance(
    "counts-dropped-bots",
    (
        Row("alone", call("m-1", context=GOOGLEBOT), {"rejected:bot": 1}, quarantined=0),
        Row(
            "beside another message",
            post("/v1/batch", batch(track("m-2", context=GOOGLEBOT), track("m-3"))),
            {"accepted": 1, "rejected:bot": 1},
            quarantined=0,
        ),
    ),
    bots="drop",
)

EVERY_CODE = {
    "invalid_utf8": b'{"type":"track","event":"\xff","userId":"u"}',
    "not_an_object": 7,
    "message_too_large": track("c-1", properties={"text": "x" * 40_000}),
    "too_deep": b'{"type":"track","event":"E","userId":"u","properties":' + b'{"a":' * 40 + b"1" + b"}" * 41,
    "number_out_of_range": b'{"type":"track","event":"E","userId":"u","properties":{"n":1e500}}',
    "unknown_type": track("c-2", type="sing"),
    "invalid_field": track("c-3", properties=[]),
    "invalid_id": track("c-4", userId="u" * 300),
    "missing_event": track("c-5", ""),
    "event_too_long": track("c-6", "E" * 300),
    "missing_group_id": {"type": "group", "userId": USER},
    "missing_alias_ids": {"type": "alias", "userId": USER},
    "missing_identity": without(track("c-7"), "userId"),
    "bot": track("c-8", context=GOOGLEBOT),
    "tracking_plan": track("c-9", "Quarantined"),
}

BATCH = Entrance(
    "counts-batch",
    (
        Row(
            "two new ones, one twice",
            post("/v1/batch", batch(track("m-1"), track("m-2"), track("m-1"))),
            {"accepted": 2, "duplicate": 1},
        ),
        Row(
            "a duplicate, a rejected one and one with a warning beside a new one",
            post("/v1/batch", batch(track("m-1"), track("m-3", ""), track("m-4", "Warned"), track("m-5"))),
            {"accepted": 2, "duplicate": 1, "rejected:missing_event": 1, "warned:tracking_plan": 1},
            violations={"warn": 1},
        ),
        Row(
            "each rejection code beside one that is accepted",
            post("/v1/batch", batch(track("m-6"), *EVERY_CODE.values())),
            {"accepted": 1, **{f"rejected:{code}": 1 for code in EVERY_CODE}},
            violations={"quarantine": 1},
        ),
        Row(
            "one more than a batch may have",
            post("/v1/batch", batch(*[track("m-7")] * 2_500, track("m-8"))),
            {"accepted": 1, "duplicate": 2_499, "rejected:too_many_messages": 1},
        ),
        Row("nothing", post("/v1/batch", batch())),
        Row("too large", post("/v1/batch", b" " * 500_001), answer={"code": "body_too_large"}, status=400),
    ),
)

IMPORT = Entrance(
    "counts-import",
    (
        Row(
            "new, twice and wrong",
            post("/v1/import", batch(track("m-1"), track("m-1"), track("m-2", ""))),
            {"accepted": 1, "duplicate": 1, "rejected:missing_event": 1},
        ),
    ),
)


# ------------------------------------------------------------------------------------------ Mixpanel


def mixpanel_event(id: str, event: str = "Looked", token: str = KEY, **more: Any) -> dict[str, Any]:
    return {
        "event": event,
        "properties": {"token": token, "distinct_id": USER, "$insert_id": id, "time": 1767268800} | more,
    }


MIXPANEL_TRACK = Entrance(
    "counts-mixpanel-track",
    (
        Row("two", post("/track", [mixpanel_event("a"), mixpanel_event("b")]), {"accepted": 2}, "1"),
        Row("again", post("/track", [mixpanel_event("a")]), {"duplicate": 1}, "1"),
        Row("no event", post("/track", [mixpanel_event("c", "")]), {"rejected:missing_event": 1}, "1"),
        Row(
            "of two projects",
            post("/track", [mixpanel_event("d"), mixpanel_event("e", token="another")]),
            {"accepted": 1, "rejected:invalid_field": 1},
            "1",
        ),
        Row(
            "a violation of mode warn",
            post("/track?verbose=1", [mixpanel_event("f", "Warned")]),
            {"accepted": 1, "warned:tracking_plan": 1},
            {"status": 1, "error": None},
            violations={"warn": 1},
        ),
        Row(
            "a violation of mode quarantine",
            post("/track", [mixpanel_event("g", "Quarantined")]),
            {"rejected:tracking_plan": 1},
            "1",
            violations={"quarantine": 1},
        ),
        Row("no events", post("/track", b"{"), answer={"code": "invalid_body"}, status=400),
    ),
)


def profile(**more: Any) -> list[dict[str, Any]]:
    return [{"$token": KEY, "$distinct_id": USER, "$time": 1767268800, "$set": {"plan": "gold"}} | more]


MIXPANEL_ENGAGE = Entrance(
    "counts-mixpanel-engage",
    (
        Row("a profile", post("/engage", profile()), {"accepted": 1}, "1"),
        Row("again", post("/engage", profile()), {"duplicate": 1}, "1"),
        Row(
            "with an address that is none",
            post("/engage", profile(**{"$set": {"$email": "nobody"}})),
            {"accepted": 1, "warned:email_unusable:no_at": 1},
            "1",
        ),
        Row("of nobody", post("/engage", profile(**{"$distinct_id": ""})), {"rejected:missing_identity": 1}, "1"),
        Row(
            "a group's",
            post("/groups", [{"$token": KEY, "$group_key": "company", "$group_id": "acme", "$set": {"size": 5}}]),
            {"rejected:missing_identity": 1},
            "1",
        ),
    ),
)

MIXPANEL_IMPORT = Entrance(
    "counts-mixpanel-import",
    (
        Row(
            "one of two wrong",
            post("/import?strict=1", [mixpanel_event("a"), mixpanel_event("b", "")]),
            {"accepted": 1, "rejected:missing_event": 1},
            {"code": 400, "num_records_imported": 1},
            400,
        ),
        Row(
            "again",
            post("/import", [mixpanel_event("a")]),
            {"duplicate": 1},
            {"code": 200, "num_records_imported": 1},
        ),
    ),
)


# ------------------------------------------------------------------------------------------ PostHog and GA4


def posthog_event(id: str, event: str = "Looked", **more: Any) -> dict[str, Any]:
    return {"event": event, "distinct_id": USER, "uuid": f"uuid-{id}", "timestamp": AT, "properties": {}} | more


def posthog_batch(*events: Any) -> dict[str, Any]:
    return {"api_key": KEY, "batch": list(events)}


POSTHOG = Entrance(
    "counts-posthog",
    (
        Row("one", post("/e/", posthog_batch(posthog_event("a"))), {"accepted": 1}, {"status": 1}),
        Row("again", post("/e/", posthog_batch(posthog_event("a"))), {"duplicate": 1}, {"status": 1}),
        Row(
            "an event that also sets a trait is two messages",
            post("/e/", posthog_batch(posthog_event("b", properties={"$set": {"plan": "gold"}}))),
            {"accepted": 2},
            {"status": 1},
        ),
        Row(
            "one of nobody beside a good one",
            post("/e/", posthog_batch(posthog_event("c"), posthog_event("d", distinct_id=""))),
            {"accepted": 1, "rejected:missing_identity": 1},
            {"status": 1},
        ),
        Row(
            "a violation of mode warn",
            post("/e/", posthog_batch(posthog_event("e", "Warned"))),
            {"accepted": 1, "warned:tracking_plan": 1},
            {"status": 1},
            violations={"warn": 1},
        ),
        Row("flags are no messages", post("/flags/?v=2", {"token": KEY}), answer={"flags": {}}),
    ),
)

POSTHOG_V1 = Entrance(
    "counts-posthog-v1",
    (
        Row(
            "a good one and a wrong one",
            post("/i/v1/analytics/events", posthog_batch(posthog_event("a"), posthog_event("b", ""))),
            {"accepted": 1, "rejected:missing_event": 1},
            {
                "results": {
                    "uuid-a": {"result": "ok"},
                    "uuid-b": {"result": "drop", "details": "a track message needs a non-empty event name"},
                }
            },
        ),
        Row(
            "again",
            post("/i/v1/analytics/events", posthog_batch(posthog_event("a"))),
            {"duplicate": 1},
            {"results": {"uuid-a": {"result": "ok"}}},
        ),
    ),
)


def measurement(*events: Any, **more: Any) -> dict[str, Any]:
    return {"client_id": "outcomes-client", "timestamp_micros": 1767268800000000, "events": list(events)} | more


GA4_PATH = f"/mp/collect?measurement_id=G-1&api_secret={KEY}"
GA4 = Entrance(
    "counts-ga4",
    (
        Row("two events", post(GA4_PATH, measurement({"name": "a"}, {"name": "b"})), {"accepted": 2}, "", 204),
        Row("again", post(GA4_PATH, measurement({"name": "a"}, {"name": "b"})), {"duplicate": 2}, "", 204),
        Row(
            "traits are a message of their own",
            post(GA4_PATH, measurement({"name": "c"}, user_properties={"plan": {"value": "gold"}})),
            {"accepted": 2},
            "",
            204,
        ),
        Row("no name", post(GA4_PATH, measurement({"name": ""})), {"rejected:missing_event": 1}, "", 204),
        Row(
            "of nobody",
            post(GA4_PATH, measurement({"name": "d"}, client_id="")),
            {"rejected:missing_identity": 1},
            "",
            204,
        ),
        Row(
            "a violation of mode warn",
            post(GA4_PATH, measurement({"name": "Warned"})),
            {"accepted": 1, "warned:tracking_plan": 1},
            "",
            204,
            violations={"warn": 1},
        ),
        Row("the debug route stores nothing", post(f"/debug{GA4_PATH}", measurement({"name": ""})), answer={}),
    ),
)


# ------------------------------------------------------------------------------------------ RudderStack, pixels, Jitsu

BEACON = Entrance(
    "counts-rudder-beacon",
    (
        Row(
            "new, twice and wrong",
            post(
                f"/beacon/v1/batch?writeKey={KEY}",
                {"batch": [track("m-1"), track("m-1"), track("m-2", "")]},
                headers={"content-type": "text/plain"},
            ),
            {"accepted": 1, "duplicate": 1, "rejected:missing_event": 1},
        ),
    ),
)

RUDDER_PIXEL_PATH = f"/pixel/v1/track?writeKey={KEY}&userId={USER}&timestamp={AT}"
RUDDER_PIXEL = Entrance(
    "counts-rudder-pixel",
    (
        Row("one", get(f"{RUDDER_PIXEL_PATH}&event=Opened&messageId=m-1"), {"accepted": 1}, GIF),
        Row("again", get(f"{RUDDER_PIXEL_PATH}&event=Opened&messageId=m-1"), {"duplicate": 1}, GIF),
        Row("no event", get(f"{RUDDER_PIXEL_PATH}&messageId=m-2"), {"rejected:missing_event": 1}, GIF),
        Row(
            "a violation of mode warn",
            get(f"{RUDDER_PIXEL_PATH}&event=Warned&messageId=m-3"),
            {"accepted": 1, "warned:tracking_plan": 1},
            GIF,
            violations={"warn": 1},
        ),
    ),
)


def segment_pixel(message: Mapping[str, Any]) -> Request:
    return get(f"/v1/pixel/track?writeKey={KEY}&data={b64encode(json.dumps(message).encode()).decode()}")


SEGMENT_PIXEL = Entrance(
    "counts-segment-pixel",
    (
        Row("one", segment_pixel(track("m-1")), {"accepted": 1}, GIF),
        Row("again", segment_pixel(track("m-1")), {"duplicate": 1}, GIF),
        Row("of nobody", segment_pixel(without(track("m-2"), "userId")), {"rejected:missing_identity": 1}, GIF),
        Row("no data", get(f"/v1/pixel/track?writeKey={KEY}"), answer={"code": "invalid_body"}, status=400),
    ),
)


def jitsu(message: Mapping[str, Any]) -> Request:
    return post("/api/s/track", message, headers={"X-Write-Key": KEY})


JITSU = Entrance(
    "counts-jitsu",
    (
        Row("one", jitsu(track("m-1")), {"accepted": 1}, {"ok": True}),
        Row("again", jitsu(track("m-1")), {"duplicate": 1}, {"ok": True}),
        Row("no event", jitsu(track("m-2", "")), {"rejected:missing_event": 1}, {"ok": True}),
        Row(
            "a violation of mode warn",
            jitsu(track("m-3", "Warned")),
            {"accepted": 1, "warned:tracking_plan": 1},
            {"ok": True},
            violations={"warn": 1},
        ),
    ),
)


# ------------------------------------------------------------------------------------------ Customer.io


def customerio(method: str, path: str, body: Any = None) -> Request:
    return post(f"/api/v1/customers/{path}", body, method, basic=True)


CUSTOMERIO_V1 = Entrance(
    "counts-customerio-v1",
    (
        Row("a person", customerio("PUT", "c-1", {"plan": "gold"}), {"accepted": 1}, {}),
        Row(
            "an event",
            customerio("POST", "c-1/events", {"name": "Bought", "id": "e-1", "timestamp": 1767268800}),
            {"accepted": 1},
            {},
        ),
        Row(
            "again",
            customerio("POST", "c-1/events", {"name": "Bought", "id": "e-1", "timestamp": 1767268800}),
            {"duplicate": 1},
            {},
        ),
        Row("no name", customerio("POST", "c-1/events", {"data": {}}), {"rejected:missing_event": 1}, {}),
        Row(
            "an address that is none",
            customerio("PUT", "c-1", {"email": "nobody"}),
            {"accepted": 1, "warned:email_unusable:no_at": 1},
            {},
        ),
        Row("to delete somebody stores no message", customerio("DELETE", "c-1"), {}, {}, erasures=("user_id:c-1",)),
        Row("again while it is open", customerio("DELETE", "c-1"), {}, {}),
        Row("to suppress", customerio("POST", "c-2/suppress"), {"accepted": 1}, {}, erasures=("user_id:c-2",)),
    ),
)


def operation(action: str, user: str = "c-1", **more: Any) -> dict[str, Any]:
    identifiers = {"id": user} if user else {}
    return {"type": "person", "action": action, "identifiers": identifiers, "timestamp": 1767268800, **more}


def operations(*items: Any) -> Request:
    return post("/api/v2/batch", {"batch": list(items)}, basic=True)


CUSTOMERIO_V2 = Entrance(
    "counts-customerio-v2",
    (
        Row("one", operations(operation("event", name="Bought", id="e-1")), {"accepted": 1}, {}),
        Row(
            "again, and one of nobody, and one that Customer.io does not have",
            operations(
                operation("event", name="Bought", id="e-1"), operation("event", "", name="Bought"), {"type": "robot"}
            ),
            {"duplicate": 1, "rejected:missing_identity": 1, "rejected:unknown_type": 1},
            {
                "errors": [
                    {
                        "batch_index": 1,
                        "reason": "required",
                        "field": "identifiers",
                        "message": "the message has no usable id, email or phone; junk ids such as null are ignored",
                    },
                    {"batch_index": 2, "reason": "invalid", "field": "type", "message": "the type is unknown"},
                ]
            },
            207,
        ),
        Row(
            "to forget one person and to sell to another",
            operations(operation("delete", "c-3"), operation("event", "c-4", name="Bought", id="e-2")),
            {"accepted": 1},
            {},
            erasures=("user_id:c-3",),
        ),
        Row(
            "one operation alone, of nobody",
            post("/api/v2/entity", operation("delete", ""), basic=True),
            {"rejected:missing_identity": 1},
            {"errors": [{"batch_index": 0, "reason": "required", "field": "identifiers"}]},
            400,
        ),
    ),
)


# ------------------------------------------------------------------------------------------ webhooks

SHOPIFY_SECRET = "shpss_0123456789abcdef"
ORDER = {
    "id": 7,
    "name": "#7",
    "created_at": AT,
    "email": "outcomes@example.com",
    "currency": "EUR",
    "total_price": "10.00",
}
FORGET = {"shop_id": 1, "shop_domain": "example.myshopify.com", "customer": {"email": "outcomes@example.com"}}


def shopify_topic(topic: str, body: Any, secret: str | None = SHOPIFY_SECRET) -> Delivery:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json", **({"x-shopify-topic": topic} if topic else {})}
    return Delivery(shopify.FIXTURE, content, secret, headers)


def refusal(reason: str) -> dict[str, str]:
    return {"code": "invalid_signature", "reason": reason}


SHOPIFY = Entrance(
    "counts-shopify",
    (
        Row("an order", shopify_topic("orders/create", ORDER), {"accepted": 1}),
        Row("again", shopify_topic("orders/create", ORDER), {"duplicate": 1}),
        Row("what concerns no person", shopify_topic("products/update", {"id": 1}), {"ignored": 1}),
        Row("no topic", shopify_topic("", ORDER), {"rejected:unreadable": 1}),
        Row("no JSON", shopify_topic("orders/create", b"{"), {"rejected:unreadable": 1}),
        Row(
            "a time of the far future",
            shopify_topic("orders/create", {**ORDER, "id": 8, "created_at": "2999-01-01T00:00:00Z"}),
            {"accepted": 1, "warned:timestamp_future": 1},
        ),
        Row("to be forgotten", shopify_topic("customers/redact", FORGET), erasures=("email:outcomes@example.com",)),
        Row(
            "not signed",
            shopify_topic("orders/create", ORDER, None),
            {"refused:missing": 1},
            refusal("missing"),
            401,
        ),
        Row(
            "signed by somebody else",
            shopify_topic("orders/create", ORDER, "shpss_fedcba9876543210"),
            {"refused:wrong": 1},
            refusal("wrong"),
            401,
        ),
        Row(
            "signed, and broken gzip",
            shopify_topic("orders/create", gzip.compress(b"{}")[:-9]),
            {"refused:invalid_body": 1},
            {"code": "invalid_body"},
            400,
        ),
        Row(
            "too large",
            shopify_topic("orders/create", b" " * 1_000_001),
            {"refused:body_too_large": 1},
            {"code": "body_too_large"},
            400,
        ),
        Row("not POST", get("/v1/sources/SOURCE/webhook"), answer=""),
        Row(
            "a trial of the sample stores nothing",
            post("/v1/sources/SOURCE/test", is_secret=True),
            answer={"accepted": 1, "duplicate": 0, "rejections": [], "signature": "verified"},
        ),
        Row(
            "a trial of what is ignored",
            post("/v1/sources/SOURCE/test", {"id": 1}, is_secret=True, headers={"x-shopify-topic": "products/update"}),
            answer={"accepted": 0, "ignored": 1},
        ),
        Row(
            "a trial of what is rejected",
            post("/v1/sources/SOURCE/test", ORDER, is_secret=True),
            answer={"accepted": 0, "ignored": 0},
        ),
        Row(
            "a trial of an erasure queues none",
            post(
                "/v1/sources/SOURCE/test",
                {**FORGET, "customer": {"email": "trial@example.com"}},
                is_secret=True,
                headers={"x-shopify-topic": "customers/redact"},
            ),
            answer={"accepted": 0, "erasures": ["email:trial@example.com"]},
        ),
    ),
    kind="shopify",
    secret=SHOPIFY_SECRET,
)


def standard_event(event: str = "Looked", **more: Any) -> dict[str, Any]:
    return {"type": event, "timestamp": AT, "user_id": USER, **more}


def standard_delivery(*events: Any, **options: Any) -> Delivery:
    return Delivery(
        standard.FIXTURE, json.dumps(list(events)).encode(), **{"secret": standard.FIXTURE.secret, **options}
    )


STANDARD = Entrance(
    "counts-standard",
    (
        Row(
            "two good ones, one without a name, one of nobody",
            standard_delivery(
                standard_event(), standard_event(), standard_event(""), without(standard_event(), "user_id")
            ),
            {"accepted": 2, "rejected:unreadable": 1, "rejected:missing_identity": 1},
        ),
        Row(
            "a violation of mode warn",
            standard_delivery(standard_event("Warned")),
            {"accepted": 1, "warned:tracking_plan": 1},
            violations={"warn": 1},
        ),
        Row(
            "its retry",
            standard_delivery(standard_event("Warned")),
            {"duplicate": 1, "warned:tracking_plan": 1},
        ),
        Row(
            "a violation of mode quarantine",
            standard_delivery(standard_event("Quarantined")),
            {"rejected:tracking_plan": 1},
            violations={"quarantine": 1},
        ),
        Row(
            "signed too long ago",
            standard_delivery(standard_event(), age_seconds=3_600),
            {"refused:stale": 1},
            refusal("stale"),
            401,
        ),
        Row(
            "signed with another secret",
            standard_delivery(standard_event(), secret=standard.FIXTURE.other_secret),
            {"refused:wrong": 1},
            refusal("wrong"),
            401,
        ),
    ),
    kind="standard",
    secret=standard.FIXTURE.secret,
)


def mailgun_delivery(id: str, token: str) -> Delivery:
    """Return a Mailgun webhook, whose signature covers the time and the token but not the event."""
    signature = hmac.new(mailgun.FIXTURE.secret.encode(), f"{BEGAN}{token}".encode(), sha256).hexdigest()
    event = {"event": "opened", "id": id, "timestamp": BEGAN, "recipient": "outcomes@example.com"}
    proof = {"timestamp": str(BEGAN), "token": token, "signature": signature}
    body = json.dumps({"signature": proof, "event-data": event}).encode()
    return Delivery(mailgun.FIXTURE, body, mailgun.FIXTURE.secret)


MAILGUN = Entrance(
    "counts-mailgun",
    (
        Row("one", mailgun_delivery("a", "token-1"), {"accepted": 1}),
        Row("its retry", mailgun_delivery("a", "token-1"), {"duplicate": 1}),
        Row(
            "the same token for another body",
            mailgun_delivery("b", "token-1"),
            {"refused:replayed": 1},
            refusal("replayed"),
            401,
        ),
    ),
    kind="mailgun",
    secret=mailgun.FIXTURE.secret,
)

POSTMARK = Entrance(
    "counts-postmark",
    (
        Row(
            "a source without a secret takes nothing",
            Delivery(postmark.FIXTURE, postmark.FIXTURE.sample.body, "a-token-of-somebody"),
            {"refused:missing": 1},
            refusal("missing"),
            401,
        ),
    ),
    kind="postmark",
)


# ------------------------------------------------------------------------------------------ replay

PLAN_PATH = "/v1/tracking-plan/Quarantined?source=SOURCE"
MEND = [{"op": "add", "path": "/event", "value": "Mended"}]
BULK = {"code": "missing_event"}

REPLAY = Entrance(
    "counts-replay",
    (
        Row("no event", call("m-1", ""), {"rejected:missing_event": 1}),
        Row("replayed as it is", Replay({"message_id": "m-1"}), {"rejected:missing_event": 1}, quarantined=0),
        Row("corrected", Replay({"message_id": "m-1"}, track("m-1")), {"accepted": 1}, quarantined=-1),
        Row("corrected again", Replay({"message_id": "m-1"}, track("m-1")), {"duplicate": 1}),
        Row(
            "corrected to what is no message",
            Replay({"message_id": "m-1"}, "no object"),
            {"rejected:not_an_object": 1},
            quarantined=0,
        ),
        Row(
            "of nobody",
            post("/v1/batch", batch(without(track("m-2", "Warned"), "userId"))),
            {"rejected:missing_identity": 1},
        ),
        Row(
            "corrected, and a violation of mode warn",
            Replay({"message_id": "m-2"}, track("m-2", "Warned")),
            {"accepted": 1, "warned:tracking_plan": 1},
            violations={"warn": 1},
            quarantined=-1,
        ),
        Row(
            "a violation of mode quarantine",
            call("m-3", "Quarantined"),
            {"rejected:tracking_plan": 1},
            violations={"quarantine": 1},
        ),
        Row(
            "replayed under the same plan",
            Replay({"message_id": "m-3"}),
            {"rejected:tracking_plan": 1},
            violations={"quarantine": 1},
            quarantined=0,
        ),
        Row(
            "the plan warns from now on",
            post(PLAN_PATH, {"mode": "warn", "schema": PLANNED}, "PUT", is_secret=True),
            answer={"mode": "warn"},
        ),
        Row(
            "replayed under the new plan",
            Replay({"message_id": "m-3"}),
            {"accepted": 1, "warned:tracking_plan": 1},
            violations={"warn": 1},
            quarantined=-1,
        ),
        Row(
            "an erasure of nobody",
            operations(operation("delete", "")),
            {"rejected:missing_identity": 1},
            {"errors": [{"batch_index": 0, "reason": "required", "field": "identifiers"}]},
            207,
        ),
        Row(
            "corrected, it is queued and stores no message",
            Replay({"code": "missing_identity", "replayed": "false"}, operation("delete", "c-5")),
            {},
            {"accepted": 1, "duplicate": 0, "rejected": 0},
            erasures=("user_id:c-5",),
            quarantined=-1,
        ),
        Row(
            "two without an event",
            post("/v1/batch", batch(track("m-4", ""), track("m-5", ""))),
            {"rejected:missing_event": 2},
        ),
        Row(
            "a dry run of a correction",
            BulkReplay({**BULK, "from": AT}, MEND, dry_run=True),
            {},
            {"accepted": 2, "duplicate": 0, "rejected": 0},
        ),
        Row(
            "a dry run without one",
            BulkReplay(BULK, dry_run=True),
            {},
            {"accepted": 0, "duplicate": 0, "rejected": 2},
        ),
        Row(
            "without a correction",
            BulkReplay(BULK),
            {"rejected:missing_event": 2},
            {"accepted": 0, "duplicate": 0, "rejected": 2},
            quarantined=0,
        ),
        Row("corrected", BulkReplay(BULK, MEND), {"accepted": 2}, {"accepted": 2, "rejected": 0}, quarantined=-2),
        Row("nothing is left", BulkReplay(BULK, MEND), {}, {"accepted": 0, "items": []}),
        Row(
            "the same rows by their ids, and the first one, which was stored with another event",
            BulkReplay(BULK, MEND, names_ids=True),
            {"duplicate": 3},
            {"accepted": 0, "duplicate": 3},
            quarantined=1,
        ),
    ),
)

ENTRANCES: Final = (
    *(TRACK, DROPPED_BOTS, BATCH, IMPORT, MIXPANEL_TRACK, MIXPANEL_ENGAGE, MIXPANEL_IMPORT, POSTHOG, POSTHOG_V1, GA4),
    *(BEACON, RUDDER_PIXEL, SEGMENT_PIXEL, JITSU, CUSTOMERIO_V1, CUSTOMERIO_V2, SHOPIFY, STANDARD, MAILGUN, POSTMARK),
    REPLAY,
)


# ------------------------------------------------------------------------------------------ the tests


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def create_source(http: httpx.Client, server: Server, entrance: Entrance) -> Target:
    """Create the source of the entrance. It gets the secret and, for SDKs and flat events, a tracking plan."""
    secret = {"Authorization": f"Bearer {server.secret_key}"}
    options = {"key": entrance.key, "kind": entrance.kind, "bots": entrance.bots}
    created = http.post("/v1/sources", json=options, headers=secret).raise_for_status().json()
    if entrance.secret:
        path = f"/v1/sources/{entrance.key}/secrets"
        http.post(path, json={"secret": entrance.secret}, headers=secret).raise_for_status()
    for event, mode in (("Warned", "warn"), ("Quarantined", "quarantine")):
        path = f"/v1/tracking-plan/{event}?source={entrance.key}"
        http.put(path, json={"mode": mode, "schema": PLANNED}, headers=secret).raise_for_status()
    return Target(http, server.secret_key, entrance.key, created["write_key"])


@pytest.mark.parametrize("entrance", ENTRANCES, ids=lambda entrance: entrance.key.removeprefix("counts-"))
def test_each_outcome_counts_once(server: Server, http: httpx.Client, entrance: Entrance) -> None:
    target = create_source(http, server, entrance)
    before = read_all(target)
    for row in entrance.rows:
        response = row.request.send(target)
        after = read_all(target)
        assert changes(before, after) == expected_changes(entrance, row), row.about
        assert_answer(row, response)
        before = after


def test_import_command_counts_in_health(server: Server, http: httpx.Client, tmp_path: Path) -> None:
    """``segue import`` is a separate process, so it counts in the source's health but not in the server's metrics."""
    entrance = Entrance("counts-import-command", ())
    target = create_source(http, server, entrance)
    file = tmp_path / "messages.ndjson"
    lines = (
        *(track("m-1"), track("m-2"), track("m-1"), track("m-3", ""), track("m-4", "Warned")),
        *(track("m-5", timestamp="2999-01-01T00:00:00Z"), track("m-6", "Quarantined")),
    )
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    before = read_all(target)
    done = server.command("import", str(file), "--source", entrance.key)
    assert done.returncode == 0, done.stderr
    assert "4 accepted, 1 duplicate, 2 rejected." in done.stdout
    outcomes = {
        "accepted": 4,
        "duplicate": 1,
        "rejected:missing_event": 1,
        "rejected:tracking_plan": 1,
        "warned:tracking_plan": 1,
        "warned:timestamp_future": 1,
    }
    expected = expected_changes(entrance, Row("an import", call(""), outcomes))
    assert changes(before, read_all(target)) == {**expected, "metrics": {}}
    violations = target.ask("/v1/tracking-plan/violations", source=entrance.key)["items"]
    assert {violation["event"]: violation["messages"] for violation in violations} == {"Warned": 1, "Quarantined": 1}


@pytest.mark.parametrize(
    ("request_of_nobody", "status", "code"),
    [
        (post("/v1/track", {**track("m-1"), "writeKey": "wk_unknown"}), 401, "unauthorized"),
        (post("/track", [mixpanel_event("a", token="wk_unknown")]), 401, "unauthorized"),
        (post("/e/", {**posthog_batch(posthog_event("a")), "api_key": "wk_unknown"}), 401, "unauthorized"),
        (post("/mp/collect?api_secret=wk_unknown", measurement({"name": "a"})), 401, "unauthorized"),
        (get("/pixel/v1/track?writeKey=wk_unknown&event=Opened&userId=u"), 401, "unauthorized"),
        (post("/api/v2/batch", {"batch": []}, headers={"Authorization": "Basic c2l0ZTprZXk="}), 401, "unauthorized"),
        (post("/v1/sources/nobodys/webhook", {"id": 1}), 404, "not_found"),
        (post("/v1/sources/default/webhook", {"id": 1}), 404, "not_found"),
        (post("/v1/quarantine/999999999/replay", is_secret=True), 404, "not_found"),
    ],
    ids=lambda value: value.path.partition("?")[0] if isinstance(value, Request) else "",
)
def test_unknown_key_or_source_counts_nowhere(
    server: Server, http: httpx.Client, request_of_nobody: Request, status: int, code: str
) -> None:
    target = Target(http, server.secret_key, "default", server.write_key)
    before = read_all(target)
    response = request_of_nobody.send(target)
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    assert changes(before, read_all(target)) == {"metrics": {}, "health": {}, "erasures": {}}
