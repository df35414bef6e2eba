"""Counters that tell a process that its snapshot is out of date; raised in the transaction of each change."""

from __future__ import annotations

from hashlib import blake2b

from app.config import Settings
from app.db import Connection

REVISIONS = "SELECT name, value FROM revisions"

REVISION = "SELECT coalesce((SELECT value FROM revisions WHERE name = $1), 0)"

_BUMP = """
INSERT INTO revisions (name, value) VALUES ($1, 1)
ON CONFLICT (name) DO UPDATE SET value = revisions.value + 1
"""


SETTINGS = "settings"

_KEEP = """
INSERT INTO revisions (name, value) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE revisions.value <> excluded.value
RETURNING (xmax = 0) AS is_first
"""


async def note_settings(connection: Connection, settings: Settings) -> None:
    """Raise the revision of the definitions if settings that they are read with are not those of the last start."""
    told = f"{settings.timezone} {settings.default_journey}".encode()
    digest = int.from_bytes(blake2b(told, digest_size=7).digest())
    is_first = await connection.fetchval(_KEEP, SETTINGS, digest)
    if is_first is False:
        await bump(connection, "definitions")


async def bump(connection: Connection, name: str) -> None:
    await connection.execute(_BUMP, name)
