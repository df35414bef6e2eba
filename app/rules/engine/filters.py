"""Touchpoint leaves: the part of a node that is the same for every customer and every instant.

A leaf has an id that follows from its meaning, so that the same filter in ten segments, or in an edited one, is
one leaf with one series.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal
from functools import partial
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgspec
from pydantic import BaseModel

from app.rules.engine.nodes.sequence import Course
from app.rules.engine.operators import ComparisonContext, CompiledComparison
from app.rules.engine.point_series import Keeping, Record
from app.rules.engine.series import Retention, Series
from app.rules.engine.touchpoint_view import TouchpointView, compile_path
from app.rules.engine.window import Span
from app.rules.language.comparison import Comparison
from app.rules.language.expressions import Filtered

Match = Callable[[TouchpointView], bool]
Kept = Callable[[TouchpointView], list[Any] | None]
"""What of a touchpoint is kept beside its instant; ``None`` where it is none of the leaf's after all."""

_COUNT_ONLY = Retention(0, 0, None, ())

WEIGHED_MAX: Final = 100_000
"""A record that may grow beyond this has no cap in truth, and weighing it with each touchpoint would cost too much."""


class Leaf(msgspec.Struct, frozen=True):
    """``names`` is ``None`` where any event matches, ``matches`` is ``None`` where the name alone decides.

    ``keeping`` and ``kept`` are there where touchpoints must be told apart; ``course`` where a sequence is followed.
    """

    id: str
    names: tuple[str, ...] | None
    matches: Match | None
    retention: Retention
    keeping: Keeping | None = None
    kept: Kept | None = None
    course: Course | None = None

    def reads(self, occurrence: TouchpointView) -> bool:
        named = self.names is None or occurrence.name in self.names
        return (
            named
            and (self.matches is None or self.matches(occurrence))
            and (self.kept is None or self.kept(occurrence) is not None)
        )

    def add(self, series: Series, t: int, place: int, kept: Sequence[Any] | None, points_max: int) -> None:
        """Fold in the ``place``-th message of its instant, which is not before any folded in earlier."""
        series.add(t, self.retention, points_max)
        if kept is None:
            return
        if series.record is None:
            series.record = Record()
        if self.course is not None:
            self.course.add(series, t, place, kept)
        elif self.keeping is not None:
            series.record.add(t, place, kept, self.keeping)
        if points_max <= WEIGHED_MAX and series.record.weight > points_max:
            series.overflowed = True

    def needed(self, series: Series) -> Series:
        """The series without what only rules that are gone had asked to be kept."""
        kept = series.latest
        surplus = max(len(kept) - self.retention.latest, 0)
        if self.retention.window is not None and kept:
            surplus = min(surplus, bisect_right(kept, kept[-1] - self.retention.window))
        return msgspec.structs.replace(
            series,
            latest=kept[surplus:],
            earliest=series.earliest[: self.retention.earliest],
            record=series.record and series.record.needed(self.keeping),
        )

    def merged_with(self, other: Leaf) -> Leaf:
        """The same leaf, keeping what either of two nodes needs."""
        kept, more = self.retention, other.retention
        windows = [window for window in (kept.window, more.window) if window is not None]
        retention = Retention(
            latest=max(kept.latest, more.latest),
            earliest=max(kept.earliest, more.earliest),
            window=max(windows, default=None),
            edges=kept.edges,
        )
        keeping = self.keeping
        if keeping is not None and other.keeping is not None:
            keeping = keeping.union(other.keeping)
        return msgspec.structs.replace(self, retention=retention, keeping=keeping)

    @property
    def unlimited(self) -> Leaf:
        """Keep every point: for explanations, which show all that was counted."""
        retention = Retention(latest=10**9, earliest=10**9, window=None, edges=self.retention.edges)
        return msgspec.structs.replace(self, retention=retention)


class Condition(NamedTuple):
    """One entry of ``where``. ``is_open``: only the customer can answer, by a timezone or an operand."""

    path: str
    said: Any
    comparison: CompiledComparison
    is_open: bool

    def test(self, zone: str | None) -> Match:
        read, static, holds = compile_path(self.path), self.comparison.static_test, self.comparison.holds
        if static is not None:
            return lambda occurrence: static(read(occurrence))
        return lambda occurrence: holds(
            read(occurrence), ComparisonContext(occurrence.occurred_at, zone or "UTC", _no_operand)
        )


def _no_operand(operand: Any) -> Any:
    raise AssertionError(f"a filter that is decided at once has no operand to work out, but {operand!r} is one")


class Filter(NamedTuple):
    """Which touchpoints a node, or a step, is about."""

    names: tuple[str, ...] | None
    channels: frozenset[str]
    sources: frozenset[str]
    conditions: tuple[Condition, ...]
    zone: str | None

    @property
    def open(self) -> tuple[Condition, ...]:
        return tuple(condition for condition in self.conditions if condition.is_open)

    @property
    def said(self) -> dict[str, Any]:
        """What the leaf's id follows from; open conditions are no part of it."""
        settled = [condition for condition in self.conditions if not condition.is_open]
        dated = self.zone if any(condition.comparison.static_test is None for condition in settled) else None
        return {
            "did": self.names,
            "channel": sorted(self.channels),
            "source": sorted(self.sources),
            "where": sorted(([condition.path, condition.said] for condition in settled), key=repr),
            "zone": dated,
        }

    def tests(self) -> list[Match]:
        """What a touchpoint must satisfy beside its name, the cheapest first."""
        tests: list[Match] = []
        channels, sources = self.channels, self.sources
        if channels:
            tests.append(lambda occurrence: occurrence.channel in channels)
        if sources:
            tests.append(lambda occurrence: occurrence.source in sources)
        tests += [condition.test(self.zone) for condition in self.conditions if not condition.is_open]
        return tests


def filter_of(
    node: Filtered, events: str | list[str], zone: str | None, compare: Callable[[Comparison], CompiledComparison]
) -> Filter:
    """``zone`` is the node's own timezone; ``compare`` compiles a comparison."""
    conditions = []
    for path, asked in (node.where or {}).items():
        comparison = asked if isinstance(asked, Comparison) else Comparison(eq=asked)
        compared = compare(comparison)
        is_open = bool(compared.dynamic_operands) or (compared.static_test is None and zone is None)
        conditions.append(Condition(path, _said(comparison), compared, is_open))
    names = None if events == "*" else tuple(sorted(_several(events)))
    channels, sources = frozenset(_several(node.channel)), frozenset(_several(node.source))
    return Filter(names, channels, sources, tuple(conditions), zone)


# ---------------------------------------------------------------------------------------- kinds of leaves


def counting_leaf(filter: Filter, span: Span, local: tuple[Any, Callable[[int], bool]] | None, keep: Retention) -> Leaf:
    """A leaf that needs instants only. ``local`` is a question about local time and how it is written."""
    said = filter.said | {"span": _said_span(span), "local": local and local[0]}
    return Leaf(_digest(said), filter.names, _all(filter.tests() + _in_span(span, local)), keep)


def recording_leaf(
    filter: Filter,
    span: Span,
    local: tuple[Any, Callable[[int], bool]] | None,
    paths: Sequence[str],
    keeping: Keeping,
) -> Leaf:
    """A leaf that keeps values of its touchpoints: ``paths``, then those of the conditions left open."""
    columns = (*paths, *(condition.path for condition in filter.open))
    said = filter.said | {"span": _said_span(span), "local": local and local[0], "kept": columns}
    readers = [compile_path(path) for path in columns]

    def kept(occurrence: TouchpointView) -> list[Any]:
        return [read(occurrence) for read in readers]

    tests = filter.tests() + _in_span(span, local)
    return Leaf(_digest(said), filter.names, _all(tests), _COUNT_ONLY, keeping, kept)


class StepFilter(NamedTuple):
    """One step of a sequence; a closing step is not bound by the window."""

    filter: Filter
    is_closing: bool


def sequence_leaf(
    steps: Sequence[StepFilter],
    span: Span,
    local: tuple[Any, Callable[[int], bool]] | None,
    same: Sequence[str],
    keeping: Keeping,
    course: Course | None,
) -> Leaf:
    """A leaf for all steps together: the mask of the steps that a touchpoint may be, then the values to be the same."""
    columns = [condition.path for step in steps for condition in step.filter.open]
    same_readers, open_readers = [compile_path(path) for path in same], [compile_path(path) for path in columns]
    matches: list[tuple[int, tuple[str, ...] | None, Match | None]] = []
    for number, step in enumerate(steps):
        bound = [] if step.is_closing else _in_span(span, local)
        matches.append((1 << number, step.filter.names, _all(step.filter.tests() + bound)))

    def kept(occurrence: TouchpointView) -> list[Any] | None:
        mask = 0
        for bit, names, match in matches:
            if (names is None or occurrence.name in names) and (match is None or match(occurrence)):
                mask |= bit
        if not mask:
            return None
        values = [read(occurrence) for read in same_readers]
        if None in values:
            return None
        return [mask, *values, *(read(occurrence) for read in open_readers)]

    said = {
        "steps": [step.filter.said | {"closing": step.is_closing} for step in steps],
        "span": _said_span(span),
        "local": local and local[0],
        "same": list(same),
        "kept": columns,
        "course": None if course is None else repr(course),
    }
    named = [step.filter.names for step in steps]
    every = None if None in named else tuple(sorted({name for names in named for name in names or ()}))
    return Leaf(_digest(said), every, None, _COUNT_ONLY, keeping, kept, course)


def _in_span(span: Span, local: tuple[Any, Callable[[int], bool]] | None) -> list[Match]:
    """What the instant alone must satisfy, in some timezone at least."""
    tests: list[Match] = []
    start, end = span.widest_bounds
    if start is not None:
        tests.append(lambda occurrence: occurrence.occurred_at >= start)
    if end is not None:
        tests.append(lambda occurrence: occurrence.occurred_at < end)
    if local is not None:
        is_in = local[1]
        tests.append(lambda occurrence: is_in(occurrence.occurred_at))
    return tests


def _all(tests: Sequence[Match]) -> Match | None:
    if len(tests) < 2:
        return tests[0] if tests else None
    return partial(_satisfies, tuple(tests))


def _satisfies(tests: Sequence[Match], occurrence: TouchpointView) -> bool:
    return all(test(occurrence) for test in tests)


def _several(words: str | list[str] | None) -> list[str]:
    return [] if words is None else [words] if isinstance(words, str) else words


# ------------------------------------------------------------------------------------------------- ids


def _digest(said: Any) -> str:
    return blake2b(msgspec.json.encode(said, order="sorted"), digest_size=6).hexdigest()


def _said_span(span: Span) -> list[Any]:
    return [bound.isoformat() if isinstance(bound, date) else bound for bound in span]


def _said(asked: Comparison) -> dict[str, Any]:
    said = {name: canonical(getattr(asked, name)) for name in asked.operators}
    for name in {"in_", "not_in", "any_of", "all_of", "none_of"} & said.keys():
        said[name].sort(key=repr)
    return said | {"ignore_case": True} if asked.ignore_case else said


def canonical(operand: Any) -> Any:
    """One form for what means the same: 1 and 1.0 are one, 1 and "1" are not."""
    if isinstance(operand, BaseModel):
        return canonical(operand.model_dump(by_alias=True, exclude_unset=True))
    if isinstance(operand, dict):
        return {name: canonical(value) for name, value in operand.items()}
    if isinstance(operand, list | tuple):
        return [canonical(item) for item in operand]
    if isinstance(operand, bool) or not isinstance(operand, int | Decimal):
        return operand
    written = f"{operand:f}" if isinstance(operand, Decimal) else str(operand)
    return ["number", written.rstrip("0").rstrip(".") if "." in written else str(int(operand))]
