"""Figures of channels by day."""

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
_BAD = {"line": 7, "reason": "impressions is no number that can be read: 'many'"}


class ChannelMetricOut(BaseModel):
    model_config = describe_schema("A figure of a channel on a day. It belongs to nobody.", _ROW)

    day: date
    channel: str
    metric: str
    subject: str = Field(description="Page, post or keyword that it is of; empty: the whole.")
    value: float
    source: str
    kind: str = Field(description="Of the file that said it.")
    recorded_at: Instant = Field(description="When this value was first said.")


class DayTotalOut(BaseModel):
    model_config = describe_schema(
        "All figures of one metric on one day. Of rates and positions the sum means nothing.", _TOTAL
    )

    day: date
    channel: str
    metric: str
    sum: float
    mean: float
    values: int = Field(description="Number of values that the sum adds up.")


class ChannelMetricsOut(BaseModel):
    model_config = describe_schema(
        "By day, channel, metric, subject and source.",
        {"items": [_ROW], "totals": [_TOTAL], "next_cursor": None, "as_of": EXAMPLE_INSTANT},
    )

    items: list[ChannelMetricOut]
    totals: list[DayTotalOut] = Field(
        description="Of every day on this page, over all that the filters let through, whatever page it stands on."
    )
    next_cursor: str | None
    as_of: Instant


class BadRowOut(BaseModel):
    model_config = describe_schema("A row that is no figure.", _BAD)

    line: int | None = Field(description="Of the file, from 1; null in JSON.")
    reason: str


class MetricsStoredOut(BaseModel):
    model_config = describe_schema(
        "What became of a file of figures: added, changed and unchanged are all figures that it holds.",
        {"added": 14, "changed": 1, "unchanged": 27, "bad": 1, "bad_rows": [_BAD], "first": _DAY, "last": _DAY},
    )

    added: int
    changed: int
    unchanged: int
    bad: int
    bad_rows: list[BadRowOut] = Field(description="The first 1,000.")
    first: date | None = Field(description="The earliest day of its figures.")
    last: date | None


class MetricFormatOut(BaseModel):
    model_config = describe_schema(
        "A kind of file.",
        {"key": "twitter_analytics", "name": "Twitter (X) Analytics", "steps": [], "sample": "Date,Impressions\n"},
    )

    key: str
    name: str
    steps: list[str] = Field(description="Where such a file comes from.")
    sample: str


class MetricFormatsOut(BaseModel):
    model_config = describe_schema("The kinds of files.", {"items": []})

    items: list[MetricFormatOut]
