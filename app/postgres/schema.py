"""Database schema. The migrations create it; a test compares both.

Each unique key contains the distribution column of its table (customer, identity or hash), and no foreign key crosses
these columns. The tables can therefore be distributed by customer without a rewrite.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

metadata = MetaData()

Instant = DateTime(timezone=True)

revisions = Table(
    "revisions",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
    comment="Counters that change with definitions, keys and sources, so that processes refresh their caches.",
)

sources = Table(
    "sources",
    metadata,
    Column("key", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("default_channel", Text),
    Column("identity_properties", JSONB, nullable=False, server_default=text("'{}'")),
    Column("created_at", Instant, nullable=False, server_default=text("now()")),
    Column(
        "bots",
        Text,
        nullable=False,
        server_default="quarantine",
        comment="treatment of messages of bots: keep, quarantine or drop",
    ),
    Column(
        "kind", Text, nullable=False, server_default="sdk", comment="sdk, or the key of a tool in app.connectors.tools"
    ),
    Column("options", JSONB, nullable=False, server_default=text("'{}'"), comment="options of its kind"),
    comment="Configured origins of messages.",
)

source_secrets = Table(
    "source_secrets",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("source", Text, nullable=False),
    Column(
        "secret",
        LargeBinary,
        nullable=False,
        comment="secret as registry.webhook_secrets stores it, encrypted if keys are configured",
    ),
    Column("created_at", Instant, nullable=False, server_default=text("now()")),
    Column("expires_at", Instant, comment="set when a newer secret replaces it"),
    comment="Secrets that verify the webhooks of a source; several are valid while one replaces another.",
)
Index("source_secrets_of_source", source_secrets.c.source)

used_tokens = Table(
    "used_tokens",
    metadata,
    Column("source", Text, nullable=False),
    Column("token", LargeBinary, nullable=False, comment="hash of the signed token of one webhook"),
    Column("body", LargeBinary, nullable=False, comment="hash of the body that arrived with the token"),
    Column("received_at", Instant, nullable=False),
    PrimaryKeyConstraint("source", "token", name="used_tokens_pkey"),
    comment="Tokens of tools whose signatures do not cover the body; the same token with another body is a forgery.",
)
Index("used_tokens_by_age", used_tokens.c.received_at)

erasure_requests = Table(
    "erasure_requests",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("source", Text, nullable=False),
    Column("kind", Text, nullable=False, comment="kind of the identity to erase"),
    Column("value", Text, nullable=False),
    Column("requested_at", Instant, nullable=False),
    Column("handled_at", Instant),
    comment="Erasure requests received from tools; an operator handles them.",
)
Index(
    "erasure_requests_one_open",
    erasure_requests.c.source,
    erasure_requests.c.kind,
    erasure_requests.c.value,
    unique=True,
    postgresql_where=erasure_requests.c.handled_at.is_(None),
)

keys = Table(
    "keys",
    metadata,
    Column("hash", LargeBinary, primary_key=True, comment="SHA-256 of the key"),
    Column("kind", Text, nullable=False, comment="write or secret"),
    Column("source", Text, comment="source of a write key; null for a secret key"),
    Column("name", Text, nullable=False),
    Column(
        "hint",
        Text,
        nullable=False,
        comment="the whole write key, which is public, or the first characters of a secret key",
    ),
    Column("created_at", Instant, nullable=False, server_default=text("now()")),
    Column("revoked_at", Instant),
    Column(
        "origins",
        ARRAY(Text),
        nullable=False,
        server_default=text("'{}'"),
        comment="origins of the pages that may use a write key; empty means all",
    ),
    Column(
        "trusts_identify",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="whether a page with this write key may read the profile of the user id that it sends",
    ),
    Column("last_used_at", Instant, comment="to the minute; null if never used"),
    Column("trust", Text, nullable=False, server_default="public", comment="public, or server for a key of servers"),
    Column("joins_users", Boolean, nullable=False, server_default=text("false"), comment="for aliases of public keys"),
    comment="API keys: write keys send messages, secret keys manage all. Of secret keys only the hash is stored.",
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("secret", LargeBinary, nullable=False, comment="32 random bytes"),
    Column("created_at", Instant, nullable=False, server_default=text("now()")),
    comment="Keys that sign visitor tokens: the newest key signs, all keys verify.",
)

definitions = Table(
    "definitions",
    metadata,
    Column("kind", Text, nullable=False, comment="segment, journey or trait"),
    Column("key", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("owner", Text, nullable=False, server_default=""),
    Column(
        "body", JSONB, nullable=False, comment="rule of a segment, stages of a journey, or value of a computed trait"
    ),
    Column("created_at", Instant, nullable=False, server_default=text("now()")),
    Column("superseded_at", Instant, comment="when a newer version replaced it or it was archived"),
    Column("note", Text, nullable=False, server_default="", comment="reason for this version"),
    Column("activated_at", Instant, comment="null means a candidate, activated when every customer is backfilled"),
    Column("public", Boolean, nullable=False, server_default=text("false"), comment="whether web pages may read it"),
    PrimaryKeyConstraint("kind", "key", "version", name="definitions_pkey"),
    comment="All versions of segments, journeys and computed traits.",
)
Index(
    "definitions_one_current_version",
    definitions.c.kind,
    definitions.c.key,
    unique=True,
    postgresql_where=definitions.c.superseded_at.is_(None) & definitions.c.activated_at.is_not(None),
)
Index(
    "definitions_one_candidate",
    definitions.c.kind,
    definitions.c.key,
    unique=True,
    postgresql_where=definitions.c.superseded_at.is_(None) & definitions.c.activated_at.is_(None),
)

rule_numbers = Table(
    "rule_numbers",
    metadata,
    Column("meaning", Text, primary_key=True, comment="hash of the rule and of all definitions that it reads"),
    Column(
        "number",
        BigInteger,
        Identity(always=True),
        nullable=False,
        comment="ascending; a customer whose revision is at least this number has the state of the rule",
    ),
    Column("definition", Text, comment="segment:KEY or journey:KEY if intervals are stored for the rule"),
    Column("introduced_at", Instant, nullable=False, server_default=text("now()")),
    comment="Number under which customer states store each rule of the current and candidate definitions.",
)

retired = Table(
    "retired",
    metadata,
    Column("definition", Text, nullable=False, comment="segment:KEY or journey:KEY"),
    Column("meaning", BigInteger, nullable=False),
    PrimaryKeyConstraint("definition", "meaning", name="retired_pkey"),
    comment="Former rules of definitions, identified by number, whose intervals the worker has yet to retract.",
)

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
