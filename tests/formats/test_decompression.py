"""Tests of decompression: the magic bytes override the header, and a zip bomb is never decompressed."""

from __future__ import annotations

import gzip
import zlib

import pytest

from app.config import Limits
from app.errors import BodyTooLarge, InvalidBody
from app.formats.decompression import STEP_BYTES, inflate, inflate_in_steps
from app.formats.steps import Steps, at_once

LIMITS = Limits()
SMALL = Limits(body_bytes_max=1_000, inflated_bytes_max=5_000)
PLAIN = b'{"batch":[]}'


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (PLAIN, None),
        (PLAIN, "identity"),
        (PLAIN, "gzip"),
        (PLAIN, "br"),
        (gzip.compress(PLAIN, mtime=0), "gzip"),
        (gzip.compress(PLAIN, mtime=0), None),
        (gzip.compress(PLAIN, mtime=0), " GZIP "),
        (gzip.compress(PLAIN, mtime=0), "deflate"),
        (gzip.compress(PLAIN[:4], mtime=0) + gzip.compress(PLAIN[4:], mtime=0), "gzip"),
        (gzip.compress(PLAIN, mtime=0) + b"\0" * 7, "gzip"),
        (zlib.compress(PLAIN), "deflate"),
        (raw_deflate(PLAIN), "deflate"),
    ],
)
def test_all_encodings_decompress_to_the_same_body(body: bytes, encoding: str | None) -> None:
    assert inflate(body, encoding, LIMITS) == PLAIN


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzip.compress(PLAIN, mtime=0)[:-4], "gzip"),
        (gzip.compress(PLAIN, mtime=0)[:15], None),
        (gzip.compress(PLAIN, mtime=0) + b"more", "gzip"),
        (b"\x1f\x8b" + b"\0" * 40, "gzip"),
        (gzip.compress(b"", mtime=0) * 101, "gzip"),
        (b"\0\1\2\3", "br"),
        (zlib.compress(PLAIN)[:-3], "deflate"),
        (b"\xff\xff\xff\xff", "deflate"),
    ],
)
def test_broken_compression_raises_invalid_body(body: bytes, encoding: str | None) -> None:
    with pytest.raises(InvalidBody):
        inflate(body, encoding, LIMITS)


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b" " * 1_001, None),
        (gzip.compress(b" " * 5_001, mtime=0), None),
        (gzip.compress(b" " * 3_000, mtime=0) + gzip.compress(b" " * 2_001, mtime=0), None),
        (zlib.compress(b" " * 5_001), "deflate"),
    ],
)
def test_body_over_the_limit_is_refused_compressed_or_decompressed(body: bytes, encoding: str | None) -> None:
    with pytest.raises(BodyTooLarge):
        inflate(body, encoding, SMALL)


def test_body_at_the_limit_is_accepted() -> None:
    assert len(inflate(b" " * 1_000, None, SMALL)) == 1_000
    assert len(inflate(gzip.compress(b" " * 5_000, mtime=0), None, SMALL)) == 5_000


def test_zip_bomb_is_not_decompressed() -> None:
    bomb = gzip.compress(bytes(50_000_000), compresslevel=1, mtime=0)
    with pytest.raises(BodyTooLarge):
        inflate(bomb, "gzip", LIMITS)


@pytest.mark.parametrize("size", [0, 1, STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1, 3 * STEP_BYTES, 1_000_003])
@pytest.mark.parametrize("content", [b"\0", b"ab", bytes(range(256))])
def test_bodies_of_any_size_are_decompressed_in_steps(size: int, content: bytes) -> None:
    plain = (content * (size // len(content) + 1))[:size]
    for encoding, body in (("gzip", gzip.compress(plain)), ("deflate", zlib.compress(plain))):
        pauses = 0

        def count_pauses(steps: Steps[bytes]) -> Steps[bytes]:
            nonlocal pauses
            while True:
                try:
                    next(steps)
                except StopIteration as end:
                    return end.value
                pauses += 1
                yield

        assert at_once(count_pauses)(inflate_in_steps(body, encoding, LIMITS)) == plain
        assert pauses >= size // STEP_BYTES
