"""Tests of the enrichment of web messages: client, acquisition, channel_rule, address and country."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config import Settings
from app.errors import RejectionCode
from app.formats.segment import Parsed, normalise, read
from app.formats.web_context import mask_address
from app.touchpoint import Message, Peer, SourceView
from tests.support.segment_requests import NOW, SOURCE, kinds, track

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
)
PHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.1 Mobile/15E148 Safari/604.1"
)
GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
VISITOR = Peer("203.0.113.77", CHROME, "NL")
HERE = "https://shop.example.com/landing"
COUNTRIES = {"country_database": "/nowhere.mmdb"}


def parse_batch(
    *items: dict[str, Any],
    peer: Peer | None = VISITOR,
    source: SourceView = SOURCE,
    settings: Any = None,
    **envelope: Any,
) -> Parsed:
    chosen = Settings.model_validate(settings or {})
    body = json.dumps({"batch": list(items), **envelope}).encode()
    return normalise(read(body, "batch", chosen.limits), source, NOW, chosen, peer)


def read_message(item: dict[str, Any], **options: Any) -> Message:
    parsed = parse_batch(item, **options)
    assert parsed.rejections == []
    return parsed.messages[0][1]


def context(item: dict[str, Any], **options: Any) -> Any:
    return json.loads(read_message(item, **options).context)


def page(url: str = HERE, referrer: str = "", **more: Any) -> dict[str, Any]:
    merged = {"library": {"name": "segue.js"}, "page": {"url": url, "referrer": referrer}} | more
    return {"type": "page", "anonymousId": "a-1", "messageId": "m-1", "context": merged}


def web_track(**more: Any) -> dict[str, Any]:
    return track(context={"library": {"name": "analytics.js"}} | more)


# -------------------------------------------------------------------------------------------------- acquisition


def test_page_view_with_campaign_and_click_id() -> None:
    url = f"{HERE}?utm_source=google&utm_medium=cpc&utm_campaign=Spring&utm_term=shoes&utm_content=top&gclid=x"
    result = read_message(page(url, "https://www.google.com/"))
    stored = json.loads(result.context)
    assert stored["acquisition"] == {
        "group": "Paid Search",
        "source": "google",
        "medium": "cpc",
        "campaign": "Spring",
        "term": "shoes",
        "content": "top",
        "click_id": "gclid",
        "rule": "click_id:gclid",
    }
    assert (result.channel, stored["channel_rule"]) == ("ads", "click_id:gclid")
    assert stored["page"]["url"] == url


@pytest.mark.parametrize(
    ("referrer", "channel"),
    [
        ("https://www.google.com/", "search"),
        ("https://www.reddit.com/", "social"),
        ("https://web.whatsapp.com/", "chat"),
        ("https://chatgpt.com/", "ai"),
        ("https://mail.google.com/", "email"),
        ("https://blog.example.org/", "referral"),
        ("", "web"),
        ("https://www.example.com/", "web"),
    ],
)
def test_channels_of_page_views(referrer: str, channel: str) -> None:
    assert read_message(page(referrer=referrer)).channel == channel


def test_direct_visit_has_the_group_direct_and_the_channel_web() -> None:
    result = read_message(page())
    stored = json.loads(result.context)
    assert (result.channel, stored["channel_rule"], stored["acquisition"]["group"]) == ("web", "direct", "Direct")


def test_page_view_from_the_same_site_has_no_acquisition() -> None:
    stored = context(page(referrer="https://shop.example.com/"))
    assert "acquisition" not in stored
    assert stored["channel_rule"] == "library"


def test_channel_precedence_is_explicit_source_acquisition() -> None:
    arriving = page(f"{HERE}?gclid=1")
    stored = context(page(f"{HERE}?gclid=1", channel="In Store"))
    assert (stored["channel_rule"], stored["acquisition"]["group"]) == ("explicit", "Paid Search")
    assert read_message(page(f"{HERE}?gclid=1", channel="In Store")).channel == "in_store"
    result = read_message(arriving, source=SourceView("site", "support"))
    assert (result.channel, json.loads(result.context)["channel_rule"]) == ("support", "source_default")
    assert read_message(arriving).channel == "ads"


def test_only_page_views_get_their_channel_from_acquisition() -> None:
    result = read_message(web_track(page={"url": f"{HERE}?gclid=1", "referrer": "https://www.google.com/"}))
    stored = json.loads(result.context)
    assert result.channel == "web"
    assert stored["channel_rule"] == "library"
    assert "acquisition" not in stored
    result = read_message(web_track(campaign={"name": "Spring", "source": "news", "medium": "email"}))
    assert result.channel == "web"
    assert json.loads(result.context)["acquisition"]["group"] == "Email"
    assert "acquisition" not in context(web_track(campaign={}))


def test_acquisition_reads_page_properties() -> None:
    item = page() | {
        "context": {"library": {"name": "analytics.js"}},
        "properties": {"url": HERE, "search": "?utm_source=news&utm_medium=email", "referrer": "https://t.co/"},
    }
    assert context(item)["acquisition"]["rule"] == "utm:medium"
    item["properties"] = {"url": HERE, "referrer": "https://t.co/"}
    assert context(item)["acquisition"]["rule"] == "referrer:social:t.co"


def test_acquisition_reads_click_ids_and_referrer_of_the_context() -> None:
    assert context(page(clickIds={"ttclid": "1"}))["acquisition"]["click_id"] == "ttclid"
    base = {"library": {"name": "analytics.js"}, "page": {"url": HERE}}
    for referrer in ("https://t.co/", {"url": "https://t.co/", "type": "x"}):
        item = page() | {"context": base | {"referrer": referrer}}
        assert context(item)["acquisition"]["rule"] == "referrer:social:t.co"


def test_envelope_context_is_enriched() -> None:
    item = {"type": "page", "anonymousId": "a", "context": {"page": {"url": HERE, "referrer": "https://t.co/"}}}
    shared = {"library": {"name": "segue.js"}, "userAgent": PHONE, "client": "forged"}
    stored = context(item, context=shared)
    assert stored["acquisition"]["source"] == "twitter"
    assert stored["client"]["device"] == "mobile"


def test_page_without_a_library_gets_no_connection_data() -> None:
    item = page() | {"context": {"page": {"url": HERE, "referrer": "https://t.co/"}}}
    result = read_message(item)
    assert result.channel == "social"
    assert set(json.loads(result.context)) == {"page", "acquisition", "channel_rule"}
    assert context(item | {"context": {}}) == {}


# ------------------------------------------------------------------------------------------- reserved names

FORGED: dict[str, Any] = {
    "acquisition": {"group": "Paid Search"},
    "client": {"device": "tv"},
    "channel_rule": "explicit",
}


def test_server_overwrites_reserved_names() -> None:
    stored = context(page(referrer="https://shop.example.com/", **FORGED))
    assert "acquisition" not in stored
    assert stored["client"] == {"device": "desktop", "browser": "Chrome", "browser_version": "140", "os": "Windows",
                              "os_version": "10"}  # fmt: skip
    assert stored["channel_rule"] == "library"


@pytest.mark.parametrize("library", ["analytics-node", "analytics-ios", None])
def test_reserved_names_are_removed_for_other_libraries(library: str | None) -> None:
    named = {"library": {"name": library}} if library else {}
    stored = context(track(context={**named, **FORGED, "kept": 1}))
    assert stored == {**named, "kept": 1}


def test_reserved_names_are_removed_if_escaped_or_duplicate() -> None:
    raw = (
        b'{"batch":[{"type":"track","event":"E","userId":"u","context":{"\\u0061cquisition":{"group":"x"},"client":1,'
        b'"client":2,"traits":3,"library":{"name":"analytics-node"}}}]}'
    )
    parsed = normalise(read(raw, "batch", Settings().limits), SOURCE, NOW, Settings(), VISITOR)
    assert json.loads(parsed.messages[0][1].context) == {"traits": 3, "library": {"name": "analytics-node"}}
    raw = raw.replace(b"analytics-node", b"analytics.js")
    parsed = normalise(read(raw, "batch", Settings().limits), SOURCE, NOW, Settings(), VISITOR)
    stored = json.loads(parsed.messages[0][1].context)
    assert stored["client"]["browser"] == "Chrome"
    assert "acquisition" not in stored


def test_messages_of_other_libraries_are_unchanged() -> None:
    for sent in ({"library": {"name": "analytics-python"}, "ip": "203.0.113.9"}, {}, {"userAgent": CHROME}):
        assert context(track(context=sent)) == sent


def test_enrichment_does_not_change_digest_or_hashed_id() -> None:
    item = page(referrer="https://www.google.com/")
    del item["messageId"]
    messages = [read_message(item, peer=peer) for peer in (None, VISITOR, Peer("198.51.100.1", PHONE, "PT"))]
    assert len({message.digest for message in messages}) == 1
    assert len({message.message_id for message in messages}) == 1
    assert len({message.key for message in messages}) == 1
    assert len({message.context for message in messages}) == 3


# --------------------------------------------------------------------------------------------------- client, bots


def test_user_agent_of_the_message_overrides_the_header() -> None:
    assert context(page(userAgent=PHONE))["client"] == {
        "device": "mobile",
        "browser": "Mobile Safari",
        "browser_version": "18.1",
        "os": "iOS",
        "os_version": "18.1",
    }
    assert context(page(), peer=Peer(None, PHONE))["client"]["os"] == "iOS"
    assert "client" not in context(page(), peer=None)
    assert "client" not in context(page(userAgent=7), peer=None)


@pytest.mark.parametrize("program", ["python-httpx/0.28.1", "curl/8.5.0", "node", "Go-http-client/1.1", "", None])
def test_forwarding_server_is_not_the_visitor(program: str | None) -> None:
    stored = context(page(), peer=Peer("198.51.100.7", program, "US"))
    assert "client" not in stored
    assert "ip" not in stored


@pytest.mark.parametrize(("bots", "quarantined"), [("quarantine", True), ("drop", False)])
def test_bots_are_refused(bots: Any, quarantined: bool) -> None:
    for item, peer in ((page(userAgent=GOOGLEBOT), VISITOR), (page(), Peer(None, GOOGLEBOT)),
                       (page(), Peer(None, "Googlebot/2.1 (+http://www.google.com/bot.html)"))):  # fmt: skip
        parsed = parse_batch(item, track(), peer=peer, source=SourceView("site", bots=bots))
        assert [index for index, _ in parsed.messages] == [1]
        [rejected] = parsed.rejections
        assert (rejected.code, rejected.message_id, rejected.is_quarantined) == (RejectionCode.BOT, "m-1", quarantined)
    assert parsed.warnings == []


def test_bots_are_stored_if_the_source_keeps_them() -> None:
    assert context(page(userAgent=GOOGLEBOT), source=SourceView("site", bots="keep"))["client"]["device"] == "bot"


def test_user_agent_of_a_server_library_is_not_a_bot() -> None:
    assert read_message(track(context={"library": {"name": "analytics-python"}, "userAgent": GOOGLEBOT}))


def test_invalid_message_of_a_bot_has_its_own_code() -> None:
    item = page(userAgent=GOOGLEBOT)
    del item["anonymousId"]
    assert parse_batch(item).rejections[0].code == RejectionCode.MISSING_IDENTITY


def test_original_of_a_bot_message_needs_no_envelope() -> None:
    item = {"type": "page", "anonymousId": "a", "timestamp": "2026-05-04T09:00:00Z", "context": {"page": {"url": HERE}}}
    shared = {"library": {"name": "segue.js"}, "userAgent": GOOGLEBOT}
    parsed = parse_batch(item, context=shared, sentAt="2026-05-04T09:30:00Z")
    [rejected] = parsed.rejections
    keeping_source = SourceView("site", bots="keep")
    body = b'{"batch":[' + rejected.original + b"]}"
    [(_, replayed)] = normalise(read(body, "batch", Settings().limits), keeping_source, NOW, Settings()).messages
    direct = read_message(item, source=keeping_source, context=shared, sentAt="2026-05-04T09:30:00Z")
    assert (replayed.message_id, replayed.occurred_at) == (direct.message_id, direct.occurred_at)
    assert kinds(replayed) == kinds(direct)
    stored = json.loads(replayed.context)
    assert (stored["client"]["device"], stored["acquisition"]["group"]) == ("bot", "Direct")


def test_original_of_a_bot_message_has_the_type_of_its_route() -> None:
    item = page(userAgent=GOOGLEBOT)
    del item["type"]
    parsed = normalise(read(json.dumps(item).encode(), "p", Settings().limits), SOURCE, NOW, Settings(), VISITOR)
    assert json.loads(parsed.rejections[0].original)["type"] == "page"


# ----------------------------------------------------------------------------------------------- address, country


@pytest.mark.parametrize(
    ("policy", "address", "masked"),
    [
        ("truncated", "203.0.113.77", "203.0.113.0"),
        ("truncated", "2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
        ("truncated", "::ffff:203.0.113.77", "203.0.113.0"),
        ("truncated", "fe80::1%eth0", "fe80::"),
        ("truncated", "0.0.0.0", "0.0.0.0"),
        ("full", "2001:DB8::1", "2001:db8::1"),
        ("full", " 203.0.113.77 ", "203.0.113.77"),
        ("none", "203.0.113.77", None),
        ("truncated", "not an address", None),
        ("full", "203.0.113.77, 10.0.0.1", None),
        ("full", "1" * 400, None),
    ],
)
def test_mask_address(policy: str, address: str, masked: str | None) -> None:
    assert mask_address(address, policy) == masked


def test_the_address_of_a_web_message() -> None:
    assert context(page())["ip"] == "203.0.113.0"
    assert context(page(ip="198.51.100.9"))["ip"] == "198.51.100.0"
    assert context(page(ip=7))["ip"] == "203.0.113.0"
    assert context(page(), settings={"addresses": "full"})["ip"] == "203.0.113.77"
    assert "ip" not in context(page(ip="198.51.100.9"), settings={"addresses": "none"})
    assert "ip" not in context(page(), peer=None)


def test_the_country_of_a_web_message() -> None:
    assert "location" not in context(page())
    assert context(page(), settings=COUNTRIES)["location"] == {"country": "NL"}
    sent = {"city": "Porto", "country": "PT"}
    assert context(page(location=sent), settings=COUNTRIES)["location"] == {"city": "Porto", "country": "NL"}
    unknown = Peer("192.0.2.1", CHROME, None)
    assert context(page(location=sent), settings=COUNTRIES, peer=unknown)["location"] == {"city": "Porto"}
    assert "location" not in context(page(location="PT"), settings=COUNTRIES, peer=unknown)
    forged = Peer("192.0.2.1", "curl/8.5.0", "US")
    assert context(page(location=sent), settings=COUNTRIES, peer=forged)["location"] == {"city": "Porto"}
    assert context(page(location=sent), settings=COUNTRIES, peer=None)["location"] == sent
    assert context(page(location=sent))["location"] == sent


# ----------------------------------------------------------------------------------------------------- odd contexts

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    ["page", "campaign", "clickIds", "referrer", "userAgent", "ip", "location", "acquisition", "client", "channel_rule",
     "channel", "traits"]
)  # fmt: skip


@given(
    sent=st.dictionaries(NAMES, JSON | st.dictionaries(st.sampled_from(["url", "search", "referrer", "source"]), JSON))
)
def test_any_context_is_accepted(sent: dict[str, Any]) -> None:
    item = page() | {"properties": sent, "context": {"library": {"name": "segue.js"}, **sent}}
    result = read_message(item)
    stored = json.loads(result.context)
    assert stored["channel_rule"]
    assert b"\\u0000" not in result.context
    for name in sent.keys() - {"ip", *FORGED}:
        assert stored[name] == json.loads(json.dumps(sent[name]).replace("\\u0000", "\\ufffd"))
