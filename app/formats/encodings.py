"""Request encodings of vendor SDKs: plain JSON, forms and base64, in the body or in the query. Pure.

The encoding is detected from the content, never from the headers. A form that is sent as a beacon has the content type
text, gzip may have no header, and Mixpanel's Node SDK puts base64 into a form without percent-encoding, so that ``+``
arrives as a space.
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
from app.formats.decompression import inflate_in_steps
from app.formats.segment import ITEMS_MAX
from app.formats.steps import Steps, at_once

_FIELDS_MAX: Final = 30
_FLAG_CHARS_MAX: Final = 100
_TO_PLAIN_ALPHABET: Final = bytes.maketrans(b" -_", b"++/")
_JSON_STARTS: Final = (b"{", b"[")
_BOM: Final = b"\xef\xbb\xbf"

_RAW = msgspec.json.Decoder(msgspec.Raw)
_RAWS = msgspec.json.Decoder(list[msgspec.Raw])


class Payload(msgspec.Struct):
    """The JSON of a request as sent. If it was in a form, ``flags`` contains the other short fields of the form."""

    body: bytes
    flags: dict[str, str] = {}


class Document(msgspec.Struct):
    """A JSON text in two versions: ``readable`` can be parsed, ``sent`` is the original. Offsets are equal in both.

    In both, bytes that are not UTF-8 are marked (:func:`json_text.mark_invalid_utf8`).
    """

    readable: bytes
    sent: bytes

    def elements(self, raw: bytes) -> list[tuple[bytes, bytes]]:
        """Return the elements of an array inside this document, as pairs (parsed item, item as it was sent).

        Raise InvalidBody if it is not an array, or has more than ``ITEMS_MAX`` elements.
        """
        if not raw.startswith(b"["):
            raise InvalidBody("The events must be a JSON array.")
        items = [bytes(item) for item in _RAWS.decode(raw)]
        if len(items) > ITEMS_MAX:
            raise InvalidBody(f"The body has {len(items)} events; send at most {ITEMS_MAX} in one request.")
        if self.readable is self.sent:
            return [(item, item) for item in items]
        return list(zip(items, json_text.find_originals(items, self.readable, self.sent), strict=True))


def unwrap_in_steps(body: bytes, content_encoding: str | None, limits: Limits) -> Steps[Payload]:
    """Return the JSON text in a body, as input of :func:`parse_document`. Raise BodyTooLarge or InvalidBody."""
    body = yield from inflate_in_steps(body, content_encoding, limits)
    yield
    json_text.refuse_dense(body)
    content = body.removeprefix(_BOM).lstrip()
    if not content or content.startswith(_JSON_STARTS):
        return Payload(body)
    if len(content) > limits.body_bytes_max:  # Percent-decoding takes several times the memory of the form.
        raise BodyTooLarge(
            f"The form has {len(content)} bytes decompressed; the limit of a form is {limits.body_bytes_max}."
        )
    fields: dict[bytes, bytes] = {}
    for field in content.split(b"&", _FIELDS_MAX):
        name, _, value = field.partition(b"=")
        fields.setdefault(name, value)
    if b"data" not in fields:
        return Payload((yield from unwrap_data_in_steps(content, limits)))
    flags = {
        _decode_form_text(name): _decode_form_text(value)
        for name, value in fields.items()
        if name != b"data" and len(name) + len(value) <= _FLAG_CHARS_MAX
    }
    data = unquote_to_bytes(fields[b"data"].replace(b"+", b" "))
    yield
    return Payload((yield from unwrap_data_in_steps(data, limits)), flags)


unwrap = at_once(unwrap_in_steps)


def unwrap_data_in_steps(data: bytes, limits: Limits) -> Steps[bytes]:
    """Decode the field ``data`` of a form or query string, and return its JSON text.

    The field, already URL-decoded, contains JSON or base64-encoded JSON. Raise BodyTooLarge or InvalidBody.
    """
    data = data.strip()
    if data.startswith(_JSON_STARTS):
        return data
    encoded = data.translate(_TO_PLAIN_ALPHABET, b"\r\n\t=")
    try:
        decoded = b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)
    except Error:
        raise InvalidBody("The body is neither JSON nor base64-encoded JSON.") from None
    return (yield from inflate_in_steps(decoded, None, limits))


unwrap_data = at_once(unwrap_data_in_steps)


def parse_document_in_steps(body: bytes, limits: Limits) -> Steps[Document]:
    """Return the document. Raise InvalidBody if the body is not a JSON object or array.

    Content that is nested too deeply is truncated so that it can be parsed. It stays deeper than the limit, so the
    message is rejected later.
    """
    json_text.refuse_dense(body)
    yield
    sent = json_text.as_utf8(body)
    yield
    readable = yield from json_text.replace_lone_surrogates_in_steps(sent)
    if not readable.startswith(_JSON_STARTS):
        raise InvalidBody("The body must be a JSON object or array.")
    try:
        return Document(_check_json(readable), sent)
    except RecursionError:
        readable = yield from json_text.truncate_depth_in_steps(readable, limits.depth_levels_max + 2)
    try:
        return Document(_check_json(readable), sent)
    except RecursionError:
        raise InvalidBody("The body is nested too deeply.") from None


parse_document = at_once(parse_document_in_steps)


def parse_elements(body: bytes, limits: Limits) -> Steps[list[tuple[bytes, bytes]]]:
    """Return the elements of an array, or the single object, as pairs (parsed item, item as it was sent).

    Raise InvalidBody.
    """
    parsed = yield from parse_document_in_steps(body, limits)
    yield
    if parsed.readable.startswith(b"["):
        return parsed.elements(parsed.readable)
    return [(parsed.readable, parsed.sent)]


def parse_elements_or_lines(body: bytes, limits: Limits) -> Steps[list[tuple[bytes, bytes]]]:
    """Return the same pairs as :func:`parse_elements`; the body may also contain one JSON object per line.

    For a line that is not JSON, the parsed item is empty. Raise InvalidBody if no line is JSON.
    """
    try:
        return (yield from parse_elements(body, limits))
    except InvalidBody:
        lines = [line for line in body.splitlines() if line.strip()]
        elements: list[tuple[bytes, bytes]] = []
        for line in lines[: ITEMS_MAX + 1]:
            elements.append((yield from _parse_line(line, limits)))
        if len(lines) < 2 or len(lines) > ITEMS_MAX or not any(readable for readable, _ in elements):
            raise
        return elements


def _parse_line(raw: bytes, limits: Limits) -> Steps[tuple[bytes, bytes]]:
    try:
        parsed = yield from parse_document_in_steps(raw, limits)
    except InvalidBody:
        return b"", raw
    return parsed.readable, parsed.sent


def _check_json(readable: bytes) -> bytes:
    try:
        _RAW.decode(readable)
    except msgspec.DecodeError as error:
        raise json_text.refuse_json(readable, error) from None
    return readable


def _decode_form_text(raw: bytes) -> str:
    return unquote_to_bytes(raw.replace(b"+", b" ")).decode(errors="replace")
