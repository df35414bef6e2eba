"""Replay of quarantined messages: one row or many, unchanged or corrected. Each row is stored only once.

Every message has an id: its own, or one derived from its row. So a second replay is a duplicate, also if it runs
concurrently or after a crash between storing and marking. Only a correction that changes the message id stores an
additional message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Literal, get_args

import msgspec
import structlog

from app.config import Settings
from app.errors import InvalidBody, NotFound, Overloaded, RejectionCode
from app.ingest.event_log import CONFLICTING_TWIN, mark_replayed
from app.ingest.pending_request import Receipt
from app.ingest.submit import Ingest, Submission
from app.postgres.pool import Clock, Pool
from app.quarantine.patch import Patch, Unpatchable, reparse_patched
from app.quarantine.search import QuarantinedMessage, QuarantineQuery, QuarantineSearch
from app.registry.registry import Registry

_CONCURRENT_ROWS: Final = 50
"""Number of rows that are replayed concurrently, so that they share flushes."""

Outcome = Literal["accepted", "duplicate", "rejected", "unpatchable", "failed"]

log = structlog.get_logger(__name__)


class ReplayResult(msgspec.Struct, frozen=True):
    """The outcome of one row. ``code`` and ``reason`` explain a failure; ``body`` is the text that was replayed."""

    id: int
    source: str
    message_id: str | None
    outcome: Outcome
    code: str | None = None
    reason: str | None = None
    body: bytes = b""


class QuarantineReplayer:
    def __init__(self, pool: Pool, registry: Registry, ingest: Ingest, settings: Settings, clock: Clock) -> None:
        self._pool = pool
        self._search = QuarantineSearch(pool)
        self._registry = registry
        self._ingest = ingest
        self._settings = settings
        self._clock = clock

    async def replay_one(self, id: int, corrected: bytes) -> Receipt:
        """Submit a row unchanged, or as ``corrected`` if it is not empty. Raise NotFound, InvalidBody or Overloaded."""
        row = await self._search.read_one(id)
        return await self._replay(row, corrected or row.original)

    async def replay_page(
        self, query: QuarantineQuery, after: int, limit: int, patch: Patch | None, *, dry_run: bool
    ) -> tuple[list[ReplayResult], int | None]:
        """Submit the oldest rows with an id above ``after``; return their results and ``after`` of the next page.

        A row that is rejected again stays unchanged.
        """
        page = await self._search.list_oldest(query, after, limit)
        if dry_run:
            return [await self._try_row(row, patch, dry_run=True) for row in page.rows], page.next
        slots = asyncio.Semaphore(_CONCURRENT_ROWS)

        async def replay_in_slot(row: QuarantinedMessage) -> ReplayResult:
            async with slots:
                return await self._try_row(row, patch, dry_run=False)

        return list(await asyncio.gather(*map(replay_in_slot, page.rows))), page.next

    async def _try_row(self, row: QuarantinedMessage, patch: Patch | None, *, dry_run: bool) -> ReplayResult:
        """Replay one row; a failure becomes its result and does not affect other rows."""
        try:
            body = row.original if patch is None else patch.apply(row.original)
        except Unpatchable as error:
            return _build_failure(row, "unpatchable", None, str(error))
        try:
            receipt = await (self._dry_run(row, body) if dry_run else self._replay(row, body))
        except (InvalidBody, NotFound, Overloaded) as error:
            return _build_failure(row, "failed", error.code, error.message, body)
        return _build_result(row, receipt, body)

    async def _replay(self, row: QuarantinedMessage, body: bytes) -> Receipt:
        receipt = await self._ingest.submit(self._build_submission(row, body))
        if _is_only_erasure(receipt):
            receipt.accepted = receipt.erasures
        if _is_accepted(row, receipt):
            await mark_replayed(self._pool, [row.id], self._clock.now())
        return receipt

    async def _dry_run(self, row: QuarantinedMessage, body: bytes) -> Receipt:
        submission = self._build_submission(row, body)
        try:
            return (await self._ingest.dry_run(submission)).receipt
        except Overloaded:
            raise
        except Exception as error:  # A replay would quarantine the message as unstorable.
            log.error("replay.dry_run_failed", exc_info=error)
            raise InvalidBody(RejectionCode.UNSTORABLE.meaning) from None

    def _build_submission(self, row: QuarantinedMessage, body: bytes) -> Submission:
        """Build the submission with the row's original time of receipt, so that the message keeps its time.

        The bot filter is off: a replay is a decision to accept the message.
        """
        source = self._registry.access.current.sources.get(row.source)
        if source is None:
            raise NotFound(f"The source {row.source} of this message no longer exists.")
        webhook_source = self._registry.access.current.webhook_sources.get(row.source)
        options = {} if webhook_source is None else webhook_source.options
        limits = self._settings.limits
        envelope = reparse_patched(body, row.id, row.original, row.form, row.received_at, limits, options)
        return Submission(
            source=msgspec.structs.replace(source, bots="keep", trust=row.trust),
            envelope=envelope,
            received_at=row.received_at,
            size_bytes=len(body),
            is_replay=True,
        )


def _is_accepted(row: QuarantinedMessage, receipt: Receipt) -> bool:
    """Return whether the row's message is stored, so that the row counts as replayed.

    A duplicate counts as stored, except for a conflicting twin: the log contains different content with its id.
    """
    if receipt.accepted or _is_only_erasure(receipt):
        return True
    return receipt.duplicate > 0 and row.code != CONFLICTING_TWIN


def _is_only_erasure(receipt: Receipt) -> bool:
    """Return whether the row was only an erasure request, which counts as accepted once it is queued."""
    return receipt.erasures > 0 and not (receipt.accepted or receipt.duplicate or receipt.rejected)


def _build_result(row: QuarantinedMessage, receipt: Receipt, body: bytes) -> ReplayResult:
    if receipt.accepted or receipt.duplicate or _is_only_erasure(receipt):
        outcome: Outcome = "duplicate" if receipt.duplicate and not receipt.accepted else "accepted"
        return ReplayResult(row.id, row.source, row.message_id, outcome, body=body)
    if not receipt.rejections:
        return _build_failure(row, "failed", None, "the body does not contain a message", body)
    first = receipt.rejections[0]
    return _build_failure(row, "rejected", first.code, first.message, body)


def _build_failure(
    row: QuarantinedMessage, outcome: Outcome, code: str | None, reason: str | None, body: bytes = b""
) -> ReplayResult:
    return ReplayResult(row.id, row.source, row.message_id, outcome, code, reason, body)


def count_outcomes(results: Sequence[ReplayResult]) -> dict[str, int]:
    """Return the number of results by outcome."""
    counts = dict.fromkeys(get_args(Outcome), 0)
    for result in results:
        counts[result.outcome] += 1
    return counts
