"""A set of definitions compiled into one value that answers every question about rules and never changes."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, assert_never

import msgspec

from app.errors import InvalidDefinition
from app.rules.engine.compilation_state import AnalyzedDefinitions, Compilation, Dependencies, digest
from app.rules.engine.definition_compiler import analyze_definitions, compile_definitions
from app.rules.engine.explanation import TouchpointIds, explain_rule, explain_value
from app.rules.engine.filters import Leaf
from app.rules.engine.nodes.base import CompiledRule, EvaluationCache, Facts
from app.rules.engine.series import Series
from app.rules.engine.touchpoint_view import TouchpointView
from app.rules.engine.truth import Truth
from app.rules.language.references import Definition
from app.rules.values import durations

LEAF_COMBINATIONS_CACHED_MAX: Final = 10_000
"""Combinations of leaves whose rules are cached: usually as many as there are kinds of touchpoint."""

EXPLAINING_RULESETS_CACHED_MAX: Final = 64

LeafValues = dict[str, list[Any]]
"""leaf id -> the values that the leaf keeps of a touchpoint beside its instant."""


class EmptyFacts(msgspec.Struct, frozen=True):
    """What is known of a customer who has sent nothing."""

    series: dict[str, Series] = {}
    traits: dict[str, Any] = {}
    truths: dict[str, Truth] = {}
    born: int | None = None
    bucketing_key: tuple[str, str] | None = None


class Ruleset:
    """Made by :func:`compile_ruleset`; safe to share between tasks.

    Rules have ids: ``segment:KEY``, ``stage:JOURNEY:KEY``, ``watch:HASH`` for hidden rules that are followed for their
    history, and with ``@N`` behind them those of definitions that are being filled.
    """

    revision: int
    fill: int
    """What a state must have been filled up to, to answer for every rule in here."""
    definitions: tuple[Definition, ...]
    segments: tuple[Definition, ...]
    journeys: tuple[Definition, ...]
    traits: tuple[Definition, ...]
    upcoming: dict[str, Definition]
    """Id with ``@N`` -> the definition that will answer under the plain id once it is filled."""
    rule_ids: tuple[str, ...]
    """All rules, each after everything that it reads."""
    stages_of: dict[str, tuple[tuple[str, str], ...]]
    """Journey, those being filled included -> (stage, rule id) in order."""
    meanings: dict[str, str]
    """Rule id, or ``journey:KEY`` -> 16 hexadecimal digits; equal ones stand for equal truths of one definition."""
    nameless_meanings: dict[str, str]
    """Rule id -> digest of what it means without its name: equal for segments that are duplicates."""

    def __init__(
        self,
        compilation: Compilation,
        definition_set: AnalyzedDefinitions,
        definitions: Sequence[Definition],
        revision: int,
    ) -> None:
        self.revision = revision
        self.fill = 0
        self.definitions = tuple(definitions)
        self.segments, self.journeys, self.traits = (
            tuple(definition for definition in definitions if definition.kind == kind)
            for kind in ("segment", "journey", "trait")
        )
        self.upcoming = {}
        self.meanings = dict(compilation.meanings)
        self.nameless_meanings = {
            definition_set.ids[plain_id]: meaning for plain_id, meaning in definition_set.meanings.items()
        }
        self.stages_of = {}
        self._timezone, self._default_journey = compilation.timezone, compilation.default_journey
        self._computed_traits = compilation.computed_traits
        self._dependencies = compilation.dependencies
        self._add_journeys(definition_set, "")
        self._explaining_rulesets: dict[str, Ruleset] = {}
        self._index(compilation.rules, compilation.leaves)
        self.number_of = {id: number for number, id in enumerate(self.meanings)}

    def _add_journeys(self, definition_set: AnalyzedDefinitions, suffix: str) -> None:
        for key, plain_stages in definition_set.journeys.items():
            stages = tuple((stage, definition_set.ids[plain_id]) for stage, plain_id in plain_stages)
            self.stages_of[f"{key}{suffix}"] = stages
            self.meanings[f"journey:{key}{suffix}"] = digest([self.meanings[rule_id] for _, rule_id in stages])

    def _index(self, rules: Mapping[str, CompiledRule], leaves: Mapping[str, Leaf]) -> None:
        self.rule_ids = tuple(rules)
        self.leaves = dict(leaves)
        self.position_of = {rule_id: position for position, rule_id in enumerate(self.rule_ids)}
        self._rules = dict(rules)
        dependencies = {rule_id: self._dependencies[rule_id] for rule_id in rules}
        self._leaves_by_event, self._any_event_leaves = _index_by_event(self.leaves.values())
        self._rules_by_leaf = _invert({rule_id: read.leaves for rule_id, read in dependencies.items()})
        self._rules_by_trait = _invert({rule_id: read.traits for rule_id, read in dependencies.items()})
        self.scans_points = any(
            leaf.point_retention is not None and (leaf.point_retention.all_points or leaf.point_retention.window > 0)
            for leaf in self.leaves.values()
        )
        """Whether some rule scans the points of a series, so that a message costs more the more there were."""
        self.reads_traits = bool(self._rules_by_trait)
        self.reads_bucketing_key = any(read.reads_bucketing_key for read in dependencies.values())
        self.decided_at_birth = tuple(rule_id for rule_id, read in dependencies.items() if read.is_dated)
        self.true_from_birth = tuple(rule_id for rule_id, rule in rules.items() if rule.initial.holds)
        self.initial = {rule_id: rule.initial.holds for rule_id, rule in rules.items()}
        self.permanent_truths = {
            rule_id: rule.permanent_truth for rule_id, rule in rules.items() if rule.permanent_truth is not None
        }
        """Rule id -> the truth that never changes again once it is reached."""
        self._index_journeys()
        self._rules_by_leaf_ids: dict[tuple[str, ...], tuple[str, ...]] = {}

    def _index_journeys(self) -> None:
        stages_of = {key: [rule_id for _, rule_id in stages] for key, stages in self.stages_of.items()}
        self.journeys_of = _invert(stages_of)
        """Rule id -> the journeys in which it is a stage."""

    # ------------------------------------------------------------------------------------ making others

    def with_rule_numbers(self, numbers: Mapping[str, int], fill: int) -> Ruleset:
        """The same with storage numbers: meaning -> number. A meaning without one has never been stored."""
        ruleset = copy.copy(self)
        ruleset.number_of = {id: numbers[meaning] for id, meaning in self.meanings.items() if meaning in numbers}
        ruleset.fill = fill
        return ruleset

    def subset(self, rule_ids: Iterable[str]) -> Ruleset:
        """These rules and all that they read, with the same ids and numbers: for folding a part of a history.

        ``journey:KEY`` stands for the journey and the rules of its stages.
        """
        selected: set[str] = set()
        journeys: set[str] = set()
        for id in rule_ids:
            kind, _, key = id.partition(":")
            if kind == "journey":
                journeys.add(key)
                selected |= {rule_id for _, rule_id in self.stages_of[key]}
            else:
                selected.add(id)
        for rule_id in sorted(selected):
            selected |= self._dependencies[rule_id].rules
        rules = {rule_id: rule for rule_id, rule in self._rules.items() if rule_id in selected}
        leaf_ids = set().union(*(self._dependencies[rule_id].leaves for rule_id in selected))
        ruleset = copy.copy(self)
        ruleset.stages_of = {key: stages for key, stages in self.stages_of.items() if key in journeys}
        ruleset._index(rules, {id: leaf for id, leaf in self.leaves.items() if id in leaf_ids})
        return ruleset

    # ---------------------------------------------------------- which leaves and rules a touchpoint concerns

    def match_touchpoint(self, touchpoint: TouchpointView) -> tuple[tuple[str, ...], LeafValues | None]:
        """Return the ids of the leaves that this touchpoint belongs to, and the values that those keep of it."""
        leaf_ids: list[str] = []
        leaf_values: LeafValues | None = None
        for leaf in self._leaves_by_event.get(touchpoint.name, self._any_event_leaves):
            if leaf.predicate is not None and not leaf.predicate(touchpoint):
                continue
            if leaf.extract_values is not None:
                values = leaf.extract_values(touchpoint)
                if values is None:
                    continue
                if leaf_values is None:
                    leaf_values = {}
                leaf_values[leaf.id] = values
            leaf_ids.append(leaf.id)
        return tuple(leaf_ids), leaf_values

    def match_leaves(self, touchpoint: TouchpointView) -> tuple[str, ...]:
        """Return the ids of the leaves that this touchpoint belongs to."""
        return self.match_touchpoint(touchpoint)[0]

    def rules_reading(self, leaf_ids: Iterable[str], trait_names: Iterable[str] = ()) -> tuple[str, ...]:
        """Ids of the rules whose truth may move when these leaves or top-level traits do, in their order."""
        rule_ids: set[str] = set()
        for leaf_id in leaf_ids:
            rule_ids |= self._rules_by_leaf.get(leaf_id, frozenset())
        for name in trait_names:
            rule_ids |= self._rules_by_trait.get(name, frozenset())
        return self.sort_rules(rule_ids)

    def rules_reading_leaves(self, leaf_ids: tuple[str, ...]) -> tuple[str, ...]:
        """:meth:`rules_reading` for the leaves of one touchpoint; the few combinations there are, are remembered."""
        rules = self._rules_by_leaf_ids.get(leaf_ids)
        if rules is None:
            rules = self.rules_reading(leaf_ids)
            if len(self._rules_by_leaf_ids) < LEAF_COMBINATIONS_CACHED_MAX:
                self._rules_by_leaf_ids[leaf_ids] = rules
        return rules

    def sort_rules(self, rule_ids: Iterable[str]) -> tuple[str, ...]:
        """Each once, after everything that it reads."""
        return tuple(sorted(set(rule_ids), key=self.position_of.__getitem__))

    def leaves_of(self, rule_id: str) -> frozenset[str]:
        """Ids of all leaves that the rule, or the computed trait, rests on, through what it reads too."""
        return frozenset(self._dependencies[rule_id].leaves)

    def reads_trait(self, name: str) -> bool:
        """Whether any rule reads the top-level trait ``name`` or something inside it."""
        return name in self._rules_by_trait

    # --------------------------------------------------------------------------------------- the answers

    def holds(self, rule_id: str, facts: Facts, t: int) -> bool:
        """Whether the rule holds at ``t``, given everything up to ``t``."""
        return self._rules[rule_id].holds(facts, t, EvaluationCache())

    def next_change_at(self, rule_id: str, facts: Facts, t: int) -> int | None:
        """The earliest instant after ``t`` at which the truth differs if nothing arrives; ``None`` is never."""
        return self._rules[rule_id].next_check_at(facts, t, EvaluationCache())

    def evaluate(self, rule_id: str, facts: Facts, t: int, since: int) -> Truth:
        """Truth and next change together, as the fold stores them; ``since`` as it was before."""
        return self._rules[rule_id].evaluate(facts, t, since, EvaluationCache())

    def initial_truth(self, rule_id: str, born: int) -> Truth:
        """What is so before anything has touched the rule."""
        return self._rules[rule_id].initial_truth(born)

    def compute_traits(self, facts: Facts, t: int) -> dict[str, Any]:
        """The values of the computed traits at ``t``; those that are missing are left out."""
        cache = EvaluationCache()
        values = {
            trait.key: self._computed_traits[f"trait:{trait.key}"].evaluate(facts, t, cache) for trait in self.traits
        }
        return {key: value for key, value in values.items() if value is not None}

    def compute_trait(self, key: str, facts: Facts, t: int) -> tuple[Any, int | None]:
        """The value of one computed trait, and until when it stays if nothing arrives."""
        return self._computed_traits[f"trait:{key}"].value_and_next_change(facts, t, EvaluationCache())

    def explain_rule(self, rule_id: str, facts: Facts, t: int, ids: TouchpointIds | None = None) -> dict[str, Any]:
        """See :func:`app.rules.engine.explanation.explain_rule`."""
        return explain_rule(self._rules[rule_id], facts, t, ids, self._node_trackers)

    def explain_value(self, key: str, facts: Facts, t: int, ids: TouchpointIds | None = None) -> dict[str, Any]:
        """See :func:`app.rules.engine.explanation.explain_value`."""
        return explain_value(self._computed_traits[f"trait:{key}"], facts, t, ids)

    _node_trackers: Mapping[int, CompiledRule] = {}
    """In a ruleset for explanations: ``id`` of a node -> the hidden rule that tracks the truth of the node."""

    def resolve_definition(self, definition_id: str) -> tuple[str, Definition]:
        """``segment:KEY`` or ``journey:KEY``, perhaps with ``@N`` -> the plain id, and which definition that is."""
        if definition_id in self.upcoming:
            return definition_id.partition("@")[0], self.upcoming[definition_id]
        kind, _, key = definition_id.partition(":")
        definitions = self.segments if kind == "segment" else self.journeys
        return definition_id, next(definition for definition in definitions if definition.key == key)

    def ruleset_for_explanation(self, rule_id: str) -> Ruleset:
        """Return a ruleset for one explanation: it keeps every point, and tracks each node under the rule.

        Fold the whole log with it; :meth:`explain_rule` then says since when each node is as it is.
        """
        ruleset = self._explaining_rulesets.get(rule_id)
        if ruleset is None:
            if len(self._explaining_rulesets) >= EXPLAINING_RULESETS_CACHED_MAX:
                self._explaining_rulesets.clear()
            ruleset = self._explaining_rulesets[rule_id] = self._compile_for_explanation(rule_id)
        return ruleset

    def _compile_for_explanation(self, rule_id: str) -> Ruleset:
        compilation = Compilation(self._timezone, self._default_journey, is_explaining=True)
        definitions = self._definitions_read_by(rule_id)
        definition_set = analyze_definitions(definitions, self._default_journey)
        compile_definitions(compilation, definition_set)
        trackers: dict[int, CompiledRule] = {}
        if rule_id in compilation.rules:
            read = compilation.dependencies[rule_id]
            for number, node in enumerate(_collect_nodes(compilation.rules[rule_id])):
                tracker_id = f"watch:node:{number}"
                trackers[id(node)] = compilation.rules[tracker_id] = CompiledRule(tracker_id, node)
                compilation.dependencies[tracker_id] = Dependencies(
                    read.leaves,
                    read.traits,
                    read.rules | {rule_id},
                    is_dated=True,
                    reads_bucketing_key=read.reads_bucketing_key,
                )
        ruleset = _build_ruleset(compilation, definition_set, definitions, self.revision)
        if trackers:
            journeys = [f"journey:{journey.key}" for journey in ruleset.journeys]
            ruleset = ruleset.subset([rule_id, *journeys, *(tracker.rule_id for tracker in trackers.values())])
        ruleset._node_trackers = trackers
        return ruleset

    def _definitions_read_by(self, rule_id: str) -> list[Definition]:
        """Return the definition that the rule belongs to and all that it reads, in their order."""
        rules_of: dict[str, list[str]] = {}
        for definition in self.definitions:
            definition_id = f"{definition.kind}:{definition.key}"
            is_journey = definition.kind == "journey"
            stages = [stage_id for _, stage_id in self.stages_of[definition.key]] if is_journey else []
            rules_of[definition_id] = stages or [definition_id]
        owner_of = {rule: definition_id for definition_id, rules in rules_of.items() for rule in rules}
        definition_ids: set[str] = set()
        pending = [rule_id]
        while pending:
            owner = owner_of.get(pending.pop())
            if owner is not None and owner not in definition_ids:
                definition_ids.add(owner)
                for rule in rules_of[owner]:
                    pending += [rule, *self._dependencies[rule].rules]
        return [each for each in self.definitions if f"{each.kind}:{each.key}" in definition_ids]


def _collect_nodes(top: CompiledRule) -> list[Any]:
    """Every node of a rule, and of what it reads, once; named rules themselves are followed anyway."""
    nodes: list[Any] = []
    stack: list[Any] = [top]
    visited: set[int] = set()
    while stack:
        node = stack.pop()
        if id(node) in visited:
            continue
        visited.add(id(node))
        if not isinstance(node, CompiledRule):
            nodes.append(node)
        stack.extend(reversed(node.children))
    return nodes


def compile_ruleset(
    definitions: Sequence[Definition],
    *,
    revision: int,
    timezone: str,
    default_journey: str,
    candidates: Sequence[Definition] = (),
    numbers: Mapping[str, int] | None = None,
    fill: int = 0,
) -> Ruleset:
    """Compile definitions that may read each other.

    ``timezone`` is the workspace's. ``candidates`` are versions that are being filled: each takes the place of the
    definition of its kind and key in a second set, which is compiled beside the first. Raises
    :class:`InvalidDefinition` for unknown segments, stages and journeys, for cycles and for two definitions or
    stages of one key; its path is inside the definition that it names.
    """
    if not durations.is_timezone(timezone):
        raise InvalidDefinition("/timezone", f"there is no timezone {timezone}", "Use a name such as Europe/Lisbon.")
    compilation = Compilation(timezone, default_journey)
    current = analyze_definitions(definitions, default_journey)
    compile_definitions(compilation, current)
    upcoming: dict[str, Definition] = {}
    later: AnalyzedDefinitions | None = None
    suffix = f"@{fill}"
    if candidates:
        candidate_of = {(candidate.kind, candidate.key): candidate for candidate in candidates}
        after = [candidate_of.pop((definition.kind, definition.key), definition) for definition in definitions]
        after += candidate_of.values()
        later = analyze_definitions(after, default_journey)
        compile_definitions(compilation, later, current, suffix)
        upcoming = {id: definition for definition in after for id in _upcoming_ids(definition, current, later, suffix)}
    ruleset = _build_ruleset(compilation, current, definitions, revision)
    ruleset.upcoming = upcoming
    if later is not None:
        changed = {id.removeprefix("journey:").partition("@")[0] for id in upcoming if id.startswith("journey:")}
        later.journeys = {key: stages for key, stages in later.journeys.items() if key in changed}
        ruleset._add_journeys(later, suffix)
        ruleset._index_journeys()
        ruleset.number_of = {id: number for number, id in enumerate(ruleset.meanings)}
    ruleset.fill = fill
    return ruleset if numbers is None else ruleset.with_rule_numbers(numbers, fill)


def digest_meanings(definitions: Sequence[Definition], *, timezone: str, default_journey: str) -> dict[str, str]:
    """What each rule, each value and the stages of each journey mean, without compiling them.

    Raises :class:`InvalidDefinition` as compiling does for names that do not exist and for cycles.
    """
    definition_set = analyze_definitions(definitions, default_journey)
    meanings = dict(Compilation(timezone, default_journey).digest_meanings(definition_set))
    for key, stages in definition_set.journeys.items():
        meanings[f"journey:{key}"] = digest([[stage, meanings[rule_id]] for stage, rule_id in stages])
    return meanings


def _upcoming_ids(
    definition: Definition, current: AnalyzedDefinitions, later: AnalyzedDefinitions, suffix: str
) -> list[str]:
    """The id under which a definition is filled, if it means something else than the current one."""
    match definition.kind:
        case "segment":
            id = later.ids[f"segment:{definition.key}"]
            return [id] if id.endswith(suffix) else []
        case "journey":
            stages = later.journeys[definition.key]
            differs = stages != current.journeys.get(definition.key)
            differs |= any(later.ids[plain_id].endswith(suffix) for _, plain_id in stages)
            return [f"journey:{definition.key}{suffix}"] if differs else []
        case "trait":
            return []
        case _:
            assert_never(definition.kind)


def _build_ruleset(
    compilation: Compilation, definition_set: AnalyzedDefinitions, definitions: Sequence[Definition], revision: int
) -> Ruleset:
    for rule in compilation.rules.values():
        rule.initial = rule.compute_initial_truth(EmptyFacts())
    return Ruleset(compilation, definition_set, definitions, revision)


def _index_by_event(leaves: Iterable[Leaf]) -> tuple[dict[str, tuple[Leaf, ...]], tuple[Leaf, ...]]:
    """Return the leaves by the event name that they ask for, each with those of any event; and the latter alone."""
    all_leaves = list(leaves)
    any_event = tuple(leaf for leaf in all_leaves if leaf.event_names is None)
    by_event: dict[str, list[Leaf]] = {}
    for leaf in all_leaves:
        for name in leaf.event_names or ():
            by_event.setdefault(name, []).append(leaf)
    return {name: (*named, *any_event) for name, named in by_event.items()}, any_event


def _invert(read: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """Turn "rule reads things" into "thing is read by rules"."""
    readers: dict[str, set[str]] = {}
    for rule_id, things in read.items():
        for thing in things:
            readers.setdefault(thing, set()).add(rule_id)
    return readers
