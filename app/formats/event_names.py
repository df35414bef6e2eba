"""Names for vendor events that have no equivalent in Segue. Pure."""

from __future__ import annotations

from typing import Any

from app.enrichment.channel import lower_snake


def vendor_event_name(tool: str, kind: Any) -> str:
    """Return ``tool.kind`` in lower snake case, so that an event of an unknown type keeps the tool's name."""
    return f"{tool}.{lower_snake(str(kind)) or 'other'}"
