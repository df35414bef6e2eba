"""Revision counters of cached tables. Each change increments one, so that processes notice an outdated cache."""

from __future__ import annotations

from app.postgres.pool import Connection

READ_REVISIONS = "SELECT name, value FROM revisions"

READ_REVISION = "SELECT coalesce((SELECT value FROM revisions WHERE name = $1), 0)"

_BUMP = """
INSERT INTO revisions (name, value) VALUES ($1, 1)
ON CONFLICT (name) DO UPDATE SET value = revisions.value + 1
"""


async def bump_revision(connection: Connection, name: str) -> None:
    """Increment the revision, in the transaction that makes the change."""
    await connection.execute(_BUMP, name)
