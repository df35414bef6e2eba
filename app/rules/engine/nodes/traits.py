# ruff: noqa: ARG002 - nodes answer the same questions; not every node needs every argument
"""Traits, declared and computed, and the comparison of any value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.rules.engine.json_equality import equality_key
from app.rules.engine.nodes.aggregates import Aggregate
from app.rules.engine.nodes.base import Facts, Memo, Node, Value, Zone, earliest, walk
from app.rules.engine.nodes.point_windows import asking, operands_check
from app.rules.engine.operators import CompiledComparison
from app.rules.engine.touchpoint_view import get_by_path


class Declared(Value):
    """A trait that messages told: a name, or a path where no trait has just that name."""

    __slots__ = ("name", "path")

    def __init__(self, name: str) -> None:
        self.name, self.path = name, tuple(name.split("."))

    def value(self, facts: Facts, t: int, memo: Memo) -> Any:
        return get_by_path(facts.traits, self.name, self.path)


class Computed(Value):
    """A computed trait; its answers are kept while one question lasts."""

    __slots__ = ("key", "source")

    def __init__(self, key: str, source: Value) -> None:
        self.key, self.source = f"trait:{key}", source

    def value(self, facts: Facts, t: int, memo: Memo) -> Any:
        place = (self.key, t, "value")
        if place not in memo:
            memo[place] = self.source.value(facts, t, memo)
        return memo[place]

    def next_check(self, facts: Facts, t: int, memo: Memo) -> int | None:
        place = (self.key, t, "next")
        if place not in memo:
            memo[place] = self.source.next_check(facts, t, memo)
        found: int | None = memo[place]
        return found

    def standing(self, facts: Facts, t: int, memo: Memo) -> tuple[Any, int | None]:
        """The value, and the earliest instant at which it is another one; it may be early after very many steps."""
        value = self.value(facts, t, memo)
        key = equality_key(value)
        return value, walk(self.next_check, lambda u: equality_key(self.value(facts, u, memo)) != key, facts, t, memo)


class Within(Value):
    """A path that leads into the value of a computed trait."""

    __slots__ = ("path", "source")

    def __init__(self, source: Value, path: str) -> None:
        self.source, self.path = source, path

    def value(self, facts: Facts, t: int, memo: Memo) -> Any:
        return get_by_path(self.source.value(facts, t, memo), self.path, tuple(self.path.split(".")))

    def next_check(self, facts: Facts, t: int, memo: Memo) -> int | None:
        return self.source.next_check(facts, t, memo)


class Trait(Node):
    """A declared trait and a comparison that needs nothing else: the common case."""

    __slots__ = ("source", "test")

    def __init__(self, rule: dict[str, Any], source: Declared, test: Callable[[Any], bool]) -> None:
        super().__init__(rule)
        self.source, self.test = source, test

    def holds(self, facts: Facts, t: int, memo: Memo) -> bool:
        return self.test(get_by_path(facts.traits, self.source.name, self.source.path))


class Compares(Node):
    """Any value against any comparison: dates move with ``t``, operands may be values themselves."""

    __slots__ = ("comparison", "source", "zone")

    def __init__(self, rule: dict[str, Any], source: Value, compared: CompiledComparison, zone: Zone) -> None:
        super().__init__(rule)
        self.source, self.comparison, self.zone = source, compared, zone

    def holds(self, facts: Facts, t: int, memo: Memo) -> bool:
        value = self.source.value(facts, t, memo)
        if self.comparison.static_test is not None:
            return self.comparison.static_test(value)
        return self.comparison.holds(value, asking(facts, t, self.zone.of(facts), t, memo))

    def next_check(self, facts: Facts, t: int, memo: Memo) -> int | None:
        static = self.comparison.static_test
        if static is not None:
            source = self.source
            while isinstance(source, Computed):
                source = source.source
            if isinstance(source, Aggregate):
                return source.next_flip(facts, t, memo, static)
            return source.next_check(facts, t, memo)
        value = self.source.value(facts, t, memo)
        return earliest(
            (
                self.source.next_check(facts, t, memo),
                operands_check((self.comparison,), facts, t, memo),
                self.comparison.next_check(value, asking(facts, t, self.zone.of(facts), t, memo)),
            )
        )
