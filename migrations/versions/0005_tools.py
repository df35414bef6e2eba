"""Sources for tools: kinds and secrets; erasure requests, channel metrics, tracking plan, data quality."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

UP = """
ALTER TABLE sources ADD COLUMN kind text NOT NULL DEFAULT 'sdk',
    ADD COLUMN options jsonb NOT NULL DEFAULT '{}';
CREATE TABLE source_secrets (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source text NOT NULL,
    secret bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz
);
CREATE INDEX source_secrets_of_source ON source_secrets (source);
ALTER TABLE quarantine ADD COLUMN form text NOT NULL DEFAULT '';
CREATE TABLE used_once (
    source text NOT NULL,
    token bytea NOT NULL,
    body bytea NOT NULL,
    received_at timestamptz NOT NULL,
    CONSTRAINT used_once_pkey PRIMARY KEY (source, token)
);
CREATE INDEX used_once_by_age ON used_once (received_at);
CREATE TABLE erasure_requests (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source text NOT NULL,
    kind text NOT NULL,
    value text NOT NULL,
    requested_at timestamptz NOT NULL,
    handled_at timestamptz
);
CREATE UNIQUE INDEX erasure_requests_one_open ON erasure_requests (source, kind, value) WHERE handled_at IS NULL;
CREATE TABLE channel_days (
    source text NOT NULL,
    kind text NOT NULL,
    channel text NOT NULL,
    metric text NOT NULL,
    subject text NOT NULL DEFAULT '',
    day date NOT NULL,
    value numeric NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT channel_days_pkey PRIMARY KEY (source, kind, channel, metric, subject, day)
);
CREATE INDEX channel_days_by_day ON channel_days (day, channel, metric, subject);
CREATE TABLE tracking_plan (
    source text NOT NULL DEFAULT '',
    event text NOT NULL,
    mode text NOT NULL DEFAULT 'warn',
    schema jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT tracking_plan_pkey PRIMARY KEY (source, event)
);
CREATE TABLE plan_violations (
    source text NOT NULL,
    event text NOT NULL,
    reason text NOT NULL,
    messages bigint NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    sample jsonb NOT NULL,
    CONSTRAINT plan_violations_pkey PRIMARY KEY (source, event, reason)
);
CREATE TABLE volumes (
    source text NOT NULL,
    hour timestamptz NOT NULL,
    channel text NOT NULL,
    name text NOT NULL,
    messages bigint NOT NULL,
    CONSTRAINT volumes_pkey PRIMARY KEY (source, hour, channel, name)
);
CREATE INDEX volumes_by_hour ON volumes (hour);
CREATE TABLE deliveries (
    source text NOT NULL,
    hour timestamptz NOT NULL,
    outcome text NOT NULL,
    times bigint NOT NULL,
    last_at timestamptz NOT NULL,
    CONSTRAINT deliveries_pkey PRIMARY KEY (source, hour, outcome)
)
"""

DOWN = """
DROP TABLE deliveries;
DROP TABLE volumes;
DROP TABLE plan_violations;
DROP TABLE tracking_plan;
DROP TABLE channel_days;
DROP TABLE erasure_requests;
DROP TABLE used_once;
ALTER TABLE quarantine DROP COLUMN form;
DROP TABLE source_secrets;
ALTER TABLE sources DROP COLUMN options, DROP COLUMN kind
"""


def upgrade() -> None:
    for statement in UP.split(";\n"):
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN.split(";\n"):
        op.execute(statement)
