"""Old rulesets are freed without the garbage collector, which rarely runs in a server."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from app.projection.coverage import REVISIONS_CACHED_MAX, Coverage, definition_refs_of
from app.projection.partial_replay import _select_log
from app.projection.state import State, read_state, write_state
from app.rules.engine.ruleset import Ruleset, compile_ruleset
from app.rules.language.definitions import parse_rule
from app.rules.language.references import Definition
from tests.support.running_app import RunningApp

RULES = [
    {"did": "A", "within": "7d"},
    {"did": "A", "within": "2mo"},
    {"did": "A", "where": {"a": {"matches": "^x.*y"}}},
    {"first": "A", "within": "30d"},
    {"sequence": [{"did": "A"}, {"did": "B", "within": "7d"}], "within": "300d"},
    {"sequence": [{"did": "A"}, {"did": "B"}]},
    {"regularly": "A", "at_least": 1, "of_last": 4, "period": "week"},
    {"trait": "plan", "eq": "pro", "held_for": "3d"},
    {"trait": "plan", "changed_within": "3d"},
    {"sum": "v", "of": "A", "gt": 5},
    {"distinct": "v", "of": "A", "within": "7d", "gt": 5},
    {"all": [{"did": "A"}, {"not": {"did": "B"}}, {"bucket": [0, 50], "salt": "x"}]},
    {"all": [{"segment": "s0"}, {"everyone": True}]},
]


@pytest.fixture(autouse=True)
def _without_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def _compile(revision: int) -> Ruleset:
    definitions = [
        Definition("segment", f"s{number}", 1, "Segment", rule=parse_rule(rule)) for number, rule in enumerate(RULES)
    ]
    stages = tuple((f"stage-{number}", "Stage", parse_rule(rule)) for number, rule in enumerate(RULES))
    definitions.append(Definition("journey", "j", 1, "Journey", stages=stages))
    return compile_ruleset(definitions, revision=revision, timezone="UTC", default_journey="j")


def _use(ruleset: Ruleset) -> list[Ruleset]:
    """Return the ruleset with the rulesets derived from it, after every value that is derived from them."""
    coverage = Coverage(ruleset)
    explaining = [ruleset.ruleset_for_explanation(rule) for rule in ruleset.rule_ids if rule.startswith("segment:")]
    subsets = [coverage.rules_for("segment:s1"), coverage.missing_rules(3), coverage.known_rules(-1)]
    definition_refs_of(ruleset)
    for rules in (ruleset, *subsets):
        rules.derive(_select_log)
        read_state(write_state(State(0, 0, 1, {}, {}, {}, {}, []), ruleset), rules)
    return [ruleset, *subsets, *explaining]


def test_replaced_ruleset_is_freed_with_everything_derived_from_it() -> None:
    current = _compile(0)
    for revision in range(1, 50):
        derived = [weakref.ref(ruleset) for ruleset in _use(current)]
        current = _compile(revision)
        assert [ruleset() for ruleset in derived if ruleset() is not None] == []


def test_subsets_for_old_revisions_are_bounded() -> None:
    ruleset = _compile(0)
    ruleset.fill = 10 * REVISIONS_CACHED_MAX
    for select_rules in (Coverage(ruleset).known_rules, Coverage(ruleset).missing_rules):
        subsets = [weakref.ref(select_rules(revision)) for revision in range(10 * REVISIONS_CACHED_MAX)]
        assert sum(subset() is not None for subset in subsets) <= REVISIONS_CACHED_MAX


async def test_definition_changes_over_the_api_free_old_rulesets(service: RunningApp) -> None:
    """Definitions are created, read, edited and archived. Only the newest ruleset and its rules remain."""
    rules = service.app.state.services.registry.rules
    replaced: list[weakref.ref[object]] = []
    await service.send({"type": "track", "userId": "reader", "event": "A"})

    def remember() -> None:
        replaced.extend([weakref.ref(rules.current), *map(weakref.ref, rules.current.definitions)])

    for change in range(50):
        key, rule = f"segment-{change}", RULES[change % (len(RULES) - 1)]
        await service.tell("POST", "/v1/segments", {"key": key, "name": "Segment", "rule": rule}, expected=201)
        await service.ask("/v1/customers/reader")
        await service.ask(f"/v1/customers/reader/segments/{key}/explain")
        await service.ask(f"/v1/segments/{key}/members")
        await service.send({"type": "track", "userId": "reader", "event": "B", "messageId": f"message-{change}"})
        remember()
        await service.tell("PUT", f"/v1/segments/{key}", {"name": "Renamed", "rule": rule})
        remember()
        await service.tell("DELETE", f"/v1/segments/{key}")
    current = {id(rules.current), *map(id, rules.current.definitions)}
    assert [alive for reference in replaced if (alive := reference()) is not None and id(alive) not in current] == []
