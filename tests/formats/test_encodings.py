"""Tests of the request encodings of vendor SDKs: forms, base64 variants and zip bombs."""

from __future__ import annotations

import gzip
from base64 import b64encode, encodebytes, urlsafe_b64encode
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest

from app.config import Limits
from app.errors import BodyTooLarge, InvalidBody
from app.formats.encodings import parse_document, unwrap, unwrap_data

LIMITS = Limits()
# The base64 of this text contains + and /, and ends in =.
JSON = '[{"event":"Réad >>> ???","n":1}]'.encode() + b" "
assert {43, 47, 61} <= set(b64encode(JSON))

WRAPPINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda json: json,
    "with space and a byte order mark": lambda json: b"\xef\xbb\xbf \r\n" + json,
    "gzip": gzip.compress,
    "a form of JSON": lambda json: b"data=" + quote(json).encode(),
    "a form of JSON with + for spaces": lambda json: b"data=" + quote_plus(json).encode(),
    "a form of base64": lambda json: b"data=" + quote_plus(b64encode(json)).encode(),
    "base64 without percent-encoding": lambda json: b"data=" + b64encode(json),
    "base64 without padding": lambda json: b"data=" + b64encode(json).rstrip(b"="),
    "base64 of the URL alphabet": lambda json: b"data=" + urlsafe_b64encode(json),
    "base64 in lines": lambda json: b"data=" + quote_plus(encodebytes(json)).encode(),
    "base64 alone": b64encode,
    "fields before and after": lambda json: b"ip=1&data=" + quote_plus(b64encode(json)).encode() + b"&verbose=1",
    "base64 of gzip": lambda json: b"data=" + quote_plus(b64encode(gzip.compress(json))).encode(),
}  # fmt: skip


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_all_encodings_give_the_same_json(wrapping: str) -> None:
    payload = unwrap(WRAPPINGS[wrapping](JSON), None, LIMITS)
    assert parse_document(payload.body, LIMITS).sent == JSON.strip()


def test_short_form_fields_are_flags() -> None:
    body = b"data=%5B%5D&verbose=1&ip=0&long=" + b"x" * 200 + b"&verbose=2&t=a+b"
    assert unwrap(body, None, LIMITS).flags == {"verbose": "1", "ip": "0", "t": "a b"}


@pytest.mark.parametrize("body", [b"data=%", b"data=!!!", b"not base64!", b"\x00\x01", b"data=A", b"x=1&y=2"], ids=repr)
def test_body_that_is_neither_json_nor_base64_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidBody):
        parse_document(unwrap(body, None, LIMITS).body, LIMITS)


@pytest.mark.parametrize("body", [b"", b"7", b'"text"', b"[1", b"{'a':1}", b"[NaN]", b"[\xff]"], ids=repr)
def test_invalid_document_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidBody):
        parse_document(body, LIMITS)


def test_zip_bombs_are_bounded_in_all_encodings() -> None:
    bomb = gzip.compress(b"[" + b" " * 5_000_000 + b"]")
    for body in (bomb, b"data=" + quote_plus(b64encode(bomb)).encode(), b64encode(bomb)):
        with pytest.raises(BodyTooLarge):
            unwrap(body, None, LIMITS)
    with pytest.raises(BodyTooLarge):
        unwrap_data(b64encode(bomb), LIMITS)


def test_form_size_is_checked_before_unquoting() -> None:
    """Decoding 4 MB of percent signs takes a third of a second and 100 MB of memory."""
    form = b"data=" + quote(b"[" + b" " * 900_000 + b"]").encode()
    with pytest.raises(BodyTooLarge):
        unwrap(gzip.compress(form), None, LIMITS)
    assert unwrap(gzip.compress(b"data=" + quote(JSON).encode()), None, LIMITS).body == JSON.strip()


def test_too_many_events_are_refused_as_a_whole() -> None:
    body = b"[" + b"7," * 60_000 + b"7]"
    parsed = parse_document(body, LIMITS)
    with pytest.raises(InvalidBody, match="send at most 5000"):
        parsed.elements(parsed.readable)


def test_event_that_nests_too_deep_does_not_affect_others() -> None:
    deep = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    parsed = parse_document(b'[{"b":1},' + deep + b',{"c":"\\ud800"}]', LIMITS)
    (first, _), (second, original), (third, surrogate) = parsed.elements(parsed.readable)
    assert (first, original, third, surrogate) == (b'{"b":1}', deep, b'{"c":"\\u0000"}', b'{"c":"\\ud800"}')
    assert len(second) == len(deep)
