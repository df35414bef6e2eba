"""Tables of messages: the log, the ledger, identities and their links, deferred and rejected messages."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from app.postgres.schema.common import Instant, metadata

ledger = Table(
    "ledger",
    metadata,
    Column("key", UUID, primary_key=True, comment="16-byte hash of source and message id"),
    Column(
        "digest",
        LargeBinary,
        nullable=False,
        comment="hash of the content, which separates a retry from a different message with the same id",
    ),
    Column("received_at", Instant, nullable=False),
    comment="Keys of all stored messages, for deduplication: partitioned touchpoints cannot have this unique key.",
)

touchpoints = Table(
    "touchpoints",
    metadata,
    Column("received_at", Instant, nullable=False),
    Column("occurred_at", Instant, nullable=False, comment="skew-corrected and clamped at acceptance, never changed"),
    Column("identity_id", UUID, nullable=False, comment="strongest identity of the message"),
    Column(
        "type",
        Text,
        nullable=False,
        comment="track, page or screen; identify, group and alias are stored but are not touchpoints",
    ),
    Column("name", Text, comment="event or page name; null for identify, group and alias"),
    Column("channel", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("properties", JSONB, nullable=False),
    Column("context", JSONB, nullable=False),
    Column("traits", JSONB, comment="traits of an identify message"),
    Column(
        "carried",
        JSONB,
        nullable=False,
        comment="all identities and aliases of the message, from which the identity graph can be rebuilt",
    ),
    Column("sent_at", Instant),
    Column("original_timestamp", Text, comment="timestamp as sent by the client"),
    comment="The log: append-only, one row for each accepted message, partitioned by month of received_at.",
    postgresql_partition_by="RANGE (received_at)",
)
Index("touchpoints_of_identity", touchpoints.c.identity_id, touchpoints.c.name, touchpoints.c.occurred_at)

identities = Table(
    "identities",
    metadata,
    Column("id", UUID, primary_key=True, comment="16-byte hash of kind and value"),
    Column("kind", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("customer_id", UUID, comment="null while only an alias message has mentioned the identity"),
    Column(
        "carried",
        Boolean,
        nullable=False,
        comment="false means mentioned as previousId only, never the identity of a message",
    ),
    comment="Identities; each row contains the customer that the identity belongs to.",
)
Index("identities_of_customer", identities.c.customer_id)

links = Table(
    "links",
    metadata,
    Column("weaker", UUID, nullable=False),
    Column("stronger", UUID, nullable=False),
    Column("kind", Text, nullable=False, comment="link (both in one message) or alias"),
    Column("occurred_at", Instant, nullable=False, comment="instant of the first claim of this link"),
    Column("message_id", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("joined", Boolean, nullable=False, comment="false means that the link is a conflict and was not applied"),
    Column("recorded_at", Instant, nullable=False, server_default=text("now()")),
    Column("undone_at", Instant, comment="when the link was undone by the API; the graph then ignores it"),
    Column("vouched", Boolean, nullable=False, server_default=text("false"), comment="whether a server vouches for it"),
    PrimaryKeyConstraint("weaker", "stronger", name="links_pkey"),
    comment="Merge ledger: the links between identities, with their evidence. Each link can be undone.",
)
Index("links_of_stronger", links.c.stronger)

object_owners = Table(
    "object_owners",
    metadata,
    Column("id", UUID, primary_key=True, comment="16-byte hash of kind and value, like the id of an identity"),
    Column("kind", Text, nullable=False, comment="kind of object, for example shopify_order"),
    Column("value", Text, nullable=False),
    Column("owner_kind", Text, comment="identity of the person; null until a message names one"),
    Column("owner_value", Text),
    Column("is_identity", Boolean, nullable=False, comment="whether a message named the object before its owner"),
    comment="Objects of persons, such as orders. Messages that name only the object belong to its owner.",
)

deferred = Table(
    "deferred",
    metadata,
    Column("key", UUID, primary_key=True, comment="key of the message in the ledger"),
    Column("identity_id", UUID, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("received_at", Instant, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("retry_at", Instant, nullable=False, server_default=text("'epoch'")),
    Column("reason", Text, nullable=False),
    comment="Messages of the log that are not projected yet; the worker projects them.",
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("source", Text, nullable=False),
    Column("received_at", Instant, nullable=False),
    Column("code", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("message_id", Text),
    Column("original", LargeBinary, nullable=False, comment="bytes as sent by the client"),
    Column("replayed_at", Instant),
    Column(
        "form", Text, nullable=False, server_default="", comment="format of original; empty for Segue's own messages"
    ),
    Column("trust", Text, nullable=False, server_default="public", comment="trust of the sender, for a replay"),
    comment="Rejected messages, and messages that differ from a stored one with the same id, with the reason.",
)
Index("quarantine_of_message", quarantine.c.source, quarantine.c.message_id)
