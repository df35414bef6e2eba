"""Correction of quarantined messages with JSON Patch (RFC 6902). Pure.

A corrected message keeps a stable id, so that repeated replays of one quarantine row store it only once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import jsonpatch
import jsonpointer
import msgspec

from app.config import Limits
from app.errors import BadRequest, InvalidBody
from app.formats import json_text
from app.formats.segment import Envelope
from app.formats.segment_message import id_at_best
from app.quarantine import reparse

OPERATIONS_MAX: Final = 100
PATCHED_BYTES_MAX: Final = 1_000_000
"""Maximum size of a patched message in bytes.

The limit is needed because each copy operation of a patch can double the size of the message.
"""

_HASHED_ID_PREFIX: Final = b'"hash-'
"""Prefix, as JSON text, of an id that is a hash of the content, which events without an own id get.

A correction changes the hash, so the id of the original is used instead.
"""

_decode = msgspec.json.Decoder(float_hook=Decimal).decode
_encode = msgspec.json.Encoder(decimal_format="number").encode

_FAILURES: Final = (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError, LookupError, ValueError)
_REQUIRED_MEMBERS: Final = {"add": "value", "replace": "value", "test": "value", "move": "from", "copy": "from"}


class Unpatchable(Exception):
    """Raised if a patch cannot be applied to a message; its text is the reason."""


class Patch:
    """JSON Patch operations (RFC 6902), applied in order to the ``original`` of a quarantine row."""

    def __init__(self, operations: Sequence[Mapping[str, Any]]) -> None:
        """Parse the operations. Raise :class:`BadRequest` with the path of the first invalid operation."""
        self._operations = [self._parse_operation(index, operation) for index, operation in enumerate(operations)]

    @staticmethod
    def _parse_operation(index: int, operation: Mapping[str, Any]) -> jsonpatch.JsonPatch:
        path = f"/patch/{index}"
        try:
            patch = jsonpatch.JsonPatch([dict(operation)])
        except _FAILURES as error:
            raise BadRequest(f"{path}: {error}.", path=path) from None
        required_member = _REQUIRED_MEMBERS.get(operation["op"])
        if required_member is not None and required_member not in operation:
            raise BadRequest(
                f"{path}: the operation {operation['op']} requires the field `{required_member}`.", path=path
            )
        return patch

    def apply(self, original: bytes) -> bytes:
        """Return the patched message. Raise :class:`Unpatchable`."""
        try:
            document = _decode(original)
            for index, operation in enumerate(self._operations):
                document = operation.apply(document, in_place=True)
                if len(_encode(document)) > PATCHED_BYTES_MAX:
                    raise Unpatchable(f"/patch/{index}: the patched message is larger than {PATCHED_BYTES_MAX} bytes")
            return _encode(document)
        except msgspec.DecodeError:
            raise Unpatchable(
                "the original is not JSON; replay the row by its id, with the corrected message in the body"
            ) from None
        except (*_FAILURES, RecursionError, ArithmeticError) as error:
            raise Unpatchable(str(error)[:300]) from None


def reparse_patched(
    body: bytes, row: int, original: bytes, form: str, received_at: int, limits: Limits, options: Mapping[str, str]
) -> Envelope:
    """Parse ``body``, which is the original of a quarantine row or a correction of it. Raise InvalidBody.

    The message id is the one in the correction, or else that of the original, or else one derived from the row. So
    concurrent replays, or a replay after a crash, store the message only once.
    """
    envelope = reparse.reparse(body, form, received_at, limits, options)
    if body == original:
        return envelope
    original_ids = _find_original_ids(original, form, received_at, limits, options)
    for index, item in enumerate(envelope.items):
        members = _decode_members(item)
        own_id = members.get("messageId", b"null")
        if members and (own_id in (b"null", b'""') or own_id.startswith(_HASHED_ID_PREFIX)):
            id = (
                original_ids[index]
                if index < len(original_ids) and original_ids[index]
                else f"quarantine-{row}-{index}"
            )
            envelope.items[index] = json_text.encode_members(members | {"messageId": _encode(id)})
    return envelope


def _find_original_ids(
    original: bytes, form: str, received_at: int, limits: Limits, options: Mapping[str, str]
) -> Sequence[str | None]:
    try:
        envelope = reparse.reparse(original, form, received_at, limits, options)
    except InvalidBody:
        return []
    return [id_at_best(item, limits.id_chars_max) for item in envelope.items]


def _decode_members(item: bytes) -> dict[str, bytes]:
    """Return the fields of an item; empty if it is not a JSON object, which is rejected later."""
    try:
        return json_text.decode_members(item)
    except (msgspec.DecodeError, RecursionError):
        return {}
