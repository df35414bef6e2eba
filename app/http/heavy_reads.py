"""Reads over all customers: where they run, and how many at a time."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from contextlib import closing, contextmanager
from typing import Any, Final, TypeVar

from starlette.requests import Request

from app.errors import Overloaded
from app.http.disconnects import run_until_disconnect
from app.queries.replay_limit import HeavyRead

HEAVY_READS_MAX: Final = 2
_RETRY_SECONDS: Final = 5

_Result = TypeVar("_Result")


class HeavyReads:
    """Runs reads over all customers, a few at a time. With ``runs_here`` False, leaves them to another process."""

    def __init__(self, *, runs_here: bool, slots: int = HEAVY_READS_MAX) -> None:
        self._runs_here = runs_here
        self._slots = slots
        self._free_slots = slots

    async def run(self, request: Request, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Return what ``work`` returns; cancel it if the client disconnects.

        Raises:
            HeavyRead: the background process must answer this request.
            Overloaded: too many such reads are already running.
        """
        if not self._runs_here:
            work.close()
            raise HeavyRead
        with closing(work), self.acquire_slot():
            return await run_until_disconnect(request, work)

    @contextmanager
    def acquire_slot(self) -> Iterator[None]:
        """Hold one slot. Raise :class:`Overloaded` if none is free."""
        if not self._free_slots:
            raise Overloaded(
                f"{self._slots} reads over all customers are already running; try again later.", _RETRY_SECONDS
            )
        self._free_slots -= 1
        try:
            yield
        finally:
            self._free_slots += 1
