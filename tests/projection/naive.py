"""The whole service, naively: a list of all accepted messages, asked again from the start for every question.

Nothing incremental, no series, no stored truth: customers come from joining over the full list of claims, a history
from asking the rules (by the naive reading of tests/rules) at every instant at which anything could change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.rules.oracle import UNIT, Happened, World, holds

STRONGEST_FIRST = ["user_id", "email", "phone", "tool", "anonymous_id"]


@dataclass(frozen=True)
class Said:
    """One accepted message, as a person would note it down."""

    t: int
    message_id: str
    type: str
    ids: Mapping[str, str]
    name: str = ""
    previous: str | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    traits: Mapping[str, Any] | None = None
    channel: str = "server"
    source: str = "default"

    @property
    def names(self) -> list[str]:
        """kind:value, strongest first."""
        return [f"{kind}:{self.ids[kind]}" for kind in STRONGEST_FIRST if kind in self.ids]

    @property
    def order(self) -> tuple[int, str, str]:
        return (self.t, self.message_id, self.source)


def customers(said: Sequence[Said], caps: Mapping[str, int]) -> set[frozenset[str]]:
    """Who is who: the identities parted into customers."""
    carried = {name for one in said for name in one.names}
    groups = [{name} for name in carried]
    claims = []
    for one in said:
        strongest, *weaker = one.names
        claims += [(one.order, name, strongest) for name in weaker]
        if one.previous is not None and one.previous != one.ids.get("user_id"):
            user, anonymous = f"user_id:{one.previous}", f"anonymous_id:{one.previous}"
            if anonymous in carried:
                claims.append((one.order, anonymous, strongest))
            if user in carried or anonymous not in carried:
                if not any(user in group for group in groups):
                    groups.append({user})
                _merge(groups, user, strongest)
    for _, weaker_name, stronger in sorted(claims, key=_place):
        one_group = next(group for group in groups if weaker_name in group)
        other = next(group for group in groups if stronger in group)
        if one_group is not other and _may_be_one(one_group, other, caps):
            _merge(groups, weaker_name, stronger)
    return {frozenset(group) for group in groups}


def _place(claim: tuple[tuple[int, str, str], str, str]) -> tuple[tuple[int, str, str], int, str]:
    """Of the claims of one message, the one of its stronger identity comes first."""
    return (claim[0], STRONGEST_FIRST.index(claim[1].partition(":")[0]), claim[1])


def _may_be_one(a: set[str], b: set[str], caps: Mapping[str, int]) -> bool:
    if all(any(name.startswith("user_id:") for name in group) for group in (a, b)):
        return False
    together = a | b
    return all(sum(name.startswith(kind + ":") for name in together) <= cap for kind, cap in caps.items())


def _merge(groups: list[set[str]], a: str, b: str) -> None:
    one = next(group for group in groups if a in group)
    other = next(group for group in groups if b in group)
    if one is not other:
        groups.remove(other)
        one |= other


def of_customer(said: Sequence[Said], group: frozenset[str]) -> list[Said]:
    return sorted((one for one in said if one.names[0] in group), key=lambda one: one.order)


def world_at(said: Sequence[Said], t: int, definitions: Definitions) -> World:
    traits: dict[str, Any] = {}
    for one in said:
        if one.t <= t and one.type == "identify" and one.traits:
            traits.update(one.traits)
    kept = {name: value for name, value in traits.items() if value is not None}
    return World(kept, definitions.segments, definitions.journeys, default_journey=definitions.default_journey)


@dataclass(frozen=True)
class Definitions:
    segments: Mapping[str, Any]
    journeys: Mapping[str, Sequence[tuple[str, Any]]]
    default_journey: str = "main"


def happened(said: Sequence[Said]) -> list[Happened]:
    return [
        Happened(one.t, one.message_id, one.name, one.channel, one.source, json.dumps(one.properties), "{}", "{}")
        for one in said
        if one.type in ("track", "page", "screen")
    ]


Standing = dict[str, str]
"""What holds at one instant: definition -> value; an absent one does not hold."""


def standing(said: Sequence[Said], t: int, definitions: Definitions) -> Standing:
    """``said`` is one customer's."""
    if not said or t < min(one.t for one in said):
        return {}
    history, world = happened(said), world_at(said, t, definitions)
    found: Standing = {}
    for key, rule in definitions.segments.items():
        if holds(rule, history, t, world):
            found[f"segment:{key}"] = ""
    for journey, stages in definitions.journeys.items():
        true = [stage for stage, rule in stages if holds(rule, history, t, world)]
        if true:
            found[f"journey:{journey}"] = true[-1]
    return found


Interval = tuple[str, str, int, int | None]
"""(definition, value, entered_at, left_at)"""


def intervals(said: Sequence[Said], now: int, definitions: Definitions) -> set[Interval]:
    """The customer's history up to ``now``, found by asking at every instant at which it could change."""
    lengths = set(_lengths(definitions))
    instants = sorted({t for one in said for length in (0, *lengths) if (t := one.t + length) <= now})
    found: set[Interval] = set()
    open_since: dict[tuple[str, str], int] = {}
    before: Standing = {}
    for t in instants:
        after = standing(said, t, definitions)
        for definition in before.keys() | after.keys():
            old, new = before.get(definition), after.get(definition)
            if old == new:
                continue
            if old is not None:
                found.add((definition, old, open_since.pop((definition, old)), t))
            if new is not None:
                open_since[definition, new] = t
        before = after
    return found | {(definition, value, t, None) for (definition, value), t in open_since.items()}


def _lengths(definitions: Definitions) -> list[int]:
    def inside(node: Any) -> list[int]:
        if isinstance(node, list):
            return [length for part in node for length in inside(part)]
        if not isinstance(node, dict):
            return []
        own = [_microseconds(node[key]) for key in ("within", "before") if isinstance(node.get(key), str)]
        return own + [length for part in node.values() for length in inside(part)]

    stages = [rule for stages in definitions.journeys.values() for _, rule in stages]
    return inside([*definitions.segments.values(), *stages])


def _microseconds(text: str) -> int:
    unit = text.lstrip("0123456789")
    return int(text[: -len(unit)]) * UNIT[unit]
