"""Filters and leaves, which decide which touchpoints a node counts.

A leaf is the part of a node that has the same result for every customer and instant: event names, channel, source,
``where``, and fixed dates. Its id is a digest of these parts. So if ten segments use the same filter, or an edit of a
segment does not change its filter, there is one leaf with one series for each customer.

A condition that depends on the customer (a date without a timezone, an operand that is a trait) is *open*. The leaf
cannot test it, so it stores the value of the touchpoint, and the node tests it at each evaluation.
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

from app.rules.engine.operators import ComparisonContext, CompiledComparison
from app.rules.engine.point_series import PointRetention, PointSeries
from app.rules.engine.sequence_tracker import SequenceState, SequenceTracker
from app.rules.engine.series import Retention, Series
from app.rules.engine.touchpoint_view import TouchpointView, compile_path
from app.rules.engine.window import Span
from app.rules.language.comparison import Comparison
from app.rules.language.expressions import Filtered

TouchpointPredicate = Callable[[TouchpointView], bool]
ValueExtractor = Callable[[TouchpointView], list[Any] | None]
"""Returns the values of a touchpoint that the leaf stores; ``None`` if the touchpoint does not match the leaf."""

LocalTest = tuple[Any, Callable[[int], bool]]
"""A condition on local time: its canonical form, and a predicate of the touchpoint's instant."""

_COUNT_ONLY = Retention(0, 0, None, ())

WEIGHED_POINTS_MAX: Final = 100_000
"""Highest size limit, in points, that is checked after each touchpoint. A series rarely reaches a higher limit, and
computing the size of a long series after each touchpoint would cost too much."""


class Leaf(msgspec.Struct, frozen=True):
    """A test of touchpoints, and the retention of the series that stores the matching touchpoints.

    ``event_names`` is ``None`` if every event matches, and ``predicate`` is ``None`` if the event name alone decides.
    ``point_retention`` and ``extract_values`` are set if rules read single touchpoints. ``sequence_tracker`` is set if
    the leaf tracks the progress of a sequence.
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
        """Add a touchpoint to the series; it must not be earlier than the touchpoints added before.

        ``t`` is the instant of the touchpoint, ``place`` its position among the messages of that instant, and
        ``points_max`` the size limit of the series.
        """
        series.add(t, self.retention, points_max)
        if values is None:
            return
        if self.sequence_tracker is not None:
            if series.sequence is None:
                series.sequence = SequenceState()
            self.sequence_tracker.add(series.sequence, t, values)
            if points_max <= WEIGHED_POINTS_MAX and series.sequence.weight > points_max:
                series.overflowed = True
        if self.point_retention is None:
            return
        if series.point_series is None:
            series.point_series = PointSeries()
        series.point_series.add(t, place, values, self.point_retention)
        if points_max <= WEIGHED_POINTS_MAX and self.limited_weight(series.point_series) > points_max:
            series.overflowed = True

    def limited_weight(self, point_series: PointSeries) -> int:
        """Return the size, in points, of the parts that must stay in the customer's state."""
        return point_series.weight if self.keeps_points_in_state else point_series.rest_weight

    @property
    def keeps_points_in_state(self) -> bool:
        """True if a rule scans all points of the series; else older points can be moved out of the state."""
        return self.point_retention is not None and self.point_retention.scanned

    def prune_series(self, series: Series) -> Series:
        """Return the series without the parts that only removed rules needed."""
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
        """Return the leaf with a retention that is enough for the nodes of both leaves."""
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
        """A copy of the leaf whose series keeps every point, for explanations."""
        retention = Retention(latest=10**9, earliest=10**9, window=None, edges=self.retention.edges)
        return msgspec.structs.replace(self, retention=retention)


class Condition(NamedTuple):
    """One entry of ``where``; it is open if its result depends on the customer's timezone or on a dynamic operand."""

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
    raise AssertionError(f"a closed condition has a dynamic operand: {operand!r}")


class Filter(NamedTuple):
    """Compiled filter of a node or of a step of a sequence."""

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
        """JSON value of the filter, from which the leaf id is computed.

        It excludes open conditions, which the leaf cannot test.
        """
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
        """Return the predicates that a touchpoint must satisfy in addition to its name, the cheapest first."""
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
    """Compile the filter of a node; ``zone`` is the node's own timezone."""
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
    """Return a leaf that stores only the instants of touchpoints."""
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
    """Return a leaf that stores values of touchpoints: the values at ``paths``, then the values for open conditions."""
    columns = (*paths, *(condition.path for condition in filter.open_conditions))
    form = filter.canonical_form | {
        "span": _canonical_span(span),
        "local": local_test and local_test[0],
        "kept": columns,
        # A leaf whose points must stay in the state is not shared with sliding windows, which move them out of it.
        "scanned": point_retention.scanned,
    }
    readers = [compile_path(path) for path in columns]

    def extract_values(touchpoint: TouchpointView) -> list[Any]:
        return [read(touchpoint) for read in readers]

    predicates = filter.predicates() + _span_predicates(span, local_test)
    return Leaf(
        _digest(form), filter.event_names, _combine_predicates(predicates), _COUNT_ONLY, point_retention, extract_values
    )


class StepFilter(NamedTuple):
    """Filter of one step of a sequence. The window of the sequence does not apply to a closing ``not`` step."""

    filter: Filter
    is_closing: bool


def build_sequence_leaf(
    steps: Sequence[StepFilter],
    span: Span,
    local_test: LocalTest | None,
    same: Sequence[str],
    point_retention: PointRetention | None,
    tracker: SequenceTracker | None,
) -> Leaf:
    """Return one leaf for all steps of a sequence.

    It stores a bit mask of the steps that the touchpoint matches, the values at ``same``, and the values for open
    conditions. A touchpoint that lacks the value of a path of ``same`` does not match.
    """
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
        "tracked": None if tracker is None else tracker.canonical_form,
    }
    names_by_step = [step.filter.event_names for step in steps]
    event_names = None if None in names_by_step else tuple(sorted({n for names in names_by_step for n in names or ()}))
    return Leaf(_digest(form), event_names, None, _COUNT_ONLY, point_retention, extract_values, tracker)


def _span_predicates(span: Span, local_test: LocalTest | None) -> list[TouchpointPredicate]:
    """Return predicates that accept a touchpoint whose instant is inside the span in at least one timezone."""
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


def _canonical_comparison(comparison: Comparison) -> dict[str, Any]:
    form = {name: canonicalize(getattr(comparison, name)) for name in comparison.operators}
    for name in {"in_", "not_in", "any_of", "all_of", "none_of"} & form.keys():
        form[name].sort(key=repr)
    return form | {"ignore_case": True} if comparison.ignore_case else form


def canonicalize(operand: Any) -> Any:
    """Return a JSON value that is equal for operands with the same meaning: for 1 and 1.0, but not for 1 and "1"."""
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
