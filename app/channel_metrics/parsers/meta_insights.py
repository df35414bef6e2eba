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
from app.channel_metrics.parsers.table_reader import metrics_of_table, table, text_of
from app.connectors.delivery import decode_json
from app.formats import timestamps

CHANNEL: Final = "social"
_TITLED: Final = "Primary"
"""The one column of figures where the line above the header says what it is."""
_SECOND: Final = 1_000_000
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def read(body: bytes, told: MetricDefaults, brand: str) -> ParsedMetrics:
    """``brand`` may stand before the title of an export: ``Facebook visits`` are visits."""
    if text_of(body).lstrip().startswith(("{", "[")):
        return _of_api(decode_json(text_of(body).encode()), told)
    found = table(body, "Date")
    names: dict[int, str] = {}
    primary = found.column(_TITLED)
    if primary is not None and found.before:
        title = cell_values.metric(found.before[-1].cells[0]).removeprefix(f"{brand}_")
        names[primary] = title
    return metrics_of_table(found, told, CHANNEL, days=found.column("Date"), names=names)


def _of_api(answer: Any, told: MetricDefaults) -> ParsedMetrics:
    figures = ParsedMetrics()
    for each in answer if isinstance(answer, list) else [answer]:
        if isinstance(each, dict) and isinstance(error := each.get("error"), dict):
            raise Unreadable(f"the API answered with an error: {str(error.get('message'))[:200]}")
        metrics = each.get("data") if isinstance(each, dict) else None
        if not isinstance(metrics, list):
            raise Unreadable("an answer of the API needs the list data")
        for place, metric in enumerate(metrics):
            _take_metric(figures, metric, f"data[{place}]", told)
    return figures


def _take_metric(figures: ParsedMetrics, metric: Any, where: str, told: MetricDefaults) -> None:
    name = metric.get("name") if isinstance(metric, dict) else None
    values = metric.get("values") if isinstance(metric, dict) else None
    if not isinstance(name, str) or not cell_values.metric(name) or not isinstance(values, list):
        figures.refuse(None, f"{where} needs name and values")
        return
    period = metric.get("period")
    named = cell_values.metric(name if period in (None, "day") else f"{name}_{period}")
    # Such as 1234/insights/page_impressions/day.
    owner = str(metric.get("id") or "").partition("/")[0]
    for place, value in enumerate(values):
        try:
            day, parts = _day(value, told), _parts(value)
        except ValueError as error:
            figures.refuse(None, f"{where}.values[{place}] of {name}: {error}")
            continue
        for part, number in parts.items():
            full = cell_values.metric(f"{named}_{part}") if part else named
            figures.put(Metric(CHANNEL, full, told.subject or cell_values.subject(owner), day, number), None)


def _day(value: Any, told: MetricDefaults) -> date:
    """Raises ValueError for a value without a time."""
    end = value.get("end_time") if isinstance(value, dict) else None
    instant = timestamps.parse(end) if isinstance(end, str) else None
    if instant is None:
        if told.day is None:
            raise ValueError("it has no end_time that can be read")
        return told.day
    assert isinstance(end, str)
    written = _DATE.match(end.strip())
    ended = date.fromisoformat(written[0]) if written else datetime.fromtimestamp(instant // _SECOND, UTC).date()
    if ended == date.min:
        raise ValueError("it has no end_time that can be read")
    return ended - timedelta(days=1)


def _parts(value: Any) -> dict[str, Decimal]:
    """The figure, or its parts where it falls into some. Raises ValueError."""
    said = value.get("value") if isinstance(value, dict) else None
    members = said if isinstance(said, dict) else {"": said}
    numbers: dict[str, Decimal] = {}
    for part, number in members.items():
        if not isinstance(number, int | Decimal) or isinstance(number, bool):
            raise ValueError("its value is no number")
        numbers[str(part)] = Decimal(number)
    return numbers
