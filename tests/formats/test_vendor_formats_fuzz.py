"""Fuzz tests of the vendor formats: any body is refused, or each item is rejected or can be stored."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from app.errors import BadRequest
from app.formats import customerio_track, ga4, mixpanel, pixel, posthog
from app.formats.encodings import unwrap
from app.formats.segment import Envelope, normalise
from app.quarantine import reparse
from tests.formats.test_segment_fuzz import PIECES, SCALARS, SOURCE, TEXTS, assert_storable
from tests.support.segment_requests import NOW, SETTINGS

LIMITS = SETTINGS.limits
FORMS = (
    "",
    "mixpanel/track?moment=1777888800000000",
    "mixpanel/import?sent=1777888800000000&moment=1777888800000000",
    "mixpanel/engage?moment=0",
    "posthog?sent=1777888800000000&moment=1777888800000000",
    "posthog/v1?sdk=posthog-python%2F7&moment=1777888800000000",
    "ga4?moment=1777888800000000",
    "customerio?moment=1777888800000000",
)


def reparse_with_form(form: str, body: bytes) -> Envelope:
    return reparse.reparse(body, form, NOW, LIMITS, {})


def read_call(call: str, body: bytes) -> Envelope:
    return customerio_track.read_call(call, as_path_text(body), as_path_text(body), body, NOW, LIMITS)


def as_path_text(body: bytes) -> str:
    return body.decode(errors="replace")[:300]


FORMATS: dict[str, Callable[[bytes], Envelope]] = {
    "track": lambda body: mixpanel.read(body, "track", NOW, LIMITS, "1777888800000"),
    "import": lambda body: mixpanel.read(body, "import", NOW, LIMITS),
    "posthog v1": lambda body: posthog.read(
        body, NOW, LIMITS, sdk=as_path_text(body), sent_at_header=as_path_text(body)
    ),
    "customerio v2": lambda body: customerio_track.read_operation(body, NOW, LIMITS),
    "customerio batch": lambda body: customerio_track.read_batch(body, NOW, LIMITS),
    **{f"customerio {call}": partial(read_call, call) for call in customerio_track.CALLS},
    "engage": lambda body: mixpanel.read(body, "engage", NOW, LIMITS),
    "posthog": lambda body: posthog.read(body, NOW, LIMITS),
    "ga4": lambda body: ga4.read(body, "wk", NOW, LIMITS),
    **{form or "guessed": partial(reparse_with_form, form) for form in FORMS},
    "pixel": lambda body: pixel.read_data(b64encode(body).decode(), "track", NOW, LIMITS),
}
WORDS = """
event properties distinct_id $device_id $user_id token time $insert_id alias ip $distinct_ids $distinct_id
$token $set $set_once $unset $delete $time $group_key api_key uuid timestamp offset sent_at $current_url
$referrer $lib $is_identified $anon_distinct_id $group_set $session_entry_url client_id user_id
timestamp_micros name params user_properties value page_location source messageId type writeKey other
action identifiers id email cio_id anonymous_id attributes primary secondary device data batch cio_relationships
relationships recipient options session_id created_at
"""
NAMES = st.sampled_from(WORDS.split())
EVENTS = st.sampled_from(
    [
        "person",
        "object",
        "delivery",
        "identify",
        "merge",
        "delete",
        "add_device",
        "$identify",
        "$create_alias",
        "$merge",
        "$mp_web_page_view",
        "$pageview",
        "$screen",
        "$set",
    ]
)
VALUES = st.recursive(
    SCALARS | EVENTS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | TEXTS, inner, max_size=5)
)
ITEMS = st.fixed_dictionaries(
    {"event": EVENTS | st.sampled_from(["page_view", "E"]), "properties": st.dictionaries(NAMES, VALUES, max_size=8)},
    optional={"$set": VALUES, "timestamp": VALUES, "offset": VALUES, "distinct_id": VALUES, "name": VALUES},
) | st.dictionaries(NAMES, VALUES, max_size=8)
BODIES = (
    ITEMS
    | st.lists(ITEMS | VALUES, max_size=4)
    | st.fixed_dictionaries(
        {}, optional={"batch": st.lists(ITEMS) | VALUES, "events": st.lists(ITEMS), "api_key": TEXTS}
    )
)


def assert_sound(format_: str, body: bytes) -> None:
    try:
        envelope: Envelope = FORMATS[format_](body)
    except BadRequest:
        return
    assert len(envelope.items) == len(envelope.originals)
    parsed = normalise(envelope, SOURCE, NOW, SETTINGS)
    rejected = [rejection for rejection in parsed.rejections if rejection not in envelope.rejections]
    assert len(parsed.messages) + len(rejected) == len(envelope.items)
    for _, message in parsed.messages:
        assert_storable(message)


@given(st.sampled_from(sorted(FORMATS)), BODIES)
@example("track", {"event": "$create_alias", "properties": {"alias": "\ud800", "distinct_id": "\0"}})
@example("posthog", {"event": "E", "properties": {"$set": {"\0": "\ud800"}, "$unset": ["\0", 1, None], "uuid": "\0"}})
@example("ga4", {"client_id": "\0", "events": [{"name": "page_view", "params": {"page_location": "\ud800"}}]})
def test_any_json_returns_storable_messages_or_bad_request(format_: str, body: Any) -> None:
    assert_sound(format_, json.dumps(body).encode())


@given(st.sampled_from(sorted(FORMATS)), st.lists(st.sampled_from(PIECES) | st.binary(max_size=5), max_size=30))
def test_any_bytes_return_storable_messages_or_bad_request(format_: str, pieces: list[bytes]) -> None:
    assert_sound(format_, b"".join(pieces))


@given(
    st.sampled_from([b"", b"data=", b"data=%7B", b"verbose=1&data=", b"\x1f\x8b"]),
    st.lists(st.sampled_from([*PIECES, b"%", b"+", b"=", b"&", b"data"]) | st.binary(max_size=5), max_size=20),
    st.sampled_from([None, "gzip", "deflate", "br"]),
)
def test_any_encoding_returns_storable_messages_or_bad_request(
    start: bytes, pieces: list[bytes], encoding: str | None
) -> None:
    try:
        payload = unwrap(start + b"".join(pieces), encoding, LIMITS)
    except BadRequest:
        return
    assert_sound("track", payload.body)


@given(st.dictionaries(NAMES | TEXTS, TEXTS, max_size=8))
def test_any_pixel_query_returns_storable_messages(query: dict[str, str]) -> None:
    storable = {name: value for name, value in query.items() if (name + value).isprintable()}
    envelope = pixel.read_query(storable.items(), "track", NOW, LIMITS)
    for _, message in normalise(envelope, SOURCE, NOW, SETTINGS).messages:
        assert_storable(message)
