"""Immutable compiled set of definitions: matches touchpoints to leaves, and evaluates and explains rules."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar, assert_never

import msgspec

from app.errors import InvalidDefinition
from app.rules.engine.compilation_state import AnalyzedDefinitions, Compilation, Dependencies, digest
from app.rules.engine.definition_compiler import analyze_definitions, compile_definitions
from app.rules.engine.explanation import TouchpointIds, explain_rule, explain_value
from app.rules.engine.filters import Leaf
from app.rules.engine.nodes.base import CompiledRule, EvaluationCache, Facts
from app.rules.engine.point_series import OlderPoints
from app.rules.engine.series import Series
from app.rules.engine.sliding_window import SlidingState, SlidingWindow
from app.rules.engine.touchpoint_view import TouchpointView
from app.rules.engine.truth import Truth
from app.rules.language.references import Definition
from app.rules.values import durations

LEAF_COMBINATIONS_CACHED_MAX: Final = 10_000
"""Maximum number of entries in the cache (leaves of a touchpoint -> rules), which usually has one entry for each kind
of touchpoint."""

EXPLAINING_RULESETS_CACHED_MAX: Final = 64

_T = TypeVar("_T")

LeafValues = dict[str, list[Any]]
"""Leaf id -> values of the touchpoint that the leaf stores in addition to its instant."""


class EmptyFacts(msgspec.Struct, frozen=True):
    """Facts about a customer without any message."""

    series: dict[str, Series] = {}
    traits: dict[str, Any] = {}
    truths: dict[str, Truth] = {}
    windows: dict[str, SlidingState] = {}
    older_points: dict[str, list[OlderPoints]] = {}
    born: int | None = None
    bucketing_key: tuple[str, str] | None = None
    searches: dict[Any, Any] = {}


class Ruleset:
    """A compiled set of definitions. :func:`compile_ruleset` creates it; tasks can share it.

    Each rule has an id: ``segment:KEY`` or ``stage:JOURNEY:KEY``. Hidden rules, whose truth is stored only for its
    history, have ``watch:HASH``. The ids of rules whose definitions are being backfilled end in ``@N``, where N is the
    revision of the backfill.
    """

    revision: int
    fill: int
    """Minimum revision at which a customer's state contains the truths of all these rules."""
    definitions: tuple[Definition, ...]
    segments: tuple[Definition, ...]
    journeys: tuple[Definition, ...]
    traits: tuple[Definition, ...]
    upcoming: dict[str, Definition]
    """Id with ``@N`` -> definition that becomes current under the plain id when its backfill has finished."""
    rule_ids: tuple[str, ...]
    """Ids of all rules, each after the rules that it reads."""
    stages_of: dict[str, tuple[tuple[str, str], ...]]
    """Key of a journey, with ``@N`` during a backfill -> (stage key, rule id) in order."""
    meanings: dict[str, str]
    """Rule id or ``journey:KEY`` -> digest of its meaning, 16 hexadecimal digits. Truths stored under the same digest
    stay valid."""
    nameless_meanings: dict[str, str]
    """Rule id -> digest of the meaning. It excludes the id, so it is equal for segments that are duplicates of each
    other."""

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
        self._sliding_windows: dict[str, list[SlidingWindow]] = {}
        for window in compilation.sliding_windows.values():
            self._sliding_windows.setdefault(window.leaf_id, []).append(window)
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
            leaf.point_retention is not None and leaf.point_retention.scanned and not leaf.point_retention.spacing
            for leaf in self.leaves.values()
        )
        """True if a rule scans a series of any length in each evaluation."""
        self.reads_traits = bool(self._rules_by_trait)
        self.reads_bucketing_key = any(read.reads_bucketing_key for read in dependencies.values())
        self.decided_at_birth = tuple(rule_id for rule_id, read in dependencies.items() if read.is_dated)
        self.true_from_birth = tuple(rule_id for rule_id, rule in rules.items() if rule.initial.holds)
        self.initial = {rule_id: rule.initial.holds for rule_id, rule in rules.items()}
        self.permanent_truths = {
            rule_id: rule.permanent_truth for rule_id, rule in rules.items() if rule.permanent_truth is not None
        }
        """Rule id -> truth that the rule keeps once it has reached it."""
        self._index_journeys()
        self._rules_by_leaf_ids: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._derived: dict[Callable[[Ruleset], Any], Any] = {}

    def _index_journeys(self) -> None:
        stages_of = {key: [rule_id for _, rule_id in stages] for key, stages in self.stages_of.items()}
        self.journeys_of = _invert(stages_of)
        """Rule id -> keys of the journeys in which it is a stage."""

    # ------------------------------------------------------------------------------------ derived rulesets

    def with_rule_numbers(self, numbers: Mapping[str, int], fill: int) -> Ruleset:
        """Return a copy with storage numbers; ``numbers`` maps the digest of a meaning to its number.

        A rule whose meaning is missing from ``numbers`` has never been stored.
        """
        ruleset = copy.copy(self)
        ruleset.number_of = {id: numbers[meaning] for id, meaning in self.meanings.items() if meaning in numbers}
        ruleset.fill = fill
        ruleset._derived = {}
        return ruleset

    def subset(self, rule_ids: Iterable[str]) -> Ruleset:
        """Return a ruleset of these rules and all rules that they read, with the same ids and numbers.

        ``journey:KEY`` selects the journey with the rules of its stages. A partial replay folds the log with a subset.
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

    def derive(self, compute: Callable[[Ruleset], _T]) -> _T:
        """Return ``compute(self)``, which is computed once and freed with this ruleset.

        The result must not refer to this ruleset. Such a cycle would outlive the ruleset until the garbage collector
        runs, which is rare in a server.
        """
        try:
            value: _T = self._derived[compute]
        except KeyError:
            value = self._derived[compute] = compute(self)
        return value

    # ------------------------------------------------------------- leaves and rules that a touchpoint affects

    def match_touchpoint(self, touchpoint: TouchpointView) -> tuple[tuple[str, ...], LeafValues | None]:
        """Return the ids of the leaves that match the touchpoint, and the values that these leaves store."""
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
        """Return the ids of the leaves that match the touchpoint."""
        return self.match_touchpoint(touchpoint)[0]

    def rules_reading(self, leaf_ids: Iterable[str], trait_names: Iterable[str] = ()) -> tuple[str, ...]:
        """Return the ids, in order, of the rules that may change if these leaves or top-level traits change."""
        rule_ids: set[str] = set()
        for leaf_id in leaf_ids:
            rule_ids |= self._rules_by_leaf.get(leaf_id, frozenset())
        for name in trait_names:
            rule_ids |= self._rules_by_trait.get(name, frozenset())
        return self.sort_rules(rule_ids)

    def rules_reading_leaves(self, leaf_ids: tuple[str, ...]) -> tuple[str, ...]:
        """Return :meth:`rules_reading` for the leaves of one touchpoint, from a cache of leaf combinations."""
        rules = self._rules_by_leaf_ids.get(leaf_ids)
        if rules is None:
            rules = self.rules_reading(leaf_ids)
            if len(self._rules_by_leaf_ids) < LEAF_COMBINATIONS_CACHED_MAX:
                self._rules_by_leaf_ids[leaf_ids] = rules
        return rules

    def sort_rules(self, rule_ids: Iterable[str]) -> tuple[str, ...]:
        """Return the ids without duplicates, each after the rules that it reads."""
        return tuple(sorted(set(rule_ids), key=self.position_of.__getitem__))

    def leaves_of(self, rule_id: str) -> frozenset[str]:
        """Return the ids of all leaves that the rule or computed trait reads, directly or through other rules."""
        return frozenset(self._dependencies[rule_id].leaves)

    def sliding_windows_of(self, leaf_id: str) -> Sequence[SlidingWindow]:
        """Return the sliding windows over the points of the leaf; no sequence if a rule scans all its points."""
        retention = self.leaves[leaf_id].point_retention
        return () if retention is None or retention.scanned else self._sliding_windows.get(leaf_id, ())

    def reads_trait(self, name: str) -> bool:
        """Return whether any rule reads the top-level trait ``name`` or a value inside it."""
        return name in self._rules_by_trait

    # --------------------------------------------------------------------------------------- evaluation

    def holds(self, rule_id: str, facts: Facts, t: int) -> bool:
        """Return whether the rule holds at ``t``; ``facts`` must include every message up to ``t``."""
        return self._rules[rule_id].holds(facts, t, EvaluationCache(t))

    def next_change_at(self, rule_id: str, facts: Facts, t: int) -> int | None:
        """Return the earliest instant after ``t`` at which the truth differs if no message arrives, or ``None``."""
        return self._rules[rule_id].next_check_at(facts, t, EvaluationCache(t))

    def evaluate(self, rule_id: str, facts: Facts, t: int, since: int) -> Truth:
        """Return the truth at ``t`` with its next change, as the fold stores it; ``since`` is copied into the truth."""
        return self._rules[rule_id].evaluate(facts, t, since, EvaluationCache(t))

    def initial_truth(self, rule_id: str, born: int) -> Truth:
        """Return the truth that holds from ``born`` until a message or the passage of time affects the rule."""
        return self._rules[rule_id].initial_truth(born)

    def compute_traits(self, facts: Facts, t: int) -> dict[str, Any]:
        """Return the values of the computed traits at ``t``, excluding missing values."""
        cache = EvaluationCache(t)
        values = {
            trait.key: self._computed_traits[f"trait:{trait.key}"].evaluate(facts, t, cache) for trait in self.traits
        }
        return {key: value for key, value in values.items() if value is not None}

    def compute_trait(self, key: str, facts: Facts, t: int) -> tuple[Any, int | None]:
        """Return the value of one computed trait, and the instant of its next change if no message arrives."""
        return self._computed_traits[f"trait:{key}"].value_and_next_change(facts, t, EvaluationCache(t))

    def explain_rule(self, rule_id: str, facts: Facts, t: int, ids: TouchpointIds | None = None) -> dict[str, Any]:
        """Explain the rule; see :func:`app.rules.engine.explanation.explain_rule`."""
        return explain_rule(self._rules[rule_id], facts, t, ids, self._node_trackers)

    def explain_value(self, key: str, facts: Facts, t: int, ids: TouchpointIds | None = None) -> dict[str, Any]:
        """Explain the computed trait; see :func:`app.rules.engine.explanation.explain_value`."""
        return explain_value(self._computed_traits[f"trait:{key}"], facts, t, ids)

    _node_trackers: Mapping[int, CompiledRule] = {}
    """In a ruleset for explanations: ``id`` of a node -> hidden rule that tracks the truth of the node."""

    def resolve_definition(self, definition_id: str) -> tuple[str, Definition]:
        """Return the plain id and the definition for ``segment:KEY`` or ``journey:KEY``, with or without ``@N``."""
        if definition_id in self.upcoming:
            return definition_id.partition("@")[0], self.upcoming[definition_id]
        kind, _, key = definition_id.partition(":")
        definitions = self.segments if kind == "segment" else self.journeys
        return definition_id, next(definition for definition in definitions if definition.key == key)

    def ruleset_for_explanation(self, rule_id: str) -> Ruleset:
        """Return a ruleset that keeps every point and tracks the truth of every node under the rule.

        After a fold of the whole log with it, :meth:`explain_rule` reports ``since`` for every node.
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
        """Return the definition of the rule and all definitions that it reads, in the order of ``definitions``."""
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
        return [
            definition for definition in self.definitions if f"{definition.kind}:{definition.key}" in definition_ids
        ]


def _collect_nodes(top: CompiledRule) -> list[Any]:
    """Return every node of the rule and of the rules that it reads once, excluding the rules themselves."""
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
    """Compile a set of definitions, which may read each other.

    ``timezone`` is the timezone of the workspace. ``candidates`` are new versions that are being backfilled. They
    replace the definitions of the same kind and key in a second set, which is compiled beside the first. ``numbers``
    and ``fill`` are the arguments of :meth:`Ruleset.with_rule_numbers`.

    Raises :class:`InvalidDefinition` for unknown segments, stages and journeys, for cycles, and for two definitions or
    stages with one key. The path in the error is relative to the definition that the error message identifies.
    """
    if not durations.is_timezone(timezone):
        raise InvalidDefinition(
            "/timezone",
            f"the timezone {timezone} does not exist",
            "Use a name from the IANA database, such as Europe/Lisbon.",
        )
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
    """Return the digest of the meaning of each rule, value and journey, without compiling them.

    Raises :class:`InvalidDefinition` for unknown names and for cycles, as :func:`compile_ruleset` does.
    """
    definition_set = analyze_definitions(definitions, default_journey)
    meanings = dict(Compilation(timezone, default_journey).digest_meanings(definition_set))
    for key, stages in definition_set.journeys.items():
        meanings[f"journey:{key}"] = digest([[stage, meanings[rule_id]] for stage, rule_id in stages])
    return meanings


def _upcoming_ids(
    definition: Definition, current: AnalyzedDefinitions, later: AnalyzedDefinitions, suffix: str
) -> list[str]:
    """Return the id under which the definition is backfilled, if its meaning differs from the current one."""
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
    """Return the leaves by event name, and the leaves that match any event; each list by name includes the latter."""
    all_leaves = list(leaves)
    any_event = tuple(leaf for leaf in all_leaves if leaf.event_names is None)
    by_event: dict[str, list[Leaf]] = {}
    for leaf in all_leaves:
        for name in leaf.event_names or ():
            by_event.setdefault(name, []).append(leaf)
    return {name: (*named, *any_event) for name, named in by_event.items()}, any_event


def _invert(read: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """Invert a mapping from rules to the leaves, traits or journeys that belong to them."""
    readers: dict[str, set[str]] = {}
    for rule_id, things in read.items():
        for thing in things:
            readers.setdefault(thing, set()).add(rule_id)
    return readers
