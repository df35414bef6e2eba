"""Visitors who are watched: one poller in a process finds out for all open streams what has changed.

It asks one cheap statement for all of them: which row stands for each identity, and which version of it. Only those
whose row is another one, whose answer was due to change by itself, or whose rules are other ones, are looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from app.config import Settings
from app.errors import Overloaded, RateLimited
from app.postgres.pool import UNREACHABLE, Clock, Pool
from app.queries.customers import CustomerQueries
from app.queries.public_profile import PublicProfile, identities_of, public_profile_of
from app.registry.access import WriteKeyGrant
from app.registry.registry import Registry
from app.registry.visitor_tokens import Visitor, vouched_at
from app.touchpoint import SECOND

_POLL_SECONDS: Final = 0.4
"""What other processes store is seen after this time; what this one stores at once (:meth:`LiveUpdates.nudge`)."""
_REST_SECONDS: Final = 0.05
_AWAY_SECONDS: Final = 2.0
_CHUNK: Final = 100
_RETRY_SECONDS: Final = 30
_OF_ONE_VISITOR_MAX: Final = 20

_ROWS = """
-- Which customer each watched identity has, and the transaction that wrote its row last. Primary keys.
SELECT i.id, c.id AS customer, c.xmin::text AS version
FROM identities i JOIN customers c ON c.id = i.customer_id
WHERE i.id = ANY($1::uuid[])
"""

_log = structlog.get_logger(__name__)

Seen = tuple[tuple[bytes, bytes, str], ...]


class WatchedCustomer:
    """One open stream. ``due`` is when its answer changes by itself; ``latest`` the last answer, not yet taken."""

    def __init__(self, visitor: Visitor, write_key: str, signing: bytes, origin: str | None) -> None:
        self.visitor = visitor
        self.write_key = write_key
        self.origin = origin
        """Of the page that watches, where it says so."""
        self.signing = signing
        """The secret of its first hour: once that is revoked, its tokens are."""
        self.ids = identities_of(visitor)
        self.seen: Seen | None = None
        self.due: int | None = None
        self.closed = False
        self.latest: PublicProfile | None = None
        self._news = asyncio.Event()

    async def next(self, seconds: float) -> PublicProfile | None:
        """The next answer, which may say what the last one said; None after so many seconds, or once closed."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), max(seconds, 0))
        self._news.clear()
        latest, self.latest = self.latest, None
        return latest

    def tell(self, answer: PublicProfile) -> None:
        self.latest = answer
        self._news.set()

    def close(self) -> None:
        self.closed = True
        self._news.set()


class LiveUpdates:
    """All open streams of this process, up to ``streams_max`` of the settings."""

    def __init__(self, pool: Pool, registry: Registry, settings: Settings, clock: Clock) -> None:
        self._pool = pool
        self._registry = registry
        self._settings = settings
        self._clock = clock
        self._views = CustomerQueries(pool, registry, settings)
        self._open: set[WatchedCustomer] = set()
        self._news = asyncio.Event()
        self._revisions = (-1, -1)
        self._poller: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    def start(self) -> None:
        self._poller = asyncio.create_task(self._poll(), name="streams")

    async def stop(self) -> None:
        for watched in self._open:
            watched.close()
        if self._poller is not None:
            self._poller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poller

    @contextmanager
    def open(self, visitor: Visitor, write_key: str, origin: str | None = None) -> Iterator[WatchedCustomer]:
        """The first answer follows at once."""
        watched = WatchedCustomer(visitor, write_key, self._registry.access.current.signing_keys[-1], origin)
        self._open.add(watched)
        self._news.set()
        try:
            yield watched
        finally:
            self._open.discard(watched)

    def refuse_if_full(self, visitor: Visitor) -> None:
        """Raises :class:`RateLimited` where the visitor has too many, :class:`Overloaded` where all together have."""
        ids = identities_of(visitor)
        if sum(watched.ids == ids for watched in self._open) >= _OF_ONE_VISITOR_MAX:
            raise RateLimited(f"A visitor may have {_OF_ONE_VISITOR_MAX} streams open.", _RETRY_SECONDS)
        if len(self._open) >= self._settings.streams_max:
            raise Overloaded(f"{self._settings.streams_max} streams are open; ask again later.", _RETRY_SECONDS)

    def nudge(self) -> None:
        """Something was stored: whoever watches need not wait for the next poll."""
        if self._open:
            self._news.set()

    async def _poll(self) -> None:
        while True:
            await self._until_news()
            try:
                await self.look()
                await asyncio.sleep(_REST_SECONDS)
            except UNREACHABLE as error:
                _log.warning("streams.database_away", error=type(error).__name__)
                await asyncio.sleep(_AWAY_SECONDS)
            except Exception:  # nothing that goes wrong may end the streams of all
                _log.exception("streams.failed")
                await asyncio.sleep(_AWAY_SECONDS)

    async def _until_news(self) -> None:
        """Until somebody says so, the earliest answer is due, or it is time to ask; with nobody there, for ever."""
        seconds: float | None = None
        if self._open:
            due = min((watched.due for watched in self._open if watched.due is not None), default=None)
            ahead = _POLL_SECONDS if due is None else (due - self._clock.now()) / SECOND
            seconds = max(min(_POLL_SECONDS, ahead), 0)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), seconds)
        self._news.clear()

    async def look(self) -> None:
        """Tell every stream whose answer may be another one."""
        watching = list(self._open)
        if not watching:
            return
        now = self._clock.now()
        revisions = (self._registry.rules.current.revision, self._registry.access.current.revision)
        rows = {row["id"]: tuple(row) for row in await self._pool.fetch(_ROWS, _all_ids(watching))}
        seen = {watched: tuple(rows[id] for id in watched.ids if id in rows) for watched in watching}
        changed = [
            watched
            for watched in watching
            if revisions != self._revisions
            or watched.seen != seen[watched]
            or (watched.due is not None and watched.due <= now)
        ]
        for start in range(0, len(changed), _CHUNK):
            await self._tell_some(changed[start : start + _CHUNK], now)
        for watched in changed:
            watched.seen = seen[watched]
        self._revisions = revisions

    async def _tell_some(self, changed: list[WatchedCustomer], now: int) -> None:
        """Where they cannot be told together, one by one: who cannot be read must not keep the others waiting."""
        try:
            await self._tell(changed, now)
        except UNREACHABLE:
            raise
        except Exception:
            _log.exception("streams.failed", streams=len(changed))
            if len(changed) == 1:
                changed[0].close()
                return
            for watched in changed:
                await self._tell_some([watched], now)

    async def _tell(self, changed: list[WatchedCustomer], now: int) -> None:
        """What was seen is older than what is read here: a change in between is seen, and told, once more."""
        visitors = [vouched_at(watched.visitor, now) for watched in changed]
        customers = await self._views.customers([identities_of(visitor) for visitor in visitors], now)
        for watched, visitor, customer in zip(changed, visitors, customers, strict=True):
            key = await self._registry.access.write_key(watched.write_key)
            if key is None or not self._may_go_on(watched, key):
                watched.close()
                continue
            answer = public_profile_of(
                customer,
                visitor,
                trusts_identify=key.trusts_identify,
                public_traits=self._settings.public_traits,
                now=now,
            )
            watched.due = min(
                (at for at in (answer.valid_until, visitor.vouched_until) if at is not None), default=None
            )
            watched.tell(answer)

    def _may_go_on(self, watched: WatchedCustomer, key: WriteKeyGrant) -> bool:
        """What was asked when it was opened must still be so."""
        for_page = watched.origin is None or key.admits(watched.origin)
        return for_page and watched.signing in self._registry.access.current.signing_keys


def _all_ids(watching: Iterable[WatchedCustomer]) -> list[bytes]:
    return list({id for watched in watching for id in watched.ids})
