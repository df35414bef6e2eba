"""Helpers of the email connectors: detection of opens and clicks by machines, and readers of payload fields."""

from __future__ import annotations

from email.utils import parseaddr
from typing import Any, Final

import msgspec

from app.enrichment.user_agents import is_bot

CHANNEL: Final = "email"

_ENGAGEMENT_NAMES: Final = ("email.opened", "email.clicked")

_MACHINE_WORDS: Final = (
    # Mail clients and proxies that fetch images when an email arrives, not when a person opens it.
    "googleimageproxy",
    "yahoomailproxy",
    "ggpht.com",
    # Scanners that follow links before the recipient can.
    "barracuda",
    "proofpoint",
    "mimecast",
    "symantec",
    "messagelabs",
    "microsoft office existence discovery",
    "safelinks",
    "msoffice rmj",
)
"""Substrings that identify the user agent of a machine, in lower case.

``ms-office`` is not one of them, because Outlook on a desktop sends it for human readers.
"""
_PREFETCHED_BY_APPLE: Final = "mozilla/5.0"
"""The complete user agent of Apple's Mail Privacy Protection."""


def is_machine(user_agent: Any) -> bool:
    """Return whether a program, not a person, caused an open or a click. Programs that imitate browsers are missed."""
    if not isinstance(user_agent, str) or not user_agent:
        return False
    agent = user_agent.strip().lower()
    return agent == _PREFETCHED_BY_APPLE or any(word in agent for word in _MACHINE_WORDS) or is_bot(user_agent)


def build_click_properties(name: str, user_agent: Any = None, machine: bool = False) -> dict[str, Any]:
    """Return ``user_agent`` and ``machine`` for an open or a click, and no properties for other events.

    ``machine`` is true if the tool itself reports a machine; otherwise the user agent decides.
    """
    if name not in _ENGAGEMENT_NAMES:
        return {}
    return {"user_agent": user_agent, "machine": machine or is_machine(user_agent)}


def find_custom_ids(values: Any) -> dict[str, Any]:
    """Return ``user_id`` and ``anonymous_id`` from the sender's custom arguments, variables or metadata."""
    if not isinstance(values, dict):
        return {}
    ids: dict[str, Any] = {}
    for name, spellings in (("user_id", ("user_id", "userId")), ("anonymous_id", ("anonymous_id", "anonymousId"))):
        value = next((values[spelling] for spelling in spellings if values.get(spelling) not in (None, "")), None)
        if value is not None:
            ids[name] = value
    return ids


def extract_address(value: Any) -> Any:
    """Return the address in ``"A name <user@example.com>"``; return any other value unchanged."""
    return parseaddr(value)[1] or value if isinstance(value, str) and "<" in value else value


def parse_object(value: Any) -> dict[str, Any]:
    """Return the value if it is an object, or the object in a JSON text; an empty object for any other value."""
    parsed = _parse_json_text(value, "{")
    return parsed if isinstance(parsed, dict) else {}


def parse_list(value: Any) -> list[Any]:
    """Return the value if it is a list, or the list in a JSON text; otherwise a list with the value, unless empty."""
    parsed = _parse_json_text(value, "[")
    if isinstance(parsed, list):
        return parsed
    return [] if value in (None, "") else [value]


def _parse_json_text(value: Any, opening: str) -> Any:
    if not isinstance(value, str) or not value.lstrip().startswith(opening):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return value
