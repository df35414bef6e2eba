"""Tables that are computed from the log: customers, their intervals, and the progress of backfills."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from app.postgres.schema.common import Instant, metadata

fills = Table(
    "fills",
    metadata,
    Column("target", BigInteger, primary_key=True, comment="revision that customers are backfilled to"),
    Column("begun_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Column("customers", BigInteger, nullable=False),
    Column("touchpoints", BigInteger, nullable=False, comment="touchpoints read from the log so far"),
    comment="Progress of backfills.",
)

customers = Table(
    "customers",
    metadata,
    Column("id", UUID, primary_key=True, comment="id of the strongest identity"),
    Column("state", LargeBinary, nullable=False, comment="projection.state.State in MessagePack; SQL never reads it"),
    Column(
        "flips_at",
        Instant,
        comment="next instant at which time alone changes a stored truth; not indexed, so updates stay HOT",
    ),
    Column("sweep_at", Instant, comment="an instant at or before flips_at; updated rarely, because it is indexed"),
    Column("revision", BigInteger, nullable=False, comment="highest rule number that the state is complete for"),
    Column("stale", Boolean, nullable=False, comment="whether the state must be replayed from the log before use"),
    Column("contested", Boolean, nullable=False, comment="whether a link of its identities is a conflict"),
    Column("last_link_at", Instant, nullable=False, comment="occurred_at of the latest link of its identities"),
    Column("last_link_rank", Integer, nullable=False, server_default="1", comment="0 if servers vouch for all links"),
    comment="One row for each customer: the state of the rule engine, with the current truths.",
    postgresql_with={"fillfactor": "70"},
)
Index(
    "customers_due",
    customers.c.sweep_at,
    postgresql_include=["id"],
    postgresql_where=customers.c.sweep_at.is_not(None),
)
Index("customers_stale", customers.c.id, postgresql_where=customers.c.stale)
Index("customers_to_fill", customers.c.revision, customers.c.id)

older_points = Table(
    "older_points",
    metadata,
    Column("customer_id", UUID, nullable=False),
    Column("leaf", Text, nullable=False),
    Column("position", BigInteger, nullable=False, comment="number of the leaf's points before the first one"),
    Column("end_position", BigInteger, nullable=False, comment="position after the last point"),
    Column("points", LargeBinary, nullable=False, comment="list of points in MessagePack; SQL never reads it"),
    PrimaryKeyConstraint("customer_id", "leaf", "position", name="older_points_pkey"),
    comment="Points that a customer's state is too small for; a state loads them when they leave a window.",
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("customer_id", UUID, nullable=False),
    Column("number", BigInteger, nullable=False, comment="messages in the state, divided by the number between two"),
    Column("at", Instant, nullable=False, comment="instant up to which the state contains the log"),
    Column("revision", BigInteger, nullable=False, comment="highest rule number that the state is complete for"),
    Column("state", LargeBinary, nullable=False, comment="projection.state.State in MessagePack; SQL never reads it"),
    PrimaryKeyConstraint("customer_id", "number", name="checkpoints_pkey"),
    comment="Earlier states of customers with long histories, from which a replay continues.",
)

transitions = Table(
    "transitions",
    metadata,
    Column("customer_id", UUID, nullable=False),
    Column("definition", Text, nullable=False, comment="segment:KEY or journey:KEY"),
    Column("value", Text, nullable=False, comment="stage of a journey; empty for a segment"),
    Column("version", Integer, nullable=False, comment="version of the definition when the interval was first stored"),
    Column("entered_at", Instant, nullable=False, comment="effective instant, in event time"),
    Column("left_at", Instant),
    Column("entered_cause", JSONB, nullable=False),
    Column("left_cause", JSONB),
    Column("entered_recorded_at", Instant, nullable=False),
    Column("left_recorded_at", Instant),
    Column(
        "retracted_at",
        Instant,
        comment="when a replay or a new definition invalidated the interval, which is kept as an audit trail",
    ),
    Column("meaning", BigInteger, nullable=False, comment="number of the rule that held; readers select one"),
    comment="Intervals of customers in segments and stages, from entered_at (inclusive) to left_at (exclusive).",
)
Index(
    "transitions_one_interval",
    transitions.c.customer_id,
    transitions.c.definition,
    transitions.c.value,
    transitions.c.meaning,
    transitions.c.entered_at,
    unique=True,
    postgresql_where=transitions.c.retracted_at.is_(None),
)
Index(
    "transitions_open",
    transitions.c.definition,
    transitions.c.meaning,
    transitions.c.customer_id,
    postgresql_include=["entered_at"],
    postgresql_where=transitions.c.left_at.is_(None) & transitions.c.retracted_at.is_(None),
)
Index(
    "transitions_ended",
    transitions.c.definition,
    transitions.c.meaning,
    transitions.c.left_at,
    postgresql_where=transitions.c.left_at.is_not(None) & transitions.c.retracted_at.is_(None),
)
