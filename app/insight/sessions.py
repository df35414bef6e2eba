"""Sessions: one customer's touchpoints of web and app, over all tabs and devices, in stretches of activity. Pure.

Touchpoints are met in the one order. Half an hour without one ends a session, and so does a view that arrives by
another campaign; midnight does not. What a page sends by itself (how far it was scrolled, that it was left) carries
a session on, but begins none and is no second look. Nothing here is stored: sessions are a function of the set of
touchpoints, so one that arrives late can join two of them or part one.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from app.enrichment.channel import sender_of
from app.touchpoint import MINUTE, SECOND, Order

IDLE: Final = 30 * MINUTE
"""A touchpoint exactly so long after the one before it begins a new session."""

ENGAGEMENT: Final = frozenset(
    {
        "Page Left",
        "Page Scrolled",
        "JavaScript Error",
        # GA4's and PostHog's names of the same.
        "user_engagement",
        "scroll",
        "session_start",
        "first_visit",
        "$pageleave",
        "$web_vitals",
    }
)
"""Sent by a page or an SDK on its own account: nobody did anything."""

LISTED_MAX: Final = 100
"""Devices, and ids that clients gave it, which a session tells; in the order in which they were seen."""

_VISIT_CHANNELS: Final = frozenset({"web", "app"})
_DIRECT: Final = "Direct"

Campaign = tuple[str | None, ...]

BeginReason = Literal["first", "pause", "campaign"]
"""Why a session began: none was before it, a pause, or another campaign."""


class Acquisition(msgspec.Struct, gc=False, frozen=True):
    """Where a visitor came from; ``group`` is the name of a default channel group."""

    group: str | None = None
    source: str | None = None
    medium: str | None = None
    campaign: str | None = None
    term: str | None = None
    content: str | None = None
    click_id: str | None = None

    @property
    def key(self) -> Campaign | None:
        """What tells one campaign from another; None for a direct visit, which is none."""
        key = (self.source, self.medium, self.campaign, self.term, self.content, self.click_id)
        return None if self.group == _DIRECT or not any(key) else key


class PageView(msgspec.Struct, gc=False, frozen=True):
    """A page, or a screen of an app, which has a name only."""

    url: str | None = None
    path: str | None = None
    title: str | None = None
    name: str | None = None


class Device(msgspec.Struct, gc=False, frozen=True):
    type: str | None = None
    os: str | None = None
    browser: str | None = None


class SessionEvent(msgspec.Struct, gc=False, frozen=True):
    """What a session needs to know of one of its touchpoints. ``page`` is that of a view, None for anything else."""

    order: Order
    name: str
    channel: str
    page: PageView | None = None
    acquisition: Acquisition | None = None
    device: Device | None = None
    session_id: str | None = None
    click: str | None = None
    """The value of the click id: two clicks on one ad are two arrivals."""

    @property
    def campaign(self) -> Campaign | None:
        key = None if self.acquisition is None else self.acquisition.key
        return None if key is None else (*key, self.click)


class Session(msgspec.Struct):
    """One stretch of activity; ``first`` is the place of its first touchpoint in the order."""

    first: Order
    begun_by: BeginReason
    channel: str
    ended_at: int
    touchpoints: int = 0
    pages: int = 0
    acquisition: Acquisition | None = None
    campaign: Campaign | None = None
    entry_page: PageView | None = None
    exit_page: PageView | None = None
    devices: dict[Device, None] = {}
    session_ids: dict[str, None] = {}
    active_touchpoints: int = 0
    """Touchpoints that somebody brought about."""

    @property
    def started_at(self) -> int:
        return self.first[0]

    @property
    def duration_seconds(self) -> float:
        return (self.ended_at - self.started_at) / SECOND

    @property
    def bounced(self) -> bool:
        return self.active_touchpoints <= 1

    def is_open(self, now: int) -> bool:
        """Whether a touchpoint of ``now`` would still belong to it."""
        return now - self.ended_at < IDLE


class SessionTotals(msgspec.Struct):
    """Figures over sessions; the averages of none are None."""

    count: int = 0
    bounced: int = 0
    duration_seconds: float = 0.0
    pages: int = 0

    def add(self, session: Session) -> None:
        self.count += 1
        self.bounced += session.bounced
        self.duration_seconds += session.duration_seconds
        self.pages += session.pages

    @property
    def bounce_rate(self) -> float | None:
        return self._average(self.bounced)

    @property
    def average_duration_seconds(self) -> float | None:
        return self._average(self.duration_seconds)

    @property
    def pages_per_session(self) -> float | None:
        return self._average(self.pages)

    def _average(self, total: float) -> float | None:
        return total / self.count if self.count else None


def is_visit(type: str, channel: str, library: str | None) -> bool:
    """Whether a touchpoint was made at a page or in an app. Mails, calls and what servers report are not.

    A page view keeps no ``web`` in its channel when an ad or a search brought it, so the library that sent it counts
    as much as the channel does.
    """
    return channel in _VISIT_CHANNELS or sender_of(library, type).name in _VISIT_CHANNELS


class SessionSplitter:
    """Takes a customer's touchpoints in order, one after the other, and hands out each session when it is over."""

    def __init__(self) -> None:
        self._session: Session | None = None

    def add(self, touchpoint: SessionEvent) -> Session | None:
        """The session that this touchpoint shows to be over, if there is one."""
        session = self._session
        beginning = _reason_to_begin(session, touchpoint)
        if beginning is None:
            if session is not None and not _is_idle(session, touchpoint):
                _extend(session, touchpoint)
            return None
        self._session = Session(touchpoint.order, beginning, touchpoint.channel, touchpoint.order[0])
        _extend(self._session, touchpoint)
        return session

    def finish(self) -> Session | None:
        """The last session, once there is nothing more to meet."""
        session, self._session = self._session, None
        return session


def _reason_to_begin(session: Session | None, touchpoint: SessionEvent) -> BeginReason | None:
    """Why this touchpoint begins a session; None if it does not."""
    if session is None or _is_idle(session, touchpoint):
        if touchpoint.name in ENGAGEMENT:
            return None
        return "first" if session is None else "pause"
    return "campaign" if _is_other_campaign(session, touchpoint) else None


def _is_idle(session: Session, touchpoint: SessionEvent) -> bool:
    return touchpoint.order[0] - session.ended_at >= IDLE


def _is_other_campaign(session: Session, touchpoint: SessionEvent) -> bool:
    """Of views only: what else a page sends repeats its campaign, and two tabs would part a session again and again.

    A session that only its first view gives a campaign was not another one before: some pages send an event first.
    """
    if touchpoint.page is None:
        return False
    current, campaign = session.campaign, touchpoint.campaign
    return campaign is not None and campaign != current and (current is not None or session.pages > 0)


def _extend(session: Session, touchpoint: SessionEvent) -> None:
    session.ended_at = touchpoint.order[0]
    session.touchpoints += 1
    session.active_touchpoints += touchpoint.name not in ENGAGEMENT
    if session.pages == 0:
        _put_acquisition(session, touchpoint)
    if touchpoint.page is not None:
        session.pages += 1
        session.entry_page = session.entry_page or touchpoint.page
        session.exit_page = touchpoint.page
    if touchpoint.device is not None and len(session.devices) < LISTED_MAX:
        session.devices[touchpoint.device] = None
    if touchpoint.session_id is not None and len(session.session_ids) < LISTED_MAX:
        session.session_ids[touchpoint.session_id] = None


def _put_acquisition(session: Session, touchpoint: SessionEvent) -> None:
    """The first campaign up to the first view; where there is none, that the visit was direct."""
    if touchpoint.acquisition is None or session.campaign is not None:
        return
    if session.acquisition is None or touchpoint.campaign is not None:
        session.acquisition = touchpoint.acquisition
        session.campaign = touchpoint.campaign
        session.channel = touchpoint.channel
