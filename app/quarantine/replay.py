"""Letting in what stood in quarantine, one row or many, as it was or corrected; each row is stored once.

Every message has an id: its own, or one that follows from its row. So whoever replays it a second time, at the same
moment or after a crash between storing and marking, meets a duplicate; only who corrects it to another id of its own
says that it is another message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Literal

import msgspec
import structlog

from app.config import Settings
from app.errors import InvalidBody, NotFound, Overloaded, RejectionCode
from app.formats.segment import Parsed, normalise
from app.formats.web_context import KEEP_BOTS
from app.ingest.event_log import CONFLICTING_TWIN
from app.ingest.group_commit import GroupCommit, Receipt
from app.postgres.pool import Clock, Pool
from app.privacy.erasure_requests import request_erasures
from app.quarantine import patch
from app.quarantine.patch import Patch, Unpatchable
from app.quarantine.search import QuarantinedMessage, QuarantineQuery, QuarantineSearch
from app.registry import Registry
from app.tracking_plan.check import check_plan

_AT_A_TIME: Final = 50
"""They wait for common flushes."""

Outcome = Literal["accepted", "duplicate", "rejected", "unpatchable", "failed"]

log = structlog.get_logger(__name__)


class ReplayResult(msgspec.Struct, frozen=True):
    """What became of one row. ``code`` and ``reason`` where it was not let in; ``body`` is what was read."""

    id: int
    source: str
    message_id: str | None
    outcome: Outcome
    code: str | None = None
    reason: str | None = None
    body: bytes = b""


class QuarantineReplayer:
    def __init__(self, pool: Pool, registry: Registry, ingest: GroupCommit, settings: Settings, clock: Clock) -> None:
        self._pool = pool
        self._views = QuarantineSearch(pool)
        self._registry = registry
        self._ingest = ingest
        self._settings = settings
        self._clock = clock

    async def one(self, id: int, corrected: bytes) -> Receipt:
        """As it was, or as ``corrected`` says. Raises NotFound, InvalidBody and Overloaded."""
        kept = await self._views.one(id)
        receipt = await self._replay(kept, corrected or kept.original)
        if _is_in(kept, receipt):
            await self._views.mark_replayed([id], self._clock.now())
        return receipt

    async def many(
        self, wanted: QuarantineQuery, after: int, limit: int, patch: Patch | None, *, dry_run: bool
    ) -> tuple[list[ReplayResult], int | None]:
        """The oldest rows behind ``after``, and behind which id to go on. What is still rejected stays as it is."""
        page = await self._views.oldest(wanted, after, limit)
        if dry_run:
            return [await self._try_one(kept, patch, dry_run=True) for kept in page.rows], page.next
        turns = asyncio.Semaphore(_AT_A_TIME)

        async def in_turn(kept: QuarantinedMessage) -> ReplayResult:
            async with turns:
                return await self._try_one(kept, patch, dry_run=False)

        return list(await asyncio.gather(*map(in_turn, page.rows))), page.next

    async def _try_one(self, kept: QuarantinedMessage, patch: Patch | None, *, dry_run: bool) -> ReplayResult:
        """No row costs its neighbours anything."""
        try:
            body = kept.original if patch is None else patch.apply(kept.original)
        except Unpatchable as error:
            return _failed(kept, "unpatchable", None, str(error))
        try:
            receipt = await (self._rehearse(kept, body) if dry_run else self._replay(kept, body))
        except (InvalidBody, NotFound, Overloaded) as error:
            return _failed(kept, "failed", error.code, error.message, body)
        if not dry_run and _is_in(kept, receipt):
            await self._views.mark_replayed([kept.id], self._clock.now())
        return _told(kept, receipt, body)

    async def _replay(self, kept: QuarantinedMessage, body: bytes) -> Receipt:
        parsed = self._parsed(kept, body)
        asked = [] if parsed.envelope is None else parsed.envelope.erasures
        if asked:
            await request_erasures(self._pool, kept.source, asked, kept.received_at, self._settings)
        if not parsed.messages:
            # What is rejected stays where it is, and does not stand there a second time.
            rejected = parsed.rejections
            return Receipt(len(asked), rejected=len(rejected), rejections=rejected, warnings=parsed.warnings)
        return await self._ingest.accept(kept.source, parsed, len(body))

    async def _rehearse(self, kept: QuarantinedMessage, body: bytes) -> Receipt:
        parsed = self._parsed(kept, body)
        try:
            return await self._ingest.rehearse(parsed)
        except Overloaded:
            raise
        except Exception as error:  # what would make it fail alone, and be kept as unstorable
            log.error("a rehearsal failed", exc_info=error)
            raise InvalidBody(RejectionCode.UNSTORABLE.meaning) from None

    def _parsed(self, kept: QuarantinedMessage, body: bytes) -> Parsed:
        """Read as of its own arrival: by the clock of the replay it would have happened later than it did.

        Whether it is a bot's is not asked again. The tracking plan is, here already: what does not keep to it is not to
        be put into quarantine once more.
        """
        source = self._registry.access.sources.get(kept.source)
        if source is None:
            raise NotFound(f"Its source {kept.source} is no more.")
        hook = self._registry.access.hooks.get(kept.source)
        options = {} if hook is None else hook.options
        limits = self._settings.limits
        envelope = patch.reparse_patched(body, kept.id, kept.original, kept.form, kept.received_at, limits, options)
        source = msgspec.structs.replace(source, bots=KEEP_BOTS)
        parsed = normalise(envelope, source, kept.received_at, self._settings)
        planned, _ = check_plan(self._registry.plans.plan, parsed)
        return msgspec.structs.replace(planned, warnings=parsed.warnings)  # those of the plan come with accepting


def _is_in(kept: QuarantinedMessage, receipt: Receipt) -> bool:
    """A twin that differs is a duplicate of what was accepted first, and is not in the log for all that."""
    return receipt.accepted > 0 or (receipt.duplicate > 0 and kept.code != CONFLICTING_TWIN)


def _told(kept: QuarantinedMessage, receipt: Receipt, body: bytes) -> ReplayResult:
    if receipt.accepted or receipt.duplicate:
        outcome: Outcome = "accepted" if receipt.accepted else "duplicate"
        return ReplayResult(kept.id, kept.source, kept.message_id, outcome, body=body)
    if not receipt.rejections:
        return _failed(kept, "failed", None, "it makes no message", body)
    first = receipt.rejections[0]
    return _failed(kept, "rejected", first.code, first.message, body)


def _failed(
    kept: QuarantinedMessage, outcome: Outcome, code: str | None, reason: str | None, body: bytes = b""
) -> ReplayResult:
    return ReplayResult(kept.id, kept.source, kept.message_id, outcome, code, reason, body)


def counts_of(items: Sequence[ReplayResult]) -> dict[str, int]:
    """How many became what."""
    counts = dict.fromkeys(("accepted", "duplicate", "rejected", "unpatchable", "failed"), 0)
    for each in items:
        counts[each.outcome] += 1
    return counts
