"""Compiled tracking plan, for checks of messages. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from app.tracking_plan.event_schema import EnforcedMode, SchemaCheck

EVERY_SOURCE: Final = ""


class PlannedEvent(msgspec.Struct, frozen=True):
    """A compiled entry of the tracking plan."""

    mode: EnforcedMode
    check: SchemaCheck


class Plan(msgspec.Struct, frozen=True):
    """The compiled tracking plan at one revision, with its entries by (source, event).

    The source is empty for an entry that applies to all sources; an entry for one source takes precedence over it. None
    is the value of an entry with the mode ``off``.
    """

    revision: int
    entries: Mapping[tuple[str, str], PlannedEvent | None] = {}

    def find_event(self, source: str, event: str) -> PlannedEvent | None:
        """Return the entry for this source, or else the entry for all sources; None if neither applies."""
        entries = self.entries
        key = (source, event)
        return entries[key] if key in entries else entries.get((EVERY_SOURCE, event))
