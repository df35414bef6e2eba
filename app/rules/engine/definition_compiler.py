"""Compiler of a set of definitions; it compiles each rule after the rules that it reads.

An edited definition is backfilled while its old version stays current. So the edited set is compiled beside the current
set. A rule whose meaning differs gets its own id with a suffix, and so does each rule that reads it; rules with the
same meaning in both sets are shared.
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
"""Maximum nesting depth of a rule, including the segments, stages and computed traits that it reads."""

POINT_NODES_MAX: Final = 100
"""Maximum number of nodes that scan all points (such as sequences) in a rule and everything that it reads."""

PATTERNS_SIZE_MAX: Final = 10_000
"""Maximum number of RE2 instructions of all patterns in a rule and everything that it reads.

A touchpoint may be matched against each of these patterns.
"""


def analyze_definitions(definitions: Sequence[Definition], default_journey: str) -> AnalyzedDefinitions:
    """Check the set and return it with its references and order of compilation.

    Raises :class:`InvalidDefinition` for unknown names, cycles, and two definitions with one key.
    """
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
    """Compile the rules of the set into ``compilation``.

    Rules with the same meaning in ``compiled`` are not compiled again; their ids are reused. New ids end in ``suffix``.
    """
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
        body = compiler.compile_node(rule)  # type: ignore[arg-type]  # Only a computed trait has a value.
        compilation.rules[rule_id] = CompiledRule(rule_id, body)
    compilation.dependencies[rule_id] = dependencies
    dependencies.levels += 1 + max(len(steps) for _, steps in walk_models(rule))
    _check_limits(plain_id, dependencies, path)


def _check_limits(plain_id: str, dependencies: Dependencies, path: tuple[PathStep, ...]) -> None:
    """Raise :class:`InvalidDefinition` if the evaluation of the rule could take too much time."""
    if dependencies.levels > LEVELS_MAX:
        raise InvalidDefinition(
            json_pointer(path),
            f"`{plain_id}` nests deeper than {LEVELS_MAX} levels, including the segments and stages that it reads",
            "Use fewer segments that refer to each other.",
        )
    if sum(dependencies.patterns.values()) > PATTERNS_SIZE_MAX:
        raise InvalidDefinition(
            json_pointer(path),
            f"the patterns of `{plain_id}` and of the definitions that it reads are too complex together: they "
            f"compile to more than {PATTERNS_SIZE_MAX} instructions",
            "Use fewer or simpler patterns.",
        )
    if len(dependencies.point_nodes) > POINT_NODES_MAX:
        raise InvalidDefinition(
            json_pointer(path),
            f"`{plain_id}` and the definitions that it reads scan touchpoints in more than {POINT_NODES_MAX} nodes",
            "Use fewer aggregates with a window, sequence steps and calendar windows in one rule.",
        )
