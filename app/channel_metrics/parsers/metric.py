"""Figures of a channel by day, which belong to nobody, and how a file of them is read. Pure.

A file gives :class:`Metric` after figure; what is wrong with a row is told with its line, and stops no other row.
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
ROWS_TOLD_MAX: Final = 1_000
"""Bad rows that are told one by one; the others are counted."""

_POWER_MAX: Final = 30
"""Of ten, either way."""
_CHARS_MAX: Final = 60

Key = tuple[str, str, str, date]


class Metric(msgspec.Struct, frozen=True):
    channel: str
    metric: str
    subject: str
    """Page, post or keyword that it is of; empty: the whole."""
    day: date
    value: Decimal


class BadRow(msgspec.Struct, frozen=True):
    line: int | None
    """Of the file, from 1; None where it has no lines that mean anything."""
    reason: str


class MetricDefaults(msgspec.Struct, frozen=True):
    """What whoever sends a file says besides, where the file itself does not."""

    subject: str = ""
    day: date | None = None
    day_first: bool | None = None
    """How ``03/04/2026`` is meant: True is the third of April."""


class ParsedMetrics:
    """What a file holds: each figure once, and the rows that are none."""

    def __init__(self) -> None:
        self._by_key: dict[Key, tuple[Metric, int | None]] = {}
        self.bad: list[BadRow] = []
        self.bad_count = 0

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Metric]:
        return (figure for figure, _ in self._by_key.values())

    def add(self, figure: Metric, line: int | None) -> None:
        """A second value for what stands there already is a bad row: nobody can say which one holds."""
        if not -_POWER_MAX <= figure.value.adjusted() <= _POWER_MAX or len(str(figure.value)) > _CHARS_MAX:
            self.refuse(line, f"{figure.metric} is a number beyond what figures are")
            return
        key = (figure.channel, figure.metric, figure.subject, figure.day)
        existing, at = self._by_key.setdefault(key, (figure, line))
        if existing.value != figure.value:
            suffix = f" of {figure.subject}" if figure.subject else ""
            where = f"line {at}" if at is not None else "an earlier value"
            self.refuse(line, f"{figure.metric}{suffix} on {figure.day} is {existing.value} in {where} already")

    def refuse(self, line: int | None, reason: str) -> None:
        self.bad_count += 1
        if len(self.bad) < ROWS_TOLD_MAX:
            self.bad.append(BadRow(line, reason))


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricFormat:
    """One kind of file. Adding one is adding a module to :mod:`app.channel_metrics.parsers` that names its ``KIND``."""

    key: str
    name: str
    parse_file: Callable[[bytes, MetricDefaults], ParsedMetrics]
    """Raises Unreadable for a file that is no such file at all."""
    steps: tuple[str, ...] = field(default=())
    """Where such a file comes from."""
    sample: bytes
