"""How foreign SDKs wrap JSON in a request: as it is, as a form, as base64, in the body or in the query. Pure.

The content decides, never its label: a beacon of a form arrives as text, gzip without a header, and Mixpanel's Node
SDK writes base64 into a form without percent-encoding, so that each ``+`` is read as a space.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec

from app.config import Limits
from app.errors import BodyTooLarge, InvalidBody
from app.formats import json_text
from app.formats.decompression import inflate
from app.formats.segment import ITEMS_MAX

_FIELDS_MAX: Final = 30
_FLAG_CHARS_MAX: Final = 100
_TO_PLAIN_ALPHABET: Final = bytes.maketrans(b" -_", b"++/")
_JSON_STARTS: Final = (b"{", b"[")
_BOM: Final = b"\xef\xbb\xbf"

_RAW = msgspec.json.Decoder(msgspec.Raw)
_RAWS = msgspec.json.Decoder(list[msgspec.Raw])


class Payload(msgspec.Struct):
    """What was wrapped, still as sent, and the small fields that stood beside it in the form."""

    body: bytes
    flags: dict[str, str] = {}


class Document(msgspec.Struct):
    """JSON as it can be parsed, and the same as it was sent: places are equal."""

    readable: bytes
    sent: bytes

    def elements(self, raw: bytes) -> list[tuple[bytes, bytes]]:
        """The elements of an array inside this document: (readable, as sent) each. Raises InvalidBody."""
        if not raw.startswith(b"["):
            raise InvalidBody("The events must be a JSON array.")
        items = [bytes(item) for item in _RAWS.decode(raw)]
        if len(items) > ITEMS_MAX:
            raise InvalidBody(f"The body has {len(items)} events; more than {ITEMS_MAX} are refused as a whole.")
        if self.readable is self.sent:
            return [(item, item) for item in items]
        return list(zip(items, json_text.find_originals(items, self.readable, self.sent), strict=True))


def unwrap(body: bytes, content_encoding: str | None, limits: Limits) -> Payload:
    """The JSON within a body, for :func:`parse_document`. Raises BodyTooLarge or InvalidBody."""
    body = inflate(body, content_encoding, limits)
    content = body.removeprefix(_BOM).lstrip()
    if not content or content.startswith(_JSON_STARTS):
        return Payload(body)
    if len(content) > limits.body_bytes_max:  # to unquote it takes many times its size
        raise BodyTooLarge(f"The form has {len(content)} bytes; the limit is {limits.body_bytes_max}, packed or not.")
    fields: dict[bytes, bytes] = {}
    for field in content.split(b"&", _FIELDS_MAX):
        name, _, value = field.partition(b"=")
        fields.setdefault(name, value)
    if b"data" not in fields:
        return Payload(unwrap_data(content, limits))
    flags = {
        _decode_form_text(name): _decode_form_text(value)
        for name, value in fields.items()
        if name != b"data" and len(name) + len(value) <= _FLAG_CHARS_MAX
    }
    return Payload(unwrap_data(unquote_to_bytes(fields[b"data"].replace(b"+", b" ")), limits), flags)


def unwrap_data(data: bytes, limits: Limits) -> bytes:
    """``data`` of a form or a query after URL-decoding: JSON, or base64 of it. Raises BodyTooLarge or InvalidBody."""
    data = data.strip()
    if data.startswith(_JSON_STARTS):
        return data
    encoded = data.translate(_TO_PLAIN_ALPHABET, b"\r\n\t=")
    try:
        return inflate(b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True), None, limits)
    except Error:
        raise InvalidBody("The body is neither JSON nor base64 of it.") from None


def parse_document(body: bytes, limits: Limits) -> Document:
    """Raises InvalidBody for what is no JSON object or array. What nests too deep stays so, and can be parsed."""
    sent = json_text.as_utf8(body)
    readable = json_text.replace_lone_surrogates(sent)
    if not readable.startswith(_JSON_STARTS):
        raise InvalidBody("The body must be a JSON object or array.")
    try:
        return Document(_check_json(readable), sent)
    except RecursionError:
        readable = json_text.truncate_depth(readable, limits.depth_levels_max + 2)
    try:
        return Document(_check_json(readable), sent)
    except RecursionError:
        raise InvalidBody("The body nests too deep.") from None


def parse_elements(body: bytes, limits: Limits) -> list[tuple[bytes, bytes]]:
    """The elements of an array, or the one object: (readable, as sent) each. Raises InvalidBody."""
    parsed = parse_document(body, limits)
    if parsed.readable.startswith(b"["):
        return parsed.elements(parsed.readable)
    return [(parsed.readable, parsed.sent)]


def parse_elements_or_lines(body: bytes, limits: Limits) -> list[tuple[bytes, bytes]]:
    """The same, or one JSON object a line; a line that is none has nothing readable. Raises InvalidBody."""
    try:
        return parse_elements(body, limits)
    except InvalidBody:
        lines = [line for line in body.splitlines() if line.strip()]
        elements = [_parse_line(line, limits) for line in lines[: ITEMS_MAX + 1]]
        if len(lines) < 2 or len(lines) > ITEMS_MAX or not any(readable for readable, _ in elements):
            raise
        return elements


def _parse_line(raw: bytes, limits: Limits) -> tuple[bytes, bytes]:
    try:
        parsed = parse_document(raw, limits)
    except InvalidBody:
        return b"", raw
    return parsed.readable, parsed.sent


def _check_json(readable: bytes) -> bytes:
    try:
        _RAW.decode(readable)
    except msgspec.DecodeError as error:
        raise InvalidBody(f"The body is not JSON: {error}.") from None
    return readable


def _decode_form_text(raw: bytes) -> str:
    return unquote_to_bytes(raw.replace(b"+", b" ")).decode(errors="replace")
