"""Secrets that verify the webhooks of tools. Owns the table source_secrets.

A token that Segue issued is stored as a hash only, public keys are stored unchanged, and shared secrets are encrypted
if the setting ``secrets_keys`` contains keys. The API never returns a stored secret.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
import structlog
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from app.config import Settings
from app.errors import NotFound
from app.postgres.pool import Connection, Pool, transact
from app.postgres.revisions import bump_revision
from app.touchpoint import SECOND, SourceView

_PLAIN: Final = b"plain:"
_ENCRYPTED: Final = b"fernet:"

_log = structlog.get_logger(__name__)


class WebhookSecret(msgspec.Struct, frozen=True):
    """A secret that is valid until ``expires_at`` (microseconds), or without a time limit if None."""

    value: str
    expires_at: int | None = None


class WebhookSource(msgspec.Struct, frozen=True):
    """A source with the options and secrets of its webhooks. ``kind`` is ``sdk`` if it does not accept webhooks."""

    source: SourceView
    kind: str
    options: Mapping[str, str] = {}
    secrets: tuple[WebhookSecret, ...] = ()

    def list_secrets_at(self, now: int) -> list[str]:
        """Return the valid secrets, newest first, because during a rotation the new one is more likely to match."""
        return [secret.value for secret in self.secrets if secret.expires_at is None or now < secret.expires_at]


class SecretRow(msgspec.Struct, frozen=True):
    """Description of a stored secret, without its value."""

    id: int
    created_at: int
    expires_at: int | None


class SecretBox:
    """Encrypts stored secrets if keys are configured; the first key encrypts, all decrypt."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys]) if keys else None

    def encrypt(self, value: str) -> bytes:
        if self._fernet is None:
            return _PLAIN + value.encode()
        return _ENCRYPTED + self._fernet.encrypt(value.encode())

    def decrypt(self, stored: bytes) -> str | None:
        """Return the secret, or None if its key is missing."""
        if stored.startswith(_PLAIN):
            return stored.removeprefix(_PLAIN).decode()
        try:
            return None if self._fernet is None else self._fernet.decrypt(stored.removeprefix(_ENCRYPTED)).decode()
        except InvalidToken:
            return None


_LIST_ALL = "SELECT source, secret, expires_at FROM source_secrets ORDER BY id DESC"

_LIST_OF_SOURCE = "SELECT id, created_at, expires_at FROM source_secrets WHERE source = $1 ORDER BY id DESC"

_EXPIRE = """
-- Secrets that expire earlier keep their expiry.
UPDATE source_secrets SET expires_at = least(expires_at, $2) WHERE source = $1
"""

_INSERT = """
INSERT INTO source_secrets (source, secret, created_at) VALUES ($1, $2, $3) RETURNING id, created_at, expires_at
"""

_DELETE_EXPIRED = "DELETE FROM source_secrets WHERE source = $1 AND expires_at <= $2"

_DELETE = "DELETE FROM source_secrets WHERE source = $1 AND id = $2 RETURNING id"


async def read_secrets(connection: Connection, secret_box: SecretBox) -> dict[str, tuple[WebhookSecret, ...]]:
    secrets_by_source: dict[str, list[WebhookSecret]] = {}
    for source, stored, expires_at in await connection.fetch(_LIST_ALL):
        value = secret_box.decrypt(stored)
        if value is None:
            _log.error(
                "webhook_secret.decryption_failed", source=source, remedy="Put its key back into SEGUE_SECRETS_KEYS."
            )
        else:
            secrets_by_source.setdefault(source, []).append(WebhookSecret(value, expires_at))
    return {source: tuple(secrets) for source, secrets in secrets_by_source.items()}


class WebhookSecrets:
    """Changes webhook secrets. ``on_change`` reloads this process; the others notice a change within a second."""

    def __init__(self, pool: Pool, settings: Settings, on_change: Callable[[], Awaitable[None]]) -> None:
        self._pool = pool
        self._secret_box = SecretBox(settings.secrets_keys)
        self._on_change = on_change

    async def list_for_source(self, source: str) -> list[SecretRow]:
        return [SecretRow(*row) for row in await self._pool.fetch(_LIST_OF_SOURCE, source)]

    async def add(self, source: str, value: str, overlap_seconds: int, now: int) -> SecretRow:
        """Add a secret to an existing source; the older ones stay valid for ``overlap_seconds``."""

        async def insert(connection: Connection) -> Any:
            await connection.execute(_EXPIRE, source, now + overlap_seconds * SECOND)
            await connection.execute(_DELETE_EXPIRED, source, now)
            row = await connection.fetchrow(_INSERT, source, self._secret_box.encrypt(value), now)
            await bump_revision(connection, "access")
            return row

        row = await transact(self._pool, insert)
        await self._on_change()
        return SecretRow(*row)

    async def delete(self, source: str, id: int) -> None:
        """Delete a secret, which becomes invalid at once; raise NotFound."""

        async def delete(connection: Connection) -> None:
            if await connection.fetchval(_DELETE, source, id) is None:
                raise NotFound(f"The source {source} has no secret {id}.")
            await bump_revision(connection, "access")

        await transact(self._pool, delete)
        await self._on_change()
