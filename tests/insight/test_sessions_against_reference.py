"""Sessions of random visits, compared with the reference."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from app.insight.sessions import IDLE, Acquisition, Device, Session, SessionEvent, SessionSplitter, SessionTotals
from tests.insight.reference_sessions import figures, figures_of_session, page, sessions_of
from tests.support.case_count import case_count

CASES = case_count(500)
MONDAY = 1_777_852_800_000_000
"""2026-05-04T00:00:00Z, which is midnight, so that some sessions of these tests cross it."""

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
    instant, touchpoints = MONDAY - draw(gaps), []
    for number in range(draw(st.integers(0, 14))):
        instant += draw(gaps)
        is_view = draw(st.booleans())
        touchpoints.append(
            SessionEvent(
                # Ids do not follow the order of creation. Touchpoints of one instant must be sorted by id.
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
    return touchpoints


def split_sessions(touchpoints: list[SessionEvent]) -> list[Session]:
    splitter = SessionSplitter()
    ended = [splitter.add(touchpoint) for touchpoint in sorted(touchpoints, key=lambda touchpoint: touchpoint.order)]
    return [session for session in [*ended, splitter.finish()] if session is not None]


@settings(max_examples=CASES)
@given(visits())
def test_sessions_match_the_reference(touchpoints: list[SessionEvent]) -> None:
    assert [figures_of_session(session) for session in split_sessions(touchpoints)] == [
        figures(session) for session in sessions_of(touchpoints)
    ]


@settings(max_examples=CASES)
@given(visits())
def test_begin_reason_matches_the_gap(touchpoints: list[SessionEvent]) -> None:
    sessions = split_sessions(touchpoints)
    for before, session in zip([None, *sessions], sessions, strict=False):
        gap = None if before is None else session.started_at - before.ended_at
        expected = "first" if gap is None else "pause" if gap >= IDLE else "campaign"
        assert session.begun_by == expected


@settings(max_examples=CASES)
@given(visits())
def test_totals_match_the_sessions(touchpoints: list[SessionEvent]) -> None:
    totals, sessions = SessionTotals(), split_sessions(touchpoints)
    for session in sessions:
        totals.add(session)
    count = len(sessions)
    assert totals.count == count
    if count == 0:
        assert (totals.bounce_rate, totals.average_duration_seconds, totals.pages_per_session) == (None, None, None)
        return
    duration = sum(session.ended_at - session.first[0] for session in sessions)
    assert totals.bounce_rate == len([session for session in sessions if session.bounced]) / count
    assert abs((totals.average_duration_seconds or 0) - duration / 1_000_000 / count) < 1e-6
    assert totals.pages_per_session == len([view for view in _in_sessions(touchpoints) if view.page]) / count


def _in_sessions(touchpoints: list[SessionEvent]) -> list[SessionEvent]:
    return [touchpoint for session in sessions_of(touchpoints) for touchpoint in session]
