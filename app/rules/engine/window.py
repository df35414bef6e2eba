"""Time windows: compute the interval in which a touchpoint is inside a window.

A window such as ``"within": "90d"`` consists of parts. Each part maps the instant ``p`` of a touchpoint to a half-open
interval [enter, leave) of now; the interval of the window is their intersection. So a window is evaluated once for each
touchpoint, and without a new message it can only change at an ``enter`` or a ``leave``. Instants and lengths are in
microseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any, Final, NamedTuple

from app.rules.language.expressions import Hours, Windowed
from app.rules.values import calendar, durations
from app.rules.values.calendar import Length
from app.rules.values.durations import MICROSECONDS

INFINITE: Final = 1 << 62
EMPTY_INTERVAL: Final = (INFINITE, INFINITE)

_DAY: Final = MICROSECONDS["d"]
_PERIOD_AGE_MAX: Final = {
    "today": 2 * _DAY,
    "yesterday": 3 * _DAY,
    "this_week": 9 * _DAY,
    "last_week": 16 * _DAY,
    "this_month": 33 * _DAY,
    "last_month": 64 * _DAY,
    "this_year": 368 * _DAY,
    "last_year": 734 * _DAY,
}
"""Value of ``during`` -> upper bound of the age of a touchpoint in that period, in microseconds and in any timezone."""


class Span(NamedTuple):
    """``from`` and ``to`` of a node. A bound is an instant, or a date that begins in the customer's timezone."""

    start: int | date | None
    end: int | date | None

    @property
    def has_floating_dates(self) -> bool:
        return isinstance(self.start, date) or isinstance(self.end, date)

    @property
    def widest_bounds(self) -> tuple[int | None, int | None]:
        """Half-open bounds that include every instant that is inside the span in at least one timezone."""
        start, end = self
        if isinstance(start, date):
            start = durations.utc_midnight_of(start) - durations.ZONE_SHIFT_MAX
        if isinstance(end, date):
            end = durations.utc_midnight_of(end) + durations.ZONE_SHIFT_MAX
        return start, end

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Half-open ranges of instants around the dates.

        It depends on the customer's timezone whether these instants are inside the span.
        """
        midnights = [durations.utc_midnight_of(bound) for bound in self if isinstance(bound, date)]
        return tuple(
            (midnight - durations.ZONE_SHIFT_MAX, midnight + durations.ZONE_SHIFT_MAX) for midnight in midnights
        )

    def bounds_in(self, zone: str) -> tuple[int | None, int | None]:
        """Return the half-open bounds for a customer in ``zone``."""
        start = durations.first_instant_of_day(self.start, zone) if isinstance(self.start, date) else self.start
        end = durations.first_instant_of_day(self.end, zone) if isinstance(self.end, date) else self.end
        return start, end


UNBOUNDED_SPAN: Final = Span(None, None)


class Window(NamedTuple):
    """The parts of a window that depend on now or on the customer's timezone.

    ``hours`` and ``weekend`` are set only if the filter of the leaf cannot test them; see :func:`split_window`.
    """

    within: Length | None
    before: Length | None
    span: Span
    during: str | None
    hours: tuple[int, int] | None
    weekend: bool

    @property
    def is_lifetime(self) -> bool:
        return self[:2] == (None, None) and self.span == UNBOUNDED_SPAN and not self.is_local

    @property
    def is_local(self) -> bool:
        """True if a part depends on the local time of the touchpoint or on a calendar period."""
        return self.during is not None or self.hours is not None or self.weekend

    @property
    def rolling_microseconds(self) -> int | None:
        """Microseconds of ``within`` if it has an exact length and is the only part of the window."""
        if (
            self.within is None
            or not self.within.is_exact
            or self.before
            or self.span != UNBOUNDED_SPAN
            or self.is_local
        ):
            return None
        return self.within.microseconds

    @property
    def enters_in_order(self) -> bool:
        """True if touchpoints enter in the order of their instants."""
        return self.before is None or self.before.is_exact

    @property
    def leaves_in_order(self) -> bool:
        """True if touchpoints leave in the order of their instants.

        A calendar length is added to local time. The last days of a long month all leave on the last day of a shorter
        month, and an hour at the end of summer time is repeated. So a touchpoint can leave before an earlier one.
        """
        return self.within is None or self.within.is_exact

    @property
    def never_releases(self) -> bool:
        """True if a touchpoint that is inside the window stays inside in every timezone."""
        return self.within is None and self.during is None and not self.uses_zone

    @property
    def skips_touchpoints(self) -> bool:
        """True if some touchpoints are never inside the window."""
        has_gap = self.before is not None and (self.within is not None or self.during is not None)
        return has_gap or self.span != UNBOUNDED_SPAN or self.hours is not None or self.weekend

    @property
    def uses_zone(self) -> bool:
        has_calendar_length = any(length is not None and not length.is_exact for length in (self.within, self.before))
        return has_calendar_length or self.span.has_floating_dates or self.is_local

    @property
    def age_max(self) -> int | None:
        """Age in microseconds at which every touchpoint has left the window; ``None`` if some never leave."""
        ages = [] if self.within is None else [self.within.max_microseconds]
        if self.during is not None:
            ages.append(_PERIOD_AGE_MAX[self.during])
        return min(ages, default=None)

    def compute_interval(self, p: int, zone: str) -> tuple[int, int]:
        """Return [enter, leave) for a touchpoint at the instant ``p``; the interval is empty if enter >= leave."""
        enter, leave = p, INFINITE
        if self.within is not None:
            leave = p + self.within.microseconds if self.within.is_exact else calendar.add(p, self.within, zone)
        if self.before is not None:
            enter = p + self.before.microseconds if self.before.is_exact else calendar.add(p, self.before, zone)
        if self.span != UNBOUNDED_SPAN:
            start, end = self.span.bounds_in(zone)
            if (start is not None and p < start) or (end is not None and p >= end):
                return EMPTY_INTERVAL
        if self.weekend and not calendar.is_weekend(p, zone):
            return EMPTY_INTERVAL
        if self.hours is not None and not calendar.in_hours(p, *self.hours, zone):
            return EMPTY_INTERVAL
        if self.during is not None:
            first, last = calendar.period_bounds(self.during, p, zone)
            enter, leave = max(enter, first), min(leave, last)
        return enter, leave

    def earliest_leave_from(self, p: int, leave: int, zone: str) -> int:
        """Return a lower bound of when a touchpoint at ``p``, which leaves at ``leave``, or a later one leaves."""
        if self.within is None or self.within.is_exact:
            return leave
        return min(leave, calendar.earliest_from(p, self.within, zone))


class SplitWindow(NamedTuple):
    """The window of a node in two parts.

    ``window`` depends on now or on the customer. ``fixed_span`` and ``local_test`` depend on the touchpoint alone, so
    they become part of the filter of the leaf.
    """

    window: Window
    fixed_span: Span
    local_test: tuple[Any, Callable[[int], bool]] | None
    """Condition on local time in the node's own timezone: its canonical form, and a predicate of the touchpoint's
    instant."""


def split_window(node: Windowed, *, whole: bool = False) -> SplitWindow:
    """Split the window of the node.

    With ``whole``, all parts stay in the window. ``first`` and ``last`` need this, because they select the touchpoint
    before they test it against the window.
    """
    zone = node.timezone
    span = Span(*(_parse_bound(text, zone) for text in (node.from_, node.to)))
    hours = (node.during.hours[0], node.during.hours[1]) if isinstance(node.during, Hours) else None
    weekend = node.during == "weekend"
    is_open = zone is None or whole
    window = Window(
        within=calendar.parse_length(node.within) if node.within else None,
        before=calendar.parse_length(node.before) if node.before else None,
        span=span if span.has_floating_dates or whole else UNBOUNDED_SPAN,
        during=node.during if isinstance(node.during, str) and not weekend else None,
        hours=hours if is_open else None,
        weekend=weekend and is_open,
    )
    local_test = None
    if not is_open and (weekend or hours is not None):
        local_test = ([zone, hours, weekend], _compile_local_test(str(zone), hours))
    return SplitWindow(window, UNBOUNDED_SPAN if whole else span, local_test)


def _parse_bound(text: str | None, zone: str | None) -> int | date | None:
    bound = durations.parse_moment(text) if text else None
    return durations.first_instant_of_day(bound, zone) if zone and isinstance(bound, date) else bound


def _compile_local_test(zone: str, hours: tuple[int, int] | None) -> Callable[[int], bool]:
    if hours is None:
        return lambda p: calendar.is_weekend(p, zone)
    return lambda p: calendar.in_hours(p, *hours, zone)
