"""Live updates of visitors' profiles: one poller in each process updates all open streams.

One cheap statement reads, for all streams, the customer of each identity and the version of its row. The poller
computes a profile again only if its rows changed, if it was due to change through time alone, or if definitions or keys
changed.
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
from app.queries.public_profile import PublicProfile, public_profile_of
from app.queries.replay_limit import HeavyRead
from app.queries.visitor_customers import VisitorCustomers, identity_ids_of
from app.registry.access import WriteKeyGrant
from app.registry.registry import Registry
from app.registry.visitor_tokens import Visitor, drop_expired_vouch
from app.touchpoint import SECOND

_POLL_SECONDS: Final = 0.4
"""Polling interval in seconds, after which changes made by other processes are noticed. Changes made by this process
are noticed at once (`LiveUpdates.notify_change`)."""
_PAUSE_SECONDS: Final = 0.05
_UNREACHABLE_PAUSE_SECONDS: Final = 2.0
_CHUNK_STREAMS: Final = 100
_RETRY_AFTER_SECONDS: Final = 30
_STREAMS_PER_VISITOR_MAX: Final = 20

_ROWS = """
-- The customer of each watched identity, and the transaction that last wrote its row; primary keys.
SELECT i.id, c.id AS customer, c.xmin::text AS version
FROM identities i JOIN customers c ON c.id = i.customer_id
WHERE i.id = ANY($1::uuid[])
"""

_log = structlog.get_logger(__name__)

SeenRows = tuple[tuple[bytes, bytes, str], ...]


class VisitorStream:
    """One open stream.

    ``due`` is the instant at which the profile changes through time alone. ``latest_profile`` is a published profile
    that the stream has not sent yet.
    """

    def __init__(self, visitor: Visitor, write_key: str, signing: bytes, origin: str | None) -> None:
        self.visitor = visitor
        self.write_key = write_key
        self.origin = origin
        """Origin of the page, or None if the page did not send an origin."""
        self.signing = signing
        """Newest signing secret when the stream was opened; the stream ends when this secret is revoked."""
        self.ids = identity_ids_of(visitor)
        self.seen_rows: SeenRows | None = None
        self.due: int | None = None
        self.is_closed = False
        self.latest_profile: PublicProfile | None = None
        self._updated = asyncio.Event()

    async def wait_for_profile(self, seconds: float) -> PublicProfile | None:
        """Return the next profile, which may equal the previous one; None on timeout or when the stream is closed."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._updated.wait(), max(seconds, 0))
        self._updated.clear()
        profile, self.latest_profile = self.latest_profile, None
        return profile

    def publish(self, profile: PublicProfile) -> None:
        self.latest_profile = profile
        self._updated.set()

    def close(self) -> None:
        self.is_closed = True
        self._updated.set()


class LiveUpdates:
    """All open streams of this process, at most ``streams_max`` of the settings."""

    def __init__(self, pool: Pool, registry: Registry, settings: Settings, clock: Clock) -> None:
        self._pool = pool
        self._registry = registry
        self._settings = settings
        self._clock = clock
        self._visitor_customers = VisitorCustomers(pool, registry, settings)
        self._streams: set[VisitorStream] = set()
        self._change = asyncio.Event()
        self._revisions = (-1, -1)
        self._poller: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._streams)

    def start(self) -> None:
        self._poller = asyncio.create_task(self._poll(), name="streams")

    async def stop(self) -> None:
        for stream in self._streams:
            stream.close()
        if self._poller is not None:
            self._poller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poller

    @contextmanager
    def open_stream(self, visitor: Visitor, write_key: str, origin: str | None = None) -> Iterator[VisitorStream]:
        """Register a stream for the duration of the context; its first profile follows at once."""
        stream = VisitorStream(visitor, write_key, self._registry.access.current.signing_keys[-1], origin)
        self._streams.add(stream)
        self._change.set()
        try:
            yield stream
        finally:
            self._streams.discard(stream)

    def refuse_if_full(self, visitor: Visitor) -> None:
        """Raise :class:`RateLimited` or :class:`Overloaded` if the visitor or the process has too many open streams."""
        ids = identity_ids_of(visitor)
        if sum(stream.ids == ids for stream in self._streams) >= _STREAMS_PER_VISITOR_MAX:
            raise RateLimited(
                f"This visitor already has {_STREAMS_PER_VISITOR_MAX} open streams, the maximum; retry later.",
                _RETRY_AFTER_SECONDS,
            )
        if len(self._streams) >= self._settings.streams_max:
            raise Overloaded(
                f"The server already has {self._settings.streams_max} open streams, the maximum; retry later.",
                _RETRY_AFTER_SECONDS,
            )

    def notify_change(self) -> None:
        """Wake the poller after messages were stored, so that streams do not wait for the next poll."""
        if self._streams:
            self._change.set()

    async def _poll(self) -> None:
        while True:
            await self._wait_for_change()
            try:
                await self.poll_once()
                await asyncio.sleep(_PAUSE_SECONDS)
            except UNREACHABLE as error:
                _log.warning("streams.poll_failed", error=type(error).__name__)
                await asyncio.sleep(_UNREACHABLE_PAUSE_SECONDS)
            except Exception:  # noqa: BLE001 - a failure must not end every open stream
                _log.exception("streams.poll_failed")
                await asyncio.sleep(_UNREACHABLE_PAUSE_SECONDS)

    async def _wait_for_change(self) -> None:
        """Wait until a notification arrives, the next profile is due to change, or the poll interval has passed.

        If no stream is open, wait only for a notification.
        """
        seconds: float | None = None
        if self._streams:
            due = min((stream.due for stream in self._streams if stream.due is not None), default=None)
            seconds_ahead = _POLL_SECONDS if due is None else (due - self._clock.now()) / SECOND
            seconds = max(min(_POLL_SECONDS, seconds_ahead), 0)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._change.wait(), seconds)
        self._change.clear()

    async def poll_once(self) -> None:
        """Publish a profile to every stream whose profile may have changed."""
        streams = list(self._streams)
        if not streams:
            return
        now = self._clock.now()
        revisions = (self._registry.rules.current.revision, self._registry.access.current.revision)
        rows = {row["id"]: tuple(row) for row in await self._pool.fetch(_ROWS, _collect_identity_ids(streams))}
        rows_by_stream = {stream: tuple(rows[id] for id in stream.ids if id in rows) for stream in streams}
        changed = [
            stream
            for stream in streams
            if revisions != self._revisions
            or stream.seen_rows != rows_by_stream[stream]
            or (stream.due is not None and stream.due <= now)
        ]
        for start in range(0, len(changed), _CHUNK_STREAMS):
            await self._publish_chunk(changed[start : start + _CHUNK_STREAMS], now)
        for stream in changed:
            stream.seen_rows = rows_by_stream[stream]
        self._revisions = revisions

    async def _publish_chunk(self, changed: list[VisitorStream], now: int) -> None:
        """Publish profiles together, or one by one if that fails: an unreadable customer must not block the others."""
        try:
            await self._publish_profiles(changed, now)
        except UNREACHABLE:
            raise
        except HeavyRead:
            # A page whose visitor has a very long history keeps its profile until the worker has stored the state.
            if len(changed) == 1:
                return
        except Exception:  # noqa: BLE001 - every customer is then published alone
            _log.exception("streams.publish_failed", streams=len(changed))
            if len(changed) == 1:
                changed[0].close()
                return
        else:
            return
        for stream in changed:
            await self._publish_chunk([stream], now)

    async def _publish_profiles(self, changed: list[VisitorStream], now: int) -> None:
        """Publish a profile to each stream.

        Customers are read after the versions of their rows, so a change between the two reads is published twice.
        """
        visitors = [drop_expired_vouch(stream.visitor, now) for stream in changed]
        grants = [await self._registry.access.find_write_key(stream.write_key) for stream in changed]
        trusts = [grant is not None and grant.trusts_identify for grant in grants]
        parts = await self._visitor_customers.read(list(zip(visitors, trusts, strict=True)), now)
        for stream, visitor, grant, part in zip(changed, visitors, grants, parts, strict=True):
            if grant is None or not self._is_still_allowed(stream, grant):
                stream.close()
                continue
            profile = public_profile_of(
                part.customer,
                visitor,
                withheld=part.is_claimed,
                public_traits=self._settings.public_traits,
                now=now,
            )
            stream.due = min(
                (at for at in (profile.valid_until, visitor.vouched_until) if at is not None), default=None
            )
            stream.publish(profile)

    def _is_still_allowed(self, stream: VisitorStream, grant: WriteKeyGrant) -> bool:
        """Return True if the stream's origin and signing secret are still valid."""
        is_for_page = stream.origin is None or grant.allows_origin(stream.origin)
        return is_for_page and stream.signing in self._registry.access.current.signing_keys


def _collect_identity_ids(streams: Iterable[VisitorStream]) -> list[bytes]:
    return list({id for stream in streams for id in stream.ids})
