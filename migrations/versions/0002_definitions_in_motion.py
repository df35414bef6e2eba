"""Allow a candidate of a definition during its backfill, number rules, and key intervals by the rule's meaning.

The format of customer states changes, so every customer is rebuilt from the log once. Until then, reads use the log
instead of the state, as they do for every invalid state.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

UP = """
ALTER TABLE definitions ADD COLUMN note text NOT NULL DEFAULT '', ADD COLUMN activated_at timestamptz;
UPDATE definitions SET activated_at = created_at;
DROP INDEX definitions_one_current_version;
CREATE UNIQUE INDEX definitions_one_current_version ON definitions (kind, key)
    WHERE superseded_at IS NULL AND activated_at IS NOT NULL;
CREATE UNIQUE INDEX definitions_one_candidate ON definitions (kind, key)
    WHERE superseded_at IS NULL AND activated_at IS NULL;

CREATE TABLE rule_numbers (
    meaning text PRIMARY KEY,
    number bigint GENERATED ALWAYS AS IDENTITY,
    definition text,
    introduced_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE retired (
    definition text NOT NULL,
    meaning bigint NOT NULL,
    CONSTRAINT retired_pkey PRIMARY KEY (definition, meaning)
);
CREATE TABLE fills (
    target bigint PRIMARY KEY,
    begun_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    customers bigint NOT NULL,
    touchpoints bigint NOT NULL
);

ALTER TABLE transitions ADD COLUMN meaning bigint NOT NULL DEFAULT 0;
ALTER TABLE transitions ALTER COLUMN meaning DROP DEFAULT;
-- The key distinguished versions; a customer that is not backfilled yet may have intervals of two versions.
UPDATE transitions SET meaning = -version WHERE version > 1 AND retracted_at IS NULL;
DROP INDEX transitions_one_interval;
DROP INDEX transitions_open;
DROP INDEX transitions_ended;
CREATE UNIQUE INDEX transitions_one_interval ON transitions (customer_id, definition, value, meaning, entered_at)
    WHERE retracted_at IS NULL;
CREATE INDEX transitions_open ON transitions (definition, meaning, customer_id) INCLUDE (entered_at)
    WHERE left_at IS NULL AND retracted_at IS NULL;
CREATE INDEX transitions_ended ON transitions (definition, meaning, left_at)
    WHERE left_at IS NOT NULL AND retracted_at IS NULL;

DROP INDEX customers_due;
CREATE INDEX customers_due ON customers (sweep_at) INCLUDE (id) WHERE sweep_at IS NOT NULL;
UPDATE customers SET revision = -1
"""

DOWN = """
UPDATE customers SET revision = -1;
DROP INDEX customers_due;
CREATE INDEX customers_due ON customers (sweep_at) WHERE sweep_at IS NOT NULL;
UPDATE transitions SET retracted_at = now() WHERE retracted_at IS NULL;
DROP INDEX transitions_one_interval;
DROP INDEX transitions_open;
DROP INDEX transitions_ended;
ALTER TABLE transitions DROP COLUMN meaning;
CREATE UNIQUE INDEX transitions_one_interval ON transitions (customer_id, definition, value, version, entered_at)
    WHERE retracted_at IS NULL;
CREATE INDEX transitions_open ON transitions (definition, customer_id) INCLUDE (entered_at)
    WHERE left_at IS NULL AND retracted_at IS NULL;
CREATE INDEX transitions_ended ON transitions (definition, left_at)
    WHERE left_at IS NOT NULL AND retracted_at IS NULL;
DROP TABLE fills;
DROP TABLE retired;
DROP TABLE rule_numbers;
DELETE FROM definitions WHERE activated_at IS NULL;
DROP INDEX definitions_one_candidate;
DROP INDEX definitions_one_current_version;
ALTER TABLE definitions DROP COLUMN note, DROP COLUMN activated_at;
CREATE UNIQUE INDEX definitions_one_current_version ON definitions (kind, key) WHERE superseded_at IS NULL
"""


def upgrade() -> None:
    for statement in UP.split(";\n"):
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN.split(";\n"):
        op.execute(statement)
