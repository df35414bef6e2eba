# ruff: noqa: ARG002 - all nodes have the same methods; not every node needs every argument
"""Values of declared and computed traits, and nodes that compare a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.rules.engine.json_equality import equality_key
from app.rules.engine.node_timezone import NodeTimezone
from app.rules.engine.nodes.aggregates import WindowedAggregate
from app.rules.engine.nodes.base import (
    EvaluationCache,
    Facts,
    Node,
    ValueNode,
    earliest_instant,
    find_next_change,
)
from app.rules.engine.nodes.point_windows import make_comparison_context, operands_next_check_at
from app.rules.engine.operators import CompiledComparison
from app.rules.engine.touchpoint_view import get_by_path


class DeclaredTrait(ValueNode):
    """A declared trait, whose value messages set. A name with dots is a path unless a trait has this exact name."""

    __slots__ = ("name", "path")

    def __init__(self, name: str) -> None:
        self.name, self.path = name, tuple(name.split("."))

    def evaluate(self, facts: Facts, t: int, cache: EvaluationCache) -> Any:
        return get_by_path(facts.traits, self.name, self.path)


class ComputedTrait(ValueNode):
    """A computed trait. An evaluation caches its values."""

    __slots__ = ("key", "source")

    def __init__(self, key: str, source: ValueNode) -> None:
        self.key, self.source = f"trait:{key}", source

    def evaluate(self, facts: Facts, t: int, cache: EvaluationCache) -> Any:
        cache_key = (self.key, t, "value")
        if cache_key not in cache:
            cache[cache_key] = self.source.evaluate(facts, t, cache)
        return cache[cache_key]

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        cache_key = (self.key, t, "next")
        if cache_key not in cache:
            cache[cache_key] = self.source.next_check_at(facts, t, cache)
        instant: int | None = cache[cache_key]
        return instant

    def value_and_next_change(self, facts: Facts, t: int, cache: EvaluationCache) -> tuple[Any, int | None]:
        """Return the value and the instant of its next change, which is early if the search reached a limit."""
        value = self.evaluate(facts, t, cache)
        key = equality_key(value)
        return value, find_next_change(
            self.next_check_at, lambda u: equality_key(self.evaluate(facts, u, cache)) != key, facts, t, cache
        )


class ComputedTraitPath(ValueNode):
    """A path into the value of a computed trait."""

    __slots__ = ("path", "source")

    def __init__(self, source: ValueNode, path: str) -> None:
        self.source, self.path = source, path

    def evaluate(self, facts: Facts, t: int, cache: EvaluationCache) -> Any:
        return get_by_path(self.source.evaluate(facts, t, cache), self.path, tuple(self.path.split(".")))

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        return self.source.next_check_at(facts, t, cache)


class DeclaredTraitNode(Node):
    """Comparison of a declared trait that depends on its value alone. This is the most common case."""

    __slots__ = ("source", "test")

    def __init__(self, rule_json: dict[str, Any], source: DeclaredTrait, test: Callable[[Any], bool]) -> None:
        super().__init__(rule_json)
        self.source, self.test = source, test

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        return self.test(get_by_path(facts.traits, self.source.name, self.source.path))


class ComparisonNode(Node):
    """Comparison of any value; its result may depend on ``t``, on a timezone and on dynamic operands."""

    __slots__ = ("comparison", "source", "zone")

    def __init__(
        self, rule_json: dict[str, Any], source: ValueNode, comparison: CompiledComparison, zone: NodeTimezone
    ) -> None:
        super().__init__(rule_json)
        self.source, self.comparison, self.zone = source, comparison, zone

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        value = self.source.evaluate(facts, t, cache)
        if self.comparison.static_test is not None:
            return self.comparison.static_test(value)
        return self.comparison.holds(value, make_comparison_context(facts, t, self.zone.resolve(facts), t, cache))

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        static_test = self.comparison.static_test
        if static_test is not None:
            source = self.source
            while isinstance(source, ComputedTrait):
                source = source.source
            if isinstance(source, WindowedAggregate):
                return source.next_change_at(facts, t, cache, static_test)
            return source.next_check_at(facts, t, cache)
        value = self.source.evaluate(facts, t, cache)
        return earliest_instant(
            (
                self.source.next_check_at(facts, t, cache),
                operands_next_check_at((self.comparison,), facts, t, cache),
                self.comparison.next_check_at(
                    value, make_comparison_context(facts, t, self.zone.resolve(facts), t, cache)
                ),
            )
        )
