"""A set of definitions compiled into one immutable value that answers every question about rules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, assert_never

import msgspec

from app.errors import InvalidDefinition
from app.rules import language, lengths, nodes
from app.rules.comparison import compile_comparison
from app.rules.document import Occurrence
from app.rules.explanation import Ids, explain
from app.rules.language import Rule, rule_to_json
from app.rules.leaves import Leaf, leaf_of, together
from app.rules.nodes import Facts
from app.rules.references import (
    Definition,
    Named,
    in_order,
    named_rules,
    nodes_with_paths,
    places_asked,
    references,
    segment_id,
    stages_of,
)
from app.rules.refusal import pointer
from app.rules.series import Series

__all__ = ["Definition", "Facts", "Leaf", "NoFacts", "Occurrence", "Ruleset", "compile_ruleset"]

LEVELS_MAX: Final = 150
"""Nesting of a rule together with all that it reads through segments and stages."""


REMEMBERED_MAX: Final = 10_000
"""Combinations of leaves whose readers are remembered: as many as there are kinds of touchpoint, usually."""


class NoFacts(msgspec.Struct, frozen=True):
    """What is known of a customer who has sent nothing."""

    series: dict[str, Series] = {}
    traits: dict[str, Any] = {}


class _Dependencies(msgspec.Struct):
    """What the truth of one rule rests on, through segments and stages too."""

    leaves: set[str] = msgspec.field(default_factory=set)
    traits: set[str] = msgspec.field(default_factory=set)
    levels: int = 0

    def include(self, other: _Dependencies) -> None:
        self.leaves |= other.leaves
        self.traits |= other.traits
        self.levels = max(self.levels, other.levels)


class Ruleset:
    """Immutable once made by :func:`compile_ruleset`; safe to share between tasks."""

    def __init__(
        self,
        *,
        revision: int,
        definitions: Sequence[Definition],
        bodies: dict[str, nodes.Definition],
        stages: dict[str, tuple[tuple[str, str], ...]],
        leaves: dict[str, Leaf],
        dependencies: dict[str, _Dependencies],
    ) -> None:
        self.revision = revision
        self.definitions = tuple(definitions)
        self.segments = tuple(definition for definition in definitions if definition.kind == "segment")
        self.journeys = tuple(definition for definition in definitions if definition.kind == "journey")
        self.rule_ids = tuple(bodies)
        self.place_of = {rule_id: place for place, rule_id in enumerate(self.rule_ids)}
        self.stages_of = stages
        self.leaves = leaves
        self._bodies = bodies
        self._holds = {rule_id: body.children[0].holds for rule_id, body in bodies.items()}
        self._next_change = {rule_id: body.children[0].next_change for rule_id, body in bodies.items()}
        self._by_name, self._any_name = _index_by_name(leaves.values())
        self._by_leaf = _readers({rule_id: found.leaves for rule_id, found in dependencies.items()})
        self._by_trait = _readers({rule_id: found.traits for rule_id, found in dependencies.items()})
        self._dependencies = dependencies
        self.initial = {rule_id: self.truth(rule_id, NoFacts(), 0) for rule_id in bodies}
        self.true_from_birth = tuple(rule_id for rule_id, holds in self.initial.items() if holds)
        self.lasting = {rule_id: body.lasting for rule_id, body in bodies.items() if body.lasting is not None}
        self._read_together: dict[tuple[str, ...], tuple[str, ...]] = {}

    def match(self, occurrence: Occurrence) -> tuple[str, ...]:
        """Ids of the leaves that this touchpoint belongs to."""
        candidates = self._by_name.get(occurrence.name, self._any_name)
        return tuple([leaf.id for leaf in candidates if leaf.matches is None or leaf.matches(occurrence)])

    def rules_reading(self, leaf_ids: Iterable[str], trait_names: Iterable[str] = ()) -> tuple[str, ...]:
        """Ids of the rules whose truth may move when these leaves or top-level traits do."""
        found: dict[str, None] = {}
        for leaf_id in leaf_ids:
            found |= self._by_leaf.get(leaf_id, {})
        for name in trait_names:
            found |= self._by_trait.get(name, {})
        return tuple(found)

    def rules_reading_leaves(self, leaf_ids: tuple[str, ...]) -> tuple[str, ...]:
        """:meth:`rules_reading` for the leaves of one touchpoint; the few combinations there are, are remembered."""
        rules = self._read_together.get(leaf_ids)
        if rules is None:
            rules = self.rules_reading(leaf_ids)
            if len(self._read_together) < REMEMBERED_MAX:
                self._read_together[leaf_ids] = rules
        return rules

    def leaves_of(self, rule_id: str) -> frozenset[str]:
        """Ids of all leaves that the rule rests on, through segments and stages too."""
        return frozenset(self._dependencies[rule_id].leaves)

    def reads_trait(self, name: str) -> bool:
        """Whether any rule reads the top-level trait ``name`` or something inside it."""
        return name in self._by_trait

    def truth(self, rule_id: str, facts: Facts, t: int) -> bool:
        """Whether the rule holds at ``t``, given everything up to ``t``."""
        return self._holds[rule_id](facts, t, {})

    def next_change(self, rule_id: str, facts: Facts, t: int) -> int | None:
        """The earliest instant after ``t`` at which the truth differs if nothing arrives; ``None`` is never."""
        return self._next_change[rule_id](facts, t, {})

    def explain(self, rule_id: str, facts: Facts, t: int, ids: Ids | None = None) -> dict[str, Any]:
        """See :func:`app.rules.explanation.explain`."""
        return explain(self._bodies[rule_id], facts, t, ids)


def compile_ruleset(
    definitions: Sequence[Definition], *, revision: int, timezone: str, default_journey: str
) -> Ruleset:
    """Compile definitions that may read each other.

    ``timezone`` is the workspace's. Raises :class:`InvalidDefinition` for unknown segments, stages and journeys,
    for cycles and for two definitions or stages of one key; its path is inside the definition that it names.
    """
    if not lengths.is_zone(timezone):
        raise InvalidDefinition("/timezone", f"there is no timezone {timezone}", "Use a name such as Europe/Lisbon.")
    named = named_rules(definitions)
    journeys = stages_of(definitions)
    order = in_order(named, references(named, journeys, default_journey))
    compiler = _Compiler(named, journeys, timezone, default_journey)
    for rule_id in order:
        compiler.add(rule_id)
    return Ruleset(
        revision=revision,
        definitions=definitions,
        bodies={rule_id: compiler.bodies[rule_id] for rule_id in named},
        stages=journeys,
        leaves=compiler.leaves,
        dependencies={rule_id: compiler.dependencies[rule_id] for rule_id in named},
    )


class _Compiler:
    """Turns rules into nodes, one after the other, so that what a rule reads is compiled before it."""

    def __init__(
        self,
        named: dict[str, Named],
        journeys: dict[str, tuple[tuple[str, str], ...]],
        timezone: str,
        default_journey: str,
    ) -> None:
        self._named = named
        self._journeys = journeys
        self._timezone = timezone
        self._default_journey = default_journey
        self.bodies: dict[str, nodes.Definition] = {}
        self.leaves: dict[str, Leaf] = {}
        self.dependencies: dict[str, _Dependencies] = {}

    def add(self, rule_id: str) -> None:
        _, rule, at = self._named[rule_id]
        rests_on = self.dependencies[rule_id] = _Dependencies()
        self.bodies[rule_id] = nodes.Definition(rule_id, self._node(rule, rests_on))
        rests_on.levels += 1 + max(len(steps) for _, steps in nodes_with_paths(rule, ()))
        if rests_on.levels > LEVELS_MAX:
            raise InvalidDefinition(
                pointer(at),
                f"{rule_id} nests deeper than {LEVELS_MAX} levels with the segments and stages that it reads",
                "Flatten the chain of segments.",
            )

    def _node(self, rule: Rule, rests_on: _Dependencies) -> nodes.Node:
        written = rule_to_json(rule)
        match rule:
            case language.All():
                return nodes.All(written, [self._node(child, rests_on) for child in rule.all_])
            case language.AnyOf():
                return nodes.AnyOf(written, [self._node(child, rests_on) for child in rule.any_])
            case language.Not():
                return nodes.Not(written, [self._node(rule.not_, rests_on)])
            case language.Everyone():
                return nodes.Everyone(written)
            case language.Did():
                return self._did(rule, written, rests_on)
            case language.TraitIs():
                rests_on.traits |= {rule.trait, rule.trait.partition(".")[0]}
                return nodes.Trait(written, rule.trait, compile_comparison(rule))
            case language.InSegment():
                return nodes.InSegment(written, [self._read(segment_id(rule.segment), rests_on)])
            case language.AtStage():
                return self._at_stage(rule, written, rests_on)
            case _:
                assert_never(rule)

    def _did(self, rule: language.Did, written: dict[str, Any], rests_on: _Dependencies) -> nodes.Did:
        leaf = leaf_of(rule)
        known = self.leaves.get(leaf.id)
        self.leaves[leaf.id] = leaf if known is None else together(known, leaf)
        rests_on.leaves.add(leaf.id)
        low, high = rule.count
        if rule.within and rule.before:
            within, before = lengths.length(rule.within), lengths.length(rule.before)
            return nodes.DidWithinBefore(written, leaf.id, low, high, within=within, before=before)
        if rule.within:
            return nodes.DidWithin(written, leaf.id, low, high, lengths.length(rule.within))
        if rule.before:
            return nodes.DidBefore(written, leaf.id, low, high, lengths.length(rule.before))
        if leaf.span.floats:
            rests_on.traits.add("timezone")
            return nodes.DidBetweenDates(written, leaf.id, low, high, span=leaf.span, timezone=self._timezone)
        return nodes.Did(written, leaf.id, low, high)

    def _at_stage(self, rule: language.AtStage, written: dict[str, Any], rests_on: _Dependencies) -> nodes.AtStage:
        stages = self._journeys[rule.journey or self._default_journey]
        asked = places_asked(rule, (), self._journeys, self._default_journey)
        children = [self._read(rule_id, rests_on) for _, rule_id in stages]
        return nodes.AtStage(written, children, [key for key, _ in stages], asked)

    def _read(self, rule_id: str, rests_on: _Dependencies) -> nodes.Definition:
        rests_on.include(self.dependencies[rule_id])
        return self.bodies[rule_id]


def _index_by_name(leaves: Iterable[Leaf]) -> tuple[dict[str, tuple[Leaf, ...]], tuple[Leaf, ...]]:
    """Leaves by the event name that they ask for, those of any event among each; and these alone."""
    every = list(leaves)
    any_name = tuple(leaf for leaf in every if leaf.names is None)
    by_name: dict[str, list[Leaf]] = {}
    for leaf in every:
        for name in leaf.names or ():
            by_name.setdefault(name, []).append(leaf)
    return {name: (*found, *any_name) for name, found in by_name.items()}, any_name


def _readers(read: dict[str, set[str]]) -> dict[str, dict[str, None]]:
    """Turn "rule reads things" into "thing is read by rules", these in a fixed order."""
    readers: dict[str, dict[str, None]] = {}
    for rule_id, things in read.items():
        for thing in sorted(things):
            readers.setdefault(thing, {})[rule_id] = None
    return readers
