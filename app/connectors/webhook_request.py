"""One webhook request of a tool, and how its body is decoded. Pure."""

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
    """A body, or one event of it, is not what its tool sends. Says what was expected; it becomes a Rejection."""


class WebhookRequest(msgspec.Struct, kw_only=True):
    """One request of a tool, as it came. Names of headers are in lower case; ``received_at`` is in microseconds."""

    body: bytes = b""
    headers: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    method: str = "POST"
    url: str = ""
    """As the tool called it; behind a proxy that changes it, the source's option ``url`` says it."""
    received_at: int = 0
    options: Mapping[str, str] = {}
    """Of the source."""
    certificate_pem: bytes = b""
    """The content of the address that :attr:`Connector.certificate_url` names."""


def decode_json(body: bytes) -> Any:
    """Parsed JSON. Raises Unreadable, never anything else."""
    try:
        readable = json_text.replace_lone_surrogates(json_text.as_utf8(body))
        if json_text.is_deeper(readable, _LEVELS_MAX):
            raise Unreadable(f"the body nests deeper than {_LEVELS_MAX} levels")
        return _DECODER.decode(readable)
    except InvalidBody as error:
        raise Unreadable(error.message) from None
    except (msgspec.DecodeError, RecursionError, ArithmeticError, ValueError) as error:
        raise Unreadable(f"the body is not JSON that can be read ({type(error).__name__})") from None


def decode_form(body: bytes) -> dict[str, str]:
    """The fields of a form, of each name the first. Raises Unreadable."""
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_FORM_FIELDS_MAX, strict_parsing=True)
    except ValueError as error:
        raise Unreadable(f"the body is not a form that can be read ({error})") from None
    return dict(reversed(pairs))
