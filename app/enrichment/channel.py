"""Which channel a touchpoint came through, and which rule decided it. Pure.

The vocabulary is open: web, app, server, email, sms, push, support, chat, ... any lower_snake word of up to 50
characters. What the message says comes first, then what its source is for, then, for a page view that arrives from
outside, where it came from, and only then a guess from the library that sent it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

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


class Channel(NamedTuple):
    """``rule``: explicit, source_default, what an arrival rests on (``referrer:search:google.com``), or library, hint
    (RudderStack's top-level ``channel``), type, which say what kind of program sent it."""

    name: str
    rule: str


def classify(
    explicit: str | None,
    source_default: str | None,
    sender: Channel,
    arrival: Channel | None = None,
) -> Channel:
    """The channel of one message. ``explicit`` is its ``context.channel``, ``sender`` what :func:`sender_of` says."""
    if explicit and (channel := lower_snake(explicit)):
        return Channel(channel, "explicit")
    if source_default:
        return Channel(source_default, "source_default")
    return arrival or sender


@lru_cache(maxsize=2048)
def lower_snake(text: str) -> str:
    """``"Email "`` -> ``email``, ``inStore`` -> ``in_store``; nothing usable, or too long a word, is ``""``."""
    words = _NOT_WORD.sub("_", _WORD_EDGE.sub("_", text).lower()).strip("_")
    return words if len(words) <= CHANNEL_CHARS_MAX else ""


@lru_cache(maxsize=2048)
def sender_of(library_name: str | None, message_type: str, hint: str | None = None) -> Channel:
    """web, app or server, by the library that sent a message.

    ``hint`` is RudderStack's top-level ``channel`` (web, server or mobile), which tells the kind of library and no
    more, so that a source's default wins over it.
    """
    library = (library_name or "").lower()
    if _BROWSER.search(library):
        return Channel("web", "library")
    if _DEVICE.search(library):
        return Channel("app", "library")
    if hint in HINTS:
        return Channel(HINTS[hint], "hint")
    return Channel("server", "library") if library else Channel(_BY_TYPE.get(message_type, "server"), "type")
