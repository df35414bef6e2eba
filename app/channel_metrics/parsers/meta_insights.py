"""Insights of Meta: what its Graph API answers, and the exports of Business Suite and of old Page Insights. Pure.

A period of the API ends at ``end_time``, so a day is the one before it, in the offset that it is told in. Periods other
than a day are figures of their own, named so: ``page_impressions_week``.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from app.channel_metrics.parsers import cell_values
from app.channel_metrics.parsers.metric import Metric, MetricDefaults, ParsedMetrics, Unreadable
from app.channel_metrics.parsers.table_reader import decode_text, read_metrics, read_table
from app.connectors.webhook_request import decode_json
from app.formats import timestamps

CHANNEL: Final = "social"
_TITLED_COLUMN: Final = "Primary"
"""The one column of figures where the line above the header says what it is."""
_SECOND: Final = 1_000_000
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def parse_file(body: bytes, defaults: MetricDefaults, brand: str) -> ParsedMetrics:
    """``brand`` may stand before the title of an export: ``Facebook visits`` are visits."""
    if decode_text(body).lstrip().startswith(("{", "[")):
        return _parse_api_answers(decode_json(decode_text(body).encode()), defaults)
    table = read_table(body, "Date")
    names: dict[int, str] = {}
    primary = table.column(_TITLED_COLUMN)
    if primary is not None and table.before:
        title = cell_values.build_metric_name(table.before[-1].cells[0]).removeprefix(f"{brand}_")
        names[primary] = title
    return read_metrics(table, defaults, CHANNEL, days=table.column("Date"), names=names)


def _parse_api_answers(answers: Any, defaults: MetricDefaults) -> ParsedMetrics:
    figures = ParsedMetrics()
    for item in answers if isinstance(answers, list) else [answers]:
        if isinstance(item, dict) and isinstance(error := item.get("error"), dict):
            raise Unreadable(f"the API answered with an error: {str(error.get('message'))[:200]}")
        metrics = item.get("data") if isinstance(item, dict) else None
        if not isinstance(metrics, list):
            raise Unreadable("an answer of the API needs the list data")
        for place, metric in enumerate(metrics):
            _add_metric(figures, metric, f"data[{place}]", defaults)
    return figures


def _add_metric(figures: ParsedMetrics, metric: Any, where: str, defaults: MetricDefaults) -> None:
    name = metric.get("name") if isinstance(metric, dict) else None
    values = metric.get("values") if isinstance(metric, dict) else None
    if not isinstance(name, str) or not cell_values.build_metric_name(name) or not isinstance(values, list):
        figures.refuse(None, f"{where} needs name and values")
        return
    period = metric.get("period")
    metric_name = cell_values.build_metric_name(name if period in (None, "day") else f"{name}_{period}")
    # Such as 1234/insights/page_impressions/day.
    owner = str(metric.get("id") or "").partition("/")[0]
    for place, value in enumerate(values):
        try:
            day, parts = _parse_day(value, defaults), _parse_parts(value)
        except ValueError as error:
            figures.refuse(None, f"{where}.values[{place}] of {name}: {error}")
            continue
        for part, number in parts.items():
            full_name = cell_values.build_metric_name(f"{metric_name}_{part}") if part else metric_name
            figures.add(
                Metric(CHANNEL, full_name, defaults.subject or cell_values.join_subject(owner), day, number), None
            )


def _parse_day(value: Any, defaults: MetricDefaults) -> date:
    """Raises ValueError for a value without a time."""
    end = value.get("end_time") if isinstance(value, dict) else None
    instant = timestamps.parse(end) if isinstance(end, str) else None
    if instant is None:
        if defaults.day is None:
            raise ValueError("it has no end_time that can be read")
        return defaults.day
    assert isinstance(end, str)
    written = _DATE.match(end.strip())
    ended = date.fromisoformat(written[0]) if written else datetime.fromtimestamp(instant // _SECOND, UTC).date()
    if ended == date.min:
        raise ValueError("it has no end_time that can be read")
    return ended - timedelta(days=1)


def _parse_parts(value: Any) -> dict[str, Decimal]:
    """The figure, or its parts where it falls into some. Raises ValueError."""
    value_or_parts = value.get("value") if isinstance(value, dict) else None
    members = value_or_parts if isinstance(value_or_parts, dict) else {"": value_or_parts}
    numbers: dict[str, Decimal] = {}
    for part, number in members.items():
        if not isinstance(number, int | Decimal) or isinstance(number, bool):
            raise ValueError("its value is no number")
        numbers[str(part)] = Decimal(number)
    return numbers
