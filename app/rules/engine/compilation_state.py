"""The state of one compilation: rules, computed traits, leaves, and what each rule depends on.

Rules share leaves and hidden rules, so all rules of a ruleset are compiled into one ``Compilation``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import Any, Final

import msgspec
from pydantic import BaseModel

from app.rules.engine.filters import Leaf, canonicalize
from app.rules.engine.nodes.base import CompiledRule
from app.rules.engine.nodes.traits import ComputedTrait
from app.rules.engine.point_series import PointRetention
from app.rules.language.references import NamedRule, Reference, find_references

ENGINE_VERSION: Final = 1
"""Raise it when the same rule comes to mean something else: every state is then filled again."""

Stages = Mapping[str, tuple[tuple[str, str], ...]]


class Dependencies(msgspec.Struct):
    """What the truth of one rule depends on, through everything that it reads."""

    leaves: set[str] = msgspec.field(default_factory=set)
    traits: set[str] = msgspec.field(default_factory=set)
    rules: set[str] = msgspec.field(default_factory=set)
    """Ids of the rules and computed traits that it reads, hidden ones too, at any depth."""
    point_nodes: set[int] = msgspec.field(default_factory=set)
    """The numbers of the nodes that look at touchpoints one by one."""
    patterns: dict[tuple[str, bool], int] = msgspec.field(default_factory=dict)
    """(pattern, whether case is ignored) -> instructions it takes."""
    levels: int = 0
    is_dated: bool = False
    """Its truth can change by time alone from the very beginning, so it is decided at birth."""
    reads_bucketing_key: bool = False

    def include(self, other: Dependencies) -> None:
        self.leaves |= other.leaves
        self.traits |= other.traits
        self.rules |= other.rules
        self.point_nodes |= other.point_nodes
        self.patterns |= other.patterns
        self.levels = max(self.levels, other.levels)
        self.is_dated |= other.is_dated
        self.reads_bucketing_key |= other.reads_bucketing_key


class AnalyzedDefinitions(msgspec.Struct):
    """Definitions that may read each other. ``ids`` maps a plain id to that of the rule that was compiled for it."""

    rules: dict[str, NamedRule]
    journeys: Stages
    references: dict[str, list[Reference]]
    order: list[str]
    ids: dict[str, str] = {}
    meanings: dict[str, str] = {}
    """Plain id -> digest of what it means, without its own name."""


class Compilation:
    """``is_explaining``: keep every point and use the general nodes, so that an explanation can show what counted."""

    def __init__(self, timezone: str, default_journey: str, *, is_explaining: bool = False) -> None:
        self.timezone = timezone
        self.default_journey = default_journey
        self.is_explaining = is_explaining
        self.rules: dict[str, CompiledRule] = {}
        self.computed_traits: dict[str, ComputedTrait] = {}
        self.leaves: dict[str, Leaf] = {}
        self.dependencies: dict[str, Dependencies] = {}
        self.meanings: dict[str, str] = {}
        """Id -> digest that tells whether a state that was made earlier still holds."""
        self._point_node_count = 0

    def digest_meanings(self, definitions: AnalyzedDefinitions) -> dict[str, str]:
        """Fill in and return the meanings of the rules and values of the set, in its order."""
        for plain_id in definitions.order:
            rule = definitions.rules[plain_id].rule
            references = definitions.references[plain_id]
            definitions.meanings[plain_id] = self._digest_meaning("rule", rule, references, definitions)
        return definitions.meanings

    def digest_part(self, kind: str, model: BaseModel, definitions: AnalyzedDefinitions) -> str:
        """Return the meaning of a part of a rule that is tracked on its own."""
        references = find_references("", model, (), definitions.rules, definitions.journeys, self.default_journey)
        return self._digest_meaning(kind, model, references, definitions)

    def _digest_meaning(
        self, kind: str, model: BaseModel, references: Iterable[Reference], definitions: AnalyzedDefinitions
    ) -> str:
        """Digest what decides the truth: the text, everything that it reads, and where days begin."""
        targets = [[definitions.meanings[target] for target in reference.targets] for reference in references]
        return digest([ENGINE_VERSION, kind, self.timezone, canonicalize(model), targets])

    def add_hidden_rule(
        self,
        kind: str,
        meaning_parts: Any,
        dependencies: Dependencies,
        compile_rule: Callable[[str, Dependencies], CompiledRule],
    ) -> CompiledRule:
        """Return the unnamed rule that is tracked for its history; rules that ask for the same share it.

        ``dependencies`` are those of the rule that reads it.
        """
        meaning = digest([kind, meaning_parts])
        rule_id = f"watch:{meaning}"
        rule = self.rules.get(rule_id)
        if rule is None:
            own_dependencies = Dependencies()
            rule = self.rules[rule_id] = compile_rule(rule_id, own_dependencies)
            self.dependencies[rule_id] = own_dependencies
            self.meanings[rule_id] = meaning
        dependencies.include(self.dependencies[rule_id])
        dependencies.rules.add(rule_id)
        return rule

    def add_leaf(self, leaf: Leaf, dependencies: Dependencies, scan_count: int = 1) -> Leaf:
        """Add the leaf, or merge it with the same one; ``scan_count``: how often one evaluation may scan its points."""
        if leaf.point_retention is not None:
            dependencies.point_nodes |= set(range(self._point_node_count, self._point_node_count + scan_count))
            self._point_node_count += scan_count
        existing = self.leaves.get(leaf.id)
        required = leaf.unlimited if self.is_explaining else leaf
        self.leaves[leaf.id] = required if existing is None else existing.merge_with(required)
        dependencies.leaves.add(leaf.id)
        return leaf

    def widen_retention(self, retention: PointRetention) -> PointRetention:
        """Return the retention, with every point if the compilation is for an explanation."""
        return retention.union(PointRetention(all_points=True)) if self.is_explaining else retention


def digest(parts: Any) -> str:
    """Return 16 hexadecimal digits for a value that JSON can express."""
    return blake2b(msgspec.json.encode(parts, order="sorted"), digest_size=8).hexdigest()
