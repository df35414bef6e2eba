"""Which definition reads which: unknown names and cycles are refused, and the order of compiling follows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from app.errors import InvalidDefinition
from app.rules.language import All, AnyOf, AtStage, Did, Everyone, InSegment, Not, Rule, TraitIs
from app.rules.refusal import pointer

Step = str | int


class Definition(msgspec.Struct, frozen=True):
    """One version of a segment or a journey. ``stages`` are (key, name, rule) in order."""

    kind: Literal["segment", "journey"]
    key: str
    version: int
    name: str
    description: str = ""
    owner: str = ""
    rule: Rule | None = None
    stages: tuple[tuple[str, str, Rule], ...] = ()


class Named(NamedTuple):
    """A rule with an id: that of a segment or of one stage. ``at`` is where it stands in its definition."""

    id: str
    rule: Rule
    at: tuple[Step, ...]


class Reference(NamedTuple):
    """One node that reads other rules: a segment, or all the stages of a journey."""

    targets: tuple[str, ...]
    at: tuple[Step, ...]


def segment_id(key: str) -> str:
    return f"segment:{key}"


def stage_id(journey: str, stage: str) -> str:
    return f"stage:{journey}:{stage}"


def named_rules(definitions: Sequence[Definition]) -> dict[str, Named]:
    """Every rule that has an id, in the order of the definitions. Refuses two of one id."""
    found: dict[str, Named] = {}
    for definition in definitions:
        for named in _rules_of(definition):
            if named.id in found:
                raise InvalidDefinition(pointer([*named.at[:-1], "key"]), f"there are two of {named.id}", "Rename one.")
            found[named.id] = named
    return found


def _rules_of(definition: Definition) -> Iterator[Named]:
    if definition.kind == "segment":
        assert definition.rule is not None
        yield Named(segment_id(definition.key), definition.rule, ("rule",))
    else:
        for place, (key, _, rule) in enumerate(definition.stages):
            yield Named(stage_id(definition.key, key), rule, ("stages", place, "rule"))


def stages_of(definitions: Sequence[Definition]) -> dict[str, tuple[tuple[str, str], ...]]:
    return {
        definition.key: tuple((key, stage_id(definition.key, key)) for key, _, _ in definition.stages)
        for definition in definitions
        if definition.kind == "journey"
    }


def nodes_with_paths(rule: Rule, at: tuple[Step, ...]) -> Iterator[tuple[Rule, tuple[Step, ...]]]:
    yield rule, at
    match rule:
        case All():
            for place, child in enumerate(rule.all_):
                yield from nodes_with_paths(child, (*at, "all", place))
        case AnyOf():
            for place, child in enumerate(rule.any_):
                yield from nodes_with_paths(child, (*at, "any", place))
        case Not():
            yield from nodes_with_paths(rule.not_, (*at, "not"))
        case Everyone() | Did() | TraitIs() | InSegment() | AtStage():
            pass


def references(
    named: Mapping[str, Named], journeys: Mapping[str, tuple[tuple[str, str], ...]], default_journey: str
) -> dict[str, list[Reference]]:
    """What each rule reads of other rules; refuses names that do not exist."""
    found: dict[str, list[Reference]] = {}
    for rule_id, (_, rule, root) in named.items():
        found[rule_id] = []
        for node, at in nodes_with_paths(rule, root):
            if isinstance(node, InSegment):
                if segment_id(node.segment) not in named:
                    raise InvalidDefinition(
                        pointer([*at, "segment"]),
                        f"{rule_id} reads the segment {node.segment}, which does not exist",
                        "Create it first, or correct the key.",
                    )
                found[rule_id].append(Reference((segment_id(node.segment),), at))
            elif isinstance(node, AtStage):
                places_asked(node, at, journeys, default_journey)
                stages = journeys[node.journey or default_journey]
                found[rule_id].append(Reference(tuple(target for _, target in stages), at))
    return found


def places_asked(
    node: AtStage, at: tuple[Step, ...], journeys: Mapping[str, tuple[tuple[str, str], ...]], default_journey: str
) -> frozenset[int]:
    """The places, among the stages of the journey, that the node asks for."""
    journey = node.journey or default_journey
    if journey not in journeys:
        raise InvalidDefinition(
            pointer([*at, "journey" if node.journey else "stage"]),
            f"the journey {journey} does not exist",
            "Create it first, or name another with journey.",
        )
    keys = [key for key, _ in journeys[journey]]
    asked = node.stage if isinstance(node.stage, list) else [node.stage]
    for key in asked:
        if key not in keys:
            raise InvalidDefinition(
                pointer([*at, "stage"]),
                f"the journey {journey} has no stage {key}",
                f"Its stages are {', '.join(keys)}.",
            )
    return frozenset(keys.index(key) for key in asked)


def in_order(named: Mapping[str, Named], reads: Mapping[str, list[Reference]]) -> list[str]:
    """Rule ids such that each comes after all that it reads. Refuses cycles, naming them."""
    done: list[str] = []
    finished: set[str] = set()
    for start in named:
        trail: dict[str, Iterator[tuple[str, tuple[Step, ...]]]] = {}
        if start not in finished:
            trail[start] = _targets(reads[start])
        while trail:
            current = next(reversed(trail))
            target, at = next(trail[current], (None, ()))
            if target is None:
                finished.add(current)
                done.append(current)
                del trail[current]
            elif target in trail:
                ring = [*list(trail)[list(trail).index(target) :], target]
                raise InvalidDefinition(
                    pointer(at), f"definitions read each other in a cycle: {' > '.join(ring)}", "Break it at one place."
                )
            elif target not in finished:
                trail[target] = _targets(reads[target])
    return done


def _targets(found: Sequence[Reference]) -> Iterator[tuple[str, tuple[Step, ...]]]:
    return iter([(target, at) for targets, at in found for target in targets])
