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

from app.rules.engine.nodes.sequence import SequenceTracker
from app.rules.engine.operators import ComparisonContext, CompiledComparison
from app.rules.engine.point_series import PointRetention, PointSeries
from app.rules.engine.series import Retention, Series
from app.rules.engine.touchpoint_view import TouchpointView, compile_path
from app.rules.engine.window import Span
from app.rules.language.comparison import Comparison
from app.rules.language.expressions import Filtered

TouchpointPredicate = Callable[[TouchpointView], bool]
ValueExtractor = Callable[[TouchpointView], list[Any] | None]
"""What of a touchpoint is kept beside its instant; ``None`` where it is none of the leaf's after all."""

LocalTest = tuple[Any, Callable[[int], bool]]
"""(canonical form, test of an instant) of a condition on local time."""

_COUNT_ONLY = Retention(0, 0, None, ())

WEIGHED_POINTS_MAX: Final = 100_000
"""A cap above this is no cap in practice, and weighing the series with each touchpoint would cost too much."""


class Leaf(msgspec.Struct, frozen=True):
    """``event_names`` is ``None`` where any event matches, ``predicate`` is ``None`` where the name alone decides.

    ``point_retention`` and ``extract_values`` are set if rules read the touchpoints one by one, ``sequence_tracker`` if
    a sequence is followed step by step.
    """

    id: str
    event_names: tuple[str, ...] | None
    predicate: TouchpointPredicate | None
    retention: Retention
    point_retention: PointRetention | None = None
    extract_values: ValueExtractor | None = None
    sequence_tracker: SequenceTracker | None = None

    def matches(self, touchpoint: TouchpointView) -> bool:
        is_named = self.event_names is None or touchpoint.name in self.event_names
        return (
            is_named
            and (self.predicate is None or self.predicate(touchpoint))
            and (self.extract_values is None or self.extract_values(touchpoint) is not None)
        )

    def add(self, series: Series, t: int, place: int, values: Sequence[Any] | None, points_max: int) -> None:
        """Fold in the ``place``-th message of its instant, which is not before any folded in earlier."""
        series.add(t, self.retention, points_max)
        if values is None:
            return
        if series.point_series is None:
            series.point_series = PointSeries()
        if self.sequence_tracker is not None:
            self.sequence_tracker.add(series, t, place, values)
        elif self.point_retention is not None:
            series.point_series.add(t, place, values, self.point_retention)
        if points_max <= WEIGHED_POINTS_MAX and series.point_series.weight > points_max:
            series.overflowed = True

    def prune_series(self, series: Series) -> Series:
        """Return the series without what only rules that no longer exist required."""
        latest = series.latest
        surplus = max(len(latest) - self.retention.latest, 0)
        if self.retention.window is not None and latest:
            surplus = min(surplus, bisect_right(latest, latest[-1] - self.retention.window))
        return msgspec.structs.replace(
            series,
            latest=latest[surplus:],
            earliest=series.earliest[: self.retention.earliest],
            point_series=series.point_series and series.point_series.prune(self.point_retention),
        )

    def merge_with(self, other: Leaf) -> Leaf:
        """Return the same leaf with everything that either of two nodes needs."""
        first, second = self.retention, other.retention
        windows = [window for window in (first.window, second.window) if window is not None]
        retention = Retention(
            latest=max(first.latest, second.latest),
            earliest=max(first.earliest, second.earliest),
            window=max(windows, default=None),
            edges=first.edges,
        )
        point_retention = self.point_retention
        if point_retention is not None and other.point_retention is not None:
            point_retention = point_retention.union(other.point_retention)
        return msgspec.structs.replace(self, retention=retention, point_retention=point_retention)

    @property
    def unlimited(self) -> Leaf:
        """Keep every point: for explanations, which show all that was counted."""
        retention = Retention(latest=10**9, earliest=10**9, window=None, edges=self.retention.edges)
        return msgspec.structs.replace(self, retention=retention)


class Condition(NamedTuple):
    """One entry of ``where``. ``is_open``: only the customer can answer, by a timezone or an operand."""

    path: str
    canonical_form: Any
    comparison: CompiledComparison
    is_open: bool

    def compile_predicate(self, zone: str | None) -> TouchpointPredicate:
        read_value, static_test, holds = compile_path(self.path), self.comparison.static_test, self.comparison.holds
        if static_test is not None:
            return lambda touchpoint: static_test(read_value(touchpoint))
        return lambda touchpoint: holds(
            read_value(touchpoint), ComparisonContext(touchpoint.occurred_at, zone or "UTC", _refuse_operand)
        )


def _refuse_operand(operand: Any) -> Any:
    raise AssertionError(f"a filter that is decided at once has no operand to work out, but {operand!r} is one")


class Filter(NamedTuple):
    """Which touchpoints a node, or a step, is about."""

    event_names: tuple[str, ...] | None
    channels: frozenset[str]
    sources: frozenset[str]
    conditions: tuple[Condition, ...]
    zone: str | None

    @property
    def open_conditions(self) -> tuple[Condition, ...]:
        return tuple(condition for condition in self.conditions if condition.is_open)

    @property
    def canonical_form(self) -> dict[str, Any]:
        """The part of the leaf's id that the filter determines; open conditions are not part of it."""
        settled = [condition for condition in self.conditions if not condition.is_open]
        has_dates = any(condition.comparison.static_test is None for condition in settled)
        return {
            "did": self.event_names,
            "channel": sorted(self.channels),
            "source": sorted(self.sources),
            "where": sorted(([condition.path, condition.canonical_form] for condition in settled), key=repr),
            "zone": self.zone if has_dates else None,
        }

    def predicates(self) -> list[TouchpointPredicate]:
        """What a touchpoint must satisfy beside its name, the cheapest first."""
        predicates: list[TouchpointPredicate] = []
        channels, sources = self.channels, self.sources
        if channels:
            predicates.append(lambda touchpoint: touchpoint.channel in channels)
        if sources:
            predicates.append(lambda touchpoint: touchpoint.source in sources)
        predicates += [condition.compile_predicate(self.zone) for condition in self.conditions if not condition.is_open]
        return predicates


def compile_filter(
    node: Filtered,
    events: str | list[str],
    zone: str | None,
    compile_comparison: Callable[[Comparison], CompiledComparison],
) -> Filter:
    """Compile FILTER; ``zone`` is the node's own timezone."""
    conditions = []
    for path, test in (node.where or {}).items():
        comparison = test if isinstance(test, Comparison) else Comparison(eq=test)
        compiled = compile_comparison(comparison)
        is_open = bool(compiled.dynamic_operands) or (compiled.static_test is None and zone is None)
        conditions.append(Condition(path, _canonical_comparison(comparison), compiled, is_open))
    event_names = None if events == "*" else tuple(sorted(_as_list(events)))
    channels, sources = frozenset(_as_list(node.channel)), frozenset(_as_list(node.source))
    return Filter(event_names, channels, sources, tuple(conditions), zone)


# ---------------------------------------------------------------------------------------- kinds of leaves


def build_counting_leaf(filter: Filter, span: Span, local_test: LocalTest | None, retention: Retention) -> Leaf:
    """A leaf that needs instants only. ``local_test`` is a condition on local time."""
    form = filter.canonical_form | {"span": _canonical_span(span), "local": local_test and local_test[0]}
    return Leaf(
        _digest(form),
        filter.event_names,
        _combine_predicates(filter.predicates() + _span_predicates(span, local_test)),
        retention,
    )


def build_point_leaf(
    filter: Filter,
    span: Span,
    local_test: LocalTest | None,
    paths: Sequence[str],
    point_retention: PointRetention,
) -> Leaf:
    """A leaf that keeps values of its touchpoints: ``paths``, then those of the conditions left open."""
    columns = (*paths, *(condition.path for condition in filter.open_conditions))
    form = filter.canonical_form | {
        "span": _canonical_span(span),
        "local": local_test and local_test[0],
        "kept": columns,
    }
    readers = [compile_path(path) for path in columns]

    def extract_values(touchpoint: TouchpointView) -> list[Any]:
        return [read(touchpoint) for read in readers]

    predicates = filter.predicates() + _span_predicates(span, local_test)
    return Leaf(
        _digest(form), filter.event_names, _combine_predicates(predicates), _COUNT_ONLY, point_retention, extract_values
    )


class StepFilter(NamedTuple):
    """One step of a sequence; a closing step is not bound by the window."""

    filter: Filter
    is_closing: bool


def build_sequence_leaf(
    steps: Sequence[StepFilter],
    span: Span,
    local_test: LocalTest | None,
    same: Sequence[str],
    point_retention: PointRetention,
    tracker: SequenceTracker | None,
) -> Leaf:
    """A leaf for all steps together: the mask of the steps that a touchpoint may be, then the values to be the same."""
    columns = [condition.path for step in steps for condition in step.filter.open_conditions]
    same_readers, open_readers = [compile_path(path) for path in same], [compile_path(path) for path in columns]
    step_filters: list[tuple[int, tuple[str, ...] | None, TouchpointPredicate | None]] = []
    for number, step in enumerate(steps):
        in_window = [] if step.is_closing else _span_predicates(span, local_test)
        step_filters.append(
            (1 << number, step.filter.event_names, _combine_predicates(step.filter.predicates() + in_window))
        )

    def extract_values(touchpoint: TouchpointView) -> list[Any] | None:
        mask = 0
        for bit, names, predicate in step_filters:
            if (names is None or touchpoint.name in names) and (predicate is None or predicate(touchpoint)):
                mask |= bit
        if not mask:
            return None
        values = [read(touchpoint) for read in same_readers]
        if None in values:
            return None
        return [mask, *values, *(read(touchpoint) for read in open_readers)]

    form = {
        "steps": [step.filter.canonical_form | {"closing": step.is_closing} for step in steps],
        "span": _canonical_span(span),
        "local": local_test and local_test[0],
        "same": list(same),
        "kept": columns,
        "course": None if tracker is None else _canonical_tracker(tracker),
    }
    names_by_step = [step.filter.event_names for step in steps]
    event_names = None if None in names_by_step else tuple(sorted({n for names in names_by_step for n in names or ()}))
    return Leaf(_digest(form), event_names, None, _COUNT_ONLY, point_retention, extract_values, tracker)


def _span_predicates(span: Span, local_test: LocalTest | None) -> list[TouchpointPredicate]:
    """What the instant alone must satisfy, in some timezone at least."""
    predicates: list[TouchpointPredicate] = []
    start, end = span.widest_bounds
    if start is not None:
        predicates.append(lambda touchpoint: touchpoint.occurred_at >= start)
    if end is not None:
        predicates.append(lambda touchpoint: touchpoint.occurred_at < end)
    if local_test is not None:
        is_in = local_test[1]
        predicates.append(lambda touchpoint: is_in(touchpoint.occurred_at))
    return predicates


def _combine_predicates(predicates: Sequence[TouchpointPredicate]) -> TouchpointPredicate | None:
    if len(predicates) < 2:
        return predicates[0] if predicates else None
    return partial(_satisfies_all, tuple(predicates))


def _satisfies_all(predicates: Sequence[TouchpointPredicate], touchpoint: TouchpointView) -> bool:
    return all(predicate(touchpoint) for predicate in predicates)


def _as_list(words: str | list[str] | None) -> list[str]:
    return [] if words is None else [words] if isinstance(words, str) else words


# ------------------------------------------------------------------------------------------------- ids


def _digest(form: Any) -> str:
    return blake2b(msgspec.json.encode(form, order="sorted"), digest_size=6).hexdigest()


def _canonical_span(span: Span) -> list[Any]:
    return [bound.isoformat() if isinstance(bound, date) else bound for bound in span]


def _canonical_tracker(tracker: SequenceTracker) -> str:
    """Return the text that is part of the ids of stored series: changing it orphans them."""
    shape = tracker.shape
    return f"Course(shape=Shape(gaps={shape.gaps!r}, closing={shape.closing!r}, same={shape.same_count}))"


def _canonical_comparison(comparison: Comparison) -> dict[str, Any]:
    form = {name: canonicalize(getattr(comparison, name)) for name in comparison.operators}
    for name in {"in_", "not_in", "any_of", "all_of", "none_of"} & form.keys():
        form[name].sort(key=repr)
    return form | {"ignore_case": True} if comparison.ignore_case else form


def canonicalize(operand: Any) -> Any:
    """One form for what means the same: 1 and 1.0 are one, 1 and "1" are not."""
    if isinstance(operand, BaseModel):
        return canonicalize(operand.model_dump(by_alias=True, exclude_unset=True))
    if isinstance(operand, dict):
        return {name: canonicalize(value) for name, value in operand.items()}
    if isinstance(operand, list | tuple):
        return [canonicalize(item) for item in operand]
    if isinstance(operand, bool) or not isinstance(operand, int | Decimal):
        return operand
    digits = f"{operand:f}" if isinstance(operand, Decimal) else str(operand)
    return ["number", digits.rstrip("0").rstrip(".") if "." in digits else str(int(operand))]
