"""Where one session ends and the next begins, case by case."""

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


def view(at: int, acquisition: Acquisition | None = None, path: str = "/", **more: Any) -> SessionEvent:
    return _visited(at, "page_viewed", page=PageView(path=path), acquisition=acquisition, **more)


def did(at: int, name: str = "Product Added", **more: Any) -> SessionEvent:
    return _visited(at, name, **more)


_numbers = count()


def _visited(at: int, name: str, channel: str = "web", **more: Any) -> SessionEvent:
    return SessionEvent((at, f"m-{next(_numbers):05}", "shop"), name, channel, **more)


def divided(*touchpoints: SessionEvent) -> list[Session]:
    splitter = SessionSplitter()
    over = [splitter.add(each) for each in touchpoints]
    return [session for session in [*over, splitter.finish()] if session is not None]


def sizes(*touchpoints: SessionEvent) -> list[int]:
    return [session.touchpoints for session in divided(*touchpoints)]


@pytest.mark.parametrize(("gap", "expected"), [(IDLE - 1, [2]), (IDLE, [1, 1]), (IDLE + 1, [1, 1])])
def test_a_pause_is_half_an_hour_to_the_microsecond(gap: int, expected: list[int]) -> None:
    assert sizes(view(NOON), view(NOON + gap)) == expected


@pytest.mark.parametrize(("gap", "open"), [(IDLE - 1, True), (IDLE, False), (IDLE + 1, False)])
def test_a_session_is_open_while_a_touchpoint_of_now_would_belong_to_it(gap: int, open: bool) -> None:
    [session] = divided(view(NOON))
    assert session.is_open(NOON + gap) is open
    assert sizes(view(NOON), view(NOON + gap)) == ([2] if open else [1, 1])


def test_a_session_lasts_as_long_as_there_is_no_pause() -> None:
    assert sizes(*(view(NOON + each * 29 * MINUTE) for each in range(100))) == [100]


def test_midnight_ends_nothing() -> None:
    midnight = NOON // DAY * DAY + DAY
    assert sizes(view(midnight - 1), view(midnight), view(midnight + 1)) == [3]


def test_another_campaign_begins_a_session_and_the_same_does_not() -> None:
    [spring, summer] = divided(view(NOON, SPRING), did(NOON + 1), view(NOON + 2, SUMMER), view(NOON + 3, SUMMER))
    assert (spring.touchpoints, spring.acquisition, spring.begun_by) == (2, SPRING, "first")
    assert (summer.touchpoints, summer.acquisition, summer.begun_by) == (2, SUMMER, "campaign")


def test_a_campaign_after_a_view_without_one_begins_a_session() -> None:
    assert [each.acquisition for each in divided(view(NOON, DIRECT), view(NOON + 1, SPRING))] == [DIRECT, SPRING]
    assert [each.acquisition for each in divided(view(NOON), view(NOON + 1, SPRING))] == [None, SPRING]


def test_coming_back_directly_within_half_an_hour_goes_on() -> None:
    [session] = divided(view(NOON, SPRING), view(NOON + MINUTE, DIRECT), view(NOON + 2 * MINUTE))
    assert (session.acquisition, session.pages) == (SPRING, 3)


@pytest.mark.parametrize("other", ["source", "medium", "campaign", "term", "content", "click_id"])
def test_a_campaign_is_another_in_any_part(other: str) -> None:
    changed = Acquisition(**{name: getattr(SPRING, name) for name in SPRING.__struct_fields__} | {other: "other"})
    assert len(divided(view(NOON, SPRING), view(NOON + 1, changed))) == 2


def test_two_clicks_on_one_ad_are_two_arrivals() -> None:
    assert len(divided(view(NOON, SPRING, click="abc"), view(NOON + 1, SPRING, click="abc"))) == 1
    assert len(divided(view(NOON, SPRING, click="abc"), view(NOON + 1, SPRING, click="xyz"))) == 2


def test_two_tabs_with_two_campaigns_part_a_session_once() -> None:
    """Events repeat the campaign of their page; they are no arrival."""
    by_turns = [did(NOON + 2 + each, acquisition=(SPRING, SUMMER)[each % 2]) for each in range(10)]
    assert sizes(view(NOON, SPRING), view(NOON + 1, SUMMER), *by_turns) == [1, 11]


def test_an_event_before_its_page_view_is_of_the_same_session() -> None:
    [session] = divided(did(NOON, "Experiment Viewed"), view(NOON + 20_000, SPRING, channel="ads"))
    assert (session.acquisition, session.channel, session.begun_by) == (SPRING, "ads", "first")


def test_an_event_that_knows_its_campaign_before_its_page_view() -> None:
    assert len(divided(did(NOON, acquisition=SPRING), view(NOON + 1, SPRING))) == 1
    assert len(divided(did(NOON, acquisition=SUMMER), view(NOON + 1, SPRING))) == 2


@pytest.mark.parametrize("name", sorted(ENGAGEMENT))
def test_what_a_page_sends_by_itself_extends_a_session_and_is_no_second_look(name: str) -> None:
    [session] = divided(view(NOON), did(NOON + 29 * MINUTE, name))
    assert (session.bounced, session.duration_seconds, session.touchpoints) == (True, 29 * 60.0, 2)
    assert sizes(view(NOON), did(NOON + 29 * MINUTE, name), view(NOON + 58 * MINUTE)) == [3]


def test_what_a_page_sends_by_itself_begins_no_session() -> None:
    assert divided(did(NOON, "Page Left")) == []
    assert sizes(view(NOON), did(NOON + IDLE, "Page Left"), view(NOON + IDLE + 1)) == [1, 1]


@pytest.mark.parametrize("second", [view(NOON + 1), did(NOON + 1, "Form Submitted")])
def test_two_deeds_are_no_bounce(second: SessionEvent) -> None:
    [session] = divided(view(NOON), second)
    assert not session.bounced


def test_entry_and_exit_are_the_first_and_the_last_view() -> None:
    [session] = divided(did(NOON), view(NOON + 1, path="/hats"), view(NOON + 2, path="/cart"), did(NOON + 3))
    assert (session.entry_page, session.exit_page, session.pages) == (PageView(path="/hats"), PageView(path="/cart"), 2)


def test_a_session_without_a_view_has_no_pages() -> None:
    [session] = divided(did(NOON))
    assert (session.entry_page, session.exit_page, session.pages, session.bounced) == (None, None, 0, True)


def test_devices_and_ids_are_told_once_each_and_not_without_end() -> None:
    many = [view(NOON + each, device=Device(f"d{each}"), session_id=str(each)) for each in range(LISTED_MAX + 5)]
    [session] = divided(*many, *many)
    assert [each.type for each in session.devices] == [f"d{each}" for each in range(LISTED_MAX)]
    assert list(session.session_ids) == [str(each) for each in range(LISTED_MAX)]


@pytest.mark.parametrize(
    ("type", "channel", "library", "expected"),
    [
        ("page", "web", "analytics.js", True),
        ("page", "ads", "analytics.js", True),  # brought by an ad
        ("track", "support", "segue.js", True),  # a source with a channel of its own
        ("track", "app", "analytics-ios", True),
        ("screen", "kiosk", "analytics-android", True),
        ("page", "shop_front", None, True),
        ("track", "web", None, True),  # somebody's own script, which says so
        ("track", "server", "analytics-python", False),
        ("track", "server", None, False),
        ("track", "email", None, False),
        ("track", "support", None, False),
        ("track", "sms", "analytics-node", False),
    ],
)
def test_which_touchpoints_are_visits(type: str, channel: str, library: str | None, expected: bool) -> None:
    assert is_visit(type, channel, library) is expected
