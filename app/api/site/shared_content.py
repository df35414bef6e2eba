"""Content that is the same for every client: built once, in a thread, and shared by all responses.

A response refers to the content without copying it, so a client that does not read its response holds no memory. The
kernel copies it, which takes up to a millisecond. So the responses begin one after another, and other requests are
served in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

_Content = TypeVar("_Content")


class SharedContent:
    """The content of one application, by key."""

    def __init__(self) -> None:
        self._contents: dict[Hashable, asyncio.Task[Any]] = {}
        self._thread = asyncio.Lock()
        self._turn = asyncio.Lock()

    async def get(self, key: Hashable, build: Callable[[], _Content]) -> _Content:
        """Return the content of this key, and build it at the first request. Later requests wait for the same content.

        Raise what ``build`` raises; the next request then builds the content again.
        """
        async with self._turn:
            await asyncio.sleep(0)  # At most one response begins in each pass of the event loop.
        content = self._contents.get(key)
        if content is None:
            content = self._contents[key] = asyncio.create_task(self._build(key, build))
        return await asyncio.shield(content)  # Other requests wait for it too.

    async def _build(self, key: Hashable, build: Callable[[], _Content]) -> _Content:
        """Build in a thread; one at a time, because every thread competes with the event loop for the interpreter."""
        try:
            async with self._thread:
                return await asyncio.to_thread(build)
        except BaseException:
            del self._contents[key]
            raise
