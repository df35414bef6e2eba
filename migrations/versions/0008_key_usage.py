"""Add the time of the last use to keys.

Why: operators must see which keys are unused before they revoke one.
Old code still runs beside it because: the column is nullable, and old code neither reads nor writes it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "keys", sa.Column("last_used_at", sa.DateTime(timezone=True), comment="to the minute; null if never used")
    )


def downgrade() -> None:
    op.drop_column("keys", "last_used_at")
