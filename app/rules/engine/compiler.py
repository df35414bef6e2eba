"""From definitions to nodes: one rule after the other, so that what a rule reads is there before it.

Definitions that are being filled are compiled beside the current ones, under ids of their own, with everything
that reads them; what means the same in both worlds is one rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

import msgspec
from pydantic import BaseModel

from app.errors import InvalidDefinition
from app.rules.engine import calendar
from app.rules.engine.filters import (
    Filter,
    Leaf,
    StepFilter,
    canonical,
    counting_leaf,
    filter_of,
    recording_leaf,
    sequence_leaf,
)
from app.rules.engine.nodes import aggregates, boolean, counts, first_last, recurring, sequence, traits, truth_history
from app.rules.engine.nodes.base import CompiledRule, Node, Value, Zone
from app.rules.engine.nodes.point_windows import Deferred, Operand, Points
from app.rules.engine.nodes.random_bucket import Bucket
from app.rules.engine.operators import CompiledComparison, compile_comparison, measure_pattern
from app.rules.engine.point_series import Keeping
from app.rules.engine.series import Retention
from app.rules.engine.window import UNBOUNDED_SPAN, SplitWindow, Window, split_window
from app.rules.language import expressions, nodes, touchpoint_nodes
from app.rules.language.comparison import Comparison
from app.rules.language.expressions import TraitOperand
from app.rules.language.nodes import Rule
from app.rules.language.references import Definition as DefinitionBody
from app.rules.language.references import (
    NamedRule,
    Reference,
    collect_references,
    find_computed_trait,
    find_references,
    index_rules,
    resolve_stage_places,
    segment_id,
    sort_by_dependency,
    stages_by_journey,
    walk_models,
)
from app.rules.language.validation import json_pointer

ENGINE_VERSION: Final = 1
"""Raise it when the same rule comes to mean something else: every state is then filled anew."""

LEVELS_MAX: Final = 150
"""Nesting of a rule together with all that it reads through segments, stages and computed traits."""

_ANY_TIME: Final = Window(None, None, UNBOUNDED_SPAN, None, None, False)
POINT_NODES_MAX: Final = 100
"""Windowed aggregates, sequences and the like in a rule and all that it reads: each looks at every point."""

PATTERNS_SIZE_MAX: Final = 10_000
"""Instructions of all patterns in a rule and all that it reads: a touchpoint may meet each of them."""

Stages = Mapping[str, tuple[tuple[str, str], ...]]


class Dependencies(msgspec.Struct):
    """What the truth of one rule rests on, through everything that it reads."""

    leaves: set[str] = msgspec.field(default_factory=set)
    traits: set[str] = msgspec.field(default_factory=set)
    rules: set[str] = msgspec.field(default_factory=set)
    """Ids of the rules and computed traits that it reads, hidden ones too, at any depth."""
    points: set[int] = msgspec.field(default_factory=set)
    """Which nodes look at touchpoints one by one, each by a number."""
    patterns: dict[tuple[str, bool], int] = msgspec.field(default_factory=dict)
    """(pattern, whether case is ignored) -> instructions it takes."""
    levels: int = 0
    is_dated: bool = False
    """Its truth can change by time alone from the very beginning, so it is decided at birth."""
    reads_person: bool = False

    def include(self, other: Dependencies) -> None:
        self.leaves |= other.leaves
        self.traits |= other.traits
        self.rules |= other.rules
        self.points |= other.points
        self.patterns |= other.patterns
        self.levels = max(self.levels, other.levels)
        self.is_dated |= other.is_dated
        self.reads_person |= other.reads_person


class World(msgspec.Struct):
    """One set of definitions. ``ids`` maps a plain id to that of the rule that was compiled for it."""

    named: dict[str, NamedRule]
    journeys: Stages
    reads: dict[str, list[Reference]]
    order: list[str]
    ids: dict[str, str] = {}
    meanings: dict[str, str] = {}
    """Plain id -> what it means, its own name apart."""


class Compiler:
    """``explaining``: keep every point, and read the general nodes, so that an explanation can show what counted."""

    def __init__(self, timezone: str, default_journey: str, *, explaining: bool = False) -> None:
        self._timezone = timezone
        self._default_journey = default_journey
        self._explaining = explaining
        self.bodies: dict[str, CompiledRule] = {}
        self.values: dict[str, traits.Computed] = {}
        self.leaves: dict[str, Leaf] = {}
        self.dependencies: dict[str, Dependencies] = {}
        self.point_nodes = 0
        self.meanings: dict[str, str] = {}
        """Id -> what tells whether a state that was made earlier still holds."""

    def world(self, definitions: Sequence[DefinitionBody]) -> World:
        """Check what can be said of the set as a whole. Refuses unknown names, cycles and two of one key."""
        named = index_rules(definitions)
        journeys = stages_by_journey(definitions)
        reads = collect_references(named, journeys, self._default_journey)
        return World(named, journeys, reads, sort_by_dependency(named, reads))

    def compile(self, world: World, known: World | None = None, suffix: str = "") -> None:
        """Compile every rule of the world that does not mean what it means in ``known``."""
        for plain_id, meaning in self.find_meanings(world).items():
            if known is not None and known.meanings.get(plain_id) == meaning:
                world.ids[plain_id] = known.ids[plain_id]
                continue
            world.ids[plain_id] = f"{plain_id}{suffix}"
            self._add(plain_id, world)
            self.meanings[world.ids[plain_id]] = digest([plain_id, meaning])

    def find_meanings(self, world: World) -> dict[str, str]:
        """What each rule and value of the world means, in its order."""
        for plain_id in world.order:
            named = world.named[plain_id]
            world.meanings[plain_id] = self._meaning("rule", named.rule, world.reads[plain_id], world)
        return world.meanings

    def _add(self, plain_id: str, world: World) -> None:
        _, rule, at = world.named[plain_id]
        own_id = world.ids[plain_id]
        rests_on = Dependencies()
        maker = _Maker(self, world, rests_on)
        if plain_id.startswith("trait:"):
            self.values[own_id] = traits.Computed(own_id, maker.value(rule))
        else:
            body = maker.node(rule)  # type: ignore[arg-type]  # a rule, since it is no trait's
            self.bodies[own_id] = CompiledRule(own_id, body)
        self.dependencies[own_id] = rests_on
        rests_on.levels += 1 + max(len(steps) for _, steps in walk_models(rule))
        if rests_on.levels > LEVELS_MAX:
            raise InvalidDefinition(
                json_pointer(at),
                f"{plain_id} nests deeper than {LEVELS_MAX} levels with the segments and stages that it reads",
                "Flatten the chain of segments.",
            )
        if sum(rests_on.patterns.values()) > PATTERNS_SIZE_MAX:
            raise InvalidDefinition(
                json_pointer(at),
                f"the patterns of {plain_id} and of what it reads take more than {PATTERNS_SIZE_MAX} instructions",
                "Use fewer or simpler patterns.",
            )
        if len(rests_on.points) > POINT_NODES_MAX:
            raise InvalidDefinition(
                json_pointer(at),
                f"{plain_id} and what it reads look at touchpoints one by one in more than {POINT_NODES_MAX} places",
                "Ask fewer aggregates, steps of sequences and calendar windows in one rule.",
            )

    def _meaning(self, kind: str, model: BaseModel, reads: Iterable[Reference], world: World) -> str:
        """What decides the truth: the text, everything that it reads, and where days begin."""
        targets = [[world.meanings[target] for target in reference.targets] for reference in reads]
        return digest([ENGINE_VERSION, kind, self._timezone, canonical(model), targets])

    def meaning_of_part(self, kind: str, model: BaseModel, world: World) -> str:
        """The same for a part of a rule that is followed on its own."""
        reads = find_references("", model, (), world.named, world.journeys, self._default_journey)
        return self._meaning(kind, model, reads, world)

    # ------------------------------------------------------------------------------------ for the maker

    def hidden(self, kind: str, of: Any, rests_on: Dependencies, make: Any) -> CompiledRule:
        """A rule without a name that is followed for the sake of its history; the same one for all who ask alike."""
        meaning = digest([kind, of])
        rule_id = f"watch:{meaning}"
        known = self.bodies.get(rule_id)
        if known is None:
            own = Dependencies()
            known = self.bodies[rule_id] = make(rule_id, own)
            self.dependencies[rule_id] = own
            self.meanings[rule_id] = meaning
        rests_on.include(self.dependencies[rule_id])
        rests_on.rules.add(rule_id)
        return known

    def leaf(self, leaf: Leaf, rests_on: Dependencies, looks: int = 1) -> Leaf:
        """``looks``: how often a question may look at each of its points."""
        if leaf.keeping is not None:
            rests_on.points |= set(range(self.point_nodes, self.point_nodes + looks))
            self.point_nodes += looks
        known = self.leaves.get(leaf.id)
        wanted = leaf.unlimited if self._explaining else leaf
        self.leaves[leaf.id] = wanted if known is None else known.merged_with(wanted)
        rests_on.leaves.add(leaf.id)
        return leaf

    def keeping(self, keeping: Keeping) -> Keeping:
        return keeping.union(Keeping(everything=True)) if self._explaining else keeping

    @property
    def explaining(self) -> bool:
        return self._explaining

    @property
    def timezone(self) -> str:
        return self._timezone

    @property
    def default_journey(self) -> str:
        return self._default_journey


class _Maker:
    """Makes the nodes of one rule, noting what it rests on."""

    def __init__(self, compiler: Compiler, world: World, rests_on: Dependencies) -> None:
        self._compiler = compiler
        self._world = world
        self._rests_on = rests_on

    def node(self, rule: Rule) -> Node:
        written = rule.model_dump(by_alias=True, exclude_unset=True)
        match rule:
            case nodes.All():
                return boolean.All(written, [self.node(child) for child in rule.all_])
            case nodes.AnyOf():
                return boolean.AnyOf(written, [self.node(child) for child in rule.any_])
            case nodes.Not():
                return boolean.Not(written, [self.node(rule.not_)])
            case nodes.Everyone():
                return boolean.Everyone(written)
            case touchpoint_nodes.Did():
                return self._did(rule, written)
            case touchpoint_nodes.First():
                return self._once(rule, rule.first, written, is_first=True)
            case touchpoint_nodes.Last():
                return self._once(rule, rule.last, written, is_first=False)
            case touchpoint_nodes.Sequence():
                return self._sequence(rule, written)
            case touchpoint_nodes.Regularly():
                return self._regularly(rule, written)
            case nodes.TraitIs():
                return self._trait(rule, written)
            case nodes.InSegment():
                return self._segment(rule, written)
            case nodes.AtStage():
                return self._at_stage(rule, written)
            case nodes.Bucket():
                self._rests_on.reads_person = self._rests_on.is_dated = True
                return Bucket(written, rule.bucket[0], rule.bucket[1], rule.salt)
            case _:
                return self._compares(rule, self.value(rule), written)

    # ---------------------------------------------------------------------------------- touchpoints

    def _did(self, rule: touchpoint_nodes.Did, written: dict[str, Any]) -> Node:
        low, high = rule.count
        filter = self._filter(rule, rule.did, rule.timezone)
        placed = split_window(rule)
        window = placed.window
        plain = (
            not filter.open
            and not window.is_local
            and not any(length is not None and not length.is_exact for length in (window.within, window.before))
            and not (window.span.has_floating_dates and (window.within or window.before))
        )
        if not plain:
            points = self._points(filter, placed, rule.timezone, (), _keeping(window))
            return counts.DidInside(written, points, low, high)
        within, before = (length and length.microseconds for length in (window.within, window.before))
        retention = _retention(within, before, low, high, window.span.edges)
        leaf = self._compiler.leaf(
            counting_leaf(filter, placed.fixed_span, placed.local_test, retention), self._rests_on
        )
        if within and before:
            return counts.DidWithinBefore(written, leaf.id, low, high, within=within, before=before)
        if within:
            return counts.DidWithin(written, leaf.id, low, high, within)
        if before:
            return counts.DidBefore(written, leaf.id, low, high, before)
        if window.span.has_floating_dates:
            zone = self._zone(None, used=True)
            return counts.DidBetweenDates(written, leaf.id, low, high, span=window.span, zone=zone)
        return counts.Did(written, leaf.id, low, high)

    def _once(
        self,
        rule: touchpoint_nodes.First | touchpoint_nodes.Last,
        events: str | list[str],
        written: dict[str, Any],
        *,
        is_first: bool,
    ) -> Node:
        filter = self._filter(rule, events, rule.timezone)
        placed = split_window(rule, whole=True)
        keeping = Keeping(everything=True) if filter.open else Keeping(first=is_first, last=not is_first)
        return first_last.Once(written, self._points(filter, placed, rule.timezone, (), keeping), is_first=is_first)

    def _regularly(self, rule: touchpoint_nodes.Regularly, written: dict[str, Any]) -> Node:
        pace = recurring.Cadence(rule.at_least, rule.of_last, rule.period)
        filter = self._filter(rule, rule.regularly, rule.timezone)
        placed = SplitWindow(_ANY_TIME, UNBOUNDED_SPAN, None)
        points = self._points(filter, placed, rule.timezone, (), Keeping(window=pace.age_max), dated=pace.is_calendar)
        return recurring.Regularly(written, points, pace)

    def _sequence(self, rule: touchpoint_nodes.Sequence, written: dict[str, Any]) -> Node:
        placed = split_window(rule)
        steps = [step.not_ if isinstance(step, touchpoint_nodes.NotStep) else step for step in rule.sequence]
        last = rule.sequence[-1]
        closing = calendar.parse_length(last.within) if isinstance(last, touchpoint_nodes.NotStep) else None
        filters = [
            StepFilter(self._filter(step, step.did, rule.timezone), isinstance(written, touchpoint_nodes.NotStep))
            for step, written in zip(steps, rule.sequence, strict=True)
        ]
        gaps = tuple(_gap(step) for step in rule.sequence if isinstance(step, touchpoint_nodes.Step))
        same = rule.same or []
        shape = sequence.Shape(gaps, closing, len(same))
        is_followed = (
            placed.window.is_lifetime
            and shape.is_exact
            and not any(step.filter.open for step in filters)
            and not self._compiler.explaining
        )
        course = sequence.Course(shape) if is_followed else None
        keeping = self._compiler.keeping(_keeping(placed.window))
        wanted = sequence_leaf(filters, placed.fixed_span, placed.local_test, same, keeping, course)
        leaf = self._compiler.leaf(wanted, self._rests_on, len(steps))
        if course is not None:
            return sequence.SequenceEver(written, leaf.id, closing)
        uses_zone = placed.window.uses_zone or not shape.is_exact or any(step.filter.open for step in filters)
        points = Points(leaf.id, placed.window, self._zone(rule.timezone, used=uses_zone), ())
        return sequence.SequenceDone(written, points, shape, _open_tests(filters, len(same)))

    def _filter(self, node: expressions.Filtered, events: str | list[str], zone: str | None) -> Filter:
        return filter_of(node, events, zone, self._compared)

    def _points(
        self,
        filter: Filter,
        placed: SplitWindow,
        timezone: str | None,
        paths: Sequence[str],
        keeping: Keeping,
        *,
        dated: bool = False,
    ) -> Points:
        if filter.open:
            keeping = Keeping(everything=keeping.everything or not keeping.window, window=keeping.window)
        wanted = recording_leaf(filter, placed.fixed_span, placed.local_test, paths, self._compiler.keeping(keeping))
        leaf = self._compiler.leaf(wanted, self._rests_on)
        deferred = [
            Deferred(2 + len(paths) + number, condition.comparison) for number, condition in enumerate(filter.open)
        ]
        zone = self._zone(timezone, used=dated or placed.window.uses_zone or bool(deferred))
        return Points(leaf.id, placed.window, zone, deferred)

    # --------------------------------------------------------------------------------------- values

    def value(self, written: Any) -> Value:
        """The value of an expression; an aggregate with a comparison is read as the aggregate alone."""
        if isinstance(written, TraitOperand):
            return self._read_trait(written.trait)
        kind = type(written).head
        filtered: expressions.CountValue = written
        events = getattr(written, kind) if kind in aggregates.WITHOUT_PATH else written.of
        paths = () if kind in aggregates.WITHOUT_PATH else (getattr(written, kind),)
        filter = self._filter(filtered, events, filtered.timezone)
        placed = split_window(filtered)
        is_ever = placed.window.is_lifetime and not filter.open and not self._compiler.explaining
        keeping = _totals(kind) if is_ever else _keeping(placed.window)
        points = self._points(filter, placed, filtered.timezone, paths, keeping)
        return aggregates.LifetimeAggregate(kind, points) if is_ever else aggregates.Aggregate(kind, points)

    def _compared(self, comparison: Comparison) -> CompiledComparison:
        if comparison.matches is not None:
            fold = bool(comparison.ignore_case)
            self._rests_on.patterns[comparison.matches, fold] = measure_pattern(comparison.matches, fold=fold)
        operators = {}
        for name in comparison.operators:
            operand = getattr(comparison, name)
            operators[name] = Operand(self.value(operand)) if isinstance(operand, BaseModel) else operand
        return compile_comparison(operators, ignore_case=bool(comparison.ignore_case))

    def _read_trait(self, name: str) -> Value:
        computed = find_computed_trait(name, self._world.named)
        if computed is None:
            self._rests_on.traits |= {name, name.partition(".")[0]}
            return traits.Declared(name)
        rule_id = self._world.ids[computed]
        self._rests_on.include(self._compiler.dependencies[rule_id])
        self._rests_on.rules.add(rule_id)
        found = self._compiler.values[rule_id]
        inside = name.removeprefix(computed.partition(":")[2]).removeprefix(".")
        return traits.Within(found, inside) if inside else found

    # --------------------------------------------------------------------------------------- traits

    def _trait(self, rule: nodes.TraitIs, written: dict[str, Any]) -> Node:
        nodes: list[Node] = []
        if rule.operators and not rule.held_for:
            nodes.append(self._compares(rule, self._read_trait(rule.trait), written))
        if rule.held_for:
            target = self._watched_comparison(rule) if rule.operators else self._followed(rule.trait)
            nodes.append(self._dwelling(truth_history.ForAtLeast, written, target, rule.held_for, rule.timezone))
        if rule.changed_within:
            target = self._followed(rule.trait)
            nodes.append(
                self._dwelling(truth_history.ChangedWithin, written, target, rule.changed_within, rule.timezone)
            )
        return nodes[0] if len(nodes) == 1 else boolean.All(written, nodes)

    def _compares(self, rule: Any, source: Value, written: dict[str, Any]) -> Node:
        compared = self._compared(rule)
        if isinstance(source, traits.Declared) and compared.static_test is not None:
            return traits.Trait(written, source, compared.static_test)
        # A sum of nothing is 0, which is a date, whose anniversaries come although nothing ever happens.
        self._rests_on.is_dated |= rule.has_dates and not isinstance(source, traits.Declared)
        return traits.Compares(written, source, compared, self._zone(rule.timezone, used=rule.has_dates))

    def _watched_comparison(self, rule: nodes.TraitIs) -> CompiledRule:
        asked = rule.model_copy(update={"held_for": None, "changed_within": None})

        def make(rule_id: str, rests_on: Dependencies) -> CompiledRule:
            maker = _Maker(self._compiler, self._world, rests_on)
            return CompiledRule(rule_id, maker._compares(asked, maker._read_trait(asked.trait), {}))

        meaning = self._compiler.meaning_of_part("watched", asked, self._world)
        return self._compiler.hidden("comparison", meaning, self._rests_on, make)

    def _followed(self, name: str) -> CompiledRule:
        """The hidden rule that knows since when the trait has the value it has."""

        def make(rule_id: str, rests_on: Dependencies) -> CompiledRule:
            return truth_history.Follows(rule_id, _Maker(self._compiler, self._world, rests_on)._read_trait(name))

        meaning = self._compiler.meaning_of_part("followed", TraitOperand(trait=name), self._world)
        return self._compiler.hidden("follows", meaning, self._rests_on, make)

    # -------------------------------------------------------------------------- segments and stages

    def _segment(self, rule: nodes.InSegment, written: dict[str, Any]) -> Node:
        return self._belonging(rule, written, lambda: self._read(segment_id(rule.segment)), boolean.InSegment)

    def _at_stage(self, rule: nodes.AtStage, written: dict[str, Any]) -> Node:
        journey = self._world.journeys[rule.journey or self._compiler.default_journey]
        asked = resolve_stage_places(rule, (), self._world.journeys, self._compiler.default_journey)
        stages = [self._read(target) for _, target in journey]
        keys = [key for key, _ in journey]
        node = boolean.AtStage(written, stages, keys, asked)
        if not (rule.for_at_least or rule.entered_within or rule.ever):
            return node

        def make(rule_id: str, rests_on: Dependencies) -> CompiledRule:
            for stage in stages:
                rests_on.include(self._compiler.dependencies[stage.rule_id])
                rests_on.rules.add(stage.rule_id)
            return CompiledRule(rule_id, boolean.AtStage({}, stages, keys, asked))

        meaning = [self._compiler.meanings[stage.rule_id] for stage in stages]
        target = self._compiler.hidden("stage", [meaning, sorted(asked)], self._rests_on, make)
        return self._belonging(rule, written, lambda: target, boolean.InSegment)

    def _belonging(self, rule: Any, written: dict[str, Any], target: Any, plain: Any) -> Node:
        """A segment, or a set of stages, as it is now; how long it has been so; whether it ever was."""
        if rule.ever:
            return truth_history.Ever(written, self._ever(target()))
        nodes: list[Node] = []
        if rule.for_at_least:
            nodes.append(self._dwelling(truth_history.ForAtLeast, written, target(), rule.for_at_least, rule.timezone))
        if rule.entered_within:
            nodes.append(
                self._dwelling(truth_history.EnteredWithin, written, target(), rule.entered_within, rule.timezone)
            )
        if not nodes:
            node: Node = plain(written, [target()])
            return node
        return nodes[0] if len(nodes) == 1 else boolean.All(written, nodes)

    def _ever(self, target: CompiledRule) -> CompiledRule:
        def make(rule_id: str, rests_on: Dependencies) -> CompiledRule:
            rests_on.include(self._compiler.dependencies[target.rule_id])
            rests_on.rules.add(target.rule_id)
            return CompiledRule(rule_id, truth_history.EverHeld(rule_id, target))

        return self._compiler.hidden("ever", self._compiler.meanings[target.rule_id], self._rests_on, make)

    def _dwelling(
        self, kind: Any, written: dict[str, Any], target: CompiledRule, length: str, timezone: str | None
    ) -> Node:
        self._rests_on.is_dated = True
        parsed = calendar.parse_length(length)
        zone = self._zone(timezone, used=not parsed.is_exact)
        node: Node = kind(written, target, parsed, zone)
        return node

    def _read(self, plain_id: str) -> CompiledRule:
        rule_id = self._world.ids[plain_id]
        self._rests_on.include(self._compiler.dependencies[rule_id])
        self._rests_on.rules.add(rule_id)
        return self._compiler.bodies[rule_id]

    def _zone(self, own: str | None, *, used: bool) -> Zone:
        if used and own is None:
            self._rests_on.traits.add("timezone")
        return Zone(own, self._compiler.timezone)


def _retention(
    within: int | None, before: int | None, low: int, high: int | None, edges: tuple[tuple[int, int], ...]
) -> Retention:
    """Beyond the largest number that the count names, one more touchpoint changes nothing: it saturates there."""
    points = (low if high is None else high) + 1
    if within and before:
        return Retention(0, 0, within, ())
    if within:
        return Retention(points, 0, None, ())
    if before:
        return Retention(0, points, None, ())
    return Retention(0, 0, None, edges)


def _keeping(window: Window) -> Keeping:
    reach = window.age_max
    return Keeping(everything=True) if reach is None else Keeping(window=reach)


def _totals(kind: str) -> Keeping:
    match kind:
        case "count":
            return Keeping()
        case "first_at":
            return Keeping(first=True)
        case "last_at":
            return Keeping(last=True)
        case _:
            return Keeping(totals=True, different=kind in ("distinct", "most_frequent"))


def _gap(step: touchpoint_nodes.Step) -> sequence.Gap:
    within, after = (calendar.parse_length(text) if text else None for text in (step.within, step.after_at_least))
    return sequence.Gap(within, after)


def _open_tests(steps: Sequence[StepFilter], same: int) -> list[tuple[int, int, CompiledComparison]]:
    tests: list[tuple[int, int, CompiledComparison]] = []
    for number, step in enumerate(steps):
        for condition in step.filter.open:
            tests.append((1 << number, sequence.MASK + 1 + same + len(tests), condition.comparison))
    return tests


def digest(said: Any) -> str:
    """16 hexadecimal digits for what JSON can say."""
    return blake2b(msgspec.json.encode(said, order="sorted"), digest_size=8).hexdigest()
