"""Cancellation of slow reads whose client has disconnected, so that they release their slot and snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from starlette.requests import ClientDisconnect, Request

POLL_SECONDS: Final = 0.25
"""Interval in seconds between two checks of the connection."""

_Result = TypeVar("_Result")


async def run_until_disconnect(request: Request, work: Coroutine[Any, Any, _Result]) -> _Result:
    """Return or raise what ``work`` does; cancel it and raise :class:`ClientDisconnect` if the client disconnects.

    The request body must have been read before. The work has finished or is cancelled when this function returns.
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
