"""A table of our own: day, channel, metric, value, and what it is of. Pure."""

from __future__ import annotations

from typing import Final

from app.channel_metrics.parsers import cell_values
from app.channel_metrics.parsers.metric import Metric, MetricDefaults, MetricFormat, ParsedMetrics, Unreadable
from app.channel_metrics.parsers.table_reader import Table, table
from app.enrichment.channel import lower_snake

_COLUMNS: Final = {"day": ("day", "date"), "channel": ("channel",), "metric": ("metric",), "value": ("value",)}


def read(body: bytes, told: MetricDefaults) -> ParsedMetrics:
    found = table(body, "metric")
    places = {name: found.column(*names) for name, names in _COLUMNS.items()}
    missing = [name for name, place in places.items() if place is None and not (name == "day" and told.day)]
    if missing:
        raise Unreadable(f"the header has no column {' or '.join(missing)}")
    subject = found.column("subject")
    order = told.day_first
    if order is None:
        order = cell_values.is_day_first(_cell(row.cells, places["day"]) for row in found.rows)
    figures = ParsedMetrics()
    for row in found.rows:
        said = {name: _cell(row.cells, place) for name, place in places.items()}
        try:
            figure = _figure(found, said, cell_values.subject(_cell(row.cells, subject)) or told.subject, told, order)
        except ValueError as error:
            figures.refuse(row.line, str(error))
        else:
            figures.put(figure, row.line)
    return figures


def _figure(found: Table, said: dict[str, str], subject: str, told: MetricDefaults, order: bool | None) -> Metric:
    """Raises ValueError, saying why it is none."""
    day = told.day if told.day and not said["day"].strip() else cell_values.day(said["day"], order)
    channel, metric = lower_snake(said["channel"]), cell_values.metric(said["metric"])
    value = cell_values.number(said["value"], grouped=found.delimiter == ",")
    if not channel:
        raise ValueError(f"{said['channel'][:40]!r} is no channel")
    if not metric:
        raise ValueError("the row names no metric")
    if value is None:
        raise ValueError(f"value is no number that can be read: {said['value'].strip()[:40]!r}")
    return Metric(channel, metric, subject, day, value)


def _cell(row: list[str], place: int | None) -> str:
    return row[place] if place is not None and place < len(row) else ""


KIND: Final = MetricFormat(
    key="generic",
    name="A table of figures",
    read=read,
    steps=("A CSV with the columns day, channel, metric, value and, if it is of less than the whole, subject.",),
    sample=b"day,channel,metric,value,subject\n2026-05-04,ads,spend,120.50,spring\n2026-05-05,ads,spend,98,spring\n",
)
