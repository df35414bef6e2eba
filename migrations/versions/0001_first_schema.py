"""First schema: event log, deduplication ledger, identities, customers, transitions, definitions, keys.

The SQL is written out instead of derived from app.postgres.schema, because a migration must never change. A test checks
that the migrations create the schema of that module.
"""

from __future__ import annotations

import re

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE revisions (
    name text PRIMARY KEY,
    value bigint NOT NULL
);
INSERT INTO revisions (name, value) VALUES ('definitions', 0), ('access', 0);

CREATE TABLE sources (
    key text PRIMARY KEY,
    name text NOT NULL,
    default_channel text,
    identity_properties jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE keys (
    hash bytea PRIMARY KEY,
    kind text NOT NULL,
    source text,
    name text NOT NULL,
    hint text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);

CREATE TABLE definitions (
    kind text NOT NULL,
    key text NOT NULL,
    version integer NOT NULL,
    name text NOT NULL,
    description text NOT NULL DEFAULT '',
    owner text NOT NULL DEFAULT '',
    body jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    superseded_at timestamptz,
    CONSTRAINT definitions_pkey PRIMARY KEY (kind, key, version)
);
CREATE UNIQUE INDEX definitions_one_current_version ON definitions (kind, key) WHERE superseded_at IS NULL;

CREATE TABLE ledger (
    key uuid PRIMARY KEY,
    digest bytea NOT NULL,
    received_at timestamptz NOT NULL
);

CREATE TABLE touchpoints (
    received_at timestamptz NOT NULL,
    occurred_at timestamptz NOT NULL,
    identity_id uuid NOT NULL,
    type text NOT NULL,
    name text,
    channel text NOT NULL,
    source text NOT NULL,
    message_id text NOT NULL,
    properties jsonb NOT NULL,
    context jsonb NOT NULL,
    traits jsonb,
    carried jsonb NOT NULL,
    sent_at timestamptz,
    original_timestamp text
) PARTITION BY RANGE (received_at);
CREATE INDEX touchpoints_of_identity ON touchpoints (identity_id, name, occurred_at);
-- The worker creates monthly partitions in advance; this one stores rows outside them.
CREATE TABLE touchpoints_default PARTITION OF touchpoints DEFAULT;

CREATE TABLE identities (
    id uuid PRIMARY KEY,
    kind text NOT NULL,
    value text NOT NULL,
    customer_id uuid,
    carried boolean NOT NULL
);
CREATE INDEX identities_of_customer ON identities (customer_id);

CREATE TABLE links (
    weaker uuid NOT NULL,
    stronger uuid NOT NULL,
    kind text NOT NULL,
    occurred_at timestamptz NOT NULL,
    message_id text NOT NULL,
    source text NOT NULL,
    joined boolean NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    undone_at timestamptz,
    CONSTRAINT links_pkey PRIMARY KEY (weaker, stronger)
);
CREATE INDEX links_of_stronger ON links (stronger);

CREATE TABLE customers (
    id uuid PRIMARY KEY,
    state bytea NOT NULL,
    flips_at timestamptz,
    sweep_at timestamptz,
    revision bigint NOT NULL,
    stale boolean NOT NULL,
    contested boolean NOT NULL,
    last_link_at timestamptz NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX customers_due ON customers (sweep_at) WHERE sweep_at IS NOT NULL;
CREATE INDEX customers_stale ON customers (id) WHERE stale;
CREATE INDEX customers_to_fill ON customers (revision, id);

CREATE TABLE transitions (
    customer_id uuid NOT NULL,
    definition text NOT NULL,
    value text NOT NULL,
    version integer NOT NULL,
    entered_at timestamptz NOT NULL,
    left_at timestamptz,
    entered_cause jsonb NOT NULL,
    left_cause jsonb,
    entered_recorded_at timestamptz NOT NULL,
    left_recorded_at timestamptz,
    retracted_at timestamptz
);
CREATE UNIQUE INDEX transitions_one_interval ON transitions (customer_id, definition, value, version, entered_at)
    WHERE retracted_at IS NULL;
-- Two partial indexes. The flush's statements do not imply their conditions, so they use transitions_one_interval.
CREATE INDEX transitions_open ON transitions (definition, customer_id) INCLUDE (entered_at)
    WHERE left_at IS NULL AND retracted_at IS NULL;
CREATE INDEX transitions_ended ON transitions (definition, left_at)
    WHERE left_at IS NOT NULL AND retracted_at IS NULL;

CREATE TABLE deferred (
    key uuid PRIMARY KEY,
    identity_id uuid NOT NULL,
    message_id text NOT NULL,
    source text NOT NULL,
    received_at timestamptz NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    retry_at timestamptz NOT NULL DEFAULT 'epoch',
    reason text NOT NULL
);

CREATE TABLE quarantine (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source text NOT NULL,
    received_at timestamptz NOT NULL,
    code text NOT NULL,
    message text NOT NULL,
    message_id text,
    original bytea NOT NULL,
    replayed_at timestamptz
);
CREATE INDEX quarantine_of_message ON quarantine (source, message_id)
"""


def upgrade() -> None:
    for statement in TABLES.split(";\n"):
        op.execute(statement)


def downgrade() -> None:
    for table in re.findall(r"^CREATE TABLE (\w+) \(", TABLES, re.MULTILINE):
        op.execute(f"DROP TABLE {table}")
