"""Coverage: the rules that a customer row contains, and the rules that it lacks, by its revision. Pure.

Rules are numbered in the order in which they come into use. The revision of a customer row is the highest rule number
up to which the row is complete. A row of any age is therefore usable for the rules that it contains, and only the
missing rules need the log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from app.rules.engine.ruleset import Ruleset

BEFORE_NUMBERS: Final = -1
"""Revision of a customer row that was written before rules had numbers. Only the first fields of its state are
readable."""

REVISIONS_CACHED_MAX: Final = 32
"""Maximum number of revisions for which subsets of one ruleset are cached. Almost all customer rows have few revisions,
because the worker brings all rows to the newest one."""


class DefinitionRef:
    """Columns that identify the intervals of a definition: id without ``@N``, version, and number of the meaning."""

    __slots__ = ("definition", "meaning", "version")

    def __init__(self, definition: str, version: int, meaning: int) -> None:
        self.definition = definition
        self.version = version
        self.meaning = meaning


class _Subsets:
    """Required revisions and subsets of one ruleset. It does not refer to the ruleset, which owns it."""

    def __init__(self, ruleset: Ruleset) -> None:
        self.required_revisions = {id: number for id, number in ruleset.number_of.items() if _contains(ruleset, id)}
        self.known_rules: dict[int, Ruleset] = {}
        self.missing_rules: dict[int, Ruleset] = {}
        self.rules_for: dict[str, Ruleset] = {}
        current_ids = {f"{definition.kind}:{definition.key}" for definition in ruleset.definitions}
        self.current_revision = max(
            (number for id, number in self.required_revisions.items() if id in current_ids), default=0
        )


class Coverage:
    """Revisions that a customer row must have to contain the rules of one ruleset."""

    def __init__(self, ruleset: Ruleset) -> None:
        self._ruleset = ruleset
        self._subsets = ruleset.derive(_Subsets)

    @property
    def current_revision(self) -> int:
        """A customer row with at least this revision contains the results of every current definition."""
        return self._subsets.current_revision

    def required_revision(self, id: str) -> int:
        """Return the minimum revision of a customer row that contains this rule or journey and all rules that it reads.

        It is the number of the rule itself, because the rules that it reads have lower numbers.
        """
        return self._subsets.required_revisions[id]

    def rules_for(self, id: str) -> Ruleset:
        """Return one rule or journey with the rules that it reads."""
        rules = self._subsets.rules_for.get(id)
        if rules is None:
            rules = self._subsets.rules_for[id] = self._ruleset.subset([id])
        return rules

    def known_rules(self, revision: int) -> Ruleset:
        """Return the rules that a customer row of this revision contains."""
        if revision >= self._ruleset.fill:
            return self._ruleset
        return self._subset_at(revision, self._subsets.known_rules, lambda required: required <= revision)

    def missing_rules(self, revision: int) -> Ruleset:
        """Return the rules that a customer row of this revision lacks, with the rules that they read."""
        return self._subset_at(revision, self._subsets.missing_rules, lambda required: required > revision)

    def _subset_at(self, revision: int, cached: dict[int, Ruleset], is_selected: Callable[[int], bool]) -> Ruleset:
        rules = cached.get(revision)
        if rules is None:
            if len(cached) >= REVISIONS_CACHED_MAX:
                cached.clear()
            ids = [id for id, required in self._subsets.required_revisions.items() if is_selected(required)]
            rules = cached[revision] = self._ruleset.subset(ids)
        return rules


def definition_refs_of(ruleset: Ruleset) -> dict[str, DefinitionRef]:
    """Return the ref of every segment and journey, including candidates, keyed by ``Transition.definition``."""
    return ruleset.derive(_number_definitions)


def _number_definitions(ruleset: Ruleset) -> dict[str, DefinitionRef]:
    refs = {}
    for id in ruleset.number_of:
        if id.startswith(("segment:", "journey:")):
            definition, written = ruleset.resolve_definition(id)
            refs[id] = DefinitionRef(definition, written.version, ruleset.number_of[id])
    return refs


def _contains(ruleset: Ruleset, id: str) -> bool:
    """Return True if ``ruleset`` contains the rule. A subset still has the numbers of the rules that it excludes."""
    kind, _, key = id.partition(":")
    if kind == "journey":
        return key in ruleset.stages_of
    if kind == "trait":
        return ruleset.leaves_of(id) <= ruleset.leaves.keys()
    return id in ruleset.position_of
