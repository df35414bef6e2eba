"""State of one compilation: compiled rules, computed traits, leaves, and the dependencies of each rule.

Rules share leaves and hidden rules, so all rules of a ruleset are compiled into one :class:`Compilation`.
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
from app.rules.engine.sliding_window import SlidingWindow
from app.rules.language.references import NamedRule, Reference, find_references

ENGINE_VERSION: Final = 3
"""Part of the digest of the meaning of every rule. Increase it if a change of the engine changes the result of a rule;
the states of all customers are then backfilled."""

Stages = Mapping[str, tuple[tuple[str, str], ...]]


class Dependencies(msgspec.Struct):
    """Everything that the truth of one rule depends on, directly or through the rules that it reads."""

    leaves: set[str] = msgspec.field(default_factory=set)
    traits: set[str] = msgspec.field(default_factory=set)
    rules: set[str] = msgspec.field(default_factory=set)
    """Ids of the rules and computed traits that the rule reads at any depth, including hidden rules."""
    point_nodes: set[int] = msgspec.field(default_factory=set)
    """Numbers of the nodes that scan the points of a series, which costs time for each point."""
    patterns: dict[tuple[str, bool], int] = msgspec.field(default_factory=dict)
    """(pattern, whether case is ignored) -> number of RE2 instructions."""
    levels: int = 0
    """Nesting depth, including the definitions that the rule reads."""
    is_dated: bool = False
    """True if time alone can change the result before any touchpoint matches. Such a rule must be evaluated at the
    customer's first message."""
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
    """A checked set of definitions.

    ``ids`` maps an id without suffix (``segment:KEY``) to the id of the compiled rule.
    """

    rules: dict[str, NamedRule]
    journeys: Stages
    references: dict[str, list[Reference]]
    order: list[str]
    ids: dict[str, str] = {}
    meanings: dict[str, str] = {}
    """Id without suffix -> digest of the meaning of the rule. The digest excludes the id, so it is equal for two
    segments with the same rule."""


class Compilation:
    """The result of compilation so far.

    ``timezone`` is the timezone of the workspace. With ``is_explaining``, series keep every point and only general node
    classes are used, so that an explanation can list the touchpoints that counted.
    """

    def __init__(self, timezone: str, default_journey: str, *, is_explaining: bool = False) -> None:
        self.timezone = timezone
        self.default_journey = default_journey
        self.is_explaining = is_explaining
        self.rules: dict[str, CompiledRule] = {}
        self.computed_traits: dict[str, ComputedTrait] = {}
        self.leaves: dict[str, Leaf] = {}
        self.sliding_windows: dict[str, SlidingWindow] = {}
        """Key -> window that a rule or computed trait reads."""
        self.dependencies: dict[str, Dependencies] = {}
        self.meanings: dict[str, str] = {}
        """Rule id -> digest of its meaning. A stored truth is valid as long as the digest is the same."""
        self._point_node_count = 0

    def digest_meanings(self, definitions: AnalyzedDefinitions) -> dict[str, str]:
        """Compute, store and return the digests of the meanings of all rules and values, in their order."""
        for plain_id in definitions.order:
            rule = definitions.rules[plain_id].rule
            references = definitions.references[plain_id]
            definitions.meanings[plain_id] = self._digest_meaning("rule", rule, references, definitions)
        return definitions.meanings

    def digest_part(self, kind: str, model: BaseModel, definitions: AnalyzedDefinitions) -> str:
        """Return the digest of the meaning of a part of a rule, which a hidden rule tracks."""
        references = find_references("", model, (), definitions.rules, definitions.journeys, self.default_journey)
        return self._digest_meaning(kind, model, references, definitions)

    def _digest_meaning(
        self, kind: str, model: BaseModel, references: Iterable[Reference], definitions: AnalyzedDefinitions
    ) -> str:
        """Return a digest of all inputs of the meaning: the rule, the rules that it reads, and the timezone."""
        targets = [[definitions.meanings[target] for target in reference.targets] for reference in references]
        return digest([ENGINE_VERSION, kind, self.timezone, canonicalize(model), targets])

    def add_hidden_rule(
        self,
        kind: str,
        meaning_parts: Any,
        dependencies: Dependencies,
        compile_rule: Callable[[str, Dependencies], CompiledRule],
    ) -> CompiledRule:
        """Return a hidden rule, whose truth is stored only for its history; compile it if it is new.

        Rules that need the same history share one hidden rule. ``dependencies`` belong to the rule that reads the
        hidden rule.
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
        """Add the leaf, or merge it into an existing leaf with the same id.

        ``scan_count`` is the number of times that one evaluation may scan the points of the leaf.
        """
        if leaf.point_retention is not None or leaf.sequence_tracker is not None:
            dependencies.point_nodes |= set(range(self._point_node_count, self._point_node_count + scan_count))
            self._point_node_count += scan_count
        existing = self.leaves.get(leaf.id)
        required = leaf.unlimited if self.is_explaining else leaf
        self.leaves[leaf.id] = required if existing is None else existing.merge_with(required)
        dependencies.leaves.add(leaf.id)
        return leaf

    def add_sliding_window(self, window: SlidingWindow | None) -> None:
        if window is not None:
            self.sliding_windows[window.key] = window

    def widen_retention(self, retention: PointRetention) -> PointRetention:
        """Return the retention; for an explanation, require all points."""
        return retention.union(PointRetention(all_points=True)) if self.is_explaining else retention


def digest(parts: Any) -> str:
    """Return a digest of 16 hexadecimal digits; ``parts`` must be a JSON value."""
    return blake2b(msgspec.json.encode(parts, order="sorted"), digest_size=8).hexdigest()
