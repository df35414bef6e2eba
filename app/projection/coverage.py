"""Coverage: the rules that a customer's row contains, and those that it lacks, by its revision. Pure.

Rules are numbered in the order in which they come into use. A row's revision is the highest number for which the row is
complete. A row of any age is therefore usable for the rules that it contains, and only the others need the log.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from app.rules.engine.ruleset import Ruleset

BEFORE_NUMBERS: Final = -1
"""Revision of a row from before rules had numbers; only the outline of its state is readable."""


class DefinitionRef:
    """Columns that identify a definition's intervals: its name without a candidate's suffix, version and meaning."""

    __slots__ = ("definition", "meaning", "version")

    def __init__(self, definition: str, version: int, meaning: int) -> None:
        self.definition = definition
        self.version = version
        self.meaning = meaning


class Coverage:
    """Revisions that a row needs for the rules of one ruleset."""

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
        """Lowest revision of a row that contains every current definition."""

    def required_revision(self, id: str) -> int:
        """Return the lowest revision of a row that contains this rule or journey, with the rules that it reads.

        The number of the rule itself is enough, because the rules that it reads have lower numbers.
        """
        return self._required_revisions[id]

    def rules_for(self, id: str) -> Ruleset:
        """Return one rule or journey with the rules that it reads."""
        rules = self._rules_for.get(id)
        if rules is None:
            rules = self._rules_for[id] = self._ruleset.subset([id])
        return rules

    def known_rules(self, revision: int) -> Ruleset:
        """Return the rules that a row of this revision contains."""
        if revision >= self._ruleset.fill:
            return self._ruleset
        rules = self._known_rules.get(revision)
        if rules is None:
            ids = [id for id, revision_needed in self._required_revisions.items() if revision_needed <= revision]
            rules = self._known_rules[revision] = self._ruleset.subset(ids)
        return rules

    def missing_rules(self, revision: int) -> Ruleset:
        """Return the rules that a row of this revision lacks, with the rules that they read."""
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
    """Return refs by the definition id in a fold's changes (``segment:KEY``, ``journey:KEY``), candidates included."""
    refs = {}
    for id in ruleset.number_of:
        if id.startswith(("segment:", "journey:")):
            definition, written = ruleset.resolve_definition(id)
            refs[id] = DefinitionRef(definition, written.version, ruleset.number_of[id])
    return refs


def _contains(ruleset: Ruleset, id: str) -> bool:
    """Return True if ``ruleset`` contains the rule; its numbers may be those of a larger set."""
    kind, _, key = id.partition(":")
    if kind == "journey":
        return key in ruleset.stages_of
    if kind == "trait":
        return ruleset.leaves_of(id) <= ruleset.leaves.keys()
    return id in ruleset.position_of
