"""Coverage: the rules that a customer row contains, and the rules that it lacks, by its revision. Pure.

Rules are numbered in the order in which they come into use. The revision of a customer row is the highest rule number
up to which the row is complete. A row of any age is therefore usable for the rules that it contains, and only the
missing rules need the log.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from app.rules.engine.ruleset import Ruleset

BEFORE_NUMBERS: Final = -1
"""Revision of a customer row that was written before rules had numbers. Only the first fields of its state are
readable."""


class DefinitionRef:
    """Columns that identify the intervals of a definition: id without ``@N``, version, and number of the meaning."""

    __slots__ = ("definition", "meaning", "version")

    def __init__(self, definition: str, version: int, meaning: int) -> None:
        self.definition = definition
        self.version = version
        self.meaning = meaning


class Coverage:
    """Revisions that a customer row must have to contain the rules of one ruleset."""

    def __init__(self, ruleset: Ruleset) -> None:
        self._ruleset = ruleset
        self._required_revisions = {id: number for id, number in ruleset.number_of.items() if _contains(ruleset, id)}
        self._known_rules: dict[int, Ruleset] = {}
        self._missing_rules: dict[int, Ruleset] = {}
        self._rules_for: dict[str, Ruleset] = {}
        current_ids = {f"{definition.kind}:{definition.key}" for definition in ruleset.definitions}
        self.current_revision = max(
            (number for id, number in self._required_revisions.items() if id in current_ids), default=0
        )
        """A customer row with at least this revision contains the results of every current definition."""

    def required_revision(self, id: str) -> int:
        """Return the minimum revision of a customer row that contains this rule or journey and all rules that it reads.

        It is the number of the rule itself, because the rules that it reads have lower numbers.
        """
        return self._required_revisions[id]

    def rules_for(self, id: str) -> Ruleset:
        """Return one rule or journey with the rules that it reads."""
        rules = self._rules_for.get(id)
        if rules is None:
            rules = self._rules_for[id] = self._ruleset.subset([id])
        return rules

    def known_rules(self, revision: int) -> Ruleset:
        """Return the rules that a customer row of this revision contains."""
        if revision >= self._ruleset.fill:
            return self._ruleset
        rules = self._known_rules.get(revision)
        if rules is None:
            ids = [id for id, revision_needed in self._required_revisions.items() if revision_needed <= revision]
            rules = self._known_rules[revision] = self._ruleset.subset(ids)
        return rules

    def missing_rules(self, revision: int) -> Ruleset:
        """Return the rules that a customer row of this revision lacks, with the rules that they read."""
        rules = self._missing_rules.get(revision)
        if rules is None:
            ids = [id for id, revision_needed in self._required_revisions.items() if revision_needed > revision]
            rules = self._missing_rules[revision] = self._ruleset.subset(ids)
        return rules


@lru_cache(maxsize=8)
def coverage_of(ruleset: Ruleset) -> Coverage:
    return Coverage(ruleset)


@lru_cache(maxsize=16)
def definition_refs_of(ruleset: Ruleset) -> dict[str, DefinitionRef]:
    """Return the ref of every segment and journey, including candidates, keyed by ``Transition.definition``."""
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
