"""Import of daily channel metrics from a file. Metrics do not belong to messages or customers."""

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
    """Result of importing one file."""

    metrics: ParsedMetrics
    stored: StoredCounts

    @property
    def unchanged(self) -> int:
        """Number of metrics that were already stored with the same value."""
        return len(self.metrics) - self.stored.added - self.stored.changed


def parse_defaults(subject: str, day: str | None, dates: str | None) -> MetricDefaults:
    """Parse the defaults from command line options; raise BadRequest if one is invalid."""
    try:
        on = None if day is None else date.fromisoformat(day)
    except ValueError:
        raise BadRequest(f"{day} is not a valid day; use the format 2026-05-04.") from None
    if dates not in (None, "dmy", "mdy"):
        raise BadRequest("--dates must be dmy or mdy.")
    return MetricDefaults(subject, on, None if dates is None else dates == "dmy")


async def import_metrics(
    file: Path, kind: str, source: str, defaults: MetricDefaults, pool: Pool, registry: Registry, clock: Clock
) -> MetricImport:
    """Store the metrics of a file. Create the source if it does not exist.

    Raises:
        BadRequest: the kind is unknown, or the file does not have its format.
    """
    if kind not in METRIC_FORMATS:
        raise BadRequest(f"Unknown kind {kind}; use one of {', '.join(METRIC_FORMATS)}.")
    try:
        metrics = METRIC_FORMATS[kind].parse_file(file.read_bytes(), defaults)
    except Unreadable as error:
        raise BadRequest(f"{file} is not a file of kind {kind}: {error}.") from None
    if source not in registry.access.current.sources:
        await registry.sources.create(source, source)
    return MetricImport(metrics, await MetricStore(pool).store(source, kind, metrics, clock.now()))
