"""What the panel asks the shop's own server: the standing of one visitor, with reasons and touchpoints.

The secret key stays here. Whom the answer is about is not the page's choice either: the visitor's cookie holds a
proof, and the anonymous id is its hash, so that nobody can ask about somebody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import httpx

from app.registry.visitor_tokens import derive_anonymous_id
from examples.demo_shop.definitions import JOURNEY, SEGMENTS

VISITOR_COOKIE: Final = "segue_v"
TOUCHPOINTS_MAX: Final = 30

_SHOWN: Final = ("message_id", "source", "type", "name", "channel", "occurred_at", "properties", "traits")
_SHOWN_CONTEXT: Final = ("channel_rule", "acquisition", "client", "sessionId")


def visitor_of(cookies: Mapping[str, str]) -> str | None:
    """The anonymous id that the page's cookie proves, or None where there is no such cookie."""
    return derive_anonymous_id(cookies.get(VISITOR_COOKIE, ""))


async def why(api: httpx.AsyncClient, visitor: str) -> dict[str, Any]:
    """``{"known", "identities", "journey", "segments", "touchpoints", "as_of"}``. Raises httpx.HTTPError."""
    at = f"/v1/customers/anonymous_id:{visitor}"
    paths = [
        at,
        f"{at}/touchpoints?limit={TOUCHPOINTS_MAX}",
        f"{at}/journeys/{JOURNEY['key']}/explain",
        *(f"{at}/segments/{segment['key']}/explain" for segment in SEGMENTS),
    ]
    answers = await asyncio.gather(*(api.get(path) for path in paths))
    if any(answer.status_code == httpx.codes.NOT_FOUND for answer in answers):
        return {"known": False}  # nothing of the visitor has arrived yet
    customer, timeline, journey, *segments = (answer.raise_for_status().json() for answer in answers)
    return {
        "known": True,
        "identities": customer["identities"],
        "journey": journey,
        "segments": segments,
        "touchpoints": [_touchpoint(item) for item in timeline["items"]],
        "as_of": journey["as_of"],
    }


def _touchpoint(item: dict[str, Any]) -> dict[str, Any]:
    shown = {name: item[name] for name in _SHOWN}
    return {**shown, "context": {name: item["context"].get(name) for name in _SHOWN_CONTEXT}}
