"""Parser of exact numbers, with a limit on their digits."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Final

DIGITS_MAX: Final = 400
"""Maximum number of digits of a number written without an exponent. Ingestion refuses longer numbers."""

Number = int | Decimal

_JSON_NUMBER: Final = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?)([0-9]+))?")


def parse_json_number(text: str) -> Number | None:
    """Return the number in ``text``, or ``None`` if it is not a JSON number.

    ``None`` is also returned for a number with more than 400 digits when written without an exponent.
    """
    match = _JSON_NUMBER.fullmatch(text)
    if match is None:
        return None
    sign, whole, fraction, exponent_sign, exponent_digits = match.groups(default="")
    exponent_digits = exponent_digits.lstrip("0")
    if len(exponent_digits) > 4 or len(whole) + len(fraction) > DIGITS_MAX:
        return None
    if not fraction and not exponent_digits:
        return int(sign + whole)
    exponent = int(f"{exponent_sign}{exponent_digits or 0}")
    number = Decimal(f"{sign}{whole}{fraction}E{exponent - len(fraction)}")
    return number if count_digits(number) <= DIGITS_MAX else None


def count_digits(number: Number) -> int:
    """Return the number of digits of the number when written without an exponent: 4 for 1e3, and 4 for 0.001."""
    if isinstance(number, int):
        return len(str(abs(number))) if number.bit_length() <= 4_000 else DIGITS_MAX * 3
    _, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    if exponent >= 0:
        return len(digits) + exponent
    return max(len(digits), 1 - exponent)


def as_number(value: Any) -> Number | None:
    """Return the number that ``gt`` and similar operators compare: the value, or the number in a text; or ``None``."""
    kind = type(value)
    if kind is int or kind is Decimal:
        return value  # type: ignore[no-any-return]
    if kind is str:
        return parse_json_number(value)
    return None
