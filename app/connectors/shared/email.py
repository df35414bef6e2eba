"""What mails of every tool have in common: names of what happens to one, and opens and clicks of machines. Pure."""

from __future__ import annotations

from email.utils import parseaddr
from typing import Any, Final

import msgspec

from app.enrichment.user_agents import is_bot

CHANNEL: Final = "email"

_ENGAGEMENT_NAMES: Final = ("email.opened", "email.clicked")

_MACHINE_WORDS: Final = (
    # Mail clients and proxies that fetch images when a mail arrives, not when somebody looks at it.
    "googleimageproxy",
    "yahoomailproxy",
    "ggpht.com",
    # Scanners that follow links before anybody can.
    "barracuda",
    "proofpoint",
    "mimecast",
    "symantec",
    "messagelabs",
    "microsoft office existence discovery",
    "safelinks",
    "msoffice rmj",
)
"""Not ``ms-office`` alone: that is how Outlook on a desktop calls itself when somebody reads a mail in it."""
_PREFETCHED_BY_APPLE: Final = "mozilla/5.0"
"""All that Apple's Mail Privacy Protection says of itself."""


def is_machine(user_agent: Any) -> bool:
    """Whether an open or a click with that user agent was a program's on its own account. An estimate: some hide."""
    if not isinstance(user_agent, str) or not user_agent:
        return False
    agent = user_agent.strip().lower()
    return agent == _PREFETCHED_BY_APPLE or any(word in agent for word in _MACHINE_WORDS) or is_bot(user_agent)


def build_click_properties(name: str, user_agent: Any = None, machine: bool = False) -> dict[str, Any]:
    """Properties of an open or a click: who looked, and whether that was a machine; of anything else, none.

    ``machine`` is what the tool itself knows.
    """
    if name not in _ENGAGEMENT_NAMES:
        return {}
    return {"user_agent": user_agent, "machine": machine or is_machine(user_agent)}


def find_custom_ids(values: Any) -> dict[str, Any]:
    """``user_id`` and ``anonymous_id`` among what the sender sent along: custom args, variables, metadata."""
    if not isinstance(values, dict):
        return {}
    ids: dict[str, Any] = {}
    for name, spellings in (("user_id", ("user_id", "userId")), ("anonymous_id", ("anonymous_id", "anonymousId"))):
        value = next((values[spelling] for spelling in spellings if values.get(spelling) not in (None, "")), None)
        if value is not None:
            ids[name] = value
    return ids


def extract_address(value: Any) -> Any:
    """The address alone of ``"A name <user@example.com>"``; of anything else nothing is taken away."""
    return parseaddr(value)[1] or value if isinstance(value, str) and "<" in value else value


def parse_object(value: Any) -> dict[str, Any]:
    """The members of an object, or of text that is one in JSON; of anything else, none."""
    parsed = _parse_json_text(value, "{")
    return parsed if isinstance(parsed, dict) else {}


def parse_list(value: Any) -> list[Any]:
    """A list, also of text that is one in JSON; anything else that is present alone in one."""
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
