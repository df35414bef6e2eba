"""Parses cells of tables: numbers, days and names of metrics. Pure.

Nothing is guessed: ``03/04/2026`` is rejected unless other dates of the file, or the client, show which part is the
day.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal
from typing import Final

from app.channel_metrics.parsers.metric import NAME_CHARS_MAX, SUBJECT_CHARS_MAX

_ABSENT: Final = frozenset({"", "-", "--", "n/a", "null", "none"})
"""Cells that mean "no value", in lower case."""

_DIGITS_MAX: Final = 40
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
_COMMA_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_POINT_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:\.[0-9]{3})+")
_SLASHED_DATE = re.compile(r"([0-9]{1,2})([/.])([0-9]{1,2})\2([0-9]{4})(?: .*)?")
_ISO = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[T ].*)?")
_COMPACT = re.compile(r"(?:19|20)[0-9]{6}")
_WORDED_DATES: Final = ("%a, %b %d, %Y", "%b %d, %Y", "%d %b %Y")
_NOT_WORD = re.compile(r"[\W_]+")


def is_absent(cell: str) -> bool:
    """Return True if the cell has no value."""
    return cell.strip().lower() in _ABSENT


def parse_number(cell: str, *, grouped: bool) -> Decimal | None:
    """Parse a number; return None if it is invalid or ambiguous. A percent sign is ignored: ``2.5%`` is 2.5.

    If ``grouped`` is True, a comma separates thousands (``1,234``). Otherwise it might be a decimal comma, and numbers
    with a comma are rejected.
    """
    text = cell.strip().removesuffix("%").strip()
    if len(text) > _DIGITS_MAX:
        return None
    if _NUMBER.fullmatch(text):
        return Decimal(text)
    if grouped and _COMMA_THOUSANDS.fullmatch(text):
        return Decimal(text.replace(",", ""))
    return None


def may_be_thousands(cell: str) -> bool:
    """Return True if the points in the cell may separate thousands."""
    return _POINT_THOUSANDS.fullmatch(cell.strip()) is not None


def is_day_first(cells: Iterable[str]) -> bool | None:
    """Return True if dates have the day first, False if they have the month first, None if the cells do not show it.

    One date with a part above 12 decides for the whole file.
    """
    parts = [_split_date(match) for cell in cells if (match := _SLASHED_DATE.fullmatch(cell.strip()))]
    answers = {first > 12 for first, second, _ in parts if (first > 12) != (second > 12)}
    return answers.pop() if len(answers) == 1 else None


def parse_day(cell: str, day_first: bool | None) -> date:
    """Parse a day; raise ValueError with the reason if it is invalid or ambiguous."""
    text = cell.strip()
    if match := _SLASHED_DATE.fullmatch(text):
        return _build_day(text, *_split_date(match), day_first)
    for parse in (_parse_iso_day, _parse_worded_day):
        if (day := parse(text)) is not None:
            return day
    raise ValueError(f"{text[:40]!r} is not a readable day; write it like 2026-05-04")


def build_metric_name(header: str) -> str:
    """Convert a header to a metric name: ``Traffic (%)`` -> ``traffic_percent``. Letters of all scripts are kept.

    Return ``""`` if the header has no letters or digits.
    """
    words = _NOT_WORD.sub("_", header.replace("%", " percent ").lower()).strip("_")
    return words[:NAME_CHARS_MAX].rstrip("_")


def join_subject(*cells: str) -> str:
    """Return the subject of a row (page, post or keyword) as one text."""
    joined = " ".join(cell.strip() for cell in cells if cell.strip())
    return joined.replace("\0", "\ufffd")[:SUBJECT_CHARS_MAX]


def _split_date(match: re.Match[str]) -> tuple[int, int, int]:
    return int(match[1]), int(match[3]), int(match[4])


def _build_day(text: str, first: int, second: int, year: int, day_first: bool | None) -> date:
    if day_first is None and first != second:
        if first <= 12 and second <= 12:
            raise ValueError(f"{text} is ambiguous; set dates=dmy or dates=mdy")
        day_first = first > 12
    month, day = (second, first) if day_first else (first, second)
    try:
        return date(year, month, day)
    except ValueError:
        raise ValueError(f"{text} is not a valid date with the {'day' if day_first else 'month'} first") from None


def _parse_iso_day(text: str) -> date | None:
    match = _ISO.fullmatch(text)
    try:
        return date.fromisoformat(match[1] if match else text) if match or _COMPACT.fullmatch(text) else None
    except ValueError:
        return None


def _parse_worded_day(text: str) -> date | None:
    for form in _WORDED_DATES:
        try:
            return datetime.strptime(text, form).date()
        except ValueError:
            continue
    return None
