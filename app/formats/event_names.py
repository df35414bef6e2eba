"""Names for vendor events that have no equivalent in Segue. Pure."""

from __future__ import annotations

from typing import Any

from app.enrichment.channel import lower_snake


def vendor_event_name(tool: str, kind: Any) -> str:
    """Return ``tool.kind`` in lower snake case, so that an unknown event type is stored under the tool's own name."""
    return f"{tool}.{lower_snake(str(kind)) or 'other'}"
