"""Trust of write keys and links: which claims about identities a server vouches for.

All existing keys become public, and no server vouches for existing links. The identity graph does not change. Servers
of earlier releases can run with the new columns, because each has a default. Their messages count as claims of public
keys.
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

UP = """
ALTER TABLE keys ADD COLUMN trust text NOT NULL DEFAULT 'public',
    ADD COLUMN joins_users boolean NOT NULL DEFAULT false;
ALTER TABLE links ADD COLUMN vouched boolean NOT NULL DEFAULT false;
ALTER TABLE customers ADD COLUMN last_link_rank integer NOT NULL DEFAULT 1;
ALTER TABLE quarantine ADD COLUMN trust text NOT NULL DEFAULT 'public'
"""

DOWN = """
ALTER TABLE quarantine DROP COLUMN trust;
ALTER TABLE customers DROP COLUMN last_link_rank;
ALTER TABLE links DROP COLUMN vouched;
ALTER TABLE keys DROP COLUMN joins_users, DROP COLUMN trust
"""


def upgrade() -> None:
    for statement in UP.split(";\n"):
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN.split(";\n"):
        op.execute(statement)
