"""A set of definitions compiled into one value that answers every question about rules and never changes."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from app.errors import InvalidDefinition
from app.rules.engine.compiler import Compiler, Dependencies, World, digest
from app.rules.engine.explanation import Ids, explain, explain_value
from app.rules.engine.filters import Leaf
from app.rules.engine.nodes.base import CompiledRule, Facts, Memo
from app.rules.engine.series import Series
from app.rules.engine.touchpoint_view import TouchpointView
from app.rules.engine.truth import Truth
from app.rules.language import durations
from app.rules.language.references import Definition

REMEMBERED_MAX: Final = 10_000
"""Combinations of leaves whose readers are remembered: as many as there are kinds of touchpoint, usually."""

EXPLAINED_MAX: Final = 64
"""Rules whose explaining rulesets are kept."""

Kept = dict[str, list[Any]]
"""leaf id -> what that leaf keeps of a touchpoint beside its instant."""


class NoFacts(msgspec.Struct, frozen=True):
    """What is known of a customer who has sent nothing."""

    series: dict[str, Series] = {}
    traits: dict[str, Any] = {}
    truths: dict[str, Truth] = {}
    born: int | None = None
    person: tuple[str, str] | None = None


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
    contents: dict[str, str]
    """Rule id -> what it means whatever it is called: equal for segments that are twins."""

    def __init__(self, compiler: Compiler, current: World, definitions: Sequence[Definition], revision: int) -> None:
        self.revision = revision
        self.fill = 0
        self.definitions = tuple(definitions)
        self.segments, self.journeys, self.traits = (
            tuple(each for each in definitions if each.kind == kind) for kind in ("segment", "journey", "trait")
        )
        self.upcoming = {}
        self.meanings = dict(compiler.meanings)
        self.contents = {current.ids[plain]: meaning for plain, meaning in current.meanings.items()}
        self.stages_of = {}
        self._values = compiler.values
        self._dependencies = compiler.dependencies
        self._add_journeys(current, "")
        self._explained: dict[str, Ruleset] = {}
        self._index(compiler.bodies, compiler.leaves)
        self.number_of = {id: number for number, id in enumerate(self.meanings)}

    def _add_journeys(self, world: World, suffix: str) -> None:
        for key, stages in world.journeys.items():
            named = tuple((stage, world.ids[rule_id]) for stage, rule_id in stages)
            self.stages_of[f"{key}{suffix}"] = named
            self.meanings[f"journey:{key}{suffix}"] = digest([self.meanings[rule_id] for _, rule_id in named])

    def _index(self, bodies: Mapping[str, CompiledRule], leaves: Mapping[str, Leaf]) -> None:
        self.rule_ids = tuple(bodies)
        self.leaves = dict(leaves)
        self.place_of = {rule_id: place for place, rule_id in enumerate(self.rule_ids)}
        self._bodies = dict(bodies)
        read = {rule_id: self._dependencies[rule_id] for rule_id in bodies}
        self._by_name, self._any_name = _index_by_name(self.leaves.values())
        self._by_leaf = _readers({rule_id: found.leaves for rule_id, found in read.items()})
        self._by_trait = _readers({rule_id: found.traits for rule_id, found in read.items()})
        self.looks_at_points = any(
            leaf.keeping is not None and (leaf.keeping.everything or leaf.keeping.window > 0)
            for leaf in self.leaves.values()
        )
        """Whether some rule looks at touchpoints one by one, so that a message costs more the more there were."""
        self.reads_traits = bool(self._by_trait)
        self.reads_person = any(found.reads_person for found in read.values())
        self.decided_at_birth = tuple(rule_id for rule_id, found in read.items() if found.is_dated)
        self.true_from_birth = tuple(rule_id for rule_id, body in bodies.items() if body.initial.holds)
        self.initial = {rule_id: body.initial.holds for rule_id, body in bodies.items()}
        self.lasting = {rule_id: body.lasting for rule_id, body in bodies.items() if body.lasting is not None}
        self._index_journeys()
        self._read_together: dict[tuple[str, ...], tuple[str, ...]] = {}

    def _index_journeys(self) -> None:
        stages_of = {key: [rule_id for _, rule_id in stages] for key, stages in self.stages_of.items()}
        self.journeys_of = _readers(stages_of)
        """Rule id -> the journeys in which it is a stage."""

    # ------------------------------------------------------------------------------------ making others

    def numbered(self, numbers: Mapping[str, int], fill: int) -> Ruleset:
        """The same with storage numbers: meaning -> number. A meaning without one has never been stored."""
        other = copy.copy(self)
        other.number_of = {id: numbers[meaning] for id, meaning in self.meanings.items() if meaning in numbers}
        other.fill = fill
        return other

    def only(self, rule_ids: Iterable[str]) -> Ruleset:
        """These rules and all that they read, with the same ids and numbers: for folding a part of a history.

        ``journey:KEY`` stands for the journey and the rules of its stages.
        """
        wanted: set[str] = set()
        journeys: set[str] = set()
        for id in rule_ids:
            kind, _, key = id.partition(":")
            if kind == "journey":
                journeys.add(key)
                wanted |= {rule_id for _, rule_id in self.stages_of[key]}
            else:
                wanted.add(id)
        for rule_id in sorted(wanted):
            wanted |= self._dependencies[rule_id].rules
        bodies = {rule_id: body for rule_id, body in self._bodies.items() if rule_id in wanted}
        read = set().union(*(self._dependencies[rule_id].leaves for rule_id in wanted))
        other = copy.copy(self)
        other.stages_of = {key: stages for key, stages in self.stages_of.items() if key in journeys}
        other._index(bodies, {id: leaf for id, leaf in self.leaves.items() if id in read})
        return other

    # --------------------------------------------------------------------------- what a touchpoint meets

    def meet(self, occurrence: TouchpointView) -> tuple[tuple[str, ...], Kept | None]:
        """Ids of the leaves that this touchpoint belongs to, and what those keep of it."""
        met: list[str] = []
        kept: Kept | None = None
        for leaf in self._by_name.get(occurrence.name, self._any_name):
            if leaf.matches is not None and not leaf.matches(occurrence):
                continue
            if leaf.kept is not None:
                values = leaf.kept(occurrence)
                if values is None:
                    continue
                if kept is None:
                    kept = {}
                kept[leaf.id] = values
            met.append(leaf.id)
        return tuple(met), kept

    def match(self, occurrence: TouchpointView) -> tuple[str, ...]:
        """Ids of the leaves that this touchpoint belongs to."""
        return self.meet(occurrence)[0]

    def rules_reading(self, leaf_ids: Iterable[str], trait_names: Iterable[str] = ()) -> tuple[str, ...]:
        """Ids of the rules whose truth may move when these leaves or top-level traits do, in their order."""
        found: set[str] = set()
        for leaf_id in leaf_ids:
            found |= self._by_leaf.get(leaf_id, frozenset())
        for name in trait_names:
            found |= self._by_trait.get(name, frozenset())
        return self.in_order(found)

    def rules_reading_leaves(self, leaf_ids: tuple[str, ...]) -> tuple[str, ...]:
        """:meth:`rules_reading` for the leaves of one touchpoint; the few combinations there are, are remembered."""
        rules = self._read_together.get(leaf_ids)
        if rules is None:
            rules = self.rules_reading(leaf_ids)
            if len(self._read_together) < REMEMBERED_MAX:
                self._read_together[leaf_ids] = rules
        return rules

    def in_order(self, rule_ids: Iterable[str]) -> tuple[str, ...]:
        """Each once, after everything that it reads."""
        return tuple(sorted(set(rule_ids), key=self.place_of.__getitem__))

    def leaves_of(self, rule_id: str) -> frozenset[str]:
        """Ids of all leaves that the rule, or the computed trait, rests on, through what it reads too."""
        return frozenset(self._dependencies[rule_id].leaves)

    def reads_trait(self, name: str) -> bool:
        """Whether any rule reads the top-level trait ``name`` or something inside it."""
        return name in self._by_trait

    # --------------------------------------------------------------------------------------- the answers

    def truth(self, rule_id: str, facts: Facts, t: int) -> bool:
        """Whether the rule holds at ``t``, given everything up to ``t``."""
        return self._bodies[rule_id].holds(facts, t, Memo())

    def next_change(self, rule_id: str, facts: Facts, t: int) -> int | None:
        """The earliest instant after ``t`` at which the truth differs if nothing arrives; ``None`` is never."""
        return self._bodies[rule_id].next_check(facts, t, Memo())

    def judge(self, rule_id: str, facts: Facts, t: int, since: int) -> Truth:
        """Truth and next change together, as the fold stores them; ``since`` as it was before."""
        return self._bodies[rule_id].judge(facts, t, since, Memo())

    def initial_truth(self, rule_id: str, born: int) -> Truth:
        """What is so before anything has touched the rule."""
        return self._bodies[rule_id].untouched(born)

    def computed_traits(self, facts: Facts, t: int) -> dict[str, Any]:
        """The values of the computed traits at ``t``; those that are missing are left out."""
        memo = Memo()
        found = {each.key: self._values[f"trait:{each.key}"].value(facts, t, memo) for each in self.traits}
        return {key: value for key, value in found.items() if value is not None}

    def value(self, key: str, facts: Facts, t: int) -> tuple[Any, int | None]:
        """The value of one computed trait, and until when it stays if nothing arrives."""
        return self._values[f"trait:{key}"].standing(facts, t, Memo())

    def explain(self, rule_id: str, facts: Facts, t: int, ids: Ids | None = None) -> dict[str, Any]:
        """See :func:`app.rules.engine.explanation.explain`."""
        return explain(self._bodies[rule_id], facts, t, ids, self._watched)

    def explain_value(self, key: str, facts: Facts, t: int, ids: Ids | None = None) -> dict[str, Any]:
        """See :func:`app.rules.engine.explanation.explain_value`."""
        return explain_value(self._values[f"trait:{key}"], facts, t, ids)

    _watched: Mapping[int, CompiledRule] = {}
    """Of a ruleset made for explaining: ``id`` of a node -> the hidden rule that follows it."""

    def written_as(self, definition_id: str) -> tuple[str, Definition]:
        """``segment:KEY`` or ``journey:KEY``, perhaps with ``@N`` -> the plain id, and which definition that is."""
        if definition_id in self.upcoming:
            return definition_id.partition("@")[0], self.upcoming[definition_id]
        kind, _, key = definition_id.partition(":")
        among = self.segments if kind == "segment" else self.journeys
        return definition_id, next(each for each in among if each.key == key)

    def explained(self, rule_id: str) -> Ruleset:
        """A ruleset for one explanation: it keeps every point, and follows each node under the rule.

        Fold the whole log with it; :meth:`explain` then says since when each node is as it is.
        """
        known = self._explained.get(rule_id)
        if known is None:
            if len(self._explained) >= EXPLAINED_MAX:
                self._explained.clear()
            known = self._explained[rule_id] = self._explaining(rule_id)
        return known

    def _explaining(self, rule_id: str) -> Ruleset:
        compiler = Compiler(self._timezone, self._default_journey, explaining=True)
        definitions = self._read_by(rule_id)
        world = compiler.world(definitions)
        compiler.compile(world)
        watched: dict[int, CompiledRule] = {}
        if rule_id in compiler.bodies:
            for number, node in enumerate(_nodes_under(compiler.bodies[rule_id])):
                watch_id = f"watch:node:{number}"
                watched[id(node)] = compiler.bodies[watch_id] = CompiledRule(watch_id, node)
                found = compiler.dependencies[rule_id]
                compiler.dependencies[watch_id] = Dependencies(
                    found.leaves,
                    found.traits,
                    found.rules | {rule_id},
                    is_dated=True,
                    reads_person=found.reads_person,
                )
        made = _made(compiler, world, definitions, self.revision, self._timezone, self._default_journey)
        journeys = [f"journey:{each.key}" for each in made.journeys]
        wanted = [rule_id, *journeys, *(each.rule_id for each in watched.values())] if watched else []
        other = made.only(wanted) if watched else made
        other._watched = watched
        return other

    def _read_by(self, rule_id: str) -> list[Definition]:
        """The definition that the rule belongs to, and all that these read, in their order."""
        rules_of: dict[str, list[str]] = {}
        for each in self.definitions:
            stages = [stage_id for _, stage_id in self.stages_of[each.key]] if each.kind == "journey" else []
            rules_of[f"{each.kind}:{each.key}"] = stages or [f"{each.kind}:{each.key}"]
        owner = {rule: definition for definition, rules in rules_of.items() for rule in rules}
        wanted: set[str] = set()
        found = [rule_id]
        while found:
            definition = owner.get(found.pop())
            if definition is not None and definition not in wanted:
                wanted.add(definition)
                for rule in rules_of[definition]:
                    found += [rule, *self._dependencies[rule].rules]
        return [each for each in self.definitions if f"{each.kind}:{each.key}" in wanted]

    _timezone: str
    _default_journey: str


def _nodes_under(top: CompiledRule) -> list[Any]:
    """Every node of a rule, and of what it reads, once; named rules themselves are followed anyway."""
    found: dict[int, Any] = {}
    stack: list[Any] = [top]
    seen: set[int] = set()
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if not isinstance(node, CompiledRule):
            found[id(node)] = node
        stack.extend(reversed(node.children))
    return list(found.values())


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
    definition of its kind and key in a second world, which is compiled beside the first. Raises
    :class:`InvalidDefinition` for unknown segments, stages and journeys, for cycles and for two definitions or
    stages of one key; its path is inside the definition that it names.
    """
    if not durations.is_timezone(timezone):
        raise InvalidDefinition("/timezone", f"there is no timezone {timezone}", "Use a name such as Europe/Lisbon.")
    compiler = Compiler(timezone, default_journey)
    current = compiler.world(definitions)
    compiler.compile(current)
    upcoming: dict[str, Definition] = {}
    later: World | None = None
    suffix = f"@{fill}"
    if candidates:
        replaced = {(each.kind, each.key): each for each in candidates}
        after = [replaced.pop((each.kind, each.key), each) for each in definitions] + list(replaced.values())
        later = compiler.world(after)
        compiler.compile(later, current, suffix)
        upcoming = {id: each for each in after for id in _upcoming_ids(each, current, later, suffix)}
    ruleset = _made(compiler, current, definitions, revision, timezone, default_journey)
    ruleset.upcoming = upcoming
    if later is not None:
        changed = {id.removeprefix("journey:").partition("@")[0] for id in upcoming if id.startswith("journey:")}
        later.journeys = {key: stages for key, stages in later.journeys.items() if key in changed}
        ruleset._add_journeys(later, suffix)
        ruleset._index_journeys()
        ruleset.number_of = {id: number for number, id in enumerate(ruleset.meanings)}
    ruleset.fill = fill
    return ruleset if numbers is None else ruleset.numbered(numbers, fill)


def meanings_of(definitions: Sequence[Definition], *, timezone: str, default_journey: str) -> dict[str, str]:
    """What each rule, each value and the stages of each journey mean, without compiling them.

    Raises :class:`InvalidDefinition` as compiling does for names that do not exist and for cycles.
    """
    compiler = Compiler(timezone, default_journey)
    world = compiler.world(definitions)
    found = dict(compiler.find_meanings(world))
    for key, stages in world.journeys.items():
        found[f"journey:{key}"] = digest([[stage, found[rule_id]] for stage, rule_id in stages])
    return found


def _upcoming_ids(definition: Definition, current: World, later: World, suffix: str) -> list[str]:
    """The id under which a definition is filled, if it means something else than the current one."""
    if definition.kind == "segment":
        id = later.ids[f"segment:{definition.key}"]
        return [id] if id.endswith(suffix) else []
    if definition.kind == "journey":
        stages = later.journeys[definition.key]
        is_other = stages != current.journeys.get(definition.key)
        is_other |= any(later.ids[rule_id].endswith(suffix) for _, rule_id in stages)
        return [f"journey:{definition.key}{suffix}"] if is_other else []
    return []


def _made(
    compiler: Compiler,
    world: World,
    definitions: Sequence[Definition],
    revision: int,
    timezone: str,
    default_journey: str,
) -> Ruleset:
    for body in compiler.bodies.values():
        body.initial = body.at_first(NoFacts())
    ruleset = Ruleset(compiler, world, definitions, revision)
    ruleset._timezone, ruleset._default_journey = timezone, default_journey
    return ruleset


def _index_by_name(leaves: Iterable[Leaf]) -> tuple[dict[str, tuple[Leaf, ...]], tuple[Leaf, ...]]:
    """Leaves by the event name that they ask for, those of any event among each; and these alone."""
    every = list(leaves)
    any_name = tuple(leaf for leaf in every if leaf.names is None)
    by_name: dict[str, list[Leaf]] = {}
    for leaf in every:
        for name in leaf.names or ():
            by_name.setdefault(name, []).append(leaf)
    return {name: (*found, *any_name) for name, found in by_name.items()}, any_name


def _readers(read: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """Turn "rule reads things" into "thing is read by rules"."""
    readers: dict[str, set[str]] = {}
    for rule_id, things in read.items():
        for thing in things:
            readers.setdefault(thing, set()).add(rule_id)
    return readers
