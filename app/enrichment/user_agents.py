"""Browser, system and device of a user agent, and whether it is a bot's. Pure.

Browsers by ua-parser's list, bots by crawler-user-agents'. Both lists are prepared by the first question, or by
:func:`prepare` (0.2 s); an answer costs some tens of microseconds once and is remembered.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal

import msgspec
import re2
from crawleruseragents import CRAWLER_USER_AGENTS_DATA
from ua_parser import Parser, load_builtins
from ua_parser.regex import Resolver

Device = Literal["desktop", "mobile", "tablet", "tv", "bot", "unknown"]

USER_AGENT_CHARS_MAX: Final = 512
"""Longer ones are cut: no browser's is, and matching takes time."""

_CACHE_ENTRIES_MAX: Final = 8_192
_SET_BYTES: Final = 64_000_000
_BROWSERS: Final = ("Mozilla/", "Opera/")
"""Every browser says to be one of these; HTTP libraries do not."""

_TVS: Final = (
    "android tv",
    "appletv",
    "bravia",
    "crkey",
    "googletv",
    "hbbtv",
    "netcast",
    "nintendo",
    "philipstv",
    "playstation",
    "roku",
    "smart-tv",
    "smarttv",
    "viera",
    "web0s",
    "xbox",
    "; aft",  # Fire TV
)
_TABLETS: Final = ("ipad", "kindle", "playbook", "silk/", "tablet")
_PHONES: Final = ("iphone", "ipod", "kaios", "mobi", "windows phone")
_DESKTOPS: Final = ("cros ", "linux", "macintosh", "windows", "x11")


class UserAgentClient(msgspec.Struct, frozen=True, omit_defaults=True):
    """As it is stored in ``context.client``. Versions are major and minor, without zeros at the end: 18.1, 140."""

    device: Device | None = None
    browser: str | None = None
    browser_version: str | None = None
    os: str | None = None
    os_version: str | None = None


def prepare() -> None:
    """Reads both lists now rather than at the first message."""
    _load_parser()
    _load_bot_patterns()


def client_of(user_agent: str) -> UserAgentClient:
    """What browser it is, on what; fields that cannot be told are None, the device is ``unknown`` then."""
    return _parse_client(_truncate_utf8(user_agent))


def is_bot(user_agent: str) -> bool:
    """Whether crawler-user-agents knows it: crawlers, previews, monitors, automated browsers, HTTP libraries."""
    return _is_bot(_truncate_utf8(user_agent))


def speaks_for_visitor(user_agent: str | None) -> bool:
    """Whether the program that made a request is what a visitor (or a crawler) looks at pages with.

    An HTTP library is not: that is a site's own server, or a script, which hands on what pages said.
    """
    if not user_agent:
        return False
    return user_agent.startswith(_BROWSERS) or _is_crawler(_truncate_utf8(user_agent))


def _truncate_utf8(user_agent: str) -> str:
    cut = user_agent[:USER_AGENT_CHARS_MAX]
    return cut if cut.isascii() else cut.encode("utf-8", "replace").decode()


@lru_cache(maxsize=_CACHE_ENTRIES_MAX)
def _parse_client(user_agent: str) -> UserAgentClient:
    result = _load_parser().parse(user_agent)
    browser, system = result.user_agent, result.os
    return UserAgentClient(
        device=_classify_device(user_agent),
        browser=browser.family if browser else None,
        browser_version=_format_version(browser.major, browser.minor) if browser else None,
        os=system.family if system else None,
        os_version=_format_version(system.major, system.minor) if system else None,
    )


def _classify_device(user_agent: str) -> Device:
    if _is_bot(user_agent):
        return "bot"
    agent = user_agent.lower()
    if _contains_any(agent, _TVS):
        return "tv"
    if _contains_any(agent, _TABLETS) or ("android" in agent and "mobi" not in agent):
        return "tablet"
    if _contains_any(agent, _PHONES):
        return "mobile"
    return "desktop" if _contains_any(agent, _DESKTOPS) else "unknown"


def _contains_any(agent: str, words: tuple[str, ...]) -> bool:
    return any(word in agent for word in words)


def _format_version(major: str | None, minor: str | None) -> str | None:
    return f"{major}.{minor}" if major and minor and minor != "0" else major


@lru_cache(maxsize=_CACHE_ENTRIES_MAX)
def _is_bot(user_agent: str) -> bool:
    return _load_bot_patterns().Match(user_agent) is not None


@lru_cache(maxsize=_CACHE_ENTRIES_MAX)
def _is_crawler(user_agent: str) -> bool:
    """A bot that is no HTTP library."""
    matching = _load_bot_patterns().Match(user_agent) or ()
    return any("http-library" not in CRAWLER_USER_AGENTS_DATA[index]["tags"] for index in matching)


@lru_cache(maxsize=1)
def _load_parser() -> Parser:
    """Without its cache: ours holds what was made of the answer."""
    return Parser(Resolver(load_builtins()))


@lru_cache(maxsize=1)
def _load_bot_patterns() -> re2.Set:
    """All 1,500 patterns in one automaton: 2 us a match, where trying them in turn takes 150."""
    options = re2.Options()
    options.max_mem = _SET_BYTES
    options.log_errors = False
    patterns = re2.Set.SearchSet(options)
    for crawler in CRAWLER_USER_AGENTS_DATA:
        patterns.Add(crawler["pattern"])
    patterns.Compile()
    return patterns
