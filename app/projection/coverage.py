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


class Kept:
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
        self._needed = {id: number for id, number in ruleset.number_of.items() if _is_in(ruleset, id)}
        self._known: dict[int, Ruleset] = {}
        self._missing: dict[int, Ruleset] = {}
        self._alone: dict[str, Ruleset] = {}
        current = {f"{definition.kind}:{definition.key}" for definition in ruleset.definitions}
        self.shown = max((number for id, number in self._needed.items() if id in current), default=0)
        """The least revision of a row that holds everything that is current."""

    def needed(self, id: str) -> int:
        """The least revision of a row that holds this rule, or journey, and all that it reads: these came before."""
        return self._needed[id]

    def alone(self, id: str) -> Ruleset:
        """One rule or journey and what it reads."""
        found = self._alone.get(id)
        if found is None:
            found = self._alone[id] = self._ruleset.only([id])
        return found

    def known(self, revision: int) -> Ruleset:
        """The rules that a row of this revision holds."""
        if revision >= self._ruleset.fill:
            return self._ruleset
        found = self._known.get(revision)
        if found is None:
            ids = [id for id, needed in self._needed.items() if needed <= revision]
            found = self._known[revision] = self._ruleset.only(ids)
        return found

    def missing(self, revision: int) -> Ruleset:
        """The other rules, with all that they read."""
        found = self._missing.get(revision)
        if found is None:
            ids = [id for id, needed in self._needed.items() if needed > revision]
            found = self._missing[revision] = self._ruleset.only(ids)
        return found


@lru_cache(maxsize=8)
def coverage(ruleset: Ruleset) -> Coverage:
    return Coverage(ruleset)


@lru_cache(maxsize=16)
def kept_of(ruleset: Ruleset) -> dict[str, Kept]:
    """By the id under which a fold tells of changes: ``segment:KEY`` or ``journey:KEY``, candidates included."""
    found = {}
    for id in ruleset.number_of:
        if id.startswith(("segment:", "journey:")):
            definition, written = ruleset.written_as(id)
            found[id] = Kept(definition, written.version, ruleset.number_of[id])
    return found


def _is_in(ruleset: Ruleset, id: str) -> bool:
    """Numbers are those of the whole set, of which ``ruleset`` may be a part."""
    kind, _, key = id.partition(":")
    if kind == "journey":
        return key in ruleset.stages_of
    if kind == "trait":
        return ruleset.leaves_of(id) <= ruleset.leaves.keys()
    return id in ruleset.place_of
