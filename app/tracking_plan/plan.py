"""The tracking plan as messages are checked against it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from app.tracking_plan.event_schema import EnforcedMode, SchemaCheck

EVERY_SOURCE: Final = ""


class PlannedEvent(msgspec.Struct, frozen=True):
    """An entry as messages meet it."""

    mode: EnforcedMode
    check: SchemaCheck


class Plan(msgspec.Struct, frozen=True):
    """The plan at one revision, by (source, event); entries that are off stand in it, for they hide those of ""."""

    revision: int
    entries: Mapping[tuple[str, str], PlannedEvent | None] = {}

    def find_event(self, source: str, event: str) -> PlannedEvent | None:
        """The source's own entry before that of every source; None where there is nothing to ask."""
        entries = self.entries
        key = (source, event)
        return entries[key] if key in entries else entries.get((EVERY_SOURCE, event))
