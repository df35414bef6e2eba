"""The one description of the schema; Alembic builds it, everything else only uses it.

Each unique key contains its table's distribution column (customer, identity, or the hash), and no foreign key
crosses those, so that the tables can be distributed by customer without being rewritten.
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
    comment="Counters that tell a process when its snapshot of definitions or of keys is out of date.",
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
        "bots", Text, nullable=False, server_default="quarantine", comment="messages of bots: keep, quarantine or drop"
    ),
    Column(
        "kind", Text, nullable=False, server_default="sdk", comment="sdk, or the key of a tool in app.connectors.tools"
    ),
    Column("options", JSONB, nullable=False, server_default=text("'{}'"), comment="what its kind is told besides"),
    comment="Where messages come from.",
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
        comment="what verifying needs, as registry.webhook_secrets stores it",
    ),
    Column("created_at", Instant, nullable=False, server_default=text("now()")),
    Column("expires_at", Instant, comment="where a newer one has taken its place"),
    comment="By what webhooks of a source are verified: several while one takes the place of another.",
)
Index("source_secrets_of_source", source_secrets.c.source)

used_tokens = Table(
    "used_tokens",
    metadata,
    Column("source", Text, nullable=False),
    Column("token", LargeBinary, nullable=False, comment="hash of what signs one delivery"),
    Column("body", LargeBinary, nullable=False, comment="hash of the body that it signed"),
    Column("received_at", Instant, nullable=False),
    PrimaryKeyConstraint("source", "token", name="used_tokens_pkey"),
    comment="Tokens of tools whose signatures leave the body out: a second body under one is a forgery.",
)
Index("used_tokens_by_age", used_tokens.c.received_at)

erasure_requests = Table(
    "erasure_requests",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("source", Text, nullable=False),
    Column("kind", Text, nullable=False, comment="with value: the identity that asks"),
    Column("value", Text, nullable=False),
    Column("requested_at", Instant, nullable=False),
    Column("handled_at", Instant),
    comment="People whom a tool says to forget; nothing is erased by itself.",
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
    Column("source", Text, comment="of a write key"),
    Column("name", Text, nullable=False),
    Column(
        "hint", Text, nullable=False, comment="a write key whole (it is public), of a secret key the first characters"
    ),
    Column("created_at", Instant, nullable=False, server_default=text("now()")),
    Column("revoked_at", Instant),
    Column(
        "origins",
        ARRAY(Text),
        nullable=False,
        server_default=text("'{}'"),
        comment="of a write key: pages that may use it; none said, any may",
    ),
    Column(
        "trusts_identify",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="of a write key: a page may be shown whom it says it is",
    ),
    comment="Write keys append, secret keys read and define; a secret key is kept as its hash only.",
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("secret", LargeBinary, nullable=False, comment="32 random bytes"),
    Column("created_at", Instant, nullable=False, server_default=text("now()")),
    comment="What signs the tokens of visitors: the newest signs, all verify.",
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
        "body", JSONB, nullable=False, comment="the rule of a segment, the stages of a journey, the value of a trait"
    ),
    Column("created_at", Instant, nullable=False, server_default=text("now()")),
    Column("superseded_at", Instant, comment="by a newer version, or by archiving"),
    Column("note", Text, nullable=False, server_default="", comment="why this version was made"),
    Column("activated_at", Instant, comment="null: a candidate, it becomes current when every customer is filled"),
    Column("public", Boolean, nullable=False, server_default=text("false"), comment="whether pages may be shown it"),
    PrimaryKeyConstraint("kind", "key", "version", name="definitions_pkey"),
    comment="Segments, journeys and computed traits, every version of them.",
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
    Column("meaning", Text, primary_key=True, comment="hash of the rule with all that it reads"),
    Column(
        "number",
        BigInteger,
        Identity(always=True),
        nullable=False,
        comment="grows; a customer's row of that revision or a later one holds the rule",
    ),
    Column("definition", Text, comment="segment:KEY or journey:KEY, where intervals are kept of it"),
    Column("introduced_at", Instant, nullable=False, server_default=text("now()")),
    comment="Under which number states keep what: exactly the rules of now and of the candidates.",
)

retired = Table(
    "retired",
    metadata,
    Column("definition", Text, nullable=False, comment="segment:KEY or journey:KEY"),
    Column("meaning", BigInteger, nullable=False),
    PrimaryKeyConstraint("definition", "meaning", name="retired_pkey"),
    comment="Meanings that definitions no longer have, whose intervals the worker is still to retract.",
)

fills = Table(
    "fills",
    metadata,
    Column("target", BigInteger, primary_key=True, comment="the revision that customers are brought to"),
    Column("begun_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Column("customers", BigInteger, nullable=False),
    Column("touchpoints", BigInteger, nullable=False, comment="read from the log so far"),
    comment="How fast customers are brought to new definitions.",
)

ledger = Table(
    "ledger",
    metadata,
    Column("key", UUID, primary_key=True, comment="16-byte hash of source and message id"),
    Column("digest", LargeBinary, nullable=False, comment="of the content, to tell a retry from a differing twin"),
    Column("received_at", Instant, nullable=False),
    comment="Which messages we have: apart from touchpoints, because a partitioned table cannot carry this key.",
)

touchpoints = Table(
    "touchpoints",
    metadata,
    Column("received_at", Instant, nullable=False),
    Column("occurred_at", Instant, nullable=False, comment="skew-corrected and clamped at acceptance, never changed"),
    Column("identity_id", UUID, nullable=False, comment="the strongest identity the message carried"),
    Column(
        "type",
        Text,
        nullable=False,
        comment="track, page, screen; identify, group, alias are kept but are no touchpoints",
    ),
    Column("name", Text, comment="null for identify, group, alias"),
    Column("channel", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("properties", JSONB, nullable=False),
    Column("context", JSONB, nullable=False),
    Column("traits", JSONB, comment="of an identify"),
    Column(
        "carried",
        JSONB,
        nullable=False,
        comment="all identities and aliases of the message, so that the graph can be rebuilt",
    ),
    Column("sent_at", Instant),
    Column("original_timestamp", Text, comment="as the client wrote it"),
    comment="The log: append-only, one row an accepted message, partitioned by month of received_at.",
    postgresql_partition_by="RANGE (received_at)",
)
Index(
    "touchpoints_of_identity",
    touchpoints.c.identity_id,
    touchpoints.c.name,
    touchpoints.c.occurred_at,
)

identities = Table(
    "identities",
    metadata,
    Column("id", UUID, primary_key=True, comment="16-byte hash of kind and value"),
    Column("kind", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("customer_id", UUID, comment="null while only an alias has named it"),
    Column(
        "carried", Boolean, nullable=False, comment="false: named as previousId, never sent by a message as its own"
    ),
    comment="Who can be asked for; each points to its customer in one step.",
)
Index("identities_of_customer", identities.c.customer_id)

links = Table(
    "links",
    metadata,
    Column("weaker", UUID, nullable=False),
    Column("stronger", UUID, nullable=False),
    Column("kind", Text, nullable=False, comment="link (carried together) or alias"),
    Column(
        "occurred_at", Instant, nullable=False, comment="with message_id and source: the earliest message that says so"
    ),
    Column("message_id", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("joined", Boolean, nullable=False, comment="false: a conflict, it changed nothing"),
    Column("recorded_at", Instant, nullable=False, server_default=text("now()")),
    Column("undone_at", Instant, comment="taken back by API; the graph is as if the link were not there"),
    PrimaryKeyConstraint("weaker", "stronger", name="links_pkey"),
    comment="The merge ledger: why identities are one customer, or are not; each row can be undone.",
)
Index("links_of_stronger", links.c.stronger)

customers = Table(
    "customers",
    metadata,
    Column("id", UUID, primary_key=True, comment="id of the strongest identity"),
    Column(
        "state",
        LargeBinary,
        nullable=False,
        comment="projection.state.State in MessagePack; never read by SQL, so never parsed by it",
    ),
    Column(
        "flips_at",
        Instant,
        comment="when a stored truth changes although nothing arrives; not indexed, so updates stay HOT",
    ),
    Column("sweep_at", Instant, comment="never later than flips_at; moves only when it must, because it is indexed"),
    Column("revision", BigInteger, nullable=False, comment="the highest rule number it is complete for"),
    Column("stale", Boolean, nullable=False, comment="must be replayed from the log before it is believed"),
    Column("contested", Boolean, nullable=False, comment="some link of its identities is a conflict"),
    Column("last_link_at", Instant, nullable=False, comment="occurred_at of the latest link of its identities"),
    comment="One row a customer: what the engine remembers, and the truths of now.",
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

transitions = Table(
    "transitions",
    metadata,
    Column("customer_id", UUID, nullable=False),
    Column("definition", Text, nullable=False, comment="segment:KEY or journey:KEY"),
    Column("value", Text, nullable=False, comment="the stage of a journey, empty for a segment"),
    Column("version", Integer, nullable=False, comment="of the definition, when the interval was first written"),
    Column("entered_at", Instant, nullable=False, comment="effective instant, in event time"),
    Column("left_at", Instant),
    Column("entered_cause", JSONB, nullable=False),
    Column("left_cause", JSONB),
    Column("entered_recorded_at", Instant, nullable=False),
    Column("left_recorded_at", Instant),
    Column(
        "retracted_at", Instant, comment="a replay found it never held, or it belongs to an older meaning: audit trail"
    ),
    Column("meaning", BigInteger, nullable=False, comment="number of what the definition meant; readers ask for one"),
    comment="When which customer was in which segment or stage: half-open intervals [entered_at, left_at).",
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
    Column("key", UUID, primary_key=True, comment="of the ledger"),
    Column("identity_id", UUID, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("received_at", Instant, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("retry_at", Instant, nullable=False, server_default=text("'epoch'")),
    Column("reason", Text, nullable=False),
    comment="Messages of the log that no customer's state holds yet; the worker projects them.",
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
    Column("original", LargeBinary, nullable=False, comment="as the client sent it"),
    Column("replayed_at", Instant),
    Column("form", Text, nullable=False, server_default="", comment="how original is read: empty is a message of ours"),
    comment="Rejected messages and differing twins, with the reason.",
)
Index("quarantine_of_message", quarantine.c.source, quarantine.c.message_id)

segment_reads = Table(
    "segment_reads",
    metadata,
    Column("key", Text, primary_key=True, comment="of the segment"),
    Column("reads", BigInteger, nullable=False, comment="of its members and its count"),
    Column("last_read_at", Instant, nullable=False),
    comment="How often each segment is read, to tell which ones nobody uses.",
)

channel_metrics = Table(
    "channel_metrics",
    metadata,
    Column("source", Text, nullable=False),
    Column("kind", Text, nullable=False, comment="of the file: a key of app.channel_metrics.parsers"),
    Column("channel", Text, nullable=False),
    Column("metric", Text, nullable=False, comment="such as impressions"),
    Column("subject", Text, nullable=False, server_default="", comment="page, post or keyword; empty: the whole"),
    Column("day", Date, nullable=False),
    Column("value", Numeric, nullable=False),
    Column("recorded_at", Instant, nullable=False, server_default=text("now()")),
    PrimaryKeyConstraint("source", "kind", "channel", "metric", "subject", "day", name="channel_metrics_pkey"),
    comment="Figures of a channel by day that belong to nobody: context beside the journey.",
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
    Column("source", Text, nullable=False, server_default="", comment="empty: every source"),
    Column("event", Text, nullable=False),
    Column("mode", Text, nullable=False, server_default="warn", comment="off, warn or quarantine"),
    Column("schema", JSONB, nullable=False, comment="JSON Schema of the properties"),
    Column("updated_at", Instant, nullable=False, server_default=text("now()")),
    PrimaryKeyConstraint("source", "event", name="tracking_plan_pkey"),
    comment="What properties an event should have.",
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
    Column("sample", JSONB, nullable=False, comment="the properties of one of them"),
    PrimaryKeyConstraint("source", "event", "reason", name="plan_violations_pkey"),
    comment="How often the tracking plan was not kept, and by what.",
)

source_volumes = Table(
    "source_volumes",
    metadata,
    Column("source", Text, nullable=False),
    Column("hour", Instant, nullable=False),
    Column("channel", Text, nullable=False),
    Column("name", Text, nullable=False, comment="of the event, or the type of a message that has none"),
    Column("messages", BigInteger, nullable=False),
    PrimaryKeyConstraint("source", "hour", "channel", "name", name="source_volumes_pkey"),
    comment="Accepted messages by hour of arrival: what is new, silent or too much is found here.",
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
    comment="How a source is doing, by hour.",
)
