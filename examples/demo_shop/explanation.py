"""Explanation endpoint of the demo shop: one visitor's stage, segments and touchpoints, with reasons.

The secret key stays on this server. The page cannot choose the customer: the visitor's cookie holds a secret whose hash
is the anonymous id, so a visitor can only ask about themselves.
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


def read_visitor_id(cookies: Mapping[str, str]) -> str | None:
    """Return the anonymous id derived from the visitor cookie, or None if the cookie is missing or invalid."""
    return derive_anonymous_id(cookies.get(VISITOR_COOKIE, ""))


async def explain_visitor(api: httpx.AsyncClient, visitor: str) -> dict[str, Any]:
    """Return ``{"known", "identities", "journey", "segments", "touchpoints", "as_of"}``.

    Raise httpx.HTTPError if Segue fails. Return only ``{"known": False}`` if Segue has no message of the visitor.
    """
    customer_path = f"/v1/customers/anonymous_id:{visitor}"
    paths = [
        customer_path,
        f"{customer_path}/touchpoints?limit={TOUCHPOINTS_MAX}",
        f"{customer_path}/journeys/{JOURNEY['key']}/explain",
        *(f"{customer_path}/segments/{segment['key']}/explain" for segment in SEGMENTS),
    ]
    responses = await asyncio.gather(*(api.get(path) for path in paths))
    if any(response.status_code == httpx.codes.NOT_FOUND for response in responses):
        return {"known": False}  # Segue has not received a message of this visitor yet.
    customer, timeline, journey, *segments = (response.raise_for_status().json() for response in responses)
    return {
        "known": True,
        "identities": customer["identities"],
        "journey": journey,
        "segments": segments,
        "touchpoints": [_touchpoint(item) for item in timeline["items"]],
        "as_of": journey["as_of"],
    }


def _touchpoint(item: dict[str, Any]) -> dict[str, Any]:
    visible = {name: item[name] for name in _SHOWN}
    return {**visible, "context": {name: item["context"].get(name) for name in _SHOWN_CONTEXT}}
