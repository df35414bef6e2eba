"""Compiled tracking plan, for checks of messages. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from app.tracking_plan.event_schema import EnforcedMode, SchemaCheck

EVERY_SOURCE: Final = ""


class PlannedEvent(msgspec.Struct, frozen=True):
    """A compiled entry of the plan."""

    mode: EnforcedMode
    check: SchemaCheck


class Plan(msgspec.Struct, frozen=True):
    """The plan at one revision, by (source, event).

    An entry that is off has the value None: it overrides the entry for all sources, whose source is empty.
    """

    revision: int
    entries: Mapping[tuple[str, str], PlannedEvent | None] = {}

    def find_event(self, source: str, event: str) -> PlannedEvent | None:
        """Return the entry for this source, or else the entry for all sources; None if neither applies."""
        entries = self.entries
        key = (source, event)
        return entries[key] if key in entries else entries.get((EVERY_SOURCE, event))
