"""Instagram Insights of an account: exports of Meta Business Suite and responses of the Graph API. Pure."""

from __future__ import annotations

from typing import Final

from app.channel_metrics.parsers import meta_insights
from app.channel_metrics.parsers.metric import MetricDefaults, MetricFormat, ParsedMetrics


def parse_file(body: bytes, defaults: MetricDefaults) -> ParsedMetrics:
    return meta_insights.parse_file(body, defaults, "instagram")


KIND: Final = MetricFormat(
    key="instagram_insights",
    name="Instagram Insights",
    parse_file=parse_file,
    steps=(
        "In Meta Business Suite open Insights, Results, and export a chart as CSV; or save the Graph API's response to "
        "GET /{account}/insights?metric=reach&period=day.",
        "An export does not contain the name of the account: set the name as the subject.",
    ),
    sample=b'sep=,\n"Instagram reach"\n"Date","Primary"\n"2026-05-04T00:00:00","310"\n"2026-05-05T00:00:00","275"\n',
)
