"""Helpers of the help desk connectors: ticket status changes, satisfaction ratings and text without markup."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from html.parser import HTMLParser
from typing import Any, Final

from app.connectors.adapter import TEXT_CHARS_MAX
from app.vocabulary.ticket_events import REOPENED, SOLVED, STATUS_CHANGED, status_of

CHANNEL: Final = "support"

_SCALE_MAX: Final = 5
"""Best rating on the scale from 1 to 5. Ratings of all tools are converted to it, so that a rule works for all."""
_RATING_WORDS: Final = {
    "great": 5,
    "good": 5,
    "satisfied": 5,
    "happy": 5,
    "positive": 5,
    "okay": 3,
    "ok": 3,
    "neutral": 3,
    "bad": 1,
    "not good": 1,
    "dissatisfied": 1,
    "unhappy": 1,
    "unsatisfied": 1,
    "negative": 1,
}
_UNRATED: Final = frozenset({"offered", "unoffered", ""})
_MARKUP_CHARS_MAX: Final = 8 * TEXT_CHARS_MAX
_BLOCKS: Final = frozenset({"br", "p", "div", "li", "tr", "h1", "h2", "h3", "blockquote"})
_UNSEEN: Final = frozenset({"script", "style", "head"})
_WHITE = re.compile(r"[^\S\n]+")


def as_object(value: Any) -> dict[str, Any]:
    """Return the value if it is an object, else an empty object, because tools omit fields or send null."""
    return value if isinstance(value, dict) else {}


def get_first_object(value: Any) -> dict[str, Any]:
    """Return the first item of a list if it is an object, else an empty object."""
    return as_object(value[0]) if isinstance(value, list) and value else {}


def as_text_id(value: Any) -> str | None:
    """Return an id as text, from a number or a text; None if it is missing or empty."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value).strip() or None


def as_status_word(value: Any) -> str | None:
    return value.strip().lower() or None if isinstance(value, str) else None


def classify_status_change(status: str | None, previous: str | None) -> str:
    """Return the event name of a status change. Closing a solved ticket is not a second ``ticket.solved``."""
    now, before = status_of(status), status_of(previous)
    if now == "solved" and before != "solved":
        return SOLVED
    if now == "open" and before == "solved":
        return REOPENED
    return STATUS_CHANGED


def build_csat_properties(rating: Any, scale: Any = None) -> dict[str, Any]:
    """Return the properties ``rating`` (from 1 to 5), ``scale`` (always 5) and ``rated`` (the value from the tool).

    Return an empty dict if the rating is invalid. The parameter ``scale`` is the best possible rating of the tool, 5 by
    default. A word such as "good" or "bad" is a rating too.
    """
    of_five = (
        _parse_rating_word(rating)
        if isinstance(rating, str) and not _is_number(rating)
        else _scale_rating(rating, scale)
    )
    return {} if of_five is None else {"rating": of_five, "scale": _SCALE_MAX, "rated": rating}


def strip_markup(markup: Any) -> str | None:
    """Return plain text, without the markup if the value is HTML; None if it is not a string."""
    if not isinstance(markup, str):
        return None
    if "<" not in markup and "&" not in markup:
        return markup.strip()
    reader = _TextExtractor()
    reader.feed(markup[:_MARKUP_CHARS_MAX])
    reader.close()
    lines = (_WHITE.sub(" ", line).strip() for line in "".join(reader.parts).split("\n"))
    return "\n".join(line for line in lines if line)


class _TextExtractor(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self._unseen += tag in _UNSEEN
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._unseen -= tag in _UNSEEN and self._unseen > 0
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.parts.append(data)


def _is_number(text: str) -> bool:
    return text.strip().lstrip("-").replace(".", "", 1).isdecimal()


def _parse_rating_word(rating: str) -> int | None:
    """Return the rating for a word, which may be followed by more: "Good, I'm satisfied", "bad_with_comment"."""
    text = " ".join(re.split(r"[\W_]+", rating.lower())).strip()
    if text in _UNRATED:
        return None
    return next((value for word, value in _RATING_WORDS.items() if text == word or text.startswith(word + " ")), None)


def _scale_rating(rating: Any, scale: Any) -> int | Decimal | None:
    number, number_max = _parse_decimal(rating), _parse_decimal(_SCALE_MAX if scale is None else scale)
    if number is None or number_max is None or not 1 <= number <= number_max or number_max < 2:
        return None
    of_five = 1 + (number - 1) * (_SCALE_MAX - 1) / (number_max - 1)
    rounded = of_five.quantize(Decimal("0.01"), ROUND_HALF_EVEN)
    return int(rounded) if rounded == int(rounded) else rounded.normalize()


def _parse_decimal(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        return None
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() and abs(number) < 1_000 else None
