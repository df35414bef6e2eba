"""Helpers of the survey connectors: event names, rating scales and NPS groups."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

CHANNEL: Final = "survey"

COMPLETED: Final = "survey.completed"
ANSWERED: Final = "survey.answered"
"""Event name of a partial response: the respondent has not finished, or the tool reports every page."""
NPS: Final = "nps.submitted"
CSAT: Final = "csat.submitted"
CES: Final = "ces.submitted"
REVIEW: Final = "review.submitted"

NPS_SCALE: Final = 10

_PROMOTERS_FROM: Final = 9
_PASSIVES_FROM: Final = 7


def build_nps_properties(rating: Any) -> dict[str, Any]:
    """Return the properties ``rating``, ``scale`` and ``group`` for an answer from 0 to 10; empty for any other value.

    The group is promoter (9 and 10), passive (7 and 8) or detractor.
    """
    number = parse_rating(rating)
    if number is None or not 0 <= number <= NPS_SCALE:
        return {}
    return {"rating": number, "scale": NPS_SCALE, "group": _classify_nps(number)}


def _classify_nps(rating: int | Decimal) -> str:
    if rating >= _PROMOTERS_FROM:
        return "promoter"
    return "passive" if rating >= _PASSIVES_FROM else "detractor"


def parse_rating(value: Any) -> int | Decimal | None:
    """Return a rating as a number, also from text of up to three digits; None for any other value."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | Decimal):
        return value
    if isinstance(value, str) and (digits := value.strip()).isdecimal() and len(digits) <= 3:
        return int(digits)
    return None


def find_first_member(members: Any, *names: str) -> Any:
    """Return the first non-empty value of the fields ``names``; None if there is no such value."""
    if not isinstance(members, dict):
        return None
    return next((members[name] for name in names if members.get(name) not in (None, "")), None)


def list_objects(value: Any) -> list[dict[str, Any]]:
    """Return the objects in a list; an empty list if the value is not a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def is_truthy(option: Any) -> bool:
    """Return whether a source's option is on: ``1``, ``on``, ``true`` or ``yes``."""
    return isinstance(option, str) and option.strip().lower() in ("1", "on", "true", "yes")
