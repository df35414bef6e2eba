"""Table of points that a customer's state is too small for."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

UP = """
CREATE TABLE older_points (
    customer_id uuid NOT NULL,
    leaf text NOT NULL,
    position bigint NOT NULL,
    end_position bigint NOT NULL,
    points bytea NOT NULL,
    CONSTRAINT older_points_pkey PRIMARY KEY (customer_id, leaf, position)
);
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute("DROP TABLE older_points")
