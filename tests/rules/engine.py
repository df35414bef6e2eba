"""The engine driven as the projection drives it: fold a history, then ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from app.rules import Definition, Occurrence, Ruleset, Series, compile_ruleset, parse_rule
from tests.rules.oracle import Happened, World


class Known(msgspec.Struct):
    series: dict[str, Series]
    traits: dict[str, Any]


def segment(key: str, rule: Any) -> Definition:
    return Definition("segment", key, 1, key, rule=parse_rule(rule))


def journey(key: str, stages: Sequence[tuple[str, Any]]) -> Definition:
    return Definition("journey", key, 1, key, stages=tuple((stage, stage, parse_rule(rule)) for stage, rule in stages))


def compiled(*definitions: Definition, timezone: str = "UTC", default_journey: str = "main") -> Ruleset:
    return compile_ruleset(definitions, revision=1, timezone=timezone, default_journey=default_journey)


def ruleset_of(rule: Any, world: World) -> Ruleset:
    return compiled(
        segment("asked", rule),
        *(segment(key, other) for key, other in world.segments.items()),
        *(journey(key, stages) for key, stages in world.journeys.items()),
        timezone=world.timezone,
        default_journey=world.default_journey,
    )


def fold(
    ruleset: Ruleset,
    history: Sequence[Happened],
    t: int,
    traits: dict[str, Any],
    points_max: int,
    *,
    unlimited: bool = False,
) -> Known:
    """Everything up to ``t``. Where the cap cost exactness the log is asked, as the projection does."""
    series: dict[str, Series] = {}
    for item in history:
        if item.t <= t:
            for leaf in ruleset.match(occurrence(item)):
                kept = ruleset.leaves[leaf].unlimited if unlimited else ruleset.leaves[leaf].retention
                series.setdefault(leaf, Series()).add(item.t, kept, points_max)
    if any(kept.overflowed for kept in series.values()):
        return fold(ruleset, history, t, traits, 10**9, unlimited=unlimited)
    return Known(series, traits)


def occurrence(item: Happened) -> Occurrence:
    raw = [text.encode() for text in (item.properties, item.context, item.traits)]
    return Occurrence(item.name, item.channel, item.source, item.t, *raw)
