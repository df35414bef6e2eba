"""Count the reads of each segment."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE segment_reads (
    key text PRIMARY KEY,
    reads bigint NOT NULL,
    last_read_at timestamptz NOT NULL
);
"""


def upgrade() -> None:
    op.execute(TABLES)


def downgrade() -> None:
    op.execute("DROP TABLE segment_reads")
