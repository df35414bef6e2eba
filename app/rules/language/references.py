"""References between definitions: refuses unknown names and cycles, and returns the order of compilation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, assert_never

import msgspec
from pydantic import BaseModel

from app.errors import InvalidDefinition
from app.rules.language.expressions import TraitOperand, Value
from app.rules.language.nodes import AtStage, InSegment, Rule, TraitIs
from app.rules.language.validation import json_pointer, quote_all

PathStep = str | int


class Definition(msgspec.Struct, frozen=True, weakref=True):
    """One version of a segment, a journey or a computed trait. ``stages`` are (key, name, rule) in order.

    Rules do not read ``public`` (whether web pages may see the result) and ``contents`` (stage key -> content for a web
    page, a JSON object).
    """

    kind: Literal["segment", "journey", "trait"]
    key: str
    version: int
    name: str
    description: str = ""
    owner: str = ""
    rule: Rule | None = None
    stages: tuple[tuple[str, str, Rule], ...] = ()
    value: Value | None = None
    public: bool = False
    contents: Mapping[str, Mapping[str, Any]] = {}


class NamedRule(NamedTuple):
    """The rule of a segment or stage, or the value expression of a computed trait, with its id.

    ``at`` is the JSON path of the rule or value expression in its definition.
    """

    id: str
    rule: Rule | Value
    at: tuple[PathStep, ...]


class Reference(NamedTuple):
    """A node that reads other rules: a segment, all stages of a journey, or a computed trait."""

    targets: tuple[str, ...]
    at: tuple[PathStep, ...]


def segment_id(key: str) -> str:
    return f"segment:{key}"


def trait_id(key: str) -> str:
    return f"trait:{key}"


def stage_id(journey: str, stage: str) -> str:
    return f"stage:{journey}:{stage}"


def index_rules(definitions: Sequence[Definition]) -> dict[str, NamedRule]:
    """Return the rules and values by id, in the order of the definitions.

    Raises :class:`InvalidDefinition` if two rules or values have the same id.
    """
    rules: dict[str, NamedRule] = {}
    for definition in definitions:
        for named in _rules_of(definition):
            if named.id in rules:
                raise InvalidDefinition(
                    json_pointer([*named.at[:-1], "key"]), f"`{named.id}` is defined twice", "Rename one of them."
                )
            rules[named.id] = named
    return rules


def _rules_of(definition: Definition) -> Iterator[NamedRule]:
    match definition.kind:
        case "segment":
            assert definition.rule is not None
            yield NamedRule(segment_id(definition.key), definition.rule, ("rule",))
        case "trait":
            assert definition.value is not None
            if definition.key == "timezone":
                raise InvalidDefinition(
                    "/key",
                    "the trait `timezone` cannot be computed",
                    "Send the timezone with `identify`, or use another key.",
                )
            yield NamedRule(trait_id(definition.key), definition.value, ("value",))
        case "journey":
            for index, (key, _, rule) in enumerate(definition.stages):
                yield NamedRule(stage_id(definition.key, key), rule, ("stages", index, "rule"))
        case _:
            assert_never(definition.kind)


def stages_by_journey(definitions: Sequence[Definition]) -> dict[str, tuple[tuple[str, str], ...]]:
    return {
        definition.key: tuple((key, stage_id(definition.key, key)) for key, _, _ in definition.stages)
        for definition in definitions
        if definition.kind == "journey"
    }


def walk_models(model: BaseModel, at: tuple[PathStep, ...] = ()) -> Iterator[tuple[BaseModel, tuple[PathStep, ...]]]:
    """Yield the model and every model inside it, with their paths."""
    yield model, at
    fields_set = model.model_fields_set
    for name, field in type(model).model_fields.items():
        if name in fields_set and isinstance(value := getattr(model, name), BaseModel | list | dict):
            yield from _walk_inside(value, (*at, field.alias or name))


def _walk_inside(value: Any, at: tuple[PathStep, ...]) -> Iterator[tuple[BaseModel, tuple[PathStep, ...]]]:
    if isinstance(value, BaseModel):
        yield from walk_models(value, at)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk_inside(item, (*at, index))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _walk_inside(item, (*at, key))


def collect_references(
    named: Mapping[str, NamedRule], journeys: Mapping[str, tuple[tuple[str, str], ...]], default_journey: str
) -> dict[str, list[Reference]]:
    """Return the references of each rule and value, by id.

    Raises :class:`InvalidDefinition` if a segment, journey or stage does not exist.
    """
    return {
        rule_id: list(find_references(rule_id, rule, root, named, journeys, default_journey))
        for rule_id, (_, rule, root) in named.items()
    }


def find_references(
    rule_id: str,
    model: BaseModel,
    root: tuple[PathStep, ...],
    named: Mapping[str, Any],
    journeys: Mapping[str, tuple[tuple[str, str], ...]],
    default_journey: str,
) -> Iterator[Reference]:
    for node, at in walk_models(model, root):
        if isinstance(node, InSegment):
            if segment_id(node.segment) not in named:
                raise InvalidDefinition(
                    json_pointer([*at, "segment"]),
                    f"`{rule_id}` refers to the segment `{node.segment}`, which does not exist",
                    "Create it first, or correct the key.",
                )
            yield Reference((segment_id(node.segment),), at)
        elif isinstance(node, AtStage):
            resolve_stage_positions(node, at, journeys, default_journey)
            stages = journeys[node.journey or default_journey]
            yield Reference(tuple(target for _, target in stages), at)
        elif isinstance(node, TraitIs | TraitOperand):
            computed = find_computed_trait(node.trait, named)
            if computed is not None:
                yield Reference((computed,), (*at, "trait"))


def find_computed_trait(name: str, named: Mapping[str, Any]) -> str | None:
    """Return the id of the computed trait that ``name`` refers to: its key, or a path into its value.

    Return ``None`` if ``name`` refers to a declared trait, whose value messages set.
    """
    candidates = (trait_id(name), trait_id(name.partition(".")[0]))
    return next((candidate for candidate in candidates if candidate in named), None)


def resolve_stage_positions(
    node: AtStage, at: tuple[PathStep, ...], journeys: Mapping[str, tuple[tuple[str, str], ...]], default_journey: str
) -> frozenset[int]:
    """Return the positions in the journey of the stages that the node lists.

    Raises :class:`InvalidDefinition` if the journey or a stage does not exist.
    """
    journey = node.journey or default_journey
    if journey not in journeys:
        raise InvalidDefinition(
            json_pointer([*at, "journey" if node.journey else "stage"]),
            f"the journey `{journey}` does not exist",
            "Create it first, or set `journey` to another key.",
        )
    keys = [key for key, _ in journeys[journey]]
    targets = node.stage if isinstance(node.stage, list) else [node.stage]
    for key in targets:
        if key not in keys:
            raise InvalidDefinition(
                json_pointer([*at, "stage"]),
                f"the journey `{journey}` has no stage `{key}`",
                f"Its stages are {quote_all(keys)}.",
            )
    return frozenset(keys.index(key) for key in targets)


def sort_by_dependency(named: Mapping[str, NamedRule], reads: Mapping[str, list[Reference]]) -> list[str]:
    """Return the ids so that each rule comes after all rules that it reads (a depth-first topological sort).

    Raises :class:`InvalidDefinition` with the ids of the cycle if definitions read each other in a cycle.
    """
    ordered: list[str] = []
    finished: set[str] = set()
    for start in named:
        trail: dict[str, Iterator[tuple[str, tuple[PathStep, ...]]]] = {}
        if start not in finished:
            trail[start] = _iterate_targets(reads[start])
        while trail:
            current = next(reversed(trail))
            target, at = next(trail[current], (None, ()))
            if target is None:
                finished.add(current)
                ordered.append(current)
                del trail[current]
            elif target in trail:
                cycle = [*list(trail)[list(trail).index(target) :], target]
                raise InvalidDefinition(
                    json_pointer(at),
                    f"definitions refer to each other in a cycle: `{' > '.join(cycle)}`",
                    "Remove one of these references.",
                )
            elif target not in finished:
                trail[target] = _iterate_targets(reads[target])
    return ordered


def _iterate_targets(references: Sequence[Reference]) -> Iterator[tuple[str, tuple[PathStep, ...]]]:
    return iter([(target, at) for targets, at in references for target in targets])
