"""SEMrush: API responses and CSV exports, separated by semicolons. Pure.

An error is a line such as ``ERROR 50 :: NOTHING FOUND``. A file may contain several responses one after another, and
then repeats their headers and has errors between them.
"""

from __future__ import annotations

import re
from typing import Final

from app.channel_metrics.parsers import cell_values
from app.channel_metrics.parsers.metric import MetricDefaults, MetricFormat, ParsedMetrics, Unreadable
from app.channel_metrics.parsers.table_reader import Row, Table, decode_text, read_metrics, read_table

_CHANNEL: Final = "search"
_ERROR = re.compile(r"ERROR ([0-9]+) :: .*")
_KEYWORDS: Final = ("Keyword", "Phrase")
_TARGETS: Final = ("Domain", "Target", "Database")
_HEADERS: Final = (*_KEYWORDS, *_TARGETS, "Rank", "Organic Keywords", "Authority Score", "Ascore")
_WORDS: Final = (
    "Url",
    "Trends",
    "Timestamp",
    "Intents",
    "Keyword Intents",
    "SERP Features by Keyword",
    "SERP Features by Position",
    "SERP Features",
    "Position Type",
)
"""Headers of columns that are not metrics, although their cells may contain digits."""


def parse_file(body: bytes, defaults: MetricDefaults) -> ParsedMetrics:
    errors = [(line, text) for line, text in enumerate(decode_text(body).splitlines(), 1) if _ERROR.match(text.strip())]
    try:
        table = read_table(body, *_HEADERS)
    except Unreadable:
        if not errors:
            raise
        parsed = ParsedMetrics()
    else:
        parsed = _read_metrics(table, defaults)
    for line, text in errors:
        parsed.refuse(line, f"SEMrush reported: {text.strip()[:200]}")
    return parsed


def _read_metrics(table: Table, defaults: MetricDefaults) -> ParsedMetrics:
    keyword = table.column(*_KEYWORDS)
    targets = [place for name in _TARGETS if (place := table.column(name)) is not None]
    rows = [row for row in table.rows if not _is_error_or_header(table, row)]
    return read_metrics(
        Table(table.before, table.header, rows, table.delimiter),
        defaults,
        _CHANNEL,
        days=table.column("Date"),
        subjects=targets if keyword is None else [keyword],
        excluded=_WORDS,
    )


def _is_error_or_header(table: Table, row: Row) -> bool:
    """Return True if the row is an error or a repeated header."""
    return bool(_ERROR.match(row.cells[0].strip())) or [*map(cell_values.build_metric_name, row.cells)] == [
        *map(cell_values.build_metric_name, table.header)
    ]


KIND: Final = MetricFormat(
    key="semrush",
    name="SEMrush",
    parse_file=parse_file,
    steps=(
        "Save the response of an API report, such as domain_organic or domain_ranks. Or export a report as CSV with "
        "semicolons.",
        "Most reports do not contain a date: set the day of the report.",
    ),
    sample=b"Keyword;Position;Search Volume;Traffic (%)\nrunning shoes;3;40500;12.5\ntrail shoes;11;8100;0.8\n",
)
