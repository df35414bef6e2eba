"""Version history of a definition, with the status of every version."""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from app.errors import NotFound
from app.postgres.pool import Pool
from app.rules.language.fields import KEY_PATTERN

_KEY: Final = re.compile(KEY_PATTERN)
"""Pattern of valid keys. Other keys are not looked up, because they cannot exist and PostgreSQL refuses a text with
NUL."""

Status = Literal["current", "filling", "superseded", "archived"]

_VERSIONS = """
-- Every version, newest first. A version is superseded if a newer one was activated at the instant at which it ended.
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
    """One version of a definition. ``body`` is JSON: a rule, the stages of a journey or a value expression."""

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
    """Return all versions of a definition, including an archived one, newest first.

    Raise :class:`NotFound` if the definition has never existed.
    """
    rows = await pool.fetch(_VERSIONS, kind, key) if _KEY.fullmatch(key) else []
    if not rows:
        raise NotFound(f"The {kind} {key} has never existed.")
    return [Version(*row) for row in rows]
