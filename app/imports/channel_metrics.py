"""A file of figures by day, from the command line: no message, no customer, just the figures."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import msgspec

from app.channel_metrics.metric_store import FigureViews, Stored
from app.channel_metrics.parsers import KINDS
from app.channel_metrics.parsers.metric import Figures, Told, Unreadable
from app.cli.runtime import open_registry
from app.config import Settings
from app.errors import BadRequest
from app.postgres.pool import Clock


class FigureImport(msgspec.Struct):
    figures: Figures
    stored: Stored

    @property
    def unchanged(self) -> int:
        return len(self.figures) - self.stored.added - self.stored.changed


def told_of(subject: str, day: str | None, dates: str | None) -> Told:
    """Raises :class:`BadRequest` for what cannot be meant."""
    try:
        on = None if day is None else date.fromisoformat(day)
    except ValueError:
        raise BadRequest(f"{day} is no day; write 2026-05-04.") from None
    if dates not in (None, "dmy", "mdy"):
        raise BadRequest("--dates is dmy or mdy.")
    return Told(subject, on, None if dates is None else dates == "dmy")


async def import_figures(file: Path, kind: str, source: str, told: Told, settings: Settings) -> FigureImport:
    """The source is made if there is none yet. Raises :class:`BadRequest` for a file that is none of its kind."""
    if kind not in KINDS:
        raise BadRequest(f"There is no kind {kind}; there are {', '.join(KINDS)}.")
    try:
        figures = KINDS[kind].read(file.read_bytes(), told)
    except Unreadable as error:
        raise BadRequest(f"{file} is no file of kind {kind}: {error}.") from None
    async with open_registry(settings) as (pool, registry):
        if source not in registry.access.sources:
            await registry.create_source(source, source)
        clock = Clock()
        async with pool.acquire() as connection:
            await clock.calibrate(connection)
        return FigureImport(figures, await FigureViews(pool).store(source, kind, figures, clock.now()))
