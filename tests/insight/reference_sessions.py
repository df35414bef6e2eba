"""Sessions by their definition, without any running state: cut a list where its own past says so, then go on behind."""

from __future__ import annotations

from typing import Any

from app.insight.sessions import PageView, Session, SessionEvent

HALF_AN_HOUR = 30 * 60 * 1_000_000
BY_ITSELF = {"Page Left", "Page Scrolled", "JavaScript Error"}


def sessions_of(touchpoints: list[SessionEvent]) -> list[list[SessionEvent]]:
    """In any order in; sessions, each in order, out. Recursive and slow."""
    rest = sorted(touchpoints, key=lambda each: each.order)
    while rest and rest[0].name in BY_ITSELF:
        rest = rest[1:]
    if not rest:
        return []
    cut = next((i for i in range(1, len(rest)) if parts(rest[:i], rest[i])), len(rest))
    return [rest[:cut], *sessions_of(rest[cut:])]


def parts(before: list[SessionEvent], next: SessionEvent) -> bool:
    """Whether ``next`` is no more of the session that ``before`` is."""
    if next.order[0] - before[-1].order[0] >= HALF_AN_HOUR:
        return True
    if next.page is None or campaign(next) is None:
        return False
    of_session = campaign_of(before)
    has_viewed = any(each.page is not None for each in before)
    return campaign(next) != of_session and (of_session is not None or has_viewed)


def campaign(touchpoint: SessionEvent) -> Any:
    found = touchpoint.acquisition
    if found is None or found.group == "Direct":
        return None
    return (found.source, found.medium, found.campaign, found.term, found.content, found.click_id, touchpoint.click)


def until_first_view(session: list[SessionEvent]) -> list[SessionEvent]:
    views = [i for i, each in enumerate(session) if each.page is not None]
    return session[: views[0] + 1] if views else session


def deciding(session: list[SessionEvent]) -> SessionEvent | None:
    """The touchpoint that says where the visitor came from."""
    told = [each for each in until_first_view(session) if each.acquisition is not None]
    return next((each for each in told if campaign(each) is not None), told[0] if told else None)


def campaign_of(session: list[SessionEvent]) -> Any:
    decides = deciding(session)
    return None if decides is None else campaign(decides)


def figures(session: list[SessionEvent]) -> dict[str, Any]:
    pages = [each.page for each in session if each.page is not None]
    decides = deciding(session)
    return {
        "first": session[0].order,
        "ended_at": session[-1].order[0],
        "touchpoints": len(session),
        "pages": len(pages),
        "bounced": len([each for each in session if each.name not in BY_ITSELF]) == 1,
        "entry_page": pages[0] if pages else None,
        "exit_page": pages[-1] if pages else None,
        "acquisition": decides.acquisition if decides else None,
        "channel": (decides or session[0]).channel,
        "devices": _distinct([each.device for each in session]),
        "session_ids": _distinct([each.session_id for each in session]),
    }


def figures_told(session: Session) -> dict[str, Any]:
    """The same of a session of the code."""
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
