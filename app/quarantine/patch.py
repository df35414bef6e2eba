"""What stands in quarantine, corrected: patched by RFC 6902, and read so that one row is stored once. Pure."""

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
"""Of one patched message: a patch that copies a document into itself doubles it each time."""

_HASHED_ID_PREFIX: Final = b'"hash-'
"""So begin ids that we gave an event which had none; they follow from what it says, and that was corrected."""

_decode = msgspec.json.Decoder(float_hook=Decimal).decode
_encode = msgspec.json.Encoder(decimal_format="number").encode

_FAILURES: Final = (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError, LookupError, ValueError)
_REQUIRED_MEMBERS: Final = {"add": "value", "replace": "value", "test": "value", "move": "from", "copy": "from"}


class Unpatchable(Exception):
    """The patch does not fit this message; says why."""


class Patch:
    """Operations of RFC 6902, applied one after the other to what the quarantine shows as ``original``."""

    def __init__(self, operations: Sequence[Mapping[str, Any]]) -> None:
        """Raises :class:`BadRequest` with the path of the operation that is none."""
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
            raise BadRequest(f"{path}: {operation['op']} needs {required_member}.", path=path)
        return patch

    def apply(self, original: bytes) -> bytes:
        """Raises :class:`Unpatchable`."""
        try:
            document = _decode(original)
            for index, operation in enumerate(self._operations):
                document = operation.apply(document, in_place=True)
                if len(_encode(document)) > PATCHED_BYTES_MAX:
                    raise Unpatchable(f"/patch/{index}: the message grows beyond {PATCHED_BYTES_MAX} bytes")
            return _encode(document)
        except msgspec.DecodeError:
            raise Unpatchable("the original is no JSON; replay it by its id, with the message in the body") from None
        except (*_FAILURES, RecursionError, ArithmeticError) as error:
            raise Unpatchable(str(error)[:300]) from None


def reparse_patched(
    body: bytes, row: int, original: bytes, form: str, received_at: int, limits: Limits, options: Mapping[str, str]
) -> Envelope:
    """What ``body`` says, which may correct the original of that row of the quarantine. Raises InvalidBody.

    However it is corrected, it has one id: its own, else the one that the original has by what it says, else the row's.
    So two replays at once, or one after a crash, store once.
    """
    envelope = reparse.reparse(body, form, received_at, limits, options)
    if body == original:
        return envelope
    original_ids = _find_original_ids(original, form, received_at, limits, options)
    for index, item in enumerate(envelope.items):
        members = _decode_members(item)
        own = members.get("messageId", b"null")
        if members and (own in (b"null", b'""') or own.startswith(_HASHED_ID_PREFIX)):
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
    """Of what may be no object at all, which is then refused like any message that is none."""
    try:
        return json_text.decode_members(item)
    except (msgspec.DecodeError, RecursionError):
        return {}
