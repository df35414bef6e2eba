"""Segue's own CSV format of daily metrics: day, channel, metric, value and subject. Pure."""

from __future__ import annotations

from typing import Final

from app.channel_metrics.parsers import cell_values
from app.channel_metrics.parsers.metric import Metric, MetricDefaults, MetricFormat, ParsedMetrics, Unreadable
from app.channel_metrics.parsers.table_reader import Table, read_table
from app.enrichment.channel import lower_snake

_COLUMNS: Final = {"day": ("day", "date"), "channel": ("channel",), "metric": ("metric",), "value": ("value",)}


def parse_file(body: bytes, defaults: MetricDefaults) -> ParsedMetrics:
    table = read_table(body, "metric")
    places = {name: table.column(*names) for name, names in _COLUMNS.items()}
    missing = [name for name, place in places.items() if place is None and not (name == "day" and defaults.day)]
    if missing:
        raise Unreadable(f"the header has no column {' or '.join(missing)}")
    subject = table.column("subject")
    day_first = defaults.day_first
    if day_first is None:
        day_first = cell_values.is_day_first(_get_cell(row.cells, places["day"]) for row in table.rows)
    parsed = ParsedMetrics()
    for row in table.rows:
        cells = {name: _get_cell(row.cells, place) for name, place in places.items()}
        try:
            metric = _build_metric(
                table,
                cells,
                cell_values.join_subject(_get_cell(row.cells, subject)) or defaults.subject,
                defaults,
                day_first,
            )
        except ValueError as error:
            parsed.refuse(row.line, str(error))
        else:
            parsed.add(metric, row.line)
    return parsed


def _build_metric(
    table: Table, cells: dict[str, str], subject: str, defaults: MetricDefaults, day_first: bool | None
) -> Metric:
    """Build the metric of one row; raise ValueError with the reason if a cell is invalid."""
    day = defaults.day if defaults.day and not cells["day"].strip() else cell_values.parse_day(cells["day"], day_first)
    channel, metric = lower_snake(cells["channel"]), cell_values.build_metric_name(cells["metric"])
    value = cell_values.parse_number(cells["value"], grouped=table.delimiter == ",")
    if not channel:
        raise ValueError(f"{cells['channel'][:40]!r} is not a valid channel")
    if not metric:
        raise ValueError("the row has no metric name")
    if value is None:
        raise ValueError(f"value is not a readable number: {cells['value'].strip()[:40]!r}")
    return Metric(channel, metric, subject, day, value)


def _get_cell(row: list[str], place: int | None) -> str:
    return row[place] if place is not None and place < len(row) else ""


KIND: Final = MetricFormat(
    key="generic",
    name="Generic table",
    parse_file=parse_file,
    steps=(
        "Write a CSV file with the columns day, channel, metric and value. For metrics of one page, post or keyword, "
        "add the column subject.",
    ),
    sample=b"day,channel,metric,value,subject\n2026-05-04,ads,spend,120.50,spring\n2026-05-05,ads,spend,98,spring\n",
)
