"""Table of earlier states, from which the replay of a long history continues."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

UP = """
CREATE TABLE checkpoints (
    customer_id uuid NOT NULL,
    number bigint NOT NULL,
    at timestamptz NOT NULL,
    revision bigint NOT NULL,
    state bytea NOT NULL,
    CONSTRAINT checkpoints_pkey PRIMARY KEY (customer_id, number)
);
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute("DROP TABLE checkpoints")
