"""Checks and repairs of JSON text before it is parsed, and before PostgreSQL stores it. Pure.

Each check has a cheap test that nearly every message passes (a search or a count in C), and an exact test for the
rest. A repair keeps the length of the text, so that the original is at the same offset.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

import msgspec

from app.errors import InvalidBody
from app.formats.steps import Steps, at_once

DIGITS_MAX: Final = 400
"""Maximum number of digits of a number when written out (1e399 has 400). It limits the cost of exact sums."""

VALUES_MAX: Final = 200_000
"""Maximum number of commas in one body, which bounds the number of its values: each costs 0.2 us and 80 bytes."""

_RAW_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ANY = msgspec.json.Decoder()
_ENCODER = msgspec.json.Encoder()

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)
_BRACKETS_MAX: Final = 200_000
_STRINGS_PER_STEP: Final = 2_000

_HIGH = rb"\\u[dD][89abAB][0-9a-fA-F]{2}"
_LOW = rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_LONE_SURROGATE = re.compile(_HIGH + rb"(?!" + _LOW + rb")|(?<!" + _HIGH + rb")" + _LOW)
_START_OF_SURROGATE = re.compile(_HIGH + rb"|(?<!" + _HIGH + rb")" + _LOW)
"""Place where a text can be divided without dividing a pair of surrogates."""
_SURROGATES_PIECE_BYTES: Final = 32_768
_ESCAPED_BACKSLASH: Final = rb"\\"
_MASK: Final = b"\xff\xff"
"""Placeholder for an escaped backslash, so that every remaining backslash starts an escape. It is never valid UTF-8."""

MARK_INVALID: Final = "segue.mark_invalid_utf8"
"""Error handler for ``bytes.decode`` that marks invalid bytes as :func:`mark_invalid_utf8` does."""
_INVALID_BYTES_MAX: Final = 10_000
"""Maximum number of marked bytes, because a mark takes six bytes. A body with more has another encoding."""
_MARK_START: Final = b"\xef\xb7"
_MARK = re.compile(rb"\xef\xb7([\x90-\x97])\xef\xb7([\x98-\xa7])")
"""Pair of noncharacters, U+FDD0..U+FDD7 and U+FDD8..U+FDE7, for the high and low half of a byte from 0x80.

Unicode reserves noncharacters for internal use, so no client sends this pair.
"""

_NUMBER = re.compile(rb"-?([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")
_SHAPES = bytes(
    ord("0") if char in b"0123456789" else ord("e") if char in b"eE" else ord("-") if char in b"+-" else ord(" ")
    for char in range(256)
)
_LONG_EXPONENTS: Final = (b"0e000", b"0e-000")
_LONG_DIGITS: Final = b"0" * 150
"""Shortest run of digits that needs the exact test.

A number with two shorter runs and a two-digit exponent has at most DIGITS_MAX digits.
"""


def as_utf8(body: bytes) -> bytes:
    """Return the body as UTF-8, without byte order mark and outer whitespace. Bytes that are not UTF-8 are marked.

    Raise InvalidBody if it is empty, or has more than ``_INVALID_BYTES_MAX`` bytes that are not UTF-8.
    """
    body = body.removeprefix(b"\xef\xbb\xbf").strip(b" \t\r\n")
    if not body:
        raise InvalidBody("The body is empty; send a JSON object.")
    return mark_invalid_utf8(body)


def mark_invalid_utf8(text: bytes) -> bytes:
    """Return the text with each byte that is not UTF-8 replaced by a mark, so that parsers can read the rest.

    :func:`is_marked` finds the marks, wherever a parser copies the text, and :func:`unmark` restores the bytes. Raise
    InvalidBody if the text has more than ``_INVALID_BYTES_MAX`` such bytes.
    """
    if text.isascii():
        return text
    try:
        text.decode()
    except UnicodeDecodeError as error:
        if len(text) - len(text.decode("utf-8", "ignore").encode()) > _INVALID_BYTES_MAX:
            raise InvalidBody(f"The body is not UTF-8: {error.reason} at byte {error.start}.") from None
        return text.decode("utf-8", MARK_INVALID).encode()
    return text


def is_marked(text: bytes) -> bool:
    """Return whether the text has a mark of :func:`mark_invalid_utf8`."""
    return _MARK_START in text and _MARK.search(text) is not None


def unmark(text: bytes) -> bytes:
    """Return the text as sent: each mark of :func:`mark_invalid_utf8` becomes the byte that it replaced."""
    return _MARK.sub(_decode_mark, text) if _MARK_START in text else text


def refuse_json(text: bytes, error: Exception) -> InvalidBody:
    """Return the exception for a body that a JSON parser refused with ``error``."""
    if is_marked(text):
        return InvalidBody("The body is not UTF-8, or not valid JSON.")
    return InvalidBody(f"The body is not valid JSON: {error}.")


def refuse_dense(body: bytes) -> None:
    """Raise InvalidBody if parsing this JSON, or its lines, would create too many values. It costs 1 ms at most."""
    if len(body) > VALUES_MAX and body.count(b",") + body.count(b"\n") > VALUES_MAX:
        raise InvalidBody(f"The body has more than {VALUES_MAX} values or lines; split it into several requests.")


def replace_lone_surrogates_in_steps(body: bytes) -> Steps[bytes]:
    """Return the JSON with each lone surrogate escape replaced by ``\\u0000``.

    msgspec rejects a whole body that has one lone surrogate. NUL is handled in the same way as a lone surrogate
    (rejected in an id, replaced by U+FFFD in a property), so after the replacement only the one message is affected.
    """
    if b"\\ud" not in body and b"\\uD" not in body:
        return body
    masked = body.replace(_ESCAPED_BACKSLASH, _MASK)
    pieces: list[bytes] = []
    start = 0
    while start < len(masked):
        yield
        cut = _START_OF_SURROGATE.search(masked, start + _SURROGATES_PIECE_BYTES)
        end = len(masked) if cut is None else cut.start()
        pieces.append(_LONE_SURROGATE.sub(rb"\\u0000", masked[start:end]))
        start = end
    yield
    return b"".join(pieces).replace(_MASK, _ESCAPED_BACKSLASH)


replace_lone_surrogates = at_once(replace_lone_surrogates_in_steps)


def replace_nul(raw: bytes) -> bytes:
    """Return the JSON with NUL replaced by U+FFFD, in keys too, because PostgreSQL cannot store NUL in text."""
    if b"\\u0000" not in raw:
        return raw
    masked = raw.replace(_ESCAPED_BACKSLASH, _MASK)
    return masked.replace(b"\\u0000", b"\\ufffd").replace(_MASK, _ESCAPED_BACKSLASH)


def is_deeper(raw: bytes, levels: int) -> bool:
    """Return whether this valid JSON nests objects and arrays more than ``levels`` deep."""
    if raw.count(b"{") + raw.count(b"[") <= levels:
        return False
    brackets = _STRING.sub(b"", raw).translate(_ONE_KIND_OF_BRACKET, _NO_BRACKETS)
    for _ in range(levels):  # Each pass removes the innermost level.
        brackets = brackets.replace(b"{}", b"")
    return bool(brackets)


def truncate_depth_in_steps(body: bytes, levels: int) -> Steps[bytes]:
    """Replace everything below level ``levels`` + 1 by spaces, so that a recursive parser can read the body.

    One level more than ``levels`` remains. So :func:`is_deeper` still rejects the message that was truncated, and only
    that message. Raise InvalidBody if the body has too many brackets.
    """
    if body.count(b"{") + body.count(b"[") > _BRACKETS_MAX:
        raise InvalidBody("The body is nested too deeply.")
    truncated = bytearray(body)
    depth = start = 0
    for number, match in enumerate(_STRING_OR_BRACKET.finditer(body)):
        if number % _STRINGS_PER_STEP == 0:
            yield
        bracket = match[0]
        if bracket in (b"{", b"["):
            depth += 1
            if depth == levels + 1:
                start = match.end()
        elif bracket in (b"}", b"]"):
            if depth == levels + 1:
                truncated[start : match.start()] = b" " * (match.start() - start)
            depth -= 1
    return bytes(truncated)


truncate_depth = at_once(truncate_depth_in_steps)


def may_hold_long_number(raw: bytes) -> bool:
    """Return True if :func:`holds_long_number` could return True. This test is much cheaper."""
    shapes = raw.translate(_SHAPES)
    return _LONG_EXPONENTS[0] in shapes or _LONG_EXPONENTS[1] in shapes or _LONG_DIGITS in shapes


def holds_long_number(raw: bytes) -> bool:
    """Return whether a number in this valid JSON needs more than DIGITS_MAX digits when written out."""
    return any(_count_digits(*match.groups(b"")) > DIGITS_MAX for match in _NUMBER.finditer(_STRING.sub(b"", raw)))


def decode_text(raw: bytes) -> str | None:
    """Return the content of a JSON string; None for any other JSON value."""
    if raw[:1] != b'"':
        return None
    return str(_ANY.decode(raw)) if b"\\" in raw else raw[1:-1].decode()


def decode_members(raw: bytes) -> dict[str, bytes]:
    """Return the fields of a JSON object, with values as JSON text. A duplicate key has its last value."""
    return {name: bytes(value) for name, value in _RAW_FIELDS.decode(raw).items()}


def encode_members(members: dict[str, bytes]) -> bytes:
    return _ENCODER.encode({name: msgspec.Raw(value) for name, value in members.items()})


def find_originals(items: list[bytes], readable: bytes, sent: bytes) -> list[bytes]:
    """Return the original text of each item. ``items`` are consecutive parts of the repaired text ``readable``."""
    originals, offset = [], 0
    for raw in items:
        offset = readable.find(raw, offset)
        originals.append(sent[offset : offset + len(raw)])
        offset += len(raw)
    return originals


def add_missing(raw: bytes, defaults: dict[str, bytes]) -> bytes:
    """Return the JSON object with ``defaults`` for fields that are missing or null."""
    present = decode_members(raw)
    missing = {key: value for key, value in defaults.items() if present.get(key, b"null") == b"null"}
    return encode_members(present | missing)


_NO_BRACKETS: Final = bytes(char for char in range(256) if char not in b"{}[]")
_ONE_KIND_OF_BRACKET: Final = bytes.maketrans(b"[]", b"{}")


def _decode_mark(mark: re.Match[bytes]) -> bytes:
    return bytes((0x80 + (mark[1][0] - 0x90) * 16 + mark[2][0] - 0x98,))


def _mark_invalid(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    invalid = error.object[error.start : error.end]
    return "".join(chr(0xFDC8 + (byte >> 4)) + chr(0xFDD8 + (byte & 15)) for byte in invalid), error.end


codecs.register_error(MARK_INVALID, _mark_invalid)


def _count_digits(whole: bytes, fraction: bytes, exponent: bytes) -> int:
    if len(exponent) > 7:
        return DIGITS_MAX + 1
    shift = int(exponent or b"0")
    return max(len(whole) + shift, 1) + max(len(fraction) - shift, 0)
