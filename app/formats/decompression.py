"""Decompression of request bodies, with size limits. Pure.

Clients often send wrong headers: gzip with a form's content type, gzip without a header, plain JSON with a gzip
header. Therefore the format is detected from the magic bytes, and the header is used only if the bytes are ambiguous.
"""

from __future__ import annotations

import zlib
from typing import Final

from app.config import Limits
from app.errors import BodyTooLarge, InvalidBody
from app.formats.steps import Steps, at_once

_GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP_BITS: Final = 31
_ZLIB_BITS: Final = 15
_RAW_DEFLATE_BITS: Final = -15
_GZIP_MEMBERS_MAX: Final = 100
"""Maximum number of gzip members. Reading one copies the rest of the body, so thousands would take seconds."""
STEP_BYTES: Final = 32_768
"""Maximum number of bytes that one step decompresses."""


def inflate_in_steps(body: bytes, content_encoding: str | None, limits: Limits) -> Steps[bytes]:
    """Return the decompressed body. Nothing is decompressed beyond ``limits``.

    Raises:
        BodyTooLarge: the body exceeds ``limits``, compressed or decompressed.
        InvalidBody: the compressed data is invalid, or its encoding is not supported.
    """
    if len(body) > limits.body_bytes_max:
        raise BodyTooLarge(f"The body has {len(body)} bytes; the limit is {limits.body_bytes_max}.")
    if body.startswith(_GZIP_MAGIC):
        return (yield from _decompress_gzip(body, limits.inflated_bytes_max))
    encoding = (content_encoding or "").strip().lower()
    if encoding in ("", "identity", "gzip", "x-gzip") or body.lstrip()[:1] in (b"{", b"["):
        return body
    if encoding in ("deflate", "zlib"):
        wrapped = len(body) > 1 and body[0] & 0x0F == 8 and int.from_bytes(body[:2]) % 31 == 0
        bits = _ZLIB_BITS if wrapped else _RAW_DEFLATE_BITS
        content, _ = yield from _decompress_stream(body, bits, limits.inflated_bytes_max)
        return content
    raise InvalidBody(f"Content-Encoding {encoding[:40]!r} is not supported; send gzip, deflate or plain JSON.")


inflate = at_once(inflate_in_steps)


def _decompress_gzip(body: bytes, bytes_max: int) -> Steps[bytes]:
    parts: list[bytes] = []
    left = bytes_max
    for _ in range(_GZIP_MEMBERS_MAX):
        part, body = yield from _decompress_stream(body, _GZIP_BITS, left, bytes_max)
        parts.append(part)
        left -= len(part)
        if not body.strip(b"\0"):  # A gzip file may be padded with zeros.
            return b"".join(parts)
        if not body.startswith(_GZIP_MAGIC):
            break
    raise InvalidBody(
        f"The gzip body has data after its end, or more than {_GZIP_MEMBERS_MAX} members; send one gzip member."
    )


def _decompress_stream(body: bytes, bits: int, left: int, bytes_max: int | None = None) -> Steps[tuple[bytes, bytes]]:
    """Return the content of the first compressed stream, and the rest of the body."""
    stream = zlib.decompressobj(wbits=bits)
    pieces: list[bytes] = []
    size, rest = 0, body
    while not stream.eof:
        try:
            piece = stream.decompress(rest, min(left + 1 - size, STEP_BYTES))
        except zlib.error as error:
            raise InvalidBody(f"The body cannot be decompressed: {error}.") from None
        rest = stream.unconsumed_tail
        if not piece and not rest and not stream.eof:
            raise InvalidBody("The compressed body is incomplete; send the whole stream.")
        pieces.append(piece)
        size += len(piece)
        if size > left:
            raise BodyTooLarge(f"The decompressed body is larger than the limit of {bytes_max or left} bytes.")
        yield
    return pieces[0] if len(pieces) == 1 else b"".join(pieces), stream.unused_data
