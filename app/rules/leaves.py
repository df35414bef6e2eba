"""Touchpoint leaves: the part of a ``did`` node that is the same for every customer and every instant.

A leaf has an id that follows from its meaning, so that the same filter in ten segments, or in an edited one, is
one leaf with one series.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from app.rules import lengths
from app.rules.comparison import Comparison, Test, compile_comparison
from app.rules.document import Occurrence, reader
from app.rules.language import Did
from app.rules.series import Retention, Series

Match = Callable[[Occurrence], bool]


class Span(NamedTuple):
    """``from`` and ``to`` of a node. A bound is an instant, or a date that waits for the customer's timezone."""

    start: int | date | None
    end: int | date | None

    @property
    def floats(self) -> bool:
        return isinstance(self.start, date) or isinstance(self.end, date)

    @property
    def outermost(self) -> tuple[int | None, int | None]:
        """Half-open bounds that hold in some timezone, whichever the customer's is."""
        start = lengths.utc_midnight(self.start) - lengths.EDGE if isinstance(self.start, date) else self.start
        end = lengths.utc_midnight(self.end) + lengths.EDGE if isinstance(self.end, date) else self.end
        return start, end

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Bands in which it depends on the customer's timezone whether an instant is inside."""
        midnights = [lengths.utc_midnight(bound) for bound in self if isinstance(bound, date)]
        return tuple((midnight - lengths.EDGE, midnight + lengths.EDGE) for midnight in midnights)

    def inside(self, zone: str) -> tuple[int | None, int | None]:
        """The half-open bounds for a customer whose dates begin in ``zone``."""
        start = lengths.first_instant(self.start, zone) if isinstance(self.start, date) else self.start
        end = lengths.first_instant(self.end, zone) if isinstance(self.end, date) else self.end
        return start, end


class Leaf(msgspec.Struct, frozen=True):
    """``names`` is ``None`` where any event matches, ``matches`` is ``None`` where the name alone decides."""

    id: str
    names: tuple[str, ...] | None
    matches: Match | None
    span: Span
    retention: Retention

    def reads(self, occurrence: Occurrence) -> bool:
        named = self.names is None or occurrence.name in self.names
        return named and (self.matches is None or self.matches(occurrence))

    def new_series(self) -> Series:
        return Series()

    @property
    def unlimited(self) -> Retention:
        """Keep every instant: for explanations, which show all that was counted."""
        return Retention(latest=10**9, earliest=10**9, window=None, edges=self.retention.edges)


def span_of(node: Did) -> Span:
    bounds = [lengths.moment(text) if text else None for text in (node.from_, node.to)]
    if node.timezone:
        bounds = [lengths.first_instant(day, node.timezone) if isinstance(day, date) else day for day in bounds]
    return Span(*bounds)


def leaf_of(node: Did) -> Leaf:
    """The leaf that a node reads, with what that node alone needs to be kept."""
    names = None if node.did == "*" else tuple(sorted(_several(node.did)))
    span = span_of(node)
    said = {
        "did": names,
        "channel": sorted(_several(node.channel)),
        "source": sorted(_several(node.source)),
        "where": {path: _canonical_test(asked) for path, asked in sorted((node.where or {}).items())},
        "span": [bound.isoformat() if isinstance(bound, date) else bound for bound in span],
    }
    digest = blake2b(msgspec.json.encode(said, order="sorted"), digest_size=6).hexdigest()
    return Leaf(digest, names, _matcher(node, span), span, _retention(node, span))


def together(one: Leaf, other: Leaf) -> Leaf:
    """The same leaf, keeping what either of two nodes needs."""
    kept, more = one.retention, other.retention
    windows = [window for window in (kept.window, more.window) if window is not None]
    union = Retention(
        latest=max(kept.latest, more.latest),
        earliest=max(kept.earliest, more.earliest),
        window=max(windows, default=None),
        edges=kept.edges,
    )
    return msgspec.structs.replace(one, retention=union)


def _retention(node: Did, span: Span) -> Retention:
    """Beyond the largest number that the count names, one more touchpoint changes nothing: it saturates there."""
    low, high = node.count
    points = (low if high is None else high) + 1
    if node.within and node.before:
        return Retention(0, 0, lengths.length(node.within), ())
    if node.within:
        return Retention(points, 0, None, ())
    if node.before:
        return Retention(0, points, None, ())
    return Retention(0, 0, None, span.edges)


def _several(words: str | list[str] | None) -> list[str]:
    return [] if words is None else [words] if isinstance(words, str) else words


def _canonical_test(asked: Any) -> dict[str, Any]:
    if not isinstance(asked, Comparison):
        return {"eq": _canonical(asked)}
    said = {name: _canonical(getattr(asked, name)) for name in asked.operators}
    for name in {"in_", "not_in"} & said.keys():
        said[name].sort(key=repr)
    return said | {"ignore_case": True} if asked.ignore_case else said


def _canonical(operand: Any) -> Any:
    """One form for equal operands: 1 and 1.0 are one, 1 and "1" are not."""
    if isinstance(operand, list):
        return [_canonical(item) for item in operand]
    if isinstance(operand, bool) or not isinstance(operand, int | Decimal):
        return operand
    written = f"{operand:f}"
    return ["number", written.rstrip("0").rstrip(".") if "." in written else str(int(operand))]


def _matcher(node: Did, span: Span) -> Match | None:
    """One function for all that a touchpoint must satisfy beside its name, the cheapest first."""
    tests: list[Match] = []
    channels, sources = frozenset(_several(node.channel)), frozenset(_several(node.source))
    if channels:
        tests.append(lambda occurrence: occurrence.channel in channels)
    if sources:
        tests.append(lambda occurrence: occurrence.source in sources)
    start, end = span.outermost
    if start is not None:
        tests.append(lambda occurrence: occurrence.occurred_at >= start)
    if end is not None:
        tests.append(lambda occurrence: occurrence.occurred_at < end)
    for path, asked in (node.where or {}).items():
        comparison = asked if isinstance(asked, Comparison) else Comparison(eq=asked)
        tests.append(_reads(path, compile_comparison(comparison)))
    if len(tests) < 2:
        return tests[0] if tests else None
    return lambda occurrence: all(test(occurrence) for test in tests)


def _reads(path: str, test: Test) -> Match:
    read = reader(path)
    return lambda occurrence: test(read(occurrence))
