"""Table of objects, such as orders, with the person that each belongs to."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

UP = """
CREATE TABLE object_owners (
    id uuid NOT NULL,
    kind text NOT NULL,
    value text NOT NULL,
    owner_kind text,
    owner_value text,
    is_identity boolean NOT NULL,
    CONSTRAINT object_owners_pkey PRIMARY KEY (id)
);
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute("DROP TABLE object_owners")
