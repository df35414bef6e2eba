"""Sessions: periods of activity of one customer on web and app, over all tabs and devices. Pure.

Touchpoints are processed in the order of the log. Half an hour without a touchpoint ends a session, and so does a page
view from another campaign; midnight does not. Events that a page sends by itself (scrolled, left) extend a session, but
they never begin a session, and a session with one action and such events is still a bounce. Sessions are not stored:
they are a function of the set of touchpoints, so a late touchpoint can join two sessions or split one.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from app.enrichment.channel import sender_of
from app.touchpoint import MINUTE, SECOND, Order

IDLE: Final = 30 * MINUTE
"""Minimum pause, in microseconds, after which a touchpoint begins a new session."""

ENGAGEMENT: Final = frozenset(
    {
        "Page Left",
        "Page Scrolled",
        "JavaScript Error",
        # The same events by their names in GA4 and PostHog.
        "user_engagement",
        "scroll",
        "session_start",
        "first_visit",
        "$pageleave",
        "$web_vitals",
    }
)
"""Events that a page or an SDK sends by itself, without an action of the visitor."""

LISTED_MAX: Final = 100
"""Maximum number of devices, and of the client's session ids, that are listed for one session: the first of each."""

_VISIT_CHANNELS: Final = frozenset({"web", "app"})
_DIRECT: Final = "Direct"

Campaign = tuple[str | None, ...]

BeginReason = Literal["first", "pause", "campaign"]
"""Reason why a session began: it is the first one, it follows a pause, or it comes from another campaign."""


class Acquisition(msgspec.Struct, gc=False, frozen=True):
    """Attribution of a visit; ``group`` is the name of a default channel group."""

    group: str | None = None
    source: str | None = None
    medium: str | None = None
    campaign: str | None = None
    term: str | None = None
    content: str | None = None
    click_id: str | None = None

    @property
    def key(self) -> Campaign | None:
        """Fields that distinguish campaigns; None for a direct visit, which has no campaign."""
        key = (self.source, self.medium, self.campaign, self.term, self.content, self.click_id)
        return None if self.group == _DIRECT or not any(key) else key


class PageView(msgspec.Struct, gc=False, frozen=True):
    """A page, or a screen of an app, which has only a name."""

    url: str | None = None
    path: str | None = None
    title: str | None = None
    name: str | None = None


class Device(msgspec.Struct, gc=False, frozen=True):
    type: str | None = None
    os: str | None = None
    browser: str | None = None


class SessionEvent(msgspec.Struct, gc=False, frozen=True):
    """Fields of a touchpoint that sessions need. ``page`` is None if the touchpoint is not a view."""

    order: Order
    name: str
    channel: str
    page: PageView | None = None
    acquisition: Acquisition | None = None
    device: Device | None = None
    session_id: str | None = None
    click: str | None = None
    """Value of the click id. It distinguishes two clicks on one ad, which begin two sessions."""

    @property
    def campaign(self) -> Campaign | None:
        key = None if self.acquisition is None else self.acquisition.key
        return None if key is None else (*key, self.click)


class Session(msgspec.Struct):
    """One period of activity; ``first`` is the place of its first touchpoint in the log."""

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
    """Number of touchpoints that are actions of the visitor. A session with at most one of them is a bounce."""

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
        """Return True if a touchpoint at ``now`` would belong to this session."""
        return now - self.ended_at < IDLE


class SessionTotals(msgspec.Struct):
    """Totals over sessions. The averages are None if there are no sessions."""

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
    """Return True if a touchpoint happened on a page or in an app, and not in an email, a call or on a server.

    The channel of a page view from an ad or a search is not ``web``, so the library that sent it counts too.
    """
    return channel in _VISIT_CHANNELS or sender_of(library, type).name in _VISIT_CHANNELS


class SessionSplitter:
    """Splits a customer's touchpoints, which are added in order, into sessions."""

    def __init__(self) -> None:
        self._session: Session | None = None

    def add(self, touchpoint: SessionEvent) -> Session | None:
        """Add a touchpoint; return the session that ended before it, or None."""
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
        """Return the last session, after all touchpoints were added."""
        session, self._session = self._session, None
        return session


def _reason_to_begin(session: Session | None, touchpoint: SessionEvent) -> BeginReason | None:
    """Return why this touchpoint begins a session; None if it does not."""
    if session is None or _is_idle(session, touchpoint):
        if touchpoint.name in ENGAGEMENT:
            return None
        return "first" if session is None else "pause"
    return "campaign" if _is_other_campaign(session, touchpoint) else None


def _is_idle(session: Session, touchpoint: SessionEvent) -> bool:
    return touchpoint.order[0] - session.ended_at >= IDLE


def _is_other_campaign(session: Session, touchpoint: SessionEvent) -> bool:
    """Return True if the touchpoint is a view from a campaign that differs from the session's campaign.

    Only views count: other events repeat the campaign of their page, so two tabs would split a session again and again.
    The first view of a session may set its campaign, because some pages send an event before the view.
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
        _set_acquisition(session, touchpoint)
    if touchpoint.page is not None:
        session.pages += 1
        session.entry_page = session.entry_page or touchpoint.page
        session.exit_page = touchpoint.page
    if touchpoint.device is not None and len(session.devices) < LISTED_MAX:
        session.devices[touchpoint.device] = None
    if touchpoint.session_id is not None and len(session.session_ids) < LISTED_MAX:
        session.session_ids[touchpoint.session_id] = None


def _set_acquisition(session: Session, touchpoint: SessionEvent) -> None:
    """Set the acquisition of a session: the first campaign up to the first view, otherwise the direct visit."""
    if touchpoint.acquisition is None or session.campaign is not None:
        return
    if session.acquisition is None or touchpoint.campaign is not None:
        session.acquisition = touchpoint.acquisition
        session.campaign = touchpoint.campaign
        session.channel = touchpoint.channel
