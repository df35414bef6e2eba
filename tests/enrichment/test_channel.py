"""Channel classification: the message, then the source, then the library."""

from __future__ import annotations

import pytest

from app.enrichment.channel import Channel, classify, lower_snake, sender_of


@pytest.mark.parametrize(
    ("explicit", "default", "library", "message_type", "hint", "channel"),
    [
        ("email", "web", "analytics.js", "track", None, "email"),
        ("Email ", None, None, "track", None, "email"),
        ("In Store", None, None, "track", None, "in_store"),
        ("inStore", None, None, "track", None, "in_store"),
        ("???", "support", None, "track", None, "support"),
        ("x" * 51, "support", None, "track", None, "support"),
        (None, "support", "analytics.js", "page", "web", "support"),
        (None, None, "analytics.js", "track", None, "web"),
        (None, None, "@segment/analytics-next", "track", None, "web"),
        (None, None, "RudderLabs JavaScript SDK", "track", "web", "web"),
        (None, None, "segue.js", "track", None, "web"),
        (None, None, "@jitsu/js", "track", None, "web"),
        (None, None, "analytics-ios", "track", None, "app"),
        (None, None, "analytics-android", "page", None, "app"),
        (None, None, "@segment/analytics-react-native", "track", None, "app"),
        (None, None, "analytics-kotlin", "track", None, "app"),
        (None, None, "analytics-swift", "track", None, "app"),
        (None, None, "analytics_flutter", "track", None, "app"),
        (None, None, "RudderStack Swift", "track", None, "app"),
        (None, None, "analytics-python", "page", None, "server"),
        (None, None, "@segment/analytics-node", "screen", None, "server"),
        (None, None, "unheard-of", "track", "mobile", "app"),
        (None, None, None, "track", "web", "web"),
        (None, None, None, "track", "spaceship", "server"),
        (None, None, None, "page", None, "web"),
        (None, None, None, "screen", None, "app"),
        (None, None, None, "track", None, "server"),
        ("", "", "", "identify", "", "server"),
    ],
)
def test_channel_is_classified(
    explicit: str | None, default: str | None, library: str | None, message_type: str, hint: str | None, channel: str
) -> None:
    assert classify(explicit, default, sender_of(library, message_type, hint)).name == channel


def test_channel_names_the_deciding_rule() -> None:
    browser = sender_of("analytics.js", "page")
    arrival = Channel("search", "referrer:search:google.com")
    assert classify("Email", "support", browser, arrival) == ("email", "explicit")
    assert classify("???", "support", browser, arrival) == ("support", "source_default")
    assert classify(None, None, browser, arrival) == arrival
    assert classify(None, None, browser) == ("web", "library")
    assert sender_of(None, "track", "mobile") == ("app", "hint")
    assert sender_of(None, "page") == ("web", "type")
    assert sender_of("analytics-node", "page") == ("server", "library")


def test_channel_names_become_lower_snake() -> None:
    assert [lower_snake(text) for text in ("userId", "HubSpot ID", "a--b", "E-Mail", "\0", "")] == [
        "user_id",
        "hub_spot_id",
        "a_b",
        "e_mail",
        "",
        "",
    ]
