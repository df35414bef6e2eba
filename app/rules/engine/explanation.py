"""Explanations: the result of every node of a rule for one customer, since when, and until when."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from app.rules.engine.nodes.aggregates import WindowedAggregate
from app.rules.engine.nodes.base import CompiledRule, EvaluationCache, Facts, Node, ValueNode
from app.rules.engine.nodes.boolean import StageNode
from app.rules.engine.nodes.counts import CountInWindowNode, CountNode
from app.rules.engine.nodes.first_last import FirstOrLastNode
from app.rules.engine.nodes.random_bucket import BucketNode, compute_bucket
from app.rules.engine.nodes.recurring import RecurringNode
from app.rules.engine.nodes.sequence import SearchedSequenceNode, TrackedSequenceNode
from app.rules.engine.nodes.traits import ComparisonNode, ComputedTrait, ComputedTraitPath, DeclaredTraitNode
from app.rules.language.validation import HEADS

TOUCHPOINTS_MAX: Final = 100
"""Maximum number of message ids that the explanation of one node lists; it lists the latest. ``counted`` is the number
of all touchpoints of the node."""

TouchpointIds = Callable[[str], Sequence[tuple[int, str]]]
"""Leaf id -> (occurred_at, message id) of every touchpoint of the customer that matches the leaf, in order."""

_COUNT_KEYS: Final = ("at_least", "at_most", "exactly", "between")
_CADENCE_KEYS: Final = ("at_least", "of_last", "period")
_NON_COMPARISON_KEYS: Final = frozenset(
    (*HEADS, "of", "where", "channel", "source", "within", "before", "from", "to", "during", "timezone", "ignore_case")
)


def explain_rule(
    node: Node, facts: Facts, t: int, ids: TouchpointIds | None, node_trackers: Mapping[int, CompiledRule] | None = None
) -> dict[str, Any]:
    """Return the rule as a tree with the result of every node at ``t``.

    Every node has ``rule`` (JSON), ``truth``, ``since`` (microseconds; ``None`` without a tracker for the node),
    ``valid_until`` (microseconds, or ``None`` for never) and ``nodes`` (children). Some nodes have more keys:

    - a node that counts touchpoints: ``counted``, ``needed`` and ``touchpoints``
    - a node that compares a value: ``value``
    - a stage node: ``current``
    - a bucket node: ``bucket``

    If several nodes read one segment or stage, only the first of them has its explanation, with its id as
    ``definition``. ``node_trackers`` maps ``id(node)`` to the hidden rule that tracks since when the node has its
    truth.
    """
    explained = {node.rule_id} if isinstance(node, CompiledRule) else set()
    return _ExplanationBuilder(facts, t, ids, node_trackers or {}, explained).build_tree(node)


def explain_value(computed: ComputedTrait, facts: Facts, t: int, ids: TouchpointIds | None) -> dict[str, Any]:
    """Return ``value`` and ``valid_until`` of a computed trait, and the touchpoints from which it was computed."""
    cache = EvaluationCache(t, scans_points=True)
    value, until = computed.value_and_next_change(facts, t, cache)
    inputs = _ExplanationBuilder(facts, t, ids, {}, set()).describe_inputs(computed)
    return {"value": value, "valid_until": until} | inputs


class _ExplanationBuilder:
    def __init__(
        self,
        facts: Facts,
        t: int,
        ids: TouchpointIds | None,
        node_trackers: Mapping[int, CompiledRule],
        explained: set[str],
    ) -> None:
        self.facts, self.t, self.ids, self.node_trackers, self.explained = facts, t, ids, node_trackers, explained
        self.cache = EvaluationCache(t, scans_points=True)

    def build_tree(self, node: Node) -> dict[str, Any]:
        if isinstance(node, CompiledRule):
            return {"definition": node.rule_id} | self.build_tree(node.body)
        tracker = self.node_trackers.get(id(node))
        rule = tracker or CompiledRule("", node)
        answer: dict[str, Any] = {
            "rule": node.rule_json,
            "truth": node.holds(self.facts, self.t, self.cache),
            "since": tracker.truth_at(self.facts, self.t, self.cache).since if tracker is not None else None,
            "valid_until": rule.next_check_at(self.facts, self.t, EvaluationCache(self.t, scans_points=True)),
        }
        answer |= self._details(node)
        answer["nodes"] = [self.build_tree(child) for child in self._children(node)]
        return answer

    def _children(self, node: Node) -> list[Node]:
        """Return the children to explain: a segment or stage only once, a hidden rule never."""
        children: list[Node] = []
        for child in node.children:
            if isinstance(child, CompiledRule):
                if child.rule_id in self.explained or child.rule_id.startswith("watch:"):
                    continue
                self.explained.add(child.rule_id)
            children.append(child)
        return children

    def _details(self, node: Node) -> dict[str, Any]:
        match node:
            case CountNode():
                return self._describe_count(node)
            case CountInWindowNode():
                inside, _ = node.point_window.find_intervals(self.facts, self.t, self.cache)
                indexes = [interval.position for interval in inside]
                counted = {"counted": len(indexes), "needed": _required_count(node)}
                return counted | self._touchpoints_at(node.point_window.leaf_id, indexes)
            case FirstOrLastNode():
                index = node.find_index(self.facts, self.t, self.cache)
                return self._touchpoints_at(node.point_window.leaf_id, [] if index is None else [index])
            case SearchedSequenceNode():
                return self._describe_sequence(node)
            case TrackedSequenceNode():
                return self._describe_sequence(node.search)
            case RecurringNode():
                return self._describe_periods(node)
            case DeclaredTraitNode():
                return {"value": node.source.evaluate(self.facts, self.t, self.cache)}
            case ComparisonNode():
                value = node.source.evaluate(self.facts, self.t, self.cache)
                return {"value": value, "needed": _comparison_json(node)} | self.describe_inputs(node.source)
            case StageNode():
                current = node.current_position(self.facts, self.t, self.cache)
                return {"current": None if current is None else node.stage_keys[current]}
            case BucketNode():
                key = self.facts.bucketing_key
                return {"bucket": None if key is None else compute_bucket(node.salt, *key)}
            case _:
                return {}

    def _describe_count(self, node: CountNode) -> dict[str, Any]:
        touchpoints = self.ids(node.leaf_id) if self.ids else []
        inside = [message_id for p, message_id in touchpoints if node.is_inside(p, self.facts, self.t)]
        return {
            "counted": len(inside) if self.ids else node.count(self.facts, self.t),
            "needed": _required_count(node),
            "touchpoints": inside[-TOUCHPOINTS_MAX:],
        }

    def _describe_sequence(self, node: SearchedSequenceNode) -> dict[str, Any]:
        indexes = node.find_matched_indexes(self.facts, self.t, self.cache)
        return self._touchpoints_at(node.point_window.leaf_id, indexes)

    def _describe_periods(self, node: RecurringNode) -> dict[str, Any]:
        matches = node.matches_by_period(self.facts, self.t, self.cache)
        instants = {p for in_period in matches.values() for p in in_period}
        points = node.point_window.points_of(self.facts)
        indexes = [index for index, point in enumerate(points) if point[0] in instants]
        needed = {key: node.rule_json[key] for key in _CADENCE_KEYS}
        return {"counted": len(matches), "needed": needed} | self._touchpoints_at(node.point_window.leaf_id, indexes)

    def describe_inputs(self, source: ValueNode) -> dict[str, Any]:
        """Return ``counted`` and ``touchpoints`` if the value is an aggregate with a window, else nothing."""
        while isinstance(source, ComputedTrait | ComputedTraitPath):
            source = source.source
        if not isinstance(source, WindowedAggregate):
            return {}
        indexes = [index for index, _ in source.values_in_window(self.facts, self.t, self.cache)]
        return {"counted": len(indexes)} | self._touchpoints_at(source.point_window.leaf_id, indexes)

    def _touchpoints_at(self, leaf_id: str, indexes: Sequence[int]) -> dict[str, Any]:
        """Return the message ids at these indexes of the points.

        A ruleset for explanations keeps every point, so the index of a point is also the index of its touchpoint.
        """
        touchpoints = self.ids(leaf_id) if self.ids else []
        return {"touchpoints": [touchpoints[index][1] for index in indexes[-TOUCHPOINTS_MAX:]] if touchpoints else []}


def _required_count(node: Node) -> dict[str, Any]:
    return {key: node.rule_json[key] for key in _COUNT_KEYS if key in node.rule_json} or {"at_least": 1}


def _comparison_json(node: Node) -> dict[str, Any]:
    """Return the operators of the node as its author wrote them."""
    return {key: operand for key, operand in node.rule_json.items() if key not in _NON_COMPARISON_KEYS}
