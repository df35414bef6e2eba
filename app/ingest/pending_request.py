"""Requests that wait for a flush, their messages, and the receipts that report the outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from app.errors import Rejection
from app.formats.segment import Parsed
from app.ingest.erasure_queue import RequestedErasure
from app.ingest.event_log import QuarantineRow
from app.touchpoint import Message, Trust, Warning
from app.tracking_plan.check import MessagePlace, PlanViolation


class Receipt(msgspec.Struct):
    """The outcome of one request. ``accepted``, ``duplicate`` and ``rejected`` add up to its number of messages."""

    accepted: int = 0
    duplicate: int = 0
    rejected: int = 0
    projected: bool = True
    rejections: list[Rejection] = []
    warnings: list[Warning] = []
    erasures: int = 0
    """Number of identities whose erasure was requested and queued."""


class PendingRequest(msgspec.Struct):
    """One parsed request that waits for the transaction that stores it."""

    source: str
    parsed: Parsed
    size_bytes: int
    trust: Trust = "public"
    violations: dict[MessagePlace, PlanViolation] = {}
    erasures: Sequence[RequestedErasure] = ()
    quarantines_rejections: bool = True
    receipt: Receipt = msgspec.field(default_factory=Receipt)
    answer: asyncio.Future[Receipt] | None = None

    def __post_init__(self) -> None:
        receipt = self.receipt
        receipt.rejected = len(self.parsed.rejections)
        receipt.rejections = list(self.parsed.rejections)
        receipt.warnings = list(self.parsed.warnings)
        receipt.erasures = len(self.erasures)

    @property
    def is_empty(self) -> bool:
        """True if the request has nothing to commit."""
        return not self.parsed.messages and not self.erasures and not self.quarantine_rows

    @property
    def size(self) -> int:
        """Number of messages and rejections. A rejection costs less than a message, but needs a row in quarantine."""
        return len(self.parsed.messages) + len(self.parsed.rejections)

    @property
    def quarantine_rows(self) -> list[QuarantineRow]:
        if not self.quarantines_rejections:
            return []
        return [
            QuarantineRow(
                self.source,
                self.parsed.received_at,
                rejection.code,
                rejection.message,
                rejection.message_id,
                rejection.original,
                rejection.form,
                self.trust,
            )
            for rejection in self.parsed.rejections
            if rejection.is_quarantined
        ]

    @property
    def entries(self) -> list[Entry]:
        violations = self.violations
        return [
            Entry(message, index, self.receipt, violations.get((index, message.message_id)) if violations else None)
            for index, message in self.parsed.messages
        ]


class Entry(msgspec.Struct):
    """One message of a flush, with the receipt that reports its outcome."""

    message: Message
    index: int
    receipt: Receipt
    violation: PlanViolation | None = None


class ExtraRows(msgspec.Struct, frozen=True):
    """Quarantine rows and erasure requests that a flush writes in addition to its messages."""

    quarantine: Sequence[QuarantineRow] = ()
    erasures: Sequence[RequestedErasure] = ()

    def __bool__(self) -> bool:
        return bool(self.quarantine or self.erasures)


NO_EXTRA_ROWS: Final = ExtraRows()


class FlushOutcome(msgspec.Struct):
    """The outcome of one transaction, entered into receipts only after its COMMIT."""

    fresh: list[Entry]
    duplicates: list[Entry]
    unprojected_keys: AbstractSet[bytes]
    """Keys of new messages that the worker will project."""


def enter_outcomes(stored: FlushOutcome) -> None:
    for entry in stored.fresh:
        entry.receipt.accepted += 1
    for entry in stored.duplicates:
        entry.receipt.duplicate += 1
    if stored.unprojected_keys:
        for entry in stored.fresh:
            if entry.message.key in stored.unprojected_keys:
                entry.receipt.projected = False


def separate_twins(entries: Sequence[Entry]) -> tuple[dict[bytes, Entry], list[Entry]]:
    """Return the first entry of each message key, and the later entries with the same keys.

    The first entries are in key order, so that concurrent flushes lock rows in the same order.
    """
    first: dict[bytes, Entry] = {}
    twins: list[Entry] = []
    for entry in entries:
        if first.setdefault(entry.message.key, entry) is not entry:
            twins.append(entry)
    return dict(sorted(first.items())), twins
