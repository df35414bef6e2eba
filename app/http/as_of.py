"""The ``as_of`` parameter: reads the state at a past instant by replaying the current log up to it."""

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
    "Return the state at this past instant, computed from everything that is known today. RFC 3339 with an offset; "
    "the default is now."
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
"""OpenAPI declaration of ``as_of`` for routes whose parameters FastAPI does not read from the signature."""

# A "+" that the client did not percent-encode arrives as a space; a space before an offset has no other meaning.
_INSTANT_PATTERN: Final = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?)(?:([Zz])|([ +-])(\d\d:\d\d))", re.ASCII
)


_CLOCK_SKEW_MAX: Final = SECOND
"""Tolerance in microseconds for the ``as_of`` of a cursor: the process that wrote it may have a faster clock."""


class AnswerInstant(NamedTuple):
    """The instant that a response describes. ``is_past`` is True if the client requested it with ``as_of``."""

    at: int
    is_past: bool


def parse_as_of(text: str | None, now: int) -> AnswerInstant:
    """Return the requested instant, or ``now`` if ``text`` is None.

    Raise :class:`BadRequest` if the text is not an instant, is in the future, or is before 1970.
    """
    if text is None:
        return AnswerInstant(now, False)
    instant = _parse_instant(text)
    if instant is None:
        raise _build_error("is not an RFC 3339 instant with an offset; use a format such as 1997-01-12T09:30:00Z")
    if instant > now:
        raise _build_error(f"is in the future; the current time is {rfc3339(now)}")
    if instant < 0:
        raise _build_error("is before 1970; the log has no messages from that time")
    return AnswerInstant(instant, True)


def parse_page_as_of(text: str | None, cursor: Cursor | None, now: int) -> AnswerInstant:
    """Parse ``as_of`` for a list. With a cursor, return the instant of the list's first page.

    Raise :class:`BadRequest` if ``as_of`` differs from the cursor's instant.
    """
    requested = parse_as_of(text, now)
    if cursor is None:
        return requested
    if requested.is_past and requested.at != cursor.as_of:
        raise BadRequest(
            "as_of differs from the as_of of the list's first page; omit as_of, or omit the cursor to start a new list."
        )
    if cursor.as_of > now + _CLOCK_SKEW_MAX:
        raise _build_error(f"is in the future; the current time is {rfc3339(now)}")
    return AnswerInstant(cursor.as_of, True)


def _parse_instant(text: str) -> int | None:
    match = _INSTANT_PATTERN.fullmatch(text.strip())
    if match is None:
        return None
    local, utc, sign, offset = match.groups()
    return parse(local + (utc or sign.replace(" ", "+") + offset))


def _build_error(reason: str) -> BadRequest:
    return BadRequest(f"as_of {reason}.", path="as_of")
