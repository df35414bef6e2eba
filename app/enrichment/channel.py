"""Channel of a touchpoint, with the rule that decided it. Pure.

The vocabulary is open: web, app, server, email, sms, push, support, chat, ... any lower_snake word of up to 50
characters. In order of precedence: the channel in the message, the channel of the source, the attribution of a page
view that arrives from outside, and a guess from the library that sent the message.
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
"""Channels by the value of RudderStack's top-level ``channel``, which describes the sending library."""
_BY_TYPE: Final = {"page": "web", "screen": "app"}


class Channel(NamedTuple):
    """A channel and the rule that decided it.

    ``rule`` is ``explicit``, ``source_default`` or the rule of an attribution, such as ``referrer:search:google.com``.
    If the kind of the sending program decided, ``rule`` is the place that showed the kind: ``library``, ``hint``
    (RudderStack's top-level ``channel``) or ``type``.
    """

    name: str
    rule: str


def classify(
    explicit: str | None,
    source_default: str | None,
    sender: Channel,
    arrival: Channel | None = None,
) -> Channel:
    """Return the channel of one message.

    ``explicit`` is its ``context.channel``, ``sender`` the result of :func:`sender_of`, ``arrival`` the channel of its
    attribution.
    """
    if explicit and (channel := lower_snake(explicit)):
        return Channel(channel, "explicit")
    if source_default:
        return Channel(source_default, "source_default")
    return arrival or sender


@lru_cache(maxsize=2048)
def lower_snake(text: str) -> str:
    """Convert to lower snake case: ``"Email "`` -> ``email``, ``inStore`` -> ``in_store``.

    Return ``""`` if no letter or digit remains or the result is too long.
    """
    words = _NOT_WORD.sub("_", _WORD_EDGE.sub("_", text).lower()).strip("_")
    return words if len(words) <= CHANNEL_CHARS_MAX else ""


@lru_cache(maxsize=2048)
def sender_of(library_name: str | None, message_type: str, hint: str | None = None) -> Channel:
    """Return the channel web, app or server for the library that sent a message.

    ``hint`` is RudderStack's top-level ``channel`` (web, server or mobile). It describes only the kind of library, so
    the default channel of a source takes precedence over it.
    """
    library = (library_name or "").lower()
    if _BROWSER.search(library):
        return Channel("web", "library")
    if _DEVICE.search(library):
        return Channel("app", "library")
    if hint in HINTS:
        return Channel(HINTS[hint], "hint")
    return Channel("server", "library") if library else Channel(_BY_TYPE.get(message_type, "server"), "type")
