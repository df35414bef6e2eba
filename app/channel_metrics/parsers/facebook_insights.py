"""Facebook Insights of a page: exports of Meta Business Suite and responses of the Graph API. Pure."""

from __future__ import annotations

from typing import Final

from app.channel_metrics.parsers import meta_insights
from app.channel_metrics.parsers.metric import MetricDefaults, MetricFormat, ParsedMetrics


def parse_file(body: bytes, defaults: MetricDefaults) -> ParsedMetrics:
    return meta_insights.parse_file(body, defaults, "facebook")


KIND: Final = MetricFormat(
    key="facebook_insights",
    name="Facebook Insights",
    parse_file=parse_file,
    steps=(
        "In Meta Business Suite open Insights, Results, and export a chart as CSV; or save the Graph API's response to "
        "GET /{page}/insights?metric=page_impressions,page_post_engagements&period=day.",
        "An export does not contain the name of the page: set the name as the subject.",
    ),
    sample=b'{"data":[{"name":"page_impressions","period":"day","values":[{"value":10,"end_time":'
    b'"2026-05-04T07:00:00+0000"},{"value":12,"end_time":"2026-05-05T07:00:00+0000"}],'
    b'"id":"1111/insights/page_impressions/day"}]}',
)
