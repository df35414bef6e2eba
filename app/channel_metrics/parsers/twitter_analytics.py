"""Twitter (X) Analytics: the daily export, in its old and its new format. Pure."""

from __future__ import annotations

from typing import Final

from app.channel_metrics.parsers.metric import MetricDefaults, MetricFormat, ParsedMetrics, Unreadable
from app.channel_metrics.parsers.table_reader import read_metrics, read_table

_OF_POSTS: Final = ("Tweet id", "Post id")


def parse_file(body: bytes, defaults: MetricDefaults) -> ParsedMetrics:
    table = read_table(body, "Date", *_OF_POSTS)
    if table.column(*_OF_POSTS) is not None:
        raise Unreadable("this is the export by post, which does not contain daily metrics; use the export by day")
    return read_metrics(table, defaults, "social", days=table.column("Date"))


KIND: Final = MetricFormat(
    key="twitter_analytics",
    name="Twitter (X) Analytics",
    parse_file=parse_file,
    steps=("In analytics.x.com select the days, then Export data, By day.",),
    sample=b"Date,Impressions,Engagements,Likes,New follows,Profile visits\n"
    b'"Mon, May 4, 2026",100,10,2,1,7\n"Tue, May 5, 2026","1,250",31,9,0,12\n',
)
