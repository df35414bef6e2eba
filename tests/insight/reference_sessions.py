"""Reference for sessions: splits a list of touchpoints recursively by the definition of a session.

It keeps no state between touchpoints.
"""

from __future__ import annotations

from typing import Any

from app.insight.sessions import PageView, Session, SessionEvent

HALF_AN_HOUR = 30 * 60 * 1_000_000
ENGAGEMENT = {"Page Left", "Page Scrolled", "JavaScript Error"}


def sessions_of(touchpoints: list[SessionEvent]) -> list[list[SessionEvent]]:
    """Return the sessions of touchpoints, each in order. The touchpoints may be in any order. Recursive and slow."""
    remaining = sorted(touchpoints, key=lambda item: item.order)
    while remaining and remaining[0].name in ENGAGEMENT:
        remaining = remaining[1:]
    if not remaining:
        return []
    end = next((i for i in range(1, len(remaining)) if begins_session(remaining[:i], remaining[i])), len(remaining))
    return [remaining[:end], *sessions_of(remaining[end:])]


def begins_session(before: list[SessionEvent], touchpoint: SessionEvent) -> bool:
    """Return True if ``touchpoint`` does not continue the session that consists of ``before``."""
    if touchpoint.order[0] - before[-1].order[0] >= HALF_AN_HOUR:
        return True
    if touchpoint.page is None or campaign(touchpoint) is None:
        return False
    session_campaign = campaign_of(before)
    has_viewed = any(previous.page is not None for previous in before)
    return campaign(touchpoint) != session_campaign and (session_campaign is not None or has_viewed)


def campaign(touchpoint: SessionEvent) -> Any:
    acquisition = touchpoint.acquisition
    if acquisition is None or acquisition.group == "Direct":
        return None
    return (
        acquisition.source,
        acquisition.medium,
        acquisition.campaign,
        acquisition.term,
        acquisition.content,
        acquisition.click_id,
        touchpoint.click,
    )


def take_until_first_view(session: list[SessionEvent]) -> list[SessionEvent]:
    views = [i for i, touchpoint in enumerate(session) if touchpoint.page is not None]
    return session[: views[0] + 1] if views else session


def find_deciding_touchpoint(session: list[SessionEvent]) -> SessionEvent | None:
    """Return the touchpoint that determines the acquisition of the session, if any."""
    candidates = [touchpoint for touchpoint in take_until_first_view(session) if touchpoint.acquisition is not None]
    return next(
        (touchpoint for touchpoint in candidates if campaign(touchpoint) is not None),
        candidates[0] if candidates else None,
    )


def campaign_of(session: list[SessionEvent]) -> Any:
    touchpoint = find_deciding_touchpoint(session)
    return None if touchpoint is None else campaign(touchpoint)


def figures(session: list[SessionEvent]) -> dict[str, Any]:
    pages = [touchpoint.page for touchpoint in session if touchpoint.page is not None]
    deciding = find_deciding_touchpoint(session)
    return {
        "first": session[0].order,
        "ended_at": session[-1].order[0],
        "touchpoints": len(session),
        "pages": len(pages),
        "bounced": len([touchpoint for touchpoint in session if touchpoint.name not in ENGAGEMENT]) == 1,
        "entry_page": pages[0] if pages else None,
        "exit_page": pages[-1] if pages else None,
        "acquisition": deciding.acquisition if deciding else None,
        "channel": (deciding or session[0]).channel,
        "devices": _distinct([touchpoint.device for touchpoint in session]),
        "session_ids": _distinct([touchpoint.session_id for touchpoint in session]),
    }


def figures_of_session(session: Session) -> dict[str, Any]:
    """Return the figures of a session of the implementation, in the form in which this module returns them."""
    return {
        "first": session.first,
        "ended_at": session.ended_at,
        "touchpoints": session.touchpoints,
        "pages": session.pages,
        "bounced": session.bounced,
        "entry_page": session.entry_page,
        "exit_page": session.exit_page,
        "acquisition": session.acquisition,
        "channel": session.channel,
        "devices": list(session.devices),
        "session_ids": list(session.session_ids),
    }


def _distinct(values: list[Any]) -> list[Any]:
    return [value for i, value in enumerate(values) if value is not None and value not in values[:i]]


def page(path: str) -> PageView:
    return PageView(path=path)
