"""Timestamp parsing and formatting: text and numbers to and from integer microseconds since the epoch. Pure.

It is exact, without floats. The accepted forms are RFC 3339 and common variants: a space instead of T, no offset (UTC),
``+0000``, a date alone, and one to nine fractional digits, truncated to microseconds. Epoch numbers are accepted too,
also as text; their magnitude determines the unit. All other text is unreadable, including leap seconds and years
outside 1-9999; the result is then None.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import ROUND_FLOOR, Context, Decimal
from typing import Final

from app.formats import json_text

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST: Final = -62_135_596_800_000_000
_LATEST: Final = 253_402_300_799_999_999
_TEXT_CHARS_MAX: Final = 64
_EXACT: Final = Context(prec=200)

_ISO = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt ]((?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:[.,][0-9]{1,9})?)?)"
    r" ?(Z|z|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?)?)?"
)
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")
_UTC_NAMES: Final = (None, "Z", "z", "UTC", "GMT")
_POWERS: Final = ((Decimal("1e17"), -3), (Decimal("1e14"), 0), (Decimal("1e11"), 3))
"""(Minimum magnitude, power of ten from the unit to microseconds) for ns, us and ms; smaller numbers are seconds."""


def parse(text: str) -> int | None:
    """Return microseconds since the epoch, or None if the text is not an instant of the years 1-9999."""
    text = text.strip()
    if len(text) > _TEXT_CHARS_MAX:
        return None
    if match := _ISO.fullmatch(text):
        return _parse_iso(*match.groups())
    return _parse_epoch(text) if _NUMBER.fullmatch(text) else None


def rfc3339(instant: int) -> str:
    """Format as ``2026-05-04T10:00:00.000000Z``, always with six fractional digits."""
    return (_EPOCH + timedelta(microseconds=instant)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_claimed(raw: bytes) -> tuple[str | None, int | None]:
    """Parse a JSON value as an instant.

    Return its text, or None if it is absent, and microseconds since the epoch, or None if it is unreadable.
    """
    text = json_text.decode_text(raw)
    if text is None:
        text = "" if raw == b"null" else raw.decode()
    if not text or text.isspace():
        return None, None
    return text[:_TEXT_CHARS_MAX].replace("\0", "\ufffd"), parse(text)


def _parse_iso(date: str, time: str | None, offset: str | None) -> int | None:
    try:
        moment = datetime.fromisoformat(f"{date}T{time or '00:00'}{'+00:00' if offset in _UTC_NAMES else offset}")
    except ValueError:
        return None
    since = moment - _EPOCH
    return _check_range((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds)


def _parse_epoch(text: str) -> int | None:
    number = Decimal(text)
    size = abs(number)
    if size > Decimal("1e21"):
        return None
    power = next((power for least, power in _POWERS if size >= least), 6)
    return _check_range(int(number.scaleb(power, _EXACT).to_integral_value(ROUND_FLOOR, _EXACT)))


def _check_range(instant: int) -> int | None:
    return instant if _EARLIEST <= instant <= _LATEST else None
