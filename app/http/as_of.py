"""``as_of``: the instant of the past that a read is asked about. Answers replay today's log up to it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, NamedTuple

from fastapi import Query

from app.errors import BadRequest
from app.formats.timestamps import parse, rfc3339
from app.http.responses import Cursor
from app.http.schema_types import EXAMPLE_INSTANT
from app.touchpoint import SECOND

_DESCRIPTION: Final = (
    "What was true at this instant of the past, given all that is known today; RFC 3339 with an offset. Now, when left "
    "out."
)

AsOf = Annotated[str | None, Query(description=_DESCRIPTION, examples=[EXAMPLE_INSTANT])]

AS_OF_PARAMETER: Final[dict[str, Any]] = {
    "name": "as_of",
    "in": "query",
    "required": False,
    "description": _DESCRIPTION,
    "schema": {"anyOf": [{"type": "string"}, {"type": "null"}], "title": "As Of"},
    "example": EXAMPLE_INSTANT,
}
"""For routes that are declared by hand."""

# A + that nobody encoded arrives as a space, and can have meant nothing else.
_INSTANT_PATTERN: Final = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?)(?:([Zz])|([ +-])(\d\d:\d\d))", re.ASCII
)


_CLOCK_SKEW_MAX: Final = SECOND
"""Another process may have begun the list whose clock is ahead of this one's by as much as a round trip."""


class AnswerInstant(NamedTuple):
    """The instant an answer speaks of, and whether it was asked for."""

    at: int
    is_past: bool


def parse_as_of(text: str | None, now: int) -> AnswerInstant:
    """Raises :class:`BadRequest` for what is no instant, lies in the future, or before 1970."""
    if text is None:
        return AnswerInstant(now, False)
    instant = _parse_instant(text)
    if instant is None:
        raise _build_error("is no RFC 3339 instant with an offset; write one such as 1997-01-12T09:30:00Z")
    if instant > now:
        raise _build_error(f"lies in the future; it is {rfc3339(now)}")
    if instant < 0:
        raise _build_error("lies before 1970, and nothing is known of that time")
    return AnswerInstant(instant, True)


def parse_page_as_of(text: str | None, cursor: Cursor | None, now: int) -> AnswerInstant:
    """The same for a list: a cursor keeps the instant of its first page."""
    requested = parse_as_of(text, now)
    if cursor is None:
        return requested
    if requested.is_past and requested.at != cursor.as_of:
        raise BadRequest("The cursor keeps the as_of of its first page; leave as_of out, or begin again without it.")
    if cursor.as_of > now + _CLOCK_SKEW_MAX:
        raise _build_error(f"lies in the future; it is {rfc3339(now)}")
    return AnswerInstant(cursor.as_of, True)


def _parse_instant(text: str) -> int | None:
    match = _INSTANT_PATTERN.fullmatch(text.strip())
    if match is None:
        return None
    local, utc, sign, offset = match.groups()
    return parse(local + (utc or sign.replace(" ", "+") + offset))


def _build_error(reason: str) -> BadRequest:
    return BadRequest(f"as_of {reason}.", path="as_of")
