"""Ingestion pipeline: SDK routes, webhooks, replays and imports submit their messages to :class:`Ingest`.

It runs these steps in order; their names are labels of the metric ``segue_step_seconds``:

- ``normalise``: convert the items of the envelope to messages, rejections and warnings. A large request waits for its
  turn (:mod:`app.ingest.parsing_turns`).
- ``check_plan``: warn about messages that violate the tracking plan, or move them to quarantine.
- ``append``: store new messages in the ledger and the log, and rejections in quarantine.
- ``record_conflicts``: store duplicates that differ from the stored message in quarantine.
- ``queue_erasures``: store erasure requests in the erasure queue.
- ``project``: update customers, their stages and segments, or ``defer`` this to the worker.

The steps from ``append`` on run inside one transaction (:mod:`app.ingest.group_commit`). After its COMMIT, the hooks in
:attr:`Ingest.after_commit` run, and then the receipt is returned.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import structlog

from app.config import Settings
from app.formats.segment import Envelope, Parsed, normalise_in_steps
from app.ingest.erasure_queue import RequestedErasure, build_erasures
from app.ingest.group_commit import GroupCommit
from app.ingest.parsing_turns import ParsingTurns
from app.ingest.pending_request import PendingRequest, Receipt
from app.ingest.source_stats import SourceStats
from app.observability.metrics import Metrics
from app.postgres.pool import Clock, Pool
from app.registry.registry import Registry
from app.touchpoint import Message, Peer, SourceView
from app.tracking_plan.check import MessagePlace, PlanViolation, check_plan

_log = structlog.get_logger(__name__)


class Submission(msgspec.Struct, kw_only=True):
    """The messages of one request.

    ``received_at`` is in microseconds since the epoch. ``size_bytes`` counts against the size limit of the queue.
    ``peer`` is the sender of the request; None if the operator imports or replays messages.
    """

    source: SourceView
    envelope: Envelope
    received_at: int
    size_bytes: int
    peer: Peer | None = None
    ignored: int = 0
    """Number of events of the tool that were skipped, because they do not concern a customer."""
    is_replay: bool = False
    """True for a replay from quarantine: its rejected messages are not stored in quarantine again."""


class DryRun(msgspec.Struct):
    """Result of a dry run: the receipt that :meth:`Ingest.submit` would have returned, and the parsed messages."""

    receipt: Receipt
    messages: list[Message]


class Ingest:
    """The ingestion pipeline of one process.

    The ``after_commit`` hooks are called once for each flush that stored messages.
    """

    def __init__(self, pool: Pool, registry: Registry, settings: Settings, clock: Clock, metrics: Metrics) -> None:
        self._registry = registry
        self._settings = settings
        self._metrics = metrics
        self.source_stats = SourceStats(pool, clock, metrics)
        self.parsing_turns = ParsingTurns(
            settings.queue_bytes_max,
            settings.unfinished_bytes_max,
            lambda: metrics.count_refused_client("body_memory"),
        )
        self.after_commit: list[Callable[[], None]] = []
        self.group_commit = GroupCommit(
            pool, registry, settings, clock, metrics, self.source_stats, self._run_after_commit
        )

    async def start(self) -> None:
        """Start the periodic write of statistics; flushes start only when a request arrives."""
        self.source_stats.start()

    async def stop(self) -> None:
        """Refuse new requests, complete all queued requests, and write the statistics."""
        await self.group_commit.stop()
        await self.source_stats.stop()

    async def submit(self, submission: Submission) -> Receipt:
        """Store the messages; return after COMMIT, when stage and segments already reflect them.

        Raises:
            Overloaded: the queue is full, or the database is unreachable. No message is acknowledged.
        """
        receipt = await self.group_commit.commit(await self._prepare(submission))
        self.source_stats.count_ignored(submission.source.key, submission.ignored)
        return receipt

    async def dry_run(self, submission: Submission) -> DryRun:
        """Run all steps of :meth:`submit`, including the projection, and roll them back.

        Raise Overloaded if the database is unreachable.
        """
        request = await self._prepare(submission)
        messages = [message for _, message in request.parsed.messages]
        return DryRun(await self.group_commit.dry_run(request), messages)

    async def _prepare(self, submission: Submission) -> PendingRequest:
        """Run the steps before the transaction: normalise and check_plan."""
        with self._metrics.time_step("normalise"):
            steps = normalise_in_steps(
                submission.envelope, submission.source, submission.received_at, self._settings, submission.peer
            )
            parsed = await self.parsing_turns.run(steps, submission.size_bytes, has_begun=True)
        parsed, violations = self._check_plan(parsed)
        return PendingRequest(
            source=submission.source.key,
            trust=submission.source.trust,
            parsed=parsed,
            size_bytes=submission.size_bytes,
            violations=violations,
            erasures=self._build_erasures(submission),
            quarantines_rejections=bool(parsed.messages) or not submission.is_replay,
        )

    def _check_plan(self, parsed: Parsed) -> tuple[Parsed, dict[MessagePlace, PlanViolation]]:
        plan = self._registry.plans.plan
        if not plan.entries:
            return parsed, {}
        with self._metrics.time_step("check_plan"):
            return check_plan(plan, parsed)

    def _build_erasures(self, submission: Submission) -> list[RequestedErasure]:
        identities = submission.envelope.erasures
        if not identities:
            return []
        return build_erasures(identities, submission.source.key, submission.received_at, self._settings)

    def _run_after_commit(self) -> None:
        for hook in self.after_commit:
            try:
                hook()
            except Exception:  # noqa: BLE001 - the messages are committed, and the other hooks must still run
                _log.exception("hook.failed", hook=getattr(hook, "__qualname__", repr(hook)))
