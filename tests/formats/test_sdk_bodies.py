"""Tests with the bodies that stock SDKs send; the values are invented."""

from __future__ import annotations

import gzip
import json

import pytest

from app.errors import BadRequest
from app.formats.decompression import inflate
from app.formats.segment import Parsed, normalise, read
from app.touchpoint import Message
from tests.support.segment_requests import NOW, SECOND, SETTINGS, SOURCE, kinds

ANALYTICS_PYTHON = b"""{"batch": [
 {"type": "track", "event": "Order Completed", "userId": "user-1", "anonymousId": null, "properties": {"total": 42.5},
  "context": {"ip": "203.0.113.9", "library": {"name": "analytics-python", "version": "2.4.0"}}, "integrations": {},
  "timestamp": "2026-05-04T09:59:58.250000+00:00", "messageId": "b7b1dd04-00fb-4692-af9a-fc62755ce47c"},
 {"type": "identify", "userId": "user-1", "anonymousId": null, "traits": {"email": "User@Example.com"},
  "context": {"library": {"name": "analytics-python", "version": "2.4.0"}}, "integrations": {},
  "timestamp": "2026-05-04T09:59:58.500000+00:00", "messageId": "b7b1dd04-00fb-4692-af9a-fc62755ce47d"}],
 "sentAt": "2026-05-04T10:00:00.000000+00:00", "writeKey": "wk_demo"}"""

ANALYTICS_NODE = b"""{"batch":[
 {"timestamp":"2026-05-04T09:59:59.000Z","integrations":{},"userId":"user-1","event":"Clicked","type":"track",
  "properties":{},"context":{"library":{"name":"@segment/analytics-node","version":"3.1.0"}},
  "messageId":"node-next-1777888799000-b7b1dd04","_metadata":{"nodeVersion":"20.1.0"}}],
 "writeKey":"wk_demo","sentAt":"2026-05-04T10:00:00.000Z"}"""

ANALYTICS_NEXT = b"""{"timestamp":"2026-05-04T08:59:59.900Z","integrations":{},"type":"page",
 "category":null,"name":"Home",
 "properties":{"path":"/","referrer":"","search":"","title":"Home","url":"https://example.com/","name":"Home",
  "category":null},
 "context":{"page":{"path":"/","referrer":"","search":"","title":"Home","url":"https://example.com/"},
  "userAgent":"Mozilla/5.0","locale":"en-GB","library":{"name":"analytics.js","version":"npm:next-1.84.3"},
  "timezone":"Europe/London","campaign":{"name":"spring","source":"news"}},
 "messageId":"ajs-next-1777885199900-0d4d4a4c","anonymousId":"d7a5c3bf-0324-4500-8085-27aa41e3e768","userId":null,
 "writeKey":"wk_demo","sentAt":"2026-05-04T09:00:00.000Z",
 "_metadata":{"bundled":["Segment.io"],"unbundled":[],"bundledIds":[],"retryCount":2}}"""

ANALYTICS_NEXT_ALIAS = b"""{"type":"alias","previousId":"user-1","userId":"user-1","anonymousId":"anon-1","context":{},
 "messageId":"ajs-next-2","timestamp":"2026-05-04T10:00:00.000Z","sentAt":"2026-05-04T10:00:00.000Z"}"""

RUDDER_JS = b"""{"type":"identify","userId":"user-1","channel":"web",
 "anonymousId":"d7a5c3bf-0324-4500-8085-27aa41e3e768","messageId":"a4ad2a8d-03cd-40c0-b930-d8e72bd1f49d","originalTimestamp":"2026-05-04T09:59:59.000Z",
 "sentAt":"2026-05-04T10:00:00.000Z","integrations":{"All":true},"context":{"traits":{"email":"user@example.com"},
 "sessionId":1777888800000,"library":{"name":"RudderLabs JavaScript SDK","version":"3.34.1"}}}"""

RUDDER_NODE = b"""{"batch":[{"type":"screen","name":"Cart","userId":"user-1","channel":"server",
  "properties":{"items":2},
 "context":{"library":{"name":"@rudderstack/rudder-sdk-node","version":"3.0.13"}},"messageId":"r-1",
 "originalTimestamp":"2026-05-04T09:59:59.000Z","sentAt":"2026-05-04T10:00:00.000Z","_metadata":{"nodeVersion":"20.1.0"}}],
 "sentAt":"2026-05-04T10:00:03.000Z"}"""

JITSU = b"""{"type":"track","event":"Order Completed","properties":{"total":42.5},"userId":null,"groupId":null,
 "anonymousId":"43a5511e-3fd8-4c7a-92d1-9192f5e3cc31","timestamp":"2026-05-04T10:00:00.000Z",
 "sentAt":"2026-05-04T10:00:00.000Z","messageId":"1vhjqqhcu3gpaaycj4ixa","writeKey":"id:***",
 "context":{"library":{"name":"@jitsu/js","version":"1.11.0","env":"browser"},"page":{"url":"https://example.com/p"}}}"""


def parse_clean(body: bytes, route: str) -> Parsed:
    parsed = normalise(read(inflate(body, None, SETTINGS.limits), route, SETTINGS.limits), SOURCE, NOW, SETTINGS)
    assert (parsed.rejections, parsed.warnings) == ([], [])
    return parsed


def first_message(body: bytes, route: str) -> Message:
    return parse_clean(body, route).messages[0][1]


@pytest.mark.parametrize("body", [ANALYTICS_PYTHON, gzip.compress(ANALYTICS_PYTHON)])
def test_analytics_python_batch(body: bytes) -> None:
    (_, track), (_, identify) = parse_clean(body, "batch").messages
    assert (track.name, track.channel, track.occurred_at) == ("Order Completed", "server", NOW - 1_750_000)
    assert track.message_id == "b7b1dd04-00fb-4692-af9a-fc62755ce47c"
    assert kinds(track) == ["user_id:user-1"]
    assert kinds(identify) == ["user_id:user-1", "email:user@example.com"]
    assert identify.name is None
    assert identify.traits == b'{"email": "User@Example.com"}'


def test_analytics_node_batch() -> None:
    message = first_message(ANALYTICS_NODE, "batch")
    assert (message.name, message.channel, message.occurred_at) == ("Clicked", "server", NOW - SECOND)
    assert "_extra" not in json.loads(message.context)


def test_analytics_next_on_a_clock_one_hour_behind() -> None:
    message = first_message(ANALYTICS_NEXT, "p")
    assert (message.name, message.channel, message.occurred_at) == ("page_viewed", "web", NOW - 100_000)
    assert kinds(message) == ["anonymous_id:d7a5c3bf-0324-4500-8085-27aa41e3e768"]
    assert json.loads(message.properties)["name"] == "Home"


def test_analytics_next_alias_of_an_id_to_itself() -> None:
    message = first_message(ANALYTICS_NEXT_ALIAS, "a")
    assert message.previous_id is None
    assert kinds(message) == ["user_id:user-1", "anonymous_id:anon-1"]


def test_rudderstack_js_identifies_by_context_traits() -> None:
    message = first_message(RUDDER_JS, "identify")
    assert (message.channel, message.occurred_at) == ("web", NOW - SECOND)
    assert kinds(message)[:2] == ["user_id:user-1", "email:user@example.com"]
    assert message.traits == b'{"email":"user@example.com"}'
    assert json.loads(message.context)["integrations"] == {"All": True}


def test_rudderstack_node_sends_sent_at_with_each_event() -> None:
    message = first_message(RUDDER_NODE, "batch")
    assert (message.name, message.channel, message.occurred_at) == ("screen_viewed", "server", NOW - SECOND)
    assert json.loads(message.properties) == {"items": 2, "name": "Cart"}


def test_jitsu_track() -> None:
    message = first_message(JITSU, "track")
    assert (message.name, message.channel, message.message_id) == ("Order Completed", "web", "1vhjqqhcu3gpaaycj4ixa")
    assert kinds(message) == ["anonymous_id:43a5511e-3fd8-4c7a-92d1-9192f5e3cc31"]


def test_invalid_body_is_a_bad_request() -> None:
    with pytest.raises(BadRequest):
        parse_clean(b"not json", "track")
