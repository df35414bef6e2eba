"""SEMrush: answers of its API and exports, parted by semicolons, with headers in words. Pure.

A failure is a line of text, ``ERROR 50 :: NOTHING FOUND``; where answers are kept one after another in one file it
stands among the others, and so do their headers.
"""

from __future__ import annotations

import re
from typing import Final

from app.channel_metrics.parsers import cell_values
from app.channel_metrics.parsers.metric import MetricDefaults, MetricFormat, ParsedMetrics, Unreadable
from app.channel_metrics.parsers.table_reader import Row, Table, metrics_of_table, table, text_of

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
"""Columns that hold no figure although digits may stand in them."""


def read(body: bytes, told: MetricDefaults) -> ParsedMetrics:
    errors = [(line, text) for line, text in enumerate(text_of(body).splitlines(), 1) if _ERROR.match(text.strip())]
    try:
        found = table(body, *_HEADERS)
    except Unreadable:
        if not errors:
            raise
        figures = ParsedMetrics()
    else:
        figures = _figures(found, told)
    for line, text in errors:
        figures.refuse(line, f"SEMrush says: {text.strip()[:200]}")
    return figures


def _figures(found: Table, told: MetricDefaults) -> ParsedMetrics:
    keyword = found.column(*_KEYWORDS)
    targets = [place for name in _TARGETS if (place := found.column(name)) is not None]
    rows = [row for row in found.rows if not _is_no_row(found, row)]
    return metrics_of_table(
        Table(found.before, found.header, rows, found.delimiter),
        told,
        _CHANNEL,
        days=found.column("Date"),
        subjects=targets if keyword is None else [keyword],
        without=_WORDS,
    )


def _is_no_row(found: Table, row: Row) -> bool:
    """An error, or the same header once more."""
    return bool(_ERROR.match(row.cells[0].strip())) or [*map(cell_values.metric, row.cells)] == [
        *map(cell_values.metric, found.header)
    ]


KIND: Final = MetricFormat(
    key="semrush",
    name="SEMrush",
    read=read,
    steps=(
        "Keep the answer of an API report, such as domain_organic or domain_ranks, or export one as CSV with ;.",
        "Most reports name no day: say which one they are of.",
    ),
    sample=b"Keyword;Position;Search Volume;Traffic (%)\nrunning shoes;3;40500;12.5\ntrail shoes;11;8100;0.8\n",
)
