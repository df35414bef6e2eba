"""Which rules a customer's row can speak of, by its revision; and what is to be filled. Pure.

Rules are numbered as they come into use, and a row's revision is the highest number it is complete for. So a row of
any age is believed for the rules that it knows, and only the others have to be looked up in the log.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from app.rules.engine.ruleset import Ruleset

BEFORE_NUMBERS: Final = -1
"""Revision of a row from before rules had numbers: nothing in it can be read but its outline."""


class DefinitionRef:
    """Where intervals of a definition belong: its name without the mark of a candidate, its version, its number."""

    __slots__ = ("definition", "meaning", "version")

    def __init__(self, definition: str, version: int, meaning: int) -> None:
        self.definition = definition
        self.version = version
        self.meaning = meaning


class Coverage:
    """What one ruleset's rules need of a row's revision."""

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
        """The least revision of a row that holds everything that is current."""

    def required_revision(self, id: str) -> int:
        """The least revision of a row that holds this rule, or journey, and all that it reads: these came before."""
        return self._required_revisions[id]

    def rules_for(self, id: str) -> Ruleset:
        """One rule or journey and what it reads."""
        rules = self._rules_for.get(id)
        if rules is None:
            rules = self._rules_for[id] = self._ruleset.subset([id])
        return rules

    def known_rules(self, revision: int) -> Ruleset:
        """The rules that a row of this revision holds."""
        if revision >= self._ruleset.fill:
            return self._ruleset
        rules = self._known_rules.get(revision)
        if rules is None:
            ids = [id for id, revision_needed in self._required_revisions.items() if revision_needed <= revision]
            rules = self._known_rules[revision] = self._ruleset.subset(ids)
        return rules

    def missing_rules(self, revision: int) -> Ruleset:
        """The other rules, with all that they read."""
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
    """By the id under which a fold tells of changes: ``segment:KEY`` or ``journey:KEY``, candidates included."""
    refs = {}
    for id in ruleset.number_of:
        if id.startswith(("segment:", "journey:")):
            definition, written = ruleset.resolve_definition(id)
            refs[id] = DefinitionRef(definition, written.version, ruleset.number_of[id])
    return refs


def _contains(ruleset: Ruleset, id: str) -> bool:
    """Numbers are those of the whole set, of which ``ruleset`` may be a part."""
    kind, _, key = id.partition(":")
    if kind == "journey":
        return key in ruleset.stages_of
    if kind == "trait":
        return ruleset.leaves_of(id) <= ruleset.leaves.keys()
    return id in ruleset.position_of
