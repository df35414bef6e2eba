"""Rows of sources and keys. Of a secret key only the SHA-256 is kept, by which keys are looked up."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final

import msgspec

from app.db import Connection
from app.errors import Conflict, NotFound
from app.registry.revisions import REVISION
from app.touchpoint import SourceView

KEY_PREFIX: Final = {"write": "wk_", "secret": "sk_"}

_ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
"""Base 58: no two characters look alike, and a double click selects the whole key."""

_KEY_CHARS: Final = 32

_HINT_CHARS: Final = 7


class Access(msgspec.Struct, frozen=True):
    """Who may do what, at one revision. Keys are looked up by their SHA-256."""

    revision: int
    sources: Mapping[str, SourceView]
    write_keys: Mapping[bytes, SourceView]
    secret_keys: Mapping[bytes, str]


class Source(msgspec.Struct, frozen=True):
    key: str
    name: str
    default_channel: str | None
    identity_properties: Mapping[str, str]
    created_at: int


class Key(msgspec.Struct, frozen=True):
    """A key as it is listed. ``id`` is its SHA-256 in hex; ``key`` is whole only just after it was made."""

    id: str
    kind: str
    source: str | None
    name: str
    hint: str
    created_at: int
    revoked_at: int | None
    key: str | None = None


_ACCESS = """
SELECT k.hash, k.kind, k.source, k.name FROM keys k WHERE k.revoked_at IS NULL
"""

SOURCES = "SELECT key, name, default_channel, identity_properties, created_at FROM sources ORDER BY key"

SOURCE_EXISTS = "SELECT EXISTS (SELECT FROM sources WHERE key = $1)"

_INSERT_SOURCE = """
INSERT INTO sources (key, name, default_channel, identity_properties) VALUES ($1, $2, $3, $4)
ON CONFLICT (key) DO NOTHING
RETURNING key, name, default_channel, identity_properties, created_at
"""

KEYS = """
SELECT hash, kind, source, name, hint, created_at, revoked_at FROM keys ORDER BY created_at, kind DESC, hash
"""

ANY_KEY = "SELECT EXISTS (SELECT FROM keys)"

_INSERT_KEY = """
INSERT INTO keys (hash, kind, source, name, hint) VALUES ($1, $2, $3, $4, $5)
RETURNING hash, kind, source, name, hint, created_at, revoked_at
"""

REVOKE = """
UPDATE keys SET revoked_at = coalesce(revoked_at, now()) WHERE hash = $1
RETURNING hash, kind, source, name, hint, created_at, revoked_at
"""

_decode = msgspec.json.Decoder(float_hook=Decimal).decode

_encode = msgspec.json.Encoder(decimal_format="number").encode


async def read_access(connection: Connection) -> Access:
    """Needs a transaction of one snapshot, so that the revision belongs to what is read."""
    revision: int = await connection.fetchval(REVISION, "access")
    sources = {}
    for row in await connection.fetch(SOURCES):
        source = source_of_row(row)
        sources[source.key] = SourceView(source.key, source.default_channel, dict(source.identity_properties))
    write: dict[bytes, SourceView] = {}
    secret: dict[bytes, str] = {}
    for digest, kind, source_key, name in await connection.fetch(_ACCESS):
        if kind == "secret":
            secret[digest] = name
        elif source_key in sources:
            write[digest] = sources[source_key]
    return Access(revision, sources, write, secret)


async def insert_source(
    connection: Connection, key: str, name: str, default_channel: str | None, identity_properties: Mapping[str, str]
) -> Source:
    row = await connection.fetchrow(_INSERT_SOURCE, key, name, default_channel, _encode(dict(identity_properties)))
    if row is None:
        raise Conflict(f"There is a source {key} already.")
    return source_of_row(row)


async def insert_key(connection: Connection, kind: str, source: str | None, name: str) -> Key:
    key = KEY_PREFIX[kind] + "".join(secrets.choice(_ALPHABET) for _ in range(_KEY_CHARS))
    hint = key if kind == "write" else key[:_HINT_CHARS]
    row = await connection.fetchrow(_INSERT_KEY, hash_of(key), kind, source, name, hint)
    return msgspec.structs.replace(key_of_row(row), key=key)


def source_of_row(row: Any) -> Source:
    key, name, default_channel, identity_properties, created_at = row
    return Source(key, name, default_channel, _decode(identity_properties), created_at)


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
