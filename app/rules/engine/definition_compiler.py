"""Compiles sets of definitions: one rule after the other, so that what a rule reads is compiled before it.

Definitions that are being filled are compiled beside the current ones, under ids of their own, with everything
that reads them; what means the same in both sets is one rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from app.errors import InvalidDefinition
from app.rules.engine.compilation_state import AnalyzedDefinitions, Compilation, Dependencies, digest
from app.rules.engine.nodes.base import CompiledRule
from app.rules.engine.nodes.traits import ComputedTrait
from app.rules.engine.rule_compiler import RuleCompiler
from app.rules.language.references import (
    Definition,
    PathStep,
    collect_references,
    index_rules,
    sort_by_dependency,
    stages_by_journey,
    walk_models,
)
from app.rules.language.validation import json_pointer

LEVELS_MAX: Final = 150
"""Nesting of a rule together with all that it reads through segments, stages and computed traits."""

POINT_NODES_MAX: Final = 100
"""Windowed aggregates, sequences and the like in a rule and all that it reads: each looks at every point."""

PATTERNS_SIZE_MAX: Final = 10_000
"""Instructions of all patterns in a rule and all that it reads: a touchpoint may meet each of them."""


def analyze_definitions(definitions: Sequence[Definition], default_journey: str) -> AnalyzedDefinitions:
    """Check the set as a whole. Refuses unknown names, cycles and two definitions of one key."""
    rules = index_rules(definitions)
    journeys = stages_by_journey(definitions)
    references = collect_references(rules, journeys, default_journey)
    return AnalyzedDefinitions(rules, journeys, references, sort_by_dependency(rules, references))


def compile_definitions(
    compilation: Compilation,
    definitions: AnalyzedDefinitions,
    compiled: AnalyzedDefinitions | None = None,
    suffix: str = "",
) -> None:
    """Compile the rules of the set, but for those that mean the same in ``compiled``: their ids are taken over."""
    for plain_id, meaning in compilation.digest_meanings(definitions).items():
        if compiled is not None and compiled.meanings.get(plain_id) == meaning:
            definitions.ids[plain_id] = compiled.ids[plain_id]
            continue
        definitions.ids[plain_id] = f"{plain_id}{suffix}"
        _compile_rule(compilation, plain_id, definitions)
        compilation.meanings[definitions.ids[plain_id]] = digest([plain_id, meaning])


def _compile_rule(compilation: Compilation, plain_id: str, definitions: AnalyzedDefinitions) -> None:
    _, rule, path = definitions.rules[plain_id]
    rule_id = definitions.ids[plain_id]
    dependencies = Dependencies()
    compiler = RuleCompiler(compilation, definitions, dependencies)
    if plain_id.startswith("trait:"):
        compilation.computed_traits[rule_id] = ComputedTrait(rule_id, compiler.compile_value(rule))
    else:
        body = compiler.compile_node(rule)  # type: ignore[arg-type]  # a rule, because only a trait has a value
        compilation.rules[rule_id] = CompiledRule(rule_id, body)
    compilation.dependencies[rule_id] = dependencies
    dependencies.levels += 1 + max(len(steps) for _, steps in walk_models(rule))
    _check_limits(plain_id, dependencies, path)


def _check_limits(plain_id: str, dependencies: Dependencies, path: tuple[PathStep, ...]) -> None:
    """Raise InvalidDefinition if evaluating the rule could take too much work."""
    if dependencies.levels > LEVELS_MAX:
        raise InvalidDefinition(
            json_pointer(path),
            f"{plain_id} nests deeper than {LEVELS_MAX} levels with the segments and stages that it reads",
            "Flatten the chain of segments.",
        )
    if sum(dependencies.patterns.values()) > PATTERNS_SIZE_MAX:
        raise InvalidDefinition(
            json_pointer(path),
            f"the patterns of {plain_id} and of what it reads take more than {PATTERNS_SIZE_MAX} instructions",
            "Use fewer or simpler patterns.",
        )
    if len(dependencies.point_nodes) > POINT_NODES_MAX:
        raise InvalidDefinition(
            json_pointer(path),
            f"{plain_id} and what it reads look at touchpoints one by one in more than {POINT_NODES_MAX} places",
            "Ask fewer aggregates, steps of sequences and calendar windows in one rule.",
        )
