"""What mails of every tool have in common: names of what happens to one, and opens and clicks of machines. Pure."""

from __future__ import annotations

from typing import Any, Final

from app.agents import is_bot

CHANNEL: Final = "email"

_MACHINES: Final = (
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
    "ms-office",
)
_PREFETCHED_BY_APPLE: Final = "mozilla/5.0"
"""All that Apple's Mail Privacy Protection says of itself."""


def is_machine(user_agent: Any) -> bool:
    """Whether an open or a click with that user agent was a program's on its own account. An estimate: some hide."""
    if not isinstance(user_agent, str) or not user_agent:
        return False
    agent = user_agent.strip().lower()
    return agent == _PREFETCHED_BY_APPLE or any(word in agent for word in _MACHINES) or is_bot(user_agent)


def custom_ids(values: Any) -> dict[str, Any]:
    """``user_id`` and ``anonymous_id`` among what the sender sent along: custom args, variables, metadata."""
    if not isinstance(values, dict):
        return {}
    found: dict[str, Any] = {}
    for name, spellings in (("user_id", ("user_id", "userId")), ("anonymous_id", ("anonymous_id", "anonymousId"))):
        value = next((values[each] for each in spellings if values.get(each) not in (None, "")), None)
        if value is not None:
            found[name] = value
    return found
