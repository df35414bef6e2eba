"""Group commit: many requests, one transaction, one receipt each.

Requests that arrive while a flush is in flight form the next flush. So requests share commits without a timer, and an
idle service responds after a single commit.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Final

import msgspec
import structlog

from app.config import Settings
from app.errors import Overloaded, Rejection, RejectionCode
from app.identity.object_owners import attribute_objects
from app.identity.resolver import NeighbourhoodTooLarge
from app.ingest.erasure_queue import queue_erasures
from app.ingest.event_log import QuarantineRow, append_messages, defer_messages, encode_original, record_conflicts
from app.ingest.pending_request import (
    NO_EXTRA_ROWS,
    Entry,
    ExtraRows,
    FlushOutcome,
    PendingRequest,
    Receipt,
    enter_outcomes,
    separate_twins,
)
from app.ingest.source_stats import SourceStats
from app.observability.metrics import Metrics
from app.postgres.pool import UNREACHABLE, Clock, Connection, Pool, transact
from app.projection.project import project_messages
from app.registry.registry import Registry

log = structlog.get_logger(__name__)


_FAILED_ALONE_MAX: Final = 3
_FLUSHES_MAX: Final = 2
_UNREACHABLE: Final = "The database is unreachable; try again later."
_FAILED: Final = "The messages could not be stored; send them again later."
_QUEUE_FULL: Final = "Too many messages are waiting to be stored; try again later."
_STOPPING: Final = "The server is stopping; send the messages again."
_SECOND_FLUSH_MESSAGES: Final = 200
"""Number of waiting messages that starts a second flush, which computes while the first one waits for PostgreSQL."""

_SLOW_FLUSH_SECONDS: Final = 0.03
"""Duration of a flush after which small requests no longer wait for it, but get a flush of their own."""

_EXPRESS_FLUSHES_MAX: Final = 2
"""Maximum number of flushes of small requests beside slow ones."""

_SMALL_REQUEST_MESSAGES: Final = 10


class GroupCommit:
    """The only writer of the event log in this process: a queue of requests, and the flushes that empty it.

    A flush stores the messages of several requests in one transaction. ``after_commit`` is called once for each flush
    that stored new messages.
    """

    def __init__(
        self,
        pool: Pool,
        registry: Registry,
        settings: Settings,
        clock: Clock,
        metrics: Metrics,
        source_stats: SourceStats,
        after_commit: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._registry = registry
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._source_stats = source_stats
        self._after_commit = after_commit
        self._queue: deque[PendingRequest] = deque()
        self._queue_bytes = 0
        self._queue_messages = 0
        self._flushes: set[asyncio.Task[None]] = set()
        self._slow_flushes: set[asyncio.Task[None]] = set()
        self._closing = False

    async def stop(self) -> None:
        """Refuse new requests, and return after all queued requests have completed."""
        self._closing = True
        while self._flushes:
            await asyncio.wait(self._flushes)

    async def commit(self, request: PendingRequest) -> Receipt:
        """Store the messages; return after COMMIT, when stage and segments already reflect them.

        A request with nothing to commit returns at once, after its rejections are counted.

        Raises:
            Overloaded: the queue is full, or the database is unreachable. The client can retry: messages that were
                stored before the error are then duplicates.
        """
        if request.is_empty:
            with _log_failures():
                self._count_outcomes(request)
            return request.receipt
        if self._closing or self._queue_bytes + request.size_bytes > self._settings.queue_bytes_max:
            raise Overloaded(_STOPPING if self._closing else _QUEUE_FULL)
        request.answer = asyncio.get_running_loop().create_future()
        self._queue.append(request)
        self._queue_bytes += request.size_bytes
        self._queue_messages += request.size
        self._metrics.set_queue(self._queue_bytes, len(self._queue))
        self._flush_if_due()
        return await request.answer

    async def dry_run(self, request: PendingRequest) -> Receipt:
        """Return the receipt that :meth:`commit` would return, but roll back the transaction and its projection.

        Raise Overloaded if the database is unreachable.
        """
        try:
            try:
                outcome = await self._write_and_roll_back(request)
            except NeighbourhoodTooLarge as error:
                outcome = await self._write_and_roll_back(request, defer_reason=type(error).__name__)
        except UNREACHABLE as error:
            raise Overloaded from error
        enter_outcomes(outcome)
        return request.receipt

    async def _write_and_roll_back(self, request: PendingRequest, defer_reason: str | None = None) -> FlushOutcome:
        async with self._pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            try:
                extra_rows = ExtraRows((), request.erasures)
                return await self._write(connection, request.entries, extra_rows, defer_reason)
            finally:
                await transaction.rollback()

    def _flush_if_due(self) -> None:
        """Start a flush if none is in flight, or another one if many messages wait or all flushes in flight are slow.

        The second flush computes while the first one waits for PostgreSQL. If only a few messages are queued, they wait
        for the first flush to end, so that they share a commit with later ones. If it is slow, small requests do not
        wait: it has a customer with a long history, or waits for a customer that is locked. Large requests keep their
        place in the queue, so under a load of large requests the number of flushes stays the same.
        """
        if not self._queue:
            return
        in_flight = len(self._flushes)
        if in_flight < _FLUSHES_MAX and (not in_flight or self._queue_messages >= _SECOND_FLUSH_MESSAGES):
            self._start_flush(self._dequeue())
        elif in_flight < _FLUSHES_MAX + _EXPRESS_FLUSHES_MAX and self._slow_flushes == self._flushes:
            requests = self._dequeue(_SMALL_REQUEST_MESSAGES)
            if requests:
                self._start_flush(requests)

    def _start_flush(self, requests: Sequence[PendingRequest]) -> None:
        flush = asyncio.create_task(self._flush(requests), name="flush")
        self._flushes.add(flush)
        timer = asyncio.get_running_loop().call_later(_SLOW_FLUSH_SECONDS, self._mark_slow, flush)
        flush.add_done_callback(lambda flush: self._end_flush(flush, timer))

    def _mark_slow(self, flush: asyncio.Task[None]) -> None:
        self._slow_flushes.add(flush)
        self._flush_if_due()

    def _end_flush(self, flush: asyncio.Task[None], timer: asyncio.TimerHandle) -> None:
        timer.cancel()
        self._flushes.discard(flush)
        self._slow_flushes.discard(flush)
        self._flush_if_due()

    def _dequeue(self, request_messages_max: int | None = None) -> list[PendingRequest]:
        """Remove and return the requests of the next flush: at least one, up to the maximum number of messages.

        With ``request_messages_max``, skip larger requests.
        """
        requests: list[PendingRequest] = []
        skipped: list[PendingRequest] = []
        messages = 0
        while self._queue and (not requests or messages < self._settings.flush_messages_max):
            request = self._queue.popleft()
            if request_messages_max is not None and request.size > request_messages_max:
                skipped.append(request)
                continue
            self._queue_bytes -= request.size_bytes
            messages += request.size
            requests.append(request)
        self._queue.extendleft(reversed(skipped))
        self._queue_messages -= messages
        self._metrics.set_queue(self._queue_bytes, len(self._queue))
        return requests

    async def _flush(self, requests: Sequence[PendingRequest]) -> None:
        entries = [entry for request in requests for entry in request.entries]
        extra_rows = ExtraRows(
            [row for request in requests for row in request.quarantine_rows],
            [erasure for request in requests for erasure in request.erasures],
        )
        failure: Overloaded | None = None
        try:
            await self._store(entries, extra_rows)
        except Overloaded:
            failure = Overloaded(_UNREACHABLE)
        except Exception:
            log.exception("flush.failed", messages=len(entries))
            failure = Overloaded(_FAILED)
        # Run the hook even if the flush failed, because some of its messages may be committed.
        if any(request.receipt.accepted for request in requests):
            with _log_failures():
                self._after_commit()
        for request in requests:
            _resolve(request, failure or request.receipt)
        if failure is not None:
            return
        with _log_failures():
            self._metrics.observe_flush(len(entries))
            for request in requests:
                self._count_outcomes(request)

    def _count_outcomes(self, request: PendingRequest) -> None:
        receipt = request.receipt
        self._metrics.count_outcome("duplicate", receipt.duplicate)
        self._metrics.count_outcome("rejected", receipt.rejected)
        self._source_stats.count_duplicates(request.source, receipt.duplicate)
        for code, times in Counter(rejection.code for rejection in receipt.rejections).items():
            self._metrics.count_rejections(code, times)
            self._source_stats.count_rejected(request.source, code, times)
        if request.violations:
            for rejection in receipt.rejections:
                if (violation := request.violations.get((rejection.index, rejection.message_id))) is not None:
                    self._source_stats.count_violation(violation)
        for warning in receipt.warnings:
            self._source_stats.count_warning(request.source, warning)

    def _report_outcome(self, stored: FlushOutcome) -> None:
        """Add a committed outcome to receipts and statistics.

        Plan violations are counted for new messages only, because those of a duplicate were counted before.
        """
        enter_outcomes(stored)
        if not stored.fresh:
            return
        with _log_failures():
            self._metrics.count_outcome("accepted", len(stored.fresh))
            self._source_stats.count_accepted(entry.message for entry in stored.fresh)
            for entry in stored.fresh:
                if entry.violation is not None:
                    self._source_stats.count_violation(entry.violation)

    async def _store(
        self, entries: Sequence[Entry], extra_rows: ExtraRows = NO_EXTRA_ROWS, failed_alone: list[str] | None = None
    ) -> None:
        """Store entries in one transaction. If it fails, store the two halves separately, and so on recursively.

        ``failed_alone`` collects the error class of each single message that failed. After a few failures the cause is
        probably not the messages. The remaining ones are then deferred to the worker at once, to save time.
        """
        failed_alone = [] if failed_alone is None else failed_alone
        defer_reason = failed_alone[-1] if len(failed_alone) >= _FAILED_ALONE_MAX and entries else None
        try:
            stored = await transact(
                self._pool, lambda connection: self._write(connection, entries, extra_rows, defer_reason)
            )
        except UNREACHABLE as error:
            raise Overloaded from error
        except NeighbourhoodTooLarge as error:
            # A message that names only an object has the large neighbourhood of the object's owner.
            crowded = [entry for entry in entries if error.concerns(entry.message)] or entries
            await self._defer_crowded(crowded, error)
            others = [] if crowded is entries else [entry for entry in entries if not error.concerns(entry.message)]
            if others or extra_rows:
                await self._store(others, extra_rows, failed_alone)
        except Exception as error:
            if extra_rows and entries:
                # Store quarantine rows and erasure requests last, so that an erasure is queued only after the
                # messages of its request are stored.
                await self._store(entries, failed_alone=failed_alone)
                await self._store([], extra_rows)
            elif len(entries) > 1:
                middle = len(entries) // 2
                await self._store(entries[:middle], failed_alone=failed_alone)
                await self._store(entries[middle:], failed_alone=failed_alone)
            elif entries:
                await self._store_alone(entries[0], error, failed_alone)
            else:
                raise
        else:
            self._report_outcome(stored)

    async def _defer_crowded(self, crowded: Sequence[Entry], error: NeighbourhoodTooLarge) -> None:
        """Append the messages that need a large part of the identity graph, and let the worker project them."""
        reason = type(error).__name__
        log.warning("messages.deferred", messages=len(crowded), reason=reason)
        try:
            stored = await transact(
                self._pool, lambda connection: self._write(connection, crowded, NO_EXTRA_ROWS, reason)
            )
        except UNREACHABLE as unreachable:
            raise Overloaded from unreachable
        self._report_outcome(stored)

    async def _store_alone(self, entry: Entry, error: Exception, failed_alone: list[str]) -> None:
        """Append a message whose projection failed to the log, and defer its projection to the worker.

        If that fails too, quarantine the message.
        """
        reason = type(error).__name__
        log.error("message.projection_failed", exc_info=error)
        try:
            stored = await transact(
                self._pool, lambda connection: self._write(connection, [entry], NO_EXTRA_ROWS, reason)
            )
        except UNREACHABLE as unreachable:
            raise Overloaded from unreachable
        except Exception as storing_error:  # noqa: BLE001 - the message is quarantined with this error
            await self._quarantine(entry, storing_error)
        else:
            self._report_outcome(stored)
            failed_alone.append(reason)

    async def _quarantine(self, entry: Entry, error: Exception) -> None:
        message, code = entry.message, RejectionCode.UNSTORABLE
        reason = f"{code.meaning} ({type(error).__name__})"
        rejection = Rejection(entry.index, code, reason, message.message_id, encode_original(message))
        row = QuarantineRow(
            message.source,
            message.received_at,
            code,
            reason,
            message.message_id,
            rejection.original,
            trust=message.trust,
        )
        await self._store([], ExtraRows([row]))
        entry.receipt.rejected += 1
        entry.receipt.rejections.append(rejection)

    async def _write(
        self,
        connection: Connection,
        entries: Sequence[Entry],
        extra_rows: ExtraRows,
        defer_reason: str | None = None,
    ) -> FlushOutcome:
        """Run the steps of a flush inside the caller's transaction. The step names are labels of a metric."""
        entries = await _attribute_objects(connection, entries)
        first, twins = separate_twins(entries)
        with self._metrics.time_step("append"):
            revision, fresh_keys = await append_messages(
                connection, list(first), [entry.message for entry in first.values()], extra_rows.quarantine
            )
        fresh = [entry for key, entry in first.items() if key in fresh_keys]
        twins += [entry for key, entry in first.items() if key not in fresh_keys]
        if twins:
            with self._metrics.time_step("record_conflicts"):
                await record_conflicts(connection, [entry.message for entry in twins])
        if extra_rows.erasures:
            with self._metrics.time_step("queue_erasures"):
                await queue_erasures(connection, extra_rows.erasures)
        messages = [entry.message for entry in fresh]
        unprojected_keys: AbstractSet[bytes] = frozenset()
        if defer_reason is not None:
            with self._metrics.time_step("defer"):
                await defer_messages(connection, messages, defer_reason)
            unprojected_keys = fresh_keys
        elif messages:
            ruleset = await self._registry.rules.read_at(connection, revision)
            now = max(self._clock.now(), max(message.received_at for message in messages))
            with self._metrics.time_step("project"):
                unprojected_keys = await project_messages(connection, messages, ruleset, now, self._settings)
        return FlushOutcome(fresh, twins, unprojected_keys)


@contextmanager
def _log_failures() -> Iterator[None]:
    """Log exceptions instead of raising them: a committed message is acknowledged even if a hook or a count fails."""
    try:
        yield
    except Exception:
        log.exception("flush.report_failed")


def _resolve(request: PendingRequest, answer: Receipt | Overloaded) -> None:
    """Pass the receipt or error to the request that waits for it, unless its client has disconnected."""
    if request.answer is None or request.answer.done():
        return
    if isinstance(answer, Receipt):
        request.answer.set_result(answer)
    else:
        request.answer.set_exception(answer)


async def _attribute_objects(connection: Connection, entries: Sequence[Entry]) -> Sequence[Entry]:
    """Return the entries with messages that name persons instead of objects; see ``app.identity.object_owners``."""
    messages = [entry.message for entry in entries]
    attributed = await attribute_objects(connection, messages)
    if attributed is messages:
        return entries
    return [msgspec.structs.replace(entry, message=message) for entry, message in zip(entries, attributed, strict=True)]
