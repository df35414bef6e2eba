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

PARAMETER: Final[dict[str, Any]] = {
    "name": "as_of",
    "in": "query",
    "required": False,
    "description": _DESCRIPTION,
    "schema": {"anyOf": [{"type": "string"}, {"type": "null"}], "title": "As Of"},
    "example": EXAMPLE_INSTANT,
}
"""For routes that are declared by hand."""

# A + that nobody encoded arrives as a space, and can have meant nothing else.
_INSTANT: Final = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?)(?:([Zz])|([ +-])(\d\d:\d\d))", re.ASCII
)


_CLOCKS_APART: Final = SECOND
"""Another process may have begun the list whose clock is ahead of this one's by as much as a round trip."""


class AnswerInstant(NamedTuple):
    """The instant an answer speaks of, and whether it was asked for."""

    at: int
    is_past: bool


def answer_instant(text: str | None, now: int) -> AnswerInstant:
    """Raises :class:`BadRequest` for what is no instant, lies in the future, or before 1970."""
    if text is None:
        return AnswerInstant(now, False)
    instant = _read(text)
    if instant is None:
        raise _refused("is no RFC 3339 instant with an offset; write one such as 1997-01-12T09:30:00Z")
    if instant > now:
        raise _refused(f"lies in the future; it is {rfc3339(now)}")
    if instant < 0:
        raise _refused("lies before 1970, and nothing is known of that time")
    return AnswerInstant(instant, True)


def answer_instant_of_page(text: str | None, begin: Cursor | None, now: int) -> AnswerInstant:
    """The same for a list: a cursor keeps the instant of its first page."""
    asked = answer_instant(text, now)
    if begin is None:
        return asked
    if asked.is_past and asked.at != begin.as_of:
        raise BadRequest("The cursor keeps the as_of of its first page; leave as_of out, or begin again without it.")
    if begin.as_of > now + _CLOCKS_APART:
        raise _refused(f"lies in the future; it is {rfc3339(now)}")
    return AnswerInstant(begin.as_of, True)


def _read(text: str) -> int | None:
    match = _INSTANT.fullmatch(text.strip())
    if match is None:
        return None
    local, utc, sign, offset = match.groups()
    return parse(local + (utc or sign.replace(" ", "+") + offset))


def _refused(reason: str) -> BadRequest:
    return BadRequest(f"as_of {reason}.", path="as_of")
