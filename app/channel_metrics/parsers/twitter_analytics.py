"""Twitter's (X's) analytics: the export by day, of either generation. Pure."""

from __future__ import annotations

from typing import Final

from app.channel_metrics.parsers.metric import MetricDefaults, MetricFormat, ParsedMetrics, Unreadable
from app.channel_metrics.parsers.table_reader import metrics_of_table, table

_OF_POSTS: Final = ("Tweet id", "Post id")


def read(body: bytes, told: MetricDefaults) -> ParsedMetrics:
    found = table(body, "Date", *_OF_POSTS)
    if found.column(*_OF_POSTS) is not None:
        raise Unreadable("this is the export by post, whose figures are of no day: export by day")
    return metrics_of_table(found, told, "social", days=found.column("Date"))


KIND: Final = MetricFormat(
    key="twitter_analytics",
    name="Twitter (X) Analytics",
    read=read,
    steps=("In analytics.x.com choose the days, Export data, By day.",),
    sample=b"Date,Impressions,Engagements,Likes,New follows,Profile visits\n"
    b'"Mon, May 4, 2026",100,10,2,1,7\n"Tue, May 5, 2026","1,250",31,9,0,12\n',
)
