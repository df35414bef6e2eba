"""Boundaries and figures of sessions, case by case."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from app.insight.sessions import (
    ENGAGEMENT,
    IDLE,
    LISTED_MAX,
    Acquisition,
    Device,
    PageView,
    Session,
    SessionEvent,
    SessionSplitter,
    is_visit,
)
from app.touchpoint import DAY, MINUTE

NOON = 1_777_896_000_000_000
SPRING = Acquisition("Paid Search", "google", "cpc", "spring", click_id="gclid")
SUMMER = Acquisition("Paid Search", "google", "cpc", "summer", click_id="gclid")
DIRECT = Acquisition("Direct", "(direct)", "(none)")


def view(at: int, acquisition: Acquisition | None = None, path: str = "/", **fields: Any) -> SessionEvent:
    return _touchpoint(at, "page_viewed", page=PageView(path=path), acquisition=acquisition, **fields)


def did(at: int, name: str = "Product Added", **fields: Any) -> SessionEvent:
    return _touchpoint(at, name, **fields)


_numbers = count()


def _touchpoint(at: int, name: str, channel: str = "web", **fields: Any) -> SessionEvent:
    return SessionEvent((at, f"m-{next(_numbers):05}", "shop"), name, channel, **fields)


def split_sessions(*touchpoints: SessionEvent) -> list[Session]:
    splitter = SessionSplitter()
    ended = [splitter.add(touchpoint) for touchpoint in touchpoints]
    return [session for session in [*ended, splitter.finish()] if session is not None]


def sizes(*touchpoints: SessionEvent) -> list[int]:
    return [session.touchpoints for session in split_sessions(*touchpoints)]


@pytest.mark.parametrize(("gap", "expected"), [(IDLE - 1, [2]), (IDLE, [1, 1]), (IDLE + 1, [1, 1])])
def test_pause_of_half_an_hour_ends_a_session(gap: int, expected: list[int]) -> None:
    assert sizes(view(NOON), view(NOON + gap)) == expected


@pytest.mark.parametrize(("gap", "open"), [(IDLE - 1, True), (IDLE, False), (IDLE + 1, False)])
def test_session_is_open_until_the_pause(gap: int, open: bool) -> None:
    [session] = split_sessions(view(NOON))
    assert session.is_open(NOON + gap) is open
    assert sizes(view(NOON), view(NOON + gap)) == ([2] if open else [1, 1])


def test_session_without_a_pause_has_no_maximum_length() -> None:
    assert sizes(*(view(NOON + number * 29 * MINUTE) for number in range(100))) == [100]


def test_midnight_does_not_end_a_session() -> None:
    midnight = NOON // DAY * DAY + DAY
    assert sizes(view(midnight - 1), view(midnight), view(midnight + 1)) == [3]


def test_only_another_campaign_begins_a_session() -> None:
    [spring, summer] = split_sessions(view(NOON, SPRING), did(NOON + 1), view(NOON + 2, SUMMER), view(NOON + 3, SUMMER))
    assert (spring.touchpoints, spring.acquisition, spring.begun_by) == (2, SPRING, "first")
    assert (summer.touchpoints, summer.acquisition, summer.begun_by) == (2, SUMMER, "campaign")


def test_campaign_after_a_plain_view_begins_a_session() -> None:
    assert [session.acquisition for session in split_sessions(view(NOON, DIRECT), view(NOON + 1, SPRING))] == [
        DIRECT,
        SPRING,
    ]
    assert [session.acquisition for session in split_sessions(view(NOON), view(NOON + 1, SPRING))] == [None, SPRING]


def test_direct_return_within_half_an_hour_extends_the_session() -> None:
    [session] = split_sessions(view(NOON, SPRING), view(NOON + MINUTE, DIRECT), view(NOON + 2 * MINUTE))
    assert (session.acquisition, session.pages) == (SPRING, 3)


@pytest.mark.parametrize("other", ["source", "medium", "campaign", "term", "content", "click_id"])
def test_campaigns_differ_by_any_field(other: str) -> None:
    changed = Acquisition(**{name: getattr(SPRING, name) for name in SPRING.__struct_fields__} | {other: "other"})
    assert len(split_sessions(view(NOON, SPRING), view(NOON + 1, changed))) == 2


def test_two_clicks_on_one_ad_begin_two_sessions() -> None:
    assert len(split_sessions(view(NOON, SPRING, click="abc"), view(NOON + 1, SPRING, click="abc"))) == 1
    assert len(split_sessions(view(NOON, SPRING, click="abc"), view(NOON + 1, SPRING, click="xyz"))) == 2


def test_events_of_two_tabs_split_a_session_once() -> None:
    """Events of a page repeat the page's campaign, which must not start another session."""
    events = [did(NOON + 2 + number, acquisition=(SPRING, SUMMER)[number % 2]) for number in range(10)]
    assert sizes(view(NOON, SPRING), view(NOON + 1, SUMMER), *events) == [1, 11]


def test_event_before_its_view_is_in_the_same_session() -> None:
    [session] = split_sessions(did(NOON, "Experiment Viewed"), view(NOON + 20_000, SPRING, channel="ads"))
    assert (session.acquisition, session.channel, session.begun_by) == (SPRING, "ads", "first")


def test_event_with_a_campaign_before_its_view() -> None:
    assert len(split_sessions(did(NOON, acquisition=SPRING), view(NOON + 1, SPRING))) == 1
    assert len(split_sessions(did(NOON, acquisition=SUMMER), view(NOON + 1, SPRING))) == 2


@pytest.mark.parametrize("name", sorted(ENGAGEMENT))
def test_engagement_event_extends_a_session_that_still_bounces(name: str) -> None:
    [session] = split_sessions(view(NOON), did(NOON + 29 * MINUTE, name))
    assert (session.bounced, session.duration_seconds, session.touchpoints) == (True, 29 * 60.0, 2)
    assert sizes(view(NOON), did(NOON + 29 * MINUTE, name), view(NOON + 58 * MINUTE)) == [3]


def test_engagement_event_begins_no_session() -> None:
    assert split_sessions(did(NOON, "Page Left")) == []
    assert sizes(view(NOON), did(NOON + IDLE, "Page Left"), view(NOON + IDLE + 1)) == [1, 1]


@pytest.mark.parametrize("second", [view(NOON + 1), did(NOON + 1, "Form Submitted")])
def test_session_with_two_actions_does_not_bounce(second: SessionEvent) -> None:
    [session] = split_sessions(view(NOON), second)
    assert not session.bounced


def test_entry_and_exit_page_are_the_first_and_last_view() -> None:
    [session] = split_sessions(did(NOON), view(NOON + 1, path="/hats"), view(NOON + 2, path="/cart"), did(NOON + 3))
    assert (session.entry_page, session.exit_page, session.pages) == (PageView(path="/hats"), PageView(path="/cart"), 2)


def test_session_without_a_view_has_no_pages() -> None:
    [session] = split_sessions(did(NOON))
    assert (session.entry_page, session.exit_page, session.pages, session.bounced) == (None, None, 0, True)


def test_devices_and_session_ids_are_distinct_and_limited() -> None:
    views = [
        view(NOON + number, device=Device(f"d{number}"), session_id=str(number)) for number in range(LISTED_MAX + 5)
    ]
    [session] = split_sessions(*views, *views)
    assert [device.type for device in session.devices] == [f"d{number}" for number in range(LISTED_MAX)]
    assert list(session.session_ids) == [str(number) for number in range(LISTED_MAX)]


@pytest.mark.parametrize(
    ("type", "channel", "library", "expected"),
    [
        ("page", "web", "analytics.js", True),
        ("page", "ads", "analytics.js", True),  # visit from an ad
        ("track", "support", "segue.js", True),  # source with a default channel
        ("track", "app", "analytics-ios", True),
        ("screen", "kiosk", "analytics-android", True),
        ("page", "shop_front", None, True),
        ("track", "web", None, True),  # custom script that sets the channel
        ("track", "server", "analytics-python", False),
        ("track", "server", None, False),
        ("track", "email", None, False),
        ("track", "support", None, False),
        ("track", "sms", "analytics-node", False),
    ],
)
def test_is_visit_by_channel_and_library(type: str, channel: str, library: str | None, expected: bool) -> None:
    assert is_visit(type, channel, library) is expected
