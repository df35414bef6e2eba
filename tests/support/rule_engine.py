"""The rule engine as the projection uses it: it folds a history in one or several parts, then evaluates rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from app.projection.fold import POINTS_UNLIMITED, Transition
from app.projection.fold import fold as fold_moves
from app.projection.log_replay import build_input
from app.projection.state import Input, State, read_state, write_state
from app.rules.engine.point_series import OlderPoints
from app.rules.engine.ruleset import Ruleset, compile_ruleset
from app.rules.engine.series import NeedsReplay, Series
from app.rules.engine.sliding_window import SlidingState
from app.rules.engine.touchpoint_view import TouchpointView
from app.rules.engine.truth import Truth
from app.rules.language.definitions import parse_rule, parse_value
from app.rules.language.references import Definition
from tests.support.reference_rules import Entry, TrackEntry, TraitsEntry, World, order
from tests.support.rule_strategies import written

PERSON = ("user_id", "u1")


class CustomerFacts(msgspec.Struct):
    """Facts about a customer that a test constructs, as the engine reads them from a state."""

    series: dict[str, Series]
    traits: dict[str, Any]
    truths: dict[str, Truth] = {}
    born: int | None = 0
    bucketing_key: tuple[str, str] | None = PERSON
    searches: dict[Any, Any] = {}
    windows: dict[str, SlidingState] = {}
    older_points: dict[str, list[OlderPoints]] = {}


def segment(key: str, rule: Any) -> Definition:
    return Definition("segment", key, 1, key, rule=parse_rule(rule))


def journey(key: str, stages: Sequence[tuple[str, Any]]) -> Definition:
    return Definition("journey", key, 1, key, stages=tuple((stage, stage, parse_rule(rule)) for stage, rule in stages))


def trait(key: str, expression: Any) -> Definition:
    return Definition("trait", key, 1, key, value=parse_value(expression))


def compiled(*definitions: Definition, timezone: str = "UTC", default_journey: str = "main") -> Ruleset:
    return compile_ruleset(definitions, revision=1, timezone=timezone, default_journey=default_journey)


def ruleset_of(rule: Any, world: World) -> Ruleset:
    """Compile the definitions of the world and the rule as the segment ``asked``."""
    return ruleset_of_all({"asked": rule}, world)


def ruleset_of_all(rules: Mapping[str, Any], world: World) -> Ruleset:
    return compiled(
        *(segment(key, rule) for key, rule in {**rules, **world.segments}.items()),
        *(journey(key, stages) for key, stages in world.journeys.items()),
        *(trait(key, expression) for key, expression in world.traits.items()),
        timezone=world.timezone,
        default_journey=world.default_journey,
    )


class Folded(msgspec.Struct):
    state: State
    changes: list[Transition]


def folded(
    ruleset: Ruleset,
    history: Sequence[Entry],
    now: int,
    points_max: int = POINTS_UNLIMITED,
    *,
    cuts: Sequence[int] = (),
    bucketing_key: tuple[str, str] | None = PERSON,
) -> Folded:
    """Fold the history up to ``now`` in parts that end at ``cuts``, and store and read the state after each part.

    If a part requires a replay, fold the whole log without a limit, as the projection does.
    """
    entries = sorted((entry for entry in history if entry.t <= now), key=order)
    moves = [input_from_entry(ruleset, entry) for entry in entries]
    places = sorted({0, len(moves), *(min(cut, len(moves)) for cut in cuts)})
    try:
        return _folded(ruleset, [moves[a:b] for a, b in pairwise(places)], now, points_max, bucketing_key)
    except NeedsReplay:
        return _folded(ruleset, [moves], now, POINTS_UNLIMITED, bucketing_key)


def _folded(
    ruleset: Ruleset, parts: Sequence[list[Input]], now: int, points_max: int, bucketing_key: tuple[str, str] | None
) -> Folded:
    state = State(bucketing_key=bucketing_key)
    changes: list[Transition] = []
    for number, part in enumerate(parts):
        if number:
            state = read_state(write_state(state, ruleset), ruleset)
        changes += fold_moves(state, ruleset, part, max((one.at for one in part), default=now), points_max)
    return Folded(state, changes + fold_moves(state, ruleset, [], now, points_max))


def input_from_entry(ruleset: Ruleset, entry: Entry) -> Input:
    if isinstance(entry, TraitsEntry):
        traits = written(dict(entry.traits)).encode()
        return build_input(ruleset, entry.t, entry.id, entry.source, "identify", None, "web", b"{}", b"{}", traits)
    raw = [text.encode() for text in (entry.properties, entry.context, entry.traits)]
    return build_input(ruleset, entry.t, entry.id, entry.source, "track", entry.name, entry.channel, *raw)


def stored(ruleset: Ruleset, state: State, rule_id: str) -> Truth:
    """Return the stored truth of a rule.

    If none is stored, return the initial truth, since the customer's first message.
    """
    truth = state.truths.get(rule_id)
    assert state.born is not None
    return Truth(ruleset.initial[rule_id], state.born) if truth is None else truth


def fold(
    ruleset: Ruleset,
    history: Sequence[TrackEntry],
    t: int,
    traits: Mapping[str, Any],
    points_max: int,
    *,
    unlimited: bool = False,
) -> State:
    """Return the state at ``t`` of a customer who has these traits from the first message on.

    With ``unlimited``, the series contain all points instead of at most ``points_max``.
    """
    initial = [TraitsEntry(min(one.t for one in history), "", "", traits)] if traits and history else []
    state = folded(ruleset, [*initial, *history], t, points_max).state
    if unlimited:
        for leaf in ruleset.leaves.values():
            state.series[leaf.id] = Series()
            for item in (item for item in history if item.t <= t and leaf.matches(occurrence(item))):
                leaf.unlimited.add(state.series[leaf.id], item.t, 0, None, POINTS_UNLIMITED)
    return state


def occurrence(item: TrackEntry) -> TouchpointView:
    properties, context, traits = (text.encode() for text in (item.properties, item.context, item.traits))
    return TouchpointView(item.name, item.channel, item.source, item.t, properties, context, traits)
