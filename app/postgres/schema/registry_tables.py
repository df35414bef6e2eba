"""Tables that operators fill: sources, keys, definitions and their numbers."""

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
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from app.postgres.schema.common import Instant, metadata

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
