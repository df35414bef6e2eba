"""The change log of a definition: every version it had, and what became of it."""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from app.errors import NotFound
from app.postgres.pool import Pool
from app.rules.language.fields import KEY_PATTERN

_KEY: Final = re.compile(KEY_PATTERN)
"""The database takes no NUL, not even to say that there is nothing of that name."""

Status = Literal["current", "filling", "superseded", "archived"]

_VERSIONS = """
-- Every version, newest first. The one that took another's place was activated at the very instant.
SELECT d.version, d.name, d.description, d.owner, d.note,
       CASE WHEN d.superseded_at IS NULL AND d.activated_at IS NULL THEN 'filling'
            WHEN d.superseded_at IS NULL THEN 'current'
            WHEN d.activated_at IS NULL OR EXISTS (
                SELECT FROM definitions n
                WHERE n.kind = d.kind AND n.key = d.key AND n.version > d.version AND n.activated_at = d.superseded_at
            ) THEN 'superseded'
            ELSE 'archived' END AS status,
       d.created_at, d.activated_at, d.superseded_at, d.body, d.public
FROM definitions d WHERE d.kind = $1 AND d.key = $2 ORDER BY d.version DESC
"""


class Version(msgspec.Struct, frozen=True):
    """``body`` is JSON: a rule, the stages of a journey, a value expression."""

    version: int
    name: str
    description: str
    owner: str
    note: str
    status: Status
    created_at: int
    activated_at: int | None
    superseded_at: int | None
    body: bytes
    public: bool


async def list_definition_versions(pool: Pool, kind: str, key: str) -> list[Version]:
    """Newest first, those of an archived definition too. Raises :class:`NotFound`."""
    rows = await pool.fetch(_VERSIONS, kind, key) if _KEY.fullmatch(key) else []
    if not rows:
        raise NotFound(f"There never was a {kind} {key}.")
    return [Version(*row) for row in rows]
