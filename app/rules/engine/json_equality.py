"""Equality of JSON values, for ``distinct``, ``most_frequent``, ``same`` and changes of traits.

1 equals 1.0. True does not equal 1. Objects are equal if they have the same keys and values in any order.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from datetime import datetime, timedelta
from fractions import Fraction
from hashlib import blake2b
from typing import Any, Final

_EPOCH: Final = datetime(1970, 1, 1)


def equality_key(value: Any) -> Hashable:
    """Return a hashable key that is equal for equal JSON values, and only for those.

    Numbers must be ``int``, ``Decimal`` or ``Fraction``.
    """
    if isinstance(value, bool):
        return ("bool", value)  # In Python, True equals 1.
    if isinstance(value, list):
        return ("list", tuple(equality_key(item) for item in value))
    if isinstance(value, dict):
        return ("object", frozenset((name, equality_key(item)) for name, item in value.items()))
    assert isinstance(value, Hashable)
    return value


def digest_value(value: Any) -> str:
    """Return 32 hexadecimal digits that are equal for equal JSON values, in every process; "" for a missing value."""
    if value is None:
        return ""
    return blake2b("".join(_canonical(value)).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _canonical(value: Any) -> Iterator[str]:
    """Yield the parts of an unambiguous text form of the value: texts, lists and objects start with their length."""
    if value is None:
        yield "n"
    elif isinstance(value, bool):
        yield "t" if value else "f"
    elif isinstance(value, str):
        yield f"s{len(value)}:{value}"
    elif isinstance(value, list):
        yield f"l{len(value)}:"
        for item in value:
            yield from _canonical(item)
    elif isinstance(value, dict):
        yield f"o{len(value)}:"
        for name in sorted(value):
            yield from _canonical(name)
            yield from _canonical(value[name])
    else:
        # Hexadecimal, because Python limits the conversion of very long numbers to decimal text.
        numerator, denominator = Fraction(value).as_integer_ratio()
        yield f"d{numerator:x}/{denominator:x};"


def format_instant(instant: int) -> str:
    """Return the instant as text such as ``1997-10-01T00:00:00.000000Z``, which sorts in order of time."""
    return f"{(_EPOCH + timedelta(microseconds=instant)).isoformat(timespec='microseconds')}Z"
