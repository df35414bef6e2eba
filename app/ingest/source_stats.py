"""Source statistics: messages per hour, their outcomes, and violations of the tracking plan.

The counts are in memory and are written every few seconds. A crash loses the counts since the last write. They serve to
detect new, missing or excessive messages; only the event log is exact.

Owns the tables source_volumes, source_outcomes and plan_violations.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Final, TypeVar

import asyncpg
import msgspec
import structlog

from app.observability.metrics import Metrics
from app.postgres.periodic import PeriodicTask
from app.postgres.pool import Clock, Connection, Pool, transact
from app.touchpoint import DAY, HOUR, Message, Warning
from app.tracking_plan.check import PlanViolation
from app.tracking_plan.event_schema import build_sample

OTHER: Final = "(other)"
"""Name under which channels and events beyond NAMES_MAX are counted. It is not a valid name of a channel."""

NAMES_MAX: Final = 2_000
"""Maximum number of (channel, name) pairs of one source and day, in each process."""

VIOLATIONS_MAX: Final = 1_000
"""Maximum number of different violations that are counted between two writes."""

KEEP_DAYS: Final = 100

_FLUSH_SECONDS: Final = 5.0
_EXPIRY_INTERVAL: Final = HOUR

_ADD_VOLUMES = """
INSERT INTO source_volumes (source, hour, channel, name, messages)
SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::bigint[])
ON CONFLICT (source, hour, channel, name) DO UPDATE SET messages = source_volumes.messages + excluded.messages
"""

_ADD_OUTCOMES = """
INSERT INTO source_outcomes (source, hour, outcome, times, last_at)
SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::bigint[], $5::timestamptz[])
ON CONFLICT (source, hour, outcome) DO UPDATE
SET times = source_outcomes.times + excluded.times, last_at = greatest(source_outcomes.last_at, excluded.last_at)
"""

_ADD_VIOLATIONS = """
-- The sample is from the first message. The number of reasons is bounded by the size of the source's schemas.
INSERT INTO plan_violations (source, event, reason, messages, first_at, last_at, sample)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::timestamptz[], $6::timestamptz[],
                     $7::jsonb[])
ON CONFLICT (source, event, reason) DO UPDATE
SET messages = plan_violations.messages + excluded.messages,
    first_at = least(plan_violations.first_at, excluded.first_at),
    last_at = greatest(plan_violations.last_at, excluded.last_at)
"""

_DELETE_EXPIRED = (
    "DELETE FROM source_volumes WHERE hour < $1",
    "DELETE FROM source_outcomes WHERE hour < $1",
    "DELETE FROM plan_violations WHERE last_at < $1",
)

log = structlog.get_logger(__name__)

_Key = TypeVar("_Key", bound=tuple[str | int, ...])


class _OutcomeCount(msgspec.Struct):
    times: int
    last_at: int


class _ViolationCount(msgspec.Struct):
    messages: int
    first_at: int
    last_at: int
    sample: bytes


class _Counts(msgspec.Struct):
    """The counts since the last write."""

    volumes: dict[tuple[str, int, str, str], int] = {}
    outcomes: dict[tuple[str, int, str], _OutcomeCount] = {}
    violations: dict[tuple[str, str, str], _ViolationCount] = {}

    def __bool__(self) -> bool:
        return bool(self.volumes or self.outcomes or self.violations)


class SourceStats:
    """Counts the messages of all sources in one process, and writes the counts to the database."""

    def __init__(self, pool: Pool, clock: Clock, metrics: Metrics) -> None:
        self._pool = pool
        self._clock = clock
        self._metrics = metrics
        self._counts = _Counts()
        self._flushing = asyncio.Lock()
        self._names: dict[str, set[tuple[str, str]]] = {}
        self._names_of_day = 0
        self._expired_at = 0
        self._flush_task = PeriodicTask("source-stats", _FLUSH_SECONDS, self._flush_and_expire)

    def start(self) -> None:
        self._flush_task.start()

    async def stop(self) -> None:
        await self._flush_task.stop()

    def count_accepted(self, messages: Iterable[Message]) -> None:
        """Count messages that were just committed to the log."""
        volumes = self._counts.volumes
        by_source: dict[str, int] = {}
        for message in messages:
            source = message.source
            hour = message.received_at - message.received_at % HOUR
            channel, name = self._limit_names(source, hour, message.channel, message.name or message.type)
            key = (source, hour, channel, name)
            volumes[key] = volumes.get(key, 0) + 1
            by_source[source] = by_source.get(source, 0) + 1
        for source, times in by_source.items():
            self._count_outcome(source, "accepted", times)

    def count_duplicates(self, source: str, messages: int) -> None:
        self._count_outcome(source, "duplicate", messages)

    def count_rejected(self, source: str, code: str, times: int) -> None:
        """Count rejections with this code."""
        self._count_outcome(source, "rejected", times, code)

    def count_warning(self, source: str, warning: Warning) -> None:
        self._count_outcome(source, "warned", 1, f"{warning.code}:{warning.reason}" if warning.reason else warning.code)
        if warning.reason:
            self._metrics.count_unusable_contact(warning.code.partition("_")[0], warning.reason)

    def count_refused(self, source: str, reason: str) -> None:
        """Count a refused webhook request. ``reason`` is a code, such as ``stale`` for an expired signature."""
        self._count_outcome(source, "refused", 1, reason)

    def count_ignored(self, source: str, events: int) -> None:
        """Count events of a tool that were skipped, because they do not concern a customer."""
        self._count_outcome(source, "ignored", events)

    def count_violation(self, violation: PlanViolation) -> None:
        """Count one message that violates the tracking plan. The sample of its properties is masked and truncated."""
        message, now = violation.message, self._clock.now()
        self._metrics.count_plan_violation(violation.mode)
        for plan_violation in violation.violations:
            key = (message.source, message.name or "", plan_violation.reason)
            count = self._counts.violations.get(key)
            if count is not None:
                count.messages += 1
                count.last_at = now
            elif len(self._counts.violations) < VIOLATIONS_MAX:
                self._counts.violations[key] = _ViolationCount(1, now, now, build_sample(message.properties))

    def _limit_names(self, source: str, hour: int, channel: str, name: str) -> tuple[str, str]:
        """Return channel and name, or OTHER above the limit. Clients choose both, so their number must be limited."""
        day = hour - hour % DAY
        if day > self._names_of_day:
            self._names, self._names_of_day = {}, day
        names = self._names.get(source)
        if names is None:
            names = self._names[source] = set()
        pair = (channel, name)
        if pair in names:
            return pair
        if len(names) >= NAMES_MAX:
            return OTHER, OTHER
        names.add(pair)
        return pair

    def _count_outcome(self, source: str, outcome: str, times: int, detail: str = "") -> None:
        if not times:
            return
        now = self._clock.now()
        self._metrics.count_source_outcome(source, outcome, times, now)
        key = (source, now - now % HOUR, f"{outcome}:{detail}" if detail else outcome)
        count = self._counts.outcomes.get(key)
        if count is None:
            self._counts.outcomes[key] = _OutcomeCount(times, now)
        else:
            count.times += times
            count.last_at = now

    async def flush(self) -> None:
        """Write the counts to the database. When it returns, readers see all counts made before the call.

        If the database is unreachable, raise the error and keep the counts. Rows that the database rejects because of
        their values are dropped, because they would be rejected each time.
        """
        # Wait for a write in progress even if nothing is left to write, because it holds earlier counts.
        async with self._flushing:
            counts, self._counts = self._counts, _Counts()
            try:
                for name in counts.__struct_fields__:
                    if getattr(counts, name):
                        await self._write(name, counts)
                        setattr(counts, name, {})
            except BaseException:
                _merge_counts(counts, self._counts)
                self._counts = counts
                raise

    async def _write(self, name: str, counts: _Counts) -> None:
        """Write the counts of one table. Raise one of the UNREACHABLE errors if the database is unreachable."""
        try:
            await transact(self._pool, partial(_WRITERS[name], counts=counts))
        except (asyncpg.DataError, asyncpg.ProgramLimitExceededError):
            log.exception("source_stats.dropped", table=name)

    async def delete_expired(self) -> None:
        """Delete rows older than KEEP_DAYS, at most once per hour."""
        now = self._clock.now()
        if now - self._expired_at < _EXPIRY_INTERVAL:
            return
        self._expired_at = now
        for statement in _DELETE_EXPIRED:
            await self._pool.execute(statement, now - KEEP_DAYS * DAY)

    async def _flush_and_expire(self) -> None:
        await self.flush()
        await self.delete_expired()


# The rows are written in key order, so that two processes never deadlock.


async def _write_volumes(connection: Connection, counts: _Counts) -> None:
    rows = [(*key, messages) for key, messages in sorted(counts.volumes.items())]
    await connection.execute(_ADD_VOLUMES, *zip(*rows, strict=True))


async def _write_outcomes(connection: Connection, counts: _Counts) -> None:
    rows = [(*key, count.times, count.last_at) for key, count in _sort_by_key(counts.outcomes)]
    await connection.execute(_ADD_OUTCOMES, *zip(*rows, strict=True))


async def _write_violations(connection: Connection, counts: _Counts) -> None:
    rows = [
        (*key, count.messages, count.first_at, count.last_at, count.sample)
        for key, count in _sort_by_key(counts.violations)
    ]
    await connection.execute(_ADD_VIOLATIONS, *zip(*rows, strict=True))


_WRITERS: Final = {"volumes": _write_volumes, "outcomes": _write_outcomes, "violations": _write_violations}

_Value = TypeVar("_Value")


def _sort_by_key(counts: dict[_Key, _Value]) -> list[tuple[_Key, _Value]]:
    return sorted(counts.items(), key=lambda item: item[0])


def _merge_counts(counts: _Counts, later: _Counts) -> None:
    """Add ``later``, the counts collected during a failed write, to the counts that were not written."""
    for volume, messages in later.volumes.items():
        counts.volumes[volume] = counts.volumes.get(volume, 0) + messages
    for outcome_key, later_count in later.outcomes.items():
        count = counts.outcomes.setdefault(outcome_key, _OutcomeCount(0, 0))
        count.times += later_count.times
        count.last_at = max(count.last_at, later_count.last_at)
    for violation_key, later_violation in later.violations.items():
        violation = counts.violations.setdefault(
            violation_key, _ViolationCount(0, later_violation.first_at, later_violation.last_at, later_violation.sample)
        )
        violation.messages += later_violation.messages
        violation.last_at = max(violation.last_at, later_violation.last_at)
