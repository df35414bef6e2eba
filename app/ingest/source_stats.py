"""How sources are doing: what arrives by hour, what became of it, how the tracking plan was broken.

Counted in memory, written down every few seconds; what was counted since the last write is lost with the process. It
is there to notice what is new, missing or too much, not to account for single messages: the log does that.

Owns the tables source_volumes, source_outcomes and plan_violations.
"""

from __future__ import annotations

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
from app.tracking_plan.event_schema import sample_of

OTHER: Final = "(other)"
"""Stands for all that is more than a source may have of names. No channel is called so, and an event would have to."""

NAMES_MAX: Final = 2_000
"""Pairs of channel and name of one source and day, in each process."""

VIOLATIONS_MAX: Final = 1_000
"""Ways in which the plan was broken, between two writes."""

KEEP_DAYS: Final = 100

_FLUSH_SECONDS: Final = 5.0
_FORGET_EVERY: Final = HOUR

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
-- The sample is that of the first message; a source has only as many reasons as its schemas have places.
INSERT INTO plan_violations (source, event, reason, messages, first_at, last_at, sample)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::timestamptz[], $6::timestamptz[],
                     $7::jsonb[])
ON CONFLICT (source, event, reason) DO UPDATE
SET messages = plan_violations.messages + excluded.messages,
    first_at = least(plan_violations.first_at, excluded.first_at),
    last_at = greatest(plan_violations.last_at, excluded.last_at)
"""

_FORGET = (
    "DELETE FROM source_volumes WHERE hour < $1",
    "DELETE FROM source_outcomes WHERE hour < $1",
    "DELETE FROM plan_violations WHERE last_at < $1",
)

log = structlog.get_logger(__name__)

_Key = TypeVar("_Key", bound=tuple[str | int, ...])


class _Outcome(msgspec.Struct):
    times: int
    last_at: int


class _Violated(msgspec.Struct):
    messages: int
    first_at: int
    last_at: int
    sample: bytes


class _Counted(msgspec.Struct):
    """Since the last write."""

    volumes: dict[tuple[str, int, str, str], int] = {}
    outcomes: dict[tuple[str, int, str], _Outcome] = {}
    violations: dict[tuple[str, str, str], _Violated] = {}

    def __bool__(self) -> bool:
        return bool(self.volumes or self.outcomes or self.violations)


class SourceStats:
    """The counts of one process."""

    def __init__(self, pool: Pool, clock: Clock, metrics: Metrics) -> None:
        self._pool = pool
        self._clock = clock
        self._metrics = metrics
        self._counted = _Counted()
        self._names: dict[str, set[tuple[str, str]]] = {}
        self._names_of_day = 0
        self._forgot_at = 0
        self._writing = PeriodicTask("tally", _FLUSH_SECONDS, self._write_and_forget)

    def start(self) -> None:
        self._writing.start()

    async def stop(self) -> None:
        await self._writing.stop()

    def accepted(self, messages: Iterable[Message]) -> None:
        """Messages that are in the log since just now."""
        volumes = self._counted.volumes
        by_source: dict[str, int] = {}
        for message in messages:
            source = message.source
            hour = message.received_at - message.received_at % HOUR
            channel, name = self._named(source, hour, message.channel, message.name or message.type)
            key = (source, hour, channel, name)
            volumes[key] = volumes.get(key, 0) + 1
            by_source[source] = by_source.get(source, 0) + 1
        for source, times in by_source.items():
            self._outcome(source, "accepted", times)

    def duplicate(self, source: str, messages: int) -> None:
        self._outcome(source, "duplicate", messages)

    def rejected(self, source: str, code: str) -> None:
        """``code`` of a rejection."""
        self._outcome(source, "rejected", 1, code)

    def warned(self, source: str, warning: Warning) -> None:
        self._outcome(source, "warned", 1, f"{warning.code}:{warning.reason}" if warning.reason else warning.code)
        if warning.reason:
            self._metrics.count_unusable_contact(warning.code.partition("_")[0], warning.reason)

    def refused(self, source: str, reason: str) -> None:
        """A delivery was not taken at all, such as for a wrong signature. ``reason`` is a word of ours."""
        self._outcome(source, "refused", 1, reason)

    def ignored(self, source: str, events: int) -> None:
        """Events of a tool that concern nobody."""
        self._outcome(source, "ignored", events)

    def violated(self, violation: PlanViolation) -> None:
        """Count one message that violates the tracking plan; its properties are masked and bounded."""
        message, now = violation.message, self._clock.now()
        self._metrics.count_plan_violation(violation.mode)
        for reason in violation.violations:
            key = (message.source, message.name or "", reason.reason)
            known = self._counted.violations.get(key)
            if known is not None:
                known.messages += 1
                known.last_at = now
            elif len(self._counted.violations) < VIOLATIONS_MAX:
                self._counted.violations[key] = _Violated(1, now, now, sample_of(message.properties))

    def _named(self, source: str, hour: int, channel: str, name: str) -> tuple[str, str]:
        """Channel and name, or what stands for the surplus: clients choose both, and there must be an end to it."""
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

    def _outcome(self, source: str, outcome: str, times: int, detail: str = "") -> None:
        if not times:
            return
        now = self._clock.now()
        self._metrics.count_source_outcome(source, outcome, times, now)
        key = (source, now - now % HOUR, f"{outcome}:{detail}" if detail else outcome)
        known = self._counted.outcomes.get(key)
        if known is None:
            self._counted.outcomes[key] = _Outcome(times, now)
        else:
            known.times += times
            known.last_at = now

    async def flush(self) -> None:
        """Write down what was counted. A database that is away is raised, and then nothing is lost.

        What the database refuses for what it says is given up, by itself: it would be refused for ever.
        """
        counted, self._counted = self._counted, _Counted()
        try:
            for name in counted.__struct_fields__:
                if getattr(counted, name):
                    await self._write(name, counted)
                    setattr(counted, name, {})
        except BaseException:
            _add(counted, self._counted)
            self._counted = counted
            raise

    async def _write(self, name: str, counted: _Counted) -> None:
        """One table's; raises what UNREACHABLE names."""
        try:
            await transact(self._pool, partial(_WRITE[name], counted=counted))
        except (asyncpg.DataError, asyncpg.ProgramLimitExceededError):
            log.exception("tally.refused", table=name)

    async def forget(self) -> None:
        """What is older than KEEP_DAYS is of no use to anybody."""
        now = self._clock.now()
        if now - self._forgot_at < _FORGET_EVERY:
            return
        self._forgot_at = now
        for statement in _FORGET:
            await self._pool.execute(statement, now - KEEP_DAYS * DAY)

    async def _write_and_forget(self) -> None:
        await self.flush()
        await self.forget()


# In the order of their keys, so that two processes never wait for each other in a ring.


async def _write_volumes(connection: Connection, counted: _Counted) -> None:
    rows = [(*key, messages) for key, messages in sorted(counted.volumes.items())]
    await connection.execute(_ADD_VOLUMES, *zip(*rows, strict=True))


async def _write_outcomes(connection: Connection, counted: _Counted) -> None:
    outcomes = [(*key, each.times, each.last_at) for key, each in _sorted(counted.outcomes)]
    await connection.execute(_ADD_OUTCOMES, *zip(*outcomes, strict=True))


async def _write_violations(connection: Connection, counted: _Counted) -> None:
    violations = [
        (*key, each.messages, each.first_at, each.last_at, each.sample) for key, each in _sorted(counted.violations)
    ]
    await connection.execute(_ADD_VIOLATIONS, *zip(*violations, strict=True))


_WRITE: Final = {"volumes": _write_volumes, "outcomes": _write_outcomes, "violations": _write_violations}

_Value = TypeVar("_Value")


def _sorted(counts: dict[_Key, _Value]) -> list[tuple[_Key, _Value]]:
    return sorted(counts.items(), key=lambda item: item[0])


def _add(counted: _Counted, later: _Counted) -> None:
    """What was counted while a write failed, to what it should have written."""
    for name, messages in later.volumes.items():
        counted.volumes[name] = counted.volumes.get(name, 0) + messages
    for outcome, each in later.outcomes.items():
        known = counted.outcomes.setdefault(outcome, _Outcome(0, 0))
        known.times += each.times
        known.last_at = max(known.last_at, each.last_at)
    for way, broken in later.violations.items():
        before = counted.violations.setdefault(way, _Violated(0, broken.first_at, broken.last_at, broken.sample))
        before.messages += broken.messages
        before.last_at = max(before.last_at, broken.last_at)
