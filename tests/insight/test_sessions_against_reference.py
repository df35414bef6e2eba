"""Random visits, divided by the code and by the definition."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from app.insight.sessions import IDLE, Acquisition, Device, Session, SessionEvent, SessionSplitter, SessionTotals
from tests.insight.reference_sessions import figures, figures_told, page, sessions_of
from tests.support.case_count import case_count

CASES = case_count(500)
MONDAY = 1_777_852_800_000_000
"""2026-05-04T00:00:00Z: some stretches of these tests go over a midnight."""

CAMPAIGNS = [
    None,
    Acquisition("Direct", "(direct)", "(none)"),
    Acquisition("Paid Search", "google", "cpc", "spring", click_id="gclid"),
    Acquisition("Paid Search", "google", "cpc", "summer", click_id="gclid"),
    Acquisition("Paid Search", "google", "cpc", "summer"),
    Acquisition("Referral", "news.example.com", "referral"),
]

gaps = st.one_of(
    st.sampled_from([0, 1, 60_000_000, IDLE - 1, IDLE, IDLE + 1, 2 * IDLE]),
    st.integers(0, 2 * IDLE),
)


@st.composite
def visits(draw: st.DrawFn) -> list[SessionEvent]:
    instant, found = MONDAY - draw(gaps), []
    for number in range(draw(st.integers(0, 14))):
        instant += draw(gaps)
        is_view = draw(st.booleans())
        found.append(
            SessionEvent(
                # Ids in no order, so that those of one instant are not met as they were made.
                order=(instant, f"m-{draw(st.integers(0, 9))}-{number}", draw(st.sampled_from(["shop", "app"]))),
                name="page_viewed" if is_view else draw(st.sampled_from(["Clicked", "Page Left", "Page Scrolled"])),
                channel=draw(st.sampled_from(["web", "app", "ads"])),
                page=page(draw(st.sampled_from("/abc"))) if is_view else None,
                acquisition=draw(st.sampled_from(CAMPAIGNS)),
                device=draw(st.sampled_from([None, Device("desktop", "Linux"), Device("mobile", "iOS", "Safari")])),
                session_id=draw(st.sampled_from([None, "1", "2"])),
                click=draw(st.sampled_from([None, None, "abc"])),
            )
        )
    return found


def divided(touchpoints: list[SessionEvent]) -> list[Session]:
    splitter = SessionSplitter()
    over = [splitter.add(each) for each in sorted(touchpoints, key=lambda each: each.order)]
    return [session for session in [*over, splitter.finish()] if session is not None]


@settings(max_examples=CASES)
@given(visits())
def test_sessions_are_those_of_the_definition(touchpoints: list[SessionEvent]) -> None:
    assert [figures_told(each) for each in divided(touchpoints)] == [figures(each) for each in sessions_of(touchpoints)]


@settings(max_examples=CASES)
@given(visits())
def test_each_session_says_why_it_began(touchpoints: list[SessionEvent]) -> None:
    sessions = divided(touchpoints)
    for before, session in zip([None, *sessions], sessions, strict=False):
        gap = None if before is None else session.started_at - before.ended_at
        expected = "first" if gap is None else "pause" if gap >= IDLE else "campaign"
        assert session.begun_by == expected


@settings(max_examples=CASES)
@given(visits())
def test_totals_are_those_of_the_sessions(touchpoints: list[SessionEvent]) -> None:
    totals, sessions = SessionTotals(), divided(touchpoints)
    for session in sessions:
        totals.add(session)
    many = len(sessions)
    assert totals.count == many
    if many == 0:
        assert (totals.bounce_rate, totals.average_duration_seconds, totals.pages_per_session) == (None, None, None)
        return
    lasted = sum(session.ended_at - session.first[0] for session in sessions)
    assert totals.bounce_rate == len([session for session in sessions if session.bounced]) / many
    assert abs((totals.average_duration_seconds or 0) - lasted / 1_000_000 / many) < 1e-6
    assert totals.pages_per_session == len([each for each in _in_sessions(touchpoints) if each.page]) / many


def _in_sessions(touchpoints: list[SessionEvent]) -> list[SessionEvent]:
    return [each for session in sessions_of(touchpoints) for each in session]
