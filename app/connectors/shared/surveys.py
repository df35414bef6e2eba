"""What surveys of every tool have in common: names of what was asked, scales, and groups of the NPS. Pure."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

CHANNEL: Final = "survey"

COMPLETED: Final = "survey.completed"
ANSWERED: Final = "survey.answered"
"""A part of it: somebody has not come to its end, or the tool tells of each page."""
NPS: Final = "nps.submitted"
CSAT: Final = "csat.submitted"
CES: Final = "ces.submitted"
REVIEW: Final = "review.submitted"

NPS_SCALE: Final = 10

_PROMOTERS_FROM: Final = 9
_PASSIVES_FROM: Final = 7


def build_nps_properties(rating: Any) -> dict[str, Any]:
    """``rating``, ``scale`` and ``group`` (promoter, passive, detractor) of an answer from 0 to 10; else nothing."""
    number = parse_rating(rating)
    if number is None or not 0 <= number <= NPS_SCALE:
        return {}
    return {"rating": number, "scale": NPS_SCALE, "group": _classify_nps(number)}


def _classify_nps(rating: int | Decimal) -> str:
    if rating >= _PROMOTERS_FROM:
        return "promoter"
    return "passive" if rating >= _PASSIVES_FROM else "detractor"


def parse_rating(value: Any) -> int | Decimal | None:
    """A rating as a number; tools send it as text too. Anything else is None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | Decimal):
        return value
    if isinstance(value, str) and (digits := value.strip()).isdecimal() and len(digits) <= 3:
        return int(digits)
    return None


def find_first_member(members: Any, *names: str) -> Any:
    """The first of these members that says something; None if none does, or if there are no members."""
    if not isinstance(members, dict):
        return None
    return next((members[name] for name in names if members.get(name) not in (None, "")), None)


def list_objects(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; anything else in it is left out."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def is_truthy(option: Any) -> bool:
    """Whether an option of a source says yes."""
    return isinstance(option, str) and option.strip().lower() in ("1", "on", "true", "yes")
