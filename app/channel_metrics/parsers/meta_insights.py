"""Meta Insights: responses of the Graph API, exports of Business Suite and exports of the older Page Insights. Pure.

The API reports the end of a period as ``end_time``. The day of a value is therefore the day before, in the UTC offset
of ``end_time``. Periods other than a day become metrics with their own names, such as ``page_impressions_week``.
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
"""Header of the single value column of exports that have the metric's name above the header."""
_SECOND: Final = 1_000_000
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def parse_file(body: bytes, defaults: MetricDefaults, brand: str) -> ParsedMetrics:
    """Parse a file; ``brand`` is removed from the title of an export: ``Facebook visits`` becomes ``visits``."""
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
    parsed = ParsedMetrics()
    for item in answers if isinstance(answers, list) else [answers]:
        if isinstance(item, dict) and isinstance(error := item.get("error"), dict):
            raise Unreadable(f"the API answered with an error: {str(error.get('message'))[:200]}")
        metrics = item.get("data") if isinstance(item, dict) else None
        if not isinstance(metrics, list):
            raise Unreadable("a response of the API must contain the list `data`")
        for place, metric in enumerate(metrics):
            _add_metric(parsed, metric, f"data[{place}]", defaults)
    return parsed


def _add_metric(parsed: ParsedMetrics, metric: Any, where: str, defaults: MetricDefaults) -> None:
    name = metric.get("name") if isinstance(metric, dict) else None
    values = metric.get("values") if isinstance(metric, dict) else None
    if not isinstance(name, str) or not cell_values.build_metric_name(name) or not isinstance(values, list):
        parsed.refuse(None, f"{where} needs `name` and `values`")
        return
    period = metric.get("period")
    metric_name = cell_values.build_metric_name(name if period in (None, "day") else f"{name}_{period}")
    # An id is, for example, 1234/insights/page_impressions/day.
    owner = str(metric.get("id") or "").partition("/")[0]
    for place, value in enumerate(values):
        try:
            day, parts = _parse_day(value, defaults), _parse_parts(value)
        except ValueError as error:
            parsed.refuse(None, f"{where}.values[{place}] of {name}: {error}")
            continue
        for part, number in parts.items():
            full_name = cell_values.build_metric_name(f"{metric_name}_{part}") if part else metric_name
            parsed.add(
                Metric(CHANNEL, full_name, defaults.subject or cell_values.join_subject(owner), day, number), None
            )


def _parse_day(value: Any, defaults: MetricDefaults) -> date:
    """Return the day of a value; raise ValueError if it has no time."""
    end = value.get("end_time") if isinstance(value, dict) else None
    instant = timestamps.parse(end) if isinstance(end, str) else None
    if instant is None:
        if defaults.day is None:
            raise ValueError("`end_time` is missing or unreadable")
        return defaults.day
    assert isinstance(end, str)
    written = _DATE.match(end.strip())
    ended = date.fromisoformat(written[0]) if written else datetime.fromtimestamp(instant // _SECOND, UTC).date()
    if ended == date.min:
        raise ValueError("`end_time` is missing or unreadable")
    return ended - timedelta(days=1)


def _parse_parts(value: Any) -> dict[str, Decimal]:
    """Return the parts of a value by name; a plain number has the name ``""``. Raise ValueError if one is invalid."""
    value_or_parts = value.get("value") if isinstance(value, dict) else None
    members = value_or_parts if isinstance(value_or_parts, dict) else {"": value_or_parts}
    numbers: dict[str, Decimal] = {}
    for part, number in members.items():
        if not isinstance(number, int | Decimal) or isinstance(number, bool):
            raise ValueError("`value` is not a number")
        numbers[str(part)] = Decimal(number)
    return numbers
