"""Values of properties as a series keeps them: small, exact, and the same after a round through MessagePack.

Whole numbers of 64 bits and flags stay as they are. Everything else becomes text whose first letter says what it is:
``s`` text, ``n`` another number, ``j`` JSON of an array or object.
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
    """``None``, which is a missing value, stays ``None``."""
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
