"""Rows of sources and keys. Of a secret key only the SHA-256 is kept, by which keys are looked up."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final

import msgspec

from app.errors import Conflict, NotFound
from app.postgres.pool import Connection
from app.postgres.revisions import REVISION
from app.registry.webhook_secrets import SecretBox, WebhookSource, read_secrets
from app.touchpoint import SourceView

KEY_PREFIX: Final = {"write": "wk_", "secret": "sk_"}

_ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
"""Base 58: no two characters look alike, and a double click selects the whole key."""

_KEY_CHARS: Final = 32

_SIGNING_BYTES: Final = 32

_HINT_CHARS: Final = 7


class WriteKeyGrant(msgspec.Struct, frozen=True):
    """What a request is allowed by its write key.

    ``origins`` are the pages that may use it (none: any), ``wild`` those given as ``https://*.example.com``, parted at
    the star. ``trusts_identify``: a page may be shown the customer that it says it is.
    """

    source: SourceView
    origins: frozenset[str] = frozenset()
    wild: tuple[tuple[str, str], ...] = ()
    trusts_identify: bool = False

    def admits(self, origin: str) -> bool:
        if not self.origins:
            return True
        return origin in self.origins or any(
            len(origin) > len(head) + len(tail) and origin.startswith(head) and origin.endswith(tail)
            for head, tail in self.wild
        )


class Access(msgspec.Struct, frozen=True):
    """Who may do what, at one revision. Keys are looked up by their SHA-256.

    ``signing`` are the secrets that sign the tokens of visitors, oldest first: the last signs, all verify. ``hooks``
    are what receiving the webhooks of a source needs.
    """

    revision: int
    sources: Mapping[str, SourceView]
    write_keys: Mapping[bytes, WriteKeyGrant]
    secret_keys: Mapping[bytes, str]
    signing: tuple[bytes, ...] = ()
    hooks: Mapping[str, WebhookSource] = {}


class Source(msgspec.Struct, frozen=True):
    key: str
    name: str
    default_channel: str | None
    identity_properties: Mapping[str, str]
    created_at: int
    bots: str = "apart"
    kind: str = "sdk"
    options: Mapping[str, str] = {}


class Key(msgspec.Struct, frozen=True):
    """A key as it is listed. ``id`` is its SHA-256 in hex; ``key`` is whole only just after it was made."""

    id: str
    kind: str
    source: str | None
    name: str
    hint: str
    created_at: int
    revoked_at: int | None
    origins: Sequence[str] = ()
    trusts_identify: bool = False
    key: str | None = None


_ACCESS = """
SELECT k.hash, k.kind, k.source, k.name, k.origins, k.trusts_identify FROM keys k WHERE k.revoked_at IS NULL
"""

_SIGNING = "SELECT secret FROM signing_keys ORDER BY id"

SIGNING_LOCK = """
-- Processes that start together over a new database must not each make a key.
SELECT pg_advisory_xact_lock(hashtext('segue.signing_keys'))
"""

ANY_SIGNING_KEY = "SELECT EXISTS (SELECT FROM signing_keys)"

DROP_SIGNING_KEYS = "DELETE FROM signing_keys"

_INSERT_SIGNING_KEY = "INSERT INTO signing_keys (secret) VALUES ($1)"

_SOURCE_COLUMNS = "key, name, default_channel, identity_properties, created_at, bots, kind, options"

_KEY_COLUMNS = "hash, kind, source, name, hint, created_at, revoked_at, origins, trusts_identify"

SOURCES = f"SELECT {_SOURCE_COLUMNS} FROM sources ORDER BY key"

SOURCE_EXISTS = "SELECT EXISTS (SELECT FROM sources WHERE key = $1)"

_INSERT_SOURCE = f"""
INSERT INTO sources (key, name, default_channel, identity_properties, bots, kind, options)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (key) DO NOTHING
RETURNING {_SOURCE_COLUMNS}
"""

CHANGE_SOURCE = f"""
-- What is null stays as it is; an empty channel takes the default away.
UPDATE sources SET name = coalesce($2, name), default_channel = nullif(coalesce($3, default_channel), ''),
    identity_properties = coalesce($4, identity_properties), bots = coalesce($5, bots),
    options = coalesce($6, options)
WHERE key = $1
RETURNING {_SOURCE_COLUMNS}
"""

KEYS = f"SELECT {_KEY_COLUMNS} FROM keys ORDER BY created_at, kind DESC, hash"

KIND_OF_KEY = "SELECT kind FROM keys WHERE hash = $1"

CHANGE_KEY = f"""
-- What is null stays as it is.
UPDATE keys SET name = coalesce($2, name), origins = coalesce($3, origins),
    trusts_identify = coalesce($4, trusts_identify)
WHERE hash = $1
RETURNING {_KEY_COLUMNS}
"""

ANY_KEY = "SELECT EXISTS (SELECT FROM keys)"

_INSERT_KEY = f"""
INSERT INTO keys (hash, kind, source, name, hint, origins, trusts_identify) VALUES ($1, $2, $3, $4, $5, $6, $7)
RETURNING {_KEY_COLUMNS}
"""

REVOKE = f"""
UPDATE keys SET revoked_at = coalesce(revoked_at, now()) WHERE hash = $1
RETURNING {_KEY_COLUMNS}
"""

_decode = msgspec.json.Decoder(float_hook=Decimal).decode

_encode = msgspec.json.Encoder(decimal_format="number").encode


async def read_access(connection: Connection, seal: SecretBox) -> Access:
    """Needs a transaction of one snapshot, so that the revision belongs to what is read."""
    revision: int = await connection.fetchval(REVISION, "access")
    sources = {}
    hooks = {}
    known = await read_secrets(connection, seal)
    for row in await connection.fetch(SOURCES):
        source = source_of_row(row)
        sources[source.key] = SourceView(
            source.key, source.default_channel, dict(source.identity_properties), source.bots
        )
        hooks[source.key] = WebhookSource(sources[source.key], source.kind, source.options, known.get(source.key, ()))
    write: dict[bytes, WriteKeyGrant] = {}
    secret: dict[bytes, str] = {}
    for digest, kind, source_key, name, origins, trusts_identify in await connection.fetch(_ACCESS):
        if kind == "secret":
            secret[digest] = name
        elif source_key in sources:
            write[digest] = _key_view(sources[source_key], origins, trusts_identify)
    signing = tuple(row["secret"] for row in await connection.fetch(_SIGNING))
    return Access(revision, sources, write, secret, signing, hooks)


def _key_view(source: SourceView, origins: Sequence[str], trusts_identify: bool) -> WriteKeyGrant:
    wild = tuple((head, tail) for head, star, tail in (origin.partition("*") for origin in origins) if star)
    return WriteKeyGrant(source, frozenset(origins), wild, trusts_identify)


async def insert_signing_key(connection: Connection) -> None:
    await connection.execute(_INSERT_SIGNING_KEY, secrets.token_bytes(_SIGNING_BYTES))


async def insert_source(
    connection: Connection,
    key: str,
    name: str,
    default_channel: str | None,
    identity_properties: Mapping[str, str],
    bots: str = "apart",
    kind: str = "sdk",
    options: Mapping[str, str] | None = None,
) -> Source:
    row = await connection.fetchrow(
        _INSERT_SOURCE,
        key,
        name,
        default_channel,
        encode_properties(identity_properties),
        bots,
        kind,
        encode_properties(options or {}),
    )
    if row is None:
        raise Conflict(f"There is a source {key} already.")
    return source_of_row(row)


async def insert_key(
    connection: Connection,
    kind: str,
    source: str | None,
    name: str,
    origins: Sequence[str] = (),
    trusts_identify: bool = False,
) -> Key:
    key = KEY_PREFIX[kind] + "".join(secrets.choice(_ALPHABET) for _ in range(_KEY_CHARS))
    hint = key if kind == "write" else key[:_HINT_CHARS]
    row = await connection.fetchrow(_INSERT_KEY, hash_of(key), kind, source, name, hint, list(origins), trusts_identify)
    return msgspec.structs.replace(key_of_row(row), key=key)


def source_of_row(row: Any) -> Source:
    key, name, default_channel, identity_properties, created_at, bots, kind, options = row
    return Source(key, name, default_channel, _decode(identity_properties), created_at, bots, kind, _decode(options))


def encode_properties(identity_properties: Mapping[str, str]) -> bytes:
    return _encode(dict(identity_properties))


def key_of_row(row: Any) -> Key:
    digest, *rest = row
    return Key(digest.hex(), *rest)


def hash_of(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogatepass")).digest()


def digest_of(id: str) -> bytes:
    try:
        return bytes.fromhex(id)
    except ValueError:
        raise NotFound("There is no such key.") from None
