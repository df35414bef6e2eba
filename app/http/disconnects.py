"""Long work for a caller who may hang up meanwhile: what nobody waits for holds no slot and no snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from starlette.requests import ClientDisconnect, Request

POLL_SECONDS: Final = 1.0
"""So often is looked whether the caller is still there."""

_Result = TypeVar("_Result")


async def run_until_disconnect(request: Request, work: Coroutine[Any, Any, _Result]) -> _Result:
    """What ``work`` returns or raises. The body must have been read. Raises :class:`ClientDisconnect`.

    The work is at an end, finished or cancelled, when this is left.
    """
    task = asyncio.create_task(work)
    try:
        while not (await asyncio.wait([task], timeout=POLL_SECONDS))[0]:
            if await request.is_disconnected():
                raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        await asyncio.wait([task])
