"""Tables of counts and metrics."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Date,
    Index,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from app.postgres.schema.common import Instant, metadata

segment_reads = Table(
    "segment_reads",
    metadata,
    Column("key", Text, primary_key=True, comment="key of the segment"),
    Column("reads", BigInteger, nullable=False, comment="number of requests for the members or their count"),
    Column("last_read_at", Instant, nullable=False),
    comment="Usage of segments; unused segments are reported.",
)

channel_metrics = Table(
    "channel_metrics",
    metadata,
    Column("source", Text, nullable=False),
    Column("kind", Text, nullable=False, comment="format of the file: a key of app.channel_metrics.parsers"),
    Column("channel", Text, nullable=False),
    Column("metric", Text, nullable=False, comment="name of the metric, such as impressions"),
    Column("subject", Text, nullable=False, server_default="", comment="page, post or keyword; empty means none"),
    Column("day", Date, nullable=False),
    Column("value", Numeric, nullable=False),
    Column("recorded_at", Instant, nullable=False, server_default=text("now()")),
    PrimaryKeyConstraint("source", "kind", "channel", "metric", "subject", "day", name="channel_metrics_pkey"),
    comment="Daily metrics of channels, which belong to no customer.",
)
Index(
    "channel_metrics_by_day",
    channel_metrics.c.day,
    channel_metrics.c.channel,
    channel_metrics.c.metric,
    channel_metrics.c.subject,
)

tracking_plan = Table(
    "tracking_plan",
    metadata,
    Column("source", Text, nullable=False, server_default="", comment="empty means all sources"),
    Column("event", Text, nullable=False),
    Column("mode", Text, nullable=False, server_default="warn", comment="off, warn or quarantine"),
    Column("schema", JSONB, nullable=False, comment="JSON Schema of the properties"),
    Column("updated_at", Instant, nullable=False, server_default=text("now()")),
    PrimaryKeyConstraint("source", "event", name="tracking_plan_pkey"),
    comment="Expected properties of events.",
)

plan_violations = Table(
    "plan_violations",
    metadata,
    Column("source", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("messages", BigInteger, nullable=False),
    Column("first_at", Instant, nullable=False),
    Column("last_at", Instant, nullable=False),
    Column("sample", JSONB, nullable=False, comment="properties of one of the messages"),
    PrimaryKeyConstraint("source", "event", "reason", name="plan_violations_pkey"),
    comment="Violations of the tracking plan.",
)

source_volumes = Table(
    "source_volumes",
    metadata,
    Column("source", Text, nullable=False),
    Column("hour", Instant, nullable=False),
    Column("channel", Text, nullable=False),
    Column("name", Text, nullable=False, comment="event or page name, or the type of a message without a name"),
    Column("messages", BigInteger, nullable=False),
    PrimaryKeyConstraint("source", "hour", "channel", "name", name="source_volumes_pkey"),
    comment="Accepted messages by hour of arrival, for the detection of anomalies.",
)
Index("source_volumes_by_hour", source_volumes.c.hour)

source_outcomes = Table(
    "source_outcomes",
    metadata,
    Column("source", Text, nullable=False),
    Column("hour", Instant, nullable=False),
    Column("outcome", Text, nullable=False, comment="accepted, duplicate, rejected:CODE, refused:REASON, ignored"),
    Column("times", BigInteger, nullable=False),
    Column("last_at", Instant, nullable=False),
    PrimaryKeyConstraint("source", "hour", "outcome", name="source_outcomes_pkey"),
    comment="Outcomes of messages by source and hour.",
)
