"""Which channel a touchpoint came through. Pure.

The vocabulary is open: web, app, server, email, sms, push, support, chat, ... any lower_snake word of up to 50
characters. What the message says comes first, then what its source is for, and only then a guess from the library
that sent it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

CHANNEL_CHARS_MAX: Final = 50

_NOT_WORD = re.compile(r"[^a-z0-9]+")
_WORD_EDGE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

_BROWSER = re.compile(r"analytics\.js|analytics-next|javascript sdk|segue\.js|@jitsu/js|^web$")
_DEVICE = re.compile(
    r"(?:^|[^a-z])"
    r"(?:ios|android|react[-_ ]?native|kotlin|swift|flutter|cordova|capacitor|expo|unity|xamarin|maui)"
    r"(?![a-z])"
)

HINTS: Final = {"web": "web", "browser": "web", "server": "server", "mobile": "app", "app": "app"}
"""What RudderStack's top-level ``channel`` may say of the library."""
_BY_TYPE: Final = {"page": "web", "screen": "app"}


def classify(
    explicit: str | None,
    source_default: str | None,
    library_name: str | None,
    message_type: str,
    hint: str | None = None,
) -> str:
    """The channel of one message.

    ``explicit`` is the message's ``context.channel``; ``hint`` is RudderStack's top-level ``channel`` (web, server
    or mobile), which tells the kind of library and no more, so that a source's default wins over it.
    """
    if explicit and (channel := lower_snake(explicit)):
        return channel
    if source_default:
        return source_default
    return _by_library(library_name or "", hint or "", message_type)


@lru_cache(maxsize=2048)
def lower_snake(text: str) -> str:
    """``"Email "`` -> ``email``, ``inStore`` -> ``in_store``; nothing usable, or too long a word, is ``""``."""
    words = _NOT_WORD.sub("_", _WORD_EDGE.sub("_", text).lower()).strip("_")
    return words if len(words) <= CHANNEL_CHARS_MAX else ""


@lru_cache(maxsize=2048)
def _by_library(library_name: str, hint: str, message_type: str) -> str:
    library = library_name.lower()
    if _BROWSER.search(library):
        return "web"
    if _DEVICE.search(library):
        return "app"
    if hint in HINTS:
        return HINTS[hint]
    return "server" if library else _BY_TYPE.get(message_type, "server")
