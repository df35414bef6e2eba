"""Accepting messages: many requests, one transaction, one receipt each.

Requests that arrive while a flush is in flight form the next one, so commits are shared without a timer and an idle
service answers at the cost of one commit.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec
import structlog

from app.config import Settings
from app.errors import Overloaded, Rejection, RejectionCode
from app.formats.segment import Parsed
from app.ingest.event_log import QuarantineRow, append, defer, original_of, record_conflicts
from app.ingest.source_stats import SourceStats
from app.observability.metrics import Metrics
from app.postgres.pool import UNREACHABLE, Clock, Connection, Pool, transact
from app.projection.project import project
from app.registry import Registry
from app.touchpoint import Message, Warning
from app.tracking_plan.check import MessagePlace, PlanViolation, check_plan

log = structlog.get_logger(__name__)


_ALONE_MAX: Final = 3
_FLUSHES_MAX: Final = 2
_SECOND_FLUSH_MESSAGES: Final = 200
"""From so many waiting messages on, a second flush computes while the first one waits for the database."""


class Receipt(msgspec.Struct):
    """What became of each message of one request; the counts add up to what was sent."""

    accepted: int = 0
    duplicate: int = 0
    rejected: int = 0
    projected: bool = True
    rejections: list[Rejection] = []
    warnings: list[Warning] = []


class _Request(msgspec.Struct):
    source: str
    parsed: Parsed
    size_bytes: int
    answer: asyncio.Future[Receipt]
    receipt: Receipt
    broken: dict[MessagePlace, PlanViolation] = {}
    """What does not keep to the tracking plan."""

    def broken_of(self, index: int, message: Message) -> PlanViolation | None:
        return self.broken.get((index, message.message_id))


class _Entry(msgspec.Struct):
    """One message on its way; knows the receipt that will speak of it."""

    message: Message
    index: int
    receipt: Receipt
    broken: PlanViolation | None = None


class _Stored(msgspec.Struct):
    """What one transaction did, entered into receipts only after its COMMIT."""

    fresh: list[_Entry]
    duplicates: list[_Entry]
    projected: bool


class GroupCommit:
    """The one writer of the log in this process: a queue, and the flushes that empty it."""

    def __init__(self, pool: Pool, registry: Registry, settings: Settings, clock: Clock, metrics: Metrics) -> None:
        self._pool = pool
        self._registry = registry
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self.source_stats = SourceStats(pool, clock, metrics)
        self._queue: deque[_Request] = deque()
        self._queue_bytes = 0
        self._queue_messages = 0
        self._flushes: set[asyncio.Task[None]] = set()
        self._closing = False

    async def start(self) -> None:
        """But for the tally, nothing runs until something arrives."""
        self.source_stats.start()

    async def stop(self) -> None:
        """Answer everything that waits, then end. New requests are refused from here on."""
        self._closing = True
        while self._flushes:
            await asyncio.wait(self._flushes)
        await self.source_stats.stop()

    async def accept(self, source: str, parsed: Parsed, size_bytes: int) -> Receipt:
        """Store the messages; returns after COMMIT, when stage and segments already reflect them.

        Raises:
            Overloaded: too much is waiting, or the database cannot be reached. Send it again: what was stored before
                it went away is then a duplicate.
        """
        if self._closing or self._queue_bytes + size_bytes > self._settings.queue_bytes_max:
            raise Overloaded
        parsed, broken = check_plan(self._registry.plans.plan, parsed)
        receipt = _receipt_of(parsed)
        request = _Request(source, parsed, size_bytes, asyncio.get_running_loop().create_future(), receipt, broken)
        self._queue.append(request)
        self._queue_bytes += size_bytes
        self._queue_messages += len(parsed.messages)
        self._metrics.queue(self._queue_bytes, len(self._queue))
        self._flush_if_due()
        return await request.answer

    async def rehearse(self, parsed: Parsed) -> Receipt:
        """What :meth:`accept` would answer: all of it is done, projection too, and taken back. Raises Overloaded."""
        parsed, _ = check_plan(self._registry.plans.plan, parsed)
        receipt = _receipt_of(parsed)
        entries = [_Entry(message, index, receipt) for index, message in parsed.messages]
        try:
            async with self._pool.acquire() as connection:
                transaction = connection.transaction()
                await transaction.start()
                try:
                    _enter(await self._write(connection, entries, ()))
                finally:
                    await transaction.rollback()
        except UNREACHABLE as error:
            raise Overloaded from error
        return receipt

    def _flush_if_due(self) -> None:
        """Start a flush if none is in flight; a second one only for a full load, so that small ones share commits.

        While one waits for the database the other one computes.
        """
        if self._queue and (
            not self._flushes or (len(self._flushes) < _FLUSHES_MAX and self._queue_messages >= _SECOND_FLUSH_MESSAGES)
        ):
            flush = asyncio.create_task(self._flush_next(), name="flush")
            self._flushes.add(flush)
            flush.add_done_callback(self._flushed)

    def _flushed(self, flush: asyncio.Task[None]) -> None:
        self._flushes.discard(flush)
        self._flush_if_due()

    async def _flush_next(self) -> None:
        requests = self._take()
        if requests:
            await self._flush(requests)

    def _take(self) -> list[_Request]:
        """The next flush: whole requests, up to the bound on messages, at least one."""
        requests: list[_Request] = []
        messages = 0
        while self._queue and (not requests or messages < self._settings.flush_messages_max):
            request = self._queue.popleft()
            self._queue_bytes -= request.size_bytes
            messages += len(request.parsed.messages)
            requests.append(request)
        self._queue_messages -= messages
        self._metrics.queue(self._queue_bytes, len(self._queue))
        return requests

    async def _flush(self, requests: Sequence[_Request]) -> None:
        entries = [
            _Entry(message, index, request.receipt, request.broken_of(index, message) if request.broken else None)
            for request in requests
            for index, message in request.parsed.messages
        ]
        now = self._clock.now()
        refused = [
            QuarantineRow(
                request.source,
                request.parsed.received_at or now,
                rejection.code,
                rejection.message,
                rejection.message_id,
                rejection.original,
                rejection.form,
            )
            for request in requests
            for rejection in request.parsed.rejections
            if rejection.kept
        ]
        try:
            await self._store(entries, refused)
        except Exception as error:
            if not isinstance(error, Overloaded):
                log.exception("flush failed", messages=len(entries))
            for request in requests:
                _answer(request, Overloaded("the database cannot be reached; send it again later"))
            return
        for request in requests:
            _answer(request, request.receipt)
        with _whatever_counting_does():
            self._metrics.flushed(len(entries))
            for request in requests:
                self._count(request)

    def _count(self, request: _Request) -> None:
        receipt = request.receipt
        for outcome in ("accepted", "duplicate", "rejected"):
            self._metrics.outcome(outcome, getattr(receipt, outcome))
        self.source_stats.duplicate(request.source, receipt.duplicate)
        for rejection in receipt.rejections:
            self._metrics.rejection(rejection.code)
            self.source_stats.rejected(request.source, rejection.code)
            if (broken := request.broken.get((rejection.index, rejection.message_id))) is not None:
                self._count_broken(broken)
        for warning in receipt.warnings:
            self.source_stats.warned(request.source, warning)

    def _count_broken(self, broken: PlanViolation) -> None:
        message = broken.message
        self.source_stats.violated(
            message.source, message.name or "", broken.mode, broken.violations, message.properties
        )

    def _enter(self, stored: _Stored) -> None:
        """Tell receipts and tally what is in the log since just now; a duplicate breaks the plan no second time."""
        _enter(stored)
        with _whatever_counting_does():
            self.source_stats.accepted(entry.message for entry in stored.fresh)
            for entry in stored.fresh:
                if entry.broken is not None:
                    self._count_broken(entry.broken)

    async def _store(
        self, entries: Sequence[_Entry], refused: Sequence[QuarantineRow] = (), alone: list[str] | None = None
    ) -> None:
        """One transaction; if it fails on what it holds, two of half the size, down to the message that fails alone.

        ``alone`` are the failures of single messages so far: after a few of them it is not the messages, and the rest
        is kept for the worker at once instead of failing one by one.
        """
        alone = [] if alone is None else alone
        deferred_because = alone[-1] if len(alone) >= _ALONE_MAX and entries else None
        try:
            stored = await transact(
                self._pool, lambda connection: self._write(connection, entries, refused, deferred_because)
            )
        except UNREACHABLE as error:
            raise Overloaded from error
        except Exception as error:
            if refused and entries:
                await self._store([], refused)
                await self._store(entries, (), alone)
            elif len(entries) > 1:
                middle = len(entries) // 2
                await self._store(entries[:middle], (), alone)
                await self._store(entries[middle:], (), alone)
            elif entries:
                await self._store_alone(entries[0], error, alone)
            else:
                raise
        else:
            self._enter(stored)

    async def _store_alone(self, entry: _Entry, error: Exception, alone: list[str]) -> None:
        """A message that fails by itself: keep it in the log for the worker; if even that fails, in quarantine."""
        reason = type(error).__name__
        log.error("a message failed alone", exc_info=error)
        try:
            stored = await transact(self._pool, lambda connection: self._write(connection, [entry], (), reason))
        except UNREACHABLE as unreachable:
            raise Overloaded from unreachable
        except Exception as again:
            await self._refuse(entry, again)
        else:
            self._enter(stored)
            alone.append(reason)

    async def _refuse(self, entry: _Entry, error: Exception) -> None:
        message, code = entry.message, RejectionCode.UNSTORABLE
        reason = f"{code.meaning} ({type(error).__name__})"
        rejection = Rejection(entry.index, code, reason, message.message_id, original_of(message))
        row = QuarantineRow(message.source, message.received_at, code, reason, message.message_id, rejection.original)
        await self._store([], [row])
        entry.receipt.rejected += 1
        entry.receipt.rejections.append(rejection)

    async def _write(
        self,
        connection: Connection,
        entries: Sequence[_Entry],
        refused: Sequence[QuarantineRow],
        deferred_because: str | None = None,
    ) -> _Stored:
        """The flush, step by step, inside the caller's transaction. Step names are the metric's labels."""
        first, twins = _part_twins(entries)
        with self._metrics.step("append"):
            revision, fresh_keys = await append(
                connection, list(first), [entry.message for entry in first.values()], refused
            )
        fresh = [entry for key, entry in first.items() if key in fresh_keys]
        twins += [entry for key, entry in first.items() if key not in fresh_keys]
        if twins:
            with self._metrics.step("record_conflicts"):
                await record_conflicts(connection, [entry.message for entry in twins])
        messages = [entry.message for entry in fresh]
        if deferred_because is not None:
            await defer(connection, messages, deferred_because)
        elif messages:
            ruleset = await self._registry.ruleset_at(connection, revision)
            now = max(self._clock.now(), max(message.received_at for message in messages))
            with self._metrics.step("project"):
                await project(connection, messages, ruleset, now, self._settings)
        return _Stored(fresh, twins, projected=deferred_because is None)


def _receipt_of(parsed: Parsed) -> Receipt:
    return Receipt(rejected=len(parsed.rejections), rejections=list(parsed.rejections), warnings=list(parsed.warnings))


@contextmanager
def _whatever_counting_does() -> Iterator[None]:
    """What is committed is acknowledged: no fault of what only counts it may say otherwise."""
    try:
        yield
    except Exception:
        log.exception("counting failed")


def _answer(request: _Request, answer: Receipt | Overloaded) -> None:
    """Tell the waiting handler, unless its client has gone."""
    if request.answer.done():
        return
    if isinstance(answer, Receipt):
        request.answer.set_result(answer)
    else:
        request.answer.set_exception(answer)


def _enter(stored: _Stored) -> None:
    for entry in stored.fresh:
        entry.receipt.accepted += 1
    for entry in stored.duplicates:
        entry.receipt.duplicate += 1
    if not stored.projected:
        for entry in stored.fresh:
            entry.receipt.projected = False


def _part_twins(entries: Sequence[_Entry]) -> tuple[dict[bytes, _Entry], list[_Entry]]:
    """The first of each message of this flush, in key order so that flushes lock alike; and later copies of them."""
    first: dict[bytes, _Entry] = {}
    twins: list[_Entry] = []
    for entry in entries:
        if first.setdefault(entry.message.key, entry) is not entry:
            twins.append(entry)
    return dict(sorted(first.items())), twins
