"""A file of figures by day, from the command line: no message, no customer, just the figures."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import msgspec

from app.channel_metrics.metric_store import MetricStore, StoredCounts
from app.channel_metrics.parsers import METRIC_FORMATS
from app.channel_metrics.parsers.metric import MetricDefaults, ParsedMetrics, Unreadable
from app.errors import BadRequest
from app.postgres.pool import Clock, Pool
from app.registry.registry import Registry


class MetricImport(msgspec.Struct):
    figures: ParsedMetrics
    stored: StoredCounts

    @property
    def unchanged(self) -> int:
        return len(self.figures) - self.stored.added - self.stored.changed


def parse_defaults(subject: str, day: str | None, dates: str | None) -> MetricDefaults:
    """Raises :class:`BadRequest` for what cannot be meant."""
    try:
        on = None if day is None else date.fromisoformat(day)
    except ValueError:
        raise BadRequest(f"{day} is no day; write 2026-05-04.") from None
    if dates not in (None, "dmy", "mdy"):
        raise BadRequest("--dates is dmy or mdy.")
    return MetricDefaults(subject, on, None if dates is None else dates == "dmy")


async def import_metrics(
    file: Path, kind: str, source: str, defaults: MetricDefaults, pool: Pool, registry: Registry, clock: Clock
) -> MetricImport:
    """The source is made if there is none yet. Raises :class:`BadRequest` for a file that is none of its kind."""
    if kind not in METRIC_FORMATS:
        raise BadRequest(f"There is no kind {kind}; there are {', '.join(METRIC_FORMATS)}.")
    try:
        figures = METRIC_FORMATS[kind].parse_file(file.read_bytes(), defaults)
    except Unreadable as error:
        raise BadRequest(f"{file} is no file of kind {kind}: {error}.") from None
    if source not in registry.access.current.sources:
        await registry.sources.create(source, source)
    return MetricImport(figures, await MetricStore(pool).store(source, kind, figures, clock.now()))
