"""The column ``carried`` of the log: the identities of a message and all else that identity resolution needs. Pure.

It is a JSON list of (kind, value) pairs, strongest identity first. Pairs with a reserved name are not identities.
"""

from __future__ import annotations

from typing import Final

import msgspec

from app.touchpoint import Identity, Message

PREVIOUS_ID: Final = "previous_id"
TRUST: Final = "$trust"
VOUCHED_ID: Final = "$vouched_id"
"""Reserved names. No identity kind contains a dollar sign, and formats refuse the kind ``previous_id``."""

_RESERVED: Final = frozenset({PREVIOUS_ID, TRUST, VOUCHED_ID})

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[tuple[str, str]]).decode


def encode_carried(message: Message) -> bytes:
    pairs = [(identity.kind, identity.value) for identity in message.identities]
    if message.previous_id is not None:
        pairs.append((PREVIOUS_ID, message.previous_id))
    if message.trust != "public":
        pairs.append((TRUST, message.trust))
    if message.vouched_id is not None:
        pairs.append((VOUCHED_ID, message.vouched_id))
    return _encode(pairs)


def decode_carried(carried: bytes | str) -> tuple[tuple[Identity, ...], dict[str, str]]:
    """Return the identities, strongest first, and the pairs with reserved names."""
    pairs = _decode(carried)
    reserved = {name: value for name, value in pairs if name in _RESERVED}
    return tuple(Identity(kind, value) for kind, value in pairs if kind not in _RESERVED), reserved
