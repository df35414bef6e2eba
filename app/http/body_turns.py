"""Decompression and parsing of request bodies in turn, see :mod:`app.ingest.parsing_turns`."""

from __future__ import annotations

from typing import Final, TypeVar

from starlette.requests import Request

from app.formats.decompression import inflate_in_steps
from app.formats.steps import Steps
from app.http.dependencies import get_services

_Result = TypeVar("_Result")

_FIRST_STEPS_MAX: Final = 2
"""Steps of decompression before a small body, which can become a large one, waits for its turn."""


async def inflate_body(request: Request, body: bytes, *, is_known: bool) -> bytes:
    """Decompress a body in its turn. ``is_known`` is whether the key of the request has been checked.

    Raise the errors of :func:`inflate_in_steps`, or Overloaded if too many large bodies wait.
    """
    steps = inflate_in_steps(body, request.headers.get("content-encoding"), get_services(request).settings.limits)
    return await start_in_turn(request, steps, len(body), is_known=is_known)


async def start_in_turn(request: Request, steps: Steps[_Result], body_bytes: int, *, is_known: bool) -> _Result:
    """Run the first computation on a body, which decompresses it, in its turn. Raise Overloaded if too many wait."""
    turns = get_services(request).ingest.parsing_turns
    return await turns.run(steps, body_bytes, is_known=is_known, first_steps_max=_FIRST_STEPS_MAX)


async def parse_in_turn(request: Request, steps: Steps[_Result], content_bytes: int) -> _Result:
    """Run a further computation on a body in its turn. ``content_bytes`` is its decompressed size."""
    return await get_services(request).ingest.parsing_turns.run(steps, content_bytes, has_begun=True)
