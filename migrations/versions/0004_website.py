"""Website support: allowed origins, bot policy, public definitions, keys that sign visitor tokens."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

UP = """
ALTER TABLE keys ADD COLUMN origins text[] NOT NULL DEFAULT '{}',
    ADD COLUMN trusts_identify boolean NOT NULL DEFAULT false;
ALTER TABLE sources ADD COLUMN bots text NOT NULL DEFAULT 'apart';
ALTER TABLE definitions ADD COLUMN public boolean NOT NULL DEFAULT false;
CREATE TABLE signing_keys (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    secret bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
)
"""

DOWN = """
DROP TABLE signing_keys;
ALTER TABLE definitions DROP COLUMN public;
ALTER TABLE sources DROP COLUMN bots;
ALTER TABLE keys DROP COLUMN trusts_identify, DROP COLUMN origins
"""


def upgrade() -> None:
    for statement in UP.split(";\n"):
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN.split(";\n"):
        op.execute(statement)
