"""The webhook request of a tool, and decoders of its body."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from app.errors import InvalidBody
from app.formats import json_text

_FORM_FIELDS_MAX: Final = 2_000
_LEVELS_MAX: Final = 40

_DECODER = msgspec.json.Decoder(float_hook=Decimal)


class Unreadable(Exception):
    """Raised if a body or event has an unexpected format. The message describes the format; a Rejection reports it."""


class WebhookRequest(msgspec.Struct, kw_only=True):
    """One HTTP request of a tool. Header names are in lower case; ``received_at`` is in microseconds since 1970."""

    body: bytes = b""
    headers: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    method: str = "POST"
    url: str = ""
    """URL that the tool called. If a proxy rewrites it, the source's option ``url`` is the original URL."""
    received_at: int = 0
    options: Mapping[str, str] = {}
    """Options of the source."""
    certificate_pem: bytes = b""
    """Content of the URL that :attr:`Connector.certificate_url` returned."""


def decode_json(body: bytes) -> Any:
    """Decode JSON; raise Unreadable, and no other exception, if it is invalid.

    Bytes that are not UTF-8 are marked (:func:`json_text.mark_invalid_utf8`), so that only their event is rejected.
    """
    try:
        json_text.refuse_dense(body)
        readable = json_text.replace_lone_surrogates(json_text.as_utf8(body))
        if json_text.is_deeper(readable, _LEVELS_MAX):
            raise Unreadable(f"the JSON body is nested deeper than {_LEVELS_MAX} levels")
        return _DECODER.decode(readable)
    except InvalidBody as error:
        raise Unreadable(error.message) from None
    except (msgspec.DecodeError, RecursionError, ArithmeticError, ValueError) as error:
        raise Unreadable(f"the body is not valid JSON ({type(error).__name__})") from None


def decode_form(body: bytes) -> dict[str, str]:
    """Decode a URL-encoded form; a repeated field has its first value. Raise Unreadable if the form is invalid.

    Bytes that are not UTF-8 are marked, as in :func:`decode_json`.
    """
    try:
        pairs = parse_qsl(
            body.decode("utf-8", json_text.MARK_INVALID),
            keep_blank_values=True,
            max_num_fields=_FORM_FIELDS_MAX,
            strict_parsing=True,
            errors=json_text.MARK_INVALID,
        )
    except ValueError as error:
        raise Unreadable(f"the body is not a valid URL-encoded form ({error})") from None
    return dict(reversed(pairs))
