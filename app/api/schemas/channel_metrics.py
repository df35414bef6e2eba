"""Schemas of daily channel metrics."""

from __future__ import annotations

from datetime import date

from pydantic import BaseModel, Field

from app.http.schema_types import EXAMPLE_INSTANT, Instant, describe_schema

_DAY = "2026-05-04"
_ROW = {
    "day": _DAY,
    "channel": "social",
    "metric": "page_impressions",
    "subject": "1111",
    "value": 1250,
    "source": "facebook",
    "kind": "facebook_insights",
    "recorded_at": EXAMPLE_INSTANT,
}
_TOTAL = {"day": _DAY, "channel": "social", "metric": "page_impressions", "sum": 1250, "mean": 1250, "values": 1}
_BAD = {"line": 7, "reason": "impressions is not a readable number: 'many'"}


class ChannelMetricOut(BaseModel):
    model_config = describe_schema("One metric of a channel on one day. It belongs to no customer.", _ROW)

    day: date
    channel: str
    metric: str
    subject: str = Field(description="Page, post or keyword; empty means the whole channel.")
    value: float
    source: str
    kind: str = Field(description="Format of the file that contained it.")
    recorded_at: Instant = Field(description="When this value was first stored.")


class DayTotalOut(BaseModel):
    model_config = describe_schema(
        "Total of one metric on one day. The sum is meaningless for rates and positions.", _TOTAL
    )

    day: date
    channel: str
    metric: str
    sum: float
    mean: float
    values: int = Field(description="Number of summed values.")


class ChannelMetricsOut(BaseModel):
    model_config = describe_schema(
        "Metrics, sorted by day, channel, metric, subject and source.",
        {"items": [_ROW], "totals": [_TOTAL], "next_cursor": None, "as_of": EXAMPLE_INSTANT},
    )

    items: list[ChannelMetricOut]
    totals: list[DayTotalOut] = Field(
        description="Totals of the days on this page over all matching rows, including those on other pages."
    )
    next_cursor: str | None
    as_of: Instant


class BadRowOut(BaseModel):
    model_config = describe_schema("A row that could not be read.", _BAD)

    line: int | None = Field(description="Line number in the file, starting at 1; null if the file is JSON.")
    reason: str


class MetricsStoredOut(BaseModel):
    model_config = describe_schema(
        "Result of an upload. `added`, `changed` and `unchanged` add up to the number of readable rows.",
        {"added": 14, "changed": 1, "unchanged": 27, "bad": 1, "bad_rows": [_BAD], "first": _DAY, "last": _DAY},
    )

    added: int
    changed: int
    unchanged: int
    bad: int
    bad_rows: list[BadRowOut] = Field(description="The first 1,000 unreadable rows.")
    first: date | None = Field(description="Earliest day in the file.")
    last: date | None


class MetricFormatOut(BaseModel):
    model_config = describe_schema(
        "A file format.",
        {"key": "twitter_analytics", "name": "Twitter (X) Analytics", "steps": [], "sample": "Date,Impressions\n"},
    )

    key: str
    name: str
    steps: list[str] = Field(description="How to export such a file.")
    sample: str


class MetricFormatsOut(BaseModel):
    model_config = describe_schema("All file formats.", {"items": []})

    items: list[MetricFormatOut]
