"""Encoding of property values in a series: compact, and exact when stored as MessagePack.

64-bit whole numbers and booleans are stored as they are. Every other value becomes text, whose first letter is its
type: ``s`` for text, ``n`` for another number, ``j`` for the JSON of an array or object.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import msgspec

PackedValue = int | bool | str | None

_SMALL: Final = 1 << 63
_encode: Final = msgspec.json.Encoder(decimal_format="number").encode
_decode: Final = msgspec.json.Decoder(float_hook=Decimal).decode


def pack_value(value: Any) -> PackedValue:
    """Encode a value; ``None`` (a missing value) stays ``None``."""
    kind = type(value)
    if kind is str:
        return f"s{value}"
    if value is None or kind is bool or (kind is int and -_SMALL <= value < _SMALL):
        return value  # type: ignore[no-any-return]
    if kind is int or kind is Decimal:
        return f"n{value}"
    return f"j{_encode(value).decode()}"


def unpack_value(packed: PackedValue) -> Any:
    if type(packed) is not str:
        return packed
    if packed[0] == "s":
        return packed[1:]
    if packed[0] == "j":
        return _decode(packed[1:])
    return Decimal(packed[1:])
