"""Names of events that a vendor calls by a type of its own. Pure."""

from __future__ import annotations

from typing import Any

from app.enrichment.channel import lower_snake


def vendor_event_name(tool: str, kind: Any) -> str:
    """The name of a touchpoint whose event type we do not know: the tool's own, so that it is not lost."""
    return f"{tool}.{lower_snake(str(kind)) or 'other'}"
