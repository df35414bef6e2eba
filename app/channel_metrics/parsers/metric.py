"""Daily metrics of a channel, and the interface of the parsers of their files. Pure.

A parser collects :class:`Metric` objects. An invalid row is reported with its line and reason; the others are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Final

import msgspec

from app.connectors.webhook_request import Unreadable

__all__ = ["Metric", "MetricDefaults", "MetricFormat", "ParsedMetrics", "Unreadable"]

NAME_CHARS_MAX: Final = 100
SUBJECT_CHARS_MAX: Final = 255
REPORTED_ROWS_MAX: Final = 1_000
"""Maximum number of invalid rows that are reported individually; further invalid rows are only counted."""

_POWER_MAX: Final = 30
"""Largest power of ten in a value, positive or negative."""
_CHARS_MAX: Final = 60

Key = tuple[str, str, str, date]


class Metric(msgspec.Struct, frozen=True):
    """The value of one metric on one day."""

    channel: str
    metric: str
    subject: str
    """Page, post or keyword that the metric describes; empty for the channel as a whole."""
    day: date
    value: Decimal


class BadRow(msgspec.Struct, frozen=True):
    """An invalid row of a file."""

    line: int | None
    """Line in the file, from 1; None for formats without rows, such as JSON."""
    reason: str


class MetricDefaults(msgspec.Struct, frozen=True):
    """Values that the client supplies for files that do not contain them."""

    subject: str = ""
    day: date | None = None
    day_first: bool | None = None
    """Order of ``03/04/2026``: True means the third of April, None means unknown."""


class ParsedMetrics:
    """The metrics of a file, with at most one metric per key, and the invalid rows."""

    def __init__(self) -> None:
        self._by_key: dict[Key, tuple[Metric, int | None]] = {}
        self.bad: list[BadRow] = []
        self.bad_count = 0

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Metric]:
        return (metric for metric, _ in self._by_key.values())

    def add(self, metric: Metric, line: int | None) -> None:
        """Add a metric; report the row if its value is too large, or differs from an earlier value of the same key."""
        if not -_POWER_MAX <= metric.value.adjusted() <= _POWER_MAX or len(str(metric.value)) > _CHARS_MAX:
            self.refuse(line, f"the value of {metric.metric} is too large or too precise")
            return
        key = (metric.channel, metric.metric, metric.subject, metric.day)
        existing, at = self._by_key.setdefault(key, (metric, line))
        if existing.value != metric.value:
            suffix = f" of {metric.subject}" if metric.subject else ""
            where = f"line {at}" if at is not None else "an earlier value"
            self.refuse(line, f"{metric.metric}{suffix} on {metric.day} is already {existing.value} in {where}")

    def refuse(self, line: int | None, reason: str) -> None:
        """Report an invalid row."""
        self.bad_count += 1
        if len(self.bad) < REPORTED_ROWS_MAX:
            self.bad.append(BadRow(line, reason))


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricFormat:
    """One file format. A module in :mod:`app.channel_metrics.parsers` that defines ``KIND`` adds a format."""

    key: str
    name: str
    parse_file: Callable[[bytes, MetricDefaults], ParsedMetrics]
    """Parses a file; raises Unreadable if it does not have this format."""
    steps: tuple[str, ...] = field(default=())
    """Instructions for exporting such a file from the tool."""
    sample: bytes
