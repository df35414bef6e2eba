"""Response encoding: JSON, instants as RFC 3339, entity tags, problem details and list cursors."""

from __future__ import annotations

from base64 import b64decode, urlsafe_b64encode
from decimal import Context, Decimal
from fractions import Fraction
from hashlib import blake2b
from typing import Any, Final
from uuid import UUID

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from app.errors import BadRequest, SegueError
from app.formats.timestamps import rfc3339

JSON: Final = "application/json"
_INSTANT_MAX: Final = 253_402_300_799_999_999

_DIGITS: Final = Context(prec=34)
"""Precision of an average that has no finite decimal representation."""


def _encode_fraction(value: object) -> Decimal:
    if isinstance(value, Fraction):
        return _DIGITS.divide(Decimal(value.numerator), Decimal(value.denominator))
    raise NotImplementedError(type(value).__name__)


encode_json = msgspec.json.Encoder(decimal_format="number", enc_hook=_encode_fraction).encode


def format_instant(value: int | None) -> str | None:
    return None if value is None else rfc3339(value)


def format_uuid(id: bytes) -> str:
    return str(UUID(bytes=id))


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(encode_json(content), status, headers, JSON)


def etag_response(request: Request, content: dict[str, Any], as_of: int) -> Response:
    """Return ``content`` with ``as_of`` and an ETag, or 304 if the client has that ETag.

    The ETag does not cover ``as_of``, so that the same state always has the same ETag.
    """
    body = encode_json(content)
    tag = f'W/"{blake2b(body, digest_size=12).hexdigest()}"'
    headers = {"etag": tag, "cache-control": "private, no-cache"}
    if is_etag_match(request.headers.get("if-none-match"), tag):
        return Response(None, 304, headers)
    return Response(body[:-1] + b',"as_of":"' + rfc3339(as_of).encode() + b'"}', 200, headers, JSON)


def render_explanation(node: dict[str, Any]) -> dict[str, Any]:
    """Return the tree of an explanation with its instants in RFC 3339."""
    return {
        **node,
        "since": format_instant(node["since"]),
        "valid_until": format_instant(node["valid_until"]),
        "nodes": [render_explanation(child) for child in node["nodes"]],
    }


def is_etag_match(if_none_match: str | None, tag: str) -> bool:
    """Return whether the If-None-Match header contains this tag; the comparison is weak (RFC 9110)."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or tag[2:] in (
        candidate.strip().removeprefix("W/") for candidate in if_none_match.split(",")
    )


def problem_response(error: SegueError) -> Response:
    return Response(encode_json(error.to_problem()), error.status, error.headers, "application/problem+json")


class Cursor(msgspec.Struct, frozen=True):
    """Position of the next page. Each list route defines its ``place``; ``as_of`` is that of the first page."""

    as_of: int
    place: list[str | int]


def write_cursor(as_of: int, *place: str | int) -> str:
    return urlsafe_b64encode(msgspec.json.encode(Cursor(as_of, list(place)))).decode().rstrip("=")


def read_cursor(text: str | None, *types: type) -> Cursor | None:
    """Decode a cursor whose ``place`` has these types. Raise :class:`BadRequest` if it is not a cursor of this list."""
    if text is None:
        return None
    try:
        content = b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        cursor = msgspec.json.decode(content, type=Cursor)
    except ValueError:
        raise BadRequest("The cursor is invalid; use next_cursor of the previous page.") from None
    fits = len(cursor.place) == len(types) and all(map(isinstance, cursor.place, types))
    if not fits or any(_is_out_of_range(part) for part in [cursor.as_of, *cursor.place]):
        raise BadRequest("The cursor belongs to another list; use next_cursor of the previous page.")
    return cursor


def _is_out_of_range(part: str | int) -> bool:
    """Return whether PostgreSQL cannot store the value: an instant after the year 9999, or text with NUL."""
    return not 0 <= part <= _INSTANT_MAX if isinstance(part, int) else "\0" in part
