"""Reads tables of daily metrics: a column of days, columns of subjects, and one metric per remaining column. Pure."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from io import StringIO
from typing import Final

from app.channel_metrics.parsers import cell_values
from app.channel_metrics.parsers.metric import Metric, MetricDefaults, ParsedMetrics, Unreadable

_DELIMITERS: Final = (",", ";", "\t")
_SEPARATOR_LINE: Final = "sep="
"""Prefix of the line with which some exports declare their delimiter to Excel."""
_COLUMNS_MAX: Final = 1_000
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of a record, and the number of the line in which the record begins."""

    line: int
    cells: list[str]


@dataclass(frozen=True, slots=True)
class Table:
    """A header and its rows. ``before`` contains the rows above the header."""

    before: list[Row]
    header: list[str]
    rows: list[Row]
    delimiter: str

    def column(self, *names: str) -> int | None:
        """Return the index of the first column with one of the names, or None; names are compared as metric names."""
        metric_names = [cell_values.build_metric_name(name) for name in names]
        return next(
            (
                place
                for place, name in enumerate(map(cell_values.build_metric_name, self.header))
                if name in metric_names
            ),
            None,
        )


def decode_text(body: bytes) -> str:
    """Decode UTF-8, or UTF-16 with a byte order mark; raise Unreadable if the file is neither."""
    try:
        return body.decode("utf-16") if body.startswith(_UTF16) else body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unreadable("the file must be UTF-8, or UTF-16 with a byte order mark") from None


def read_table(body: bytes, *headers: str) -> Table:
    """Read a table whose header is the first line with one of the given names; raise Unreadable if none matches."""
    text = decode_text(body)
    delimiter = _detect_delimiter(text, headers)
    before: list[Row] = []
    header: list[str] | None = None
    rows: list[Row] = []
    metric_names = {cell_values.build_metric_name(name) for name in headers}
    for row in _read_rows(text, delimiter):
        if header is not None:
            rows.append(row)
        elif metric_names & {cell_values.build_metric_name(cell) for cell in row.cells}:
            header = row.cells[:_COLUMNS_MAX]
        else:
            before.append(row)
    if header is None:
        raise Unreadable(f"no line is a header with the column {' or '.join(headers)}")
    return Table(before, header, rows, delimiter)


def read_metrics(
    table: Table,
    defaults: MetricDefaults,
    channel: str,
    *,
    days: int | None,
    subjects: Sequence[int] = (),
    excluded: Iterable[str] = (),
    names: dict[int, str] | None = None,
) -> ParsedMetrics:
    """Read a metric from each numeric cell, except in the columns ``days``, ``subjects`` and ``excluded``.

    Columns without any number are skipped. ``names`` are metric names by column that replace the header. If ``days``
    is None, all rows have the day ``defaults.day``; raise Unreadable if that is None too.
    """
    if days is None and defaults.day is None:
        raise Unreadable("the file has no column of days: set the day of all rows, such as day=2026-05-04")
    day_first = defaults.day_first
    if day_first is None and days is not None:
        day_first = cell_values.is_day_first(_get_cell(row, days) for row in table.rows)
    metrics = _find_metric_columns(
        table, {days, *subjects}, {cell_values.build_metric_name(name) for name in excluded}, names or {}
    )
    ambiguous = _find_ambiguous_columns(table, metrics)
    parsed = ParsedMetrics()
    for row in table.rows:
        _add_row_metrics(parsed, table, row, defaults, channel, days, day_first, subjects, metrics, ambiguous)
    return parsed


def _add_row_metrics(
    parsed: ParsedMetrics,
    table: Table,
    row: Row,
    defaults: MetricDefaults,
    channel: str,
    days: int | None,
    day_first: bool | None,
    subjects: Sequence[int],
    metrics: dict[int, str],
    ambiguous: set[int],
) -> None:
    if days is not None and not _get_cell(row, days).strip():
        if any(_parse_cell(table, _get_cell(row, place)) is not None for place in metrics):
            parsed.refuse(row.line, "the row has no day")
        return  # A row without numbers is an explanation of the columns.
    try:
        day = defaults.day if days is None else cell_values.parse_day(_get_cell(row, days), day_first)
    except ValueError as error:
        parsed.refuse(row.line, str(error))
        return
    assert day is not None
    subject = cell_values.join_subject(*(_get_cell(row, place) for place in subjects)) or defaults.subject
    for place, metric in metrics.items():
        cell = _get_cell(row, place)
        if cell_values.is_absent(cell):
            continue
        value = _parse_cell(table, cell)
        if place in ambiguous:
            parsed.refuse(
                row.line, f"{metric}: {cell.strip()[:40]!r} may have a thousands or a decimal separator; write 1234"
            )
        elif value is None:
            parsed.refuse(row.line, f"{metric} is not a readable number: {cell.strip()[:40]!r}")
        else:
            parsed.add(Metric(channel, metric, subject, day, value), row.line)


def _find_metric_columns(
    table: Table, used_columns: set[int | None], excluded: set[str], names: dict[int, str]
) -> dict[int, str]:
    """Return the metric names of the columns that contain numbers."""
    metrics: dict[int, str] = {}
    for place, header in enumerate(table.header):
        name = names.get(place) or cell_values.build_metric_name(header)
        if place in used_columns or not name or name in excluded:
            continue
        cells = [cell for row in table.rows if not cell_values.is_absent(cell := _get_cell(row, place))]
        if not cells or any(_parse_cell(table, cell) is not None for cell in cells):
            metrics[place] = name
    return metrics


def _find_ambiguous_columns(table: Table, metrics: Iterable[int]) -> set[int]:
    """Return the columns of a semicolon-separated file in which every cell looks like 1.234.

    In such a file the point may separate thousands, as in German, or decimals, as in English.
    """
    if table.delimiter != ";":
        return set()
    cells_by_column = {
        place: [cell for row in table.rows if not cell_values.is_absent(cell := _get_cell(row, place))]
        for place in metrics
    }
    return {
        place for place, column in cells_by_column.items() if column and all(map(cell_values.may_be_thousands, column))
    }


def _parse_cell(table: Table, cell: str) -> Decimal | None:
    return cell_values.parse_number(cell, grouped=table.delimiter == ",")


def _get_cell(row: Row, place: int) -> str:
    return row.cells[place] if place < len(row.cells) else ""


def _read_rows(text: str, delimiter: str) -> Iterable[Row]:
    """Yield the non-empty rows with the line in which they begin; quoted cells may contain line breaks."""
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter)
    line = 0
    try:
        for row in reader:
            began, line = line + 1, reader.line_num
            if any(cell.strip() for cell in row) and not row[0].startswith(_SEPARATOR_LINE):
                yield Row(began, row)
    except csv.Error as error:
        raise Unreadable(f"line {line + 1} is not valid CSV ({error})") from None


def _detect_delimiter(text: str, headers: Sequence[str]) -> str:
    """Return the declared delimiter, else the one that splits the header into the most columns."""
    head = text[:20_000]
    first = head.lstrip().splitlines()[:1]
    if first and first[0].startswith(_SEPARATOR_LINE) and len(first[0].strip()) == len(_SEPARATOR_LINE) + 1:
        return first[0].strip()[-1]
    metric_names = {cell_values.build_metric_name(name) for name in headers}

    def columns(delimiter: str) -> int:
        rows = (line.split(delimiter) for line in head.splitlines())
        return max(
            (len(row) for row in rows if metric_names & {cell_values.build_metric_name(cell) for cell in row}),
            default=0,
        )

    return max(_DELIMITERS, key=columns)
