"""Rename tables and values to standard terms.

The name ``deliveries`` is needed for outgoing messages, the other names did not describe their tables, and the value
``apart`` was unclear. Servers of earlier releases fail on the renamed tables, so stop them first. Later releases must
not rename tables in one step.
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TABLES = {
    "used_once": "used_tokens",
    "channel_days": "channel_metrics",
    "volumes": "source_volumes",
    "deliveries": "source_outcomes",
}
INDEXES = {
    "used_once_pkey": "used_tokens_pkey",
    "used_once_by_age": "used_tokens_by_age",
    "channel_days_pkey": "channel_metrics_pkey",
    "channel_days_by_day": "channel_metrics_by_day",
    "volumes_pkey": "source_volumes_pkey",
    "volumes_by_hour": "source_volumes_by_hour",
    "deliveries_pkey": "source_outcomes_pkey",
}


def upgrade() -> None:
    for before, after in TABLES.items():
        op.execute(f"ALTER TABLE {before} RENAME TO {after}")
    for before, after in INDEXES.items():
        op.execute(f"ALTER INDEX {before} RENAME TO {after}")
    rename_values("apart", "quarantine", "private")


def downgrade() -> None:
    rename_values("quarantine", "apart", "apart", text_before="private")
    for before, after in INDEXES.items():
        op.execute(f"ALTER INDEX {after} RENAME TO {before}")
    for before, after in TABLES.items():
        op.execute(f"ALTER TABLE {after} RENAME TO {before}")


def rename_values(bots_before: str, bots_after: str, text_after: str, text_before: str = "apart") -> None:
    """Rename the values of the source columns for bots and for free text."""
    op.execute(f"ALTER TABLE sources ALTER COLUMN bots SET DEFAULT '{bots_after}'")
    op.execute(f"UPDATE sources SET bots = '{bots_after}' WHERE bots = '{bots_before}'")
    op.execute(
        f'UPDATE sources SET options = options || \'{{"text": "{text_after}"}}\' '
        f"WHERE options ->> 'text' = '{text_before}'"
    )
