"""Sources: configured origins of messages. Owns the table sources."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from app.errors import Conflict, NotFound
from app.postgres.pool import Connection, Pool, transact
from app.postgres.revisions import bump_revision
from app.registry.key_store import Key, WriteKeyOptions, insert_key
from app.touchpoint import BotPolicy


class Source(msgspec.Struct, frozen=True):
    """A stored source. ``kind`` is ``sdk`` or the key of a connector; ``options`` are those of its kind."""

    key: str
    name: str
    default_channel: str | None
    identity_properties: Mapping[str, str]
    created_at: int
    bots: BotPolicy = "quarantine"
    kind: str = "sdk"
    options: Mapping[str, str] = {}


_COLUMNS = "key, name, default_channel, identity_properties, created_at, bots, kind, options"

_LIST = f"SELECT {_COLUMNS} FROM sources ORDER BY key"

_EXISTS = "SELECT EXISTS (SELECT FROM sources WHERE key = $1)"

_INSERT = f"""
INSERT INTO sources (key, name, default_channel, identity_properties, bots, kind, options)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (key) DO NOTHING
RETURNING {_COLUMNS}
"""

_CHANGE = f"""
-- Null arguments leave a column unchanged; an empty channel removes the default.
UPDATE sources SET name = coalesce($2, name), default_channel = nullif(coalesce($3, default_channel), ''),
    identity_properties = coalesce($4, identity_properties), bots = coalesce($5, bots),
    options = coalesce($6, options)
WHERE key = $1
RETURNING {_COLUMNS}
"""

_decode = msgspec.json.Decoder(float_hook=Decimal).decode

_encode = msgspec.json.Encoder(decimal_format="number").encode


class SourceStore:
    """Changes sources. ``on_change`` reloads this process; the others notice a change within a second."""

    def __init__(self, pool: Pool, on_change: Callable[[], Awaitable[None]]) -> None:
        self._pool = pool
        self._on_change = on_change

    async def list_all(self) -> list[Source]:
        """Return all sources, ordered by key."""
        return await read_sources(self._pool)

    async def create(
        self,
        key: str,
        name: str,
        default_channel: str | None = None,
        identity_properties: Mapping[str, str] | None = None,
        bots: BotPolicy = "quarantine",
        origins: Sequence[str] = (),
        kind: str = "sdk",
        options: Mapping[str, str] | None = None,
    ) -> tuple[Source, Key]:
        """Create a source and its first write key; raise Conflict if a source with this key exists."""

        async def create(connection: Connection) -> tuple[Source, Key]:
            source = await insert_source(
                connection, key, name, default_channel, identity_properties or {}, bots, kind, options
            )
            write_key = await insert_key(connection, "write", key, name, WriteKeyOptions(origins))
            await bump_revision(connection, "access")
            return source, write_key

        created = await transact(self._pool, create)
        await self._on_change()
        return created

    async def change(
        self,
        key: str,
        *,
        name: str | None = None,
        default_channel: str | None = None,
        identity_properties: Mapping[str, str] | None = None,
        bots: BotPolicy | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Source:
        """Change the fields that are not None; an empty channel removes the default. Raise NotFound."""
        properties = None if identity_properties is None else _encode_texts(identity_properties)
        new_options = None if options is None else _encode_texts(options)

        async def change(connection: Connection) -> Source:
            row = await connection.fetchrow(_CHANGE, key, name, default_channel, properties, bots, new_options)
            if row is None:
                raise NotFound(f"The source {key} does not exist.")
            await bump_revision(connection, "access")
            return _source_from_row(row)

        source = await transact(self._pool, change)
        await self._on_change()
        return source


async def read_sources(connection: Connection | Pool) -> list[Source]:
    """Return all sources, ordered by key."""
    return [_source_from_row(row) for row in await connection.fetch(_LIST)]


async def source_exists(connection: Connection, key: str) -> bool:
    return bool(await connection.fetchval(_EXISTS, key))


async def insert_source(
    connection: Connection,
    key: str,
    name: str,
    default_channel: str | None,
    identity_properties: Mapping[str, str],
    bots: BotPolicy = "quarantine",
    kind: str = "sdk",
    options: Mapping[str, str] | None = None,
) -> Source:
    """Insert a source in the caller's transaction; raise Conflict if it exists."""
    row = await connection.fetchrow(
        _INSERT,
        key,
        name,
        default_channel,
        _encode_texts(identity_properties),
        bots,
        kind,
        _encode_texts(options or {}),
    )
    if row is None:
        raise Conflict(f"The source {key} already exists.")
    return _source_from_row(row)


def _source_from_row(row: Any) -> Source:
    key, name, default_channel, identity_properties, created_at, bots, kind, options = row
    return Source(key, name, default_channel, _decode(identity_properties), created_at, bots, kind, _decode(options))


def _encode_texts(texts: Mapping[str, str]) -> bytes:
    return _encode(dict(texts))
