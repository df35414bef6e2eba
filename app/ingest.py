"""Accepting messages: many requests, one transaction, one receipt each.

Requests that arrive while a flush is in flight form the next one, so commits are shared without a timer and an idle
service answers at the cost of one commit. Owns the tables ledger, touchpoints, quarantine and deferred.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

import asyncpg
import msgspec
import structlog

from app.config import Settings
from app.db import Clock, Connection, Pool, transact
from app.errors import Overloaded, Rejection, RejectionCode
from app.metrics import Metrics
from app.projection.project import project
from app.registry import Registry
from app.touchpoint import Identity, Message, Warning
from app.wire.segment import Parsed

log = structlog.get_logger(__name__)

CONFLICTING_TWIN: Final = "conflicting_twin"
"""Quarantine code of a duplicate that says something else than the message we hold. The first accepted stays."""


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


class _Entry(msgspec.Struct):
    """One message on its way; knows the receipt that will speak of it."""

    message: Message
    index: int
    receipt: Receipt


class _Refused(msgspec.Struct):
    """One row for quarantine."""

    source: str
    received_at: int
    code: str
    reason: str
    message_id: str | None
    original: bytes


class _Stored(msgspec.Struct):
    """What one transaction did, entered into receipts only after its COMMIT."""

    fresh: list[_Entry]
    duplicates: list[_Entry]
    projected: bool = True


class Ingest:
    """The one writer of the log in this process: a queue, and the flushes that empty it."""

    def __init__(self, pool: Pool, registry: Registry, settings: Settings, clock: Clock, metrics: Metrics) -> None:
        self._pool = pool
        self._registry = registry
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._queue: deque[_Request] = deque()
        self._queue_bytes = 0
        self._queue_messages = 0
        self._flushes: set[asyncio.Task[None]] = set()
        self._closing = False

    async def start(self) -> None:
        """Nothing runs until something arrives."""

    async def stop(self) -> None:
        """Answer everything that waits, then end. New requests are refused from here on."""
        self._closing = True
        while self._flushes:
            await asyncio.wait(self._flushes)

    async def accept(self, source: str, parsed: Parsed, size_bytes: int) -> Receipt:
        """Store the messages; returns after COMMIT, when stage and segments already reflect them.

        Raises:
            Overloaded: too much is waiting, or the database cannot be reached. Nothing was stored; send it again.
        """
        if self._closing or self._queue_bytes + size_bytes > self._settings.queue_bytes_max:
            raise Overloaded
        receipt = Receipt(
            rejected=len(parsed.rejections), rejections=list(parsed.rejections), warnings=list(parsed.warnings)
        )
        request = _Request(source, parsed, size_bytes, asyncio.get_running_loop().create_future(), receipt)
        self._queue.append(request)
        self._queue_bytes += size_bytes
        self._queue_messages += len(parsed.messages)
        self._flush_if_due()
        return await request.answer

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
            _Entry(message, index, request.receipt)
            for request in requests
            for index, message in request.parsed.messages
        ]
        now = self._clock.now()
        refused = [
            _Refused(request.source, now, rejection.code, rejection.message, rejection.message_id, rejection.original)
            for request in requests
            for rejection in request.parsed.rejections
        ]
        try:
            await self._store(entries, refused)
        except Exception as error:
            if not isinstance(error, Overloaded):
                log.exception("flush failed", messages=len(entries))
            for request in requests:
                if not request.answer.done():
                    request.answer.set_exception(Overloaded("the database cannot be reached; send it again later"))
            return
        self._metrics.flushed(len(entries))
        for request in requests:
            self._count(request.receipt)
            if not request.answer.done():
                request.answer.set_result(request.receipt)

    def _count(self, receipt: Receipt) -> None:
        for outcome in ("accepted", "duplicate", "rejected"):
            self._metrics.outcome(outcome, getattr(receipt, outcome))
        for rejection in receipt.rejections:
            self._metrics.rejection(rejection.code)

    async def _store(self, entries: Sequence[_Entry], refused: Sequence[_Refused]) -> None:
        """One transaction; if it fails on what it holds, two of half the size, down to the message that fails alone."""
        try:
            stored = await transact(self._pool, lambda connection: self._write(connection, entries, refused))
        except _UNREACHABLE as error:
            raise Overloaded from error
        except Exception as error:
            if len(entries) <= 1:
                await self._store_alone(entries, refused, error)
                return
            middle = len(entries) // 2
            await self._store(entries[:middle], refused)
            await self._store(entries[middle:], ())
            return
        _enter(stored)

    async def _store_alone(self, entries: Sequence[_Entry], refused: Sequence[_Refused], error: Exception) -> None:
        """A message that fails by itself: keep it in the log for the worker; if even that fails, in quarantine."""
        log.error("a message failed alone", error=type(error).__name__, exc_info=error)
        try:
            stored = await transact(
                self._pool,
                lambda connection: self._write(connection, entries, refused, deferred_because=type(error).__name__),
            )
        except _UNREACHABLE as unreachable:
            raise Overloaded from unreachable
        except Exception as again:
            await self._refuse(entries, again)
            return
        _enter(stored)

    async def _refuse(self, entries: Sequence[_Entry], error: Exception) -> None:
        for entry in entries:
            message = entry.message
            rejection = Rejection(
                entry.index,
                RejectionCode.UNSTORABLE,
                f"{RejectionCode.UNSTORABLE.meaning} ({type(error).__name__})",
                message.message_id,
                msgspec.json.encode({"type": message.type, "event": message.name}),
            )
            row = _Refused(
                message.source,
                message.received_at,
                rejection.code,
                rejection.message,
                rejection.message_id,
                rejection.original,
            )
            await transact(self._pool, lambda connection, row=row: _append(connection, [], [row]))  # type: ignore[misc]  # bound in the loop
            entry.receipt.rejected += 1
            entry.receipt.rejections.append(rejection)

    async def _write(
        self,
        connection: Connection,
        entries: Sequence[_Entry],
        refused: Sequence[_Refused],
        deferred_because: str | None = None,
    ) -> _Stored:
        """The flush, step by step, inside the caller's transaction. Step names are the metric's labels."""
        first, twins = _part_twins(entries)
        with self._metrics.step("append"):
            revision, fresh_keys = await _append(connection, list(first.values()), refused)
        fresh = [entry for key, entry in first.items() if key in fresh_keys]
        twins += [entry for key, entry in first.items() if key not in fresh_keys]
        if twins:
            with self._metrics.step("record_conflicts"):
                await _record_conflicts(connection, twins)
        if deferred_because is not None:
            await _defer(connection, fresh, deferred_because)
            return _Stored(fresh, twins, projected=False)
        if fresh:
            ruleset = await self._registry.ruleset_at(connection, revision)
            messages = [entry.message for entry in fresh]
            now = max(self._clock.now(), max(message.received_at for message in messages))
            with self._metrics.step("project"):
                await project(connection, messages, ruleset, now, self._settings)
        return _Stored(fresh, twins)


_UNREACHABLE = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # asyncpg met the server's last words on an idle connection
    asyncpg.DiskFullError,
    asyncpg.OutOfMemoryError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.QueryCanceledError,
    TimeoutError,
)
"""Not the message's fault: bisecting would only repeat it. The client is asked to send the request again."""


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


_APPEND = """
-- The dedupe ledger decides which messages are new; only those enter the log. Rejected ones go to quarantine.
WITH incoming AS (
    SELECT * FROM unnest($1::uuid[], $2::bytea[], $3::timestamptz[], $4::timestamptz[], $5::uuid[], $6::text[],
                         $7::text[], $8::text[], $9::text[], $10::text[], $11::jsonb[], $12::jsonb[], $13::jsonb[],
                         $14::jsonb[], $15::timestamptz[], $16::text[])
         AS m (key, digest, received_at, occurred_at, identity_id, type, name, channel, source, message_id,
               properties, context, traits, carried, sent_at, original_timestamp)
),
fresh AS (
    INSERT INTO ledger (key, digest, received_at)
    SELECT key, digest, received_at FROM incoming
    ON CONFLICT (key) DO NOTHING
    RETURNING key
),
logged AS (
    INSERT INTO touchpoints (received_at, occurred_at, identity_id, type, name, channel, source, message_id,
                             properties, context, traits, carried, sent_at, original_timestamp)
    SELECT received_at, occurred_at, identity_id, type, name, channel, source, message_id,
           properties, context, traits, carried, sent_at, original_timestamp
    FROM incoming JOIN fresh USING (key)
),
refused AS (
    INSERT INTO quarantine (source, received_at, code, message, message_id, original)
    SELECT * FROM unnest($17::text[], $18::timestamptz[], $19::text[], $20::text[], $21::text[], $22::bytea[])
)
SELECT (SELECT value FROM revisions WHERE name = 'definitions') AS revision, array(SELECT key FROM fresh) AS fresh
"""

_encode = msgspec.json.Encoder().encode


async def _append(
    connection: Connection, entries: Sequence[_Entry], refused: Sequence[_Refused]
) -> tuple[int, set[bytes]]:
    """Returns the revision of the definitions, and the keys of the messages that are new."""
    messages = [entry.message for entry in entries]
    row = await connection.fetchrow(
        _APPEND,
        [message.key for message in messages],
        [message.digest for message in messages],
        [message.received_at for message in messages],
        [message.occurred_at for message in messages],
        [message.identities[0].id for message in messages],
        [message.type for message in messages],
        [message.name for message in messages],
        [message.channel for message in messages],
        [message.source for message in messages],
        [message.message_id for message in messages],
        [message.properties for message in messages],
        [message.context for message in messages],
        [message.traits for message in messages],
        [_carried(message) for message in messages],
        [message.sent_at for message in messages],
        [message.original_timestamp for message in messages],
        [row.source for row in refused],
        [row.received_at for row in refused],
        [row.code for row in refused],
        [row.reason for row in refused],
        [None if row.message_id is None else _storable(row.message_id) for row in refused],
        [row.original for row in refused],
    )
    assert row is not None
    return row["revision"], set(row["fresh"])


def _carried(message: Message) -> bytes:
    pairs = [(identity.kind, identity.value) for identity in message.identities]
    if message.previous_id is not None:
        pairs.append(("previous_id", message.previous_id))
    return _encode(pairs)


def _storable(text: str) -> str:
    """Text that PostgreSQL takes: an id may have been refused for the very characters it does not."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


_RECORD_CONFLICTS = """
INSERT INTO quarantine (source, received_at, code, message, message_id, original)
SELECT t.source, t.received_at, $1, 'a message with this id and another content was accepted before', t.message_id,
       t.original
FROM unnest($2::uuid[], $3::bytea[], $4::text[], $5::timestamptz[], $6::text[], $7::bytea[])
     AS t (key, digest, source, received_at, message_id, original)
JOIN ledger USING (key)
WHERE ledger.digest <> t.digest
"""


async def _record_conflicts(connection: Connection, twins: Sequence[_Entry]) -> None:
    messages = [entry.message for entry in twins]
    await connection.execute(
        _RECORD_CONFLICTS,
        CONFLICTING_TWIN,
        [message.key for message in messages],
        [message.digest for message in messages],
        [message.source for message in messages],
        [message.received_at for message in messages],
        [message.message_id for message in messages],
        [_original(message) for message in messages],
    )


def _original(message: Message) -> bytes:
    """A message in its own words again, near enough for a person to compare."""
    return _encode(
        {
            "type": message.type,
            "messageId": message.message_id,
            "event": message.name,
            "timestamp": message.original_timestamp,
            "identities": [str(identity) for identity in message.identities],
            "properties": msgspec.Raw(message.properties),
            "context": msgspec.Raw(message.context),
            "traits": msgspec.Raw(message.traits or b"null"),
        }
    )


_DEFER = """
INSERT INTO deferred (key, identity_id, message_id, source, received_at, reason)
SELECT *, $6 FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::timestamptz[])
"""


async def _defer(connection: Connection, entries: Sequence[_Entry], reason: str) -> None:
    messages = [entry.message for entry in entries]
    await connection.execute(
        _DEFER,
        [message.key for message in messages],
        [message.identities[0].id for message in messages],
        [message.message_id for message in messages],
        [message.source for message in messages],
        [message.received_at for message in messages],
        reason,
    )


_DEFERRED = """
-- The oldest deferred messages that no other worker is at, as the log holds them.
WITH claimed AS (
    SELECT key, identity_id, message_id, source, received_at FROM deferred
    WHERE attempts < $2 ORDER BY received_at LIMIT $1 FOR UPDATE SKIP LOCKED
)
SELECT c.key, t.type, t.message_id, t.source, t.occurred_at, t.received_at, t.carried, t.channel, t.name,
       t.properties, t.context, t.traits
FROM claimed c
JOIN touchpoints t ON t.identity_id = c.identity_id AND t.received_at = c.received_at
                  AND t.message_id = c.message_id AND t.source = c.source
"""

_PROJECTED = "DELETE FROM deferred WHERE key = ANY($1::uuid[])"

DEFERRED_ATTEMPTS_MAX: Final = 10

_decode_pairs = msgspec.json.Decoder(list[tuple[str, str]]).decode


async def claim_deferred(connection: Connection, messages_max: int) -> tuple[list[bytes], list[Message]]:
    """Messages that wait for projection, locked until the caller commits; with their keys, for ``settle_deferred``."""
    keys, messages = [], []
    for row in await connection.fetch(_DEFERRED, messages_max, DEFERRED_ATTEMPTS_MAX):
        keys.append(row["key"])
        messages.append(message_of_log(row))
    return keys, messages


async def settle_deferred(connection: Connection, keys: Sequence[bytes]) -> None:
    await connection.execute(_PROJECTED, keys)


async def postpone_deferred(connection: Connection, keys: Sequence[bytes]) -> None:
    await connection.execute("UPDATE deferred SET attempts = attempts + 1 WHERE key = ANY($1::uuid[])", keys)


def message_of_log(row: asyncpg.Record) -> Message:
    """A message as it was accepted, from its row in the log."""
    pairs = _decode_pairs(row["carried"])
    return Message(
        type=row["type"],
        message_id=row["message_id"],
        source=row["source"],
        occurred_at=row["occurred_at"],
        received_at=row["received_at"],
        identities=tuple(Identity(kind, value) for kind, value in pairs if kind != "previous_id"),
        channel=row["channel"],
        name=row["name"],
        properties=row["properties"],
        context=row["context"],
        traits=row["traits"],
        previous_id=next((value for kind, value in pairs if kind == "previous_id"), None),
    )
