"""How answers leave: JSON encoded once, instants as RFC 3339, and entity tags for what can be asked again."""

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
"""Of an average that no finite decimal writes out."""


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
    """``content`` with the instant it speaks of. The tag leaves that out: the same state has the same tag."""
    body = encode_json(content)
    tag = f'W/"{blake2b(body, digest_size=12).hexdigest()}"'
    headers = {"etag": tag, "cache-control": "private, no-cache"}
    if is_etag_match(request.headers.get("if-none-match"), tag):
        return Response(None, 304, headers)
    return Response(body[:-1] + b',"as_of":"' + rfc3339(as_of).encode() + b'"}', 200, headers, JSON)


def render_explanation(node: dict[str, Any]) -> dict[str, Any]:
    """The tree of an explanation with its instants as text."""
    return {
        **node,
        "since": format_instant(node["since"]),
        "valid_until": format_instant(node["valid_until"]),
        "nodes": [render_explanation(child) for child in node["nodes"]],
    }


def is_etag_match(if_none_match: str | None, tag: str) -> bool:
    """Whether If-None-Match names this tag."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or tag[2:] in (
        candidate.strip().removeprefix("W/") for candidate in if_none_match.split(",")
    )


def problem_response(error: SegueError) -> Response:
    return Response(encode_json(error.to_problem()), error.status, error.headers, "application/problem+json")


class Cursor(msgspec.Struct, frozen=True):
    """Where the next page begins; what ``place`` holds is the list's own business."""

    as_of: int
    place: list[str | int]


def write_cursor(as_of: int, *place: str | int) -> str:
    return urlsafe_b64encode(msgspec.json.encode(Cursor(as_of, list(place)))).decode().rstrip("=")


def read_cursor(text: str | None, *types: type) -> Cursor | None:
    """Raises :class:`BadRequest` for text that no list of this kind has given out."""
    if text is None:
        return None
    try:
        content = b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        cursor = msgspec.json.decode(content, type=Cursor)
    except ValueError:
        raise BadRequest("The cursor is not one of ours.") from None
    fits = len(cursor.place) == len(types) and all(map(isinstance, cursor.place, types))
    if not fits or any(_is_out_of_range(part) for part in [cursor.as_of, *cursor.place]):
        raise BadRequest("The cursor is not one of this list.")
    return cursor


def _is_out_of_range(part: str | int) -> bool:
    """Beyond what the database can hold: an instant past the year 9999, a NUL."""
    return not 0 <= part <= _INSTANT_MAX if isinstance(part, int) else "\0" in part
