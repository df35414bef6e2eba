"""Access control: a cached snapshot of all keys and the permissions of each key.

A process holds one :class:`AccessSnapshot` and replaces it when the counter ``access`` in the table ``revisions`` has
changed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from app.config import Settings
from app.postgres.pool import Connection, Pool
from app.postgres.revisions import READ_REVISION
from app.registry.key_store import KeyTrust, hash_key
from app.registry.source_store import read_sources
from app.registry.webhook_secrets import SecretBox, WebhookSource, read_secrets
from app.touchpoint import SourceView, Trust

_NEVER_READ: Final = -1
_UNKNOWN_KEY_SECONDS: Final = 0.05


class WriteKeyGrant(msgspec.Struct, frozen=True):
    """Permissions of a write key.

    ``origins`` are the origins of pages that may use the key; if empty, all may. ``wildcards`` are the origins with a
    star, such as ``https://*.example.com``, split at the star. ``trusts_identify`` allows a page to read the profile of
    the user id that it sends. ``source`` contains the trust of the key.
    """

    source: SourceView
    origins: frozenset[str] = frozenset()
    wildcards: tuple[tuple[str, str], ...] = ()
    trusts_identify: bool = False

    def allows_origin(self, origin: str) -> bool:
        """Return True if pages of this origin may use the key. Pages must not use server keys at all."""
        if self.source.trust == "server":
            return False
        if not self.origins:
            return True
        return origin in self.origins or any(
            len(origin) > len(head) + len(tail) and origin.startswith(head) and origin.endswith(tail)
            for head, tail in self.wildcards
        )


class AccessSnapshot(msgspec.Struct, frozen=True):
    """Sources and keys at one revision. Keys are looked up by their SHA-256.

    ``signing_keys`` are those of visitor tokens, oldest first: the last one signs, all verify. ``webhook_sources``
    contain the options and secrets with which webhooks of a source are received.
    """

    revision: int
    sources: Mapping[str, SourceView]
    write_keys: Mapping[bytes, WriteKeyGrant]
    secret_keys: Mapping[bytes, str]
    signing_keys: tuple[bytes, ...] = ()
    webhook_sources: Mapping[str, WebhookSource] = {}


_LIST_KEYS = """
SELECT hash, kind, source, name, origins, trusts_identify, trust, joins_users FROM keys WHERE revoked_at IS NULL
"""

_LIST_SIGNING_KEYS = "SELECT secret FROM signing_keys ORDER BY id"


class AccessCache:
    """Cache of the access snapshot of this process."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._secret_box = SecretBox(settings.secrets_keys)
        self._checked_at = float("-inf")
        self.current = AccessSnapshot(_NEVER_READ, {}, {}, {})
        self.used_keys: set[bytes] = set()
        """SHA-256 of the valid keys of requests since the last :meth:`take_used_keys`."""

    async def find_write_key(self, key: str) -> WriteKeyGrant | None:
        """Return the permissions of a write key; None if it is unknown or revoked."""
        digest = hash_key(key)
        grant = self.current.write_keys.get(digest)
        if grant is None and await self._refresh_for_unknown_key():
            grant = self.current.write_keys.get(digest)
        if grant is not None:
            self.used_keys.add(digest)
        return grant

    async def find_source(self, write_key: str) -> SourceView | None:
        """Return the source of a write key; None if the key is unknown or revoked."""
        grant = await self.find_write_key(write_key)
        return None if grant is None else grant.source

    async def is_secret_key(self, key: str) -> bool:
        """Return True if the key is a valid secret key."""
        digest = hash_key(key)
        is_valid = digest in self.current.secret_keys or (
            await self._refresh_for_unknown_key() and digest in self.current.secret_keys
        )
        if is_valid:
            self.used_keys.add(digest)
        return is_valid

    def take_used_keys(self) -> set[bytes]:
        """Return the keys used since the last call, as SHA-256, and forget them."""
        used, self.used_keys = self.used_keys, set()
        return used

    def has_server_key(self, key: str) -> bool:
        """Return True if the text is a server key."""
        grant = self.current.write_keys.get(hash_key(key))
        return grant is not None and grant.source.trust == "server"

    def has_write_key(self, key: str) -> bool:
        """Return True if the text is a valid write key. An error can then explain that a secret key is needed."""
        return hash_key(key) in self.current.write_keys

    async def refresh(self) -> None:
        """Read the snapshot again if the counter ``access`` has changed."""
        async with self._pool.acquire() as connection:
            if await connection.fetchval(READ_REVISION, "access") != self.current.revision:
                await self.reload(connection)

    async def reload(self, connection: Connection) -> None:
        """Read the snapshot again, in one repeatable-read transaction."""
        async with connection.transaction(isolation="repeatable_read"):
            await self.read(connection)

    async def read(self, connection: Connection) -> None:
        """Read the snapshot inside the caller's transaction, whose isolation must be repeatable_read."""
        self.current = await _read_snapshot(connection, self._secret_box)

    async def _refresh_for_unknown_key(self) -> bool:
        """Refresh the snapshot, because an unknown key may be a new one; return True if it has changed.

        The counter is read at most every 50 ms, so that forged keys cost little. A longer pause would refuse keys that
        have just been created, and SDKs drop messages that are answered with 401.
        """
        now = time.monotonic()
        if now - self._checked_at < _UNKNOWN_KEY_SECONDS:
            return False
        self._checked_at = now
        revision = self.current.revision
        await self.refresh()
        return self.current.revision != revision


async def _read_snapshot(connection: Connection, secret_box: SecretBox) -> AccessSnapshot:
    revision: int = await connection.fetchval(READ_REVISION, "access")
    secrets = await read_secrets(connection, secret_box)
    sources: dict[str, SourceView] = {}
    webhook_sources: dict[str, WebhookSource] = {}
    for source in await read_sources(connection):
        view = SourceView(source.key, source.default_channel, dict(source.identity_properties), source.bots)
        sources[source.key] = view
        verified_view = msgspec.structs.replace(view, trust="server")  # only verified deliveries use it
        webhook_sources[source.key] = WebhookSource(
            verified_view, source.kind, source.options, secrets.get(source.key, ())
        )
    write_keys: dict[bytes, WriteKeyGrant] = {}
    secret_keys: dict[bytes, str] = {}
    for digest, kind, source_key, name, origins, trusts_identify, *trust in await connection.fetch(_LIST_KEYS):
        if kind == "secret":
            secret_keys[digest] = name
        elif source_key in sources:
            trusted_view = msgspec.structs.replace(sources[source_key], trust=_trust_of_key(*trust))
            write_keys[digest] = _build_grant(trusted_view, origins, trusts_identify)
    signing_keys = tuple(row["secret"] for row in await connection.fetch(_LIST_SIGNING_KEYS))
    return AccessSnapshot(revision, sources, write_keys, secret_keys, signing_keys, webhook_sources)


def _trust_of_key(trust: KeyTrust, joins_users: bool) -> Trust:
    if trust == "server":
        return "server"
    return "alias" if joins_users else "public"


def _build_grant(source: SourceView, origins: Sequence[str], trusts_identify: bool) -> WriteKeyGrant:
    wildcards = tuple((head, tail) for head, star, tail in (origin.partition("*") for origin in origins) if star)
    return WriteKeyGrant(source, frozenset(origins), wildcards, trusts_identify)
