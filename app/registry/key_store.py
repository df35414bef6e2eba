"""API keys, and the secrets that sign visitor tokens. Owns the tables keys and signing_keys.

Keys are looked up by their SHA-256; a secret key itself is not stored.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Collection, Sequence
from hashlib import sha256
from typing import Any, Final, Literal, assert_never

import msgspec

from app.errors import BadRequest, LastSecretKey, NotFound
from app.postgres.pool import Connection, Pool, transact
from app.postgres.revisions import bump_revision

KeyKind = Literal["write", "secret"]
KeyTrust = Literal["public", "server"]
"""A public write key may be in a page, where every visitor can read it; a server key must stay secret."""

KEY_PREFIX: Final[dict[KeyKind, str]] = {"write": "wk_", "secret": "sk_"}

_ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
"""Base 58: without characters that are easily confused; a double click selects the whole key."""

_KEY_CHARS: Final = 32
_SIGNING_BYTES: Final = 32
_HINT_CHARS: Final = 7
_WRITE_KEYS_NEED_A_SOURCE: Final = "A write key needs a source; a secret key must not have one."
_ONLY_WRITE_KEYS: Final = "Only write keys can have origins, trusts_identify, trust and joins_users."
_SERVER_KEYS_ARE_NOT_FOR_PAGES: Final = "A server key must not be used in pages, so it cannot have origins."


class WriteKeyOptions(msgspec.Struct, frozen=True):
    """Permissions of a write key. With ``joins_users``, an alias of a public key may join two user ids."""

    origins: Sequence[str] = ()
    trusts_identify: bool = False
    trust: KeyTrust = "public"
    joins_users: bool = False


NO_OPTIONS: Final = WriteKeyOptions()


class Key(msgspec.Struct, frozen=True):
    """A stored key. ``id`` is the SHA-256 of the key in hex; ``key`` is the whole key, set only by its creation."""

    id: str
    kind: KeyKind
    source: str | None
    name: str
    hint: str
    created_at: int
    revoked_at: int | None
    origins: Sequence[str] = ()
    trusts_identify: bool = False
    last_used_at: int | None = None
    trust: KeyTrust = "public"
    joins_users: bool = False
    key: str | None = None


_COLUMNS = (
    "hash, kind, source, name, hint, created_at, revoked_at, origins, trusts_identify, last_used_at, trust, joins_users"
)

_LIST = f"SELECT {_COLUMNS} FROM keys ORDER BY created_at, kind DESC, hash"

_ANY = "SELECT EXISTS (SELECT FROM keys)"

_KIND = "SELECT kind, origins, trust FROM keys WHERE hash = $1"

_SOURCE_EXISTS = "SELECT EXISTS (SELECT FROM sources WHERE key = $1)"

_INSERT = f"""
INSERT INTO keys (hash, kind, source, name, hint, origins, trusts_identify, trust, joins_users)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
RETURNING {_COLUMNS}
"""

_CHANGE = f"""
-- Null arguments leave a column unchanged.
UPDATE keys SET name = coalesce($2, name), origins = coalesce($3, origins),
    trusts_identify = coalesce($4, trusts_identify), trust = coalesce($5, trust),
    joins_users = coalesce($6, joins_users)
WHERE hash = $1
RETURNING {_COLUMNS}
"""

_REVOKE = f"""
UPDATE keys SET revoked_at = coalesce(revoked_at, now()) WHERE hash = $1
RETURNING {_COLUMNS}
"""

_LOCK_ACTIVE_SECRET_KEYS = """
-- The locks make a concurrent revocation of another key wait, so that two of them cannot revoke the last two keys.
SELECT hash FROM keys WHERE kind = 'secret' AND revoked_at IS NULL ORDER BY hash FOR UPDATE
"""

_RECORD_USES = """
-- Rows are locked in the order of their keys, so that two processes cannot deadlock.
UPDATE keys SET last_used_at = $2
WHERE hash IN (
    SELECT hash FROM keys WHERE hash = ANY($1) AND coalesce(last_used_at < $2, true) ORDER BY hash FOR UPDATE
)
"""

_LOCK_SIGNING_KEYS = """
-- Processes that start together with a new database must not create several signing keys.
SELECT pg_advisory_xact_lock(hashtext('segue.signing_keys'))
"""

_ANY_SIGNING_KEY = "SELECT EXISTS (SELECT FROM signing_keys)"

_DROP_SIGNING_KEYS = "DELETE FROM signing_keys"

_INSERT_SIGNING_KEY = "INSERT INTO signing_keys (secret) VALUES ($1)"


class KeyStore:
    """Changes keys. ``on_change`` reloads this process; the others notice a change within a second."""

    def __init__(self, pool: Pool, on_change: Callable[[], Awaitable[None]]) -> None:
        self._pool = pool
        self._on_change = on_change

    async def list_all(self) -> list[Key]:
        """Return all keys including revoked ones, oldest first."""
        return [_key_from_row(row) for row in await self._pool.fetch(_LIST)]

    async def create(
        self,
        kind: KeyKind,
        source: str | None,
        name: str,
        options: WriteKeyOptions = NO_OPTIONS,
    ) -> Key:
        """Create a key; only this result contains the whole key. A write key belongs to a source.

        Raises:
            BadRequest: the options do not match the kind.
            NotFound: the source does not exist.
        """
        match kind:
            case "write":
                if source is None:
                    raise BadRequest(_WRITE_KEYS_NEED_A_SOURCE)
            case "secret":
                if source is not None:
                    raise BadRequest(_WRITE_KEYS_NEED_A_SOURCE)
                if options != NO_OPTIONS:
                    raise BadRequest(_ONLY_WRITE_KEYS)
            case _:
                assert_never(kind)
        _check_origins(options.trust, options.origins)

        async def create(connection: Connection) -> Key:
            if source is not None and not await connection.fetchval(_SOURCE_EXISTS, source):
                raise NotFound(f"The source {source} does not exist.")
            key = await insert_key(connection, kind, source, name, options)
            await bump_revision(connection, "access")
            return key

        key = await transact(self._pool, create)
        await self._on_change()
        return key

    async def change(
        self,
        id: str,
        *,
        name: str | None = None,
        origins: Sequence[str] | None = None,
        trusts_identify: bool | None = None,
        trust: KeyTrust | None = None,
        joins_users: bool | None = None,
    ) -> Key:
        """Change the fields that are not None; raise NotFound, or BadRequest for options of a secret key."""
        digest = _parse_key_id(id)

        async def change(connection: Connection) -> Key:
            stored = await connection.fetchrow(_KIND, digest)
            if stored is None:
                raise NotFound("The key does not exist.")
            if stored["kind"] == "secret" and (origins or trusts_identify or trust == "server" or joins_users):
                raise BadRequest(_ONLY_WRITE_KEYS)
            new_origins = None if origins is None else [*origins]
            _check_origins(trust or stored["trust"], stored["origins"] if new_origins is None else new_origins)
            row = await connection.fetchrow(_CHANGE, digest, name, new_origins, trusts_identify, trust, joins_users)
            await bump_revision(connection, "access")
            return _key_from_row(row)

        key = await transact(self._pool, change)
        await self._on_change()
        return key

    async def revoke(self, id: str, *, even_last: bool = False) -> Key:
        """Revoke a key, given its id (SHA-256 in hex) or the key itself. May be called again.

        Raises:
            NotFound: the key does not exist.
            LastSecretKey: it is the only valid secret key, and ``even_last`` is False.
        """
        digest = _parse_key_id(id)

        async def revoke(connection: Connection) -> Key:
            active = [row["hash"] for row in await connection.fetch(_LOCK_ACTIVE_SECRET_KEYS)]
            if active == [digest] and not even_last:
                raise LastSecretKey
            row = await connection.fetchrow(_REVOKE, digest)
            if row is None:
                raise NotFound("The key does not exist.")
            await bump_revision(connection, "access")
            return _key_from_row(row)

        key = await transact(self._pool, revoke)
        await self._on_change()
        return key

    async def renew_signing_key(self, *, only_first: bool = False, revoke: bool = False) -> None:
        """Sign visitor tokens with a new secret from now on.

        Older tokens stay valid until they expire; with ``revoke`` they become invalid at once. With ``only_first``, do
        nothing if a secret exists.
        """

        async def renew(connection: Connection) -> None:
            await connection.execute(_LOCK_SIGNING_KEYS)
            if only_first and await connection.fetchval(_ANY_SIGNING_KEY):
                return
            if revoke:
                await connection.execute(_DROP_SIGNING_KEYS)
            await connection.execute(_INSERT_SIGNING_KEY, secrets.token_bytes(_SIGNING_BYTES))
            await bump_revision(connection, "access")

        await transact(self._pool, renew)
        await self._on_change()


async def record_uses(pool: Pool, digests: Collection[bytes], now: int) -> None:
    """Store ``now``, in microseconds, as the last use of these keys, given as SHA-256."""
    await pool.execute(_RECORD_USES, [*digests], now)


async def has_keys(connection: Connection) -> bool:
    """Return True if the workspace has any key, including revoked ones."""
    return bool(await connection.fetchval(_ANY))


async def insert_key(
    connection: Connection,
    kind: KeyKind,
    source: str | None,
    name: str,
    options: WriteKeyOptions = NO_OPTIONS,
) -> Key:
    """Insert a new random key, in the caller's transaction."""
    key = KEY_PREFIX[kind] + "".join(secrets.choice(_ALPHABET) for _ in range(_KEY_CHARS))
    hint = key if kind == "write" else key[:_HINT_CHARS]
    row = await connection.fetchrow(
        _INSERT,
        hash_key(key),
        kind,
        source,
        name,
        hint,
        [*options.origins],
        options.trusts_identify,
        options.trust,
        options.joins_users,
    )
    return msgspec.structs.replace(_key_from_row(row), key=key)


def _check_origins(trust: KeyTrust, origins: Sequence[str]) -> None:
    if trust == "server" and origins:
        raise BadRequest(_SERVER_KEYS_ARE_NOT_FOR_PAGES)


def hash_key(key: str) -> bytes:
    """Return the SHA-256 of a key."""
    return sha256(key.encode("utf-8", "surrogatepass")).digest()


def _key_from_row(row: Any) -> Key:
    digest, *rest = row
    return Key(digest.hex(), *rest)


def _parse_key_id(id: str) -> bytes:
    """Return the SHA-256 of a key, given its id (SHA-256 in hex) or the key itself; raise NotFound."""
    if id.startswith(tuple(KEY_PREFIX.values())):
        return hash_key(id)
    try:
        return bytes.fromhex(id)
    except ValueError:
        raise NotFound("The key does not exist.") from None
