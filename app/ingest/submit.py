"""The one way in: every entrance (SDK routes, webhooks, replays, imports) hands its messages to :class:`Ingest`.

The steps, in order; their names are labels of the metric ``segue_step_seconds``:

===================  ==================================================================================
normalise            items of the envelope become messages, rejections and warnings
check_plan           messages that violate the tracking plan are warned about or moved to quarantine
append               new messages enter the ledger and the log, rejections enter quarantine
record_conflicts     duplicates that differ from the stored message enter quarantine
queue_erasures       people who asked to be forgotten enter the erasure queue
project              customers, their stages and segments follow (or ``defer``: the worker does it later)
===================  ==================================================================================

From ``append`` on the steps run inside one transaction (:mod:`app.ingest.group_commit`). After its COMMIT the hooks in
:attr:`Ingest.after_commit` run, and then the receipt is returned.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import structlog

from app.config import Settings
from app.formats.segment import Envelope, Parsed, normalise
from app.ingest.erasure_queue import RequestedErasure, build_erasures
from app.ingest.group_commit import GroupCommit, PendingRequest, Receipt
from app.ingest.source_stats import SourceStats
from app.observability.metrics import Metrics
from app.postgres.pool import Clock, Pool
from app.registry.registry import Registry
from app.touchpoint import Message, Peer, SourceView
from app.tracking_plan.check import MessagePlace, PlanViolation, check_plan

_log = structlog.get_logger(__name__)


class Submission(msgspec.Struct, kw_only=True):
    """The messages of one request, as an entrance hands them over.

    ``received_at`` is in microseconds since the epoch; ``size_bytes`` counts against the bound of the queue. ``peer``
    is who sent the request; None stands for the operator, who imports or replays.
    """

    source: SourceView
    envelope: Envelope
    received_at: int
    size_bytes: int
    peer: Peer | None = None
    ignored: int = 0
    """Events of a tool that concern no person."""
    is_replay: bool = False
    """A replay's rejections are in quarantine already, and are not put there a second time."""


class DryRun(msgspec.Struct):
    """What submitting would have done."""

    receipt: Receipt
    messages: list[Message]


class Ingest:
    """The one way in of this process. ``after_commit`` hooks are called once for each flush that stored messages."""

    def __init__(self, pool: Pool, registry: Registry, settings: Settings, clock: Clock, metrics: Metrics) -> None:
        self._registry = registry
        self._settings = settings
        self._metrics = metrics
        self.source_stats = SourceStats(pool, clock, metrics)
        self.after_commit: list[Callable[[], None]] = []
        self.group_commit = GroupCommit(
            pool, registry, settings, clock, metrics, self.source_stats, self._run_after_commit
        )

    async def start(self) -> None:
        """Start writing statistics; nothing else runs until something arrives."""
        self.source_stats.start()

    async def stop(self) -> None:
        """Answer every queued request, then end. New requests are refused from here on."""
        await self.group_commit.stop()
        await self.source_stats.stop()

    async def submit(self, submission: Submission) -> Receipt:
        """Store the messages; return after COMMIT, when stage and segments already reflect them.

        Raises:
            Overloaded: too much is waiting, or the database cannot be reached; nothing is acknowledged.
        """
        receipt = await self.group_commit.commit(self._prepare(submission))
        self.source_stats.count_ignored(submission.source.key, submission.ignored)
        return receipt

    async def dry_run(self, submission: Submission) -> DryRun:
        """Do what :meth:`submit` does, projection included, and roll it back. Raises Overloaded."""
        request = self._prepare(submission)
        messages = [message for _, message in request.parsed.messages]
        return DryRun(await self.group_commit.dry_run(request), messages)

    def _prepare(self, submission: Submission) -> PendingRequest:
        """The steps before the transaction: normalise and check_plan."""
        with self._metrics.time_step("normalise"):
            parsed = normalise(
                submission.envelope, submission.source, submission.received_at, self._settings, submission.peer
            )
        parsed, violations = self._check_plan(parsed)
        return PendingRequest(
            source=submission.source.key,
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
            except Exception:  # noqa: BLE001 - what is committed is acknowledged, and the other hooks run
                _log.exception("hook.failed", hook=getattr(hook, "__qualname__", repr(hook)))
