"""Tolerant parsing of URLs that clients send: host and query parameters. Pure; never raises."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Final
from urllib.parse import unquote_plus

VALUE_CHARS_MAX: Final = 200
"""Maximum length of a parameter value in characters. A longer value is truncated, but not in the stored URL."""

_URL_CHARS_MAX: Final = 16_384
_PARAMETERS_MAX: Final = 200
_HOST_CHARS_MAX: Final = 253
_HOST = re.compile(
    r"(?:https?|android-app|ios-app)://(?:[^/?#\\]*@)?(\[[0-9a-f:.]+\]|[^/?#\\:@\[\]\s\0-\x1f]+)", re.IGNORECASE
)


def host_of(url: str) -> str:
    """Return the host of a web page or app, in lower case, as ASCII, without port; "" if the URL has no host.

    ``https://user@WWW.Bücher.example:8443/`` -> ``www.xn--bcher-kva.example``. Only http, https, android-app and
    ios-app URLs have a host.
    """
    match = _HOST.match(url.lstrip()[:_URL_CHARS_MAX])
    if match is None:
        return ""
    host = match[1].lower().rstrip(".")
    if len(host) > _HOST_CHARS_MAX:
        return ""
    return host if host.isascii() else _to_ascii(host)


def query_of(url: str) -> str:
    """Return the query string: ``https://example.com/?a=1#b`` -> ``a=1``."""
    return url[:_URL_CHARS_MAX].partition("#")[0].partition("?")[2]


def find_parameters(query: str, names: Container[str]) -> dict[str, str]:
    """Return the parameters in ``names`` (lower case) that have a value; the first value of each name.

    Invalid percent-encoding is left unchanged; invalid UTF-8 is replaced by U+FFFD.
    """
    values: dict[str, str] = {}
    for pair in query[:_URL_CHARS_MAX].removeprefix("?").split("&", _PARAMETERS_MAX)[:_PARAMETERS_MAX]:
        name, _, value = pair.partition("=")
        name = (unquote_plus(name) if "%" in name else name).lower()
        if value and name in names and name not in values and (text := clean_value(unquote_plus(value[:2_000]))):
            values[name] = text
    return values


def clean_value(text: str) -> str:
    """Return the value as it is stored: without control characters, trimmed, and truncated to VALUE_CHARS_MAX."""
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " for char in text)
    return text.strip()[:VALUE_CHARS_MAX].strip()


def _to_ascii(host: str) -> str:
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        return host
