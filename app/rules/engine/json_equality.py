"""When two values of JSON are one value: for distinct, most_frequent, ``same`` and changes of traits.

1 and 1.0 are one value, true is no number, and objects are equal whatever the order of their keys.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from datetime import datetime, timedelta
from fractions import Fraction
from hashlib import blake2b
from typing import Any, Final

_EPOCH: Final = datetime(1970, 1, 1)


def equality_key(value: Any) -> Hashable:
    """Equal, and of the same hash, exactly where the values are one. Numbers are ``int``, ``Decimal``, ``Fraction``."""
    if isinstance(value, bool):
        return ("bool", value)  # True equals 1 in Python
    if isinstance(value, list):
        return ("list", tuple(equality_key(item) for item in value))
    if isinstance(value, dict):
        return ("object", frozenset((name, equality_key(item)) for name, item in value.items()))
    assert isinstance(value, Hashable)
    return value


def digest_value(value: Any) -> str:
    """32 characters that are the same, in every process, exactly where ``equality_key`` is; "" for a missing value."""
    if value is None:
        return ""
    return blake2b("".join(_canonical(value)).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _canonical(value: Any) -> Iterator[str]:
    """Text that is one to one with values: what has no fixed end says how long it is."""
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
        # In hexadecimal, because Python refuses to write out very long decimal numbers.
        numerator, denominator = Fraction(value).as_integer_ratio()
        yield f"d{numerator:x}/{denominator:x};"


def format_instant(instant: int) -> str:
    """``1997-10-01T00:00:00.000000Z``: how first_at and last_at give an instant, so that text order is time order."""
    return f"{(_EPOCH + timedelta(microseconds=instant)).isoformat(timespec='microseconds')}Z"
