"""Compiler of one rule or value expression: builds its nodes and leaves, and records its dependencies.

For each head it selects the cheapest node class that stays exact. A count within an exact length, for example, needs
only the latest instants of a series; a count in a calendar window needs all points in that window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, assert_never

from pydantic import BaseModel

from app.rules.engine.compilation_state import AnalyzedDefinitions, Compilation, Dependencies
from app.rules.engine.filters import (
    Filter,
    StepFilter,
    build_counting_leaf,
    build_point_leaf,
    build_sequence_leaf,
    compile_filter,
)
from app.rules.engine.node_timezone import NodeTimezone
from app.rules.engine.nodes import aggregates, boolean, counts, first_last, recurring, sequence, traits, truth_history
from app.rules.engine.nodes.base import CompiledRule, Node, ValueNode
from app.rules.engine.nodes.point_windows import OpenCondition, PointWindow, ValueOperand
from app.rules.engine.nodes.random_bucket import BucketNode
from app.rules.engine.operators import CompiledComparison, compile_comparison
from app.rules.engine.point_series import PointRetention
from app.rules.engine.sequence_search import STEP_MASK_COLUMN
from app.rules.engine.sequence_tracker import Gap, SequenceShape, SequenceTracker
from app.rules.engine.series import Retention
from app.rules.engine.sliding_window import HEADS_WITHOUT_PATH, AggregateHead
from app.rules.engine.window import UNBOUNDED_SPAN, SplitWindow, Window, split_window
from app.rules.language import expressions, nodes, touchpoint_nodes
from app.rules.language.comparison import Comparison
from app.rules.language.expressions import TraitOperand
from app.rules.language.nodes import Rule
from app.rules.language.references import find_computed_trait, resolve_stage_positions, segment_id
from app.rules.values import calendar
from app.rules.values.patterns import measure_pattern

_ANY_TIME: Final = Window(None, None, UNBOUNDED_SPAN, None, None, False)


class RuleCompiler:
    """Compiles the nodes of one rule; ``dependencies`` collects what the rule depends on."""

    def __init__(self, compilation: Compilation, definitions: AnalyzedDefinitions, dependencies: Dependencies) -> None:
        self._compilation = compilation
        self._definitions = definitions
        self._dependencies = dependencies

    def compile_node(self, rule: Rule) -> Node:
        rule_json = rule.model_dump(by_alias=True, exclude_unset=True)
        match rule:
            case nodes.All():
                return boolean.AllNode(rule_json, [self.compile_node(child) for child in rule.all_])
            case nodes.AnyOf():
                return boolean.AnyNode(rule_json, [self.compile_node(child) for child in rule.any_])
            case nodes.Not():
                return boolean.NotNode(rule_json, [self.compile_node(rule.not_)])
            case nodes.Everyone():
                return boolean.EveryoneNode(rule_json)
            case touchpoint_nodes.Did():
                return self._compile_did(rule, rule_json)
            case touchpoint_nodes.First():
                return self._compile_first_or_last(rule, rule.first, rule_json, is_first=True)
            case touchpoint_nodes.Last():
                return self._compile_first_or_last(rule, rule.last, rule_json, is_first=False)
            case touchpoint_nodes.Sequence():
                return self._compile_sequence(rule, rule_json)
            case touchpoint_nodes.Regularly():
                return self._compile_regularly(rule, rule_json)
            case nodes.TraitIs():
                return self._compile_trait(rule, rule_json)
            case nodes.InSegment():
                return self._compile_segment(rule, rule_json)
            case nodes.AtStage():
                return self._compile_stage(rule, rule_json)
            case nodes.Bucket():
                self._dependencies.reads_bucketing_key = self._dependencies.is_dated = True
                return BucketNode(rule_json, rule.bucket[0], rule.bucket[1], rule.salt)
            case (
                nodes.Sum()
                | nodes.Avg()
                | nodes.Min()
                | nodes.Max()
                | nodes.Distinct()
                | nodes.FirstValue()
                | nodes.LastValue()
                | nodes.MostFrequent()
            ):
                return self._compile_comparison_node(rule, self.compile_value(rule), rule_json)
            case _:
                assert_never(rule)

    # ---------------------------------------------------------------------------------- touchpoints

    def _compile_did(self, rule: touchpoint_nodes.Did, rule_json: dict[str, Any]) -> Node:
        low, high = rule.count
        filter = self._compile_filter(rule, rule.did, rule.timezone)
        split = split_window(rule)
        window = split.window
        needs_instants_only = (
            not filter.open_conditions
            and not window.is_local
            and not any(length is not None and not length.is_exact for length in (window.within, window.before))
            and not (window.span.has_floating_dates and (window.within or window.before))
            and not (window.within and window.before)
        )
        if not needs_instants_only:
            point_window = self._compile_point_window(filter, split, rule.timezone, (), _point_retention(window))
            node = counts.CountInWindowNode(rule_json, point_window, low, high)
            self._compilation.add_sliding_window(node.sliding_window)
            return node
        within, before = (length and length.microseconds for length in (window.within, window.before))
        retention = _counting_retention(within, before, low, high, window.span.edges)
        leaf = build_counting_leaf(filter, split.fixed_span, split.local_test, retention)
        self._compilation.add_leaf(leaf, self._dependencies)
        if within:
            return counts.CountWithinNode(rule_json, leaf.id, low, high, within)
        if before:
            return counts.CountBeforeNode(rule_json, leaf.id, low, high, before)
        if window.span.has_floating_dates:
            zone = self._node_timezone(None, used=True)
            return counts.CountBetweenDatesNode(rule_json, leaf.id, low, high, span=window.span, zone=zone)
        return counts.CountNode(rule_json, leaf.id, low, high)

    def _compile_first_or_last(
        self,
        rule: touchpoint_nodes.First | touchpoint_nodes.Last,
        events: str | list[str],
        rule_json: dict[str, Any],
        *,
        is_first: bool,
    ) -> Node:
        filter = self._compile_filter(rule, events, rule.timezone)
        split = split_window(rule, whole=True)
        retention = PointRetention(first=is_first, last=not is_first)
        if filter.open_conditions:
            retention = PointRetention(all_points=True)
        point_window = self._compile_point_window(filter, split, rule.timezone, (), retention)
        return first_last.FirstOrLastNode(rule_json, point_window, is_first=is_first)

    def _compile_regularly(self, rule: touchpoint_nodes.Regularly, rule_json: dict[str, Any]) -> Node:
        cadence = recurring.Cadence(rule.at_least, rule.of_last, rule.period)
        filter = self._compile_filter(rule, rule.regularly, rule.timezone)
        split = SplitWindow(_ANY_TIME, UNBOUNDED_SPAN, None)
        retention = PointRetention(window=cadence.age_max, spacing=cadence.period_min, scanned=True)
        point_window = self._compile_point_window(
            filter, split, rule.timezone, (), retention, uses_zone=cadence.is_calendar
        )
        return recurring.RecurringNode(rule_json, point_window, cadence)

    def _compile_sequence(self, rule: touchpoint_nodes.Sequence, rule_json: dict[str, Any]) -> Node:
        split = split_window(rule)
        steps = [step.not_ if isinstance(step, touchpoint_nodes.NotStep) else step for step in rule.sequence]
        last = rule.sequence[-1]
        closing = calendar.parse_length(last.within) if isinstance(last, touchpoint_nodes.NotStep) else None
        filters = [
            StepFilter(self._compile_filter(step, step.did, rule.timezone), isinstance(model, touchpoint_nodes.NotStep))
            for step, model in zip(steps, rule.sequence, strict=True)
        ]
        gaps = tuple(_compile_gap(step) for step in rule.sequence if isinstance(step, touchpoint_nodes.Step))
        same = rule.same or []
        shape = SequenceShape(gaps, closing, len(same))
        has_open_conditions = any(step.filter.open_conditions for step in filters)
        uses_zone = split.window.uses_zone or not shape.is_exact or has_open_conditions
        within, before = (length and length.microseconds for length in (split.window.within, split.window.before))
        tracker = None if uses_zone else SequenceTracker(shape, within, before)
        retention = None
        if tracker is None or self._compilation.is_explaining:
            retention = _point_retention(split.window).union(PointRetention(scanned=True))
            retention = self._compilation.widen_retention(retention)
        leaf = build_sequence_leaf(filters, split.fixed_span, split.local_test, same, retention, tracker)
        self._compilation.add_leaf(leaf, self._dependencies, len(steps))
        point_window = PointWindow(leaf.id, split.window, self._node_timezone(rule.timezone, used=uses_zone), ())
        search = sequence.SearchedSequenceNode(rule_json, point_window, shape, _open_tests(filters, len(same)))
        return search if tracker is None else sequence.TrackedSequenceNode(rule_json, leaf.id, tracker, search)

    def _compile_filter(self, node: expressions.Filtered, events: str | list[str], zone: str | None) -> Filter:
        return compile_filter(node, events, zone, self._compile_comparison)

    def _compile_point_window(
        self,
        filter: Filter,
        split: SplitWindow,
        timezone: str | None,
        paths: Sequence[str],
        retention: PointRetention,
        *,
        uses_zone: bool = False,
    ) -> PointWindow:
        if filter.open_conditions:
            keeps_all = retention.all_points or not retention.window
            retention = PointRetention(all_points=keeps_all, window=retention.window, scanned=True)
        retention = self._compilation.widen_retention(retention)
        leaf = build_point_leaf(filter, split.fixed_span, split.local_test, paths, retention)
        self._compilation.add_leaf(leaf, self._dependencies)
        open_conditions = [
            OpenCondition(column, condition.comparison)
            for column, condition in enumerate(filter.open_conditions, 2 + len(paths))
        ]
        zone = self._node_timezone(timezone, used=uses_zone or split.window.uses_zone or bool(open_conditions))
        return PointWindow(leaf.id, split.window, zone, open_conditions)

    # --------------------------------------------------------------------------------------- values

    def compile_value(self, expression: Any) -> ValueNode:
        """Compile a value expression; ignore the comparison if the node is an aggregate with a comparison."""
        if isinstance(expression, TraitOperand):
            return self._resolve_trait(expression.trait)
        head: AggregateHead = type(expression).head
        node: expressions.CountValue = expression
        has_path = head not in HEADS_WITHOUT_PATH
        events = expression.of if has_path else getattr(expression, head)
        paths = (getattr(expression, head),) if has_path else ()
        filter = self._compile_filter(node, events, node.timezone)
        split = split_window(node)
        is_lifetime = split.window.is_lifetime and not filter.open_conditions and not self._compilation.is_explaining
        retention = _lifetime_retention(head) if is_lifetime else _point_retention(split.window)
        point_window = self._compile_point_window(filter, split, node.timezone, paths, retention)
        if is_lifetime:
            return aggregates.LifetimeAggregate(head, point_window)
        aggregate = aggregates.WindowedAggregate(head, point_window)
        self._compilation.add_sliding_window(aggregate.sliding_window)
        return aggregate

    def _compile_comparison(self, comparison: Comparison) -> CompiledComparison:
        if comparison.matches is not None:
            fold = bool(comparison.ignore_case)
            self._dependencies.patterns[comparison.matches, fold] = measure_pattern(comparison.matches, fold=fold)
        operators = {}
        for name in comparison.operators:
            operand = getattr(comparison, name)
            operators[name] = ValueOperand(self.compile_value(operand)) if isinstance(operand, BaseModel) else operand
        return compile_comparison(operators, ignore_case=bool(comparison.ignore_case))

    def _resolve_trait(self, name: str) -> ValueNode:
        computed_id = find_computed_trait(name, self._definitions.rules)
        if computed_id is None:
            self._dependencies.traits |= {name, name.partition(".")[0]}
            return traits.DeclaredTrait(name)
        rule_id = self._definitions.ids[computed_id]
        self._dependencies.include(self._compilation.dependencies[rule_id])
        self._dependencies.rules.add(rule_id)
        computed_trait = self._compilation.computed_traits[rule_id]
        path = name.removeprefix(computed_id.partition(":")[2]).removeprefix(".")
        return traits.ComputedTraitPath(computed_trait, path) if path else computed_trait

    # --------------------------------------------------------------------------------------- traits

    def _compile_trait(self, rule: nodes.TraitIs, rule_json: dict[str, Any]) -> Node:
        parts: list[Node] = []
        if rule.operators and not rule.held_for:
            parts.append(self._compile_comparison_node(rule, self._resolve_trait(rule.trait), rule_json))
        if rule.held_for:
            target = self._tracked_comparison(rule) if rule.operators else self._tracked_value(rule.trait)
            parts.append(
                self._compile_duration(truth_history.ForAtLeastNode, rule_json, target, rule.held_for, rule.timezone)
            )
        if rule.changed_within:
            target = self._tracked_value(rule.trait)
            parts.append(
                self._compile_duration(
                    truth_history.ChangedWithinNode, rule_json, target, rule.changed_within, rule.timezone
                )
            )
        return parts[0] if len(parts) == 1 else boolean.AllNode(rule_json, parts)

    def _compile_comparison_node(self, rule: Any, source: ValueNode, rule_json: dict[str, Any]) -> Node:
        comparison = self._compile_comparison(rule)
        if isinstance(source, traits.DeclaredTrait) and comparison.static_test is not None:
            return traits.DeclaredTraitNode(rule_json, source, comparison.static_test)
        # A sum without touchpoints is 0, which is also a date (an epoch number), so time alone can change the
        # comparison.
        self._dependencies.is_dated |= rule.has_dates and not isinstance(source, traits.DeclaredTrait)
        zone = self._node_timezone(rule.timezone, used=rule.has_dates)
        return traits.ComparisonNode(rule_json, source, comparison, zone)

    def _tracked_comparison(self, rule: nodes.TraitIs) -> CompiledRule:
        plain_rule = rule.model_copy(update={"held_for": None, "changed_within": None})

        def compile_hidden_rule(rule_id: str, dependencies: Dependencies) -> CompiledRule:
            compiler = RuleCompiler(self._compilation, self._definitions, dependencies)
            source = compiler._resolve_trait(plain_rule.trait)
            return CompiledRule(rule_id, compiler._compile_comparison_node(plain_rule, source, {}))

        meaning = self._compilation.digest_part("watched", plain_rule, self._definitions)
        return self._compilation.add_hidden_rule("comparison", meaning, self._dependencies, compile_hidden_rule)

    def _tracked_value(self, name: str) -> CompiledRule:
        """Return the hidden rule that tracks since when the trait has its current value."""

        def compile_hidden_rule(rule_id: str, dependencies: Dependencies) -> CompiledRule:
            compiler = RuleCompiler(self._compilation, self._definitions, dependencies)
            return truth_history.ValueHistoryRule(rule_id, compiler._resolve_trait(name))

        meaning = self._compilation.digest_part("followed", TraitOperand(trait=name), self._definitions)
        return self._compilation.add_hidden_rule("follows", meaning, self._dependencies, compile_hidden_rule)

    # -------------------------------------------------------------------------- segments and stages

    def _compile_segment(self, rule: nodes.InSegment, rule_json: dict[str, Any]) -> Node:
        return self._compile_membership(rule, rule_json, self._reference_rule(segment_id(rule.segment)))

    def _compile_stage(self, rule: nodes.AtStage, rule_json: dict[str, Any]) -> Node:
        journey = self._definitions.journeys[rule.journey or self._compilation.default_journey]
        target_positions = resolve_stage_positions(
            rule, (), self._definitions.journeys, self._compilation.default_journey
        )
        stages = [self._reference_rule(target) for _, target in journey]
        stage_keys = [key for key, _ in journey]
        if not (rule.for_at_least or rule.entered_within or rule.ever):
            return boolean.StageNode(rule_json, stages, stage_keys, target_positions)

        def compile_hidden_rule(rule_id: str, dependencies: Dependencies) -> CompiledRule:
            for stage in stages:
                dependencies.include(self._compilation.dependencies[stage.rule_id])
                dependencies.rules.add(stage.rule_id)
            return CompiledRule(rule_id, boolean.StageNode({}, stages, stage_keys, target_positions))

        meaning = [self._compilation.meanings[stage.rule_id] for stage in stages]
        target = self._compilation.add_hidden_rule(
            "stage", [meaning, sorted(target_positions)], self._dependencies, compile_hidden_rule
        )
        return self._compile_membership(rule, rule_json, target)

    def _compile_membership(
        self, rule: nodes.InSegment | nodes.AtStage, rule_json: dict[str, Any], target: CompiledRule
    ) -> Node:
        """Compile a segment or stage node with its modifiers, which test the duration or any past membership."""
        if rule.ever:
            return truth_history.EverHeldNode(rule_json, self._tracked_ever(target))
        parts: list[Node] = []
        if rule.for_at_least:
            parts.append(
                self._compile_duration(
                    truth_history.ForAtLeastNode, rule_json, target, rule.for_at_least, rule.timezone
                )
            )
        if rule.entered_within:
            parts.append(
                self._compile_duration(
                    truth_history.EnteredWithinNode, rule_json, target, rule.entered_within, rule.timezone
                )
            )
        if not parts:
            return boolean.SegmentNode(rule_json, [target])
        return parts[0] if len(parts) == 1 else boolean.AllNode(rule_json, parts)

    def _tracked_ever(self, target: CompiledRule) -> CompiledRule:
        def compile_hidden_rule(rule_id: str, dependencies: Dependencies) -> CompiledRule:
            dependencies.include(self._compilation.dependencies[target.rule_id])
            dependencies.rules.add(target.rule_id)
            return CompiledRule(rule_id, truth_history.EverHeldBody(rule_id, target))

        meaning = self._compilation.meanings[target.rule_id]
        return self._compilation.add_hidden_rule("ever", meaning, self._dependencies, compile_hidden_rule)

    def _compile_duration(
        self,
        node_class: type[truth_history.DurationNode],
        rule_json: dict[str, Any],
        target: CompiledRule,
        length_text: str,
        timezone: str | None,
    ) -> Node:
        self._dependencies.is_dated = True
        length = calendar.parse_length(length_text)
        zone = self._node_timezone(timezone, used=not length.is_exact)
        return node_class(rule_json, target, length, zone)

    def _reference_rule(self, plain_id: str) -> CompiledRule:
        rule_id = self._definitions.ids[plain_id]
        self._dependencies.include(self._compilation.dependencies[rule_id])
        self._dependencies.rules.add(rule_id)
        return self._compilation.rules[rule_id]

    def _node_timezone(self, own: str | None, *, used: bool) -> NodeTimezone:
        if used and own is None:
            self._dependencies.traits.add("timezone")
        return NodeTimezone(own, self._compilation.timezone)


def _counting_retention(
    within: int | None, before: int | None, low: int, high: int | None, edges: tuple[tuple[int, int], ...]
) -> Retention:
    """Return the retention for a count: one instant more than its highest number decides the result."""
    points = (low if high is None else high) + 1
    if within:
        return Retention(points, 0, None, ())
    if before:
        return Retention(0, points, None, ())
    return Retention(0, 0, None, edges)


def _point_retention(window: Window) -> PointRetention:
    age_max, scanned = window.age_max, not window.enters_in_order
    if age_max is None:
        return PointRetention(all_points=True, scanned=scanned)
    return PointRetention(window=age_max, scanned=scanned)


def _lifetime_retention(head: AggregateHead) -> PointRetention:
    match head:
        case "count":
            return PointRetention()
        case "first_at":
            return PointRetention(first=True)
        case "last_at":
            return PointRetention(last=True)
        case "distinct" | "most_frequent":
            return PointRetention(totals=True, distinct_values=True)
        case "sum" | "avg" | "min" | "max" | "first_value" | "last_value":
            return PointRetention(totals=True)
        case _:
            assert_never(head)


def _compile_gap(step: touchpoint_nodes.Step) -> Gap:
    within, after = (calendar.parse_length(text) if text else None for text in (step.within, step.after_at_least))
    return Gap(within, after)


def _open_tests(steps: Sequence[StepFilter], same_count: int) -> list[sequence.OpenStepTest]:
    tests: list[sequence.OpenStepTest] = []
    for number, step in enumerate(steps):
        for condition in step.filter.open_conditions:
            column = STEP_MASK_COLUMN + 1 + same_count + len(tests)
            tests.append(sequence.OpenStepTest(1 << number, column, condition.comparison))
    return tests
